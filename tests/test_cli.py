"""The command line: ``flask sse …``."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from flask import Blueprint, Flask

from flask_sse_lite import SSE
from flask_sse_lite.brokers import connect
from flask_sse_lite.brokers.store import Store
from flask_sse_lite.decoder import Decoder
from flask_sse_lite.settings import Settings

from .redis_servers import RedisServer, redis_server
from .servers import HOST, PATIENCE, Server, reserved_port, serve, until

#: Each command, with the arguments that it must have.
COMMANDS = {
    "publish": ("publish", "room", "hello"),
    "tail": ("tail", "room"),
    "channels": ("channels",),
    "present": ("present", "room"),
    "close": ("close", "room"),
    "disconnect": ("disconnect", "--identity", "ann"),
}


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """An application on two workers."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('store')}/events.db"
    else:
        url = request.getfixturevalue("redis").url
    with serve("gunicorn gthread", options="--workers 2", SSE_URL=url) as server:
        yield server


@pytest.fixture
def app(tmp_path: Path, sse: SSE) -> Iterator[Flask]:
    """An application with a store, in its context."""
    app = Flask("application")
    app.config["SSE_URL"] = f"sqlite:///{tmp_path}/events.db"
    app.register_blueprint(sse)
    with app.app_context():
        yield app
    app.extensions["sse"].close()


def run(app: Flask, *words: str, input: bytes | None = None) -> Result:
    """Run a command in this process."""
    return app.test_cli_runner().invoke(args=["sse", *words], input=input)


def succeed(process: subprocess.Popen[str], status: int = 0) -> str:
    """Wait until a command ends. It must print no error.

    :returns: what it printed that was not read before.
    """
    printed, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, errors) == (status, "")
    return printed


def read(process: subprocess.Popen[str], count: int) -> list[str]:
    """The next lines that a command prints."""
    assert process.stdout
    return [process.stdout.readline().removesuffix("\n") for _ in range(count)]


# Beside a server


def test_what_is_published_arrives_at_the_browser(server: Server) -> None:
    with server.channel() as channel, server.stream(channel) as client:
        with server.flask("sse", "publish", channel, '{"a": 1}') as process:
            id = succeed(process).removesuffix("\n")
        (event,) = client.take(1)
    assert (event.data, event.type, event.id) == ('{"a": 1}', None, id)


def test_a_close_ends_the_streams(server: Server) -> None:
    with server.channel() as channel, server.stream(channel) as client:
        with server.flask("sse", "close", channel) as process:
            assert succeed(process) == ""
        assert [event.type for event in client.events] == ["stream-open", "stream-end"]


def test_a_disconnect_ends_the_streams_so_that_clients_come_back(
    server: Server,
) -> None:
    with server.channel() as channel, server.stream(channel) as client:
        with server.flask("sse", "disconnect", "--channel", channel) as process:
            assert succeed(process) == ""
        assert [event.type for event in client.events] == ["stream-open"]


def test_a_disconnect_names_whom_it_means(app: Flask) -> None:
    result = run(app, "disconnect")
    assert result.exit_code == 2
    assert "Name --identity, --channel, or both." in result.output


def test_tail_prints_what_is_published_until_the_channel_is_closed(
    server: Server,
) -> None:
    with server.channel() as channel:
        (since,) = server.publish({"data": "before", "channel": channel})
        missed = server.publish({"data": "missed", "channel": channel})
        with server.flask("sse", "tail", channel, "--since", since) as process:
            assert read(process, 1) == [f"{missed[0]}\t{channel}\tmessage\tmissed"]
            live = server.publish(
                {"data": "live", "type": "news", "channel": channel},
                {"data": "two\nlines\t\x1b[31m", "channel": channel},
            )
            assert read(process, 2) == [
                f"{live[0]}\t{channel}\tnews\tlive",
                f"{live[1]}\t{channel}\tmessage\ttwo\\nlines\\t\\x1b[31m",
            ]
            server.close(channel)
            printed, errors = process.communicate(timeout=PATIENCE)
            assert (process.returncode, printed, errors) == (0, "", "Closed.\n")


def test_tail_ends_quietly_when_it_is_interrupted(server: Server) -> None:
    with server.channel() as channel:
        (since, _) = server.publish(*[{"data": "a", "channel": channel}] * 2)
        with server.flask("sse", "tail", channel, "--since", since) as process:
            read(process, 1)
            process.send_signal(signal.SIGINT)
            assert succeed(process, 130) == ""


def test_tail_ends_quietly_when_nobody_reads_it(server: Server) -> None:
    with server.channel() as channel:
        (since, _) = server.publish(*[{"data": "a", "channel": channel}] * 2)
        with server.flask("sse", "tail", channel, "--since", since) as process:
            read(process, 1)
            assert process.stdout
            process.stdout.close()
            process.stdout = None
            server.publish({"data": "nobody reads this", "channel": channel})
            _, errors = process.communicate(timeout=PATIENCE)
            assert (process.returncode, errors) == (1, "")


