"""The board: how Redis knows whose streams there are, what was told of them, and whose
turn it is to tell.

What is told is decided in ``brokers/presence``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from contextlib import suppress
from itertools import chain
from typing import Any

from ..identities import (
    counts_read,
    counts_written,
    identity_read,
    identity_written,
)
from ..presence import Board, Roll, Telling
from ..store import Store
from . import scripts
from .entries import names_of, number, packed
from .pool import Pool
from .scales import Scales, pieces

#: Runs a script, with the keys behind those that every script has, and its words.
Ask = Callable[[scripts.Script, Sequence[str], Sequence[Any]], Any]


class RedisBoard(Board):
    """The board of one store.

    :param ask: runs a script.
    :param key: the key of a name.
    :param topic: on which publishers tell what they have published.
    """

    def __init__(
        self,
        store: Store,
        pool: Pool,
        ask: Ask,
        key: Callable[[str], str],
        topic: str,
        scales: Scales,
    ) -> None:
        self._store = store
        self._pool = pool
        self._ask_store = ask
        self._key = key
        self._topic = topic
        self._scales = scales
        #: The identities of this process that Redis has, each channel's as JSON, and
        #: until when they hold (``time.monotonic()``). None for nothing.
        self._noted: dict[str, str] | None = None
        self._noted_until = 0.0
        #: Who is told, by channel, as this process has read it and told it since.
        self._known: dict[str, dict[str, float | None]] = {}
        #: Until then (``time.monotonic()``) that stands in for what Redis has lost. A
        #: process without the turn knows too little for it.
        self._known_until = 0.0
        #: The channels of which ``told:<channel>`` was lost when this process read it.
        self._lost: set[str] = set()

    def _ask(
        self, script: scripts.Script, names: Sequence[str], own: Sequence[Any]
    ) -> Any:
        """Run a script.

        :param names: of the keys behind those that every script has.
        """
        return self._ask_store(script, [self._key(name) for name in names], own)

    def _call(self, command: str, name: str, *words: Any) -> Any:
        with self._pool.link() as link:
            return link.call(command, self._key(name), *words)

    # Who is there

    def note(self, identities: Mapping[str, Mapping[str, int]]) -> None:
        new = {name: counts_written(counts) for name, counts in identities.items()}
        now = time.monotonic()
        is_early = now < self._noted_until - 2 * self._store.duty_interval
        if new == self._noted and is_early:
            return
        # If Redis's answer is lost, nobody knows what it has: all is noted anew then.
        before, self._noted = self._noted, None
        noted = before or {}
        changed = dict.fromkeys(noted.keys() - new.keys(), "")
        changed |= {name: new[name] for name in new if new[name] != noted.get(name)}
        if not self._change(changed, is_all=before is None):
            self._change(new, is_all=True)
        self._noted, self._noted_until = new, now + self._store.count_life

    def _change(self, changed: Mapping[str, str], *, is_all: bool) -> bool:
        """:returns: whether Redis still had what it is to change."""
        names = (f"who:{self._store.view.process}",)
        own = (int(self._store.count_life * 1000), int(is_all))
        return bool(self._ask(scripts.who, names, (*own, *chain(*changed.items()))))

    def noted(self, channel: str) -> dict[str, int]:
        told, holds = self._told_in([channel])
        found = Counter(dict.fromkeys(told[channel] if holds else (), 0))
        for process in names_of(self._call("ZRANGE", "processes", 0, -1)):
            if process != self._store.view.process:
                counts = self._call("HGET", f"who:{process}", channel)
                found.update(counts_read(counts or b"{}"))
        return found

    # What is told

    def roll(self, leave_after: float, *, is_urgent: bool) -> Roll | None:
        store = self._store
        spans = (store.count_life, leave_after, 2 * store.duty_interval)
        own = (store.view.process, *(int(s * 1000) for s in spans), int(is_urgent))
        found = self._ask(scripts.roll, ("processes", "turn", "told"), own)
        if not found:
            self._known = {}
            return None
        now, number, is_lapsed, living, channels, has_turn = found
        known_until = time.monotonic() + store.count_life
        present = self._present_by(names_of(living))
        told, broken = self._told_and_broken(set(names_of(channels)))
        if not has_turn:  # The process that has it can know who was told there.
            for channel in broken:
                told.pop(channel)
                present.pop(channel, None)
        self._known = {name: dict(whose) for name, whose in told.items()}
        self._known_until = known_until if has_turn else 0.0
        at = int(now) / 1000
        return Roll(int(number), at, present, told, bool(is_lapsed), broken)

    def _told_and_broken(
        self, listed: Set[str]
    ) -> tuple[dict[str, dict[str, float | None]], set[str]]:
        """Who is told, by channel, and the channels that are broken: Redis has thrown
        out either ``told:<channel>``, or the set ``told`` in which they stood. What
        this process knows stands in for the first. Without the set, only channels that
        this process knows are found.

        :param listed: what is in the set ``told``.
        """
        known = self._known if time.monotonic() < self._known_until else {}
        found, _ = self._told_in([*{**dict.fromkeys(listed), **known}])
        self._lost = {name for name in listed if not found[name]}
        told = {
            channel: whose or known.get(channel, {})
            for channel, whose in found.items()
            if whose or channel in listed
        }
        return told, self._lost | (told.keys() - listed)

    def _present_by(self, processes: Collection[str]) -> dict[str, dict[str, int]]:
        """The identities by channel that some processes have noted."""
        present: dict[str, dict[str, int]] = {}
        for process in processes:
            found = self._call("HGETALL", f"who:{process}")
            for channel, counts in zip(found[::2], found[1::2], strict=True):
                with suppress(UnicodeDecodeError):
                    whose = present.setdefault(channel.decode(), {})
                    whose.update(counts_read(counts))
        return present

    def _told_in(
        self, channels: Sequence[str]
    ) -> tuple[dict[str, dict[str, float | None]], bool]:
        """Who is told in some channels, and since when each is away; and whether that
        holds."""
        told: dict[str, dict[str, float | None]] = {}
        holds = False
        for some in pieces(channels):
            names = ("turn", *(f"told:{channel}" for channel in some))
            found, is_holding = self._ask(scripts.told, names, ())
            holds = bool(is_holding)
            for channel, noted in zip(some, found, strict=True):
                pairs = zip(noted[::2], noted[1::2], strict=True)
                told[channel] = {
                    who: number(since, 0) / 1000 if since else None
                    for text, since in pairs
                    if (who := identity_read(text))
                }
        return told, holds

    def tell(
        self, channel: str, number: int, tellings: Sequence[Telling]
    ) -> list[tuple[str, int]] | None:
        # The first three and the first words are as for any event: see scripts.put.
        names = [f"channel:{channel}", f"run:{channel}", "leases"]
        names += ["turn", f"told:{channel}", "told"]
        lease = int(self._store.lease * 1000)
        common = (channel, b"", self._topic, "", "", 0, lease, b"", "", 0)
        known = self._known.setdefault(channel, {})
        words: list[Any] = [number, int(bool(known) and channel not in self._lost)]
        for identity, event, is_told, since in tellings:
            at = "" if since is None else int(since * 1000)
            body = packed(event) if event else b""
            words += [identity_written(identity), at, int(is_told), body]
        epoch, *found = self._ask(scripts.tell, names, (*common, *words))
        if len(found) > 1:
            self._scales.weigh()
        if not found:
            return None
        for identity, _, is_told, since in tellings:
            if is_told:
                known[identity] = since
            else:
                known.pop(identity, None)
        return [(epoch.decode(), int(n)) for n in found[0]]
