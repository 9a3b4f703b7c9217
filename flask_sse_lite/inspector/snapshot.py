"""A snapshot: what one worker tells of itself to those who inspect the application.

Here lives what is told, and how much of it at most. When it is told lives in
reporting.py, and how it is shown in ``static/``. Nothing here waits or asks a store.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator
from typing import Any

from ..channels import Channels
from ..event import RESERVED_CHANNEL_PREFIX
from ..hub import current_hub
from ..position import RUN_PREFIX

#: Connections, channels and runs that a worker tells of. All of them together make some
#: 40 kB of JSON, which the store takes each second while somebody looks, and then keeps
#: as any event. The page says how many there are besides.
MOST_CONNECTIONS = 100
MOST_CHANNELS = 100
MOST_RUNS = 50

#: Characters of an identity, and channels of one connection, that are told. An identity
#: that is cut can still be disconnected by hand.
MOST_CHARACTERS = 200
MOST_NAMES = 8

#: Characters of the JSON of connections, and of that of channels. Strangers can choose
#: names that would make a hundred times as much.
MOST_JSON = 50_000

#: Characters of a channel's name that are told of one connection.
MOST_OF_A_NAME = 50


def is_shown(channel: str) -> bool:
    """Whether an inspector shows a channel: the extension's own, but for runs, are of
    no use to anybody."""
    is_own = channel.startswith(RESERVED_CHANNEL_PREFIX)
    return not is_own or channel.startswith(RUN_PREFIX)


def snapshot(channels: Channels, worker: str) -> dict[str, Any]:
    """What this process can tell, as JSON.

    :param worker: the name by which the page knows this process.
    """
    hub, broker = current_hub(), channels.broker
    counts = hub.counts(broker.log)
    listeners = {name: count for name, count in counts.items() if is_shown(name)}
    return {
        "worker": worker,
        "pid": os.getpid(),
        "host": platform.node(),
        "time": time.time(),
        "shared": broker.is_shared,
        # The workers of one server have one parent.
        "parent": os.getppid(),
        "processes": channels.processes,
        "several": channels.processes != 1,
        "away": broker.is_away,
        "reconnects": broker.reconnects,
        "stats": hub.stats(),
        "channels": _channels(channels, listeners),
        "inspectors": sum(counts.values()) - sum(listeners.values()),
        "connections": _connections(channels),
        "runs": _runs(channels),
    }


def _channels(channels: Channels, listeners: dict[str, int]) -> list[dict[str, Any]]:
    found = channels.log.glances(listeners, MOST_CHANNELS + MOST_RUNS)
    rows = [
        {
            "name": glance.name,
            "listeners": listeners.get(glance.name, 0),
            "events": glance.events,
            "bytes": glance.size,
            "rate": round(glance.rate, 2),
        }
        for glance in found
        if is_shown(glance.name)
    ][:MOST_CHANNELS]
    return list(_bounded(rows))


def _connections(channels: Channels) -> list[dict[str, Any]]:
    found = current_hub().open_streams(channels.log, MOST_CONNECTIONS)
    rows = [
        {
            "name": stream.name,
            "path": stream.path,
            "why": stream.reason,
            "channels": [_cut(name) for name in stream.channels[:MOST_NAMES]],
            "more_channels": max(len(stream.channels) - MOST_NAMES, 0),
            "identity": stream.identity and stream.identity[:MOST_CHARACTERS],
            "age": round(stream.age, 1),
            "behind": stream.behind,
            "waiting": stream.waiting,
            "bytes": stream.taken,
        }
        for stream in found
        if any(map(is_shown, stream.channels))
    ]
    return list(_bounded(rows))


def _cut(name: str) -> str:
    return name if len(name) <= MOST_OF_A_NAME else f"{name[: MOST_OF_A_NAME - 1]}…"


def _bounded(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The first rows, as long as their JSON has no more than ``MOST_JSON``."""
    left = MOST_JSON
    for row in rows:
        left -= len(json.dumps(row))
        if left < 0:
            return
        yield row


def _runs(channels: Channels) -> list[dict[str, Any]]:
    now = time.monotonic()
    going_on = [
        place
        for place in channels.runs.going_on()
        if channels.log.is_running(place.channel)
    ]
    going_on.sort(key=lambda place: place.began_at)
    return [
        {"channel": place.channel, "age": round(now - place.began_at, 1)}
        for place in going_on[:MOST_RUNS]
    ]