def test_channels_are_those_of_the_store(server: Server) -> None:
    with server.channel() as channel, server.channel() as closed:
        server.publish(*[{"data": "a", "channel": channel}] * 3)
        server.publish(*[{"data": "a", "channel": closed}] * 2)
        server.close(closed)
        with server.flask("sse", "channels", "--json") as process:
            found = [json.loads(line) for line in succeed(process).splitlines()]
    ages = {summary["channel"]: summary.pop("age") for summary in found}
    assert {"channel": channel, "events": 3, "is_closed": False} in found
    assert {"channel": closed, "events": 2, "is_closed": True} in found
    assert 0 <= ages[channel] < 2 * PATIENCE
    assert ages[channel] >= ages[closed]


def test_commands_go_on_whichever_workers_are_killed(server: Server) -> None:
    with server.channel() as channel:
        (since,) = server.publish({"data": "before", "channel": channel})
        workers = server.workers()
        with server.flask("sse", "tail", channel, "--since", since) as tail:
            for number, worker in enumerate(workers):
                os.kill(worker, signal.SIGKILL)
                with server.flask("sse", "publish", channel, f"{number}") as process:
                    id = succeed(process).removesuffix("\n")
                assert read(tail, 1) == [f"{id}\t{channel}\tmessage\t{number}"]
        with server.flask("sse", "channels", "--json") as process:
            found = [json.loads(line) for line in succeed(process).splitlines()]
    (events,) = [s["events"] for s in found if s["channel"] == channel]
    assert events == 1 + len(workers)


# In one process


def test_the_options_are_those_of_publish(app: Flask, sse: SSE) -> None:
    since = sse.position()
    options = ("--type", "news", "--id", "own", "--retry", "5")
    result = run(app, "publish", "room", "hello", *options)
    assert (result.exit_code, result.output) == (0, "own\n")
    (event,) = sse.messages("room", since=since, timeout=0)
    assert (event.data, event.type, event.id, event.retry) == (
        "hello",
        "news",
        "own",
        5,
    )


@pytest.mark.parametrize(
    ("given", "data"),
    [
        (b"two\nlines\n", "two\nlines"),
        (b"one\r\n", "one"),
        (b"\n\n", "\n"),
        ("é".encode(), "é"),
        (b"", ""),
    ],
)
def test_a_dash_stands_for_what_comes_in(
    app: Flask, sse: SSE, given: bytes, data: str
) -> None:
    since = sse.position()
    assert run(app, "publish", "room", "-", input=given).exit_code == 0
    (event,) = sse.messages("room", since=since, timeout=0)
    assert event.data == data


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("publish", "$run.x", "hello"), "this extension's own: '$run.x'"),
        (("publish", "room", "hello", "--type", "stream-x"), "must not begin with"),
        (("publish", "room", "hello", "--retry", "-1"), "not negative"),
        (("publish", "room", "-"), "must be UTF-8"),
        (("tail", "room", "$run.x"), "this extension's own"),
        (("close", ""), "1 to 255 characters"),
        (("disconnect", "--identity", ""), "1 to 512 characters"),
    ],
)
def test_what_cannot_be_done_is_said(
    app: Flask, words: tuple[str, ...], complaint: str
) -> None:
    result = run(app, *words, input=b"\xff")
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert complaint in result.output


def test_what_the_wire_has_can_be_printed(app: Flask, sse: SSE) -> None:
    since = sse.position()
    sent = [sse.publish("two\nlines", "news", retry=5, channel=c) for c in ("a", "b")]
    sse.close("a")
    sse.close("b")
    result = run(app, "tail", "a", "b", "--raw", "--since", since)
    assert Decoder().feed(result.stdout_bytes) == sent


def test_tail_prints_several_channels_in_one_order(app: Flask, sse: SSE) -> None:
    since = sse.position()
    sent = [sse.publish(str(n), channel="ab"[n % 2]) for n in range(6)]
    sse.close("a")
    sse.close("b")
    result = run(app, "tail", "a", "b", "--json", "--since", since)
    assert [json.loads(line) for line in result.stdout.splitlines()] == [
        {"id": e.id, "channel": e.channel, "type": None, "data": e.data, "retry": None}
        for e in sent
    ]


def test_tail_says_that_something_is_lost(app: Flask, sse: SSE) -> None:
    sse.publish("kept", channel="room")
    sse.close("room")
    result = run(app, "tail", "room", "--since", "unknown")
    gap, kept = result.stdout.splitlines()
    assert gap.split("\t")[2] == "stream-gap"
    assert kept.split("\t")[3] == "kept"


def test_tail_prints_nothing_of_a_channel_that_is_closed(app: Flask, sse: SSE) -> None:
    sse.publish("hello", channel="room")
    sse.close("room")
    result = run(app, "tail", "room")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "Closed.\n")


