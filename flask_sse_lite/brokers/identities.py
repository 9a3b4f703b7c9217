"""Identities: the form in which stores keep them, both ways.

An identity is any text. It stands in a store as JSON in ASCII: a text can have lone
surrogates, which neither UTF-8 nor SQLite has, and characters that a store's own
grammar uses. What another program has written there instead is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping


def identity_written(identity: str) -> str:
    return json.dumps(identity)


def identity_read(text: object) -> str | None:
    """An identity; None for what is none."""
    found = _loaded(text)
    # What is written in another way could not be found again to be changed.
    if isinstance(found, str) and found and _plain(text) == identity_written(found):
        return found
    return None


def counts_written(counts: Mapping[str, int]) -> str:
    """The identities of a channel, with the numbers of their streams."""
    return json.dumps(counts, separators=(",", ":"))


def counts_read(text: object) -> dict[str, int]:
    found = _loaded(text)
    if not isinstance(found, dict):
        return {}
    return {who: count for who, count in found.items() if _is_number(count)}


def _loaded(text: object) -> object:
    try:
        return json.loads(_plain(text))
    except (ValueError, RecursionError):
        return None


def _plain(text: object) -> str:
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)


def _is_number(count: object) -> bool:
    return isinstance(count, int) and not isinstance(count, bool) and count > 0
