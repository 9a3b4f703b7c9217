"""Which requests to the inspector come from the inspector's own page.

Here live the token that each POST must bring and the check of its origin. Who can look
at all is answered in ``permission``, before anything here is asked.

The page is given a cookie that scripts cannot read, and in itself a token that is made
of the cookie with the application's ``SECRET_KEY``. A page of another origin can send
the cookie along, but cannot read the token; and a header of one's own needs a
permission across origins that the inspector never gives.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets

from flask import Response, abort, request

from ..application import current_channels
from ..permission import is_of_this_host

COOKIE = "sse_inspector"

#: The header by which the page brings its token.
HEADER = "SSE-Inspector-Token"

#: Seconds for which the cookie is good: a working day. Then the page must be reloaded.
COOKIE_SECONDS = 12 * 60 * 60

#: Characters of a cookie that the inspector has made.
_COOKIE_LENGTH = 43


def known_cookie() -> str:
    """The cookie that the request brings, or else a new one."""
    brought = request.cookies.get(COOKIE, "")
    is_ours = len(brought) == _COOKIE_LENGTH and brought.isascii()
    return brought if is_ours else secrets.token_urlsafe(32)


def give_cookie(response: Response, cookie: str, path: str) -> None:
    """Give a page's browser the cookie of its token.

    :param path: the address below which the browser brings it.
    """
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=COOKIE_SECONDS,
        path=path,
        secure=request.is_secure,
        httponly=True,
        samesite="Strict",
    )


def token_of(cookie: str) -> str:
    """The token that belongs to a cookie. Without a ``SECRET_KEY``, it is made of the
    cookie alone."""
    key = (current_channels().secret_keys or [""])[-1]
    secret = key if isinstance(key, bytes) else str(key).encode()
    purpose = b"flask_sse_lite inspector " + cookie.encode()
    return hmac.new(secret, purpose, hashlib.sha256).hexdigest()


def check_origin_and_token() -> None:
    """Let only the inspector's own page go on.

    :raises Forbidden: for a request of another origin, and one without the token.
    """
    if not _is_of_this_origin():
        abort(
            403,
            "This request does not come from the inspector's page: its Origin is not "
            f"{request.host}. Behind a proxy, pass the Host header on.",
        )
    cookie = request.cookies.get(COOKIE, "")
    brought = request.headers.get(HEADER, "")
    wanted = token_of(cookie).encode()
    if not cookie or not hmac.compare_digest(brought.encode(), wanted):
        abort(403, "The inspector's token is missing, or old: reload the page.")


def _is_of_this_origin() -> bool:
    """Whether a request says that it comes from a page of this host."""
    if request.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
        return False
    return is_of_this_host(request.headers.get("Origin", ""))
