"""Registering: where the routes lie, which application a verb means, what is shared."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from flask import Blueprint, Flask, url_for

import flask_sse_lite
from flask_sse_lite import SSE, InvalidType, NoApplication, SetupError
from flask_sse_lite.testing import read_events

#: The folder from which a new interpreter imports the package.
ROOT = Path(flask_sse_lite.__file__).parent.parent


def application(name: str = "application") -> Flask:
    app = Flask(name)
    app.config["SSE_HEARTBEAT"] = 0.4  # The hub ends sooner after the last stream.
    return app


@pytest.fixture(autouse=True)
def _short_heartbeats(app: Flask) -> None:
    app.config["SSE_HEARTBEAT"] = 0.4


def paths(app: Flask) -> set[str]:
    """Where streams are served. Runs, the module for pages, and the inspector must be
    served below each."""
    rules = {r.rule for r in app.url_map.iter_rules() if r.endpoint != "static"}
    inspector = ("", "/stream", "/<name>", "/<action>")
    below = (
        *("/run/<string(length=22):run>", "/sse.js"),
        *(f"/inspector{rule}" for rule in inspector),
    )
    streams = {rule for rule in rules if not rule.endswith(below)}
    assert rules == streams | {s + rule for s in streams for rule in below}
    return streams


def what_arrives(app: Flask, url: str = "/stream") -> list[str]:
    """What a client gets of an event that is published while it listens."""
    response = app.test_client().get(url)
    with app.app_context():
        SSE("any").publish("hello")
    return [event.data for event in read_events(response, count=1)]


# Routes


def test_the_default_address_is_stream(app: Flask) -> None:
    assert paths(app) == {"/stream"}
    assert what_arrives(app) == ["hello"]


def test_the_address_is_the_url_prefix_of_the_registration(sse: SSE) -> None:
    app = application()
    app.register_blueprint(sse, url_prefix="/api/events")
    assert paths(app) == {"/api/events"}


def test_the_address_is_the_url_prefix_of_the_instance() -> None:
    app = application()
    app.register_blueprint(SSE(url_prefix="/api/events"))
    assert paths(app) == {"/api/events"}


def test_the_ready_instance_can_be_registered() -> None:
    app = application()
    app.register_blueprint(flask_sse_lite.sse)
    assert paths(app) == {"/stream"}


def test_init_app_registers_the_routes_at_their_default(sse: SSE) -> None:
    app = application()
    sse.init_app(app)
    assert paths(app) == {"/stream"}
    assert what_arrives(app) == ["hello"]


def test_the_default_of_init_app_is_the_url_prefix_of_the_instance() -> None:
    app = application()
    SSE(url_prefix="/events").init_app(app)
    assert paths(app) == {"/events"}


def test_init_app_with_none_registers_no_routes(sse: SSE) -> None:
    app = application()
    sse.init_app(app, url_prefix=None)
    SSE("again", url_prefix=None).init_app(app)
    assert paths(app) == set()
    with app.app_context():
        assert sse.publish("hello").id


def test_init_app_with_a_url_prefix_registers_the_route(sse: SSE) -> None:
    app = application()
    sse.init_app(app, url_prefix="/events")
    assert paths(app) == {"/events"}
    assert what_arrives(app, "/events") == ["hello"]


def test_init_app_may_come_before_the_registration(sse: SSE) -> None:
    app = application()
    sse.init_app(app, url_prefix=None)
    with app.app_context():
        before = sse.position()
        sse.publish("kept")
    app.register_blueprint(sse)
    response = app.test_client().get(f"/stream?last_event_id={before}")
    assert [event.data for event in read_events(response, count=1)] == ["kept"]


def test_an_application_may_be_given_at_once() -> None:
    app = application()
    sse = SSE(app)
    assert (sse.name, paths(app)) == ("sse", {"/stream"})
    assert what_arrives(app) == ["hello"]


def test_an_application_may_be_given_with_options() -> None:
    app = application()
    sse = SSE(app=app, name="events", url_prefix="/events")
    assert paths(app) == {"/events"}
    assert what_arrives(app, "/events") == ["hello"]
    with app.test_request_context():
        assert url_for("events.stream") == "/events"
    other = application("other")
    SSE(other, url_prefix=None)
    assert paths(other) == set()
    sse.init_app(other)
    assert paths(other) == {"/events"}


def test_a_name_and_a_module_may_be_given_as_for_any_blueprint() -> None:
    for sse in (SSE("events", "a_module"), SSE(name="events", import_name="a_module")):
        assert (sse.name, sse.import_name) == ("events", "a_module")
    assert (SSE().name, SSE(None).name) == ("sse", "sse")


@pytest.mark.parametrize("bad", [5, Flask, Blueprint("a", "b"), ["events"]], ids=repr)
def test_what_is_neither_an_application_nor_a_name_is_a_type_error(bad: Any) -> None:
    with pytest.raises(InvalidType, match=r"SSE\(app\), SSE\(\), SSE\(\"events\"\)"):
        SSE(bad)


def test_an_authorizer_holds_that_is_given_behind_init_app(sse: SSE) -> None:
    app = application()
    sse.init_app(app)
    sse.authorizer(lambda channel: channel == "a")
    assert app.test_client().get("/stream?channel=b").status_code == 403
    with app.test_client().get("/stream?channel=a") as response:
        assert response.status_code == 200


# Both init_app and register_blueprint


@pytest.mark.parametrize("prefix", [None, "/stream"])
@pytest.mark.parametrize("is_first", [True, False])
def test_who_calls_both_gets_the_routes_once(
    sse: SSE, prefix: str | None, is_first: bool
) -> None:
    app = application()
    options = {"url_prefix": prefix} if prefix else {}
    for registers in (is_first, not is_first):
        if registers:
            app.register_blueprint(sse, **options)
        else:
            sse.init_app(app)
    sse.init_app(app)
    assert paths(app) == {"/stream"}
    assert [r.rule for r in app.url_map.iter_rules()].count("/stream") == 1
    assert what_arrives(app) == ["hello"]


@pytest.mark.parametrize("is_nested", [True, False])
def test_another_place_behind_init_app_is_an_error_that_says_what_to_write(
    sse: SSE, is_nested: bool
) -> None:
    def register(app: Flask) -> None:
        if is_nested:
            parent = Blueprint("api", "api", url_prefix="/api")
            parent.register_blueprint(sse)
            app.register_blueprint(parent)
        else:
            app.register_blueprint(sse, url_prefix="/api/stream")

    app = application()
    sse.init_app(app)
    with pytest.raises(SetupError, match=r"sse\.init_app\(app, url_prefix=None\)"):
        register(app)
    with pytest.raises(SetupError, match=r"another place"):
        sse.init_app(app, url_prefix="/events")
    assert paths(app) == {"/stream"}
    # What the error advises works.
    app = application()
    sse.init_app(app, url_prefix=None)
    register(app)
    assert paths(app) == {"/api/stream"}


@pytest.mark.parametrize("is_nested", [True, False])
def test_init_app_adds_nothing_to_a_registration(sse: SSE, is_nested: bool) -> None:
    parent = Blueprint("api", "api", url_prefix="/api")
    app = application()
    if is_nested:
        parent.register_blueprint(sse)
        app.register_blueprint(parent)
    else:
        app.register_blueprint(sse, url_prefix="/api/stream")
    sse.init_app(app)
    assert paths(app) == {"/api/stream"}


def test_a_second_place_may_be_named_behind_init_app(sse: SSE) -> None:
    app = application()
    sse.init_app(app)
    app.register_blueprint(sse, name="again", url_prefix="/again")
    assert paths(app) == {"/stream", "/again"}


@pytest.mark.parametrize("name", ["sse", "again"])
def test_init_app_never_puts_one_sse_behind_another(sse: SSE, name: str) -> None:
    app = application()
    sse.init_app(app)
    # The second one's authorizer would guard nothing.
    with pytest.raises(SetupError, match=r"sse\.init_app\(app, url_prefix=None\)"):
        SSE(app, name=name)
    SSE(app, name="events", url_prefix="/events")
    SSE(app, url_prefix=None)
    assert paths(app) == {"/stream", "/events"}


def test_a_nested_blueprint_serves_below_its_parent(sse: SSE) -> None:
    parent = Blueprint("api", "api", url_prefix="/api")
    parent.register_blueprint(sse)
    app = application()
    app.register_blueprint(parent)
    assert paths(app) == {"/api/stream"}
    assert what_arrives(app, "/api/stream") == ["hello"]
    with app.test_request_context():
        assert url_for("api.sse.stream", channel="a") == "/api/stream?channel=a"


def test_url_for_names_the_stream_with_its_channels(app: Flask) -> None:
    with app.test_request_context():
        assert url_for("sse.stream") == "/stream"
        assert url_for("sse.stream", channel="a b") == "/stream?channel=a+b"
        assert (
            url_for("sse.stream", channel=["a", "b"]) == "/stream?channel=a&channel=b"
        )


def test_url_for_goes_by_the_name_of_the_instance() -> None:
    app = application()
    app.register_blueprint(SSE("news", url_prefix="/news"))
    with app.test_request_context():
        assert url_for("news.stream") == "/news"


def test_only_get_and_head_are_allowed(app: Flask) -> None:
    refused = app.test_client().post("/stream")
    assert refused.status_code == 405
    assert set(refused.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


# What is shared


def test_two_instances_on_one_application_share_its_channels() -> None:
    app = application()
    first, second = SSE("first"), SSE("second", url_prefix="/second")
    app.register_blueprint(first)
    app.register_blueprint(second)
    response = app.test_client().get("/second")
    with app.app_context():
        event = first.publish("hello")
        assert first.position() == second.position() == event.id
    assert [event.data for event in read_events(response, count=1)] == ["hello"]


def test_one_instance_keeps_its_applications_apart(sse: SSE) -> None:
    one, other = application("one"), application("other")
    one.register_blueprint(sse)
    other.register_blueprint(sse)
    of_one = one.test_client().get("/stream")
    of_other = other.test_client().get("/stream")
    with one.app_context():
        sse.publish("for one")
        sse.close()
    with other.app_context():
        sse.publish("for the other")
        sse.close()
    assert [event.data for event in read_events(of_one)][:-1] == ["for one"]
    assert [event.data for event in read_events(of_other)][:-1] == ["for the other"]


def test_each_application_has_its_own_configuration(sse: SSE) -> None:
    one, other = application("one"), application("other")
    one.config["SSE_PUBLIC_CHANNELS"] = ["news"]
    for app in (one, other):
        app.register_blueprint(sse)
    assert one.test_client().get("/stream?channel=sse").status_code == 403
    assert other.test_client().get("/stream?channel=news").status_code == 403
    with one.test_client().get("/stream?channel=news") as response:
        assert response.status_code == 200


def test_a_factory_may_make_an_application_again_and_again(sse: SSE) -> None:
    def create_app() -> Flask:
        app = application()
        sse.init_app(app, url_prefix="/stream")
        return app

    positions = set()
    for app in (create_app(), create_app(), create_app()):
        assert what_arrives(app) == ["hello"]
        with app.app_context():
            positions.add(sse.position())
    assert len(positions) == 3


# Which application is meant


def test_a_request_means_its_application(app: Flask, sse: SSE) -> None:
    @app.post("/say")
    def say() -> str:
        return sse.publish("hello").id or ""

    client = app.test_client()
    response = client.get("/stream")
    id = client.post("/say").text
    assert [event.id for event in read_events(response, count=1)] == [id]


def test_a_thread_within_an_application_context_means_that(
    app: Flask, sse: SSE
) -> None:
    def work() -> None:
        with app.app_context():
            sse.publish("from a thread")

    response = app.test_client().get("/stream")
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [event.data for event in read_events(response, count=1)] == ["from a thread"]


def test_every_verb_says_when_the_application_was_never_registered(sse: SSE) -> None:
    app = Flask("forgotten")
    with app.test_request_context():
        for verb in (
            lambda: sse.publish("hello"),
            lambda: sse.stream("sse"),
            lambda: sse.messages(),
            lambda: sse.close(),
            lambda: sse.position(),
        ):
            with pytest.raises(
                NoApplication, match=r"'forgotten'.*sse\.init_app\(app\)"
            ):
                verb()


def run(script: str) -> str:
    """What a script prints in a new interpreter, in which nothing was ever
    registered."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ALONE = """
