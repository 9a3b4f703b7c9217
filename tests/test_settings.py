"""Each setting takes what is valid, and a refusal names its key."""

from __future__ import annotations

import ast
import dataclasses
import math
import re
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from functools import partial
from typing import Any

import pytest

from flask_sse_lite import Event, InvalidType, InvalidValue, SSEError, brokers
from flask_sse_lite.brokers import BROKERS, Broker, connect, register
from flask_sse_lite.brokers.memory import MemoryBroker
from flask_sse_lite.permission import is_public
from flask_sse_lite.settings import Settings

from .documentation import ROOT

#: The settings that have a key of their own.
KEYS = [setting.name for setting in dataclasses.fields(Settings) if setting.metadata]

# Defaults


def test_the_defaults_are_these() -> None:
    settings = Settings.read({})
    assert settings == Settings(
        url="memory://",
        history=256,
        history_age=300,
        history_bytes=64 * 1024 * 1024,
        max_event_bytes=1024 * 1024,
        broker_timeout=5,
        run_bytes=1024 * 1024,
        runs_bytes=64 * 1024 * 1024,
        max_runs=None,
        replay=0,
        heartbeat=15,
        retry=3000,
        max_connections=None,
        max_per_client=None,
        max_channels=100_000,
        max_age=None,
        max_stall=None,
        handoff="auto",
        access_log=False,
        public_channels=("sse",),
        presence=(),
        inspector=False,
        same_site_runs=False,
        token_in_query=False,
        token_cookie="sse_token",
        token_salt="flask_sse_lite",
    )


@pytest.mark.parametrize(
    ("config", "seconds"),
    [
        ({}, 33.75),
        ({"SSE_HEARTBEAT": 2}, 4.5),
        ({"SSE_HEARTBEAT": 0.1}, 2),
        ({"SSE_HEARTBEAT": 2, "SSE_MAX_STALL": 0.5}, 0.5),
        ({"SSE_MAX_STALL": 600}, 600),
    ],
)
def test_a_client_may_take_nothing_for_some_heartbeats_or_as_long_as_is_set(
    config: dict[str, float], seconds: float
) -> None:
    assert Settings.read(config).stall == seconds


def test_none_means_the_default() -> None:
    keys = [f"SSE_{name.upper()}" for name in KEYS]
    config = dict.fromkeys([*keys, "SSE_REDIS_URL"])
    assert Settings.read(config) == Settings.read({})


def test_other_keys_are_left_alone() -> None:
    config = {"SSE": 1, "HISTORY": -1, "sse_history": -1, "REDIS_URL": "redis://h"}
    assert Settings.read(config) == Settings.read({})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings.read({}).history = 1  # type: ignore[misc]


# Each key

