"""The example ``openai_compatible``, as the providers' official clients see it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from .servers import PATIENCE, ROOT, Server, serve, until

EXAMPLES = ROOT / "examples"
APPLICATION = "tests.applications.ai:app"

#: Variables that are set for somebody who uses the providers.
KEYS = (
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_MODEL"),
    *("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN"),
)

PROMPT = "What is a bridge?"

#: A question that makes the model call the tool.
CALLING = "Please get weather for 3 days in Oslo"

ARGUMENTS = {"city": "Oslo", "days": 3}
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
}

CHAT_TOOLS: Any = [
    {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
]
RESPONSES_TOOLS: Any = [
    {"type": "function", "name": "get_weather", "parameters": SCHEMA, "strict": False}
]
MESSAGES_TOOLS: Any = [{"name": "get_weather", "input_schema": SCHEMA}]

#: The servers of the examples.
ANSWERING = ["gunicorn gevent", "gunicorn gthread"]

#: Seconds between heartbeats that never come: more than any test takes.
CALM = 60.0

#: A heartbeat between two events.
HEARTBEAT = b"\n\n:\n\n"

#: Beginnings of lines that no provider sends.
FOREIGN = re.compile(rb"^(id|retry|event: stream-)", re.MULTILINE)


def said(text: str) -> Any:
    return [{"role": "user", "content": text}]


@contextmanager
def serve_example(
    kind: str, environment: Mapping[str, str] | None = None, *, heartbeat: float = 0.1
) -> Iterator[Server]:
    """The example, with these keys in its environment and no others."""
    with pytest.MonkeyPatch.context() as patch:
        for name in KEYS:
            patch.delenv(name, raising=False)
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        config = {"app": APPLICATION, "folder": EXAMPLES, "SSE_HEARTBEAT": heartbeat}
        with serve(kind, **config) as server:  # type: ignore[arg-type]
            yield server


@pytest.fixture(scope="module")
def upstream() -> Iterator[Server]:
    """A server that stands for a provider."""
    with serve_example("gunicorn gevent") as server:
        yield server


@pytest.fixture(scope="module", params=ANSWERING)
def running(request: pytest.FixtureRequest, upstream: Server) -> Iterator[Server]:
    if request.param == "gunicorn gevent":
        yield upstream
        return
    with serve_example(request.param) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    """The example, answering by itself."""
    happened(running)
    return running


@pytest.fixture(scope="module", params=ANSWERING)
def calm(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The example, which sends no heartbeat before an error, however busy the machine
    is: the first heartbeat settles the status."""
    with serve_example(request.param, heartbeat=CALM) as server:
        yield server


