"""Presence: what the channels of ``SSE_PRESENCE`` are told of who is there.

Here lives the decision: who has come, who is away, and who has been away for so long
that it counts as gone. A board knows what was told and who is there: that of a store,
or that of a process that shares nothing. A board puts an event and the note that it was
told in one step. So a process that decides late, twice or while it dies neither repeats
an event nor loses one. When the decision is made is never known here.

What clients have been told of an identity, and what comes next:

=========== =========== ============================================================
from        to          when
=========== =========== ============================================================
not told    told        it has a stream: ``stream-join``
told        away        it has no stream, on any process
away        told        it has a stream again: nothing is said of it
away        not told    it was away for ``leave_after`` seconds: ``stream-leave``
any         not told    nobody has had the turn to decide for that long, so nobody
                        knows whether it was away: ``stream-leave``
=========== =========== ============================================================
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from ..event import Event
from ..own_events import joined, left
from ..system.chance import CHANCE

#: Events of one channel that are told in one round, at most. Half of ``SSE_HISTORY``
#: bounds it too: a room that fills at once must not outrun its own readers.
TOLD_AT_ONCE = 64

#: Channels that are told something in one round, at least, if so many are to be: each
#: costs a step of the store, and the thread that makes the round has other things to
#: do. A round reads of all channels, though. Beyond this number it tells for as long as
#: it has read, so that what is read costs no more than what is told, however many
#: rooms fill at once.
CHANNELS_AT_ONCE = 64


class Wish(NamedTuple):
    """What an application wants to be told.

    :param is_told: whether joins and leaves are told in a channel.
    :param leave_after: seconds without a stream after which an identity has left.
    :param at_once: events of one channel that are told in one round, at most.
    """

    is_told: Callable[[str], bool]
    leave_after: float
    at_once: int = TOLD_AT_ONCE


class Roll(NamedTuple):
    """What a board knows at one moment.

    ``number`` grows with each ``tell``. ``now`` is the board's clock, in seconds.
    ``present`` has the identities that have a stream, by channel. ``told`` has those
    whose join was told and whose leave was not, by channel. Each of these comes with
    the time since which it is known to be away; None while it is not.

    ``is_lapsed``: the last turn ended more than ``leave_after`` seconds ago, and
    somebody is told. It stays so until nobody is told any more.

    ``broken``: the channels of which the board has lost a part of what is told. The
    process that has the turn finds them in ``told``. All that stands there of them must
    be told to the board again, also if that is nobody. Another process does not find
    them, neither in ``told`` nor in ``present``, and must look again later.
    """

    number: int
    now: float
    present: Mapping[str, Collection[str]]
    told: Mapping[str, Mapping[str, float | None]]
    is_lapsed: bool = False
    broken: Set[str] = frozenset()


class Telling(NamedTuple):
    """What is told of an identity. ``event`` is put into the channel; None for nothing.
    If ``is_told``, the identity is noted as told, with the time ``since`` which it is
    away (None: it is not). Otherwise it is noted no more."""

    identity: str
    event: Event | None
    is_told: bool
    since: float | None = None


class Board(ABC):
    """What knows whose streams there are, over all processes, and what was told of it.

    Any thread can call any verb. A verb raises ``BrokerUnavailable`` as those of a
    ``Store`` do. An identity can be any text of 1 to 512 characters, lone surrogates
    included: ``brokers/identities`` has a form in which a store can keep it.
    """

    @abstractmethod
    def note(self, identities: Mapping[str, Mapping[str, int]]) -> None:
        """Note whose streams this process (``store.view.process``) serves, in place of
        what it noted before: of each channel, the identities with the numbers of their
        streams. That holds as long as what the process has said by ``Store.count``,
        which is called right before. The verb is called every second or so, and must
        write only what has changed or would expire."""

    @abstractmethod
    def noted(self, channel: str) -> Mapping[str, int]:
        """Whose streams of a channel the other processes serve, with their numbers; and
        0 for each identity that is told there and has none, unless what is told has
        lapsed: see ``Roll``."""

    @abstractmethod
    def roll(self, leave_after: float, *, is_urgent: bool) -> Roll | None:
        """Who is there, and what was told of it. One process at a time has the turn to
        tell. It has the turn for ``Store.count_life`` after each time that it has
        called this. If nobody has the turn, and anybody is there or is told, the caller
        gets it.

        :param leave_after: seconds that what is told holds behind a turn.
        :param is_urgent: whether to answer even where another process has the turn, and
            keeps it. (Where what is told has lapsed, only that process is answered.)
        :returns: None where another process has the turn.
        """

    @abstractmethod
    def tell(
        self, channel: str, number: int, tellings: Sequence[Telling]
    ) -> list[tuple[str, int]] | None:
        """Put the events of these tellings into a channel, note what they say, and
        raise the number by one: all of it in one step. If the channel's last entry is
        its end, no event is put, because that would open the channel. Without any
        telling, a board that can be broken notes that nobody is told there.

        :param number: the number of the roll that the caller has seen.
        :returns: the positions of the events; None where the board has another number,
            or has lost what the roll had: then nothing was done.
        """


class Presence:
    """One process's part in telling who comes and leaves. One thread uses it.

    :param note_published: called with the position of each event that was put.
    :param clock: seconds, never falling.
    """

    def __init__(
        self,
        board: Board,
        wish: Wish,
        note_published: Callable[[tuple[str, int]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._board = board
        self._wish = wish
        self._note_published = note_published
        self._clock = clock

    def tell(self, *, is_urgent: bool = False) -> bool:
        """Tell what there is to tell now, or the first part of it.

        :param is_urgent: whether to tell it even where another process has the turn,
            because this process knows something new.
        :returns: whether that was all.
        :raises BrokerUnavailable: where the board cannot be reached.
        """
        began = self._clock()
        roll = self._board.roll(self._wish.leave_after, is_urgent=is_urgent)
        if roll is None:
            return True
        read = self._clock()
        until = read + (read - began)
        number, is_all = roll.number, True
        for count, (channel, tellings, is_whole) in enumerate(due(roll, self._wish)):
            if count >= CHANNELS_AT_ONCE and self._clock() >= until:
                return False
            positions = self._board.tell(channel, number, tellings)
            if positions is None:
                return False  # Another process was faster: the roll is out of date.
            for position in positions:
                self._note_published(position)
            number += 1
            is_all = is_all and is_whole
        is_left_to_others = not roll.broken <= roll.told.keys()
        return is_all and not roll.is_lapsed and not is_left_to_others


def due(roll: Roll, wish: Wish) -> Iterator[tuple[str, list[Telling], bool]]:
    """What must be told now: the channel, the tellings, and whether these are all of
    the channel. Channels of which nothing is to be told are left out. Broken channels
    are not: the board must hear that nobody is told there."""
    channels = list({**roll.told, **roll.present})
    # If one of them cannot be told, the others behind it have their turn another time.
    CHANCE.shuffle(channels)
    for channel in channels:
        events = _events_due(channel, roll, wish)
        now = events[: wish.at_once]
        tellings = [*_marks_due(channel, roll), *now]
        if tellings or channel in roll.broken:
            yield channel, tellings, len(now) == len(events)


def _events_due(channel: str, roll: Roll, wish: Wish) -> list[Telling]:
    told = roll.told.get(channel, {})
    present = roll.present.get(channel, ())
    if roll.is_lapsed:
        return [Telling(who, left(who, channel), False) for who in told]
    leaves = [
        Telling(who, left(who, channel), False)
        for who, since in told.items()
        if who not in present
        and since is not None
        and roll.now - since >= wish.leave_after
    ]
    if not wish.is_told(channel):
        return leaves
    joins = [who for who in present if who not in told]
    return [*leaves, *(Telling(who, joined(who, channel), True) for who in joins)]


def _marks_due(channel: str, roll: Roll) -> list[Telling]:
    """The identities that are noted as away, as back, or again. Nothing is said of
    them."""
    told, is_broken = roll.told.get(channel, {}), channel in roll.broken
    if roll.is_lapsed:
        again = told if is_broken else {}
        return [Telling(who, None, True, since) for who, since in again.items()]
    present = roll.present.get(channel, ())
    marks = []
    for who, since in told.items():
        if who in present and since is not None:
            marks.append(Telling(who, None, True, None))
        elif who not in present and (since is None or since > roll.now):
            marks.append(Telling(who, None, True, roll.now))
        elif is_broken:
            marks.append(Telling(who, None, True, since))
    return marks
