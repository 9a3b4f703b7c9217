"""Tokens: a signed text that lets whoever brings it listen to some channels for a time.

Here lives how a token is made, where a request can bring one, and why one is refused.
Clients that have no cookie of the application's bring tokens: native applications, and
pages of other origins. What else lets a client in lives in ``permission``.

A token is signed with the application's ``SECRET_KEY`` (and checked with
``SECRET_KEY_FALLBACKS``, too), but it is no secret: whoever has it can read the names
of its channels. The extension writes no token into a log.
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, NamedTuple

from flask import request
from itsdangerous import BadData, URLSafeSerializer

from .application import current_channels
from .client_faults import query
from .errors import InvalidValue
from .settings import TOKEN_PARAMETER

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: What every token begins with. Whatever else stands in an ``Authorization: Bearer`` is
#: the application's own, and is left to its authorizer.
PREFIX = "sse1."

#: Seconds that a token is good for, where its maker says nothing: long enough for a
#: client to connect and to reconnect after a deploy, and too short for a leaked token
#: to be worth much.
DEFAULT_MAX_AGE = 300


class Refused(Exception):
    """A token lets nobody in. Its text says why, for the developer."""


class Brought(NamedTuple):
    """A token that a request has brought.

    ``is_chosen`` says that the client has sent it for this very request, as a header or
    in the query. A cookie comes along with every request, and can be of long ago.
    """

    text: str
    is_chosen: bool


class Grant(NamedTuple):
    """What a token says: who brings it, and the channels that it is for."""

    identity: str | None
    channels: tuple[str, ...]


def sign(channels: tuple[str, ...], max_age: float, identity: str | None) -> str:
    """A token for some channels of the application.

    :param max_age: seconds that the token lets clients connect. A stream that has begun
        goes on.
    :param identity: who brings the token; None where it is not said.
    :raises InvalidValue: where the application has no ``SECRET_KEY``.
    """
    if not (serializer := _serializer()):
        raise InvalidValue(
            "A token is signed with the application's SECRET_KEY, and there is none: "
            'set app.config["SECRET_KEY"]'
        )
    # Whole seconds, rounded up: a token lives no shorter than it was asked to.
    expires = int(time.time() + max_age) + 1
    return PREFIX + str(serializer.dumps([expires, identity, *channels]))


def brought() -> list[Brought]:
    """The tokens that the current request has brought. One in a header goes before one
    in the query, and either before cookies: with it, cookies do not count."""
    settings, environ = current_channels().settings, request.environ
    if _is_ours(header := _bearer(environ)):
        return [Brought(header, is_chosen=True)]
    asked = query().get(TOKEN_PARAMETER, "") if settings.token_in_query else ""
    if asked:
        return [Brought(asked, is_chosen=True)]
    if "HTTP_COOKIE" not in environ:
        return []
    # A browser can have several of one name, for several paths.
    cookies = request.cookies.getlist(settings.token_cookie)
    return [Brought(cookie, is_chosen=False) for cookie in cookies if cookie]


def _bearer(environ: WSGIEnvironment) -> str:
    """The token in the current request's header ``Authorization: Bearer``; empty where
    there is none."""
    if "HTTP_AUTHORIZATION" not in environ:
        return ""
    authorization = request.authorization
    if authorization is None or authorization.type != "bearer":
        return ""
    return authorization.token or ""


def grant_of(token: str) -> Grant:
    """What a token is for.

    :raises Refused: where the token is expired, or nobody with this application's key
        and salt has signed it.
    """
    if not _is_ours(token):
        raise Refused(f"the token does not begin with {PREFIX!r}")
    if not (serializer := _serializer()):
        raise Refused("tokens are signed with SECRET_KEY, and there is none")
    try:
        expires, identity, *channels = serializer.loads(token.removeprefix(PREFIX))
    except BadData:
        raise Refused(
            "the token was altered, or signed with another SECRET_KEY or SSE_TOKEN_SALT"
        ) from None
    late = time.time() - expires
    if late >= 0:
        raise Refused(f"the token has expired {late:.0f} s ago")
    return Grant(identity, tuple(channels))


def _is_ours(text: str) -> bool:
    return text.startswith(PREFIX)


def _serializer() -> URLSafeSerializer | None:
    """What signs and checks tokens; None where the application has no key."""
    channels = current_channels()
    if not (keys := channels.secret_keys):
        return None
    return URLSafeSerializer(
        keys,
        salt=channels.settings.token_salt,
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )
