"""Where the routes of an SSE lie in an application.

Here lives what ``init_app`` and ``register_blueprint`` must know of each other: which
routes an application has, and what the developer must write where the two contradict
each other. What a route answers lives in ``views``.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from flask import Blueprint, Flask, url_for

from .errors import SetupError

#: Where streams are served, unless the application says otherwise.
DEFAULT_URL_PREFIX = "/stream"

#: The key of ``app.extensions`` under which an application keeps each SSE that
#: ``init_app`` has registered without being told where.
_KEY = "sse.at_default"


class Prefix(Enum):
    """What ``init_app`` takes as ``url_prefix``, beside a prefix and None."""

    DEFAULT = "the instance's own url_prefix"


def is_served(app: Flask, sse: Blueprint) -> bool:
    """Whether an application has the routes of an SSE, at whatever address."""
    return any(_owner(view) is sse for view in app.view_functions.values())


def _owner(view: object) -> Blueprint | None:
    """The blueprint whose method a view is; None for any other view."""
    owner = getattr(view, "__self__", None)
    return owner if isinstance(owner, Blueprint) else None


def _owner_at(app: Flask, address: str) -> Blueprint | None:
    """The blueprint one of whose methods an application serves at an address."""
    for rule in app.url_map.iter_rules():
        if rule.rule == address:
            return _owner(app.view_functions.get(rule.endpoint))
    return None


def check_default(app: Flask, sse: Blueprint) -> None:
    """Make sure that the default address of an SSE is free for it.

    :raises SetupError: where the routes of another SSE lie there, or have its name. The
        application would serve those, and never ask this SSE's authorizer.
    """
    other = app.blueprints.get(sse.name) or _owner_at(app, sse.url_prefix or "")
    if other and other is not sse:
        raise SetupError(
            f"The application {app.name!r} has a blueprint {other.name!r} already, and "
            f"init_app would register {sse.name!r} at {sse.url_prefix!r} beside it. "
            "All SSEs of an application share its channels. For one that needs no "
            "routes write sse.init_app(app, url_prefix=None); for one that does, give "
            'it a name and a place of its own: SSE("events", url_prefix="/events")'
        )


def note_default(app: Flask, sse: Blueprint) -> None:
    """Remember that ``init_app`` has registered an SSE at its default address."""
    app.extensions.setdefault(_KEY, []).append(sse)


def is_repeated(app: Flask, sse: Blueprint, options: dict[str, Any]) -> bool:
    """Whether a call of ``register_blueprint`` asks for no more than ``init_app`` has
    done.

    :param options: what ``register_blueprint`` was given. With a ``name`` it asks for a
        second address beside the first, as it does for any blueprint.
    :raises SetupError: where it asks for another address, so that nobody can tell
        whether the first must stay.
    """
    if not any(known is sse for known in app.extensions.get(_KEY, ())):
        return False
    if "name" in options and "name_prefix" not in options:
        return False
    if not options or options == {"url_prefix": sse.url_prefix}:
        return True
    raise SetupError(
        f"sse.init_app(app) has registered the routes of {sse.name!r} at "
        f"{sse.url_prefix!r}, and register_blueprint asks for another place. Write "
        "sse.init_app(app, url_prefix=None) and register it where it belongs, or say "
        'it at once: sse.init_app(app, url_prefix="/events")'
    )


def address(app: Flask, view: object, **values: Any) -> str | None:
    """The address at which an application serves a view; None where it does not.

    :param values: the variable parts of the address.
    """
    for endpoint, function in app.view_functions.items():
        if function == view:
            return url_for(endpoint, **values)
    return None
