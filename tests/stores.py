"""The package's own brokers, each over a store that a test can spoil.

What every broker promises stands in ``flask_sse_lite.testing.broker_suite``.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from flask_sse_lite.brokers import Broker, connect
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing.broker_suite import StoreUnderTest

from .redis_servers import PERSISTENT, RedisServer, redis_server
from .servers import PATIENCE, until


class MemoryStore(StoreUnderTest):
    is_shared = False

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._broker: Broker | None = None

    def connect(self, **config: Any) -> Broker:
        if self._broker is None:
            self._broker = connect(Settings.read(config))
        return self._broker


class SqliteStore(StoreUnderTest):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.file = folder / "events.db"

    @property
    def url(self) -> str:
        return f"sqlite:///{self.file}"

    def connect(self, **config: Any) -> Broker:
        return connect(Settings.read({"SSE_URL": self.url, **config}))

    def lose_everything(self) -> None:
        # A broker makes no new file in the midst, because it waits for the same lock.
        folder = os.open(self.file.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            for ending in ("", "-wal", "-shm"):
                Path(f"{self.file}{ending}").unlink(missing_ok=True)
        finally:
            os.close(folder)

    def put_in_place(self, other: Path) -> None:
        """Have another file take the place of the store's, in one step. If there were
        none for a moment, a broker would make a new one."""
        connection = sqlite3.connect(self.file, PATIENCE, isolation_level=None)

        def is_alone() -> bool:
            """Whether nobody else writes from here on, and all is in the file. What is
            written ahead would be taken for a part of the other file."""
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            connection.execute("BEGIN IMMEDIATE")
            if os.path.getsize(f"{self.file}-wal"):
                connection.execute("ROLLBACK")
            return connection.in_transaction

        with closing(connection):
            until(is_alone)
            other.replace(self.file)

    def go_away(self) -> None:
        self._away = self.file.with_name("away")
        self._away.hardlink_to(self.file)
        other = self.file.with_name("other")
        other.write_text("This is something else. " * 1000)
        self.put_in_place(other)

    def come_back(self) -> None:
        self._away.replace(self.file)


class RedisStore(StoreUnderTest):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._running = ExitStack()
        self._server: RedisServer | None = None

    @property
    def server(self) -> RedisServer:
        if self._server is None:
            running = redis_server(*PERSISTENT)
            self._server = self._running.enter_context(running)
        return self._server

    @property
    def url(self) -> str:
        return self.server.url

    def connect(self, **config: Any) -> Broker:
        return connect(Settings.read({"SSE_URL": self.url, **config}))

    def lose_everything(self) -> None:
        self.server.ask("FLUSHALL")

    def go_away(self) -> None:
        self.server.stop()

    def come_back(self) -> None:
        self.server.start()

    def close(self) -> None:
        super().close()
        self._running.close()
        self._server = None


STORES: dict[str, type[MemoryStore | SqliteStore | RedisStore]] = {
    "memory": MemoryStore,
    "sqlite": SqliteStore,
    "redis": RedisStore,
}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    store = STORES[request.param](tmp_path)
    yield store
    store.close()


@pytest.fixture(params=[name for name in STORES if STORES[name].is_shared])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StoreUnderTest]:
    """A store that several processes can share."""
    store = STORES[request.param](tmp_path)
    yield store
    store.close()