@pytest.fixture(scope="module", params=ANSWERING)
def calm_relay(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A relay and a provider of that kind."""
    with (
        serve_example("gunicorn gevent", heartbeat=CALM) as upstream,
        serve_example(request.param, keys_for(upstream), heartbeat=CALM) as relay,
    ):
        yield relay


def keys_for(upstream: Server) -> dict[str, str]:
    """The environment of an example that relays to a provider."""
    return {
        "OPENAI_API_KEY": "key-of-openai",
        "OPENAI_BASE_URL": f"{upstream.url}/v1",
        "ANTHROPIC_API_KEY": "key-of-anthropic",
        "ANTHROPIC_BASE_URL": upstream.url,
    }


@pytest.fixture(scope="module", params=ANSWERING)
def relaying(request: pytest.FixtureRequest, upstream: Server) -> Iterator[Server]:
    """The example with keys for a provider."""
    with serve_example(request.param, keys_for(upstream)) as server:
        yield server


@pytest.fixture
def relay(relaying: Server, upstream: Server) -> Server:
    happened(relaying)
    happened(upstream)
    return relaying


def happened(server: Server) -> list[str]:
    """What happened on a server since this was last asked."""
    told: list[str] = json.loads(server.request("GET", "/happened").body)
    return told


def wait_for(server: Server, *events: str) -> None:
    """Wait until these have happened on a server, in this order."""
    seen: list[str] = []

    def have_happened() -> bool:
        seen.extend(event for event in happened(server) if event in events)
        return seen == [*events]

    until(have_happened)


class Wire(httpx2.HTTPTransport):
    """A client's transport that records the bytes that it receives."""

    def __init__(self) -> None:
        super().__init__()
        self.received = b""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = super().handle_request(request)
        assert isinstance(response.stream, httpx2.SyncByteStream)
        response.stream = Tapped(response.stream, self)
        return response


class Tapped(httpx2.SyncByteStream):
    def __init__(self, stream: httpx2.SyncByteStream, wire: Wire) -> None:
        self._stream = stream
        self._wire = wire

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            self._wire.received += piece
            yield piece

    def close(self) -> None:
        self._stream.close()


@contextmanager
def openai_client(server: Server, wire: Wire | None = None) -> Iterator[openai.OpenAI]:
    with (
        httpx2.Client(transport=wire) as connection,
        openai.OpenAI(
            base_url=f"{server.url}/v1",
            api_key="none",
            max_retries=0,
            timeout=PATIENCE,
            http_client=connection,
        ) as client,
    ):
        yield client


@contextmanager
def anthropic_client(
    server: Server, wire: Wire | None = None
) -> Iterator[anthropic.Anthropic]:
    with (
        httpx2.Client(transport=wire) as connection,
        anthropic.Anthropic(
            base_url=server.url,
            api_key="none",
            max_retries=0,
            timeout=PATIENCE,
            http_client=connection,
        ) as client,
    ):
        yield client


def completed(client: openai.OpenAI, **options: Any) -> str:
    """The text of a chat completion that is streamed."""
    options = {"model": "river", "messages": said(PROMPT)} | options
    chunks = list(client.chat.completions.create(stream=True, **options))
    assert chunks[-1].choices[0].finish_reason == "stop"
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


# OpenAI's chat completions


def test_a_chat_completion_streams_what_it_says_at_once(server: Server) -> None:
    with openai_client(server) as client:
        whole = client.chat.completions.create(model="river", messages=said(PROMPT))
        text = whole.choices[0].message.content
        assert text
        assert whole.choices[0].finish_reason == "stop"
        assert whole.usage
        assert whole.usage.completion_tokens == len(text.split())
        assert completed(client) == text


def test_the_asynchronous_client_gets_the_same(server: Server) -> None:
    async def asked() -> str:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key="none", max_retries=0
        ) as client:
            stream = await client.chat.completions.create(
                model="river", messages=said(PROMPT), stream=True
            )
            deltas = [chunk.choices[0].delta.content or "" async for chunk in stream]
            return "".join(deltas)

    with openai_client(server) as client:
        assert asyncio.run(asked()) == completed(client)


def test_a_chat_completion_ends_with_its_usage_if_asked_to(server: Server) -> None:
    with openai_client(server) as client:
        *chunks, last = client.chat.completions.create(
            model="river",
            messages=said(PROMPT),
            stream=True,
            stream_options={"include_usage": True},
            max_tokens=5,
        )
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert chunks[-1].choices[0].finish_reason == "length"
    assert last.choices == []
    assert last.usage
    assert last.usage.completion_tokens == 5
    assert last.usage.total_tokens == last.usage.prompt_tokens + 5


def test_a_chat_completion_calls_a_tool_in_deltas(server: Server) -> None:
    options: Any = {"model": "river", "messages": said(CALLING), "tools": CHAT_TOOLS}
    with openai_client(server) as client:
        with client.chat.completions.stream(**options) as stream:
            kinds = [event.type for event in stream]
            choice = stream.get_final_completion().choices[0]
        whole = client.chat.completions.create(**options).choices[0]
    assert kinds.count("tool_calls.function.arguments.delta") > 1
    for each in (choice, whole):
        assert each.finish_reason == "tool_calls"
        assert each.message.tool_calls
        (call,) = each.message.tool_calls
        assert call.id.startswith("call_")
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == ARGUMENTS


