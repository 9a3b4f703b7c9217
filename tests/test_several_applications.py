"""One SSE that several applications share: each keeps what it has set on it.

This comes about where a factory is called twice, as tests do.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable

import pytest
from flask import Flask, abort, request
from flask_cors import CORS
from werkzeug.wrappers import Response

from flask_sse_lite import SSE, InvalidValue, SetupError, SSEError
from flask_sse_lite.testing import read_events

ORIGIN = "https://{}.example"


def application(name: str) -> Flask:
    app = Flask(name)
    app.config.update(TESTING=True, SSE_HEARTBEAT=0.4)
    return app


def status(app: Flask, channel: str = "sse", **headers: str) -> int:
    url = f"/stream?channel={channel}"
    with app.test_client().get(url, headers=headers) as response:
        return response.status_code


def allow(sse: SSE, channel: str) -> Callable[[str], bool]:
    """An authorizer as a factory makes it."""

    @sse.authorizer
    def may_listen(name: str) -> bool:
        return name == channel

    return may_listen


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "flask_sse_lite"]


# Authorizers


@pytest.mark.parametrize("comes_first", [True, False])
def test_each_application_keeps_its_own_authorizer(
    sse: SSE, comes_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def create_app(allowed: str) -> Flask:
        app = application(allowed)
        if comes_first:
            allow(sse, allowed)
        sse.init_app(app, url_prefix="/stream")
        if not comes_first:
            allow(sse, allowed)
        return app

    apps = []
    for name in ("a", "b", "c"):
        apps.append(create_app(name))
        for app in apps:
            served = [c for c in ("a", "b", "c") if status(app, c) == 200]
            assert served == [app.name]
    assert warnings(caplog) == []


def test_two_factories_keep_their_own_where_it_comes_behind(sse: SSE) -> None:
    one, other = application("one"), application("other")
    one.register_blueprint(sse)
    sse.authorizer(lambda channel: channel == "a")
    other.register_blueprint(sse)
    sse.authorizer(lambda channel: channel == "b")
    assert (status(one, "a"), status(one, "b")) == (200, 403)
    assert (status(other, "a"), status(other, "b")) == (403, 200)


def test_an_authorizer_that_is_given_once_serves_several_applications(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    sse.authorizer(_only_a)
    for name in ("one", "other"):
        app = application(name)
        app.register_blueprint(sse)
        sse.authorizer(_only_a)  # The same one is no change.
        assert (status(app, "a"), status(app, "b")) == (200, 403)
    assert warnings(caplog) == []


def _only_a(channel: str) -> bool:
    return channel == "a"


@pytest.mark.parametrize("registered", ["never", "before", "between"])
def test_a_second_authorizer_is_an_error_that_says_how(
    sse: SSE, registered: str
) -> None:
    app = application("one")
    if registered == "before":
        app.register_blueprint(sse)
    sse.authorizer(_only_a)
    if registered == "between":
        app.register_blueprint(sse)
    with pytest.raises(SetupError, match=r"_only_a.*sse = SSE\(\)") as raised:
        sse.authorizer(lambda channel: True)
    assert isinstance(raised.value, SSEError)
    if registered == "never":
        app.register_blueprint(sse)
    assert (status(app, "a"), status(app, "b")) == (200, 403)


@pytest.mark.parametrize("comes_first", [True, False])
def test_the_same_function_of_another_call_does_not_replace_it_unseen(
    sse: SSE, comes_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = application("one")
    if comes_first:
        allow(sse, "a")
        with pytest.raises(SetupError):
            allow(sse, "b")
        app.register_blueprint(sse)
        allow(sse, "b")  # By a factory called again, or meant as a replacement.
        with pytest.raises(SetupError):
            app.register_blueprint(sse, name="again", url_prefix="/again")
        assert (status(app, "a"), status(app, "b")) == (200, 403)
        assert "keeps its authorizer" in warnings(caplog)[0]
    else:
        app.register_blueprint(sse)
        allow(sse, "a")
        with pytest.raises(SetupError):
            allow(sse, "b")
    assert (status(app, "a"), status(app, "b")) == (200, 403)


def test_an_application_without_its_own_is_told_of(
    sse: SSE, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = application("one"), application("other")
    one.register_blueprint(sse)
    allow(sse, "a")
    other.register_blueprint(sse)
    assert status(one, "a") == 200
    assert warnings(caplog) == []
    for _ in range(2):
        assert (status(other, "a"), status(other, "b")) == (200, 403)
    (warning,) = warnings(caplog)
    assert "'other' was given no authorizer of its own" in warning


def test_a_registration_that_failed_counts_for_nothing(sse: SSE) -> None:
    def create_app(allowed: str, **config: object) -> Flask:
        app = application(allowed)
        app.config.update(config)
        allow(sse, allowed)
        guard(sse, allowed)
        app.register_blueprint(sse)
        return app

    with pytest.raises(InvalidValue, match="SSE_HISTORY"):
        create_app("a", SSE_HISTORY=0)
    one, other = create_app("b"), create_app("c")
    assert status(one, "b", key="b") == status(other, "c", key="c") == 200
    assert status(one, "a", key="b") == status(one, "c", key="b") == 403
    assert status(one, "b", key="a") == status(one, "b", key="c") == 401


def test_an_application_goes_when_nobody_has_it_any_more(sse: SSE) -> None:
    def create_app(name: str) -> weakref.ref[Flask]:
        app = application(name)

        @sse.before_request
        def guard() -> None:
            assert app.name == name

        @sse.authorizer
        def may_listen(channel: str) -> bool:
            return bool(app)

        app.register_blueprint(sse)
        assert status(app) == 200
        return weakref.ref(app)

    first, second = create_app("one"), create_app("other")
    gc.collect()
    assert first() is None
    assert second() is not None  # The next applications get what was set last.


# Hooks


def guard(sse: SSE, key: str) -> None:
    @sse.before_request
    def users_only() -> None:
        if request.headers.get("key") != key:
            abort(401)


def test_each_application_keeps_its_own_hooks(sse: SSE) -> None:
    seen: list[str] = []

    def create_app(name: str) -> Flask:
        app = application(name)
        guard(sse, name)

        @sse.after_request
        def mark(response: Response) -> Response:
            response.headers["X-Mark"] = name
            return response

        @sse.teardown_request
        def note(error: BaseException | None = None) -> None:
            seen.append(name)

        app.register_blueprint(sse)
        return app

    apps = [create_app(name) for name in ("a", "b", "c")]
    for app in apps:
        statuses = [status(app, key=key) for key in ("a", "b", "c")]
        assert [n for n, s in zip("abc", statuses, strict=True) if s == 200] == [
            app.name
        ]
        response = app.test_client().get("/stream")
        assert response.headers["X-Mark"] == app.name
        assert set(seen) == {app.name}
        seen.clear()


def test_each_application_keeps_its_own_origins(sse: SSE) -> None:
    def create_app(name: str) -> Flask:
        CORS(sse, origins=[ORIGIN.format(name)])
        app = application(name)
        app.register_blueprint(sse)
        return app

    for app in [create_app(name) for name in ("a", "b")]:
        for name in ("a", "b"):
            origin = ORIGIN.format(name)
            with app.test_client().get("/stream", headers={"Origin": origin}) as got:
                allowed = got.headers.get("Access-Control-Allow-Origin")
            assert allowed == (origin if name == app.name else None)


def test_hooks_of_the_module_serve_all_applications(sse: SSE) -> None:
    guard(sse, "module")

    def create_app(name: str) -> Flask:
        CORS(sse, origins=[ORIGIN.format(name)])
        app = application(name)
        app.register_blueprint(sse)
        return app

    for app in [create_app(name) for name in ("a", "b")]:
        assert status(app) == 401
        origin = ORIGIN.format(app.name)
        headers = {"key": "module", "Origin": origin}
        with app.test_client().get("/stream", headers=headers) as response:
            assert response.headers["Access-Control-Allow-Origin"] == origin


def test_hooks_of_one_place_are_given_all_or_none(sse: SSE) -> None:
    guard(sse, "a")
    guard(sse, "b")
    application("one").register_blueprint(sse)
    guard(sse, "c")
    app = application("other")
    with pytest.raises(SetupError, match=r"before_request.*'other'.*sse = SSE\(\)"):
        app.register_blueprint(sse)
    assert "sse" not in app.blueprints


def test_an_application_that_registers_twice_has_one_set_of_hooks(sse: SSE) -> None:
    guard(sse, "a")
    app = application("one")
    app.register_blueprint(sse)
    app.register_blueprint(sse, name="again", url_prefix="/again")
    guard(sse, "b")
    with pytest.raises(SetupError, match="'one'"):
        app.register_blueprint(sse, name="third", url_prefix="/third")
    assert status(app, key="a") == 200


def test_a_new_hook_after_a_registration_is_an_error_that_says_how(sse: SSE) -> None:
    guard(sse, "a")
    application("one").register_blueprint(sse)
    setups: list[Callable[[], object]] = [
        lambda: sse.before_request(lambda: None),
        lambda: sse.after_request(lambda response: response),
        lambda: sse.errorhandler(403),
        lambda: sse.add_url_rule("/more", "more", lambda: ""),
    ]
    for setup in setups:
        with pytest.raises(
            AssertionError, match=r"(?s)already been registered.*sse = SSE\(\)"
        ) as raised:
            setup()
        assert isinstance(raised.value, SetupError)
        assert raised.value.__suppress_context__


def test_a_hook_may_be_a_coroutine(sse: SSE) -> None:
    @sse.before_request
    async def guard() -> tuple[str, int] | None:
        await asyncio.sleep(0)
        return ("no key", 401) if "key" not in request.headers else None

    app = application("one")
    app.register_blueprint(sse)
    app.ensure_sync = lambda function: (  # type: ignore[assignment, method-assign]
        (lambda *a: asyncio.run(function(*a)))
        if asyncio.iscoroutinefunction(function)
        else function
    )
    assert (status(app), status(app, key="x")) == (401, 200)


def test_an_sse_for_each_call_needs_no_care() -> None:
    def create_app(name: str) -> Flask:
        sse = SSE()
        guard(sse, name)
        sse.errorhandler(401)(lambda error: ("who?", 418))
        app = application(name)
        app.register_blueprint(sse)
        return app

    one, other = create_app("one"), create_app("other")
    assert (status(one, key="one"), status(other, key="other")) == (200, 200)
    assert (status(one, key="other"), status(other, key="one")) == (418, 418)
    response = one.test_client().get("/stream", headers={"key": "one"})
    with one.app_context():
        SSE("any").publish("hello")
    assert [event.data for event in read_events(response, count=1)] == ["hello"]
