"""Too many bytes: of which channels some must go, and how many.

The rule lives here by which events are given up when all channels together have too
many bytes: no channel can be larger than a level, and of a larger one the oldest events
go. So the largest channels shrink, and displace no smaller one. A log and its store
have the same rule; the store drops in steps, and keeps no level between them. (The
output of runs has another rule, in outputs.py.) What is dropped, and when, is decided
elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter

#: The part of a limit that is made free in one go: to look at every channel takes time,
#: and must not be done at each publish.
FREED_AT_ONCE = 1 / 16

#: While more than this part of a limit is taken, a process cuts each channel to the
#: level at every publish. Below it, channels can grow again.
STILL_FULL = 1 - 2 * FREED_AT_ONCE


def goal(limit: int) -> int:
    """How many bytes are left where there were more than a limit."""
    return int(limit * (1 - FREED_AT_ONCE))


def excesses(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """The channels that are too large where all together have more bytes than a limit,
    and by how many bytes; the largest first. Events go as a whole, so that a channel
    can lose more than that: whoever drops them stops at the goal, or channels of one
    event each would all lose it.

    :param sizes: the bytes of each channel.
    """
    most = _level(sizes, goal(limit))
    largest = sorted(sizes.items(), key=itemgetter(1), reverse=True)
    return {name: size - most for name, size in largest if size > most}


def _level(sizes: Mapping[str, int], total: int) -> int:
    """The size that no channel can exceed, so that all together have a total at
    most."""
    left, count = total, len(sizes)
    for size in sorted(sizes.values()):
        if size * count > left:
            return left // count
        left -= size
        count -= 1
    return total
