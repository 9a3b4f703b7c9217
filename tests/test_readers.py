"""Readers of the same channels tell the hub once that there are news."""

from __future__ import annotations

import pytest

from flask_sse_lite.history.log import Log
from flask_sse_lite.hub.readers import Audience, Readers

from .hub_parts import Stream


@pytest.fixture
def log() -> Log:
    return Log(history=9, age=99)


def test_the_hub_is_told_once_until_it_has_read(log: Log) -> None:
    told: list[Readers] = []
    readers = Readers(log, ("a",), told.append)
    assert readers.has_news is False
    for _ in range(2):
        readers.tell()
    assert readers.has_news is True
    assert told == [readers]
    readers.has_news = False
    readers.tell()
    assert told == [readers, readers]


def test_an_audience_listens_to_what_its_first_stream_does(log: Log) -> None:
    told: list[Readers] = []
    audience = Audience(Stream(log, "a", "b"), told.append)
    assert (audience.log, audience.channels) == (log, ("a", "b"))
    assert audience.members == set()
    audience.tell()
    assert told == [audience]
