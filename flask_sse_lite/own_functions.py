"""The functions that each application sets on an SSE which several applications share:
its authorizer, and Flask's hooks.

Here lives which application a function belongs to. What an authorizer's answer means
lives in ``permission``.

The ready-made ``sse`` stands in one module, and an application factory sets its guards
on it at each call, once for each application (tests call factories often). A function
that stands at the same place of the source as an earlier one is that function, given
again: it holds for the applications to come, and the applications that are there keep
theirs. Where nobody can tell whose a function is, the SSE refuses it. The applications
keep the functions, so that a function lives until its application is gone and another
is registered.
"""

from __future__ import annotations

import inspect
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from flask import Blueprint, Flask, current_app

from .errors import SetupError
from .log_messages import SHARED_FUNCTION

#: What every ``SetupError`` of several applications advises.
ADVICE = (
    "Several applications share this SSE. Give each its own, in its factory: "
    "sse = SSE(). Other modules can go on publishing through the ready-made sse: the "
    "channels belong to the application."
)

#: The key of ``app.extensions`` under which an application keeps its functions.
_KEY = "sse.functions"

F = TypeVar("F", bound=Callable[..., Any])


def _functions_of(app: Flask) -> dict[object, Any]:
    functions: dict[object, Any] = app.extensions.setdefault(_KEY, {})
    return functions


def _place(function: Callable[..., Any]) -> object:
    """Where a function stands in the source. The functions that a factory defines, one
    at each call, have one place. A function without source is its own place."""
    inner = inspect.unwrap(function)
    code = getattr(function, "__code__", None), getattr(inner, "__code__", None)
    return code if all(code) else function


class Hooks:
    """The hooks of one SSE, such as ``before_request``."""

    def __init__(self) -> None:
        self._hooks: dict[tuple[str, object], list[_Hook]] = {}
        #: How many hooks of each place were given since the last registration.
        self._given: Counter[tuple[str, object]] = Counter()

    def give(
        self,
        kind: str,
        function: Callable[..., Any],
        register: Callable[[Callable[..., Any]], object],
    ) -> None:
        """Take a hook for the applications to come.

        :param kind: such as ``"before_request"``.
        :param register: Flask's own way to register a hook. It is called for a hook
            whose place is new, and raises where an application has the others already.
        """
        place = (kind, _place(function))
        hooks = self._hooks.setdefault(place, [])
        if self._given[place] < len(hooks):
            hooks[self._given[place]].newest = function
        else:
            hook = _Hook(function)
            register(hook)
            hooks.append(hook)
        self._given[place] += 1

    def registered(self, app: Flask) -> None:
        """An application is registered, and gets all hooks that are there now.

        :raises SetupError: where of several hooks that stand at one place only some
            were given again, or where the application has others already.
        """
        given, self._given = self._given, Counter()
        functions = _functions_of(app)
        for place, hooks in self._hooks.items():
            is_whole = given[place] in (0, len(hooks))
            for hook in hooks:
                is_own = functions.setdefault(hook, hook.newest) == hook.newest
                if not (is_whole and is_own):
                    raise SetupError(
                        f"It cannot be told which {place[0]} hooks are meant for the "
                        f"application {app.name!r}. {ADVICE}"
                    )