def test_a_tool_is_called_once_and_only_if_it_may_be(server: Server) -> None:
    with openai_client(server) as client:
        call = {"id": "1", "type": "function", "function": {"name": "get_weather"}}
        results: Any = [
            *said(CALLING),
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": "rain"},
        ]
        assert completed(client, messages=results, tools=CHAT_TOOLS)
        options: Any = {"messages": said(CALLING), "tools": CHAT_TOOLS}
        assert completed(client, **options, tool_choice="none")
        forced = client.chat.completions.create(
            model="river",
            messages=said(PROMPT),
            tools=CHAT_TOOLS,
            tool_choice="required",
        )
    assert forced.choices[0].finish_reason == "tool_calls"


def test_a_chat_completion_s_error_in_mid_stream_is_raised(server: Server) -> None:
    with openai_client(server) as client:
        stream = client.chat.completions.create(
            model="river-broken", messages=said(PROMPT), stream=True
        )
        texts: list[str | None] = []
        with pytest.raises(openai.APIError, match="the model failed") as raised:
            texts.extend(chunk.choices[0].delta.content for chunk in stream)
    assert len(texts) == 1 + 5
    assert raised.value.type == "server_error"
    wait_for(server, "closed", "logged RuntimeError")


def test_an_error_before_the_stream_has_its_status(calm: Server) -> None:
    with openai_client(calm) as client:
        with pytest.raises(openai.InternalServerError, match="busy") as raised:
            client.chat.completions.create(
                model="river-busy", messages=said(PROMPT), stream=True
            )
        assert raised.value.status_code == 503
        assert raised.value.type == "server_error"
        with pytest.raises(openai.InternalServerError) as failed:
            client.chat.completions.create(model="river-broken", messages=said(PROMPT))
        assert (failed.value.status_code, failed.value.type) == (500, "server_error")
        missing: Any = {"model": "river"}
        with pytest.raises(openai.BadRequestError, match="'messages'"):
            client.post("/chat/completions", body=missing, cast_to=object)
        with pytest.raises(openai.BadRequestError, match="'input'"):
            client.post("/responses", body=missing, cast_to=object)


# OpenAI's responses


def test_a_response_streams_what_it_says_at_once(server: Server) -> None:
    with openai_client(server) as client:
        whole = client.responses.create(model="river", input=PROMPT)
        with client.responses.stream(model="river", input=PROMPT) as stream:
            events = list(stream)
            response = stream.get_final_response()
    texts = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(texts) == response.output_text == whole.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert response.status == whole.status == "completed"
    assert response.usage
    assert response.usage.output_tokens == len(texts)


def test_a_response_calls_a_tool_in_deltas(server: Server) -> None:
    with (
        openai_client(server) as client,
        client.responses.stream(
            model="river", input=said(CALLING), tools=RESPONSES_TOOLS
        ) as stream,
    ):
        kinds = [event.type for event in stream]
        (call,) = stream.get_final_response().output
    assert kinds.count("response.function_call_arguments.delta") > 1
    assert call.type == "function_call"
    assert call.name == "get_weather"
    assert json.loads(call.arguments) == ARGUMENTS


def test_a_response_s_error_in_mid_stream_is_its_last_event(server: Server) -> None:
    with openai_client(server) as client:
        *_, last = client.responses.create(
            model="river-broken", input=PROMPT, stream=True
        )
    assert last.type == "error"
    assert last.code == "server_error"
    assert "the model failed" in last.message


def test_a_response_that_is_too_long_is_incomplete(server: Server) -> None:
    with openai_client(server) as client:
        *_, last = client.responses.create(
            model="river", input=PROMPT, max_output_tokens=5, stream=True
        )
    assert last.type == "response.incomplete"
    assert len(last.response.output_text.split()) == 5


# Anthropic's messages


def test_a_message_streams_what_it_says_at_once(server: Server) -> None:
    options: Any = {"model": "river", "messages": said(PROMPT), "max_tokens": 500}
    with anthropic_client(server) as client:
        whole = client.messages.create(**options)
        with client.messages.stream(**options) as stream:
            texts = list(stream.text_stream)
            message = stream.get_final_message()
    assert whole.content[0].type == "text"
    assert "".join(texts) == whole.content[0].text
    assert message.stop_reason == whole.stop_reason == "end_turn"
    assert message.usage.output_tokens == whole.usage.output_tokens == len(texts)
    assert message.usage.input_tokens == whole.usage.input_tokens > 0


