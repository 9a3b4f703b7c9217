"""Scales: how a Redis store stays below ``SSE_HISTORY_BYTES``.

Here lives what a process does that was told to weigh the store: which channels are too
large, and how much of them goes. The scripts, and when somebody is told to weigh, are
in scripts/sizes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from ...errors import BrokerUnavailable
from ...history.revocations import REVOCATIONS
from ...history.sizes import excesses, goal
from ...log_messages import REDIS_SIZES_UNTOLD
from . import scripts

#: Channels that one command asks for, so that Redis is soon free for other commands.
CHANNELS_AT_ONCE = 32

T = TypeVar("T")


class Scales:
    """The weight of one store.

    :param name: the store's, for the log.
    :param ask: runs a script with the streams of some channels, and more arguments.
    """

    def __init__(
        self,
        name: str,
        ask: Callable[[scripts.Script, Collection[str], Sequence[Any]], Any],
    ) -> None:
        self._name = name
        self._ask = ask
        self._is_told = False

    def lighten(self, channels: Callable[[], Collection[str]]) -> None:
        """Weigh the store, and drop what is too much. Nothing is raised where Redis is
        away meanwhile: another process is told to weigh soon.

        :param channels: asks for all that the store has.
        """
        with suppress(BrokerUnavailable):
            limit, sizes = 0, dict[str, int]()
            for names in pieces(channels()):
                limit, found = self._ask(scripts.sizes, names, ())
                sizes.update(zip(names, map(int, found), strict=True))
                if any(sizes[name] < 0 for name in names):
                    self._tell()
                    return
            total = sum(sizes.values())
            if total > limit:
                # Without the revocations, every client would be sent off.
                sizes.pop(REVOCATIONS, None)
                for name, excess in excesses(sizes, limit).items():
                    while excess > 0 and total > goal(limit):
                        gone = int(self._ask(scripts.shed, (name,), (excess,)))
                        excess, total = excess - gone, total - gone
                        if not gone:
                            break
            self._ask(scripts.weighed, (), (total,))

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            REDIS_SIZES_UNTOLD.log(self._name)


def pieces(names: Collection[T]) -> Iterator[list[T]]:
    """The names, some at a time."""
    listed = list(names)
    for start in range(0, len(listed), CHANNELS_AT_ONCE):
        yield listed[start : start + CHANNELS_AT_ONCE]
