"""How many streams a process has descriptors for, and which descriptors."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator

import pytest

from flask_sse_lite.system.open_files import (
    descriptors_lacking,
    first_descriptor,
    room_for_streams,
)


@pytest.fixture
def limit_descriptors() -> Iterator[Callable[[int], None]]:
    """Set the soft limit on file descriptors, for one test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("limit", [256, 1024, 2048, 4096])
@pytest.mark.parametrize("connections", [0, 1000, 100_000])
def test_all_streams_that_there_is_room_for_have_descriptors(
    limit_descriptors: Callable[[int], None], limit: int, connections: int
) -> None:
    limit_descriptors(limit)
    assert 0 < room_for_streams(connections) < limit - first_descriptor()


def test_what_select_can_hold_is_left_to_the_application(
    limit_descriptors: Callable[[int], None],
) -> None:
    limit_descriptors(4096)
    assert first_descriptor() == 1024


def test_where_there_are_few_the_application_has_half_of_them(
    limit_descriptors: Callable[[int], None],
) -> None:
    limit_descriptors(1024)
    assert first_descriptor() == 512


def test_a_server_of_many_connections_has_descriptors_for_them(
    limit_descriptors: Callable[[int], None],
) -> None:
    limit_descriptors(10_000)
    assert room_for_streams(3000) <= 7000


@pytest.mark.parametrize("limit", [256, 1024, 2048, 4096])
@pytest.mark.parametrize("connections", [1, 100, 1000])
def test_what_is_lacking_for_streams_and_server_is_known(
    limit_descriptors: Callable[[int], None], limit: int, connections: int
) -> None:
    limit_descriptors(limit)
    lacking = descriptors_lacking(connections)
    limit_descriptors(limit + lacking)
    assert descriptors_lacking(connections) == 0
    left = limit + lacking - room_for_streams(connections)
    assert left >= connections
    if lacking:
        limit_descriptors(limit + lacking - 1)
        assert descriptors_lacking(connections) == 1