def test_a_message_calls_a_tool_in_deltas(server: Server) -> None:
    options: Any = {"model": "river", "messages": said(CALLING), "max_tokens": 500}
    options["tools"] = MESSAGES_TOOLS
    with anthropic_client(server) as client:
        with client.messages.stream(**options) as stream:
            kinds = [event.type for event in stream]
            message = stream.get_final_message()
        whole = client.messages.create(**options)
        used: Any = whole.content[0]
        result = {"type": "tool_result", "tool_use_id": used.id, "content": "rain"}
        results = [
            *said(CALLING),
            {"role": "assistant", "content": [used.to_dict()]},
            {"role": "user", "content": [result]},
        ]
        after = client.messages.create(**options | {"messages": results})
    assert kinds.count("input_json") > 1
    for each in (message, whole):
        assert each.stop_reason == "tool_use"
        blocks: Any = each.content
        called = [(block.type, block.name, block.input) for block in blocks]
        assert called == [("tool_use", "get_weather", ARGUMENTS)]
    assert after.content[0].type == "text"


def test_a_message_s_error_in_mid_stream_is_raised(server: Server) -> None:
    with (
        anthropic_client(server) as client,
        client.messages.stream(
            model="river-broken", messages=said(PROMPT), max_tokens=500
        ) as stream,
    ):
        texts: list[str] = []
        with pytest.raises(anthropic.APIStatusError, match="the model failed") as error:
            texts.extend(stream.text_stream)
    assert len(texts) == 5
    body: Any = error.value.body
    assert body["error"]["type"] == "api_error"
    wait_for(server, "closed", "logged RuntimeError")


def test_a_message_s_error_before_the_stream_has_its_status(calm: Server) -> None:
    with anthropic_client(calm) as client:
        with pytest.raises(anthropic.APIStatusError, match="busy") as raised:
            client.messages.create(
                model="river-busy", messages=said(PROMPT), max_tokens=5, stream=True
            )
        assert raised.value.status_code == 503
        body: Any = raised.value.body
        assert body["error"]["type"] == "overloaded_error"
        missing: Any = {"model": "river", "messages": said(PROMPT)}
        with pytest.raises(anthropic.BadRequestError, match="'max_tokens'"):
            client.post("/v1/messages", body=missing, cast_to=object)


# Between the words


def test_there_is_nothing_but_heartbeats_between_a_provider_s_events(
    server: Server,
) -> None:
    options: Any = {"model": "slow", "messages": said(PROMPT), "max_tokens": 2}
    with openai_client(server, wire := Wire()) as client:
        stream = client.chat.completions.create(**options, stream=True)
        deltas = [chunk.choices[0].delta.content for chunk in stream]
        assert len(deltas) == 1 + 2 + 1
        assert HEARTBEAT in wire.received
        assert not FOREIGN.search(wire.received)
    with openai_client(server, wire := Wire()) as client:
        response = client.responses.create(
            model="slow", input=PROMPT, max_output_tokens=2, stream=True
        )
        kinds = [event.type for event in response]
        assert kinds.count("response.output_text.delta") == 2
        assert HEARTBEAT in wire.received
        assert not FOREIGN.search(wire.received)
    with (
        anthropic_client(server, wire := Wire()) as claude,
        claude.messages.stream(**options) as message,
    ):
        assert len(list(message.text_stream)) == 2
        assert HEARTBEAT in wire.received
        assert not FOREIGN.search(wire.received)


def test_a_client_that_waits_for_the_first_word_hears_heartbeats(
    server: Server,
) -> None:
    wire = Wire()
    with openai_client(server, wire) as client:
        assert completed(client, model="thoughtful")
    assert wire.received.startswith(b":\n\n")


def test_when_the_user_leaves_the_model_is_stopped(server: Server) -> None:
    with openai_client(server) as client:
        stream = client.chat.completions.create(
            model="slow", messages=said(PROMPT), stream=True
        )
        next(iter(stream))
        assert "closed" not in happened(server)
        stream.close()
    wait_for(server, "closed")


