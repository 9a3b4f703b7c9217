"""One file for all processes of a machine: what it keeps, how the processes wake each
other, and what happens when it is busy, full, broken or gone."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_sse_lite import SSE, BrokerUnavailable, Event, InvalidValue
from flask_sse_lite.brokers import Broker, connect
from flask_sse_lite.brokers.shared import SharedBroker
from flask_sse_lite.brokers.sqlite import connection, housekeeping
from flask_sse_lite.brokers.sqlite.doorbell import Bells
from flask_sse_lite.position import RUN_PREFIX, new_run_channel
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing.broker_suite import (
    HISTORY,
    Reader,
    begun,
    in_a_child,
    publish,
    reader_of_run,
    say,
    sequences,
)

from .servers import PATIENCE, ROOT, until
from .stores import SqliteStore

STRANGER = 65534


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path)
    yield store
    store.close()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every publish drop at once what need not be kept."""
    monkeypatch.setattr(housekeeping, "PUBLISHES_PER_PRUNE", 1)
    monkeypatch.setattr(housekeeping, "SLACK", 0.0)


def rows(store: SqliteStore, query: str) -> list[Any]:
    with closing(sqlite3.connect(store.file)) as connection:
        return connection.execute(query).fetchall()


def hung_up(store: SqliteStore) -> list[str]:
    folder = Path(f"{store.file}-bells")
    names = os.listdir(folder) if folder.exists() else []
    return sorted(name for name in names if name[0] != ".")


def store_of(broker: Broker) -> Any:
    """The store that a broker follows. The tests look into it."""
    assert isinstance(broker, SharedBroker)
    return broker.store


@contextmanager
def deaf(broker: Broker) -> Iterator[None]:
    """Keep a broker's follower waiting."""
    assert isinstance(broker, SharedBroker)
    with broker._follower._lock:
        yield


# The URL


def connect_to(url: str, folder: str | None = None, **config: Any) -> SharedBroker:
    broker = connect(Settings.read({"SSE_URL": url, **config}), folder)
    assert isinstance(broker, SharedBroker)
    return broker


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////var/x.db", "/var/x.db"),
        ("sqlite:///x.db", "/folder/x.db"),
        ("sqlite:///a/x.db?history=5", "/folder/a/x.db"),
        ("SQLite:////a%20b/%C3%A9%3F.db", "/a b/é?.db"),
    ],
)
def test_a_url_names_a_file(url: str, path: str) -> None:
    assert store_of(connect_to(url, "/folder")).path == path


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite://x.db",
        "sqlite:////x.db#y",
        "sqlite:////x.db?unknown=1",
        "sqlite:////x.db?history=0",
        "sqlite:////x.db?history=many",
        "sqlite:////x.db?age=0",
        "sqlite:////x.db?age=nan",
        "sqlite:////x.db?prefix=",
    ],
)
def test_a_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(InvalidValue, match="SSE_URL"):
        connect_to(url, "/folder")


def test_without_an_application_a_relative_path_is_refused() -> None:
    with pytest.raises(InvalidValue, match="absolute"):
        connect_to("sqlite:///x.db")


def test_a_relative_path_begins_in_the_instance_folder(tmp_path: Path) -> None:
    folder = tmp_path / "not there yet"
    app = Flask("application", instance_path=str(folder))
    app.config["SSE_URL"] = "sqlite:///events.db"
    sse = SSE()
    app.register_blueprint(sse)
    with app.app_context():
        assert not folder.exists()
        sse.publish("x")
    assert (folder / "events.db").exists()
    app.extensions["sse"].close()


def test_nothing_is_made_before_it_is_used(store: SqliteStore) -> None:
    store.open()
    assert not store.file.exists()


def test_the_store_keeps_its_retention(store: SqliteStore) -> None:
    store.open(SSE_HISTORY=5, SSE_HISTORY_AGE=7).position()
    assert rows(store, "SELECT history, age FROM sse_store") == [(5, 7)]
    url = f"sqlite:///{store.file}?history=6&age=8"
    with closing(connect_to(url, SSE_HISTORY=5)) as broker:
        broker.position()
    assert rows(store, "SELECT history, age FROM sse_store") == [(6, 8)]
    other = connect(Settings.of_guest(store.url, timeout=5))
    with closing(other):
        publish(other, "a", *(str(n) for n in range(10)))
        assert Reader(other, "a", last=10).take(6) == ["4", "5", "6", "7", "8", "9"]
    assert rows(store, "SELECT history, age FROM sse_store") == [(6, 8)]


