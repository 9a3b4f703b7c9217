"""Positions: what is written can be read, and nothing else is a position."""

from __future__ import annotations

import pytest

from flask_sse_lite.position import (
    BEGINNING,
    HIDDEN,
    RUN_PREFIX,
    UNKNOWN_EPOCH,
    Position,
    is_position,
    new_epoch,
    new_run_channel,
    parse_position,
    position_id,
    run_channel,
    without_run_names,
)

EPOCH = "0123456789abcdef"
NAME = "Ab_-" * 5 + "yz"
RUN = RUN_PREFIX + NAME

NO_POSITIONS = [
    "",
    "7",
    f"{EPOCH}",
    f"{EPOCH}-",
    f"{EPOCH}-07",
    f"{EPOCH}--7",
    f"{EPOCH}-{'9' * 20}",
    f"{EPOCH.upper()}-7",
    f"{EPOCH}0-7",
    f"{EPOCH[1:]}-7",
    f"{EPOCH}-7-",
    f"{EPOCH}-7-{NAME[1:]}",
    f"{EPOCH}-7-{NAME}a",
    f"{EPOCH}-7\n",
    f"{EPOCH}-\u0667",  # A digit to Python, but not here.
]


@pytest.mark.parametrize("sequence", [BEGINNING, 1, 7, 10, 2**63 - 1])
@pytest.mark.parametrize(("channel", "run"), [("", None), ("news", None), (RUN, NAME)])
def test_what_is_written_is_read(sequence: int, channel: str, run: str | None) -> None:
    id = position_id(EPOCH, sequence, channel)
    assert is_position(id)
    assert parse_position(id) == Position(EPOCH, sequence, run)
    assert run_channel(id) == (channel if run else None)


@pytest.mark.parametrize("id", NO_POSITIONS)
def test_nothing_else_is_a_position(id: str) -> None:
    assert not is_position(id)
    assert parse_position(id) is None
    assert run_channel(id) is None


def test_an_event_without_an_id_has_no_position() -> None:
    assert not is_position(None)


def test_blanks_around_what_a_client_sends_do_not_count() -> None:
    id = position_id(EPOCH, 7, RUN)
    assert parse_position(f" \t{id}\t ") == Position(EPOCH, 7, NAME)
    assert run_channel(f" {id}") == RUN
    assert not is_position(f" {id}")


def test_each_life_has_an_epoch_of_its_own() -> None:
    epochs = {new_epoch() for _ in range(100)}
    assert len(epochs) == 100
    assert all(is_position(position_id(epoch, 1, "")) for epoch in epochs)
    assert not is_position(position_id(UNKNOWN_EPOCH, 1, ""))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (RUN, RUN_PREFIX + HIDDEN),
        (f"/stream/run/{NAME}?a=b", f"/stream/run/{HIDDEN}?a=b"),
        (f"?id={position_id(EPOCH, 7, RUN)} ", f"?id={EPOCH}-7-{HIDDEN} "),
        (f"?id={EPOCH}%2d7%2D{NAME}", f"?id={EPOCH}%2d7%2D{HIDDEN}"),
        (f"?channel=%24run.{NAME}&x", f"?channel=%24run.{HIDDEN}&x"),
        (f"/run%2f{NAME}", f"/run%2f{HIDDEN}"),
        (position_id(EPOCH, 7, ""), f"{EPOCH}-7"),
        (f"/run/{NAME}a", f"/run/{NAME}a"),
    ],
)
def test_a_text_for_a_log_shows_no_name_of_a_run(text: str, shown: str) -> None:
    assert without_run_names(text) == shown


def test_the_name_of_a_run_is_new_and_long_enough_not_to_be_guessed() -> None:
    names = {new_run_channel() for _ in range(100)}
    assert len(names) == 100
    for name in names:
        assert run_channel(position_id(EPOCH, 1, name)) == name
