"""The output of runs that a log holds: how much there is, and what goes first.

The order lives here in which output is given up: the channel that was read longest ago
comes first. How much is held, and what is dropped, is decided in retention.py. The
log's lock is held by whoever calls.
"""

from __future__ import annotations

from collections import OrderedDict


class Outputs:
    """The sizes of what is held, by channel.

    :param limit: bytes that can be held in all.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._size = 0
        #: The channel that was read longest ago comes first. One that nobody has read
        #: stands where its run began.
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def note(self, channel: str, size: int) -> None:
        """So many bytes of a channel are held now."""
        self._size += size - self._sizes.get(channel, 0)
        if size:
            self._sizes[channel] = size
        else:
            self._sizes.pop(channel, None)

    def note_read(self, channel: str) -> None:
        """A reader has read something of a channel."""
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
        """The channel that was read longest ago. The caller asks only while something
        is held."""
        return next(iter(self._sizes))
