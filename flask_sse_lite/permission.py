"""May this client listen? One answer for every way in.

Here lives every rule of who gets which channels: what strangers get, what an authorizer
says, what a token is good for (tokens.py makes and reads it), what a view of the
application's own has decided, and who may read a run. Each way in asks here for a
``Permit``, and ``views`` begins no stream without one. What a permit is good for, and
where a stream begins, is unknown here.

A new way in, or a new rule, is a function of this module and its caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from ipaddress import ip_address
from typing import NamedTuple, NoReturn
from urllib.parse import urlsplit

from flask import abort, current_app, request
from werkzeug.wrappers import Response

from . import tokens
from .application import current_channels
from .arguments import checked_identity
from .channels import DEFAULT_CHANNEL
from .client_faults import require
from .errors import InvalidType
from .event import RESERVED_CHANNEL_PREFIX
from .names import Name
from .settings import is_listed
from .signals import RefusalReason

#: What an authorizer says of a channel: True (yes), False or None (403), or a response
#: that is sent instead.
AuthorizerAnswer = bool | Response | None

#: What ``@sse.authorizer`` takes: a function of a channel's name.
Authorizer = Callable[[str], AuthorizerAnswer]

#: What ``@sse.identity`` takes: a function of nothing, which says who the current
#: request's client is; None for nobody in particular.
Identify = Callable[[], Name | None]

logger = logging.getLogger("flask_sse_lite")


#: What ``@sse.inspector_guard`` takes: a function of nothing, which says whether the
#: current request's client can use the inspector, as an authorizer says it.
Guard = Callable[[], AuthorizerAnswer]

#: What a client is told where nobody says who can use the inspector.
UNGUARDED = """\
The inspector is on (SSE_INSPECTOR), and nobody says who can use it. Write:

    @sse.inspector_guard
    def can_inspect():
        return current_user.is_authenticated and current_user.is_admin

It returns True (yes), False or None (403), or a response that is sent instead. In
Flask's debug mode, the inspector needs no guard at localhost or at an IP address.
"""


class Permit(NamedTuple):
    """The channels that the current request's client may listen to, and who the client
    is, as far as the application has said it."""

    channels: tuple[str, ...]
    identity: str | None = None


# The ways in


def for_query(
    names: tuple[str, ...],
    authorize: Authorizer | None,
    identify: Identify | None = None,
) -> Permit | Response:
    """The client names the channels, in the query of the blueprint's view, or names
    none. A token that is good for them lets the client in; otherwise the authorizer
    decides, or ``SSE_PUBLIC_CHANNELS``. A token that the client has sent for this very
    request must be good for them.

    :param names: none stands for all channels of a token that the client has sent for
        this very request, and otherwise for the default one.
    :param authorize: the application's authorizer, which runs in the request.
    :param identify: the application's function that says who the client is, where no
        token says it.
    :returns: a permit for all of the channels, or the authorizer's response.
    :raises Forbidden: where the client must not have one of them.
    :raises InvalidType: for what an authorizer cannot return.
    """
    wanted, names = names, names or (DEFAULT_CHANNEL,)
    for token in tokens.brought():
        # A cookie allows, and chooses nothing: pages do not know that it comes along.
        if permit := _for_token(token, wanted if token.is_chosen else names):
            if permit.identity is None:
                return permit._replace(identity=identity_by(identify))
            return permit
    if any(name.startswith(RESERVED_CHANNEL_PREFIX) for name in names):
        _forbid(
            f"channels that begin with {RESERVED_CHANNEL_PREFIX!r} are closed",
            "reserved",
            names,
        )
    if authorize is None:
        _check_public(names)
        return Permit(names, identity_by(identify))
    for name in names:
        answer = authorize(name)
        if isinstance(answer, Response):
            current_channels().tell_refused("authorizer", names)
            return answer
        if answer is False or answer is None:
            _forbid(f"the authorizer refuses the channel {name!r}", "authorizer", names)
        if answer is not True:
            raise InvalidType(
                "An authorizer returns True, False, None or a response; for the "
                f"channel {name!r} it returned {answer!r}"
            )
    return Permit(names, identity_by(identify))


def for_own_view(names: tuple[str, ...], identity: str | None = None) -> Permit:
    """A view of the application's own names the channels: it has decided, and neither
    an authorizer nor ``SSE_PUBLIC_CHANNELS`` is asked."""
    return Permit(names, identity)


def for_run(channel: str, identity: str | None = None) -> Permit:
    """The client names the channel of a run, or begins the run. Who knows the name may
    listen: it cannot be guessed, and only the run's own readers are told of it."""
    return Permit((channel,), identity)


def for_inspector(
    names: tuple[str, ...], guard: Guard | None, identify: Identify | None
) -> Permit | Response:
    """The inspector's page asks for what workers tell, or for a channel: whoever can
    inspect can listen to every channel. The stream belongs to the client's identity, so
    that ``disconnect`` ends it, and the guard is asked again."""
    return to_inspect(guard) or Permit(names, identity_by(identify))


