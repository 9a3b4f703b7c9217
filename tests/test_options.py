"""The options of a broker's URL: which are read, and which are refused."""

from __future__ import annotations

import pytest

from flask_sse_lite import InvalidValue
from flask_sse_lite.brokers.options import DEFAULT_PREFIX, Options, read_options
from flask_sse_lite.brokers.store import Retention
from flask_sse_lite.settings import Settings

SETTINGS = Settings.read({"SSE_HISTORY": 7, "SSE_HISTORY_AGE": 70})

#: The settings of a program that publishes for an application whose settings it does
#: not know.
GUEST = Settings.of_guest("redis://host", 1.0)


def test_the_configuration_has_what_the_url_leaves_out() -> None:
    kept, size = Retention(7, 70), SETTINGS.history_bytes
    assert read_options(SETTINGS, "") == Options(kept, size, DEFAULT_PREFIX, {})
    assert read_options(SETTINGS, "age=2.5").retention == Retention(7, 2.5)
    assert read_options(SETTINGS, "history=2").retention == Retention(2, 70)


def test_what_the_kind_of_broker_knows_is_left_to_it() -> None:
    options = read_options(SETTINGS, "prefix=shop&db=3&history=2&empty=")
    assert options.prefix == "shop"
    assert options.others == {"db": "3", "empty": ""}


@pytest.mark.parametrize("query", ["", "history=5", "age=5", "prefix=shop"])
def test_a_guest_leaves_the_store_as_it_is(query: str) -> None:
    assert read_options(GUEST, query).retention is None


def test_a_guest_whose_url_says_all_has_its_say() -> None:
    assert read_options(GUEST, "history=5&age=6").retention == Retention(5, 6)


@pytest.mark.parametrize(
    "wrong",
    [
        *("history=x", "history=0", "history=-1", "history=1.5", "history="),
        *("history=1e999", "age=x", "age=0", "age=-1", "age=nan", "age=inf", "age="),
        *("prefix=", "history=99999999999999999999"),
    ],
)
@pytest.mark.parametrize("settings", [SETTINGS, GUEST], ids=["own", "guest"])
def test_a_wrong_option_is_refused(settings: Settings, wrong: str) -> None:
    with pytest.raises(InvalidValue, match="an option that is wrong"):
        read_options(settings, f"password=geheim&{wrong}")


def test_a_refusal_shows_nothing_of_the_url() -> None:
    with pytest.raises(InvalidValue) as raised:
        read_options(SETTINGS, "password=geheim&history=geheim")
    assert "geheim" not in str(raised.value)
