"""The view: what one process knows of a store that processes share.

Here lives the process's log, the newest positions that it has published, and which
entries it could not read. Nothing here asks a store, and nothing waits.
"""

from __future__ import annotations

import secrets
from heapq import heappushpop

from ..history.fed import FedLog
from ..history.records import Record, unreadable
from ..log_messages import UNREADABLE_ENTRY
from ..position import RUN_PREFIX

#: Lives of the store of which the newest position is kept. One is too few, because
#: another thread can just have published in the life before.
LIVES = 4

#: A process warns of unreadable entries in at most so many channels.
MAX_UNREADABLE_TOLD = 100


class View:
    """One process's view of a store. Any thread can call any method.

    :param name: what logs call the store.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        #: What this process remembers. The follower feeds it.
        self.log = FedLog()
        #: The name by which the store knows this process.
        self.process = secrets.token_hex(8)
        #: The newest position that was published here, by epoch; and the last epoch.
        self._newest: dict[str, list[int]] = {}
        self._last_epoch = ""
        #: Channels with an unreadable entry, of which we have warned.
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
        """Note that this process has published something at a position."""
        # A thread that published later can come here before us. heappushpop keeps the
        # higher of the two positions, in one step that nothing interrupts. A lock would
        # not do: code that interrupts its holder would wait for it forever.
        epoch, sequence = position
        heappushpop(self._newest.setdefault(epoch, [sequence]), sequence)
        if epoch != self._last_epoch:
            self._last_epoch = epoch
            for old in list(self._newest)[:-LIVES]:
                self._newest.pop(old, None)

    def cannot_read(
        self, epoch: str, sequence: int, age: float, channel: str, error: Exception
    ) -> Record:
        """Warn that an entry cannot be read: once for each channel, and for a bounded
        number of channels.

        :returns: the record that stands for the entry.
        """
        told = self._unreadable
        if channel not in told and len(told) < MAX_UNREADABLE_TOLD:
            told.add(channel)
            # The name of a run's channel is a secret: it is all that a client needs to
            # read it. An error's text can be as long and as secret as the entry.
            is_run = channel.startswith(RUN_PREFIX)
            UNREADABLE_ENTRY.log(
                self._name,
                "a run" if is_run else f"the channel {channel!r}",
                type(error).__name__,
                store=self._name,
                channel=None if is_run else channel,
            )
        return unreadable(epoch, sequence, age, channel)