class _Hook:
    """What Flask calls. It calls the current application's own function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.newest = function

    def __call__(self, *arguments: Any) -> Any:
        function = _functions_of(current_app).get(self, self.newest)
        return current_app.ensure_sync(function)(*arguments)


class SharedBlueprint(Blueprint):
    """A blueprint that several applications share, and whose hooks are each
    application's own."""

    def __init__(self, name: str, import_name: str, **options: Any) -> None:
        super().__init__(name, import_name, **options)
        self._hooks = Hooks()

    def before_request(self, f: F) -> F:
        """Have Flask call a function before each request to the routes, as for
        any blueprint. Each application has its own function: see ``authorizer``::

            @sse.before_request
            def users_only():
                if "user" not in session:
                    abort(401)
        """
        self._hooks.give("before_request", f, super().before_request)
        return f

    def after_request(self, f: F) -> F:
        """Have Flask call a function with each response of the routes, as for
        any blueprint. Each application has its own function: see ``authorizer``::

            @sse.after_request
            def mark(response):
                response.headers["X-Served-By"] = "events"
                return response
        """
        self._hooks.give("after_request", f, super().after_request)
        return f

    def teardown_request(self, f: F) -> F:
        """Have Flask call a function at the end of each request to the routes, as for
        any blueprint. Each application has its own function: see ``authorizer``::

            @sse.teardown_request
            def note(error):
                print("A request has ended:", error)
        """
        self._hooks.give("teardown_request", f, super().teardown_request)
        return f

    def _check_setup_finished(self, f_name: str) -> None:
        """Flask's own check, with more to say. (Where a Flask does not call this, it
        raises its own error.)"""
        try:
            super()._check_setup_finished(f_name)
        except AssertionError as error:
            raise SetupError(
                f"{error}\nSet it before app.register_blueprint(sse) or "
                f"sse.init_app(app). {ADVICE}"
            ) from None


class _Claim:
    """The function that an application can claim as its own, if there is one.

    :param is_sure: no other application could claim it when this one did.
    """

    def __init__(self) -> None:
        self.function: Callable[..., Any] | None = None
        self.is_sure = False


