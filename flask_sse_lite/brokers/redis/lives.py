"""Lives: how a process recognizes the life of a Redis server.

A server that was started again, or took over from another, can have lost what it
acknowledged: see scripts. It is then in another life. The server's run id names a life.
Not every user can ask for the run id, and not every service has one: a mark in the
server's memory then stands for it. Where no mark is possible either, the operator is
warned. Here too a process asks which keys the server deletes when it is full
(``maxmemory-policy``). Nothing here reads or writes events.
"""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
from contextlib import suppress

from redis.exceptions import ResponseError

from ...log_messages import (
    REDIS_KEEPS_SCRIPTS,
    REDIS_LIFE_UNTOLD,
    REDIS_POLICY,
    Message,
)
from .links import Link

#: The first release of Redis that keeps scripts in memory alone: they are in no
#: snapshot, and in no replica. In an older one, a mark can outlive lost events.
FORGETS_SCRIPTS = 7

#: The policy by which a full Redis refuses commands and deletes nothing.
RIGHT_POLICY = "noeviction"

logger = logging.getLogger("flask_sse_lite")


class Lives:
    """What one process knows of its server's life, and has warned of. Thread-safe.

    :param name: what logs call the server.
    :param store: the key of the hash that holds the mark.
    """

    def __init__(self, name: str, store: str) -> None:
        self._name = name
        self._store = store
        #: Whether the server was asked what it deletes when it is full.
        self._is_policy_known = False
        self._told: set[str] = set()

    def recognize(self, link: Link) -> None:
        """Note in a link the life of the server that it speaks to, in the form that the
        scripts take."""
        link.life = self._own_name(link) or self._mark(link)

    def _own_name(self, link: Link) -> str:
        is_first = not self._is_policy_known
        try:
            told = link.call("INFO") if is_first else link.call("INFO", "server")
        except ResponseError:
            told = b""
        if is_first:
            self._is_policy_known = True
            self._judge(_found(rb"maxmemory_policy:([\w-]+)", told), link)
        return _found(rb"run_id:(\w+)", told)

    def _judge(self, policy: str, link: Link) -> None:
        try:
            if not policy:
                _, found = link.call("CONFIG", "GET", "maxmemory-policy")
                policy = found.decode()
        except (ResponseError, ValueError, TypeError, AttributeError):
            logger.debug("%s does not say its maxmemory-policy", self._name)
            return
        if policy != RIGHT_POLICY:
            REDIS_POLICY.log(self._name, policy, RIGHT_POLICY, policy=policy)

    def _mark(self, link: Link) -> str:
        """``mark:`` and the mark, which is the name of a script; then the mark that it
        replaces. Empty where the server takes none."""
        try:
            mark = (link.call("HGET", self._store, "mark") or b"").decode()
            if mark and link.call("SCRIPT", "EXISTS", mark) == [1]:
                return f"mark:{mark} {mark}"
            script = f"return '{secrets.token_hex(16)}'"
            own = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
            link.call("SCRIPT", "LOAD", script)
        except (ResponseError, UnicodeDecodeError) as error:
            self._tell(REDIS_LIFE_UNTOLD, self._name, error)
            return ""
        if self._release(link) < FORGETS_SCRIPTS:
            self._tell(REDIS_KEEPS_SCRIPTS, self._name, FORGETS_SCRIPTS)
        return f"mark:{own} {mark}"

    def _release(self, link: Link) -> int:
        """The server's release; 0 where it does not say it."""
        try:
            words = link.call("HELLO")
            told = dict(zip(words[::2], words[1::2], strict=True))
            return int(told[b"version"].partition(b".")[0])
        except (ResponseError, ValueError, TypeError, KeyError, AttributeError):
            return 0

    def _tell(self, message: Message, *words: object) -> None:
        """Warn the operator, once."""
        if message.code not in self._told:
            self._told.add(message.code)
            message.log(*words)


def told(link: Link) -> dict[str, str]:
    """What a server tells of itself: its ``INFO``, and how it takes snapshots
    (``save``). What it does not tell is missing."""
    found: dict[str, str] = {}
    with suppress(ResponseError, UnicodeDecodeError, AttributeError):
        lines = link.call("INFO").decode().splitlines()
        found |= dict(line.split(":", 1) for line in lines if ":" in line)
    for name in ("save", "maxmemory-policy"):
        with suppress(ResponseError, ValueError, TypeError, AttributeError):
            _, value = link.call("CONFIG", "GET", name)
            found.setdefault(name.replace("-", "_"), value.decode())
    return found


def _found(pattern: bytes, text: object) -> str:
    match = re.search(pattern, text) if isinstance(text, bytes) else None
    return match[1].decode() if match else ""
