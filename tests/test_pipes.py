"""A look into a pipe takes nothing out of it, and never waits."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from flask_sse_lite.system.pipes import PEEK_BYTES, peek


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def test_what_is_seen_stays(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    os.write(write_end, b"\x0f\x01")
    assert peek(read_end) == b"\x0f\x01"
    assert peek(read_end) == b"\x0f\x01"
    assert os.read(read_end, 10) == b"\x0f\x01"


def test_an_empty_pipe_is_not_waited_for(pipe: tuple[int, int]) -> None:
    assert peek(pipe[0]) == b""


def test_of_much_the_beginning_is_seen(pipe: tuple[int, int]) -> None:
    read_end, write_end = pipe
    os.write(write_end, b"a" * PEEK_BYTES * 2)
    assert peek(read_end) == b"a" * PEEK_BYTES
    assert len(os.read(read_end, PEEK_BYTES * 3)) == PEEK_BYTES * 2


def test_what_is_no_pipe_shows_nothing(tmp_path: os.PathLike[str]) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert peek(descriptor) == b""
    os.close(descriptor)
    assert peek(descriptor) == b""
