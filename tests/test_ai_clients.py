"""Clients from npm: the AI SDK, EventSource and fetch-event-source in Node.js, htmx in
Chromium."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser

from .ai_example import CALLING, PROMPT, SCHEMA, serve_example
from .browsers import Proxy, blank_page, chromium, proxied, stream_of
from .client_packages import CLIENTS, INSTALLED, npm_packages
from .documentation import PAGES
from .servers import PATIENCE, Server, serve, until

#: Milliseconds after which clients come back.
RETRY = 100

_numbers = count()


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    npm_packages()


class Program:
    """One of the programs in ``clients``, which prints what it sees."""

    def __init__(self, name: str, *arguments: str) -> None:
        self._process = subprocess.Popen(
            ["node", CLIENTS / f"{name}.js", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=os.environ | {"NODE_PATH": str(INSTALLED / "node_modules")},
        )
        assert self._process.stdout
        # A hanging program must fail its own test only.
        self._limit = threading.Timer(4 * PATIENCE, self._process.kill)
        self._limit.start()
        self._lines = self._process.stdout

    def tell(self) -> Any:
        """What it prints next; None at its end."""
        line = self._lines.readline()
        return json.loads(line) if line else None

    def tell_all(self) -> list[Any]:
        return [json.loads(line) for line in self._lines]

    def end(self) -> None:
        self._limit.cancel()
        self._process.kill()
        self._process.wait(PATIENCE)
        self._lines.close()


@contextmanager
def running(name: str, *arguments: str) -> Iterator[Program]:
    program = Program(name, *arguments)
    try:
        yield program
    finally:
        program.end()


# The AI SDK, and the example


@pytest.fixture(scope="module", params=["gunicorn gevent", "gunicorn gthread"])
def example(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve_example(request.param) as server:
        yield server


@pytest.fixture(scope="module", params=["gunicorn gevent", "gunicorn gthread"])
def calm(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The example, which sends no heartbeat before an error, however busy the machine
    is: the first heartbeat settles the status."""
    with serve_example(request.param, heartbeat=PATIENCE) as server:
        yield server


def chat(server: Server, text: str, **body: Any) -> list[Any]:
    """What the AI SDK makes of an answer, and how many heartbeats it had."""
    arguments = (f"{server.url}/api/chat", f"chat{next(_numbers)}")
    with running("chat", *arguments, json.dumps({"text": text, **body})) as program:
        return program.tell_all()


def test_a_message_grows_as_it_is_said(example: Server) -> None:
    *messages, _ = (told.get("message") for told in chat(example, PROMPT))
    texts = [part["text"] for m in messages for part in m["parts"] if "text" in part]
    assert len(set(texts)) > 10
    assert all(text.startswith(before) for before, text in pairwise(texts))
    assert messages[-1]["role"] == "assistant"
    assert messages[-1]["parts"][-1]["state"] == "done"


def test_a_message_calls_a_tool(example: Server) -> None:
    *_, last, _ = chat(example, CALLING, tools={"get_weather": SCHEMA})
    call = last["message"]["parts"][-1]
    assert call["type"] == "tool-get_weather"
    assert call["state"] == "input-available"
    assert call["input"] == {"city": "Oslo", "days": 3}


def test_heartbeats_before_and_between_tokens_go_unnoticed(example: Server) -> None:
    *_, last, heard = chat(example, PROMPT, model="thoughtful")
    assert last["message"]["parts"][-1]["state"] == "done"
    assert heard["first"] is True
    assert heard["heartbeats"] > 2


def test_an_error_in_mid_stream_is_told(example: Server) -> None:
    *_, last, _ = chat(example, PROMPT, model="river-broken")
    assert last == {"error": "The answer broke off: the model failed."}


def test_an_error_before_the_stream_is_told(calm: Server) -> None:
    (refusal,) = chat(calm, PROMPT, model="river-busy")
    assert "The model is busy" in refusal["refused"]


def test_there_is_no_answer_to_come_back_to(example: Server) -> None:
    with running("chat", f"{example.url}/api/chat", "chat") as program:
        assert program.tell_all() == [{"nothing": True}]