#: By key: values that it takes, and values that it refuses.
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "SSE_HISTORY": (
        [1, 256, 10**9],
        [0, -1, 1.0, "256", True, False, [1], math.inf, 10**30],
    ),
    "SSE_HISTORY_AGE": (
        [1, 0.5, 300, 10**9],
        [0, 0.0, -1, -0.1, "300", True, [1], math.nan, math.inf, -math.inf],
    ),
    "SSE_BROKER_TIMEOUT": (
        [0.1, 5, 60.0],
        [0, -1, "5", True, False, [5], math.nan, math.inf, 10**12],
    ),
    "SSE_HISTORY_BYTES": ([1, 2**30], [0, -1, 1.0, "1", True, [1]]),
    "SSE_MAX_EVENT_BYTES": ([1, 2**20], [0, -1, 1.0, "1", True, [1]]),
    "SSE_RUN_BYTES": ([1, 2**20], [0, -1, 1.0, "1", True, [1]]),
    "SSE_RUNS_BYTES": ([1, 2**30], [0, -1, 1.0, "1", True, [1]]),
    "SSE_MAX_RUNS": ([1, 10**6], [0, -1, 10.0, "10", True, [10]]),
    "SSE_REPLAY": ([0, 1, 256], [-1, 0.0, "0", True, False, [0]]),
    "SSE_HEARTBEAT": (
        [0.1, 15, 60.0],
        [0, -1, "15", True, False, [15], math.nan],
    ),
    "SSE_RETRY": ([0, 1, 3000], [-1, 3000.0, "3000", True, False, [3000], 2**54]),
    "SSE_MAX_CONNECTIONS": ([1, 10**6], [0, -1, 10.0, "10", True, [10]]),
    "SSE_MAX_PER_CLIENT": ([1, 10**6], [0, -1, 10.0, "10", True, [10]]),
    "SSE_MAX_CHANNELS": ([1, 10**6], [0, -1, 10.0, "10", True, [10]]),
    "SSE_MAX_AGE": (
        [0.5, 3600],
        [0, -1, "3600", True, False, [1], math.nan],
    ),
    "SSE_MAX_STALL": (
        [0.5, 60],
        [0, -1, "60", True, False, [1], math.nan],
    ),
    "SSE_HANDOFF": (
        ["auto", True, False],
        ["Auto", "", "true", 0, 1, 2, 0.0, 1.0, ["auto"]],
    ),
    "SSE_ACCESS_LOG": ([True, False], ["True", 0, 1, [True]]),
    "SSE_INSPECTOR": ([True, False], ["True", 0, 1, [True]]),
    "SSE_PUBLIC_CHANNELS": (
        [["sse"], ("a", "b"), {"a"}, frozenset({"a"}), [], ["*"], ["room.*", "ä b"]],
        [
            *["sse", b"sse", "*", 1, True, {"sse": 1}, iter(["sse"])],
            *[[1], [None], [b"sse"], [""], ["a\nb"], ["n" * 256], [["sse"]]],
        ],
    ),
    "SSE_PRESENCE": (
        [[], ["sse"], ("a", "b"), {"a"}, ["*"], ["room.*", "ä b"]],
        ["sse", "*", True, {"sse": 1}, [1], [""], ["a\nb"], ["n" * 256]],
    ),
    "SSE_SAME_SITE_RUNS": ([True, False], ["True", 0, 1, [True]]),
    "SSE_TOKEN_IN_QUERY": ([True, False], ["True", 0, 1, [True]]),
    "SSE_TOKEN_COOKIE": (["sse_token", "t"], ["", b"t", 1, True, ["t"]]),
    "SSE_TOKEN_SALT": (["flask_sse_lite", "ä b"], ["", b"t", 1, True, ["t"]]),
}

ACCEPTED = [(key, value) for key, (accepted, _) in VALUES.items() for value in accepted]
REFUSED = [(key, value) for key, (_, refused) in VALUES.items() for value in refused]


def test_every_key_is_tested() -> None:
    fields = {f"SSE_{name.upper()}" for name in KEYS}
    assert fields == {*VALUES, "SSE_URL"}


@pytest.mark.parametrize(("key", "value"), ACCEPTED)
def test_a_value_that_fits_is_taken(key: str, value: Any) -> None:
    read = getattr(Settings.read({key: value}), key.removeprefix("SSE_").lower())
    if key in ("SSE_PUBLIC_CHANNELS", "SSE_PRESENCE"):
        assert isinstance(read, tuple)
        assert set(read) == set(value)
    else:
        assert read == value
        assert type(read) is type(value)


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_a_refusal_names_the_key_and_shows_the_value(key: str, value: Any) -> None:
    with pytest.raises(InvalidValue, match=rf"\b{key} is ") as caught:
        Settings.read({key: value})
    assert str(caught.value).endswith(f", not {value!r}")
    assert isinstance(caught.value, SSEError)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", ["", "a\nb", "n" * 256])
def test_a_refusal_of_a_public_channel_says_what_is_wrong_with_it(name: str) -> None:
    with pytest.raises(InvalidValue, match=r"SSE_PUBLIC_CHANNELS .*channel's name has"):
        Settings.read({"SSE_PUBLIC_CHANNELS": ["fine", name]})


# The URL


@pytest.mark.parametrize("key", ["SSE_URL", "SSE_REDIS_URL"])
def test_the_url_is_taken_from_either_key(key: str) -> None:
    assert Settings.read({key: "nowhere://host/1"}).url == "nowhere://host/1"


def test_sse_url_goes_before_sse_redis_url() -> None:
    config = {"SSE_URL": "memory://", "SSE_REDIS_URL": "redis://host"}
    assert Settings.read(config).url == "memory://"


def test_redis_url_alone_is_not_read() -> None:
    assert Settings.read({"REDIS_URL": "redis://host"}).url == "memory://"


def test_an_empty_sse_redis_url_is_as_good_as_none() -> None:
    assert Settings.read({"SSE_REDIS_URL": ""}).url == "memory://"


@pytest.mark.parametrize("value", ["", 1, b"memory://", ["memory://"], True])
def test_a_url_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InvalidValue, match=r"\bSSE_URL is a URL"):
        Settings.read({"SSE_URL": value})