import threading
from flask import Flask
from flask_sse_lite import SSE, NoApplication, sse

def attempt():
    try:
        return sse.publish("hello").data
    except NoApplication as error:
        return str(error)

print("none:", attempt())
app = Flask("one")
sse.init_app(app)
print("one:", attempt())
SSE("again").init_app(app, url_prefix=None)
print("one, two instances:", attempt())
thread = threading.Thread(target=lambda: print("thread:", attempt()))
thread.start()
thread.join()
with app.app_context():
    gap, *events = sse.messages(since="unknown", timeout=0.01)
    print("all of one:", len(events))
"""


def test_without_a_context_the_only_application_is_meant() -> None:
    none, *lines = run(ALONE).splitlines()
    assert "app.app_context()" in none
    assert lines == [
        "one: hello",
        "one, two instances: hello",
        "thread: hello",
        "all of one: 3",
    ]


SEVERAL = """
import gc
from flask import Flask
from flask_sse_lite import NoApplication, sse

def attempt():
    try:
        return sse.publish("hello").data
    except NoApplication as error:
        return str(error)

one = Flask("one")
sse.init_app(one)
other = Flask("other")
sse.init_app(other)
print("two:", attempt())
with other.app_context():
    print("said which:", attempt())
del one
gc.collect()
print("one is left:", attempt())
"""


def test_without_a_context_no_one_guesses_among_several_applications() -> None:
    two, said, left = run(SEVERAL).splitlines()
    assert two.startswith("two: ")
    assert "app.app_context()" in two
    assert said == "said which: hello"
    assert "app.app_context()" in left


def test_the_package_alone_starts_nothing() -> None:
    script = (
        "import sys, threading, flask_sse_lite\n"
        "print(threading.active_count(), 'gevent' in sys.modules)"
    )
    assert run(script) == "1 False\n"
