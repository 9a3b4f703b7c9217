"""Passage: how events come through to a client whose stream has been answered.

Here lives what is seen of one stream: its head, when its events come, and for how long
it stays open while nothing is published. Clients that come back, or leave, are the
affair of other modules.
"""

from __future__ import annotations

import re
import time
from functools import partial
from itertools import pairwise
from math import inf
from statistics import median
from typing import NamedTuple

from ..event import Event
from ..own_events import OPEN
from ..position import parse_position
from ..response import HEADERS
from . import account, arrival, asking, buffers, held_worker, wire
from .case import HEARTBEATS, Case
from .wire import Answer, Heard

#: Events that are published, one after the other: a few, more where each was late, and
#: still more where bare requests are slow. A machine that is busy delays some events,
#: and a proxy all.
EVENTS, MOST_EVENTS, MOST_EVENTS_WHEN_BUSY = 3, 10, 30

#: Seconds by which every event must be late before that is a complaint. HAProxy holds
#: each back for 0.2 s; a network of slow links takes half of this. A bare request at
#: the same time says by how much everything is late.
HELD_BACK = 0.15

#: Times that the doctor listens to a silent stream until it complains of the silence: a
#: machine that is busy can delay one sign of life.
LISTENINGS = 2

#: Heartbeats that a silence can last before it is a complaint, and seconds beside them:
#: a server sends the next sign of life within one, and a busy machine delays it.
SILENCE, SLACK = 1.5, 1.0

#: How often the opening says that a stream gives a sign of life, in seconds.
_HEARTBEAT = re.compile(rb"^: heartbeat ([0-9.e+-]+)", re.MULTILINE)


def begins(case: Case, stream: Answer) -> bool:
    """Whether the stream's first event comes, which every stream has at once."""
    if not stream.wait(lambda: stream.beats, case.patience):
        if stream.end:
            arrival.blame_end(case, stream)
        else:
            buffers.judge(case, stream, "The stream's first event")
        return False
    if not stream.wait(lambda: stream.event(OPEN), 1.0):
        if stream.end:
            arrival.blame_end(case, stream)
            return False
        case.report.unknown(
            "buffering",
            "the stream is none of sse.stream (it has no stream-open), so that nothing "
            "can be published to it.",
        )
        return False
    asking.note(case, stream)
    note_epoch(case, stream.event(OPEN))
    case.report.unknown(
        "away", "the application is there: this shows only while it is away."
    )
    return True


def note_epoch(case: Case, heard: Heard | None) -> None:
    """Note which life of which log an answer is of."""
    position = parse_position(heard.event.id or "") if heard else None
    if position:
        case.epochs.add(position.epoch)


# The head


def judge_head(case: Case, stream: Answer) -> None:
    assert stream.head
    _judge_caching(case, stream)
    _judge_versions(case, stream)


def _judge_caching(case: Case, stream: Answer) -> None:
    assert stream.head
    headers = stream.head.headers
    wanted, found = HEADERS["Cache-Control"], headers.get("cache-control", "")
    missing = {"no-cache"} - {part.strip().lower() for part in found.split(",")}
    if "hit" in headers.get("x-cache", "").lower() or headers.get("age", "0") != "0":
        how = "The answer says X-Cache: hit, or has an Age above 0."
        case.report.wrong("caching", "A cache answers.", how, by=case.proxy)
    elif missing or "max-age" in found.replace("max-age=0", ""):
        case.report.wrong(
            "caching",
            "The headers that keep caches away do not arrive: a cache can give one "
            "client's stream to another.",
            f"Cache-Control is {found!r}, and the application sends {wanted!r}.",
            by=case.proxy,
        )
    else:
        case.report.ok("caching", "Caches are kept away.")


