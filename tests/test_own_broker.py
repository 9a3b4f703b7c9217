"""A broker of an application's own keeps what every broker promises: the toy of
shelf.py passes the suite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_sse_lite.brokers import Broker, connect, register
from flask_sse_lite.settings import Settings
from flask_sse_lite.testing.broker_suite import *  # noqa: F403
from flask_sse_lite.testing.broker_suite import StoreUnderTest

from .shelf import connect_to_shelf

register("shelf", connect_to_shelf)


class Shelf(StoreUnderTest):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        folder.mkdir()

    @property
    def url(self) -> str:
        return f"shelf://{self._folder}"

    def connect(self, **config: Any) -> Broker:
        return connect(Settings.read({"SSE_URL": self.url, **config}))

    def lose_everything(self) -> None:
        for file in [self._folder / "index", *self._folder.glob("0*")]:
            file.unlink(missing_ok=True)

    def go_away(self) -> None:
        self._folder.rename(self._folder.with_suffix(".away"))

    def come_back(self) -> None:
        self._folder.with_suffix(".away").rename(self._folder)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Shelf]:
    shelf = Shelf(tmp_path / "shelf")
    yield shelf
    shelf.close()
