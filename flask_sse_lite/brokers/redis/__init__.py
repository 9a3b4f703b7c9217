"""The Redis broker: one Redis, or Valkey, for all processes of all machines.

Here lives how Redis is asked, and what that costs. A publish is one script, and so one
command: it counts, keeps, trims, and tells all processes that listen, on one topic. The
scripts are in scripts, and the form of an entry is in entries.py. A process has a few
connections for its commands (pool.py), and one that listens (ears.py), however many
subscribers it has.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

from ...errors import InvalidValue
from ...event import Event
from ...history.records import Past, Record
from ...log_messages import REDIS_FORMAT
from ...own_events import LOST
from ...position import new_epoch
from ...settings import Settings
from ..contract import Claim, Summary
from ..options import read_options
from ..store import Heard, News, Retention, State, Store
from . import scripts
from .entries import before, names_of, number, records
from .entries import packed as _packed
from .scales import Scales, pieces

try:
    from redis.exceptions import NoScriptError

    from .board import RedisBoard
    from .ears import Ears
    from .links import Link
    from .lives import Lives, told
    from .pool import Pool
    from .url import read_url
except ImportError:
    raise InvalidValue(
        "A redis:// URL needs the package redis: pip install flask-sse-lite[redis]"
    ) from None

#: What a store keeps if no process has ever told it how much.
DEFAULT_RETENTION = (256, 300, "same")

#: A position that no store reaches. Lua counts exactly up to here.
BEHIND_ALL = 2**53

#: The format in which this release writes to Redis.
FORMAT = b"1"


class _Answer(NamedTuple):
    """A store's state, its time in milliseconds (``now``), and what it has of each
    channel that was asked for: the last position, the entries as Redis has them, and
    the position and the budget of the last run."""

    state: State
    now: int
    channels: dict[str, tuple[int, list[Any], int, int]]


class RedisStore(Store):
    """Publishing is one script.

    It has more than 20 methods: the verbs of a store, and the steps of asking.

    :param connection_class: redis-py's, and ``options`` for each connection.
    :param prefix: what all keys begin with. In a cluster it must have braces, which
        bring all keys to one node.
    :param retention: what the store must keep of a channel, and ``history_bytes`` of
        all; None leaves that as the store has it.
    """

    def __init__(
        self,
        name: str,
        connection_class: type,
        options: dict[str, Any],
        *,
        prefix: str,
        retention: Retention | None,
        history_bytes: int | None,
        timeout: float,
    ) -> None:
        super().__init__(name, timeout)
        self._connection_class = connection_class
        self._options = options
        self._prefix = prefix
        self._keys = (f"{prefix}:store", f"{prefix}:channels")
        # Redis sends a topic's messages to the clients of all databases.
        self._topic = f"{prefix}:events:{options.get('db') or 0}"
        self._wanted = retention and (*retention, history_bytes or "same")
        self._open_nothing()

    def _open_nothing(self) -> None:
        """Set up, in a new store and in a forked child, without a connection."""
        self._has_set_retention = False
        self._lives = Lives(self.name, self._keys[0])
        self._is_format_told = False
        self._pool = Pool(self, self._connection_class, self._options, self._lives)
        self._ears = Ears(self, self._pool, self._topic)
        self._scales = Scales(self.name, self._ask_for, self._names)
        self.board = RedisBoard(
            self, self._pool, self._ask, self._key, self._topic, self._scales
        )
        #: Redis's time in milliseconds, and when Redis told it (``time.monotonic()``).
        #: Only the follower uses this.
        self._told_time = (0, 0.0)

    # Events

    def put(self, channel: str, event: Event | None) -> tuple[str, int]:
        position = self._add(channel, _packed(event))
        assert position
        return position

    def _add(
        self,
        channel: str,
        body: bytes,
        how: str = "",
        token: str = "",
        dropped: int = 0,
        told: bytes = b"",
        seen: tuple[str, int] = ("", 0),
    ) -> tuple[str, int] | None:
        """Put an entry by the script ``put``, whose comment explains the parameters."""
        keys = (
            self._stream(channel),
            self._run_key(channel),
            self._key("leases"),
        )
        lease = int(self.lease * 1000)
        own = (channel, body, self._topic, how, token, dropped, lease, told, *seen)
        epoch, *found = self._ask(scripts.put, keys, own)
        if not found:
            return None
        if len(found) > 1:
            self._scales.weigh()
        return (epoch.decode(), int(found[0]))

    def _names(self) -> list[str]:
        """The channels that the store has."""
        with self._pool.link() as link:
            return names_of(link.call("ZRANGE", self._keys[1], 0, -1))

    def state(self) -> State:
        return self._get((), 0, self.view.known()).state

    def load(self, channels: Collection[str]) -> tuple[State, dict[str, Past]]:
        some = [*pieces(channels)] or [[]]
        # The first answer has the state: the pasts must not be of an earlier moment.
        answers = [self._get(names, 0, self.view.known()) for names in some]
        pasts = {}
        for answer in answers:
            for name, (newest, entries, *run) in answer.channels.items():
                dropped = before(entries[0]) if entries else newest
                found = records(
                    self.view, name, entries, answer.state.epoch, answer.now
                )
                pasts[name] = Past(dropped, list(found), *run)
        return answers[0].state, pasts

    def news(self, after: int) -> News:
        known = (self.view.log.epoch, after)
        state = self._get((), 0, known).state
        epoch, until, _ = state
        new: list[Record] = []
        lost: dict[str, int] = {}
        held = self.view.log.held() if (epoch, until) != known else ()
        for names in pieces(held):
            answer = self._get(names, after, known)
            if answer.state.epoch != epoch:
                return News(answer.state.epoch, until, [], {}, False)
            for name, (newest, entries, *_) in answer.channels.items():
                dropped = min(until, before(entries[0]) if entries else newest)
                if dropped > after:
                    lost[name] = dropped
                new += records(self.view, name, entries, epoch, answer.now)
        new = sorted((r for r in new if r.sequence <= until), key=itemgetter(0))
        return News(epoch, until, new, lost, False)

    def summaries(self) -> Iterator[Summary]:
        for names in pieces(self._names()):
            answer = self._ask_for(scripts.survey, names, ())
            history, life = int(answer[0]), float(answer[1])
            for name, (count, age, size) in zip(names, answer[2], strict=True):
                if count and float(age) <= life:
                    # The newest entry can be an end, which is no event.
                    count = min(count - (not size), history)
                    yield Summary(name, count, float(age), not size)

    def renew(self, epoch: str) -> None:
        self._get((), 0, (epoch, BEHIND_ALL))

    def _get(
        self, channels: Sequence[str], after: int, known: tuple[str, int] = ("", 0)
    ) -> _Answer:
        keys = (*map(self._stream, channels), *map(self._run_key, channels))
        answer = self._ask(scripts.get, keys, (after, *channels), known)
        epoch, sequence, history, age, holes, now, found, format = answer
        self._note_format(format)
        self.view.log.voids = [
            (int(low), int(high))
            for low, high in re.findall(rb"([0-9]+) ([0-9]+);", holes)
        ]
        return _Answer(
            State(epoch.decode(), int(sequence), Retention(int(history), float(age))),
            int(now),
            {
                name: (int(newest), entries, number(start, 0), number(budget, 0))
                for name, (newest, entries, start, budget) in zip(
                    channels, found, strict=True
                )
            },
        )

    def _note_format(self, format: bytes) -> None:
        if format != FORMAT and not self._is_format_told:
            self._is_format_told = True
            theirs = format.decode(errors="replace")
            REDIS_FORMAT.log(self.name, theirs, FORMAT.decode(), format=theirs)

    def _ask_for(
        self, script: scripts.Script, channels: Collection[str], own: Sequence[Any]
    ) -> Any:
        """Run a script for the streams of some channels. There can be many such calls,
        and they must not go on in a store that is being closed."""
        self.check_open()
        return self._ask(script, [*map(self._stream, channels)], own)

    def _ask(
        self,
        script: scripts.Script,
        keys: Sequence[str],
        own: Sequence[Any],
        known: tuple[str, int] | None = None,
    ) -> Any:
        """Run a script.

        :param keys: those behind the two that every script has.
        :param known: the newest position that the caller knows; None for the one that
            this process knows.
        """
        every = (*self._keys, *keys)
        with self._pool.link() as link:
            return self._run(link, script, every, own, known or self.view.known())

    def _run(
        self,
        link: Link,
        script: scripts.Script,
        keys: Sequence[str],
        own: Sequence[Any],
        known: tuple[str, int],
    ) -> Any:
        wanted = self._wanted or DEFAULT_RETENTION
        is_to_hold = self._wanted is not None and not self._has_set_retention

        def words() -> tuple[Any, ...]:
            history, age, size = wanted
            held = size if is_to_hold else ""
            common = (new_epoch(), link.life, history, age, held, *known)
            return (len(keys), *keys, *common, *own)

        try:
            answer = link.call("EVALSHA", script.name, *words())
        except NoScriptError:
            # A proxy can have switched to another server by now.
            self._lives.recognize(link)
            answer = link.call("EVAL", script.text, *words())
        self._has_set_retention = True
        return answer

    def _stream(self, channel: str) -> str:
        return f"{self._prefix}:channel:{channel}"

    def _run_key(self, channel: str) -> str:
        return f"{self._prefix}:run:{channel}"

    def _key(self, name: str) -> str:
        return f"{self._prefix}:{name}"

    # Runs

    def begin(self, claim: Claim) -> tuple[str, int] | None:
        body, token = str(claim.budget).encode(), claim.token
        return self._add(
            claim.channel, body, "begin", token, told=_LOST, seen=claim.began
        )

    def say(
        self,
        claim: Claim,
        event: Event | None,
        dropped: int,
        reason: Event | None = None,
    ) -> tuple[str, int] | None:
        told = _packed(reason)
        return self._add(
            claim.channel, _packed(event), "say", claim.token, dropped, told
        )

    def extend(self, claims: Collection[Claim]) -> tuple[str, set[str]]:
        epoch, known = "", set()
        for some in pieces(claims):
            keys = [self._key("leases")]
            own: list[Any] = [int(self.lease * 1000)]
            for claim in some:
                keys += [self._run_key(claim.channel), self._stream(claim.channel)]
                own += [claim.channel, claim.token]
            found = self._ask(scripts.extend, keys, own)
            epoch = found[0].decode()
            known |= {c.token for c, k in zip(some, found[1], strict=True) if k}
        return epoch, known

    def end_lost(self) -> None:
        own = (self._expected_time(), int(self.lease * 1000))
        now, found = self._ask(scripts.lost, (self._key("leases"),), own)
        self._told_time = (int(now), time.monotonic())
        for name in names_of(found):
            self._add(name, b"", "lost", told=_LOST)

    def _expected_time(self) -> int:
        """What Redis's time in milliseconds must be now, unless somebody has set its
        clock since Redis last told it. 0 where Redis has not told it yet."""
        told, at = self._told_time
        return told + int((time.monotonic() - at) * 1000) if told else 0

    def unknown(self, channels: Collection[str]) -> set[str]:
        unknown = set()
        for names in pieces(channels):
            keys = (self._key("leases"), *map(self._run_key, names))
            own = (int(self.lease * 1000), *names)
            found = self._ask(scripts.unknown, keys, own)
            unknown |= {n for n, is_one in zip(names, found, strict=True) if is_one}
        return unknown

    def end_unknown(self, channel: str, epoch: str, seen: int) -> None:
        self._add(channel, b"", "unknown", told=_LOST, seen=(epoch, seen))

    # Counts

    def count(self, counts: Mapping[str, int]) -> None:
        keys = (self._key("processes"), self._key(f"counts:{self.view.process}"))
        own = (int(self.count_life * 1000), self.view.process, *chain(*counts.items()))
        self._ask(scripts.count, keys, own)

    def counted(self, channel: str) -> int:
        count = 0
        with self._pool.link() as link:
            for process in link.call("ZRANGE", self._key("processes"), 0, -1):
                if process.decode() != self.view.process:
                    key = self._key(f"counts:{process.decode()}")
                    count += int(link.call("HGET", key, channel) or 0)
        return count

    def facts(self) -> Mapping[str, str]:
        with self._pool.link() as link:
            return told(link)

    # News

    def listen(self) -> None:
        self._ears.listen()

    def wait(self, timeout: float) -> Heard:
        return self._ears.wait(timeout)

    def interrupt(self) -> None:
        self._pool.interrupt()

    # The process

    def finish(self) -> None:
        self._scales.finish()

    def close(self) -> None:
        self._pool.close()
        self._scales.finish()

    def begin_anew(self) -> None:
        super().begin_anew()
        self._open_nothing()


_LOST = _packed(LOST)


def connect(settings: Settings, folder: str | None) -> RedisStore:
    query = settings.url.partition("?")[2]
    options = read_options(settings, query)
    name, connection_class, found = read_url(settings, options.others)
    return RedisStore(
        name,
        connection_class,
        found,
        prefix=options.prefix,
        retention=options.retention,
        history_bytes=options.history_bytes,
        timeout=settings.broker_timeout,
    )
