"""The errors: one clause catches them all, and each is also what Python calls such a
mistake."""

from __future__ import annotations

import inspect

import pytest

import flask_sse_lite
from flask_sse_lite import errors
from flask_sse_lite.errors import SSEError

#: The built-in error that each is too.
ALSO = {
    "BrokerUnavailable": SSEError,
    "EventTooLarge": errors.InvalidValue,
    "InvalidType": TypeError,
    "InvalidValue": ValueError,
    "NoApplication": RuntimeError,
    "Reentered": errors.BrokerUnavailable,
    "SSEError": Exception,
    "SetupError": AssertionError,
    "Unsupported": NotImplementedError,
    "UnsupportedServer": RuntimeError,
}

ERRORS = {
    name: error
    for name, error in inspect.getmembers(errors, inspect.isclass)
    if error.__module__ == errors.__name__
}


def test_each_is_known() -> None:
    assert ERRORS.keys() == ALSO.keys()


@pytest.mark.parametrize("name", ALSO)
def test_each_is_public_and_of_one_family(name: str) -> None:
    assert getattr(flask_sse_lite, name) is ERRORS[name]
    assert issubclass(ERRORS[name], SSEError)
    assert issubclass(ERRORS[name], ALSO[name])


def test_a_wrong_type_is_a_wrong_value_too() -> None:
    assert issubclass(errors.InvalidType, errors.InvalidValue)


def test_who_interrupts_is_told_how_that_came_about() -> None:
    with pytest.raises(SSEError, match="signal handler"):
        raise errors.Reentered
