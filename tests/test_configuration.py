"""The configuration as an application meets it: when it is read, what is refused, and
what the operator is warned of."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from flask_sse_lite import SSE, Event, EventStream, InvalidValue, type_names
from flask_sse_lite.testing import published, read_events


@pytest.fixture(autouse=True)
def _no_type_was_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type_names, "_warned", set())


def application(sse: SSE, **config: Any) -> Flask:
    app = Flask("application")
    app.config.update(TESTING=True, SSE_HEARTBEAT=0.4)
    app.config.update(config)
    app.register_blueprint(sse)

    @app.post("/say")
    def say() -> str:
        return sse.publish("hello").data

    return app


def publish(app: Flask, sse: SSE) -> None:
    with app.app_context():
        sse.publish("hello")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "flask_sse_lite" and record.levelname == "WARNING"
    ]


# When it is read


def test_the_configuration_is_read_at_first_use(sse: SSE) -> None:
    app = application(sse)
    app.config["SSE_PUBLIC_CHANNELS"] = ["news"]
    client = app.test_client()
    assert client.get("/stream").status_code == 403
    app.config["SSE_PUBLIC_CHANNELS"] = ["sse"]
    assert client.get("/stream").status_code == 403


def test_none_means_the_default(sse: SSE) -> None:
    keys = ["URL", "HISTORY", "HISTORY_AGE", "REPLAY", "HEARTBEAT", "RETRY"]
    keys += ["MAX_CONNECTIONS", "MAX_AGE", "HANDOFF", "PUBLIC_CHANNELS", "REDIS_URL"]
    app = application(sse, **{f"SSE_{key}": None for key in keys})
    defaults = Flask("defaults")
    sse.init_app(defaults)
    assert app.extensions["sse"].settings == defaults.extensions["sse"].settings
    publish(app, sse)


# What is refused


@pytest.mark.parametrize(
    ("key", "bad"),
    [
        ("SSE_URL", ""),
        ("SSE_URL", 5),
        ("SSE_URL", "memory"),
        ("SSE_URL", "memory://host"),
        ("SSE_URL", "carrier-pigeon://roof"),
        ("SSE_REDIS_URL", 5),
        ("SSE_HISTORY", 0),
        ("SSE_HISTORY", "256"),
        ("SSE_HISTORY", True),
        ("SSE_HISTORY", 0.5),
        ("SSE_HISTORY_AGE", 0),
        ("SSE_HISTORY_AGE", -1),
        ("SSE_HISTORY_AGE", "300"),
        ("SSE_REPLAY", -1),
        ("SSE_REPLAY", None.__class__),
        ("SSE_HEARTBEAT", 0),
        ("SSE_HEARTBEAT", True),
        ("SSE_HEARTBEAT", float("nan")),
        ("SSE_RETRY", -1),
        ("SSE_RETRY", 0.5),
        ("SSE_MAX_CONNECTIONS", 0),
        ("SSE_MAX_CONNECTIONS", "1000"),
        ("SSE_MAX_AGE", 0),
        ("SSE_MAX_AGE", "an hour"),
        ("SSE_HANDOFF", "yes"),
        ("SSE_HANDOFF", 2),
        ("SSE_PUBLIC_CHANNELS", "news"),
        ("SSE_PUBLIC_CHANNELS", True),
    ],
)
def test_a_bad_value_is_an_error_that_names_its_key(
    sse: SSE, key: str, bad: object
) -> None:
    with pytest.raises(InvalidValue, match=key) as raised:
        application(sse, **{key: bad})
    assert is_alone(raised.value)
    app = application(sse)  # The refusal has left nothing behind.
    app.config[key] = bad
    with pytest.raises(InvalidValue, match=key):
        publish(app, sse)
    with pytest.raises(InvalidValue, match=key):
        app.test_client().get("/stream")


def is_alone(error: BaseException) -> bool:
    """Whether an error's traceback shows no other exception before it."""
    return error.__cause__ is None and (
        error.__suppress_context__ or error.__context__ is None
    )


@pytest.mark.parametrize("key", ["SSE_URL", "SSE_REDIS_URL"])
def test_a_scheme_without_a_broker_is_an_error_and_never_memory(
    sse: SSE, key: str
) -> None:
    with pytest.raises(InvalidValue, match=r"'pigeon'.*memory://") as raised:
        application(sse, **{key: "pigeon://user:geheim@roof/1"})
    assert "geheim" not in str(raised.value)