def _judge_versions(case: Case, stream: Answer) -> None:
    assert stream.head
    upstream = str(case.told["protocol"]) if case.told else ""
    if stream.head.is_old or upstream == "HTTP/1.0":
        case.report.warning(
            "http-version",
            "HTTP/1.0 is spoken: a stream that was cut on its way looks like one that "
            "has ended, and each stream costs a new connection.",
            "The application says that it was asked in HTTP/1.0."
            if upstream == "HTTP/1.0"
            else "The answer is of HTTP/1.0.",
            by=case.proxy,
        )
        return
    try:
        has_2 = wire.speaks_http_2(case.url, case.wanted.is_verified)
    except OSError:
        has_2 = False
    upstream = f"The application is asked in {upstream}. " if upstream else ""
    browser = (
        "Browsers are offered HTTP/2."
        if has_2
        else "Browsers get HTTP/1.1, and so at most six streams of an origin at once: "
        "the module sse.js shares one among all tabs."
    )
    case.report.ok("http-version", upstream + browser)


# The events


def measure(case: Case, stream: Answer) -> bool:
    """Publish a few events, and see when each comes.

    :returns: whether they come at all.
    """
    if case.told is None:
        for code in ("buffering", "delay"):
            case.report.unknown(code, _why_nothing_is_told(case))
        return True
    pace = _Pace([], [])
    while not pace.is_known():
        with held_worker.bare(case) as bare:
            published = _publish(case, stream)
            if published is None:
                return True
            if not stream.wait(
                partial(_has_come, stream, len(pace.delays)), case.patience
            ):
                _judge_missing(case, stream, pace)
                return False
            delay = _own(stream)[len(pace.delays)].at - published
            bare.wait(lambda: bare.head, case.patience)
        pace.delays.append(max(0.0, delay))
        if not bare.head:
            pace.bare.append(inf)
            break  # Another check says why.
        pace.bare.append(bare.head_at - bare.began - bare.connected_after)
    _judge_delay(case, pace)
    return True


class _Pace(NamedTuple):
    """Seconds that events took from their publishing, and that the answers to bare
    requests took at the same times."""

    delays: list[float]
    bare: list[float]

    @property
    def excess(self) -> float:
        """By how much even the fastest event was slower than a bare request."""
        return min(self.delays) - min(self.bare)

    def is_known(self) -> bool:
        """Whether there are enough events to tell whether they are held back."""
        count = len(self.delays)
        if count < EVENTS:
            return False
        is_calm = median(self.bare) <= HELD_BACK / 2
        most = MOST_EVENTS if is_calm else MOST_EVENTS_WHEN_BUSY
        return self.excess <= HELD_BACK or count >= most


def _why_nothing_is_told(case: Case) -> str:
    if not case.channels.secret_keys:
        return (
            "the application has no SECRET_KEY, by which the server would know that it "
            "is asked by a doctor."
        )
    return (
        "the server does not know this command's SECRET_KEY, or a proxy drops the "
        f"header {account.HEADER}, or the answer is none of this extension's views."
    )


def _own(stream: Answer) -> list[Heard]:
    return [heard for heard in stream.heard if heard.event.type == "doctor"]


def _has_come(stream: Answer, number: int) -> bool:
    return len(_own(stream)) > number


def _publish(case: Case, stream: Answer) -> float | None:
    """Publish an event to the doctor's channel.

    :returns: when it was published; None where that could not be had.
    """
    broker = case.channels.broker
    if broker.is_shared:
        broker.publish(case.channel, Event("doctor", type="doctor"))
        return time.monotonic()
    # Events stay in the server's process, which must publish itself.
    with asking.short_stream(case, publishes=True) as other:
        other.wait(lambda: other.head, case.patience)
        if other.head is None or held_worker.is_late(stream, other):
            held_worker.judge(case, stream)
            return None
        here = case.told
        asking.note(case, other)
        if here and case.told and here["process"] != case.told["process"]:
            judge_several(case)
            return None
        return other.head_at


def judge_several(case: Case) -> None:
    case.report.wrong(
        "workers",
        "Several processes serve the application, and SSE_URL is memory://, which is "
        "one process's own: a browser sees only what its own worker publishes.",
        "Two requests were answered by two processes.",
    )


