"""The settings: which values each can have, and what holds where it is not set.

Here live the ``SSE_…`` keys, each with its check. Every limit that can be set stands
here. A limit that cannot be set is a constant beside its only user.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from .errors import InvalidValue
from .event import RESERVED_CHANNEL_PREFIX, check_channel
from .history.retention import HISTORY_BYTES, RUNS_BYTES

#: What all keys begin with.
PREFIX = "SSE_"

#: What every store, clock and browser can count up to: ``MOST`` bytes, events or
#: milliseconds, and ``LONGEST`` seconds (some thirty years).
MOST = 2**53
LONGEST = 10**9

#: Heartbeats without progress after which the hub cuts a client, where
#: ``SSE_MAX_STALL`` is not set. After a client vanishes, the next heartbeat is sent
#: within one. The hub sees within one more that nobody takes it, and counts from when
#: it was sent: less than four pass in all, over TCP and with heartbeats of a second or
#: more.
STALLED_HEARTBEATS = 2.25

#: Seconds that a client has in any case. TCP sends a lost packet again after 0.2 to
#: 1 s, and a second packet that is lost proves nothing.
SHORTEST_STALL = 2.0

#: Seconds beyond the longest ``SSE_RETRY`` (it is spread by a fifth) in which a client
#: comes back that was cut, or that loads its page anew on a slow phone.
RETURNING = 5.0

#: The query's parameter that brings a token, where ``SSE_TOKEN_IN_QUERY`` is on.
TOKEN_PARAMETER = "token"


def _whole(least: int) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if is_whole and least <= value <= MOST:
            return None
        return f"a whole number from {least} up"

    return check


def not_seconds(value: Any) -> str | None:
    """What a value must be, where it is no number of seconds; None where it is one."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if is_number and 0 < value <= LONGEST:
        return None
    return f"a number of seconds above 0, and {LONGEST} at most"


def _seconds_or_none(value: Any) -> str | None:
    if value is None or not_seconds(value) is None:
        return None
    return f"None, or {not_seconds(0)}"


def _url(value: Any) -> str | None:
    return None if isinstance(value, str) and value else 'a URL such as "memory://"'


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "a text that is not empty"


def _handoff(value: Any) -> str | None:
    is_one = value == "auto" or value is True or value is False
    return None if is_one else '"auto", True or False'


def _flag(value: Any) -> str | None:
    return None if isinstance(value, bool) else "True or False"


def _channels(value: Any) -> str | None:
    problem = 'a list of channels, each a name or ending in "*"'
    if isinstance(value, str) or not isinstance(value, (list, tuple, set, frozenset)):
        return problem
    try:
        for name in value:
            check_channel(name)
    except InvalidValue as error:
        return f"{problem} ({error})"
    return None


def is_listed(channel: str, listed: Collection[str]) -> bool:
    """Whether a channel stands in a list of a setting, by its name or by its beginning
    (``"room.*"``)."""
    return any(
        channel.startswith(name[:-1]) if name.endswith("*") else channel == name
        for name in listed
    )


def _setting(default: Any, check: Callable[[Any], str | None]) -> Any:
    return field(metadata={"check": check, "default": default})


