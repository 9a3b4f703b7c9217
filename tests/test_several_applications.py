"""One SSE that several applications share: each keeps what it has set on it.

This comes about where a factory is called twice, as tests do.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, abort, request
from flask_cors import CORS
from werkzeug.wrappers import Response

from flask_sse_lite import SSE, InvalidValue, SetupError, SSEError
from flask_sse_lite.testing import read_events

from .servers import until

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
    for _ in range(2):
        assert (status(one, "a"), status(one, "b")) == (200, 403)
        assert (status(other, "a"), status(other, "b")) == (200, 403)
    unclear, warning = warnings(caplog)
    assert "'one' was perhaps given no authorizer of its own" in unclear
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


@pytest.mark.parametrize("comes_first", [True, False])
def test_an_application_goes_when_nobody_has_it_any_more(
    sse: SSE, comes_first: bool
) -> None:
    def create_app(name: str) -> weakref.ref[Flask]:
        app = application(name)

        @sse.before_request
        def guard() -> None:
            assert app.name == name

        def may_listen(channel: str) -> bool:
            return bool(app)

        if comes_first:
            sse.authorizer(may_listen)
        app.register_blueprint(sse)
        if not comes_first:
            sse.authorizer(may_listen)
        assert status(app) == 200
        return weakref.ref(app)

    *gone, last = [create_app(name) for name in "abcd"]
    gc.collect()
    assert [app() for app in gone] == [None] * 3
    assert last() is not None  # The next applications get what was set last.


# Identity functions


@pytest.fixture
def present() -> Iterator[Callable[[Flask, str], list[str]]]:
    """Says who a client of an application is: it opens a stream and looks who is
    there."""
    apps: set[Flask] = set()

    def present(app: Flask, target: str = "/stream") -> list[str]:
        apps.add(app)
        sse = SSE("any")
        with app.app_context():
            with app.test_client().get(target, headers={"User": "ann"}) as response:
                assert response.status_code == 200
                next(response.iter_encoded())
                found = [*sse.present()]
            until(lambda: not sse.present())
        return found

    yield present
    for app in apps:
        app.extensions["sse"].close()


def identify(sse: SSE, name: str) -> None:
    """An identity function as a factory makes it."""

    @sse.identity
    def who() -> str:
        return f"{request.headers['User']} of {name}"


def register(sse: SSE, app: Flask) -> None:
    app.register_blueprint(sse)


def register_views(sse: SSE, app: Flask) -> None:
    """Have the application serve streams by a view of its own."""
    sse.init_app(app, url_prefix=None)
    app.add_url_rule("/stream", view_func=lambda: sse.stream("sse"))


@pytest.mark.parametrize("comes_first", [True, False])
@pytest.mark.parametrize("serve", [register, register_views])
def test_each_application_keeps_its_own_identity_function(
    sse: SSE,
    comes_first: bool,
    serve: Callable[[SSE, Flask], None],
    present: Callable[..., list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    def create_app(name: str) -> Flask:
        app = application(name)
        if comes_first:
            identify(sse, name)
        serve(sse, app)
        if not comes_first:
            identify(sse, name)
        return app

    apps = []
    for name in ("a", "b", "c"):
        apps.append(create_app(name))
        for app in apps:
            assert present(app) == [f"ann of {app.name}"]
    assert warnings(caplog) == []


def test_an_application_of_two_registrations_keeps_its_own_identity_function(
    sse: SSE, present: Callable[..., list[str]]
) -> None:
    def create_app(name: str) -> Flask:
        app = application(name)
        sse.init_app(app, url_prefix=None)
        identify(sse, name)
        app.register_blueprint(sse)
        return app

    for app in [create_app(name) for name in ("a", "b", "c")]:
        assert present(app) == [f"ann of {app.name}"]


def test_an_application_that_has_a_function_is_given_no_other_one(
    sse: SSE, present: Callable[..., list[str]]
) -> None:
    app = application("one")
    app.register_blueprint(sse)
    identify(sse, "one")
    app.register_blueprint(sse, name="again", url_prefix="/again")
    with pytest.raises(SetupError, match="identity function"):
        identify(sse, "another")
    assert present(app) == ["ann of one"]


def test_a_second_identity_function_does_not_replace_the_first(
    sse: SSE, present: Callable[..., list[str]]
) -> None:
    app = application("one")
    identify(sse, "one")
    app.register_blueprint(sse)
    with pytest.raises(SetupError, match="identity function"):
        sse.identity(lambda: "somebody else")
    assert present(app) == ["ann of one"]


def test_an_application_without_its_own_identity_function_is_told_of(
    sse: SSE, present: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = application("one"), application("other")
    one.register_blueprint(sse)
    identify(sse, "one")
    other.register_blueprint(sse)
    for _ in range(2):
        assert present(one) == ["ann of one"]
        present(other)
    unclear, warning = warnings(caplog)
    assert "'one' was perhaps given no identity function of its own" in unclear
    assert "'other' was given no identity function of its own" in warning


@pytest.mark.parametrize("comes_first", [True, False])
def test_an_identity_function_of_the_module_serves_all_streams_of_all_applications(
    sse: SSE,
    comes_first: bool,
    present: Callable[..., list[str]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The streams of an application's other SSE, too."""
    apps = [application(name) for name in ("one", "other", "third")]
    if comes_first:
        sse.identity(_who)
    for app in apps:
        app.register_blueprint(sse)
        app.register_blueprint(SSE("second", url_prefix="/second"))
    sse.identity(_who)
    for app in apps:
        assert present(app) == present(app, "/second") == ["ann"]
    assert warnings(caplog) == []