def test_a_bad_url_is_not_shown(sse: SSE) -> None:
    with pytest.raises(InvalidValue, match="SSE_URL") as raised:
        application(sse, SSE_URL=["redis://user:geheim@host"])
    assert "geheim" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://user:geheim@host:port", "SSE_URL is to be like redis://"),
        ("redis://user:geheim@host?histroy=5", "SSE_URL is to be like redis://"),
        ("redis://user:geheim@host?history=x", "SSE_URL has an option that is wrong"),
        ("sqlite://user:geheim@host", "SSE_URL is to be sqlite:///"),
        ("sqlite:///events.db?age=never", "SSE_URL has an option that is wrong"),
    ],
)
def test_a_bad_url_is_refused_when_the_application_is_set_up(
    sse: SSE, url: str, complaint: str
) -> None:
    with pytest.raises(InvalidValue, match=complaint) as raised:
        application(sse, SSE_URL=url)
    assert is_alone(raised.value)
    assert "geheim" not in str(raised.value)


def test_a_missing_package_is_told_of_when_the_application_is_set_up() -> None:
    script = """
import sys
sys.modules["redis"] = None
from flask import Flask
from flask_sse_lite import sse
app = Flask("application")
app.config["SSE_URL"] = "redis://localhost"
sse.init_app(app)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "pip install flask-sse-lite[redis]" in done.stderr.splitlines()[-1]
    assert done.stderr.count("Traceback") == 1


def test_setting_up_reaches_for_nothing(sse: SSE, tmp_path: Path) -> None:
    threads, modules = threading.active_count(), set(sys.modules)
    application(sse, SSE_URL="redis://127.0.0.1:1/0")
    app = application(SSE(), SSE_URL=f"sqlite:///{tmp_path}/events.db")
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []
    assert "gevent" not in set(sys.modules) - modules
    assert app.extensions["sse"]._brokers == {}


def test_what_is_configured_after_the_registration_counts(
    sse: SSE, tmp_path: Path
) -> None:
    app = application(sse)
    app.config["SSE_URL"] = f"sqlite:///{tmp_path}/events.db"
    publish(app, sse)
    assert (tmp_path / "events.db").exists()
    app.extensions["sse"].close()


@pytest.mark.parametrize(
    ("key", "text", "written"),
    [
        ("PUBLIC_CHANNELS", "sse,news", """'["sse", "news"]'"""),
        ("PUBLIC_CHANNELS", "['sse', 'news']", """'["sse", "news"]'"""),
        ("PUBLIC_CHANNELS", "", """'["sse"]'"""),
        ("ACCESS_LOG", "True", "true"),
        ("MAX_AGE", "None", "null"),
        ("HISTORY", "many", "256"),
    ],
)
def test_a_value_of_the_environment_is_told_how_to_be_written(
    sse: SSE, monkeypatch: pytest.MonkeyPatch, key: str, text: str, written: str
) -> None:
    monkeypatch.setenv(f"FLASK_SSE_{key}", text)
    app = Flask("application")
    app.config.from_prefixed_env()
    with pytest.raises(InvalidValue) as raised:
        sse.init_app(app)
    assert f"FLASK_SSE_{key}={written})" in str(raised.value)
    monkeypatch.setenv(f"FLASK_SSE_{key}", written.strip("'"))
    app.config.from_prefixed_env()
    sse.init_app(app)


def test_sse_url_goes_before_sse_redis_url(sse: SSE) -> None:
    publish(application(sse, SSE_URL="memory://", SSE_REDIS_URL="pigeon://"), sse)


# What the operator is warned of


def test_nothing_is_warned_of_in_an_ordinary_application(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    client = application(sse).test_client()
    with client.get("/stream"):
        assert client.post("/say").text == "hello"
    assert warnings(caplog) == []


def several_processes(app: Flask, method: str, path: str) -> TestResponse:
    """A request as a worker of a server with several processes gets it."""
    return app.test_client().open(
        path, method=method, environ_overrides={"wsgi.multiprocess": True}
    )


@pytest.mark.parametrize(("method", "path"), [("GET", "/stream"), ("POST", "/say")])
def test_several_processes_over_memory_are_warned_of_once(
    sse: SSE, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    app = application(sse)
    several_processes(app, method, path).close()
    (warning,) = warnings(caplog)
    # The processes are not counted: adapters of ASGI set the flag for a single one.
    assert "may run several processes" in warning
    assert "SSE_URL" in warning
    several_processes(app, method, path).close()
    several_processes(app, "POST", "/say").close()
    assert warnings(caplog) == [warning]


def test_several_processes_are_no_matter_while_no_stream_is_used(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(sse)
    app.add_url_rule("/", "index", lambda: "hello")
    several_processes(app, "GET", "/").close()
    assert warnings(caplog) == []


def test_a_publisher_that_no_request_reaches_is_warned_once(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(sse)
    publish(app, sse)
    (warning,) = warnings(caplog)
    assert "has served no request" in warning
    assert "SSE_URL" in warning
    publish(app, sse)
    assert warnings(caplog) == [warning]


def test_a_publisher_in_a_process_that_serves_is_not_warned(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(sse)
    assert app.test_client().get("/nothing").status_code == 404
    publish(app, sse)
    assert warnings(caplog) == []


def test_a_test_that_records_is_not_warned(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(sse)
    with published(app):
        publish(app, sse)
    assert warnings(caplog) == []


def test_redis_url_alone_is_warned_of_once(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(sse, REDIS_URL="redis://user:geheim@host")
    client = app.test_client()
    assert client.post("/say").text == "hello"
    (warning,) = warnings(caplog)
    assert "REDIS_URL is set, but not read" in warning
    assert "geheim" not in warning
    client.post("/say")
    client.get("/stream").close()
    assert warnings(caplog) == [warning]


def test_a_url_in_the_environment_alone_is_warned_of_once(
    sse: SSE, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSE_URL", "redis://user:geheim@host")
    client = application(sse).test_client()
    assert client.post("/say").text == "hello"
    (warning,) = warnings(caplog)
    assert "SSE_URL is set in the environment" in warning
    assert "geheim" not in warning
    client.get("/stream").close()
    assert warnings(caplog) == [warning]


def test_who_asks_for_what_is_not_served_is_told_of_to_the_developer_once(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    client = application(sse, SSE_PUBLIC_CHANNELS=["news"]).test_client()
    assert client.get("/stream?channel=secret").status_code == 403
    (warning,) = warnings(caplog)
    assert "SSE_PUBLIC_CHANNELS does not allow" in warning
    assert "'secret'" in warning
    assert client.get("/stream?channel=other").status_code == 403
    assert warnings(caplog) == [warning]


def test_a_refusal_in_the_log_stays_on_its_line(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", "flask_sse_lite")
    client = application(sse).test_client()
    assert client.get("/stream?channel=a%E2%80%A8b").status_code == 403
    sse.authorizer(lambda channel: False)
    assert client.get("/stream?channel=other").status_code == 403
    lines = [r.getMessage() for r in caplog.records if "got 403" in r.getMessage()]
    assert ["\\u2028" in line for line in lines] == [True, True, False]
    assert "'other'" in lines[-1]
    assert not any(line.splitlines()[1:] for line in lines)


def test_the_name_of_a_run_that_is_refused_is_not_logged(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    client = application(sse).test_client()
    assert client.get("/stream?channel=$run.geheim").status_code == 403
    assert "geheim" not in caplog.text


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_key_that_nobody_reads_is_warned_of_once(
    sse: SSE, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    keys = {"SSE_HEARTBAET": 5, "SSE_%s": 1}
    app = application(sse, **(keys if when == "before" else {}))
    app.config.update(keys)
    client = app.test_client()
    for _ in range(2):
        assert client.post("/say").text == "hello"
    meant, unlike = warnings(caplog)
    assert "SSE_HEARTBAET, which is not read; is SSE_HEARTBEAT meant?" in meant
    assert "SSE_%s, which is not read" in unlike


@pytest.mark.parametrize("type", ["error", "open"])
def test_a_type_that_a_browser_has_a_use_for_is_warned_of_once(
    sse: SSE, caplog: pytest.LogCaptureFixture, type: str
) -> None:
    app = application(sse)
    app.add_url_rule("/items", "items", lambda: EventStream(["a"], type=type))
    app.add_url_rule("/events", "events", lambda: EventStream([Event("a", type)]))
    app.add_url_rule("/run", "run", lambda: sse.run([Event("a", type)]))
    app.add_url_rule(
        "/foreign",
        "foreign",
        lambda: EventStream([Event("a", type)], type=type, own_events=False),
    )
    client = app.test_client()
    read_events(client.get("/foreign"), count=1)
    assert warnings(caplog) == []
    ways: list[Callable[[], object]] = [
        lambda: sse.publish("a", type),
        lambda: sse.publish(Event("a", type)),
        *(
            lambda path=path: read_events(client.get(path), count=1)
            for path in ("/items", "/events", "/run")
        ),
    ]
    for way in ways:
        caplog.clear()
        type_names._warned.clear()
        with app.app_context():
            for _ in range(2):
                way()
        (warning,) = warnings(caplog)
        assert f"source.on{type}" in warning


def test_redis_url_beside_sse_url_is_not_warned_of(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(sse, REDIS_URL="redis://host", SSE_URL="memory://")
    assert app.test_client().post("/say").text == "hello"
    assert warnings(caplog) == []