@dataclass(frozen=True, slots=True)
class Settings:
    """One application's configuration, checked. docs/configuration.rst says what each
    setting means."""

    url: str = _setting("memory://", _url)
    history: int = _setting(256, _whole(1))
    history_age: float = _setting(300, not_seconds)
    history_bytes: int = _setting(HISTORY_BYTES, _whole(1))
    max_event_bytes: int = _setting(1024 * 1024, _whole(1))
    broker_timeout: float = _setting(5, not_seconds)
    run_bytes: int = _setting(1024 * 1024, _whole(1))
    runs_bytes: int = _setting(RUNS_BYTES, _whole(1))
    max_runs: int | None = _setting(None, _whole(1))
    replay: int = _setting(0, _whole(0))
    heartbeat: float = _setting(15, not_seconds)
    retry: int = _setting(3000, _whole(0))
    max_connections: int | None = _setting(None, _whole(1))
    max_per_client: int | None = _setting(None, _whole(1))
    max_channels: int = _setting(100_000, _whole(1))
    max_age: float | None = _setting(None, _seconds_or_none)
    max_stall: float | None = _setting(None, _seconds_or_none)
    handoff: bool | str = _setting("auto", _handoff)
    access_log: bool = _setting(False, _flag)
    public_channels: tuple[str, ...] = _setting(("sse",), _channels)
    presence: tuple[str, ...] = _setting((), _channels)
    inspector: bool = _setting(False, _flag)
    same_site_runs: bool = _setting(False, _flag)
    token_in_query: bool = _setting(False, _flag)
    token_cookie: str = _setting("sse_token", _text)
    token_salt: str = _setting("flask_sse_lite", _text)
    #: Whether the URL stands under Flask-SSE's key.
    is_flask_sse: bool = False
    #: Whether these are a ``Publisher``'s settings: the application says what its store
    #: keeps, and a publisher must not change it.
    is_guest: bool = False

    @property
    def url_key(self) -> str:
        """The key that the URL stands under; for a ``Publisher``, what errors call the
        URL."""
        if self.is_guest:
            return "The Publisher's URL"
        return "SSE_REDIS_URL" if self.is_flask_sse else "SSE_URL"

    @property
    def stall(self) -> float:
        """Seconds after which the hub cuts a client that takes nothing."""
        if self.max_stall is not None:
            return self.max_stall
        return max(STALLED_HEARTBEATS * self.heartbeat, SHORTEST_STALL)

    @property
    def leave_after(self) -> float:
        """Seconds without a stream after which a client does not come back."""
        return 1.2 * self.retry / 1000 + RETURNING

    def tells_presence(self, channel: str) -> bool:
        """Whether it is told in a channel who comes and leaves. (The extension's own
        channels belong to one reader each, or to nobody.)"""
        is_own = channel.startswith(RESERVED_CHANNEL_PREFIX)
        return not is_own and is_listed(channel, self.presence)

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Settings:
        """Read an application's ``SSE_…`` keys.

        :raises InvalidValue: naming the key, its value and what it can be.
        """
        values = {
            setting.name: _read_key(
                config,
                f"{PREFIX}{setting.name.upper()}",
                setting.metadata["default"],
                setting.metadata["check"],
            )
            for setting in fields(cls)
            if setting.metadata
        }
        if config.get("SSE_URL") is None and config.get("SSE_REDIS_URL"):
            # As Flask-SSE calls it.
            values["is_flask_sse"] = True
            values["url"] = _read_key(config, "SSE_REDIS_URL", "", _url)
        for name in ("public_channels", "presence"):
            values[name] = tuple(values[name])
        # A larger event could not be kept.
        values["max_event_bytes"] = min(
            values["max_event_bytes"], values["history_bytes"]
        )
        return cls(**values)

    @classmethod
    def of_guest(
        cls, url: str, timeout: float, max_event_bytes: int | None = None
    ) -> Settings:
        """The settings of a ``Publisher``, which has no application.

        :raises InvalidValue: for what is no URL, no number of seconds, or no number of
            bytes.
        """
        if _url(url):
            raise InvalidValue("A Publisher's URL is text, such as redis://localhost")
        if problem := not_seconds(timeout):
            raise InvalidValue(f"A Publisher's timeout is {problem}, not {timeout!r}")
        if max_event_bytes is not None and (problem := _whole(1)(max_event_bytes)):
            raise InvalidValue(
                f"A Publisher's max_event_bytes is {problem}, not {max_event_bytes!r}"
            )
        settings = cls.read({"SSE_MAX_EVENT_BYTES": max_event_bytes})
        return replace(settings, url=url, broker_timeout=timeout, is_guest=True)

    @classmethod
    def misspelt(cls, config: Mapping[str, Any]) -> dict[str, str | None]:
        """The ``SSE_…`` keys of a configuration that nobody reads, each with the key
        that it resembles, if there is one."""
        known = [f"{PREFIX}{s.name.upper()}" for s in fields(cls) if s.metadata]
        known.append("SSE_REDIS_URL")
        unknown = [
            key
            for key in config
            if isinstance(key, str) and key.startswith(PREFIX) and key not in known
        ]
        found: dict[str, str | None] = {}
        for key in unknown:
            found[key] = next(iter(get_close_matches(key, known, 1)), None)
        return found


def _read_key(
    config: Mapping[str, Any], key: str, default: Any, check: Callable[[Any], Any]
) -> Any:
    value = config.get(key)
    if value is None:
        return default
    if problem := check(value):
        shown = "(not shown)" if key.endswith("URL") else repr(value)
        hint = _hint(key, value, default)
        raise InvalidValue(f"The configuration's {key} is {problem}{hint}, not {shown}")
    return value


def _hint(key: str, value: Any, default: Any) -> str:
    """How to write a value in the environment, for a value that seems to come from
    there: Flask reads it as JSON, and takes what is no JSON for text."""
    if not isinstance(value, str) or key.endswith("URL"):
        return ""
    if isinstance(default, tuple):
        names = [name for part in value.split(",") if (name := part.strip(" []'\""))]
        written = f"'{json.dumps(names or list(default), ensure_ascii=False)}'"
    else:
        written = {"none": "null", "true": "true", "false": "false"}.get(
            value.strip().lower(), json.dumps(default)
        )
    return f" (in the environment, as JSON: FLASK_{key}={written})"
