"""The configuration as an application meets it: when it is read, what is refused, and
what the operator is warned of."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from flask_sse_lite import SSE, InvalidValue
from flask_sse_lite.testing import published


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
    app = application(sse, **{key: bad})
    with pytest.raises(InvalidValue, match=key):
        publish(app, sse)
    with pytest.raises(InvalidValue, match=key):
        app.test_client().get("/stream")


@pytest.mark.parametrize("key", ["SSE_URL", "SSE_REDIS_URL"])
def test_a_scheme_without_a_broker_is_an_error_and_never_memory(
    sse: SSE, key: str
) -> None:
    app = application(sse, **{key: "pigeon://user:geheim@roof/1"})
    with pytest.raises(InvalidValue, match=r"'pigeon'.*memory://") as raised:
        publish(app, sse)
    assert "geheim" not in str(raised.value)


def test_a_bad_url_is_not_shown(sse: SSE) -> None:
    app = application(sse, SSE_URL=["redis://user:geheim@host"])
    with pytest.raises(InvalidValue, match="SSE_URL") as raised:
        publish(app, sse)
    assert "geheim" not in str(raised.value)


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
    # Nobody has counted them: adapters of ASGI say the same of one process.
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
    assert "SSE_PUBLIC_CHANNELS does not list it" in warning
    assert "secret" not in warning
    assert client.get("/stream?channel=other").status_code == 403
    assert warnings(caplog) == [warning]


def test_redis_url_beside_sse_url_is_not_warned_of(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    app = application(sse, REDIS_URL="redis://host", SSE_URL="memory://")
    assert app.test_client().post("/say").text == "hello"
    assert warnings(caplog) == []