def _who() -> str:
    return request.headers["User"]


# Inspector guards


def inspectable(name: str) -> Flask:
    app = application(name)
    app.config["SSE_INSPECTOR"] = True
    app.secret_key = "a key of the tests"
    return app


def inspectors(app: Flask, path: str = "/stream") -> list[str]:
    """Those who can use an application's inspector, of three."""
    return [
        name
        for name in ("a", "b", "c")
        if inspected(app, path, headers={"User": name}) == 200
    ]


def inspected(app: Flask, path: str, **options: Any) -> int:
    return app.test_client().get(f"{path}/inspector", **options).status_code


def let_inspect(sse: SSE, name: str) -> None:
    """An inspector guard as a factory makes it."""

    @sse.inspector_guard
    def can_inspect() -> bool:
        return request.headers["User"] == name


@pytest.mark.parametrize("comes_first", [True, False])
def test_each_application_keeps_its_own_inspector_guard(
    sse: SSE, comes_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def create_app(name: str) -> Flask:
        app = inspectable(name)
        if comes_first:
            let_inspect(sse, name)
        app.register_blueprint(sse)
        if not comes_first:
            let_inspect(sse, name)
        return app

    apps = []
    for name in ("a", "b", "c"):
        apps.append(create_app(name))
        for app in apps:
            assert inspectors(app) == [app.name]
    assert warnings(caplog) == []


def test_a_second_inspector_guard_does_not_replace_the_first(sse: SSE) -> None:
    app = inspectable("a")
    let_inspect(sse, "a")
    app.register_blueprint(sse)
    with pytest.raises(SetupError, match="inspector_guard"):
        sse.inspector_guard(lambda: True)
    assert inspectors(app) == ["a"]


@pytest.mark.parametrize("is_debugged", [True, False])
def test_an_application_without_its_own_inspector_guard_is_told_of(
    sse: SSE, is_debugged: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The other's guard refuses more than none does, and nothing less."""
    one, other = inspectable("one"), inspectable("other")
    other.debug = is_debugged
    one.register_blueprint(sse)
    let_inspect(sse, "a")
    other.register_blueprint(sse)
    for _ in range(2):
        assert inspectors(one) == ["a"]
        assert inspectors(other) == ["a"]
    unclear, warning = warnings(caplog)
    assert "'one' was perhaps given no inspector_guard of its own" in unclear
    assert "'other' was given no inspector_guard of its own" in warning


@pytest.mark.parametrize("comes_first", [True, False])
def test_an_inspector_guard_of_the_module_guards_all_inspectors(
    sse: SSE, comes_first: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The inspectors of an application's other SSE, too: in debug mode, an inspector
    without a guard is open."""
    apps = [inspectable(name) for name in ("one", "other", "third")]
    if comes_first:
        sse.inspector_guard(_only_b)
    for app in apps:
        app.debug = True
        app.register_blueprint(sse)
        app.register_blueprint(SSE("second", url_prefix="/second"))
    sse.inspector_guard(_only_b)
    for app in apps:
        assert inspectors(app) == inspectors(app, "/second") == ["b"]
    assert warnings(caplog) == []


def _only_b() -> bool:
    return request.headers["User"] == "b"


def test_a_guard_given_without_routes_guards_the_inspectors_of_other_sses(
    sse: SSE,
) -> None:
    app = inspectable("a")
    app.debug = True
    sse.init_app(app, url_prefix=None)
    let_inspect(sse, "a")
    app.register_blueprint(SSE("second", url_prefix="/second"))
    assert inspectors(app, "/second") == ["a"]


# Orders in which nobody can tell whose a function is


def is_allowed(app: Flask, name: str) -> bool:
    return status(app, name) == 200


def is_identified(app: Flask, name: str) -> bool:
    with app.test_client().get("/stream", headers={"User": "ann"}) as response:
        assert response.status_code == 200
        next(response.iter_encoded())
        with app.app_context():
            return [*SSE("any").present()] == [f"ann of {name}"]


def is_inspector(app: Flask, name: str) -> bool:
    return inspected(app, "/stream", headers={"User": name}) == 200


#: For each kind of function: how a factory gives one, and whether one that was given
#: with a name holds for an application.
EACH_KIND: list[tuple[Callable[[SSE, str], object], Callable[[Flask, str], bool]]] = [
    (allow, is_allowed),
    (identify, is_identified),
    (let_inspect, is_inspector),
]

of_each_kind = pytest.mark.parametrize(
    ("give", "holds"), EACH_KIND, ids=lambda function: function.__name__
)


@pytest.fixture
def apps(sse: SSE) -> Iterator[Callable[..., Flask]]:
    """Makes applications, and closes them."""
    made: list[Flask] = []

    def create_app(name: str, give: Callable[[SSE, str], object] | None) -> Flask:
        """What a factory does that gives its function, if any, before it registers
        the application."""
        app = inspectable(name)
        if give:
            give(sse, name)
        app.register_blueprint(sse)
        made.append(app)
        return app

    yield create_app
    for app in made:
        app.extensions["sse"].close()


@of_each_kind
@pytest.mark.parametrize("has_routes", [True, False])
def test_where_nobody_can_tell_whose_a_function_is_nobody_is_served(
    sse: SSE,
    apps: Callable[..., Flask],
    give: Callable[[SSE, str], object],
    holds: Callable[[Flask, str], bool],
    has_routes: bool,
) -> None:
    """The first has none, or the last has none yet."""
    if has_routes:
        apps("first", None)
    else:
        sse.init_app(inspectable("first"), url_prefix=None)
    for app in [apps("a", give), apps("b", give)]:
        for name in "ab":
            with pytest.raises(SetupError, match=rf"{app.name!r}.*sse = SSE\(\)"):
                holds(app, name)


@of_each_kind
def test_an_application_keeps_what_it_was_served_by(
    sse: SSE,
    apps: Callable[..., Flask],
    give: Callable[[SSE, str], object],
    holds: Callable[[Flask, str], bool],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, app = apps("first", None), apps("a", give)
    assert holds(app, "a")
    assert "'a' was given no" in warnings(caplog)[0]
    with pytest.raises(SetupError, match=r"sse = SSE\(\)"):
        apps("b", give)
    assert holds(app, "a")
    assert holds(first, "a")


@of_each_kind
def test_applications_that_were_served_are_served_while_another_is_made(
    sse: SSE,
    apps: Callable[..., Flask],
    give: Callable[[SSE, str], object],
    holds: Callable[[Flask, str], bool],
    caplog: pytest.LogCaptureFixture,
) -> None:
    made = []
    for name in "abc":
        made.append(apps(name, None))
        assert all(holds(app, app.name) for app in made[:-1])
        give(sse, name)
        assert all(holds(app, app.name) for app in made)
    assert warnings(caplog) == []


@of_each_kind
def test_an_application_that_is_given_none_has_the_last_one_before_it(
    sse: SSE,
    apps: Callable[..., Flask],
    give: Callable[[SSE, str], object],
    holds: Callable[[Flask, str], bool],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It is told of, and no later one replaces it."""
    one, none, other = apps("a", give), apps("none", None), apps("b", give)
    assert holds(one, "a")
    assert holds(other, "b")
    assert warnings(caplog) == []
    assert holds(none, "a")
    (warning,) = warnings(caplog)
    assert "'none' was given no" in warning


def test_no_other_authorizer_replaces_one_of_the_module(sse: SSE) -> None:
    one, other = application("one"), application("other")
    one.register_blueprint(sse)
    sse.authorizer(_only_a)
    other.register_blueprint(sse)
    assert status(other, "a") == 200
    with pytest.raises(SetupError, match=r"_only_a.*sse = SSE\(\)"):
        sse.authorizer(lambda channel: True)
    assert (status(other, "a"), status(other, "b")) == (200, 403)


def test_an_application_registered_again_behind_others_is_given_no_other_one(
    sse: SSE,
) -> None:
    one, other = application("one"), application("other")
    for app, channel in ((one, "a"), (other, "b")):
        app.register_blueprint(sse)
        allow(sse, channel)
    one.register_blueprint(sse, name="again", url_prefix="/again")
    with pytest.raises(SetupError, match="authorizer"):
        allow(sse, "c")


def test_a_function_that_is_given_again_is_the_waiting_application_s_own(
    sse: SSE,
) -> None:
    one, other, third = (application(name) for name in ("one", "other", "third"))
    for app in (one, other):
        app.register_blueprint(sse)
        sse.authorizer(_only_a)
    third.register_blueprint(sse)
    sse.authorizer(lambda channel: channel == "b")
    for app in (one, other):
        assert (status(app, "a"), status(app, "b")) == (200, 403)
    assert (status(third, "a"), status(third, "b")) == (403, 200)


def test_a_later_function_that_several_applications_wait_for_is_an_error(
    sse: SSE,
) -> None:
    """The first has none, the second comes behind its own, the third before its own."""
    for name in ("one", "other"):
        application(name).register_blueprint(sse)
        allow(sse, "a")
    for name in ("third", "fourth"):
        application(name).register_blueprint(sse)
    with pytest.raises(SetupError, match=r"sse = SSE\(\)"):
        allow(sse, "b")


def test_a_registration_that_failed_makes_it_unclear_too(
    sse: SSE, apps: Callable[..., Flask]
) -> None:
    apps("first", None)
    app = apps("a", allow)
    allow(sse, "b")
    broken = application("b")
    broken.config["SSE_HISTORY"] = 0
    with pytest.raises(InvalidValue, match="SSE_HISTORY"):
        broken.register_blueprint(sse)
    with pytest.raises(SetupError, match="'a'"):
        status(app, "a")


def test_a_registration_between_two_others_leaves_nothing_unclear(sse: SSE) -> None:
    one, other = application("one"), application("other")
    one.register_blueprint(sse)
    allow(sse, "a")
    sse.init_app(other, url_prefix=None)
    allow(sse, "b")
    other.register_blueprint(sse)
    assert (status(one, "a"), status(one, "b")) == (200, 403)
    assert (status(other, "a"), status(other, "b")) == (403, 200)


def test_a_function_can_be_an_object_that_counts_as_false(sse: SSE) -> None:
    class Rules(dict[str, bool]):
        def __call__(self, channel: str) -> bool:
            return channel not in self

    app = application("one")
    sse.authorizer(Rules())
    app.register_blueprint(sse)
    assert status(app, "a") == 200


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
