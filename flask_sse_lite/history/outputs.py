"""How much of the output of runs a log holds, in all.

Here lives the order in which it is given up: the channel that was read longest ago
comes first. What is dropped there, and what its readers are told, lives in the log; so
does the lock that is held by whoever calls.
"""

from __future__ import annotations

from collections import OrderedDict

#: Bytes held of all runs' output together, where nothing else is said: as much as 64
#: runs that are as long as one may be. A worker has that to spare.
RUNS_BYTES = 64 * 1024 * 1024


class Outputs:
    """The sizes of what is held, by channel.

    :param limit: bytes that may be held in all.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._size = 0
        #: The one read longest ago first. What nobody has read stands where it began.
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def note(self, channel: str, size: int) -> None:
        """There are so many bytes of a channel."""
        self._size += size - self._sizes.get(channel, 0)
        if size:
            self._sizes[channel] = size
        else:
            self._sizes.pop(channel, None)

    def note_read(self, channel: str) -> None:
        if channel in self._sizes:
            self._sizes.move_to_end(channel)

    def clear(self) -> None:
        self._size = 0
        self._sizes.clear()

    @property
    def excess(self) -> int:
        """Bytes that are too many."""
        return self._size - self.limit

    @property
    def next_to_go(self) -> str:
        """The channel read longest ago. There is one as long as anything is held."""
        return next(iter(self._sizes))