@pytest.mark.parametrize("value", [1, b"memory://", ["memory://"], True])
def test_an_sse_redis_url_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InvalidValue, match=r"\bSSE_REDIS_URL is a URL"):
        Settings.read({"SSE_REDIS_URL": value})


@pytest.mark.parametrize(
    "url",
    ["memory:", "memory:/", "memory://", "memory:///", "MEMORY://", "Memory:"],
)
def test_memory_is_one_process(url: str) -> None:
    broker = connect(Settings.read({"SSE_URL": url}))
    assert isinstance(broker, MemoryBroker)
    assert not broker.is_shared


def test_memory_keeps_the_history_that_is_configured() -> None:
    broker = connect(Settings.read({"SSE_HISTORY": 1, "SSE_HISTORY_AGE": 1}))
    other = connect(Settings.read({"SSE_HISTORY": 1, "SSE_HISTORY_AGE": 1}))
    assert broker.log.epoch != other.log.epoch
    for text in ("1", "2"):
        broker.log.append("a", Event(text))
    (entry,) = broker.log.read(broker.log.cursor(["a"], last=9), 99).entries
    assert entry.event is not None
    assert entry.event.data == "2"


@pytest.mark.parametrize("key", ["SSE_URL", "SSE_REDIS_URL"])
@pytest.mark.parametrize(
    "url",
    ["nowhere://host", "NOWHERE:x", "memory2://", "memor", "memory", "host:6379"],
)
def test_an_unknown_scheme_is_an_error_that_names_its_key(key: str, url: str) -> None:
    settings = Settings.read({key: url})
    with pytest.raises(InvalidValue, match=rf"\b{key}\b") as caught:
        connect(settings)
    for scheme in BROKERS:
        assert f"{scheme}://" in str(caught.value)


def test_an_unknown_scheme_is_shown() -> None:
    with pytest.raises(InvalidValue, match="'nowhere'"):
        connect(Settings.read({"SSE_URL": "nowhere://user:hunter2@host"}))


# Brokers of an application's own


@pytest.fixture(autouse=True)
def nothing_stays_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "_registered", {})


def make_memory(settings: Settings, folder: str | None) -> Broker:
    return connect(Settings.read({}))


def test_a_scheme_of_an_applications_own_names_its_broker() -> None:
    asked: list[tuple[str, str | None]] = []

    def make(settings: Settings, folder: str | None) -> Broker:
        asked.append((settings.url, folder))
        return make_memory(settings, folder)

    register("x+shelf.2-own", make)
    for url in ("x+shelf.2-own://host/a", "X+Shelf.2-Own:a"):
        broker = connect(Settings.read({"SSE_URL": url}), "folder")
        assert isinstance(broker, MemoryBroker)
        assert asked.pop() == (url, "folder")
    connect(Settings.of_guest("x+shelf.2-own:b", 1))
    assert asked == [("x+shelf.2-own:b", None)]


def test_an_unknown_scheme_is_an_error_that_names_what_is_registered() -> None:
    register("shelf", make_memory)
    with pytest.raises(InvalidValue, match=r"memory://.*redis://.*shelf://"):
        connect(Settings.read({"SSE_URL": "drawer://"}))


@pytest.mark.parametrize("scheme", ["", "Shelf", "2shelf", "shelf:", "sh elf", "é", 5])
def test_a_scheme_that_no_url_can_have_is_refused(scheme: Any) -> None:
    with pytest.raises(InvalidValue, match=re.escape(repr(scheme))):
        register(scheme, make_memory)


@pytest.mark.parametrize("scheme", BROKERS)
def test_the_schemes_of_the_package_are_taken(scheme: str) -> None:
    with pytest.raises(InvalidValue, match=f"'{scheme}' is taken by flask_sse_lite"):
        register(scheme, make_memory)


def test_a_scheme_that_another_has_registered_is_taken() -> None:
    register("shelf", make_memory)
    with pytest.raises(InvalidValue, match="'shelf' is taken by another"):
        register("shelf", lambda settings, folder: make_memory(settings, folder))
    with pytest.raises(InvalidValue, match="'shelf' is taken by another"):
        register("shelf", partial(make_memory))
    register("shelf", make_memory)


def test_a_definition_that_is_run_again_is_registered_again() -> None:
    made: list[int] = []

    def define(number: int) -> Callable[[Settings, str | None], Broker]:
        def make(settings: Settings, folder: str | None) -> Broker:
            made.append(number)
            return make_memory(settings, folder)

        return make

    for number in range(2):
        register("shelf", define(number))
    connect(Settings.read({"SSE_URL": "shelf:"}))
    assert made == [1]


