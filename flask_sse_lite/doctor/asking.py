"""Asking: the requests that a doctor makes of a server, each with what it brings.

Here lives which headers a request has, and what is noted of each answer. What an answer
means is unknown here.
"""

from __future__ import annotations

from collections.abc import Mapping

from . import account
from .account import HEADER, Question
from .case import Case
from .wire import Answer, Head

#: What browsers say of the encodings that they take. The doctor decodes none: a stream
#: that has one is wrong already.
ENCODINGS = {"Accept-Encoding": "gzip, deflate, br, zstd"}
NO_ENCODING = {"Accept-Encoding": "identity"}


def stream(case: Case, url: str, headers: Mapping[str, str] = NO_ENCODING) -> Answer:
    """Ask for the stream whose events are measured."""
    return _ask(case, url, headers, Question(case.channel))


def short_stream(
    case: Case,
    *,
    headers: Mapping[str, str] | None = None,
    query: str = "",
    publishes: bool = False,
    is_same: bool = False,
) -> Answer:
    """Ask for one more stream, which is left at once.

    :param query: more of the address's query.
    :param publishes: whether the server must publish to the doctor's channel first.
    :param is_same: whether it listens to the channel of the stream that is measured.
    """
    url = case.url
    if query:
        url += f"{'&' if '?' in url else '?'}{query}"
    channel = case.channel if is_same else case.channel_of_others
    question = Question(channel, case.channel, publishes)
    return _ask(case, url, {**NO_ENCODING, **(headers or {})}, question)


def whether_it_answers(case: Case, url: str) -> Answer:
    """Ask what costs nothing: which methods there are."""
    headers = dict(case.wanted.headers)
    is_verified = case.wanted.is_verified
    return Answer(url, headers, is_verified=is_verified, method="OPTIONS")


def note(case: Case, answer: Answer) -> None:
    """Keep what an answer tells of the server, and of the proxy before it."""
    if answer.head is None:
        return
    case.proxy = proxy_of(answer.head) or case.proxy
    if told := account.read(answer.head.headers.get(HEADER.lower())):
        case.told = told


def _ask(
    case: Case, url: str, headers: Mapping[str, str], question: Question
) -> Answer:
    brought = {**headers, **case.wanted.headers}
    if text := account.signed(case.channels, question):
        brought[HEADER] = text
    return Answer(url, brought, is_verified=case.wanted.is_verified)


def proxy_of(head: Head) -> str:
    """The name of the proxy that answers, as ``codes`` calls it; empty where none says
    its name."""
    headers = head.headers
    server, via = headers.get("server", "").lower(), headers.get("via", "").lower()
    if "x-varnish" in headers or "varnish" in via:
        return "Varnish"
    if "caddy" in server or "caddy" in via:
        return "Caddy"
    if "nginx" in server or "openresty" in server:
        return "nginx"
    if "apache" in server or "apache" in via:
        return "Apache"
    return "a CDN" if "cf-ray" in headers or "cloudfront" in via else ""