class OneEach:
    """Functions of one kind that an SSE was given, one for each application.

    A factory gives its function before it registers its application, or behind the
    registration. If no application was registered before the first function was given,
    functions are given before. Otherwise functions are given behind, or the first
    application has none. Nobody can tell these two while there are several functions,
    and none was given behind the last registration: then ``of`` refuses. The function
    that an application was once served by stays the application's.

    :param kind: what errors call such a function.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._newest: Callable[..., Any] | None = None
        #: No other function was given before the newest.
        self._is_only = True
        self._come_before = False
        #: The applications registered since the newest function was given, where
        #: functions are given behind: they wait for one.
        self._waiting: weakref.WeakSet[Flask] = weakref.WeakSet()
        #: Registrations since the newest function was given. (Those who wait can be
        #: gone.)
        self._registrations = 0
        #: A registration has begun since the newest function was given. It can have
        #: failed.
        self._is_tried = False

    def begin(self, app: Flask) -> None:
        """A registration begins. It can still fail.

        :raises SetupError: where functions are given before, and the application has
            another one than the newest.
        """
        self._is_tried = True
        own = self._own(app)
        if self._come_before and own not in (None, self._newest):
            raise self._error(own, self._newest)

    def registered(self, app: Flask) -> None:
        """An application is registered."""
        claim, newest = self._claim(app), self._newest
        if self._come_before:
            if claim.function is None:
                claim.function, claim.is_sure = newest, not self._registrations
            self._registrations += 1
        elif newest is not None and claim.is_sure and claim.function == newest:
            # It was given between two registrations of this application.
            self._serve(app, newest)
            self._is_tried = bool(self._registrations)
        elif app not in self._waiting:
            self._waiting.add(app)
            self._registrations += 1
        # ``of_any`` asks each SSE of the application.
        all_of_kind = _functions_of(app).setdefault(self._kind, [])
        if self not in all_of_kind:
            all_of_kind.append(self)

    def give(self, function: Callable[..., Any]) -> None:
        """Take a function for the applications that it belongs to.

        :raises SetupError: where one of them has another function, or where nobody can
            tell which application it belongs to.
        """
        newest = self._newest
        is_again = function == newest
        if newest is None:
            self._come_before = not self._registrations
        elif is_again and (self._come_before or not self._registrations):
            return
        elif not is_again and not self._can_follow(newest, function):
            raise self._error(newest, function)
        if not self._come_before:
            self._claim_for_waiting(function)
        self._is_only = newest is None or (is_again and self._is_only)
        self._newest = function
        self._waiting.clear()
        self._registrations = 0
        self._is_tried = False

    def _can_follow(self, one: Callable[..., Any], other: Callable[..., Any]) -> bool:
        """Whether the next application can have another function."""
        if self._come_before:
            # A factory was called again.
            return self._is_tried and _place(one) == _place(other)
        return self._registrations == 1

    def _claim_for_waiting(self, function: Callable[..., Any]) -> None:
        """The applications that wait for a function can claim this one.

        :raises SetupError: where one of them has another.
        """
        apps = [*self._waiting]
        for app in apps:
            own = self._own(app)
            if own not in (None, function):
                raise self._error(own, function)
        for app in apps:
            claim = self._claim(app)
            claim.function, claim.is_sure = function, self._registrations == 1

    def of(self, app: Flask) -> Callable[..., Any] | None:
        """The function that holds for an application, if any does.

        :raises SetupError: where nobody can tell.
        """
        if self._newest is None:
            return None
        own = self._served(app)
        if own is None:
            own = self._serve(app, self._found(app))
        if own != self._newest and self._come_before and not self._registrations:
            # Another application's factory is at work, or a replacement was meant.
            self._warn(app, f"keeps its {self._kind} {_name(own)} beside a newer one")
        return own

    def _found(self, app: Flask) -> Any:
        """The function of an application that was not served by any yet.

        :raises SetupError: where nobody can tell.
        """
        claim = self._claim(app)
        is_unclear = not self._come_before and self._is_tried
        if is_unclear and not self._is_only:
            raise SetupError(
                f"It cannot be told which {self._kind} is meant for the application "
                f"{app.name!r}: several were given, and none behind the last "
                f"registration. {ADVICE}"
            )
        function: Any = self._newest if claim.function is None else claim.function
        if (is_unclear or not claim.is_sure) and "<locals>" in _name(function):
            # A factory made the function, perhaps for another application alone.
            is_claimed = claim.function is not None and not self._come_before
            was = "was perhaps" if is_claimed else "was"
            name = _name(function)
            self._warn(app, f"{was} given no {self._kind} of its own, and has {name}")
        return function

    def of_any(self, app: Flask) -> Callable[..., Any] | None:
        """``of``, or the function that another SSE of the application was given.

        :raises SetupError: where nobody can tell.
        """
        others: list[OneEach] = _functions_of(app).get(self._kind, [])
        for each in (self, *others):
            if (function := each.of(app)) is not None:
                return function
        return None

    def _claim(self, app: Flask) -> _Claim:
        claim: _Claim = _functions_of(app).setdefault(self, _Claim())
        return claim

    def _own(self, app: Flask) -> Callable[..., Any] | None:
        """The function that an application was served by, or that it can claim."""
        served = self._served(app)
        return self._claim(app).function if served is None else served

    def _served(self, app: Flask) -> Callable[..., Any] | None:
        """The function that an application was served by, if it was."""
        served: Callable[..., Any] | None = _functions_of(app).get((self, "served"))
        return served

    def _serve(self, app: Flask, function: Callable[..., Any]) -> Callable[..., Any]:
        """Have an application served by a function for good.

        :returns: this one, or the one that another thread was faster with.
        """
        key = (self, "served")
        served: Callable[..., Any] = _functions_of(app).setdefault(key, function)
        return served

    def _warn(self, app: Flask, what: str) -> None:
        told = _functions_of(app).setdefault((self, "told"), set())
        if what not in told:
            told.add(what)
            SHARED_FUNCTION.log(app.name, what, ADVICE, application=app.name)

    def _error(self, one: Any, other: Any) -> SetupError:
        return SetupError(
            f"This SSE has the {self._kind} {_name(one)}, which {_name(other)} would "
            f"replace. {ADVICE}"
        )


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
