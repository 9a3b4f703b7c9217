"""Which values have a text that can stand for a name, and which are a mistake."""

from __future__ import annotations

import enum
from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from flask_sse_lite.errors import InvalidValue
from flask_sse_lite.names import counted, worded, worded_id

ID = UUID("12345678-1234-5678-1234-567812345678")


class Room(enum.Enum):
    HALL = "hall"

    def __str__(self) -> str:
        return self.value


class Name(str, enum.Enum):
    HALL = "hall"


class Plain:
    """An object without a text of its own."""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (7, "7"),
        (1.5, "1.5"),
        (Decimal("1.50"), "1.50"),
        (ID, str(ID)),
        (date(2020, 1, 2), "2020-01-02"),
        (Room.HALL, "hall"),
    ],
)
def test_what_has_a_text_of_its_own_is_named_by_it(value: Any, text: str) -> None:
    assert worded(value) == text


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, b"bytes", ["a"], {"a": 1}, ("a",), {"a"}, iter("a")),
        *(len, str, ValueError("a"), Plain(), Name.HALL),
    ],
)
def test_anything_else_is_left_for_a_check_to_refuse(value: Any) -> None:
    assert worded(value) is value


def test_a_number_that_nobody_can_write_is_refused_by_name() -> None:
    with pytest.raises(InvalidValue, match="too long to be a name"):
        worded(10**5000)


@pytest.mark.parametrize(("value", "id"), [(7, 7), ("7", "7"), (ID, str(ID))])
def test_an_id_can_be_a_whole_number(value: Any, id: Any) -> None:
    assert worded_id(value) == id
    assert type(worded_id(value)) is type(id)


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *(("3000", 3000), (" 3000 ", 3000), ("-1", -1), ("9" * 20, 10**20 - 1)),
        *(("9" * 21, "9" * 21), ("3.5", "3.5"), ("", ""), ("٣", "٣"), (7, 7)),
        (None, None),
    ],
)
def test_a_text_of_digits_counts_as_its_number(value: Any, number: Any) -> None:
    assert counted(value) == number
    assert type(counted(value)) is type(number)
