"""Reporting: how each worker tells of itself while somebody looks, and only then.

The worker that serves an inspector's stream calls all workers, each second or so, by an
event in a channel of the extension's own. Each worker that has streams answers by a
snapshot in another channel, and the page listens to that one. Where processes share a
store, both channels are the store's; otherwise the only worker that is called is the
one that serves the page. Here lives who calls and answers, and when. What a snapshot
says lives in snapshot.py.

A worker begins to hear calls with its first stream. Before that it tells nothing:
hearing takes a follower of the store, which is a thread and perhaps a connection, and
an idle worker has neither. The others say how many workers there are, so that the page
can say how many are silent.

While nobody looks, a worker that has had a stream watches one channel in which nothing
comes, and no thread or timer is there for it. Calls and answers are the courier's work:
neither a publisher, the follower nor the hub waits for a snapshot.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from contextlib import suppress
from typing import Any

from blinker import Signal

from ..brokers import Broker
from ..channels import Channels
from ..errors import BrokerUnavailable
from ..event import RESERVED_CHANNEL_PREFIX, good_event
from ..history.cursor import Cursor
from ..hub import LONGEST_LOOK, current_hub
from ..hub.frames import BATCH_BYTES
from ..hub.looks import LOOKS_PER_HEARTBEAT
from ..signals.courier import Courier
from .snapshot import snapshot

#: The channel in which workers are called, and the one in which they answer.
CALLS = f"{RESERVED_CHANNEL_PREFIX}inspector.calls"
ANSWERS = f"{RESERVED_CHANNEL_PREFIX}inspector"

#: Seconds between two calls: an operator sees what happens, and a worker with a hundred
#: connections spends some thousandths of a processor.
INTERVAL = 1.0

#: The share of it after which a call is due. The hub's looks are seldom early, and a
#: call at the next but one would be late.
DUE_SHARE = 0.9

#: Seconds between two answers of a worker at least: several inspectors on several
#: workers call more often.
LEAST_INTERVAL = 0.5

#: Seconds for which a worker calls before the stream that it calls for has begun. A
#: stream that is asked for and never read costs ten calls and the hub's clock for ten
#: seconds, and then nothing. To know sooner that it will not begin, each stream's end
#: would have to be noted.
EXPECTED = 10.0


class Reporting:
    """The part that an application's worker has in inspecting. Thread-safe.

    :param courier: whose thread calls and answers.
    """

    def __init__(self, channels: Channels, courier: Courier) -> None:
        self._channels = channels
        self._courier = courier
        # By process id: a forked child has a log, a hub and a name of its own.
        self._parts: dict[int, _Part] = {}

    @property
    def _part(self) -> _Part:
        pid = os.getpid()
        try:
            return self._parts[pid]
        except KeyError:
            return self._parts.setdefault(pid, _Part(self._channels, self._courier))

    def attend(self) -> None:
        """Hear calls from now on. Called before each stream of this process begins.

        :raises BrokerUnavailable: when the broker cannot be reached.
        """
        self._part.attend()

    def look(self) -> None:
        """Somebody is about to look, through a stream of this process."""
        self._part.look()

    def end_connection(self, worker: str, name: str) -> None:
        """Have a worker end one stream, which its client takes for a restart.

        :raises BrokerUnavailable: when the broker cannot be reached.
        """
        self._part.call({"call": "end", "worker": worker, "name": name})


class _Part:
    """What one process does. It calls while its hub tells it the time."""

    #: With this heartbeat, it has the hub look no more often than it does in any case.
    heartbeat = LOOKS_PER_HEARTBEAT * LONGEST_LOOK

    #: None, because this is no stream, and belongs to no server.
    program = None
    settings = None
    story = None
    last_words = None

    def __init__(self, channels: Channels, courier: Courier) -> None:
        self._channels = channels
        self._courier = courier
        self._name = secrets.token_hex(4)
        # The signals have one receiver each, and lead from any thread to the courier's.
        self._due, self._heard = Signal(), Signal()
        self._due.connect(self._call_all)
        self._heard.connect(self._answer)
        self._attends: Broker | None = None
        # The courier's own.
        self._cursor: Cursor | None = None
        self._answered_at = 0.0
        # The hub's, and whoever begins to look.
        self._due_at = 0.0
        self._expects_until = 0.0

    def attend(self) -> None:
        broker = self._channels.broker
        if self._attends is broker:
            return
        broker.want((CALLS,))
        cursor = broker.log.cursor((CALLS,))
        # Two threads at once watch the same channel with the same function, once.
        broker.log.watch((CALLS,), self._hear)
        self._cursor = cursor
        self._attends = broker

    def look(self) -> None:
        self._expects_until = time.monotonic() + EXPECTED
        current_hub().keep_time(self)
        self._courier.tell(self._due)

    def call(self, words: dict[str, Any]) -> None:
        event = good_event(json.dumps(words), "call", None, None, None)
        self._channels.broker.publish(CALLS, event)

    # The hub's and the log's: these neither wait nor raise.

    def tick(self, now: float) -> None:
        if now < self._due_at:
            return
        self._due_at = now + INTERVAL * DUE_SHARE
        if now < self._expects_until or self._is_looked_at():
            self._courier.tell(self._due)
        else:
            current_hub().forget(self)

    def stop(self, patience: float | None = None) -> None:
        current_hub().forget(self)

    def _is_looked_at(self) -> bool:
        return current_hub().listeners(self._channels.log, ANSWERS) > 0

    def _hear(self) -> None:
        self._courier.tell(self._heard)

    # In the courier's thread

    def _call_all(self, sender: object) -> None:
        with suppress(BrokerUnavailable):  # The page shows that nothing comes.
            self.call({"call": "look"})

    def _answer(self, sender: object) -> None:
        calls = self._read_calls()
        for call in calls:
            if call.get("call") == "end" and call.get("worker") == self._name:
                current_hub().end_one(self._channels.log, str(call.get("name")))
        now = time.monotonic()
        is_asked = any(call.get("call") == "look" for call in calls)
        if is_asked and now - self._answered_at >= LEAST_INTERVAL:
            self._answered_at = now
            self._tell()

    def _read_calls(self) -> list[dict[str, Any]]:
        log, cursor = self._channels.log, self._cursor
        if cursor is None:
            return []
        batch = log.read(cursor, BATCH_BYTES)
        if batch.more:
            self._hear()
        found = [json.loads(entry.event.data) for entry in batch.entries if entry.event]
        return [call for call in found if isinstance(call, dict)]

    def _tell(self) -> None:
        told = json.dumps(snapshot(self._channels, self._name))
        with suppress(BrokerUnavailable):
            event = good_event(told, "worker", None, None, None)
            self._channels.broker.publish(ANSWERS, event)