def test_channels_are_a_table(app: Flask, sse: SSE) -> None:
    assert run(app, "channels").output == "CHANNEL  EVENTS  NEWEST\n"
    sse.publish("hello", channel="a.long.name")
    for _ in range(12):
        sse.publish("hello", channel="b")
    sse.close("b")
    result = run(app, "channels")
    assert re.fullmatch(
        r"CHANNEL      EVENTS  NEWEST\n"
        r"a\.long\.name       1  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\n"
        r"b                12  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, closed\n",
        result.output,
    )


@pytest.fixture(params=["sqlite", "redis"])
def shared(app: Flask, request: pytest.FixtureRequest) -> Flask:
    """The application, on each of the brokers."""
    if request.param == "redis":
        url = request.getfixturevalue("redis").url
        app.config["SSE_URL"] = f"{url}?prefix={request.node.name}"
    return app


def test_channels_have_no_more_events_than_are_kept(shared: Flask, sse: SSE) -> None:
    shared.config["SSE_HISTORY"] = 2
    for number in range(5):
        sse.publish(number, channel="room")
    (found,) = run(shared, "channels", "--json").output.splitlines()
    assert json.loads(found)["events"] == 2


def test_channels_are_gone_when_all_is_too_old(shared: Flask, sse: SSE) -> None:
    shared.config["SSE_HISTORY_AGE"] = 0.1
    sse.publish("hello", channel="room")
    until(lambda: run(shared, "channels", "--json").output == "")


def test_who_is_there_is_printed(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Store, "count_life", 600.0)
    server = connect(Settings.read(app.config))  # As another process would.
    store = server.store  # type: ignore[attr-defined]
    store.count({"room": 3})
    store.board.note({"room": {"bob\n": 1, "ann": 2}})
    runner = app.test_cli_runner()

    def printed(*words: str) -> str:
        return runner.invoke(args=["sse", "present", *words]).output

    assert printed("nobody's") == ""
    assert printed("room") == "     2  ann\n     1  bob\\n\n"
    assert json.loads(printed("room", "--json")) == {"ann": 2, "bob\n": 1}
    server.close()


def test_channels_of_runs_are_printed_when_they_are_asked_for(app: Flask) -> None:
    broker = app.extensions["sse"].broker
    broker.end("$run.x")
    broker.end("room")

    def names(*options: str) -> list[str]:
        lines = run(app, "channels", "--json", *options).output.splitlines()
        return [json.loads(line)["channel"] for line in lines]

    assert names() == ["room"]
    assert names("--all") == ["$run.x", "room"]


@pytest.mark.parametrize("command", COMMANDS)
def test_memory_cannot_be_reached(app: Flask, command: str) -> None:
    app.config["SSE_URL"] = None
    result = run(app, *COMMANDS[command])
    assert result.exit_code == 1
    assert "another process than the server, and cannot reach it" in result.output
    assert "sqlite:///events.db" in result.output


@pytest.mark.parametrize("command", COMMANDS)
def test_a_broker_that_is_away_is_said(app: Flask, command: str) -> None:
    with reserved_port() as port:
        app.config["SSE_URL"] = f"redis://{HOST}:{port}"
        result = run(app, *COMMANDS[command])
    assert result.exit_code == 1
    assert result.output.startswith(f"Error: Redis at {HOST}:{port} fails: ")
    assert "Traceback" not in result.output


def test_a_configuration_that_is_wrong_is_said(app: Flask) -> None:
    app.config["SSE_HISTORY"] = 0
    result = run(app, "publish", "room", "hello")
    assert (result.exit_code, result.output) == (
        1,
        "Error: The configuration's SSE_HISTORY is a whole number from 1 up, not 0\n",
    )


# On which applications


@pytest.mark.parametrize("way", ["renamed", "nested", "twice", "without routes"])
def test_the_group_has_one_name(tmp_path: Path, way: str) -> None:
    app = Flask("application")
    if way == "nested":
        parent = Blueprint("parent", "parent", url_prefix="/parent")
        parent.register_blueprint(SSE("events"))
        app.register_blueprint(parent)
    elif way == "without routes":
        SSE("events").init_app(app, url_prefix=None)
    else:
        app.register_blueprint(SSE("events"))
        if way == "twice":
            app.register_blueprint(SSE("others"), url_prefix="/others")
    result = app.test_cli_runner().invoke(args=["sse", "--help"])
    assert result.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command} ", result.output, re.MULTILINE)


@pytest.mark.parametrize("comes", ["before", "after"])
def test_a_command_of_the_application_is_left_alone(sse: SSE, comes: str) -> None:
    app = Flask("application")

    def register() -> None:
        app.cli.command("sse")(lambda: print("The application's own"))

    if comes == "before":
        register()
    app.register_blueprint(sse)
    if comes == "after":
        register()
    result = app.test_cli_runner().invoke(args=["sse"])
    assert (result.exit_code, result.output) == (0, "The application's own\n")
