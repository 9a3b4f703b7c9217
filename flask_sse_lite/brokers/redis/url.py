"""The URL: how it says where a Redis is, and how to reach it.

Here lives which of a URL's options redis-py gets, and which it does not. The options
that concern the store are read in options.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from redis.connection import Connection, parse_url
from redis.exceptions import RedisError

from ...errors import InvalidValue
from ...settings import Settings

#: Options of redis-py that a URL cannot set here: the broker sets them itself.
NOT_OURS = (
    *("protocol", "decode_responses", "encoding", "encoding_errors", "timeout"),
    *("health_check_interval", "max_connections", "retry_on_timeout"),
    *("socket_timeout", "socket_connect_timeout"),
)


def read_url(
    settings: Settings, others: Mapping[str, str]
) -> tuple[str, type, dict[str, Any]]:
    """How the Redis of a configuration is reached.

    :param others: those of the URL's options that are not the store's.
    :returns: the name of the Redis in logs, redis-py's class of connections, and the
        options of each connection.
    :raises InvalidValue: for a URL that redis-py refuses.
    """
    server = settings.url.partition("?")[0]
    try:
        url = f"{server}?{urlencode(others)}"
        found: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
        for name in NOT_OURS:
            found.pop(name, None)
        connection_class = found.pop("connection_class", Connection)
        timeout = settings.broker_timeout
        found |= {
            "protocol": 2,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
        }
        made = connection_class(**found)
    except (ValueError, TypeError, RedisError):
        # The URL is not shown, because it can contain a password.
        raise InvalidValue(
            f"{settings.url_key} is to be like redis://[[user]:password@]host[:port]"
            "[/database], rediss://… (TLS) or unix:///path, and takes the options "
            "history, age and prefix, and those of redis-py's connections"
        ) from None
    if hasattr(made, "driver_info"):
        # redis-py 7.2 and later would read their own version from the disk for each
        # connection. No timeout bounds a disk. (Over TLS, OpenSSL still reads the
        # certificates for each connection.)
        found["driver_info"] = made.driver_info
        found.pop("lib_name", None)
        found.pop("lib_version", None)
    place = found.get("path") or (
        f"{found.get('host', 'localhost')}:{found.get('port', 6379)}"
    )
    return f"Redis at {place}", connection_class, found
