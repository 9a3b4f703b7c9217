"""What applications set on an SSE that they share, each for itself: its authorizer, and
Flask's hooks.

Here lives which application a function belongs to. The ready-made ``sse`` stands in one
module, and an application factory sets its guards on it at each call, as tests call it.
A function that stands at the same place of the source as one before it is that one,
given again: it holds for the applications to come, and those that are there keep
theirs. Where it cannot be told whose a function is, it is refused. The functions are
kept by their applications, so that none outlives its own for longer than to the next.
"""

from __future__ import annotations

import inspect
import logging
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

from flask import Flask, current_app

from .errors import SetupError

#: How to have what cannot be told apart told apart.
ADVICE = (
    "Several applications share this SSE. Give each its own, in its factory: "
    "sse = SSE(). Other modules may go on publishing through the ready-made sse: the "
    "channels belong to the application."
)

#: The key of ``app.extensions`` under which an application keeps its functions.
_KEY = "sse.functions"

logger = logging.getLogger("flask_sse_lite")


def _functions_of(app: Flask) -> dict[object, Any]:
    functions: dict[object, Any] = app.extensions.setdefault(_KEY, {})
    return functions


def _place(function: Callable[..., Any]) -> object:
    """Where a function stands in the source: what a factory defines at each call has
    one place. What has none in the source is its own place."""
    inner = inspect.unwrap(function)
    code = getattr(function, "__code__", None), getattr(inner, "__code__", None)
    return code if all(code) else function


class Hooks:
    """The hooks of one SSE, such as ``before_request``."""

    def __init__(self) -> None:
        self._hooks: dict[tuple[str, object], list[_Hook]] = {}
        #: How many of each were given since the last registration.
        self._given: Counter[tuple[str, object]] = Counter()

    def give(
        self,
        kind: str,
        function: Callable[..., Any],
        register: Callable[[Callable[..., Any]], object],
    ) -> None:
        """Take a hook for the applications to come.

        :param kind: such as ``"before_request"``.
        :param register: has Flask call a hook. A new one is given to it, and it raises
            where an application has the others already.
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
        """An application gets all that is there now.

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
    """What Flask calls: for each application, its own function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.newest = function

    def __call__(self, *arguments: Any) -> Any:
        function = _functions_of(current_app).get(self, self.newest)
        return current_app.ensure_sync(function)(*arguments)


class Authorizers:
    """The authorizers of one SSE. A factory gives one before it registers its
    application, or after: the first shows which."""

    def __init__(self) -> None:
        self._newest: Callable[..., Any] | None = None
        self._comes_first = False
        #: The applications registered since the newest was given.
        self._since: list[weakref.ref[Flask]] = []
        self._is_tried = False

    def begin(self, app: Flask) -> None:
        """A registration begins, which may fail.

        :raises SetupError: where the application has another than it would get.
        """
        self._is_tried = True
        own = _functions_of(app).get(self)
        if self._comes_first and own and own != self._newest:
            raise self._error(own, self._newest)

    def registered(self, app: Flask) -> None:
        """An application gets the newest, until it is given its own."""
        if self._comes_first and not self._since:
            _functions_of(app)[self] = self._newest
        self._since.append(weakref.ref(app))

    def give(self, function: Callable[..., Any]) -> None:
        """Take an authorizer for the applications that it belongs to.

        :raises SetupError: where these have another.
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
        """The applications registered since the last was given have this for good."""
        for reference in self._since:
            if app := reference():
                _functions_of(app)[self] = function

    def of(self, app: Flask) -> Callable[..., Any] | None:
        """The authorizer of an application, if there is one."""
        own = _functions_of(app).get(self)
        function = own or self._newest
        if own is None and function and "<locals>" in _name(function):
            # A factory made it, maybe for another application alone.
            self._warn(
                app, f"was given no authorizer of its own, and has {_name(function)}"
            )
        elif own != self._newest and self._comes_first and not self._since:
            # The factory of another may be at work; or a replacement was meant.
            self._warn(app, f"keeps its authorizer {_name(own)} beside a newer one")
        return function

    def _warn(self, app: Flask, what: str) -> None:
        told = _functions_of(app).setdefault((self, "told"), set())
        if what not in told:
            told.add(what)
            logger.warning("The application %r %s. %s", app.name, what, ADVICE)

    def _error(self, one: Any, other: Any) -> SetupError:
        return SetupError(
            f"This SSE has the authorizer {_name(one)}, which {_name(other)} would "
            f"replace. {ADVICE}"
        )


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)
