"""Signals: what happens to streams, told to whoever connects a receiver.

Here live the signals' names, and the fixed words that their facts are made of. How a
signal reaches its receivers lives in courier.py, and what is told of one stream in
story.py. When a signal is sent, the module that sees the fact decides.
``docs/signals.rst`` explains each signal, each fact and each word.

The signals belong to the module, as Flask's own do: the sender says which application
is meant. ``sse.connected`` is the same object as ``signals.connected``.
"""

from __future__ import annotations

from typing import Literal

from blinker import Namespace

#: How the bytes of a stream reach its client: see ``sse.stats()``.
Path = Literal["handed off", "iterated"]

#: Why a stream has ended. The words never change; new ones can come.
DisconnectReason = Literal[
    "left",
    "ended",
    "max-age",
    "stalled",
    "talkative",
    "disconnect",
    "end-streams",
    "shutdown",
    "failed",
]

#: Why a client was given no stream. The words never change; new ones can come.
RefusalReason = Literal[
    "authorizer",
    "not-public",
    "reserved",
    "token",
    "cross-site",
    "full",
    "client-full",
    "channels-full",
    "runs-full",
    "stopping",
    "broker-unavailable",
    "unsupported-server",
]

#: Why a run is over. The words never change; new ones can come.
RunEndReason = Literal["completed", "error", "closed", "abandoned", "shutdown", "lost"]

_signals = Namespace()

#: A stream has begun.
connected = _signals.signal("sse-connected")

#: A stream has ended. It is sent for each stream for which ``connected`` was, behind
#: that.
disconnected = _signals.signal("sse-disconnected")

#: An event was published by this process.
published = _signals.signal("sse-published")

#: Streams of this process were told that they have lost events.
gap = _signals.signal("sse-gap")

#: A client has asked for a stream, and was given none.
refused = _signals.signal("sse-refused")

#: A run has begun in this process.
run_started = _signals.signal("sse-run-started")

#: A run of this process is over.
run_ended = _signals.signal("sse-run-ended")
