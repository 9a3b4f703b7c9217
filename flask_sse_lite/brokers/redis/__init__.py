"""The Redis broker: one Redis, or Valkey, for all processes of all machines.

Here lives how Redis is spoken to, and what is done when it is silent or gone. A publish
is one script, and so one command: it counts, keeps, trims, and tells all who follow, on
one topic. A process has a few connections for its commands, and one that listens,
however many subscribers it has.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, groupby
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlencode

from ...errors import BrokerUnavailable, InvalidValue
from ...event import Event, stored_event
from ...history.pacing import BREATH
from ...history.records import Past, Record, unreadable
from ...own_events import LOST
from ...position import new_epoch, position_id, without_run_names
from ...settings import MOST, Settings
from ...system.locks import Room
from .. import Claim
from ..deadline import Deadline, OutOfTime
from ..options import read_options
from ..shared import News, Retention, SharedBroker, State, Summary
from . import scripts

try:
    from redis.connection import Connection, parse_url
    from redis.exceptions import NoScriptError, RedisError, ResponseError
    from redis.exceptions import TimeoutError as RedisTimeoutError

    from .links import Link
    from .lives import Lives
except ImportError:
    raise InvalidValue(
        "A redis:// URL needs the package redis: pip install flask-sse-lite[redis]"
    ) from None

#: Connections of a process for its commands. More threads than that wait for one.
MAX_LINKS = 4

#: Seconds of silence after which the connection that listens is tried, and the store
#: is looked at.
HEALTH_INTERVAL = 5.0

#: Channels read in one go, so that Redis is soon there for others again.
CHANNELS_AT_ONCE = 32

#: Messages that are fed before others get their turn.
MESSAGES_AT_ONCE = 128

#: What is kept by a store that was never told.
DEFAULT_RETENTION = Retention(256, 300)

#: A position that no store comes to: Lua counts no further.
BEHIND_ALL = 2**53

#: How what this release writes stands in Redis.
FORMAT = b"1"

#: What is redis-py's own business in a URL, and here is nobody's.
NOT_OURS = (
    *("protocol", "decode_responses", "encoding", "encoding_errors", "timeout"),
    *("health_check_interval", "max_connections", "retry_on_timeout"),
    *("socket_timeout", "socket_connect_timeout"),
)

#: A position, or a time in milliseconds, as Redis keeps it.
_DIGITS = re.compile(rb"[0-9]{1,19}")

T = TypeVar("T")

logger = logging.getLogger("flask_sse_lite")


class _Answer(NamedTuple):
    """What a store says of itself, and of each channel that was asked for: its last
    position, entries as Redis has them, and the position and the budget of its last
    run. ``now`` is its time in milliseconds."""

    state: State
    now: int
    channels: dict[str, tuple[int, list[Any], int, int]]


class RedisBroker(SharedBroker):
    """Publishing is one script.

    :param connection_class: redis-py's, and ``options`` for each connection.
    :param prefix: what all keys begin with. In a cluster it is to have braces, which
        bring all keys to one node.
    :param retention: what is to be kept; None for what the store says itself.
    """

    def __init__(
        self,
        name: str,
        connection_class: type,
        options: dict[str, Any],
        *,
        prefix: str,
        retention: Retention | None,
        timeout: float,
    ) -> None:
        self._connection_class = connection_class
        self._options = options
        self._prefix = prefix
        self._keys = (f"{prefix}:store", f"{prefix}:channels")
        # Messages know no databases.
        self._topic = f"{prefix}:events:{options.get('db') or 0}"
        self._wanted_retention = retention
        super().__init__(name, timeout)

    def _reset(self) -> None:
        super()._reset()
        self._has_set_retention = False
        self._lives = Lives(self.name, self._keys[0])
        self._is_format_told = False
        self._links: set[Link] = set()
        self._idle: list[Link] = []
        self._room = Room(MAX_LINKS)
        # The follower's.
        #: Redis's time in milliseconds, and when it was told (``time.monotonic()``).
        self._told_time = (0, 0.0)
        self._ears: Link | None = None
        self._heard_at = 0.0
        self._pinged_at: float | None = None
        #: The newest position heard on this connection.
        self._heard = ("", 0)

    # The store

    def _put(self, channel: str, event: Event | None) -> tuple[str, int]:
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
        """Put an entry, if the script sees to it: see there."""
        keys = (
            *self._keys,
            self._stream(channel),
            self._run_key(channel),
            self._key("leases"),
        )
        lease = int(self.lease * 1000)
        own = (channel, body, self._topic, how, token, dropped, lease, told, *seen)
        with self._link() as link:
            epoch, *found = self._run(link, scripts.put, keys, own, self._known())
        return (epoch.decode(), int(found[0])) if found else None

    def _known(self) -> tuple[str, int]:
        """The newest position that this process knows of."""
        epoch, sequence = self._published
        if epoch in ("", self.log.epoch):
            return self.log.epoch, max(sequence, self.log.sequence)
        return epoch, sequence

    def _state(self) -> State:
        return self._get((), 0, self._known()).state

    def _load(self, channels: Collection[str]) -> tuple[State, dict[str, Past]]:
        pieces = [*_pieces(channels)] or [[]]
        # The first of them says where the store stands.
        answers = [self._get(names, 0, self._known()) for names in pieces]
        pasts = {}
        for answer in answers:
            for name, (newest, entries, *run) in answer.channels.items():
                dropped = _before(entries[0]) if entries else newest
                records = list(self._records(name, entries, answer))
                pasts[name] = Past(dropped, records, *run)
        return answers[0].state, pasts

    def _news(self, after: int) -> News:
        known = (self.log.epoch, after)
        state = self._get((), 0, known).state
        epoch, until, _ = state
        records: list[Record] = []
        lost: dict[str, int] = {}
        held = self.log.held() if (epoch, until) != known else ()
        for names in _pieces(held):
            answer = self._get(names, after, known)
            if answer.state.epoch != epoch:
                return News(answer.state.epoch, until, [], {}, False)
            for name, (newest, entries, *_) in answer.channels.items():
                dropped = min(until, _before(entries[0]) if entries else newest)
                if dropped > after:
                    lost[name] = dropped
                records += self._records(name, entries, answer)
        records = sorted((r for r in records if r.sequence <= until), key=itemgetter(0))
        return News(epoch, until, records, lost, False)

    def _summaries(self) -> Iterator[Summary]:
        with self._link() as link:
            found = link.call("ZRANGE", self._keys[1], 0, -1)
        for names in _pieces(_names(found)):
            keys = (*self._keys, *map(self._stream, names))
            with self._link() as link:
                answer = self._run(link, scripts.survey, keys, (), self._known())
            history, life = int(answer[0]), float(answer[1])
            for name, (count, age, size) in zip(names, answer[2], strict=True):
                if count and float(age) <= life:
                    # The newest entry may be an end, which is no event.
                    count = min(count - (not size), history)
                    yield Summary(name, count, float(age), not size)

    def _renew(self, epoch: str) -> None:
        self._get((), 0, (epoch, BEHIND_ALL))

    def _get(
        self, channels: Sequence[str], after: int, known: tuple[str, int] = ("", 0)
    ) -> _Answer:
        keys = (
            *self._keys,
            *map(self._stream, channels),
            *map(self._run_key, channels),
        )
        with self._link() as link:
            answer = self._run(link, scripts.get, keys, (after, *channels), known)
        epoch, sequence, history, age, holes, now, found, format = answer
        self._note_format(format)
        self.log.voids = [
            (int(low), int(high))
            for low, high in re.findall(rb"([0-9]+) ([0-9]+);", holes)
        ]
        return _Answer(
            State(epoch.decode(), int(sequence), Retention(int(history), float(age))),
            int(now),
            {
                name: (int(newest), entries, _number(start, 0), _number(budget, 0))
                for name, (newest, entries, start, budget) in zip(
                    channels, found, strict=True
                )
            },
        )

    def _note_format(self, format: bytes) -> None:
        if format != FORMAT and not self._is_format_told:
            self._is_format_told = True
            logger.warning(
                "%s has a store of the format %s, which a later release has made; this "
                "one knows the format %s. What it cannot read is a stream-gap.",
                *(self.name, format.decode(errors="replace"), FORMAT.decode()),
            )

    def _run(
        self,
        link: Link,
        script: scripts.Script,
        keys: Sequence[str],
        own: Sequence[Any],
        known: tuple[str, int],
    ) -> Any:
        wanted = self._wanted_retention
        is_to_hold = wanted is not None and not self._has_set_retention

        def words() -> tuple[Any, ...]:
            common = (
                new_epoch(),
                link.life,
                *(wanted or DEFAULT_RETENTION),
                int(is_to_hold),
                *known,
            )
            return (len(keys), *keys, *common, *own)

        try:
            answer = link.call("EVALSHA", script.name, *words())
        except NoScriptError:
            # Another server can stand behind a proxy by now.
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

    def _records(
        self, channel: str, entries: list[Any], answer: _Answer
    ) -> Iterator[Record]:
        epoch, previous = answer.state.epoch, None
        for entry in entries:
            position, fields = _position(entry[0]), _fields(entry[1])
            age = (answer.now - _number(fields.get(b"t"), answer.now)) / 1000
            if previous is not None and (missing := _before(entry)) > previous:
                # Somebody took out of the stream what stood there.
                yield unreadable(epoch, missing, age, channel)
            previous = position
            yield self._record(epoch, position, age, channel, fields.get(b"b"))

    def _record(
        self, epoch: str, sequence: int, age: float, channel: str, body: bytes | None
    ) -> Record:
        try:
            return _read(epoch, sequence, age, channel, body)
        except (ValueError, TypeError, RecursionError) as error:
            return self._cannot_read(epoch, sequence, age, channel, error)

    # Its runs

    def _begin(self, claim: Claim) -> tuple[str, int] | None:
        body, token = str(claim.budget).encode(), claim.token
        return self._add(
            claim.channel, body, "begin", token, told=_LOST, seen=claim.began
        )

    def _say(
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

    def _extend(self, claims: Collection[Claim]) -> tuple[str, set[str]]:
        epoch, known = "", set()
        for some in _pieces(claims):
            keys = [*self._keys, self._key("leases")]
            own: list[Any] = [int(self.lease * 1000)]
            for claim in some:
                keys += [self._run_key(claim.channel), self._stream(claim.channel)]
                own += [claim.channel, claim.token]
            with self._link() as link:
                found = self._run(link, scripts.extend, keys, own, self._known())
            epoch = found[0].decode()
            known |= {c.token for c, k in zip(some, found[1], strict=True) if k}
        return epoch, known

    def _end_lost(self) -> None:
        keys = (*self._keys, self._key("leases"))
        own = (self._expected_time(), int(self.lease * 1000))
        with self._link() as link:
            now, found = self._run(link, scripts.lost, keys, own, self._known())
        self._told_time = (int(now), time.monotonic())
        for name in _names(found):
            self._add(name, b"", "lost", told=_LOST)

    def _expected_time(self) -> int:
        """Redis's time in milliseconds, unless somebody has set its clock since it was
        last told; 0 where it was never told."""
        told, at = self._told_time
        return told + int((time.monotonic() - at) * 1000) if told else 0

    def _unknown(self, channels: Collection[str]) -> set[str]:
        unknown = set()
        for names in _pieces(channels):
            keys = (*self._keys, self._key("leases"), *map(self._run_key, names))
            own = (int(self.lease * 1000), *names)
            with self._link() as link:
                found = self._run(link, scripts.unknown, keys, own, self._known())
            unknown |= {n for n, is_one in zip(names, found, strict=True) if is_one}
        return unknown

    def _end_unknown(self, channel: str, epoch: str, seen: int) -> None:
        self._add(channel, b"", "unknown", told=_LOST, seen=(epoch, seen))

    # Its counts

    def _count(self, counts: Mapping[str, int]) -> None:
        keys = (*self._keys, self._key("processes"), self._counts_key(self._process))
        own = (int(self.count_life * 1000), self._process, *chain(*counts.items()))
        with self._link() as link:
            self._run(link, scripts.count, keys, own, self._known())

    def _counted(self, channel: str) -> int:
        count = 0
        with self._link() as link:
            for process in link.call("ZRANGE", self._key("processes"), 0, -1):
                if process.decode() != self._process:
                    key = self._counts_key(process.decode())
                    count += int(link.call("HGET", key, channel) or 0)
        return count

    def _counts_key(self, process: str) -> str:
        return self._key(f"counts:{process}")

    # The follower's ears

    def _listen(self) -> None:
        deadline = Deadline(self.timeout)
        with self._translated(deadline):
            if self._ears:
                self._drop(self._ears)
            self._ears = ears = self._open(deadline)
            ears.call("SUBSCRIBE", self._topic)
        self._heard_at = time.monotonic()
        self._pinged_at = None
        self._heard = ("", 0)

    def _wait(self, timeout: float) -> bool:
        ears = self._ears
        assert ears
        ears.deadline = deadline = Deadline(timeout + self.timeout)
        with self._translated(deadline):
            if ears.can_read(timeout):
                return self._take_in(ears) or self._is_away
            now = time.monotonic()
            if self._pinged_at is not None:
                if now - self._pinged_at >= self.timeout:
                    raise TimeoutError("It does not answer")
            elif now - self._heard_at >= HEALTH_INTERVAL:
                ears.send("PING")
                self._pinged_at = now
        return self._is_away

    def _take_in(self, ears: Link) -> bool:
        """Feed all that has arrived.

        :returns: whether the store is to be looked at.
        """
        is_to_look = False
        has_more = True
        while has_more and not is_to_look:
            messages: list[tuple[str, int, str, bytes]] = []
            while has_more and len(messages) < MESSAGES_AT_ONCE:
                # Each message has its time: of a burst, the last takes longer to come.
                ears.deadline = Deadline(self.timeout)
                kind, *_, text = ears.read()
                if kind == b"message":
                    try:
                        messages.append(self._message(text))
                    except ValueError:
                        is_to_look = True  # No publish of ours says that.
                # An answer to a PING says nothing of what the store has.
                is_to_look = is_to_look or kind == b"pong"
                has_more = ears.can_read(0)
            is_to_look = self._feed(messages) or is_to_look
            if has_more:
                time.sleep(BREATH)
                self._do_duties()
        self._heard_at = time.monotonic()
        self._pinged_at = None
        return is_to_look

    def _message(self, text: bytes) -> tuple[str, int, str, bytes]:
        position, channel, body = text.split(b"\n", 2)
        epoch, _, sequence = position.decode().partition(" ")
        return epoch, int(sequence), channel.decode(), body

    def _feed(self, messages: list[tuple[str, int, str, bytes]]) -> bool:
        """:returns: whether the store is to be looked at."""
        is_to_look = False
        for epoch, group in groupby(messages, itemgetter(0)):
            heard = list(group)
            if epoch == self._heard[0] and heard[0][1] <= self._heard[1]:
                is_to_look = True  # A step back.
            self._heard = (epoch, heard[-1][1])
            if self._hear(epoch, map(self._heard_record, heard)):
                is_to_look = True
        return is_to_look

    def _heard_record(self, message: tuple[str, int, str, bytes]) -> Record:
        epoch, sequence, channel, body = message
        if not self.log.holds(channel):
            return Record(sequence, 0.0, channel, None)  # Nobody will look at it.
        return self._record(epoch, sequence, 0.0, channel, body)

    def _interrupt(self) -> None:
        for link in list(self._links):
            link.interrupt()

    def _let_go(self) -> None:
        for link in list(self._links):
            self._drop(link)

    # Connections

    @contextmanager
    def _link(self) -> Iterator[Link]:
        """A connection for some commands, with nobody else on it."""
        with self._within() as deadline:
            if not self._room.acquire(timeout=deadline.left):
                raise OutOfTime(f"{self.name} is too slow")
            try:
                with self._translated(deadline), self._borrowed(deadline) as link:
                    yield link
            finally:
                self._room.release()

    @contextmanager
    def _borrowed(self, deadline: Deadline) -> Iterator[Link]:
        link = self._idle_link(deadline) or self._new_link(deadline)
        try:
            yield link
        except ResponseError as error:
            if "READONLY" in str(error):
                self._drop(link)  # Another is the master now.
            else:
                self._give_back(link)
            raise
        except BaseException:
            # Its answer may still come, and is nobody else's.
            self._drop(link)
            raise
        self._give_back(link)

    def _idle_link(self, deadline: Deadline) -> Link | None:
        while self._idle:
            with suppress(IndexError):
                link = self._idle.pop()
                if link.is_good():
                    link.deadline = deadline
                    return link
                self._drop(link)
        return None

    def _new_link(self, deadline: Deadline) -> Link:
        link = self._open(deadline)
        try:
            self._lives.recognize(link)
        except BaseException:
            self._drop(link)
            raise
        return link

    def _give_back(self, link: Link) -> None:
        if len(self._idle) >= MAX_LINKS:
            self._drop(link)  # It was one too many: see Room.
            return
        self._idle.append(link)
        if self._closing.is_set():
            self._drop(link)

    def _open(self, deadline: Deadline) -> Link:
        link = Link(self._connection_class, self._options, deadline)
        self._links.add(link)
        try:
            link.open()
        except BaseException:
            self._drop(link)
            raise
        return link

    def _drop(self, link: Link) -> None:
        self._links.discard(link)
        link.close()

    @contextmanager
    def _translated(self, deadline: Deadline) -> Iterator[None]:
        """Whatever fails here: the store is away."""
        was_fair = deadline.is_fair
        try:
            yield
        except (RedisError, OSError) as error:
            is_late = isinstance(error, (TimeoutError, RedisTimeoutError))
            kind = OutOfTime if is_late and not was_fair else BrokerUnavailable
            # Redis can name the key that it refuses.
            raise kind(without_run_names(f"{self.name} fails: {error}")) from error


def _pieces(names: Collection[T]) -> Iterator[list[T]]:
    listed = list(names)
    for start in range(0, len(listed), CHANNELS_AT_ONCE):
        yield listed[start : start + CHANNELS_AT_ONCE]


def _names(found: Collection[bytes]) -> list[str]:
    """Names of channels. What is no text, another program has put there."""
    names = []
    for name in found:
        with suppress(UnicodeDecodeError):
            names.append(name.decode())
    return names


def _position(id: bytes) -> int:
    return int(id.partition(b"-")[0])


def _fields(words: Sequence[bytes]) -> dict[bytes, bytes]:
    """An entry's fields by their names. A release passes over those that it does not
    know."""
    return dict(zip(words[::2], words[1::2], strict=False))


def _number(text: bytes | None, otherwise: int) -> int:
    return int(text) if text and _DIGITS.fullmatch(text) else otherwise


def _before(entry: Any) -> int:
    """The position of what stood before an entry in its channel. Where the entry does
    not say it, all before it counts as lost."""
    id, words = entry
    position = _position(id)
    return min(_number(_fields(words).get(b"p"), position - 1), position - 1)


def _packed(event: Event | None) -> bytes:
    """An event as it stands in Redis; nothing for the end of a channel."""
    if event is None:
        return b""
    fields = [event.data, event.type, event.id, event.retry]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def _read(
    epoch: str, sequence: int, age: float, channel: str, body: bytes | None
) -> Record:
    """:raises ValueError: (or what else comes of it) for what this release does not
    write. It passes over fields behind those that it knows."""
    if body is None:
        raise ValueError("The entry has no body")
    if not body:
        return Record(sequence, age, channel, None)
    fields = json.loads(body)
    if isinstance(fields, int):
        return Record(sequence, age, channel, None, budget=_budget(fields))
    if not isinstance(fields, list):
        raise TypeError("The body is no list")
    data, type, id, retry, *_ = fields
    position = position_id(epoch, sequence, channel)
    event = stored_event(data, type, id, retry, channel, position)
    return Record(sequence, age, channel, event)


def _budget(number: int) -> int:
    if isinstance(number, bool) or not 0 < number <= MOST:
        raise ValueError("A run's budget is a number of bytes")
    return number


_LOST = _packed(LOST)


def connect(settings: Settings, folder: str | None) -> RedisBroker:
    server, _, query = settings.url.partition("?")
    options = read_options(settings, query)
    try:
        url = f"{server}?{urlencode(options.others)}"
        found: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        for name in NOT_OURS:
            found.pop(name, None)
        connection_class = found.pop("connection_class", Connection)
        timeout = settings.broker_timeout
        found |= {
            "protocol": 2,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
        }
        connection_class(**found)
    except (ValueError, TypeError, RedisError):
        # The URL is not shown: there may be a password in it.
        raise InvalidValue(
            f"{settings.url_key} is to be like redis://[[user]:password@]host[:port]"
            "[/database], rediss://… (TLS) or unix:///path, and takes the options "
            "history, age and prefix, and those of redis-py's connections"
        ) from None
    place = found.get("path") or (
        f"{found.get('host', 'localhost')}:{found.get('port', 6379)}"
    )
    return RedisBroker(
        f"Redis at {place}",
        connection_class,
        found,
        prefix=options.prefix,
        retention=options.retention,
        timeout=timeout,
    )