@pytest.mark.parametrize("factory", [None, "shelf"])
def test_what_cannot_be_called_is_no_factory(factory: Any) -> None:
    with pytest.raises(InvalidValue, match="shelf://"):
        register("shelf", factory)


def test_a_factory_that_returns_something_else_is_refused() -> None:
    register("shelf", lambda settings, folder: settings.url)  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidType, match=r"shelf:// made neither .* but 'shelf:'"):
        connect(Settings.read({"SSE_URL": "shelf:"}))


def test_memory_with_something_behind_is_an_error() -> None:
    with pytest.raises(InvalidValue, match=r"\bSSE_URL\b.*memory://"):
        connect(Settings.read({"SSE_URL": "memory://host"}))


def read_and_connect(config: dict[str, Any]) -> None:
    connect(Settings.read(config))


@pytest.mark.parametrize("key", ["SSE_URL", "SSE_REDIS_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "nowhere://user:hunter2@host/0",
        "memory://user:hunter2@host",
        " redis://user:hunter2@host",
        "//user:hunter2@host",
        "_nowhere://user:hunter2@host",
        "'redis://user:hunter2@host'",
        "user:hunter2@host",
        "nöwhere://:hunter2@host",
        b"redis://user:hunter2@host",
        ["redis://user:hunter2@host"],
    ],
)
def test_a_password_is_never_shown(key: str, url: Any) -> None:
    with pytest.raises(InvalidValue) as caught:
        read_and_connect({key: url})
    error: BaseException | None = caught.value
    while error is not None:
        assert "hunter2" not in f"{error!r} {error}"
        error = error.__cause__ or error.__context__


# Public channels


@pytest.mark.parametrize(
    ("listed", "public", "closed"),
    [
        (["sse"], ["sse"], ["", "ss", "sse2", "SSE", "*", "other"]),
        (["room.*"], ["room.", "room.1", "room.1.a", "room.*"], ["room", "Room.1"]),
        (["*"], ["", "anything", "room.1"], []),
        (["a*b"], ["a*b"], ["ab", "aXb", "a*c", "a*bc"]),
        (["**"], ["*", "*x"], ["x", ""]),
        (["a", "b*"], ["a", "b", "bc"], ["ab", "ac", "c"]),
        (["a.c"], ["a.c"], ["abc"]),
        (["[a-z]*"], ["[a-z]", "[a-z]x"], ["a", "ax"]),
        ([], [], ["sse", "", "*"]),
    ],
)
def test_a_channel_is_public_by_its_name_or_its_beginning(
    listed: list[str], public: list[str], closed: list[str]
) -> None:
    names = Settings.read({"SSE_PUBLIC_CHANNELS": listed}).public_channels
    assert [name for name in public if not is_public(name, names)] == []
    assert [name for name in closed if is_public(name, names)] == []


def test_only_the_default_channel_is_public_by_default() -> None:
    names = Settings.read({}).public_channels
    assert is_public("sse", names)
    assert not is_public("secret", names)


def test_who_comes_and_leaves_is_told_where_that_is_wished_for() -> None:
    assert not Settings.read({}).tells_presence("sse")
    settings = Settings.read({"SSE_PRESENCE": ["*"]})
    assert settings.tells_presence("room.7")
    assert not settings.tells_presence("$run.7")


def test_who_comes_back_as_late_as_it_was_told_to_has_not_left() -> None:
    assert Settings.read({}).leave_after == pytest.approx(8.6)
    assert Settings.read({"SSE_RETRY": 60_000}).leave_after > 72


#: A row of a table of settings: the key, and its default as Python writes it.
ROW = re.compile(r"   \* - ``SSE_(\w+)``\n     - ``(.+)``\n")

LIMITS = {
    *("max_connections", "max_per_client", "max_age", "max_stall", "max_runs"),
    *("run_bytes", "runs_bytes", "history", "history_age", "broker_timeout"),
    *("history_bytes", "max_event_bytes", "max_channels"),
}


@pytest.mark.parametrize("page", ["configuration", "limits"])
def test_the_documentation_has_the_defaults(page: str) -> None:
    rows = ROW.findall((ROOT / "docs" / f"{page}.rst").read_text("utf-8"))
    settings = Settings.read({})
    told = {key.lower(): ast.literal_eval(default) for key, default in rows}
    assert set(told) == (LIMITS if page == "limits" else set(KEYS))
    for name, default in told.items():
        value = getattr(settings, name)
        assert default == (list(value) if isinstance(value, tuple) else value)