def _judge_missing(case: Case, stream: Answer, pace: _Pace) -> None:
    """Note why an event has not come, though the stream has begun.

    :param pace: of the events before it.
    """
    broker = case.channels.broker
    if broker.is_shared and case.epochs:
        position = parse_position(broker.position())
        if position and position.epoch not in case.epochs:
            case.report.wrong(
                "same-broker",
                "This command and the server have different brokers.",
                "What this command published did not come, and the server names "
                "positions of another store.",
            )
            return
    if stream.end:
        if pace.delays:
            _judge_delay(case, pace)
        else:
            case.report.unknown("buffering", "the stream ended before an event came.")
        _judge_end(case, stream, _heartbeat(case, stream))
        return
    buffers.judge(case, stream, "An event that was published")


def _judge_delay(case: Case, pace: _Pace) -> None:
    report = case.report
    report.ok("buffering", "Events come as they are published.")
    if case.channels.broker.is_shared:
        report.ok("same-broker", "What this command publishes, the server sends.")
    least, bare = min(pace.delays), min(pace.bare)
    if least <= HELD_BACK or (bare < inf and pace.excess <= HELD_BACK):
        report.ok("delay", f"The fastest event came within {least:.3f} s.")
    elif bare > HELD_BACK:
        took = f"took {bare:.2f} s at least" if bare < inf else "was not answered"
        report.unknown(
            "delay", f"the server or this machine is busy: a bare request {took}."
        )
    else:
        report.warning(
            "delay",
            f"Each event is held back for {least:.2f} s.",
            f"Of {len(pace.delays)} events, the fastest came {least:.2f} s after it "
            f"was published. A bare request was answered within {bare:.2f} s.",
            by=case.proxy,
        )


# Silence


def listen(case: Case, stream: Answer) -> None:
    """Listen to the stream for longer than two heartbeats, while nothing happens."""
    heartbeat = _heartbeat(case, stream)
    wait = max(case.wanted.wait or 0.0, HEARTBEATS * heartbeat)
    silences: list[float] = []
    while len(silences) < LISTENINGS:
        began, before = time.monotonic(), len(stream.beats)
        stream.wait(lambda: stream.end, wait)
        if stream.end:
            _judge_end(case, stream, heartbeat)
            return
        times = [began, *stream.beats[before:], time.monotonic()]
        silences.append(max(b - a for a, b in pairwise(times)))
        if silences[-1] <= SILENCE * heartbeat + SLACK:
            break
    case.report.ok("time-out", f"The stream stayed open for {wait:.1f} s of silence.")
    _judge_silence(case, min(silences), heartbeat)


def _judge_silence(case: Case, silence: float, heartbeat: float) -> None:
    if silence > SILENCE * heartbeat + SLACK:
        case.report.wrong(
            "heartbeat",
            "The comments do not come that keep a silent stream open.",
            f"The stream was silent for {silence:.1f} s, and says that it never is for "
            f"more than {heartbeat:g} s.",
            by=case.proxy,
        )
    else:
        case.report.ok("heartbeat", f"A sign of life came within {silence:.1f} s.")


def _heartbeat(case: Case, stream: Answer) -> float:
    """Seconds of silence after which the server gives a sign of life."""
    found = _HEARTBEAT.search(stream.body)
    return float(found[1]) if found else case.channels.settings.heartbeat


def _judge_end(case: Case, stream: Answer, heartbeat: float) -> None:
    age = stream.ended_at - stream.began
    most = case.channels.settings.max_age
    if most is not None and age >= most:
        case.report.unknown(
            "time-out", f"SSE_MAX_AGE ended the stream after {age:.1f} s."
        )
        return
    silence = stream.ended_at - (stream.beats or [stream.began])[-1]
    had_life = silence < SLACK or len(stream.beats) > 1 + len(_own(stream))
    case.report.wrong(
        "time-out",
        "A stream is cut that is not silent: whoever serves it bounds its whole time."
        if had_life
        else "A silent stream is cut. Its client comes back, and is cut again.",
        f"The stream ended after {age:.1f} s, of which the last {silence:.1f} s were "
        f"silent: {stream.end}. Its signs of life come each {heartbeat:g} s.",
        by="" if had_life else case.proxy,
    )
