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


class OneEach:
    """Functions of one kind that an SSE was given, one for each application. A factory
    gives its function before it registers its application, or after it: the first call
    shows which.

    :param kind: what errors call such a function.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._newest: Callable[..., Any] | None = None
        self._comes_first = False
        #: The applications registered since the newest was given.
        self._since: list[weakref.ref[Flask]] = []
        self._is_tried = False

    def begin(self, app: Flask) -> None:
        """A registration begins. It can still fail.

        :raises SetupError: where the application has another function than the one
            that it would get.
        """
        self._is_tried = True
        own = _functions_of(app).get(self)
        if self._comes_first and own and own != self._newest:
            raise self._error(own, self._newest)

    def registered(self, app: Flask) -> None:
        """An application is registered: it has the newest function, until it is given
        its own."""
        if self._comes_first and not self._since:
            _functions_of(app)[self] = self._newest
        self._since.append(weakref.ref(app))
        # An application that has no function of its own has the newest: ``of_any``
        # looks for it here.
        all_of_kind = _functions_of(app).setdefault(self._kind, [])
        if self not in all_of_kind:
            all_of_kind.append(self)

    def give(self, function: Callable[..., Any]) -> None:
        """Take a function for the applications that it belongs to.

        :raises SetupError: where one of them has another function.
        """
        if self._newest is None:
            self._comes_first = not self._since
            self._keep(function)
        elif function == self._newest:
            return
        elif not self._comes_first and self._since:
            self._keep(function)
        elif (
            self._comes_first
            and self._is_tried
            and _place(function) == _place(self._newest)
        ):
            self._keep(self._newest)
        else:
            raise self._error(self._newest, function)
        self._newest = function
        self._since = []
        self._is_tried = False

    def _keep(self, function: Callable[..., Any]) -> None:
        """The applications that were registered since the last function was given
        have this one for good.

        :raises SetupError: where one of them has another already.
        """
        found = [app for reference in self._since if (app := reference())]
        for app in found:
            own = _functions_of(app).get(self)
            if own and own != function:
                raise self._error(own, function)
        for app in found:
            _functions_of(app)[self] = function

    def of(self, app: Flask) -> Callable[..., Any] | None:
        """The function that holds for an application, if any does."""
        own = _functions_of(app).get(self)
        function = own or self._newest
        if own is None and function and "<locals>" in _name(function):
            # A factory made the function, perhaps for another application alone.
            self._warn(
                app, f"was given no {self._kind} of its own, and has {_name(function)}"
            )
        elif own != self._newest and self._comes_first and not self._since:
            # Another application's factory is at work, or a replacement was meant.
            self._warn(app, f"keeps its {self._kind} {_name(own)} beside a newer one")
        return function

    def of_any(self, app: Flask) -> Callable[..., Any] | None:
        """``of``, or the function that another SSE of the application was given."""
        others: list[OneEach] = _functions_of(app).get(self._kind, [])
        for each in (self, *others):
            if function := each.of(app):
                return function
        return None

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