def test_prefixes_keep_applications_apart(store: SqliteStore) -> None:
    urls = [f"sqlite:///{store.file}?prefix={p}" for p in ("one", "it's%20%22two%22")]
    one, other = (connect_to(url) for url in urls)
    with closing(one), closing(other):
        readers = [Reader(one, "a"), Reader(other, "a")]
        publish(one, "a", "1")
        publish(other, "a", "2")
        assert [reader.take(1) for reader in readers] == [["1"], ["2"]]
        assert sequences([one.position(), other.position()]) == [1, 1]


@pytest.mark.parametrize("length", [1, 20])
def test_the_path_may_be_long(tmp_path: Path, length: int) -> None:
    folder = tmp_path.joinpath(*["a folder"] * length, "é")
    folder.mkdir(parents=True)
    store = SqliteStore(folder)
    reader = Reader(store.open(), "a")
    publish(store.open(), "a", "1")
    assert reader.take(1) == ["1"]
    until(lambda: hung_up(store))
    store.close()
    assert hung_up(store) == []


# Bells


def test_a_process_that_only_publishes_hangs_up_no_bell(store: SqliteStore) -> None:
    before = threading.active_count()
    publish(store.open(), "a", "1")
    assert hung_up(store) == []
    assert threading.active_count() == before


