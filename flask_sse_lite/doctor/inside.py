"""Inside: the configuration of an application, and the limits of its machine.

Here lives what can be seen without asking a broker or a server. ``settings`` has which
values a setting can have.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from flask import Flask

from ..channels import Channels
from ..errors import SSEError
from ..settings import Settings
from ..system.open_files import room_for_streams
from .report import Report

#: The options of a broker's URL that overrule a setting, each with its key.
OVERRULING = {"history": "SSE_HISTORY", "age": "SSE_HISTORY_AGE"}


def examine(app: Flask, channels: Channels, report: Report) -> None:
    """Look at the configuration."""
    config = app.config
    _judge_unread_keys(config, report)
    _judge_unread_urls(config, report)
    try:
        # What was set up can have been changed since.
        settings = Settings.read(config)
        channels.check_configuration()
    except SSEError as error:
        report.wrong("settings", f"{error}.", "Reading the configuration failed.")
        return
    report.ok("settings", "The configuration can be read.")
    _judge_overruled(config, settings, report)
    _judge_open_files(settings, report)


def _judge_unread_keys(config: Mapping[str, Any], report: Report) -> None:
    unread = Settings.misspelt(config)
    if not unread:
        report.ok("unread-settings", "Every SSE_… key is read.")
        return
    told = (
        f"{key} (is {known} meant?)" if known else key for key, known in unread.items()
    )
    report.warning(
        "unread-settings",
        f"Nobody reads: {', '.join(told)}.",
        "No setting has that name.",
    )


def _judge_unread_urls(config: Mapping[str, Any], report: Report) -> None:
    has_url = config.get("SSE_URL") or config.get("SSE_REDIS_URL")
    if has_url:
        report.ok("unread-url", "The broker's URL is read.")
    elif config.get("REDIS_URL") or os.environ.get("SSE_URL"):
        where = (
            'app.config["REDIS_URL"]'
            if config.get("REDIS_URL")
            else "the environment, as SSE_URL"
        )
        report.warning(
            "unread-url",
            f"A URL stands in {where}, where it is not read: events stay in one "
            "process.",
            'app.config["SSE_URL"] is not set.',
        )
    else:
        report.ok("unread-url", "No URL is set: events stay in one process.")


def _judge_overruled(
    config: Mapping[str, Any], settings: Settings, report: Report
) -> None:
    options = parse_qs(settings.url.partition("?")[2])
    overruled = [
        f"{key} by ?{option}={options[option][-1]}"
        for option, key in OVERRULING.items()
        if option in options and config.get(key) is not None
    ]
    if overruled:
        report.warning(
            "overruled-settings",
            f"A setting has no effect: {', '.join(overruled)}.",
            "Both are set, and the URL's option goes before the key.",
        )
    else:
        report.ok("overruled-settings", "No option of the URL overrules a setting.")


def _judge_open_files(settings: Settings, report: Report) -> None:
    """Judge this process's limit, which is the server's where both are started
    alike."""
    room, most = room_for_streams(), settings.max_connections
    if most is not None and most > room:
        report.wrong(
            "open-files",
            f"SSE_MAX_CONNECTIONS is {most}, and there are file descriptors for {room} "
            "streams.",
            "The limit on open files of this command (ulimit -n) leaves no more. The "
            "server's can be another.",
        )
    else:
        report.ok("open-files", f"A process has descriptors for {room} streams.")
