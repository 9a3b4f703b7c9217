"""The doctor: ``flask sse doctor``, which looks for what keeps events from browsers.

Here lives the order in which things are looked at. ``codes`` has what can be wrong and
how it is mended, ``report`` how it is told. ``inside``, ``stores``, ``processes`` and
``middlewares`` look at the application and its machine. ``visit`` and what it calls ask
a running server, over HTTP, as a browser does. ``account`` is the server's part: what
it tells a doctor of itself.

A doctor changes nothing that runs. It opens a few short streams, and publishes three to
thirty small events to a channel that nobody else has.
"""

from __future__ import annotations

from collections.abc import Iterable

from flask import Flask

from ..channels import Channels
from ..errors import BrokerUnavailable, InvalidValue
from . import inside, middlewares, processes, stores, visit
from .case import PATIENCE as PATIENCE
from .case import Case
from .case import Wanted as Wanted
from .codes import CODES
from .report import Report


def headers_of(lines: Iterable[str]) -> dict[str, str]:
    """Headers that an operator has written as ``Name: value``.

    :raises InvalidValue: for a line that is none.
    """
    found = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not (colon and name.strip()):
            raise InvalidValue(f"A header is like 'Cookie: session=…', not {line!r}")
        found[name.strip()] = value.strip()
    return found


def examine(app: Flask, wanted: Wanted | None, ignored: Iterable[str] = ()) -> Report:
    """Look at an application, and at the server at an address. Must be called in the
    application's context.

    :param wanted: what to ask the server; None to look at the application alone.
    :param ignored: codes of which the operator does not want to hear.
    :raises InvalidValue: for an unknown code, or an address that cannot be one.
    """
    if unknown := set(ignored) - CODES.keys():
        raise InvalidValue(f"No finding has the code {min(unknown)!r}")
    channels: Channels = app.extensions["sse"]
    report = Report(frozenset(ignored))
    inside.examine(app, channels, report)
    if report.says("settings", "wrong"):
        return report
    stores.examine(channels, report)
    processes.examine(app, channels, report)
    middlewares.examine(app, report)
    if wanted:
        try:
            visit.examine(Case(app, channels, wanted, report))
        except BrokerUnavailable as error:
            report.wrong("broker", "The broker cannot be reached.", f"{error}.")
    return report
