"""What is drawn by lot is drawn from the system, and never from the application's own
generator."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from flask_sse_lite import SSE
from flask_sse_lite.system.chance import CHANCE
from flask_sse_lite.testing import read_events

EVENTS = 200


@pytest.fixture
def draws() -> Iterator[list[float]]:
    """What a seeded application is to draw next."""
    state = random.getstate()
    random.seed(2026)
    expected = [random.random() for _ in range(3)]
    random.seed(2026)
    yield expected
    random.setstate(state)


@pytest.mark.parametrize("scheme", ["memory", "sqlite"])
def test_what_a_seeded_application_draws_is_not_changed(
    scheme: str, tmp_path: Path, draws: list[float]
) -> None:
    app = Flask(__name__)
    url = "memory://" if scheme == "memory" else f"sqlite:///{tmp_path}/events.db"
    # What drops old events, weighs all history and tells of presence draws by lot, too.
    app.config.update(SSE_URL=url, SSE_HISTORY=10, SSE_PRESENCE=["room.*"])
    app.config["SSE_PUBLIC_CHANNELS"] = ["room.*"]
    sse = SSE(app)
    with app.test_client() as client:
        response = client.get("/stream?channel=room.1")
        for number in range(EVENTS):
            with app.app_context():
                sse.publish(str(number), channel=f"room.{number % 10}")
        assert read_events(response, count=1)
        response.close()
        with app.app_context():
            sse.present("room.1")
            sse.end_streams()
    app.extensions["sse"].broker.close()
    assert [random.random() for _ in range(3)] == draws


def test_processes_that_are_seeded_alike_draw_differently(draws: list[float]) -> None:
    first = [CHANCE.random() for _ in range(3)]
    random.seed(2026)
    assert [CHANCE.random() for _ in range(3)] != first
