"""The inspector: who gets in, which requests are the page's own, what workers tell, and
what the page shows of it in a real browser."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from flask_sse_lite import SSE, InvalidType
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.inspector import forgery, pages, reporting
from flask_sse_lite.inspector.reporting import ANSWERS, CALLS
from flask_sse_lite.inspector.snapshot import MOST_JSON, snapshot
from flask_sse_lite.testing import published, read_events

from .browsers import blank_page, chromium
from .client_packages import npm_packages
from .redis_servers import redis_server
from .servers import PATIENCE, Client, Server, process_of, serve, several, stopped

PAGE = "/stream/inspector"
ACTIONS = list(pages.ACTIONS)
GETS = [PAGE, f"{PAGE}/stream", f"{PAGE}/inspector.js", f"{PAGE}/stream?channel=room"]
WORKERS = 3
WIDTHS = [1280, 390]

#: What reaches into the page's margin.
STICKING_OUT = """
[...document.querySelectorAll("main :is(button, input, textarea, p, td)")]
    .filter(part => part.getBoundingClientRect().right > innerWidth - 15.5)
    .map(part => part.outerHTML)
"""

#: Milliseconds for which a browser waits.
WAIT = PATIENCE * 1000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def app(sse: SSE) -> Flask:
    app = Flask("application")
    app.config["SSE_INSPECTOR"] = True
    app.secret_key = "a key of the tests"
    sse.inspector_guard(lambda: True)
    app.register_blueprint(sse)
    return app


def unguarded(debug: bool, **config: Any) -> FlaskClient:
    app = Flask("application")
    app.config.update({"SSE_INSPECTOR": True, **config})
    app.debug = debug
    SSE(app)
    return app.test_client()


# Who gets in


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("target", GETS)
def test_it_is_off_unless_it_is_switched_on(debug: bool, target: str) -> None:
    client = unguarded(debug, SSE_INSPECTOR=False)
    assert client.get(target).status_code == 404
    assert client.post(f"{PAGE}/publish").status_code == 404


@pytest.mark.parametrize("target", GETS)
def test_without_a_guard_it_says_what_to_write(target: str) -> None:
    answer = unguarded(debug=False).get(target)
    assert answer.status_code == 403
    assert "@sse.inspector_guard" in answer.text
    assert answer.mimetype == "text/plain"


@pytest.mark.parametrize("action", ACTIONS)
def test_without_a_guard_nothing_can_be_done(action: str) -> None:
    assert unguarded(debug=False).post(f"{PAGE}/{action}").status_code == 403


def test_debug_mode_needs_no_guard() -> None:
    assert unguarded(debug=True).get(PAGE).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:5000", 200),
        ("shop.localhost", 200),
        ("127.0.0.1:5000", 200),
        ("[::1]:5000", 200),
        ("evil.example", 403),
        ("localhost.evil.example:5000", 403),
        ("127.0.0.1.evil.example", 403),
    ],
)
def test_without_a_guard_no_name_of_another_site_leads_here(
    host: str, status: int
) -> None:
    client = unguarded(debug=True)
    assert client.get(PAGE, headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("says", "status"),
    [(True, 200), (False, 403), (None, 403), (Response("log in", 401), 401)],
)
@pytest.mark.parametrize("debug", [False, True])
def test_a_guard_decides(says: Any, status: int, debug: bool, sse: SSE) -> None:
    app = Flask("application")
    app.config["SSE_INSPECTOR"] = True
    app.debug = debug
    sse.inspector_guard(lambda: says)
    app.register_blueprint(sse)
    for target in (PAGE, f"{PAGE}/inspector.js"):
        assert app.test_client().get(target).status_code == status
    if status != 200:
        answer = app.test_client().post(f"{PAGE}/publish")
        assert answer.status_code == status


def test_what_a_guard_cannot_say_is_an_error(sse: SSE, app: Flask) -> None:
    other = SSE("other", url_prefix="/other")
    other.inspector_guard(lambda: "yes")  # type: ignore[type-var]
    app.register_blueprint(other)
    app.testing = True
    with pytest.raises(InvalidType, match="inspector_guard returns True"):
        app.test_client().get("/other/inspector")


def test_a_guard_holds_for_the_other_sse_of_an_application(app: Flask) -> None:
    app.register_blueprint(SSE("other", url_prefix="/other"))
    assert app.test_client().get("/other/inspector").status_code == 200


@pytest.mark.parametrize("name", [ANSWERS, CALLS, "$revocations", "$doctor.x"])
def test_our_own_channels_are_closed(client: FlaskClient, name: str) -> None:
    target = f"{PAGE}/stream?{urlencode({'channel': name})}"
    assert client.get(target).status_code == 404


# The page


def test_the_page_has_nothing_inline(client: FlaskClient) -> None:
    page = client.get(PAGE)
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["Cache-Control"] == "no-store"
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=", page.text)
    cookie = page.headers["Set-Cookie"]
    assert all(
        word in cookie for word in ("HttpOnly", "SameSite=Strict", f"Path={PAGE}")
    )


def test_the_name_of_the_application_is_text(sse: SSE) -> None:
    app = Flask("<b>'\"{x}")
    app.config["SSE_INSPECTOR"] = True
    app.debug = True
    app.register_blueprint(sse)
    page = app.test_client().get(PAGE).text
    assert "&lt;b&gt;&#39;&#34;{x}" in page
    assert "<b>" not in page


@pytest.mark.parametrize("name", list(pages.FILES))
def test_files_are_kept_under_their_version(client: FlaskClient, name: str) -> None:
    first = client.get(f"{PAGE}/{name}")
    assert first.mimetype == pages.FILES[name]
    assert first.headers["Cache-Control"] == "no-cache"
    etag = first.headers["ETag"]
    again = client.get(f"{PAGE}/{name}", headers={"If-None-Match": etag})
    assert again.status_code == 304
    version = etag.strip('"')
    assert client.get(f"{PAGE}/{name}?v={version}").cache_control.immutable


@pytest.mark.parametrize("name", ["page.html", "..", "reporting.py", "%2e%2e/pages.py"])
def test_nothing_else_is_served(client: FlaskClient, name: str) -> None:
    assert client.get(f"{PAGE}/{name}").status_code in (404, 308)


# Which requests are its own


def token_of(client: FlaskClient) -> str:
    found = re.search(r'data-token="(\w+)"', client.get(PAGE).text)
    assert found
    return found[1]


def ask(client: FlaskClient, action: str = "publish", **headers: str) -> int:
    words = {"channel": "room", "data": "hello"}
    return client.post(f"{PAGE}/{action}", json=words, headers=headers).status_code


def test_the_page_can_act(app: Flask, client: FlaskClient) -> None:
    with published(app) as events:
        headers = {"Origin": "http://localhost", forgery.HEADER: token_of(client)}
        assert ask(client, **headers) == 204
    assert [(event.channel, event.data) for event in events] == [("room", "hello")]


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "https://evil.example",
        "http://localhost.evil.example",
        "http://localhost:8000",
        "http://evil.example/localhost",
        "http://localhost:x",
        "localhost",
    ],
)
@pytest.mark.parametrize("action", ACTIONS)
def test_another_origin_cannot_act(
    app: Flask, client: FlaskClient, action: str, origin: str | None
) -> None:
    headers = {forgery.HEADER: token_of(client)}
    if origin is not None:
        headers["Origin"] = origin
    with published(app) as events:
        assert ask(client, action, **headers) == 403
    assert events == []


def test_a_browser_that_says_it_is_another_site_cannot_act(client: FlaskClient) -> None:
    headers = {"Origin": "http://localhost", forgery.HEADER: token_of(client)}
    for site in ("cross-site", "same-site", "none"):
        assert ask(client, **{**headers, "Sec-Fetch-Site": site}) == 403


@pytest.mark.parametrize("token", [None, "", "x", "ä", "0" * 64])
def test_without_its_token_nobody_can_act(
    client: FlaskClient, token: str | None
) -> None:
    token_of(client)  # The cookie is there.
    headers = {"Origin": "http://localhost"}
    if token is not None:
        headers[forgery.HEADER] = token
    assert ask(client, **headers) == 403


def test_a_token_is_of_one_cookie_and_one_key(app: Flask, client: FlaskClient) -> None:
    token = token_of(client)
    headers = {"Origin": "http://localhost", forgery.HEADER: token}
    other = app.test_client()
    assert ask(other, **headers) == 403
    token_of(other)
    assert ask(other, **headers) == 403
    app.secret_key = "another key"
    assert ask(client, **headers) == 403


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("example.com", "https://example.com"),
        ("example.com:8000", "http://example.com:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("example.com:443", "https://example.com"),
    ],
)
def test_its_own_origin_can_be_behind_a_proxy(
    client: FlaskClient, host: str, origin: str
) -> None:
    page = client.get(PAGE, headers={"Host": host})
    found = re.search(r'data-token="(\w+)"', page.text)
    cookie = page.headers["Set-Cookie"].partition(";")[0]
    assert found
    headers = {"Host": host, "Origin": origin, forgery.HEADER: found[1]}
    assert ask(client, Cookie=cookie, **headers) == 204


@pytest.mark.parametrize(
    ("action", "words", "status"),
    [
        ("publish", {"channel": "room", "data": "x", "type": "stream-x"}, 400),
        ("publish", {"channel": "$revocations", "data": "x"}, 400),
        ("publish", {"channel": ["room"], "data": "x"}, 400),
        ("publish", ["room"], 400),
        ("publish", None, 400),
        ("stop", {"channel": "$revocations"}, 400),
        ("stop", {"channel": ""}, 400),
        ("nothing", {}, 404),
    ],
)
def test_what_cannot_be_done_is_refused(
    client: FlaskClient, action: str, words: Any, status: int
) -> None:
    headers = {"Origin": "http://localhost", forgery.HEADER: token_of(client)}
    answer = client.post(f"{PAGE}/{action}", json=words, headers=headers)
    assert answer.status_code == status


# What workers tell


def test_nobody_tells_anything_while_nobody_looks(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr(reporting, "snapshot", lambda *args: told.append(args))
    app.config["SSE_PUBLIC_CHANNELS"] = ["*"]
    stream = client.get("/stream?channel=room")
    with app.app_context():
        for channels in (app.extensions["sse"],):
            channels.publish("hello", None, None, None, "room")
    assert [event.data for event in read_events(stream, count=1)] == ["hello"]
    log = app.extensions["sse"].log
    assert not log.remembers(CALLS)
    assert not log.remembers(ANSWERS)
    assert told == []


def test_nothing_is_watched_where_it_is_off(sse: SSE) -> None:
    app = Flask("application")
    app.register_blueprint(sse)
    with app.test_client().get("/stream") as stream:
        next(iter(stream.iter_encoded()))
        assert CALLS not in app.extensions["sse"].log._channels


def test_a_worker_tells_of_itself_while_somebody_looks(
    app: Flask, client: FlaskClient
) -> None:
    app.config["SSE_PUBLIC_CHANNELS"] = ["*"]
    with client.get("/stream?channel=room") as room:
        next(iter(room.iter_encoded()))
        with client.get(f"{PAGE}/stream") as stream:
            # The first ones can be told before the inspector's own stream has begun.
            decoder = Decoder()
            workers = (
                event
                for piece in islice(stream.iter_encoded(), 100)
                for event in decoder.feed(piece)
                if event.type == "worker"
            )
            told = next(w.json for w in workers if w.json["inspectors"])
    assert told["shared"] is False
    assert told["stats"]["open"]["iterated"] == 2
    assert [c["channels"] for c in told["connections"]] == [["room"]]
    assert [c["why"] for c in told["connections"]] == ["unsupported-server"]
    (channel,) = [c for c in told["channels"] if c["name"] == "room"]
    assert channel["listeners"] == 1
    assert told["inspectors"] == 1


def test_it_calls_each_second_however_often_the_hub_looks(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = app.extensions["sse"]
    courier = channels.courier
    told: list[object] = []
    monkeypatch.setattr(courier, "tell", told.append)
    part = reporting._Part(channels, courier)
    part._expects_until = float("inf")
    for look in (0.25, 0.9375, 1.0):
        told.clear()
        part._due_at = 0.0
        for number in range(int(10 / look)):
            part.tick(number * look)
        assert len(told) == 10


def test_disconnect_ends_who_inspects(
    sse: SSE, app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "EXPECTED", 0.5)
    sse.identity(lambda: "ann")
    for target in (f"{PAGE}/stream", f"{PAGE}/stream?channel=room"):
        with client.get(target) as stream:
            parts = stream.iter_encoded()
            next(parts)
            with app.app_context():
                # Whoever looks on is not there.
                assert sse.present("room") == {}
                sse.disconnect("ann")
            rest = threading.Thread(target=list, args=[parts], daemon=True)
            rest.start()
            rest.join(PATIENCE)
            assert not rest.is_alive()


def test_strangers_cannot_make_it_tell_much(
    sse: SSE, app: Flask, client: FlaskClient
) -> None:
    sse.authorizer(lambda channel: True)
    sse.identity(lambda: "\N{GRINNING FACE}" * 500)
    with ExitStack() as streams:
        for number in range(20):
            names = [f"{number}.{n}.".ljust(200, "\N{GRINNING FACE}") for n in range(8)]
            target = f"/stream?{urlencode({'channel': names}, doseq=True)}"
            next(streams.enter_context(client.get(target)).iter_encoded())
        with app.app_context():
            told = snapshot(app.extensions["sse"], "x")
    assert len(json.dumps(told)) < 2.5 * MOST_JSON
    assert len(told["connections"]) > 5
    assert len(told["channels"]) > 10


# In a browser


class Place(NamedTuple):
    """A server whose streams an inspector shows."""

    server: Server
    store: str


@contextmanager
def place(store: str, folder: Path, **config: Any) -> Iterator[Place]:
    with ExitStack() as stack:
        url = "memory://"
        if store == "SQLite":
            url = f"sqlite:///{folder}/events.db"
        elif store == "Redis":
            url = stack.enter_context(redis_server()).url
        kind = "gunicorn gevent" if store == "Redis" else "gunicorn gthread"
        options = several(kind, 1 if store == "memory" else WORKERS)
        server = serve(
            kind,
            app="tests.applications.inspected:app",
            options=options,
            SSE_URL=url,
            SSE_INSPECTOR=True,
            SECRET_KEY="a key of the tests",
            **config,
        )
        yield Place(stack.enter_context(server), store)


@pytest.fixture(scope="module", params=["memory", "SQLite", "Redis"])
def there(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Place]:
    with place(request.param, tmp_path_factory.mktemp("store")) as there:
        yield there


class Inspector:
    """A tab that shows the page."""

    def __init__(self, page: Page, server: Server) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", self._note)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.context.add_cookies([{"name": "user", "value": "ann", "url": server.url}])
        page.goto(f"{server.url}{PAGE}")
        expect(page.locator("#state")).to_have_text("open", timeout=WAIT)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def rows(self, section: str, text: str) -> Any:
        return self.page.locator(f"#{section} tbody tr").filter(has_text=text)

    def watch(self, channel: str) -> None:
        self.page.fill("#watch-channel", channel)
        self.page.get_by_role("button", name="Watch", exact=True).first.click()

    def wait_for_told(self, text: str) -> None:
        expect(self.page.locator("#told")).to_have_text(text, timeout=WAIT)


@contextmanager
def inspector(
    browser: Browser, server: Server, width: int = 1280, **options: Any
) -> Iterator[Inspector]:
    size = {"width": width, "height": 900}
    with blank_page(browser, viewport=size, **options) as page:
        shown = Inspector(page, server)
        yield shown
        assert shown.complaints == []


@contextmanager
def listening(server: Server, channel: str, *users: str) -> Iterator[list[Client]]:
    """Clients of a channel, each with an identity."""
    with ExitStack() as stack:
        clients = []
        for user in users:
            client = stack.enter_context(Client(server.port))
            query = urlencode({"channel": channel, "user": user})
            client.request(f"/stream?{query}")
            clients.append(client)
        yield clients


@pytest.mark.parametrize("width", WIDTHS)
def test_it_shows_the_streams_of_all_workers(
    there: Place, browser: Browser, width: int
) -> None:
    users = [f"user-{number}" for number in range(12)]
    server = there.server
    with (
        server.channel() as channel,
        listening(server, channel, *users),
        inspector(browser, server, width) as shown,
    ):
        expect(shown.rows("connection-list", channel)).to_have_count(12, timeout=WAIT)
        for user in users:
            row = shown.rows("connection-list", channel).filter(
                has_text=re.compile(rf"{user}(?!\d)")
            )
            expect(row).to_contain_text("handed off")
        listeners = shown.rows("channel-list", channel).locator("td").nth(1)
        expect(listeners).to_have_text("12", timeout=WAIT)
        server.publish({"data": "hello", "channel": channel})
        kept = shown.rows("channel-list", channel).locator("td").nth(3)
        expect(kept).to_have_text("1", timeout=WAIT)
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.page.evaluate(STICKING_OUT) == []
        shown.page.fill("#find-connection", "USER-11")
        expect(shown.rows("connection-list", "")).to_have_count(1, timeout=WAIT)


def test_it_names_as_many_workers_as_have_streams(
    there: Place, browser: Browser
) -> None:
    wanted = 1 if there.store == "memory" else WORKERS
    server = there.server
    with server.channel() as channel, ExitStack() as stack:
        processes: set[int] = set()
        while len(processes) < wanted:
            with stopped(processes):
                client = stack.enter_context(Client(server.port))
                client.request(f"/stream?channel={channel}")
            processes.add(process_of(client))
        with inspector(browser, server) as shown:
            for process in map(str, processes):
                expect(shown.rows("workers", process)).to_have_count(1, timeout=WAIT)


def test_it_says_how_many_workers_are_silent(browser: Browser, tmp_path: Path) -> None:
    """A worker that never had a stream tells nothing, and is counted."""
    with (
        place("SQLite", tmp_path) as there,
        inspector(browser, there.server) as shown,
        ExitStack() as stack,
    ):
        # The page's own stream has made one worker speak.
        expect(shown.page.locator("#silent")).to_contain_text(
            f"{WORKERS - 1} more workers are silent", timeout=WAIT
        )
        processes: set[int] = set()
        while len(processes) < WORKERS:
            with stopped(processes):
                client = stack.enter_context(Client(there.server.port))
                client.request("/stream")
            processes.add(process_of(client))
        expect(shown.page.locator("#silent")).to_be_hidden(timeout=WAIT)


def test_it_shows_a_channels_events_as_they_pass(
    there: Place, browser: Browser
) -> None:
    server = there.server
    with server.channel() as channel, inspector(browser, server) as shown:
        page, lines = shown.page, shown.page.locator("#event-list li")
        server.publish({"data": "past", "channel": channel})
        shown.watch(channel)
        expect(lines).to_have_count(1, timeout=WAIT)
        markup = "<img src=x onerror=alert(1)>"
        (id,) = server.publish(
            {"data": {"a": [1, markup, "x" * 500]}, "type": "t", "channel": channel}
        )
        expect(lines).to_have_count(2, timeout=WAIT)
        expect(lines.first).to_contain_text(id)
        expect(lines.first.locator("pre")).to_be_hidden()
        lines.first.locator("summary").click()
        expect(lines.first.locator("pre")).to_contain_text('"a": [\n    1,\n')
        # All of it can be read.
        fits = "shown => shown.scrollWidth <= shown.clientWidth"
        assert lines.first.locator("pre").evaluate(fits)
        assert page.locator("#event-list img").count() == 0
        page.fill("#find-event", "PAST")
        expect(page.locator("#event-list li:visible")).to_have_count(1)
        page.fill("#find-event", "")
        page.click("#pause")
        server.publish({"data": "later", "channel": channel})
        expect(page.locator("#events-note")).to_contain_text(
            "1 events wait", timeout=WAIT
        )
        expect(lines).to_have_count(2)
        page.click("#pause")
        expect(lines).to_have_count(3)
        expect(lines.first).to_contain_text("later")


def test_what_is_pressed_does_not_move_away(there: Place, browser: Browser) -> None:
    server = there.server
    with (
        server.channel() as channel,
        inspector(browser, server) as shown,
        inspector(browser, server) as other,
    ):
        page, lines = shown.page, shown.page.locator("#event-list li")
        for one in (shown, other):
            one.watch(channel)
            expect(one.rows("channel-list", channel)).to_have_count(1, timeout=WAIT)
        server.publish({"data": {"a": [1]}, "channel": channel})
        expect(lines).to_have_count(1, timeout=WAIT)

        lines.locator("summary").hover()
        page.mouse.down()
        server.publish({"data": "later", "channel": channel})
        expect(other.page.locator("#event-list li")).to_have_count(2, timeout=WAIT)
        page.mouse.up()
        expect(lines).to_have_count(2, timeout=WAIT)
        expect(lines.locator("details[open]")).to_have_count(1)

        page.locator("#pause").hover()
        page.mouse.down()
        # The table above the button would get shorter.
        page.evaluate("""() => {
            const field = document.getElementById("find-channel");
            field.value = "no channel at all";
            field.dispatchEvent(new Event("input"));
        }""")
        expect(shown.rows("channel-list", channel)).to_have_count(1)
        page.mouse.up()
        expect(page.locator("#pause")).to_have_attribute("aria-pressed", "true")
        expect(shown.rows("channel-list", channel)).to_have_count(0, timeout=WAIT)


def test_it_publishes(there: Place, browser: Browser) -> None:
    server = there.server
    with (
        server.channel() as channel,
        listening(server, channel, "ann") as (client,),
        inspector(browser, server) as shown,
    ):
        shown.page.fill("#publish-channel", channel)
        shown.page.fill("#publish-type", "greeting")
        shown.page.fill("#publish-data", "hello\nyou")
        shown.page.get_by_role("button", name="Publish").click()
        shown.wait_for_told(f"Published to {channel}.")
        (event,) = client.take(1)
        assert (event.type, event.data) == ("greeting", "hello\nyou")
        shown.page.fill("#publish-type", "stream-x")
        shown.page.get_by_role("button", name="Publish").click()
        expect(shown.page.locator("#told")).to_contain_text("stream-", timeout=WAIT)
        # The browser itself complains of an answer that says 400.
        assert len(shown.complaints) == 1
        shown.complaints.clear()


@pytest.mark.parametrize("width", WIDTHS)
def test_it_disconnects_one_connection(
    there: Place, browser: Browser, width: int
) -> None:
    server = there.server
    with (
        server.channel() as channel,
        listening(server, channel, "bob", "bob", "eve") as (one, other, eve),
        inspector(browser, server, width) as shown,
    ):
        rows = shown.rows("connection-list", channel)
        expect(rows).to_have_count(3, timeout=WAIT)
        rows.filter(has_text="eve").get_by_role("button").click()
        shown.wait_for_told("eve is disconnected, and can come back.")
        eve.read()  # It ends.
        expect(rows).to_have_count(2, timeout=WAIT)
        server.publish({"data": "hello", "channel": channel})
        assert [c.take(1)[0].data for c in (one, other)] == ["hello", "hello"]


def test_it_disconnects_an_identity(there: Place, browser: Browser) -> None:
    server = there.server
    with (
        server.channel() as channel,
        listening(server, channel, "bob", "bob", "eve") as (one, other, eve),
        inspector(browser, server) as shown,
    ):
        shown.page.fill("#identity", "bob")
        shown.page.locator("#disconnect").get_by_role("button").click()
        shown.wait_for_told("All streams of bob have ended.")
        for client in (one, other):
            client.read()
        server.publish({"data": "hello", "channel": channel})
        assert eve.take(1)[0].data == "hello"


def test_it_shows_runs_and_stops_them(there: Place, browser: Browser) -> None:
    server = there.server
    with Client(server.port) as client, inspector(browser, server) as shown:
        client.request("/run")
        assert client.take(1)[0].data == "a word"
        rows = shown.rows("run-list", "$run.")
        expect(rows).to_have_count(1, timeout=WAIT)
        expect(rows.locator("td").nth(2)).to_have_text("1", timeout=WAIT)
        rows.get_by_role("button").click()
        expect(shown.page.locator("#told")).to_contain_text("is stopped", timeout=WAIT)
        client.read()  # It ends.
        expect(rows).to_have_count(0, timeout=WAIT)


# What it is like to use


@pytest.mark.parametrize("there", ["memory"], indirect=True)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_everybody_can_use_it(
    there: Place, browser: Browser, width: int, scheme: str
) -> None:
    server = there.server
    axe = (npm_packages() / "axe-core" / "axe.min.js").read_text("utf-8")
    with (
        server.channel() as channel,
        listening(server, channel, "ann", "bob"),
        inspector(browser, server, width, color_scheme=scheme) as shown,
    ):
        shown.watch(channel)
        server.publish({"data": {"a": 1}, "channel": channel})
        expect(shown.page.locator("#event-list li")).to_have_count(1, timeout=WAIT)
        shown.page.locator("#event-list summary").click()
        expect(shown.rows("connection-list", "bob")).to_have_count(1, timeout=WAIT)
        # The page's policy keeps a script tag away; this way in is the debugger's.
        shown.page.evaluate(axe)
        found = shown.page.evaluate("axe.run()")
        faults = [
            (fault["id"], fault["impact"], [node["html"] for node in fault["nodes"]])
            for fault in found["violations"]
        ]
        assert faults == []
        assert found["passes"]


@pytest.mark.parametrize("there", ["memory"], indirect=True)
def test_the_keyboard_is_enough(there: Place, browser: Browser) -> None:
    server = there.server
    with (
        server.channel() as channel,
        listening(server, channel, "ann"),
        inspector(browser, server) as shown,
    ):
        page = shown.page
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        button = page.get_by_role("button", name=f"Watch {channel}", exact=True)
        button.focus()
        # The rows are drawn anew meanwhile, and the focus stays.
        server.publish({"data": "hello", "channel": channel})
        kept = shown.rows("channel-list", channel).locator("td").nth(3)
        expect(kept).to_have_text("1", timeout=WAIT)
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#events")).to_be_focused()
        expect(page.locator("#event-list li")).to_have_count(1, timeout=WAIT)


def test_a_server_that_is_away_and_back_is_told(
    browser: Browser, tmp_path: Path
) -> None:
    with (
        place("memory", tmp_path, SSE_RETRY=100) as there,
        inspector(browser, there.server) as shown,
    ):
        there.server.stop()
        expect(shown.page.locator("#state")).to_contain_text("waiting", timeout=WAIT)
        there.server.start()
        expect(shown.page.locator("#state")).to_have_text("open", timeout=WAIT)
        expect(shown.rows("workers", "memory")).to_have_count(1, timeout=WAIT)
        shown.complaints.clear()  # The browser's, of requests without an answer.