def test_a_bell_wakes_who_listens(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_sse_lite.brokers.follower.LOOK_INTERVAL", 10 * PATIENCE)
    reader = Reader(store.open(), "a")
    until(lambda: hung_up(store))
    publisher = store.open()
    for number in range(100):
        publish(publisher, "a", str(number))
        assert reader.take(1) == [str(number)]


def test_who_is_gone_takes_its_bell_down(store: SqliteStore) -> None:
    brokers = [store.open() for _ in range(2)]
    for broker in brokers:
        Reader(broker, "a")
    until(lambda: len(hung_up(store)) == 2)
    brokers[0].close()
    assert len(hung_up(store)) == 1
    brokers[1].close()
    assert not Path(f"{store.file}-bells").exists()


LISTENER = """
import sys, time
from pathlib import Path
from flask_sse_lite.brokers import connect
from flask_sse_lite.settings import Settings
broker = connect(Settings.read({"SSE_URL": f"sqlite:///{sys.argv[1]}/events.db"}))
broker.want(["a"])
while not list(Path(sys.argv[1], "events.db-bells").glob("[0-9]*")):
    time.sleep(0.01)
%s
"""


def test_a_process_that_ends_takes_its_bell_down(store: SqliteStore) -> None:
    store.open().position()
    subprocess.run(
        [sys.executable, "-c", LISTENER % "", str(store.file.parent)],
        cwd=ROOT,
        check=True,
        timeout=PATIENCE,
    )
    assert hung_up(store) == []


def test_a_process_that_was_killed_leaves_a_bell_that_harms_nothing(
    store: SqliteStore,
) -> None:
    publisher, other = store.open(), store.open()
    reader = Reader(other, "a")
    until(lambda: hung_up(store))
    (own,) = hung_up(store)
    listener = subprocess.Popen(
        [sys.executable, "-c", LISTENER % "time.sleep(60)", str(store.file.parent)],
        cwd=ROOT,
    )
    try:
        until(lambda: len(hung_up(store)) == 2)
    finally:
        listener.kill()
        listener.wait()
    assert len(hung_up(store)) == 2
    publish(publisher, "a", "1")
    assert hung_up(store) == [own]
    publish(publisher, "a", "2")
    assert reader.take(2) == ["1", "2"]


def test_a_listener_that_sleeps_holds_nobody_up(store: SqliteStore) -> None:
    listener = subprocess.Popen(
        [sys.executable, "-c", LISTENER % "time.sleep(60)", str(store.file.parent)],
        cwd=ROOT,
    )
    try:
        until(lambda: hung_up(store))
        listener.send_signal(signal.SIGSTOP)
        reader = Reader(store.open(SSE_HISTORY=1000), "a")
        publish(store.open(SSE_HISTORY=1000), "a", *(str(n) for n in range(500)))
        assert len(reader.take(500)) == 500
    finally:
        listener.kill()
        listener.wait()


def test_who_cleans_up_the_folder_disturbs_nobody(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flask_sse_lite.brokers.follower.LOOK_INTERVAL", 0.1)
    reader = Reader(store.open(), "a")
    until(lambda: hung_up(store))
    (name,) = hung_up(store)
    Path(f"{store.file}-bells", name).unlink()
    publish(store.open(), "a", "1")
    assert reader.take(1) == ["1"]
    until(lambda: len(hung_up(store)) == 1)


def test_where_no_bell_can_be_had_the_file_is_looked_at(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    Path(f"{store.file}-bells").write_text("no folder")
    reader = Reader(store.open(), "a")
    for number in range(3):
        publish(store.open(), "a", str(number))
        assert reader.take(1) == [str(number)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "No socket can be made" in caplog.text


@pytest.mark.parametrize(
    ("mode", "folder"), [(0o600, 0o700), (0o660, 0o770), (0o644, 0o700)]
)
def test_the_bells_are_open_to_whoever_may_write_to_the_file(
    store: SqliteStore, mode: int, folder: int
) -> None:
    before = os.umask(0)
    try:
        store.open().position()
        store.file.chmod(mode)
        Reader(store.open(), "a")
        until(lambda: hung_up(store))
    finally:
        os.umask(before)
    path = Path(f"{store.file}-bells")
    assert stat.S_IMODE(path.stat().st_mode) == folder
    bell = path / hung_up(store)[0]
    assert stat.S_IMODE(bell.stat().st_mode) == folder & 0o666


def test_a_name_that_others_left_in_the_folder_harms_nothing(
    store: SqliteStore,
) -> None:
    reader = Reader(store.open(), "a")
    until(lambda: hung_up(store))
    folder = Path(f"{store.file}-bells")
    (folder / "file").write_text("")
    (folder / "folder").mkdir()
    (folder / "link").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        os.chdir(folder)
        try:
            stream.bind("stream")
        finally:
            os.chdir(ROOT)
        publish(store.open(), "a", "1", "2")
        assert reader.take(2) == ["1", "2"]


# What a publish costs


def test_a_publish_to_several_channels_is_one_transaction(store: SqliteStore) -> None:
    """All of its events come into the file, or none: whoever looks at the file never
    finds some of them."""
    broker = store.open()
    publish(broker, "a", "0")
    connection = store_of(broker)._connection._connection
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    list(broker.publish_to_all([f"room.{n}" for n in range(16)], Event("x")))
    connection.set_trace_callback(None)
    wrote = [text.partition(" ")[0] for text in statements if "SELECT" not in text]
    assert wrote[:18] == ["BEGIN", *["INSERT"] * 16, "COMMIT"]
    assert len(rows(store, "SELECT 1 FROM sse_events WHERE data = 'x'")) == 16


def test_a_publish_to_several_channels_that_fails_leaves_none(
    store: SqliteStore,
) -> None:
    broker = store.open()
    publish(broker, "a", "0")
    connection = store_of(broker)._connection._connection
    connection.execute(
        "CREATE TEMP TRIGGER refuse BEFORE INSERT ON sse_events WHEN NEW.channel = 'c' "
        "BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    with pytest.raises(BrokerUnavailable, match="no"):
        list(broker.publish_to_all(["a", "b", "c"], Event("x")))
    assert rows(store, "SELECT data FROM sse_events") == [("0",)]


# What is kept


@pytest.mark.usefixtures("eager")
def test_the_file_keeps_no_more_than_is_configured(store: SqliteStore) -> None:
    broker = store.open()
    ids = publish(broker, "a", *(str(n) for n in range(3 * HISTORY)))
    publish(broker, "b", "x")
    assert rows(store, "SELECT count(*) FROM sse_events") == [(HISTORY + 1,)]
    assert rows(store, "SELECT * FROM sse_channels") == [("a", 2 * HISTORY)]
    assert Reader(store.open(), "b", since=ids[0]).take(1) == ["x"]
    late = Reader(store.open(), "a", since=ids[2 * HISTORY - 2])
    late.read()
    assert [gap.id for gap in late.gaps] == [ids[2 * HISTORY - 1]]
    assert len(late.data) == HISTORY
    complete = Reader(store.open(), "a", since=ids[2 * HISTORY - 1])
    assert len(complete.take(HISTORY)) == HISTORY


@pytest.mark.usefixtures("eager")
def test_what_is_too_old_is_dropped_and_its_channel_forgotten(
    store: SqliteStore,
) -> None:
    broker = store.open(SSE_HISTORY_AGE=0.2)
    first, *_, last = publish(broker, "a", "1", "2", "3")

    def is_dropped() -> bool:
        publish(broker, "b", "x")
        found = rows(store, "SELECT count(*) FROM sse_events WHERE channel = 'a'")
        return bool(found == [(0,)])

    until(is_dropped)
    ((forgotten,),) = rows(store, "SELECT forgotten FROM sse_store")
    assert [forgotten] >= sequences([last])
    assert rows(store, "SELECT * FROM sse_channels WHERE name = 'a'") == []
    late = Reader(store.open(), "a", since=first)
    late.read()
    assert late.gaps
    assert Reader(store.open(), "a", since=broker.position()).take(0) == []


@pytest.mark.usefixtures("eager")
def test_numbers_are_never_used_twice(store: SqliteStore) -> None:
    broker = store.open(SSE_HISTORY_AGE=0.01)
    (old,) = publish(broker, "a", "1")
    until(lambda: publish(broker, "b", "x") and not Reader(broker, "a", last=1).events)
    rows(store, "SELECT 1")
    with closing(sqlite3.connect(store.file)) as connection, connection:
        connection.execute("DELETE FROM sse_events")
    (new,) = publish(store.open(), "a", "2")
    assert sequences([new]) > sequences([old])


@pytest.mark.usefixtures("eager")
def test_what_is_dropped_before_it_was_heard_is_a_gap(store: SqliteStore) -> None:
    broker, publisher = store.open(), store.open()
    reader, other = Reader(broker, "a"), Reader(broker, "b")
    (since,) = publish(publisher, "a", "before")
    assert reader.take(1) == ["before"]
    with deaf(broker):
        publish(publisher, "a", *(str(n) for n in range(3 * HISTORY)))
        publish(publisher, "b", "1")
    reader.until(lambda: len(reader.events) == HISTORY)
    (gap,) = reader.gaps
    assert gap.json == {"since": since, "channels": ["a"]}
    assert reader.data == [str(n) for n in range(2 * HISTORY, 3 * HISTORY)]
    assert other.take(1) == ["1"]


def test_who_is_late_for_a_moment_misses_nothing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a busy machine the reader can run late, too.
    monkeypatch.setattr("flask_sse_lite.history.pacing.FEEDER_BREATHS", 100_000)
    monkeypatch.setattr("flask_sse_lite.brokers.sqlite.housekeeping.SLACK", PATIENCE)
    broker, publisher = store.open(), store.open()
    reader = Reader(broker, "a")
    with deaf(broker):
        publish(publisher, "a", *(str(n) for n in range(4 * HISTORY)))
    got: list[str] = []
    while len(got) < 4 * HISTORY:
        reader.until(lambda: reader.events)
        assert not reader.gaps
        got += reader.data
        reader.events.clear()
    assert got == [str(n) for n in range(4 * HISTORY)]


def test_the_file_stays_small(store: SqliteStore) -> None:
    broker = store.open()
    for number in range(20_000):
        broker.publish(f"channel {number % 3}", Event("x" * 64))
    assert sum(p.stat().st_size for p in store.file.parent.glob("events.db*")) < 30e6


@pytest.mark.usefixtures("eager")
def test_a_file_that_was_set_back_is_another_life(store: SqliteStore) -> None:
    broker, other = store.open(), store.open()
    publish(broker, "a", "1")
    reader = Reader(broker, "a")
    old = publish(broker, "a", "2", "3")
    assert reader.take(2) == ["2", "3"]
    with closing(sqlite3.connect(store.file)) as connection, connection:
        connection.execute("DELETE FROM sse_events WHERE sequence > 1")
        connection.execute("UPDATE sqlite_sequence SET seq = 1")
    reader.until(lambda: reader.gaps)
    assert reader.gaps[0].json["since"] == old[1]
    publish(other, "a", "4")
    reader.until(lambda: len(reader.events) == 2)
    assert reader.data == ["1", "4"]
    assert reader.position.partition("-")[0] != old[0].partition("-")[0]


# What goes wrong


@contextmanager
def written_by_another(file: Path) -> Iterator[None]:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


def test_a_file_that_is_kept_locked_is_an_error_in_bounded_time(
    store: SqliteStore,
) -> None:
    broker, other = store.open(SSE_BROKER_TIMEOUT=1.5), store.open()
    reader = Reader(broker, "a")
    with written_by_another(store.file):
        with pytest.raises(BrokerUnavailable, match="locked"):
            publish(broker, "a", "never")
        # Reading needs no lock.
        assert broker.position() == reader.position
        Reader(broker, "new")
        waiting = threading.Thread(target=publish, args=[other, "a", "waits"])
        waiting.start()
        time.sleep(0.05)
    waiting.join(PATIENCE)
    publish(broker, "a", "again")
    assert reader.take(2) == ["waits", "again"]


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Have no file grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error_and_afterwards_it_works_again(
    store: SqliteStore,
) -> None:
    broker = store.open()
    reader = Reader(broker, "a")
    publish(broker, "a", "1")
    assert reader.take(1) == ["1"]
    with full_disk(200_000), pytest.raises(BrokerUnavailable, match="fails"):
        broker.publish("a", Event("x" * 1_000_000))
    publish(broker, "a", "2")
    assert reader.take(1) == ["2"]
    assert Reader(store.open(), "a", last=9).take(2) == ["1", "2"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_rings_leaves_the_child_free(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, parent = store.open(), os.getpid()
    Reader(broker, "a")
    until(lambda: hung_up(store))  # The follower must not be the one that is stopped.
    rings, go_on = threading.Event(), threading.Event()
    address = Bells._address

    def slow(bells: Bells, name: str) -> str:
        if os.getpid() == parent:
            rings.set()
            assert go_on.wait(PATIENCE)
        return address(bells, name)

    monkeypatch.setattr(Bells, "_address", slow)
    thread = threading.Thread(target=publish, args=[broker, "a", "1"])
    thread.start()
    try:
        assert rings.wait(PATIENCE)
        assert len(in_a_child(lambda: publish(broker, "a", "2"))) == 1
    finally:
        go_on.set()
        thread.join(PATIENCE)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_file_that_is_read_only_is_an_error() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = SqliteStore(folder)
        publish(store.open(), "a", "1")
        store.close()
        store.file.chmod(0o444)
        folder.chmod(0o555)

        def act() -> str:
            if os.getuid() == 0:
                os.setgid(STRANGER)
                os.setuid(STRANGER)
            with closing(store.connect()) as broker:
                try:
                    publish(broker, "a", "2")
                except BrokerUnavailable as error:
                    return str(error)
            return ""

        assert re.search("readonly|unable to open", in_a_child(act))
        folder.chmod(0o755)
        store.file.chmod(0o644)
        broker = store.open()
        publish(broker, "a", "3")
        assert Reader(broker, "a", last=9).take(2) == ["1", "3"]
        store.close()


def test_a_file_that_is_none_of_sqlites_is_an_error(store: SqliteStore) -> None:
    store.file.write_text("This is something else. " * 1000)
    broker = store.open()
    for do in (
        lambda: publish(broker, "a", "1"),
        lambda: broker.want(["a"]),
        broker.position,
    ):
        with pytest.raises(BrokerUnavailable, match="not a database"):
            do()
    assert store.file.read_text().startswith("This is something else.")
    store.file.unlink()
    publish(broker, "a", "2")
    assert Reader(broker, "a", last=1).take(1) == ["2"]


def test_a_file_that_breaks_under_way_is_an_error_until_it_is_replaced(
    store: SqliteStore,
) -> None:
    broker = store.open()
    reader = Reader(broker, "a")
    publish(broker, "a", "1")
    assert reader.take(1) == ["1"]
    garbage = store.file.with_name("garbage")
    garbage.write_bytes(os.urandom(100_000))
    store.put_in_place(garbage)

    def fails() -> bool:
        with pytest.raises(BrokerUnavailable) as info:
            publish(broker, "a", "never")
        return "not a database" in str(info.value)

    until(fails)
    store.lose_everything()

    def works() -> bool:
        try:
            return bool(publish(broker, "a", "2"))
        except BrokerUnavailable:
            return False

    until(works)
    reader.until(lambda: reader.events)
    assert reader.data == ["2"]
    assert len(reader.gaps) == 1


def test_the_first_to_publish_to_a_deleted_file_is_told(store: SqliteStore) -> None:
    broker, other = store.open(), store.open()
    publish(broker, "a", "1")
    publish(other, "a", "2")
    store.lose_everything()
    with pytest.raises(BrokerUnavailable, match="deleted"):
        publish(broker, "a", "never")
    publish(broker, "a", "3")
    with pytest.raises(BrokerUnavailable, match="deleted"):
        publish(other, "a", "never")
    publish(other, "a", "4")
    assert Reader(other, "a", last=9).take(2) == ["3", "4"]


def test_who_publishes_to_a_file_while_it_is_deleted_is_told(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = store.open()
    publish(broker, "a", "1")
    monkeypatch.setattr(store_of(broker)._connection, "_is_in_place", lambda: False)
    with pytest.raises(BrokerUnavailable, match="deleted"):
        publish(broker, "a", "lost")


def test_what_is_left_of_a_deleted_file_is_not_taken_for_the_new_ones(
    store: SqliteStore,
) -> None:
    broker = store.open()
    reader = Reader(broker, "a")
    publish(broker, "a", *(str(n) for n in range(100)))
    reader.until(lambda: "99" in reader.data)
    assert Path(f"{store.file}-wal").exists()
    store.file.unlink()
    later = store.open()
    publish(later, "a", "new")
    reader.until(lambda: "new" in reader.data)
    assert rows(store, "SELECT data FROM sse_events") == [("new",)]
    assert rows(store, "PRAGMA integrity_check") == [("ok",)]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "folder")
    broker = store.open()
    with pytest.raises(BrokerUnavailable, match="fails"):
        publish(broker, "a", "1")
    store.file.parent.mkdir()
    publish(broker, "a", "2")
    store.close()


# Many at once

PUBLISHER = """
import sys
from flask_sse_lite import Event
from flask_sse_lite.brokers import connect
from flask_sse_lite.settings import Settings
url, name, count = sys.argv[1:]
broker = connect(Settings.read({"SSE_URL": url}))
for number in range(int(count)):
    broker.publish("ab"[number % 2], Event(f"{name} {number}"))
broker.close()
"""


def test_publishers_that_are_killed_leave_a_file_that_is_whole(
    store: SqliteStore,
) -> None:
    url = f"sqlite:///{store.file}"
    reader = Reader(store.open(SSE_HISTORY=256), "a", "b")
    for _ in range(5):
        publisher = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, url, "x", "1000000"], cwd=ROOT
        )
        try:
            reader.until(lambda: reader.events)
        finally:
            publisher.kill()
            publisher.wait()
        reader.events.clear()
    broker = store.open(SSE_HISTORY=256)
    (id,) = publish(broker, "c", "end")
    assert broker.position() == id
    assert rows(store, "PRAGMA integrity_check") == [("ok",)]


# gevent

GEVENT = """
from gevent import monkey; monkey.patch_all()
import json, sqlite3, sys, time, threading
import gevent
from pathlib import Path
from flask_sse_lite import BrokerUnavailable, Event
from flask_sse_lite.testing.broker_suite import Reader, publish
from tests.stores import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
broker = store.open(SSE_HISTORY=64)
reader = Reader(broker, "a")
ticks = 0
def tick():
    global ticks
    while True:
        gevent.sleep(0.001)
        ticks += 1
ticker = gevent.spawn(tick)
%s
ticker.kill()
store.close()
"""


def under_gevent(script: str, folder: Path) -> Any:
    result = subprocess.run(
        [sys.executable, "-c", GEVENT % script, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return json.loads(result.stdout)


def test_a_greenlet_that_publishes_without_end_lets_its_readers_follow(
    tmp_path: Path,
) -> None:
    script = """
got = []
def read():
    while len(got) < 3000:
        reader.until(lambda: reader.events)
        got.extend(reader.data)
        reader.events = []
reading = gevent.spawn(read)
publish(broker, "a", *(str(n) for n in range(3000)))
reading.join()
print(json.dumps([len(reader.gaps), got]))
"""
    gaps, got = under_gevent(script, tmp_path)
    assert gaps == 0
    assert got == [str(n) for n in range(3000)]


def test_a_greenlet_that_waits_for_the_file_lets_the_others_run(tmp_path: Path) -> None:
    script = """
other = store.open(SSE_HISTORY=64, SSE_BROKER_TIMEOUT=2)
publish(other, "a", "1")
connection = sqlite3.connect(store.file, isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
before = ticks
try:
    publish(other, "a", "2")
except BrokerUnavailable as error:
    print(json.dumps([ticks - before, str(error)]))
connection.close()
"""
    ticks, error = under_gevent(script, tmp_path)
    assert "locked" in error
    # SQLite's own wait would have blocked all greenlets.
    assert ticks > 10


def test_greenlets_fork(tmp_path: Path) -> None:
    script = """
import os
publish(broker, "a", "1")
assert reader.take(1) == ["1"]
pid = os.fork()
if not pid:
    publish(broker, "a", "2")
    gevent.sleep(0.1)
    publish(broker, "a", "3")
    os._exit(0)
os.waitpid(pid, 0)
publish(broker, "a", "4")
print(json.dumps(reader.take(3)))
"""
    assert under_gevent(script, tmp_path) == ["2", "3", "4"]


# What other users can read, what a clock that is set does, and what is written while
# nobody publishes


def test_what_is_made_is_its_owners_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        app = Flask("application", instance_path=str(tmp_path / "new" / "instance"))
        app.config["SSE_URL"] = "sqlite:///events.db"
        sse = SSE()
        app.register_blueprint(sse)
        with app.app_context():
            sse.publish("x")
            reader = Reader(app.extensions["sse"].broker, "sse", last=1)
            assert reader.take(1) == ["x"]
        until(lambda: list(tmp_path.rglob("*-bells/[0-9]*")))
    finally:
        os.umask(before)
    found = [*tmp_path.rglob("*")]
    assert len(found) == 8
    for path in found:
        assert stat.S_IMODE(path.lstat().st_mode) & 0o077 == 0, path
    app.extensions["sse"].close()


def test_what_is_there_keeps_its_mode(store: SqliteStore) -> None:
    store.file.touch()
    store.file.chmod(0o660)
    bells = Path(f"{store.file}-bells")
    bells.mkdir()
    bells.chmod(0o750)
    reader = Reader(store.open(), "a")
    publish(store.open(), "a", "1")
    assert reader.take(1) == ["1"]
    assert stat.S_IMODE(store.file.stat().st_mode) == 0o660
    assert stat.S_IMODE(Path(f"{store.file}-wal").stat().st_mode) == 0o660
    assert stat.S_IMODE(Path(f"{store.file}-sse.witness").stat().st_mode) == 0o660
    assert stat.S_IMODE(bells.stat().st_mode) == 0o750


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_clock_that_is_set_changes_nothing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    broker, real = store.open(), time.time
    first, *_ = publish(broker, "a", "1", "2")
    monkeypatch.setattr(time, "time", lambda: real() + step)
    assert Reader(store.open(), "a", since=first).take(1) == ["2"]
    publish(broker, "a", *(str(n) for n in range(3 * HISTORY)))
    assert rows(store, "SELECT count(*) FROM sse_events") == [(HISTORY,)]


@pytest.mark.usefixtures("eager")
def test_what_is_dated_ahead_grows_old_from_now_on(store: SqliteStore) -> None:
    broker = store.open(SSE_HISTORY_AGE=0.3)
    publish(broker, "a", "1", "2")
    with closing(sqlite3.connect(store.file)) as connection, connection:
        connection.execute("UPDATE sse_events SET time = time + 3600")

    def is_dropped() -> bool:
        publish(broker, "b", "x")
        found = rows(store, "SELECT count(*) FROM sse_events WHERE channel = 'a'")
        return bool(found == [(0,)])

    until(is_dropped)


def test_who_publishes_drops_what_is_too_much(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(housekeeping, "SLACK", 0.0)
    broker = store.open()
    for number in range(400):
        for channel in "abcd":
            publish(broker, channel, str(number))
    for channel in "abcd":
        query = f"SELECT count(*) FROM sse_events WHERE channel = '{channel}'"
        ((count,),) = rows(store, query)
        assert count < HISTORY + housekeeping.PUBLISHES_PER_PRUNE


def test_counts_are_written_when_they_change_or_run_out(store: SqliteStore) -> None:
    own = store_of(store.open())
    counts = {f"{n}": 1 for n in range(4_000)}
    own.count(counts)
    written = Path(f"{store.file}-wal")
    size = written.stat().st_size
    own.count(dict(counts))
    assert written.stat().st_size == size
    own._counts._told_until = 0.0
    own.count(dict(counts))
    assert written.stat().st_size < size + 3 * connection.PAGE_SIZE
    own.count({**counts, "0": 2})
    assert store.open().subscribers("0") == 2
    own.count({})
    assert rows(store, "SELECT count(*) FROM sse_counts") == [(0,)]


def test_the_write_ahead_log_is_brought_home_while_nobody_publishes(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "flask_sse_lite.brokers.sqlite.housekeeping.CHECKPOINT_INTERVAL", 0.1
    )
    Reader(store.open(), "a")
    with closing(sqlite3.connect(store.file, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0").close()
        sizes = []

        def is_bounded() -> bool:
            connection.execute("UPDATE sse_store SET forgotten = forgotten + 1")
            sizes.append(Path(f"{store.file}-wal").stat().st_size)
            return len(sizes) > 20 and sizes[-1] == sizes[-20]

        until(is_bounded)


@contextmanager
def another_makes_a_checkpoint(file: Path) -> Iterator[None]:
    """A checkpoint goes on that waits for a reader, until the block ends."""
    with (
        closing(sqlite3.connect(file)) as reader,
        closing(sqlite3.connect(file, PATIENCE, check_same_thread=False)) as other,
        closing(sqlite3.connect(file, 0.0, isolation_level=None)) as third,
        ThreadPoolExecutor(1) as pool,
    ):

        def is_under_way() -> bool:
            """Whether the checkpoint has taken the right to write, which comes last."""
            try:
                third.execute("BEGIN IMMEDIATE").connection.rollback()
            except sqlite3.OperationalError:
                return True
            return False

        reader.execute("BEGIN")
        reader.execute("SELECT * FROM sse_store").fetchall()
        query = "PRAGMA wal_checkpoint(TRUNCATE)"
        going_on = pool.submit(lambda: other.execute(query).fetchall())
        until(is_under_way)
        try:
            yield
        finally:
            reader.rollback()
        assert going_on.result() == [(0, 0, 0)]


@pytest.mark.parametrize("is_large", [True, False])
def test_where_the_log_is_large_a_checkpoint_of_another_process_is_waited_for(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    """Otherwise all others would publish on, and the log would grow for as long as one
    process waits for its moment."""
    monkeypatch.setattr(housekeeping, "TIDYING", PATIENCE)
    monkeypatch.setattr(housekeeping, "LARGE_WAL", 0 if is_large else 1_000)
    # The publish makes no checkpoint of its own.
    monkeypatch.setattr(housekeeping, "PUBLISHES_PER_CHECKPOINT", 1 << 60)
    tries: list[int] = []

    def noted(connection: sqlite3.Connection, kind: str) -> list[int]:
        found = [*checkpoint(connection, kind)]
        tries.append(found[0])
        return found

    checkpoint = housekeeping._checkpoint
    monkeypatch.setattr(housekeeping, "_checkpoint", noted)
    broker = store.open()
    publish(broker, "a", "1")
    with ThreadPoolExecutor(1) as pool:
        with another_makes_a_checkpoint(store.file):
            tried = pool.submit(store_of(broker)._upkeep.bring_home)
            if is_large:
                until(lambda: len(tries) > 2)
                assert not tried.done()
            else:
                tried.result()
                assert tries == [1]
        tried.result()
    assert store_of(broker)._connection.written_ahead() == 0


#: The data, type, id and retry of rows that this release does not write.
FOREIGN = [
    "'x', NULL, NULL, '1.5'",
    "x'00ff', NULL, NULL, NULL",
    "CAST(x'ff' AS TEXT), NULL, NULL, NULL",
    "'x', x'00', NULL, NULL",
    "'x', NULL, '', NULL",
    "NULL, 'of a later release', NULL, NULL",
    "NULL, 'begin', NULL, 'much'",
]


@pytest.mark.parametrize("values", FOREIGN)
def test_a_row_that_cannot_be_read_is_a_gap_of_its_channel(
    store: SqliteStore, values: str
) -> None:
    reader, other = Reader(store.open(), "a"), Reader(store.open(), "b")
    publisher = store.open()
    publish(publisher, "a", "1")
    with closing(sqlite3.connect(store.file)) as connection, connection:
        connection.execute("ALTER TABLE sse_events ADD COLUMN later TEXT DEFAULT 'x'")
        connection.execute(
            "INSERT INTO sse_events (time, channel, data, type, id, retry) "
            f"VALUES (0, 'a', {values})"
        )
    publish(publisher, "a", "2")
    publish(publisher, "b", "3")
    late = Reader(store.open(), "a", last=9)
    for there in (reader, late):
        there.until(lambda there=there: "2" in there.data)  # type: ignore[misc]
        assert there.events[-2].type == "stream-gap"
    assert other.take(1) == ["3"]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO sse_runs VALUES ('a', 'x', 'y', 't', 'z', NULL)",
        "INSERT INTO sse_channels VALUES ('a', 'x')",
        "UPDATE sse_events SET time = 'x' WHERE channel = 'a'",
        "UPDATE sse_store SET forgotten = 'x'",
    ],
)
def test_what_another_program_writes_of_a_channel_stops_no_other_channel(
    store: SqliteStore, statement: str
) -> None:
    publisher = store.open()
    publish(publisher, "a", "1")
    with closing(sqlite3.connect(store.file)) as connection, connection:
        connection.execute(statement)
    reader = Reader(store.open(), "a", "b")
    publish(publisher, "b", "2")
    publish(publisher, "a", "3")
    reader.until(lambda: {"2", "3"} <= {*reader.data})
    assert isinstance(publisher, SharedBroker)
    assert {summary.channel for summary in publisher.summaries()} == {"a", "b"}


def put(store: SqliteStore, channel: str, values: str) -> None:
    """Write a row as another program can."""
    with closing(sqlite3.connect(store.file)) as connection, connection:
        connection.execute(
            "INSERT INTO sse_events (time, channel, data, type, id, retry) "
            f"VALUES ({time.time()}, '{channel}', {values})"
        )


@pytest.mark.parametrize("values", FOREIGN)
def test_a_row_of_a_run_that_cannot_be_read_is_a_gap_and_the_run_goes_on(
    store: SqliteStore, values: str, caplog: pytest.LogCaptureFixture
) -> None:
    broker, channel = store.open(), new_run_channel()
    claim = begun(broker, channel, 1000)
    live, other = reader_of_run(store.open(), channel), Reader(store.open(), "b")
    say(broker, claim, "1")
    live.until(lambda: live.data == ["1"])
    put(store, channel, values)
    publish(broker, "b", "2")
    assert other.take(1) == ["2"]
    say(broker, claim, "3")
    broker.end_run(claim)
    late = reader_of_run(store.open(), channel)
    for reader in (live, late):
        reader.until(lambda reader=reader: reader.has_ended)  # type: ignore[misc]
        assert not reader.gaps
        assert [e.type for e in reader.events] == [None, "stream-gap", None]
        assert reader.events[1].json["channels"] == [channel]
        assert [e.data for e in reader.events if e.type is None] == ["1", "3"]
    publish(broker, "b", "4")
    assert other.take(1) == ["4"]
    assert [text for text in caplog.messages if "cannot read" in text]
    # Whoever knows a run's name can read it.
    assert channel.removeprefix(RUN_PREFIX) not in caplog.text
