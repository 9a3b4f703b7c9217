"""The account: what a server tells a doctor of itself, and how the doctor asks.

A doctor asks by a header of its request for a stream, signed with the application's
``SECRET_KEY``. The server then serves the doctor's own channel beside those that the
client may listen to, and answers with a header that says what it saw of the request and
what it is. To a header that nobody with this key has signed, or that is old, the server
pays no attention. Here lives the form of both headers. When they are sent is unknown
here.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from itsdangerous import BadData, URLSafeSerializer

from ..channels import Channels
from ..errors import BrokerUnavailable
from ..event import Event
from ..hub import current_hub
from ..servers import gunicorn, uwsgi
from ..servers.surroundings import unfit_server
from ..system.open_files import room_for_streams
from .case import CHANNEL_PREFIX

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

#: The header of both the question and the account.
HEADER = "SSE-Doctor"
_KEY = "HTTP_SSE_DOCTOR"

#: Seconds for which a question is good: longer than a doctor's visit takes.
GOOD_FOR = 600

#: Characters of the server's hazards that are told: proxies bound the size of a head,
#: nginx to 4 kB.
MOST_HAZARDS = 1000


class Question(NamedTuple):
    """What a doctor asks for.

    ``channel`` is its own, which the stream carries beside its others. In ``noted``,
    another channel of its own, the server must count the streams; ``publishes`` says
    that the server must publish an event there before it answers: nobody else can
    where events stay in one process.
    """

    channel: str
    noted: str = ""
    publishes: bool = False


def signed(channels: Channels, question: Question) -> str | None:
    """A question as a header; None where the application has no key."""
    if not (serializer := _serializer(channels)):
        return None
    expires = int(time.time()) + GOOD_FOR
    return str(serializer.dumps([expires, *question]))


def question_of(channels: Channels, environ: WSGIEnvironment) -> Question | None:
    """The question that a request brings; None where it brings none that is good."""
    text = environ.get(_KEY)
    if not text or not (serializer := _serializer(channels)):
        return None
    try:
        expires, channel, noted, publishes = serializer.loads(text)
        # Whoever has the key could name any channel.
        names = (channel, noted or channel)
        is_ours = all(name.startswith(CHANNEL_PREFIX) for name in names)
        is_good = is_ours and time.time() < expires
    except (BadData, ValueError, TypeError, AttributeError):
        return None
    return Question(channel, noted, publishes) if is_good else None


def _serializer(channels: Channels) -> URLSafeSerializer | None:
    if not (keys := channels.secret_keys):
        return None
    return URLSafeSerializer(
        keys,
        salt=f"{channels.settings.token_salt}.doctor",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )


def publish(channels: Channels, question: Question) -> None:
    """Publish the doctor's event."""
    channels.broker.publish(question.noted, Event("doctor", type="doctor"))


def account(channels: Channels, environ: WSGIEnvironment, question: Question) -> str:
    """What this process tells of itself and of a request, as a header's text."""
    hazards = " ".join((*gunicorn.hazards(), *uwsgi.hazards()))
    told = {
        "process": os.getpid(),
        "protocol": environ.get("SERVER_PROTOCOL", ""),
        "unfit": unfit_server(),
        "query": environ.get("QUERY_STRING", "")[:200],
        "last_event_id": environ.get("HTTP_LAST_EVENT_ID", "")[:80],
        "workers": channels.processes,
        "room": room_for_streams(gunicorn.connections()),
        "most": channels.settings.max_connections,
        "hazards": hazards[:MOST_HAZARDS],
        "reasons": current_hub().stats()["reasons"],
        "heartbeat": channels.settings.heartbeat,
        "subscribers": _subscribers(channels, question.noted),
    }
    return json.dumps(told)


def _subscribers(channels: Channels, channel: str) -> int | None:
    if not channel:
        return None
    try:
        return channels.broker.subscribers(channel)
    except BrokerUnavailable:
        return None


def read(text: str | None) -> Mapping[str, Any] | None:
    """An account, read by the doctor; None for what is none."""
    try:
        told = json.loads(text or "")
    except ValueError:
        return None
    return told if isinstance(told, dict) else None
