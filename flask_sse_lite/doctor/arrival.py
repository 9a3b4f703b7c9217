"""Arrival: from the address that the operator gives to a stream that has been answered.

Here lives what is said of every other answer: a login page, a redirect, an application
that is away. How events come through is unknown here.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin, urlsplit

from flask import Flask

from ..response import MIMETYPE, NOSNIFF
from . import asking, buffers
from .case import Case
from .wire import Answer, Head, parts_of

#: Redirects that are followed: browsers follow twenty, and a loop shows sooner.
MOST_REDIRECTS = 5

REDIRECTS = (301, 302, 303, 307, 308)

#: What a proxy itself answers for an application that is away.
AWAY = (502, 503, 504)

#: What shows that a page, or its address, asks for a login.
LOGIN_PAGE = re.compile(
    rb"<input[^>]+password|<form[^>]+(log-?in|sign-?in)", re.IGNORECASE
)
LOGIN_ADDRESS = re.compile(r"log-?in|sign-?in|/auth|/sso", re.IGNORECASE)

#: What a stream begins with that only tells its client to come back.
COMES_BACK = re.compile(rb"retry: ?\d+\s*\Z")


class Hop(NamedTuple):
    """A redirect on the way to an answer."""

    url: str
    status: int
    target: str


def find_stream(case: Case) -> Answer | None:
    """The answer to the request for the stream, which goes on. None where no stream was
    found: a finding then says why."""
    wanted = case.wanted.url
    own = _address(case.app)
    own_url = urljoin(f"{wanted.rstrip('/')}/", own[1:]) if own else wanted
    has_path = parts_of(wanted).path not in ("", "/")
    first = wanted if has_path else own_url
    if not _answers(case, first):
        return None
    stream, hops = _followed(case, first)
    if has_path and own and stream.head and not _is_stream(stream.head):
        # It is the address of the application, perhaps, and not of a stream.
        other, other_hops = _followed(case, own_url)
        if _is_stream(other.head):
            stream, other, first, hops = other, stream, own_url, other_hops
        other.leave()
    case.url = hops[-1].target if hops else first
    _judge_hops(case, hops)
    return _judged(case, stream)


def _answers(case: Case, url: str) -> bool:
    """Whether the server answers at all, before there is a stream of ours."""
    with asking.whether_it_answers(case, url) as answer:
        answer.wait(lambda: answer.head, case.patience)
    asking.note(case, answer)
    if answer.head:
        case.report.ok("answer", f"{url} answers.")
        return True
    why = answer.end or f"nothing came within {case.patience:g} s"
    case.report.wrong("answer", f"{url} does not answer.", f"{why}.")
    return False


def _address(app: Flask) -> str | None:
    """Where the application has the view of its streams, if it has one."""
    for rule in app.url_map.iter_rules():
        view = app.view_functions.get(rule.endpoint)
        if getattr(view, "__name__", "") == "_view" and not rule.arguments:
            return rule.rule
    return None


def _followed(case: Case, url: str) -> tuple[Answer, list[Hop]]:
    """An answer, and the redirects that led to it."""
    hops: list[Hop] = []
    while True:
        answer = asking.stream(case, url, asking.ENCODINGS)
        answer.wait(lambda: answer.head, case.patience)  # noqa: B023
        head = answer.head
        if not head or head.status not in REDIRECTS or len(hops) == MOST_REDIRECTS:
            return answer, hops
        target = urljoin(url, head.headers.get("location", ""))
        hops.append(Hop(url, head.status, target))
        if LOGIN_ADDRESS.search(target) or not _is_safe(url, target):
            return answer, hops
        answer.leave()
        url = target


def _is_safe(url: str, target: str) -> bool:
    """Whether the operator's headers can be sent to another address: they are for this
    host alone, and must not be sent in the clear where they were not before."""
    here, there = parts_of(url), urlsplit(target)
    is_clear = there.scheme == "http" and here.scheme == "https"
    is_same = port_of(there) == port_of(here) or is_from_clear(here, there)
    return there.hostname == here.hostname and is_same and not is_clear


def port_of(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)


def is_from_clear(here: SplitResult, there: SplitResult) -> bool:
    """Whether a redirect leads from the port of http to that of https."""
    return (port_of(here), port_of(there)) == (80, 443)


def _judge_hops(case: Case, hops: list[Hop]) -> None:
    for url, status, target in hops:
        how = f"{url} answers {status} and names {target}."
        if LOGIN_ADDRESS.search(target):
            case.report.wrong(
                "login",
                "The stream is answered by a way to a login. A browser's EventSource "
                "follows it, finds no stream, and never asks again.",
                how,
            )
        else:
            case.report.warning(
                "redirect",
                "The address is not the stream's own: each time that a client comes "
                "back it is sent on once more.",
                how,
            )


def _is_stream(head: Head | None) -> bool:
    if head is None or head.status != 200:
        return False
    return head.headers.get("content-type", "").partition(";")[0].strip() == MIMETYPE


def _judged(case: Case, stream: Answer) -> Answer | None:
    """The answer, if it is an event stream that goes on."""
    head = stream.head
    if head is None:
        buffers.judge(case, stream, "The head of the stream's answer")
        stream.leave()
        return None
    asking.note(case, stream)
    if not _is_stream(head):
        stream.wait(lambda: False, 0.5)
        _blame(case, head, stream.body)
        stream.leave()
        return None
    case.report.ok("content-type", "The answer is an event stream.")
    return _without_encoding(case, stream)


def _without_encoding(case: Case, stream: Answer) -> Answer:
    """The same stream, asked for without any encoding where it had one."""
    assert stream.head
    encoding = stream.head.headers.get("content-encoding", "identity")
    if encoding == "identity":
        case.report.ok("compression", "The stream is not compressed.")
        return stream
    case.report.wrong(
        "compression",
        "The stream is compressed on its way. What compresses it holds events back "
        "until there is enough of them.",
        f"Asked for as browsers do, it has the Content-Encoding {encoding}.",
        by=case.proxy,
    )
    stream.leave()
    again = asking.stream(case, case.url)
    again.wait(lambda: again.head, case.patience)
    return again


def _blame(case: Case, head: Head, body: bytes) -> None:
    """Note why an answer is no stream."""
    report, kind = case.report, head.headers.get("content-type", "no type")
    how = f"{case.url} answers {head.status}, {kind}."
    if head.status in AWAY:
        report.wrong(
            "away",
            "The application is away, and streams are answered by an error. After it "
            "a browser's EventSource never comes back.",
            how,
            by=case.proxy,
        )
    elif head.status == 204:
        report.wrong(
            "content-type", "The stream's channels are closed: browsers stay away.", how
        )
    elif head.status in (401, 403):
        report.wrong("login", "The doctor is not let in.", how)
    elif head.status in REDIRECTS:
        report.wrong("content-type", "A redirect leads to no stream.", how)
    elif head.status == 200 and LOGIN_PAGE.search(body):
        report.wrong(
            "login",
            "The stream is answered by a page that asks for a login, with the status "
            "200. A browser's EventSource finds no stream, and never asks again.",
            f"{how} The page speaks of a login.",
        )
    else:
        report.wrong("content-type", "The answer is no event stream.", how)


def blame_end(case: Case, stream: Answer) -> None:
    """Note why a stream has ended before it began."""
    assert stream.head
    how = f"It held {stream.body[:40]!r}, and ended."
    is_ours = all(
        stream.head.headers.get(name.lower()) == value
        for name, value in NOSNIFF.items()
    )
    if not COMES_BACK.search(stream.body):
        case.report.wrong("content-type", "The stream ended before it began.", how)
    elif is_ours:
        case.report.warning(
            "room", "The application has no room for a stream, or is stopping.", how
        )
    else:
        case.report.ok("away", "While the application is away, streams come back.")
        case.report.wrong("answer", "The application is away.", how)