def test_a_provider_s_answer_is_relayed(example: Server) -> None:
    *_, direct, _ = chat(example, PROMPT)
    with serve_example(
        "gunicorn gevent",
        {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": f"{example.url}/v1"},
    ) as relay:
        *_, relayed, _ = chat(relay, PROMPT)
    texts = [told["message"]["parts"][-1]["text"] for told in (direct, relayed)]
    assert texts[0] == texts[1]


# EventSource and fetch-event-source, and generators


@pytest.fixture(
    scope="module", params=["gunicorn gevent", "gunicorn gthread", "gunicorn sync"]
)
def generators(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serve(
        request.param,
        app="tests.applications.generators:app",
        SSE_HEARTBEAT=0.1,
        SSE_RETRY=RETRY,
    ) as server:
        yield server


@pytest.fixture
def proxy(generators: Server) -> Iterator[Proxy]:
    with proxied(generators) as proxy:
        yield proxy


def begun(server: Server) -> int:
    """How many generators have begun so far."""
    events: list[str] = json.loads(server.request("GET", "/happened").body)
    return events.count("begin")


def open_gate(server: Server, name: str) -> None:
    assert server.request("POST", f"/open?gate={name}").status == 204


def message(data: str) -> dict[str, str]:
    return {"type": "message", "data": data}


END = {"type": "stream-end", "data": ""}


def expect_resumed(server: Server, proxy: Proxy, program: Program, gate: str) -> None:
    """Cut a client of a run twice. It must get every step once."""
    assert program.tell() == message("one")
    for step in ("first", "second"):
        proxy.cut()
        told = program.tell()
        assert told.get("closed") is False, told
        open_gate(server, f"{gate}-{step}")
        proxy.mend()
        while (told := program.tell())["type"] == "error":
            assert not told["closed"]
        assert told == message(step)
    open_gate(server, f"{gate}-last")
    assert program.tell() == message("last")
    assert program.tell() == END


def steps_of(gate: str) -> str:
    """The query for a run whose steps ``expect_resumed`` expects."""
    waits = [f"wait:{gate}-{step},{step}" for step in ("first", "second", "last")]
    return urlencode({"steps": ",".join(["one", *waits])})


def test_an_event_source_that_is_cut_goes_on_with_its_run(
    generators: Server, proxy: Proxy
) -> None:
    before = begun(generators)
    gate = f"gate{next(_numbers)}"
    with running("event_source", f"{proxy.url}/run?{steps_of(gate)}") as program:
        expect_resumed(generators, proxy, program, gate)
        # It comes back once more with the id of the end, and is told to stay away.
        assert [told["closed"] for told in program.tell_all()] == [False, True]
    assert begun(generators) == before + 1


def test_a_posting_client_that_is_cut_goes_on_with_its_run(
    generators: Server, proxy: Proxy
) -> None:
    before = begun(generators)
    gate = f"gate{next(_numbers)}"
    with running("fetch_event_source", f"{proxy.url}/run", steps_of(gate)) as program:
        expect_resumed(generators, proxy, program, gate)
        assert program.tell_all() == [{"type": "done"}]
    assert begun(generators) == before + 1


def test_an_event_source_at_a_plain_generator_runs_it_once(generators: Server) -> None:
    before = begun(generators)
    target = f"{generators.url}/ask?{urlencode({'steps': 'one,two'})}"
    with running("event_source", target) as program:
        *events, end = program.tell_all()
    assert [told for told in events if told["type"] != "error"] == [
        *(message("one"), message("two"), END)
    ]
    assert (end["closed"], end["code"]) == (True, 204)
    assert begun(generators) == before + 1


# htmx, in a browser

#: For each version: its scripts, and an element that listens.
HTMX = {
    "htmx 2": (
        ["htmx-2/dist/htmx.js", "htmx-ext-sse/sse.js"],
        '<p hx-ext="sse" sse-connect="{url}" sse-swap="message" {end}>',
        'sse-close="stream-end"',
    ),
    "htmx 4": (
        ["htmx-4/dist/htmx.js", "htmx-4/dist/ext/hx-sse.js"],
        '<p hx-sse:connect="{url}" {end}>',
        'hx-sse:close="stream-end"',
    ),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve("gunicorn gevent", SSE_RETRY=RETRY) as server:
        yield server


@pytest.mark.parametrize("closes", [True, False])
@pytest.mark.parametrize("version", HTMX)
def test_htmx_stays_away_after_the_end_if_it_is_told_what_the_end_is(
    server: Server, browser: Browser, version: str, closes: bool
) -> None:
    scripts, markup, end = HTMX[version]
    assert end in PAGES
    with server.channel() as channel, blank_page(browser) as page:
        url = stream_of(channel)
        asked: list[str] = []
        page.on("request", lambda r: asked.append(r.url) if url in r.url else None)
        page.goto(f"{server.url}/page")
        for script in scripts:
            source = npm_packages() / script
            page.add_script_tag(content=source.read_text("utf-8"))
        page.evaluate(
            """html => {
                addEventListener("htmx:sseClose", () => { ended = true });
                addEventListener("htmx:sse:close", () => { ended = true });
                document.body.innerHTML = html;
                htmx.process(document.body);
            }""",
            markup.format(url=url, end=end if closes else ""),
        )
        until(lambda: server.stats()["streams"] == 1)
        server.publish({"data": "said", "channel": channel})
        page.wait_for_function("document.body.innerText.includes('said')")
        server.close(channel)
        if closes:
            page.wait_for_function("window.ended === true")
            # Longer than htmx waits before it asks again.
            page.wait_for_timeout(2000)
            assert len(asked) == 1
        else:
            # Playwright delivers events only while it is asked something.
            until(lambda: page.evaluate("1") and len(asked) >= 4)