def to_inspect(guard: Guard | None) -> Response | None:
    """Whether the current request's client can use the inspector.

    :param guard: the application's ``inspector_guard``, if it has one.
    :returns: None where the client can; otherwise what it is answered.
    :raises NotFound: where the inspector is off.
    :raises Forbidden: where the guard refuses.
    :raises InvalidType: for what a guard cannot return.
    """
    if not current_channels().settings.inspector:
        abort(404)
    if guard is None:
        if current_app.debug and _is_asked_by_address():
            return None
        return Response(UNGUARDED, 403, mimetype="text/plain")
    answer = guard()
    if isinstance(answer, Response):
        return answer
    if answer is False or answer is None:
        abort(403)
    if answer is not True:
        raise InvalidType(
            "An inspector_guard returns True, False, None or a response; it returned "
            f"{answer!r}"
        )
    return None


def may_begin_run(permit: Permit) -> None:
    """A run costs the application something, and the page of another site can have its
    visitors' browsers ask for one. Where ``SSE_SAME_SITE_RUNS`` is on, such a request
    begins none. A run that goes on can be read all the same, by whoever knows it.

    :raises Forbidden: for a request that another site's page has caused.
    """
    if current_channels().settings.same_site_runs and _is_of_another_site():
        _forbid(
            "another site's page asks for a run, and SSE_SAME_SITE_RUNS is on",
            "cross-site",
            permit.channels,
        )


def identity_by(identify: Identify | None) -> str | None:
    """Who the current request's client is, as the application's function says it.

    :raises InvalidValue: for what cannot be an identity. Where the client has chosen
        it, Flask answers 400.
    """
    return None if identify is None else require(checked_identity, identify())


# The rules


def is_public(channel: str, listed: Collection[str]) -> bool:
    """Whether a channel stands in ``SSE_PUBLIC_CHANNELS``."""
    return is_listed(channel, listed)


def _for_token(token: tokens.Brought, names: tuple[str, ...]) -> Permit | None:
    """A token decides, if it can.

    :param names: none stands for all channels of the token.
    :raises Forbidden: where the client relies on a token that does not let it in.
    """
    try:
        granted = tokens.grant_of(token.text)
        if others := [name for name in names if name not in granted.channels]:
            raise tokens.Refused(f"the token is not for {', '.join(map(repr, others))}")
    except tokens.Refused as refusal:
        if token.is_chosen:
            _forbid(str(refusal), "token", names)
        logger.debug("The cookie's token lets nobody in: %s", refusal)
        return None
    return Permit(names or granted.channels, granted.identity)


def _check_public(names: tuple[str, ...]) -> None:
    """Where no authorizer decides, refuse a stranger what is not listed as public.

    :raises Forbidden: for such a channel.
    """
    if refusal := _refusal_of_strangers(names):
        current_channels().advice.on_refusal(names)
        _forbid(refusal, "not-public", names)


def _refusal_of_strangers(names: tuple[str, ...]) -> str | None:
    """Why these channels are refused to a stranger; None where they are not."""
    listed = current_channels().settings.public_channels
    if len(names) == 1:
        if is_public(names[0], listed):
            return None
        return (
            f"the channel {names[0]!r} is not listed in SSE_PUBLIC_CHANNELS, and there "
            "is no authorizer (@sse.authorizer)"
        )
    # Guards that were written for one channel look at the first of several.
    unlisted = [name for name in names if name not in listed]
    if not unlisted:
        return None
    return (
        "several channels in one request need an authorizer (@sse.authorizer), or each "
        f"of them by its full name in SSE_PUBLIC_CHANNELS; not there: {unlisted}"
    )


def _is_of_another_site() -> bool:
    """Whether the page of another site has caused the request. Browsers say so in
    ``Sec-Fetch-Site`` (W3C Fetch Metadata), which no page can change. A browser that
    does not know this header says in ``Origin`` where a POST comes from. Programs say
    neither: nobody can make them ask against their user's will.
    """
    if site := request.headers.get("Sec-Fetch-Site"):
        return site == "cross-site"
    origin = request.headers.get("Origin")
    return origin is not None and not is_of_this_host(origin)


def is_of_this_host(origin: str) -> bool:
    """Whether an ``Origin`` names the host of the current request. (The scheme is not
    compared: behind a proxy that speaks TLS, Flask can know another.)"""
    try:
        theirs, ours = urlsplit(origin), urlsplit(f"//{request.host}")
        default = {"http": 80, "https": 443}.get(theirs.scheme)
        ports = theirs.port or default, ours.port or default
    except ValueError:
        return False  # It is no origin.
    is_same = theirs.hostname == ours.hostname and ports[0] == ports[1]
    return bool(theirs.hostname) and is_same


def _is_asked_by_address() -> bool:
    """Whether the request asks for localhost or for an IP address. Any site can have
    its own name lead to this machine (DNS rebinding): a browser then takes that site's
    pages and our answers for one origin."""
    try:
        host = urlsplit(f"//{request.host}").hostname or ""
        if host == "localhost" or host.endswith(".localhost"):
            return True
        ip_address(host)
    except ValueError:
        return False
    return True


# What a refusal tells


def _forbid(reason: str, code: RefusalReason, names: tuple[str, ...]) -> NoReturn:
    """Answer 403. The reason is for the developer: a client could learn from it which
    channels there are.

    :param code: the reason, for receivers of the signal ``refused``.
    :param names: what the client has asked for.
    """
    current_channels().tell_refused(code, names)
    logger.debug("A client got 403: %s", reason, extra={"sse_reason": code})
    abort(403, f"Not served: {reason}." if current_app.debug else None)
