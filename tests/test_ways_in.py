"""Every way to the events of a channel, tried by somebody who must not have them: a new
way in is one more row. The same row shows that it leads there for who is allowed to."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote

import pytest
from itsdangerous import URLSafeTimedSerializer

from .applications.guarded import SECRET
from .servers import HOST, PATIENCE, Server, serve

#: Servers that deliver streams in each of the ways there are.
SERVERS = [
    *("gunicorn sync", "gunicorn gthread", "gunicorn gevent"),
    *("gevent.pywsgi", "werkzeug", "cheroot", "uWSGI"),
]


class Way(NamedTuple):
    """A request that leads, or can seem to lead, to a channel's events.

    :param target: its path and query. ``{first}`` and the like stand for what an
        attacker can know: see the application.
    :param leads: whether it leads there for who is allowed to listen.
    """

    name: str
    target: str
    leads: bool = True
    method: str = "GET"
    headers: tuple[str, ...] = ()


LISTEN = "/stream?channel=secret"

ACT = "/stream/inspector"
INSPECTED = f"{ACT}/stream?channel"
INSPECT = f"{INSPECTED}=secret"

WAYS = [
    # The blueprint's view
    Way("the view, resumed from the beginning", f"{LISTEN}&last_event_id={{first}}"),
    Way("the view, live", LISTEN),
    Way("several channels", "/stream?channel=public&channel=secret"),
    Way("several, the secret one first", "/stream?channel=secret&channel=public"),
    Way("the same name twice", f"{LISTEN}&channel=secret"),
    Way("below another blueprint", "/outer/inner?channel=secret"),
    Way("a view of the application's own", "/rooms/secret"),
    Way("a doctor's question, forged", LISTEN, headers=("SSE-Doctor: W10.x",)),
    # Resuming
    Way("an id in the header", LISTEN, headers=("Last-Event-ID: {first}",)),
    Way("an id of another name", f"{LISTEN}&lastEventId={{first}}"),
    Way("an id that is none", LISTEN, headers=("Last-Event-ID: x",)),
    Way("an id of another channel", LISTEN, headers=("Last-Event-ID: {public}",)),
    Way("an id of one's own", f"{LISTEN}&last_event_id={{epoch}}-1"),
    Way(
        "another's id in a public channel",
        "/stream?channel=public",
        leads=False,
        headers=("Last-Event-ID: {first}",),
    ),
    Way(
        "a made up id in a public channel",
        "/stream?channel=public&last_event_id={epoch}-0",
        leads=False,
    ),
    Way("a replay of one's own choosing", f"{LISTEN}&replay=100"),
    # Channels that are over
    Way(
        "a channel that has ended",
        "/stream?channel=secret.ended&last_event_id={epoch}-1",
    ),
    # Runs
    Way("a run", "/answer"),
    Way("a run by its id", "/answer", headers=("Last-Event-ID: {run}",)),
    Way("a run's channel", "/stream?channel={run_channel}", leads=False),
    Way("a run's channel, own view", "/rooms/{run_channel}", leads=False),
    Way("all runs", "/stream?channel=%24run", leads=False),
    Way("a run of no name", "/stream/runs/", leads=False),
    Way("revocations", "/stream?channel=%24revocations", leads=False),
    # Methods
    Way("HEAD", LISTEN, leads=False, method="HEAD"),
    Way("OPTIONS", LISTEN, leads=False, method="OPTIONS"),
    Way("POST", LISTEN, leads=False, method="POST"),
    Way("PUT", LISTEN, leads=False, method="PUT"),
    Way("DELETE", LISTEN, leads=False, method="DELETE"),
    Way("TRACE", LISTEN, leads=False, method="TRACE"),
    Way(
        "a method in a header",
        LISTEN,
        leads=False,
        method="HEAD",
        headers=("X-HTTP-Method-Override: GET",),
    ),
    # Spellings of the name
    Way("escaped letters", "/stream?channel=s%65cret"),
    Way("an escaped key", "/stream?chann%65l=secret"),
    Way("letters escaped twice", "/stream?channel=s%2565cret", leads=False),
    Way("a NUL behind it", "/stream?channel=secret%00", leads=False),
    Way("a line break behind it", "/stream?channel=secret%0A", leads=False),
    Way("a blank behind it", "/stream?channel=secret%20", leads=False),
    Way("a blank before it", "/stream?channel=+secret", leads=False),
    Way("capitals", "/stream?channel=SECRET", leads=False),
    Way("wide letters", f"/stream?channel={quote(chr(0xFF53) + 'ecret')}", leads=False),
    Way("letters in too many bytes", "/stream?channel=%C1%B3ecret", leads=False),
    Way("a combining mark", f"/stream?channel={quote('secret' + chr(0x301))}", False),
    Way("a list in one text", "/stream?channel=public,secret", leads=False),
    Way("a pattern", "/stream?channel=*", leads=False),
    Way("a part of it", "/stream?channel=secre", leads=False),
    Way("brackets", "/stream?channel[]=secret", leads=False),
    Way("a semicolon", "/stream?channel=public;channel=secret", leads=False),
    Way("too many", f"/stream?{'channel=secret&' * 65}", leads=False),
    # Spellings of the path
    Way("a slash behind it", "/stream/?channel=secret", leads=False),
    Way("two slashes", "//stream?channel=secret", leads=False),
    Way("dots", "/outer/../stream?channel=secret", leads=False),
    Way("capitals in the path", "/STREAM?channel=secret", leads=False),
    Way("an escaped path", "/str%65am?channel=secret"),
    # Tokens
    Way("a token of another channel", f"{LISTEN}&token={{token}}", leads=False),
    Way(
        "a token of another channel in the header",
        LISTEN,
        leads=False,
        headers=("Authorization: Bearer {token}",),
    ),
    Way(
        "a token of another channel in the cookie",
        LISTEN,
        headers=("Cookie: sse_token={token}",),
    ),
    Way(
        "a token of another key",
        LISTEN,
        leads=False,
        headers=("Authorization: Bearer {forged}",),
    ),
    Way(
        "a session of another key",
        LISTEN,
        headers=("Cookie: sse_token={forged}; session={forged}",),
    ),
    Way("a password", LISTEN, headers=("Authorization: Basic YW5uOmFubg==",)),
    # The inspector
    Way("the inspector's stream of a channel", INSPECT),
    Way("the inspector's stream, resumed", f"{INSPECT}&last_event_id={{first}}"),
    Way("the inspector's page", "/stream/inspector", leads=False),
    Way("the inspector's script", "/stream/inspector/inspector.js", leads=False),
    Way("what workers tell", "/stream/inspector/stream", leads=False),
    Way("what workers tell, by name", f"{INSPECTED}=%24inspector", leads=False),
    Way("what workers are told", f"{INSPECTED}=%24inspector.calls", leads=False),
    Way("a run in the inspector", f"{INSPECTED}={{run_channel}}", leads=False),
    Way("the inspector below another", "/outer/inner/inspector/stream?channel=secret"),
    Way("an action of the inspector", f"{ACT}/publish", False, "POST"),
    Way(
        "an action, from another origin",
        f"{ACT}/publish",
        leads=False,
        method="POST",
        headers=("Origin: https://evil.example", "Cookie: sse_inspector=x"),
    ),
    Way(
        "an action, without a token",
        f"{ACT}/publish",
        leads=False,
        method="POST",
        headers=(f"Origin: http://{HOST}", "Cookie: sse_inspector=x"),
    ),
    # Headers that name somebody else
    Way("another host", LISTEN, headers=("X-Forwarded-Host: localhost",)),
    Way("another path", "/stream?channel=public", False, "GET", ("X-Path: /answer",)),
]


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(
        request.param,
        app="tests.applications.guarded:app",
        SECRET_KEY="a key of the tests",
        SSE_TOKEN_IN_QUERY=True,
        SSE_REPLAY=1,
        SSE_INSPECTOR=True,
    ) as server:
        yield server


@pytest.fixture(scope="module")
def known(server: Server) -> dict[str, str]:
    """What an attacker can know, and more: ids, the name of a run, a token."""
    known: dict[str, str] = json.loads(server.request("POST", "/seed").body)
    with server.stream("public") as stream:
        assert SECRET not in stream.read().decode()
    _, head, body = answer(server, Way("", "/answer"), known, "ann", SECRET)
    location = head.partition(b"ontent-Location: ")[2].split()[0].decode()
    known["run_channel"] = "%24run." + location.rpartition("/")[2]
    known["run"] = body.partition("\nid: ")[2].partition("\n")[0]
    known["epoch"] = known["first"].partition("-")[0]
    forger = URLSafeTimedSerializer("another key", salt="flask_sse_lite")
    known["forged"] = str(forger.dumps({"c": ["secret"], "i": "ann"}))
    return known


def answer(
    server: Server, way: Way, known: dict[str, str], user: str, until: str
) -> tuple[int, bytes, str]:
    """What a user is answered, up to a text, the secret, or the end of the connection.
    While a stream is open, something is said in every channel.

    :returns: the status, the head and the body.
    """
    lines = [
        f"{way.method} {way.target} HTTP/1.1",
        *(f"Host: {HOST}", f"X-User: {user}", "Connection: close"),
        *way.headers,
    ]
    request = "\r\n".join(lines)
    for name, value in known.items():
        request = request.replace(f"{{{name}}}", value)
    with socket.create_connection((HOST, server.port), PATIENCE) as connection:
        connection.sendall(f"{request}\r\n\r\n".encode())
        received = b""
        has_spoken = False
        while not any(text.encode() in received for text in (until, SECRET)):
            piece = connection.recv(65_536)
            if not piece:
                break
            received += piece
            # A sync worker that has refused waits for its client to close.
            is_stream = way.method == "GET" and received[9:12] == b"200"
            if is_stream and b"\r\n\r\n" in received and not has_spoken:
                has_spoken = True
                assert server.request("POST", "/speak").status == 204
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body.decode(errors="replace")


@pytest.mark.parametrize("way", WAYS, ids=[way.name for way in WAYS])
def test_who_is_not_allowed_gets_nothing(
    server: Server, known: dict[str, str], way: Way
) -> None:
    for user in ("mallory", ""):
        status, head, body = answer(server, way, known, user, "data: over")
        assert SECRET not in head.decode("latin-1") + body
        assert status != 204
        assert status < 500 or status == 501


@pytest.mark.parametrize(
    "way", [way for way in WAYS if way.leads], ids=[w.name for w in WAYS if w.leads]
)
def test_who_is_allowed_gets_it(
    server: Server, known: dict[str, str], way: Way
) -> None:
    status, _, body = answer(server, way, known, "ann", SECRET)
    assert status == 200
    assert SECRET in body


@pytest.mark.parametrize(
    ("one", "other"),
    [("secret", "secret.never"), ("secret", "nobody"), ("secret.ended", "nobody")],
)
@pytest.mark.parametrize("id", ["", "{first}", "{ended}", "x"])
@pytest.mark.parametrize("target", ["/stream?channel=", "/outer/inner?channel="])
def test_a_refusal_does_not_say_what_there_is(
    server: Server,
    known: dict[str, str],
    one: str,
    other: str,
    id: str,
    target: str,
) -> None:
    answers = []
    for channel in (one, other):
        way = Way("", target + channel, False, "GET", (f"Last-Event-ID: {id}",))
        status, head, body = answer(server, way, known, "mallory", "data: over")
        lines = [
            line
            for line in head.decode("latin-1").lower().split("\r\n")
            if not line.startswith(("date:", "content-length:"))
        ]
        answers.append((status, sorted(lines), body.replace(channel, "…")))
    assert answers[0] == answers[1]
    assert answers[0][0] == 403
