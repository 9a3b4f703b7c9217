"""A store that goes back: a reader that missed something is told, and no number of one
life is given to two events."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flask_sse_lite import BrokerUnavailable
from flask_sse_lite.brokers import Broker, connect
from flask_sse_lite.brokers.sqlite import life, witness
from flask_sse_lite.event import Event
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing.broker_suite import Reader, publish, sequences

from .servers import PATIENCE, ROOT, until
from .stores import SqliteStore

#: Have a store keep all that these tests publish.
ALL_OF_IT = {"SSE_HISTORY": 1_000}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(tmp_path)
    yield store
    store.close()


def boots(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have the machine seem rebooted from here on."""
    monkeypatch.setattr(witness, "boot_id", lambda: name)
    monkeypatch.setattr(life, "boot_id", lambda: name)


def copied(store: SqliteStore) -> Path:
    """A copy of the whole file as it is now."""
    with closing(sqlite3.connect(store.file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    copy = store.file.with_name("copy")
    shutil.copy(store.file, copy)
    return copy


def beside(store: SqliteStore, *endings: str) -> None:
    for ending in endings:
        Path(f"{store.file}{ending}").unlink(missing_ok=True)


def moved_back(store: SqliteStore, copy: Path) -> None:
    beside(store, "-wal", "-shm")
    shutil.copy(copy, store.file.with_name("other"))
    store.file.with_name("other").replace(store.file)


def written_back(store: SqliteStore, copy: Path) -> None:
    beside(store, "-wal", "-shm")
    shutil.copyfile(copy, store.file)


def made_anew(store: SqliteStore, copy: Path) -> None:
    beside(store, "-wal", "-shm", "")
    shutil.copy(copy, store.file)


WAYS_BACK = [moved_back, written_back, made_anew]


def is_told(broker: Broker, since: str) -> Reader:
    reader = Reader(broker, "a", since=since)
    reader.until(lambda: reader.gaps)
    return reader


@pytest.mark.parametrize("back", WAYS_BACK)
def test_a_copy_that_is_put_back_is_another_life(
    store: SqliteStore, back: object
) -> None:
    broker = store.open(**ALL_OF_IT)
    first = publish(broker, "a", "1", "2", "3")
    copy = copied(store)
    later = publish(broker, "a", *(str(n) for n in range(4, 41)))
    epochs = {later[0].partition("-")[0]}
    for _ in range(2):  # The same copy is put back twice.
        broker.close()
        back(store, copy)  # type: ignore[operator]
        broker = store.open(**ALL_OF_IT)
        ids = publish(broker, "a", *(f"new {n}" for n in range(60)))
        for since in (first[-1], later[10], later[-1]):
            reader = is_told(broker, since)
            assert reader.data[:4] == ["1", "2", "3", "new 0"]
            assert len(reader.data) == 63
        epochs.add(ids[0].partition("-")[0])
    assert len(epochs) == 3


@pytest.mark.parametrize("back", WAYS_BACK)
def test_a_reader_that_stays_is_told_that_the_file_was_put_back(
    store: SqliteStore, back: object
) -> None:
    broker = store.open(**ALL_OF_IT)
    reader = Reader(broker, "a")
    publish(broker, "a", "1")
    copy = copied(store)
    publish(broker, "a", *(str(n) for n in range(2, 41)))
    reader.take(40)
    back(store, copy)  # type: ignore[operator]
    ids = killed(store)
    reader.until(lambda: [e.id for e in reader.events[-10:]] == ids)
    assert reader.gaps
    with closing(sqlite3.connect(store.file)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_whose_rows_went_back_under_a_publisher_is_another_life(
    store: SqliteStore,
) -> None:
    broker = store.open()
    ids = publish(broker, "a", "1", "2", "3")
    with closing(sqlite3.connect(store.file)) as connection, connection:
        connection.execute("DELETE FROM sse_events WHERE sequence > 1")
        connection.execute("UPDATE sqlite_sequence SET seq = 1")
    (new,) = publish(broker, "a", "4")
    assert new.partition("-")[0] != ids[0].partition("-")[0]
    assert is_told(store.open(), ids[1]).data == ["1", "4"]


def test_a_reader_whose_place_was_taken_by_another_event_is_told(
    store: SqliteStore,
) -> None:
    broker = store.open(**ALL_OF_IT)
    reader = Reader(broker, "a")
    publish(store.open(**ALL_OF_IT), "a", "1", "2", "3")
    assert reader.take(3) == ["1", "2", "3"]
    now = broker.store._connection.now()  # type: ignore[attr-defined]
    with closing(sqlite3.connect(store.file)) as connection, connection:
        connection.execute("DELETE FROM sse_events WHERE sequence > 1")
        connection.executemany(
            "INSERT INTO sse_events (sequence, time, channel, data) "
            "VALUES (?, ?, 'a', 'new')",
            [(n, now + n) for n in range(2, 10)],
        )
    reader.until(lambda: reader.gaps)
    assert reader.data == ["1", *["new"] * 8]


@pytest.mark.parametrize("gone", [("-wal",), ("-shm",), ("-wal", "-shm")])
def test_what_lies_beside_an_open_file_can_be_removed(
    store: SqliteStore, gone: tuple[str, ...]
) -> None:
    broker, other = store.open(**ALL_OF_IT), store.open(**ALL_OF_IT)
    reader = Reader(other, "a")
    ids = publish(broker, "a", "1", "2")
    reader.take(2)
    beside(store, *gone)
    with pytest.raises(BrokerUnavailable, match="deleted or replaced"):
        publish(broker, "a", "lost")

    def is_back() -> bool:
        try:
            return bool(publish(broker, "a", "3"))
        except BrokerUnavailable:
            return False

    until(is_back)
    reader.until(lambda: "3" in reader.data)
    publish(store.open(**ALL_OF_IT), "a", "4")
    reader.until(lambda: "4" in reader.data)
    late = Reader(store.open(**ALL_OF_IT), "a", since=ids[0])
    late.until(lambda: "4" in late.data)
    # The event whose publish failed can be in the file.
    assert late.gaps or [d for d in late.data if d != "lost"] == ["2", "3", "4"]


PUBLISHES_AND_DIES = """
import os, sys
from flask_sse_lite import Event
from flask_sse_lite.brokers import connect
from flask_sse_lite.brokers.sqlite import housekeeping
from flask_sse_lite.settings import Settings
# Nothing is brought from the write-ahead log into the file.
housekeeping.PUBLISHES_PER_CHECKPOINT = 1_000_000
housekeeping.CHECKPOINT_INTERVAL = 1_000
url = f"sqlite:///{sys.argv[1]}"
broker = connect(Settings.read({"SSE_URL": url, "SSE_HISTORY": 1_000}))
print(*[broker.publish("a", Event(str(n))).id for n in range(10)], flush=True)
os.kill(os.getpid(), 9)
"""


def killed(store: SqliteStore) -> list[str]:
    """The ids of ten events. Their publisher was killed."""
    process = subprocess.run(
        [sys.executable, "-c", PUBLISHES_AND_DIES, str(store.file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    return process.stdout.split()


def test_who_was_killed_loses_nothing(store: SqliteStore) -> None:
    ids = killed(store)
    broker = store.open(**ALL_OF_IT)
    assert Reader(broker, "a", since=ids[3]).take(6) == list("456789")
    (id,) = publish(broker, "a", "10")
    assert sequences([id]) == [11]
    assert id.partition("-")[0] == ids[0].partition("-")[0]


def test_what_was_written_ahead_by_who_was_killed_can_be_missed(
    store: SqliteStore,
) -> None:
    publish(store.open(**ALL_OF_IT), "a", "first")
    store.close()
    ids = killed(store)
    beside(store, "-wal", "-shm")
    assert is_told(store.open(**ALL_OF_IT), ids[-1]).data == ["first"]


@pytest.mark.parametrize("synchronous", ["normal", "full"])
def test_a_machine_that_was_restarted(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, synchronous: str
) -> None:
    url = f"sqlite:///{store.file}?synchronous={synchronous}"
    boots(monkeypatch, "0-1")
    first, last = publish(store.open(SSE_URL=url, **ALL_OF_IT), "a", "1", "2")
    store.close()
    boots(monkeypatch, "0-2")
    broker = store.open(SSE_URL=url, **ALL_OF_IT)
    (new,) = publish(broker, "a", "3")
    if synchronous == "normal":
        assert is_told(broker, last).data == ["1", "2", "3"]
        return
    assert Reader(broker, "a", since=first).take(2) == ["2", "3"]
    epoch, _, number = last.partition("-")
    assert sequences([new]) == [int(number) + life.JUMP + 1]
    # As if this number had been given out before a snapshot was restored.
    assert is_told(broker, f"{epoch}-{int(number) + 7}")


def test_what_synchronous_says_is_remembered_by_the_file(store: SqliteStore) -> None:
    def mode(broker: Broker) -> int:
        publish(broker, "a", "x")
        connection = broker.store._connection._connection  # type: ignore[attr-defined]
        return int(connection.execute("PRAGMA synchronous").fetchone()[0])

    url = f"sqlite:///{store.file}"
    assert mode(store.open()) == 1
    assert mode(store.open(SSE_URL=f"{url}?synchronous=full")) == 2
    guest = sqlite_guest(store)
    assert mode(guest) == 2
    guest.close()
    assert mode(store.open()) == 1


def sqlite_guest(store: SqliteStore) -> Broker:
    return connect(Settings.of_guest(store.url, timeout=5))


def test_a_file_and_its_witness_that_are_copied_are_another_life(
    store: SqliteStore, tmp_path: Path
) -> None:
    ids = publish(store.open(), "a", "1", "2")
    store.close()
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    for path in tmp_path.glob("events.db*"):
        if path.is_file():
            shutil.copy2(path, folder)
    copy = SqliteStore(folder)
    assert is_told(copy.open(), ids[0]).data == ["1", "2"]
    copy.close()
    assert Reader(store.open(), "a", since=ids[0]).take(1) == ["2"]


def test_a_witness_that_is_gone_cannot_speak_for_its_file(store: SqliteStore) -> None:
    (id,) = publish(store.open(), "a", "1")
    store.close()
    beside(store, "-sse.witness")
    is_told(store.open(), id)


def test_a_file_of_the_release_before_goes_on(store: SqliteStore) -> None:
    ids = publish(store.open(), "a", "1", "2")
    store.close()
    beside(store, "-sse.witness")
    with closing(sqlite3.connect(store.file)) as connection, connection:
        connection.execute("DROP TABLE sse_life")
    assert Reader(store.open(), "a", since=ids[0]).take(1) == ["2"]


def test_a_file_that_needs_a_later_release_is_refused(store: SqliteStore) -> None:
    publish(store.open(), "a", "1")
    store.close()
    with closing(sqlite3.connect(store.file)) as connection, connection:
        connection.execute("UPDATE sse_life SET value = '9' WHERE name = 'format'")
    publish(store.open(), "a", "2")
    store.close()
    with closing(sqlite3.connect(store.file)) as connection, connection:
        connection.execute("INSERT INTO sse_life VALUES ('needs', '9')")
    with pytest.raises(BrokerUnavailable, match=r"format 9.* Install a later"):
        store.open().publish("a", Event("3"))


def test_where_no_witness_can_be_had_it_is_said(
    store: SqliteStore, caplog: pytest.LogCaptureFixture
) -> None:
    os.mkdir(f"{store.file}-sse.witness")
    broker = store.open()
    publish(broker, "a", "1")
    assert Reader(broker, "a", last=1).take(1) == ["1"]
    assert "no witness" in caplog.text


def test_what_a_lost_run_is_ended_with_counts_as_given_out(store: SqliteStore) -> None:
    runner = store.open()
    since = runner.position()
    assert runner.begin_run("a", 1_000)
    runner.close()  # Nobody extends its lease any more.
    copy = copied(store)
    with closing(sqlite3.connect(store.file)) as connection, connection:
        connection.execute("UPDATE sse_runs SET lease = 0")
    reader = Reader(store.open(), "a", since=since)
    reader.until(lambda: reader.has_ended)
    since = store.open().position()
    store.close()
    written_back(store, copy)
    publisher = store.open()
    for text in ("1", "2", "3"):
        publish(publisher, "a", text)
    is_told(publisher, since)
