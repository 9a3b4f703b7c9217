"""The view: what one process knows of a store that processes share.

Here lives the process's log, the newest positions that it has published, and which
entries it could not read. Nothing here speaks to a store, and nothing waits.
"""

from __future__ import annotations

import logging
import secrets
from heapq import heappushpop

from ..history.fed import FedLog
from ..history.records import Record, unreadable
from ..position import RUN_PREFIX

#: Lives of the store whose newest position is known: another thread can just have
#: published in the life before.
LIVES = 4

#: Channels of which a process says in its log that it cannot read an entry there.
MAX_UNREADABLE_TOLD = 100

logger = logging.getLogger("flask_sse_lite")


class View:
    """One process's view of a store. Any thread may call any method.

    :param name: what logs call the store.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        #: What this process remembers. The follower feeds it.
        self.log = FedLog()
        #: What the store knows this process by.
        self.process = secrets.token_hex(8)
        #: The newest position that was published here, by epoch; and the last epoch.
        self._newest: dict[str, list[int]] = {}
        self._last_epoch = ""
        #: Channels with an entry that could not be read, of which the log was told.
        self._unreadable: set[str] = set()

    @property
    def published(self) -> tuple[str, int]:
        """The newest position that was published here: epoch and sequence number."""
        epoch = self._last_epoch
        return (epoch, self._newest[epoch][0]) if epoch else ("", 0)

    def known(self) -> tuple[str, int]:
        """The newest position that this process knows of, published here or read."""
        epoch, sequence = self.published
        if epoch in ("", self.log.epoch):
            return self.log.epoch, max(sequence, self.log.sequence)
        return epoch, sequence

    def note_published(self, position: tuple[str, int]) -> None:
        """This process has published something at a position."""
        # Another thread can have published later, and come here before. Of two, each of
        # these steps keeps the higher, and nothing comes in between. There is no lock:
        # code that interrupts the lock's holder would wait for it.
        epoch, sequence = position
        heappushpop(self._newest.setdefault(epoch, [sequence]), sequence)
        if epoch != self._last_epoch:
            self._last_epoch = epoch
            for old in list(self._newest)[:-LIVES]:
                self._newest.pop(old, None)

    def cannot_read(
        self, epoch: str, sequence: int, age: float, channel: str, error: Exception
    ) -> Record:
        """Say in the log that an entry cannot be read: once of each channel, and of a
        bounded number of channels.

        :returns: what stands for the entry.
        """
        told = self._unreadable
        if channel not in told and len(told) < MAX_UNREADABLE_TOLD:
            told.add(channel)
            # Whoever knows the name of a run's channel can read it. What an error says
            # of an entry can be as long and as secret as the entry.
            is_run = channel.startswith(RUN_PREFIX)
            logger.warning(
                "%s has an entry in %s that this release cannot read (%s). Readers of "
                "that channel get a stream-gap in its place. Another program, or a "
                "later release, has written it.",
                *(self._name, "a run" if is_run else f"the channel {channel!r}"),
                type(error).__name__,
            )
        return unreadable(epoch, sequence, age, channel)
