"""What a log keeps, of which channel, and for how long.

Every bound of a process's memory is answered here: the events of each channel, their
age, their bytes, the channels that nobody listens to, and the output of runs (sizes.py
and outputs.py say in which order events and output are given up). What is dropped
leaves a mark, by which reading.py finds the gaps that readers are told of.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from math import inf

from ..position import BEGINNING, RUN_PREFIX
from .channel import Channel, Tell
from .cursor import Entry
from .outputs import Outputs
from .records import Past
from .revocations import REVOCATIONS
from .sizes import STILL_FULL, excesses, goal

#: Channels remembered that hold something and that nobody listens to. Past it the log
#: forgets the channel that was untouched for longest, whatever its age: a million names
#: published to in five minutes must not stay in memory. A client that comes back to a
#: forgotten channel is told of a gap.
MAX_IDLE_CHANNELS = 16_384

#: Channels remembered that hold nothing and that nobody listens to. They are counted
#: apart: strangers can name any number of them, and displace only what strangers named.
MAX_QUIET_CHANNELS = 4_096

#: Channels forgotten in one go at most: some 0.5 ms of work for an unlucky publisher.
MAX_FORGOTTEN_AT_ONCE = 1_000


#: Bytes held of all runs' output together, where no setting says otherwise: as much as
#: 64 runs that are as long as a run can be. A worker has that to spare.
RUNS_BYTES = 64 * 1024 * 1024

#: Bytes held of all channels' events together, where no setting says otherwise: as much
#: as for runs. It is a thousand channels that are full of small events.
HISTORY_BYTES = 64 * 1024 * 1024


class Keeper:
    """The channels of a log, and the bounds of what it keeps of them.

    The log holds its lock when it calls any of this. Where a method returns whether
    something was dropped, a step that readers share is no longer true then. (Where a
    channel grows, no step is true any more in any case.)

    :param history: events kept per channel.
    :param age: seconds that they are kept.
    :param runs_bytes: kept of the output of all runs together.
    """

    def __init__(
        self, history: int, age: float, clock: Callable[[], float], runs_bytes: int
    ) -> None:
        self.history = history
        self._age = age
        self._clock = clock
        #: Whether a store retains what is dropped here, and a broker can load it anew.
        self._is_fed = False
        #: All that are remembered. Always this dict: the log has it too.
        self.channels: dict[str, Channel] = {}
        #: The channels without watchers, the one longest untouched first: those that
        #: hold something, and those that hold nothing.
        self._idle: OrderedDict[str, Channel] = OrderedDict()
        self._quiet: OrderedDict[str, Channel] = OrderedDict()
        #: The highest position of all channels that were forgotten.
        self.forgotten = BEGINNING
        #: The channels that are watched and were not loaded, though they should be.
        self.unfed: set[str] = set()
        #: Watchers that have left, and are still to be removed.
        self.leavers: deque[tuple[tuple[str, ...], Tell]] = deque()
        #: The sizes of what is kept of runs, by when it was read.
        self.outputs = Outputs(runs_bytes)
        #: The bytes of all events that belong to no run, and how many can be kept.
        self._size = 0
        self._most = HISTORY_BYTES
        #: The size that the largest channels were cut to, as long as hardly any room is
        #: left. A channel that grows beyond it is cut again at once: to look at all
        #: channels, whenever there are too many bytes, costs much more.
        self._level: float = inf

    # What is remembered

    def channel(self, name: str) -> Channel:
        """The channel of that name. The caller touches or watches it."""
        channel = self.channels.get(name)
        if channel is None:
            # A channel of this name can have been here, and was forgotten.
            channel = Channel(self.forgotten, is_whole=not self._is_fed)
            self.channels[name] = channel
        return channel

    def touch(self, name: str, channel: Channel, now: float) -> None:
        """Note that a channel was used now, and put it where it belongs."""
        channel.touched = now
        if channel.watchers:
            return
        if channel.entries or channel.budget:
            if self._quiet:
                self._quiet.pop(name, None)
            self._idle[name] = channel
            self._idle.move_to_end(name)
            return
        self._idle.pop(name, None)
        if not channel.is_whole:
            del self.channels[name]
        else:
            # A channel known to hold nothing is worth its place: without it, a client
            # that comes back is told of a gap once anything else was forgotten.
            self._quiet[name] = channel
            self._quiet.move_to_end(name)

    def watch(self, names: Iterable[str], tell: Tell) -> None:
        """Add a watcher. A channel is not forgotten as long as it has one."""
        for name in names:
            channel = self.channel(name)
            channel.touched = self._clock()
            channel.watchers[tell] = None
            self._idle.pop(name, None)
            self._quiet.pop(name, None)
            if not channel.is_whole:
                self.unfed.add(name)

    @property
    def watched(self) -> int:
        """How many channels have watchers, besides our own."""
        own = self.channels.get(REVOCATIONS)
        is_watched = own is not None and bool(own.watchers)
        return len(self.channels) - len(self._idle) - len(self._quiet) - is_watched

    def let_go(self, now: float) -> None:
        """Remove the watchers that have left, and forget channels that nobody listens
        to: the old, and what is too many."""
        while self.leavers:
            names, tell = self.leavers.popleft()
            for name in names:
                if channel := self.channels.get(name):
                    channel.watchers.pop(tell, None)
                    self.touch(name, channel, now)
        oldest = now - self._age
        if self._idle:
            self._forget(self._idle, MAX_IDLE_CHANNELS, oldest)
        if self._quiet:
            self._forget(self._quiet, MAX_QUIET_CHANNELS, oldest)

    def _forget(
        self, idle: OrderedDict[str, Channel], most: int, oldest: float
    ) -> None:
        for _ in range(min(len(idle), MAX_FORGOTTEN_AT_ONCE)):
            name, channel = next(iter(idle.items()))
            if channel.touched >= oldest and len(idle) <= most:
                return
            self.forgotten = max(self.forgotten, channel.last)
            self._size -= channel.counted
            self.outputs.note(name, 0)
            del idle[name], self.channels[name]

    # What is kept of a channel

    def keep(self, channel: Channel, entry: Entry, now: float) -> None:
        """Have a channel grow, and drop what is too much then."""
        is_run = bool(channel.budget)
        channel.append(entry, now)
        level = inf if self._level == inf else self._level_of(entry.channel)
        channel.evict(self.history, now - self._age, level)
        self.touch(entry.channel, channel, now)
        if is_run:
            self._note_size(entry.channel, channel)
        else:  # The same, without a call.
            self._size += channel.size - channel.counted
            channel.counted = channel.size
        if is_run or self._size > self._most:
            self.fit(entry.channel)
        self.let_go(now)

    def evict(self, names: Iterable[str]) -> bool:
        """Drop what is too old of some channels, before they are read.

        :returns: whether something was dropped.
        """
        oldest = self._clock() - self._age
        has_dropped = False
        for name in names:
            if channel := self.channels.get(name):
                channel.unread = 0
                was_run = bool(channel.budget)
                if channel.evict(self.history, oldest):
                    has_dropped = True
                    if not channel.entries:
                        self.touch(name, channel, channel.touched)
                if channel.size != channel.counted or was_run:
                    self._note_size(name, channel)
        return has_dropped

    def fill(self, name: str, past: Past, until: int, now: float) -> Channel:
        """Take over what a store has of a channel, up to a position. The caller calls
        ``fit`` behind the last channel, and readers share no older step."""
        channel = self.channel(name)
        channel.fill(past, until, now)
        self.evict([name])
        self.touch(name, channel, now)
        self._note_size(name, channel)
        return channel

    def lose(self, name: str, channel: Channel, dropped: int) -> None:
        """The store dropped what it had of a channel, up to a position."""
        channel.lose(dropped)
        self._note_size(name, channel)

    def restart(self, position: int, history: int, age: float) -> None:
        """Forget everything, up to a position, in favour of a store. Channels that are
        watched stay, and are empty."""
        self._is_fed = True
        self.history, self._age = history, age
        self.forgotten = position
        for idle in (self._idle, self._quiet):
            for name in idle:
                del self.channels[name]
            idle.clear()
        for channel in self.channels.values():
            channel.empty()
        self._size = 0
        self._level = inf
        for channel in self.channels.values():
            channel.counted = 0
        self.outputs.clear()

    # How many bytes are kept

    def limit(self, history: int, runs: int) -> bool:
        """Keep no more than so many bytes of all events, and of the output of all runs.

        :returns: whether something was dropped.
        """
        self._most, self.outputs.limit = history, runs
        self._level = inf
        return self.fit()

    def fit(self, newest: str | None = None) -> bool:
        """Drop what is too much: of the output of runs what was read longest ago, and
        of events the oldest of the largest channel.

        :param newest: a channel whose last entry is new, and stays.
        :returns: whether something was dropped.
        """
        has_dropped = False
        while (excess := self.outputs.excess) > 0:
            name = self.outputs.next_to_go
            self._shed(name, self.channels[name], excess)
            has_dropped = True
        if self._size > self._most:
            # Without the revocations, every client would be sent off.
            sizes = {n: c.counted for n, c in self.channels.items() if n != REVOCATIONS}
            for name, excess in excesses(sizes, self._most).items():
                if self._size <= goal(self._most):
                    break
                channel = self.channels[name]
                self._level = sizes[name] - excess
                self._shed(name, channel, excess, keeps_last=name == newest)
                has_dropped = True
        return has_dropped

    def _level_of(self, name: str) -> float:
        """The size that a channel can have, where the largest were cut."""
        if self._size < self._most * STILL_FULL:
            self._level = inf  # What others had is gone.
        return inf if name == REVOCATIONS else self._level

    def _shed(
        self, name: str, channel: Channel, excess: int, *, keeps_last: bool = False
    ) -> None:
        channel.shed(excess, keeps_last=keeps_last)
        self._note_size(name, channel)
        if channel.size or channel.is_running or channel.watchers:
            return
        if channel.budget:
            self._drop_output(channel)
        self.touch(name, channel, channel.touched)

    def _note_size(self, name: str, channel: Channel) -> None:
        counted = 0 if channel.budget else channel.size
        self._size += counted - channel.counted
        channel.counted = counted
        self.outputs.note(name, channel.size if channel.budget else 0)

    # What is kept of runs

    def begin_run(self, name: str, budget: int, start: int) -> bool:
        """Keep what a run says in a channel as a whole, unless one goes on there.

        :returns: whether there was none.
        """
        is_new = name not in self.channels
        channel = self.channel(name)
        if channel.is_running:
            return False
        if is_new and name.startswith(RUN_PREFIX):
            # A run's name is drawn at random: no channel of this name was forgotten.
            channel.dropped = BEGINNING
        self.hold(name, channel, budget, start, self._clock())
        return True

    def hold(
        self, name: str, channel: Channel, budget: int, start: int, now: float
    ) -> None:
        """A run begins in a channel."""
        channel.hold(budget, start)
        self._note_size(name, channel)
        self.touch(name, channel, now)

    def _drop_output(self, channel: Channel) -> None:
        """Forget a run that is over and of which nothing is left but its end. Where
        there is a store, the broker loads the run anew for a client that wants it."""
        last = channel.last
        channel.empty()
        channel.dropped = last
        channel.is_whole = not self._is_fed
        if self._is_fed:
            self.forgotten = max(self.forgotten, last)