def test_it_speaks_on_a_worker_that_serves_one_at_a_time() -> None:
    with serve_example("gunicorn sync") as server, openai_client(server) as client:
        assert completed(client) == completed(client)
        with pytest.raises(openai.APIError, match="the model failed"):
            completed(client, model="river-broken")


# Relayed to a provider


def test_a_provider_s_answer_is_relayed_as_it_is(
    relay: Server, upstream: Server
) -> None:
    def answers(server: Server) -> list[Any]:
        asked: Any = {"model": "river", "messages": said(CALLING)}
        with openai_client(server) as client:
            chunks = client.chat.completions.create(
                **asked, tools=CHAT_TOOLS, stream=True
            )
            deltas = [chunk.choices[0].delta.content for chunk in chunks]
            whole = client.chat.completions.create(**asked)
            with client.responses.stream(model="river", input=PROMPT) as response:
                kinds = [event.type for event in response]
                text = response.get_final_response().output_text
        with (
            anthropic_client(server) as claude,
            claude.messages.stream(**asked, max_tokens=7) as stream,
        ):
            message = stream.get_final_message()
        assert message.content[0].type == "text"
        return [
            *(deltas, whole.choices[0].message.content, kinds, text),
            *(message.content[0].text, message.stop_reason),
        ]

    relayed = answers(relay)
    keys = {event for event in happened(upstream) if event.startswith("key")}
    assert keys == {"key Bearer key-of-openai", "key key-of-anthropic"}
    assert relayed == answers(upstream)
    assert "begin" not in happened(relay)


def test_a_provider_s_refusal_keeps_its_status_and_its_words(
    calm_relay: Server,
) -> None:
    for stream in (True, False):
        with (
            openai_client(calm_relay) as client,
            pytest.raises(openai.InternalServerError, match="busy") as raised,
        ):
            client.chat.completions.create(
                model="river-busy", messages=said(PROMPT), stream=stream
            )
        assert raised.value.status_code == 503
        missing: Any = {"model": "river", "messages": [], "stream": stream}
        with (
            anthropic_client(calm_relay) as claude,
            pytest.raises(anthropic.BadRequestError, match="'max_tokens'") as refused,
        ):
            claude.post("/v1/messages", body=missing, cast_to=object)
        body: Any = refused.value.body
        assert body["error"]["type"] == "invalid_request_error"


def test_a_provider_s_error_in_mid_stream_is_relayed(relay: Server) -> None:
    with (
        openai_client(relay) as client,
        pytest.raises(openai.APIError, match="the model failed"),
    ):
        completed(client, model="river-broken")
    with (
        anthropic_client(relay) as claude,
        claude.messages.stream(
            model="river-broken", messages=said(PROMPT), max_tokens=50
        ) as stream,
        pytest.raises(anthropic.APIStatusError, match="the model failed"),
    ):
        stream.until_done()


def test_a_provider_is_waited_for_with_heartbeats(relay: Server) -> None:
    wire = Wire()
    with openai_client(relay, wire) as client:
        assert completed(client, model="thoughtful")
    assert wire.received.startswith(b":\n\n")


def test_when_the_user_leaves_the_provider_is_stopped(
    relay: Server, upstream: Server
) -> None:
    with openai_client(relay) as client:
        stream = client.chat.completions.create(
            model="slow", messages=said(PROMPT), stream=True
        )
        next(iter(stream))
        assert "closed" not in happened(upstream)
        stream.close()
    wait_for(upstream, "closed")


def test_a_provider_that_dies_in_mid_stream_is_an_error() -> None:
    with (
        serve_example("gunicorn gevent") as provider,
        serve_example(
            "gunicorn gthread",
            {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": f"{provider.url}/v1"},
        ) as relay,
        openai_client(relay) as client,
    ):
        stream = client.chat.completions.create(
            model="slow", messages=said(PROMPT), stream=True
        )
        next(iter(stream))
        provider.stop()
        with pytest.raises(openai.APIError, match="the model failed"):
            list(stream)
        with pytest.raises(openai.InternalServerError, match="cannot be reached"):
            completed(client)
