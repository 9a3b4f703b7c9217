"""The dashboard and the alerts: each metric that they ask for exists, a real Prometheus
takes them, and what it scrapes answers every panel."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import textwrap
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from flask import Flask
from prometheus_client import CollectorRegistry

from flask_sse_lite import SSE, metrics

from .documentation import ROOT
from .patience import patient
from .servers import HOST, Server, reserved_port, serve, several, until

DASHBOARD = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text("utf-8"))

ALERTS = ROOT / "docs" / "prometheus-alerts.yml"

PAGE = (ROOT / "docs" / "metrics.rst").read_text("utf-8")

PATIENCE = patient(30)

PROMETHEUS = shutil.which("prometheus")

MEASURED = "tests.applications.measured"

#: Streams that each worker has room for.
ROOM = 6

needs_prometheus = pytest.mark.skipif(
    PROMETHEUS is None, reason="prometheus is not installed"
)


def panels() -> list[dict[str, Any]]:
    """The panels, without the headings of rows."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    """What the panels ask for."""
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def alerts() -> list[str]:
    return re.findall(r"expr: (.*)\n", ALERTS.read_text("utf-8"))


@pytest.fixture
def samples(sse: SSE) -> set[str]:
    """The names of all samples that there can be."""
    app, registry = Flask("application"), CollectorRegistry()
    sse.init_app(app)
    metrics.register(app, registry)
    found = set()
    for family in registry.collect():
        name = family.name
        if family.type == "counter":
            found.add(f"{name}_total")
        elif family.type == "histogram":
            found |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
        else:
            found.add(name)
    return found


def test_everything_that_is_asked_for_exists(samples: set[str]) -> None:
    asked = [*expressions(), *alerts()]
    asked.append(DASHBOARD["templating"]["list"][1]["query"]["query"])
    for expression in asked:
        named = re.findall(r"sse_\w+", expression)
        assert named
        assert set(named) <= samples, expression


def test_the_dashboard_shows_every_metric(samples: set[str]) -> None:
    shown = set(re.findall(r"sse_\w+", " ".join(expressions())))
    assert {name for name in samples if not name.endswith(("_sum", "_count"))} == shown


def test_every_panel_says_what_it_is_and_overlaps_no_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken
        taken |= cells
        assert at["x"] + at["w"] <= 24
    for panel in panels():
        assert panel["title"]
        assert panel["description"].endswith(".")
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_the_page_has_the_alerts_of_the_file() -> None:
    shown = textwrap.dedent(PAGE[PAGE.index("    groups:\n") :])
    _, _, rules = ALERTS.read_text("utf-8").partition("\n")
    assert shown == rules


@needs_prometheus
def test_promtool_finds_no_fault_in_the_alerts() -> None:
    command = ["promtool", "check", "rules", str(ALERTS)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 rules found" in done.stdout


# A real Prometheus

CONFIG = """
global:
  scrape_interval: 1s
  scrape_timeout: 1s
  evaluation_interval: 200ms
rule_files: [{alerts}]
scrape_configs:
  - job_name: shop
    static_configs: [{{targets: ["{host}:{port}"]}}]
"""


class Prometheus:
    """A Prometheus that answers on a port."""

    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, path: str, **query: str) -> Any:
        """The data of an answer; None where there is no answer yet."""
        url = f"http://{HOST}:{self._port}/api/v1/{path}?{urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except (OSError, http.client.HTTPException):
            return None

    def values(self, expression: str) -> list[float]:
        found = self.ask("query", query=expression)
        return [float(one["value"][1]) for one in found["result"]] if found else []

    def firing(self) -> set[str]:
        found = self.ask("alerts") or {"alerts": []}
        return {
            one["labels"]["alertname"]
            for one in found["alerts"]
            if one["state"] == "firing"
        }


@contextmanager
def prometheus(scraped: int, folder: Path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes a port of this machine, until the end of the block."""
    assert PROMETHEUS
    config = folder / "prometheus.yml"
    config.write_text(CONFIG.format(alerts=ALERTS, host=HOST, port=scraped))
    with reserved_port() as port, (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                PROMETHEUS,
                f"--config.file={config}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={HOST}:{port}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            asked = Prometheus(port)
            until(lambda: asked.values("up") == [1], PATIENCE)
            yield asked
        finally:
            process.terminate()
            process.wait()


def filled(expression: str) -> str:
    """What Grafana asks for."""
    found = expression.replace("$job", ".*").replace("$__rate_interval", "1m")
    assert "$" not in found
    return found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    numbers = tmp_path / "numbers"
    numbers.mkdir()
    config: dict[str, Any] = {
        "SSE_URL": f"sqlite:///{tmp_path}/events.db",
        "SSE_MAX_CONNECTIONS": ROOM,
        "FOLDER": str(numbers),
    }
    kind = "gunicorn gthread"
    options = f"{several(kind, 2)} --config python:{MEASURED}"
    with serve(kind, app=f"{MEASURED}:app", options=options, **config) as server:
        yield server


@needs_prometheus
def test_what_prometheus_scrapes_answers_every_panel(
    server: Server, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.stream("room")) for _ in range(4)]
        asked = stack.enter_context(prometheus(server.port, tmp_path))
        until(lambda: sum(asked.values("sse_streams_open")) == 4, PATIENCE)
        server.publish(*({"data": f"{n}", "channel": "room"} for n in range(3)))
        for client in clients:
            client.take(3)
        clients.pop().leave()
        until(lambda: asked.values("sum(sse_streams_ended_total)") == [1], PATIENCE)
        until(lambda: asked.values("sse_deliveries_total") == [12], PATIENCE)
        for expression in map(filled, expressions()):
            if is_silent(expression):
                assert asked.ask("query", query=expression)
            else:
                # A rate needs two scrapes.
                until(partial(asked.values, expression), PATIENCE)
        # A scrape that fails makes all values stale until the next one.
        streams = 'sum(sse_streams_open{job=~".*"})'
        until(lambda: asked.values(streams) == [3], PATIENCE)
        assert asked.firing() == set()
        rules = asked.ask("rules")["groups"][0]["rules"]
        assert [rule["health"] for rule in rules] == ["ok"] * 5


def is_silent(expression: str) -> bool:
    """Whether there is nothing to show in this test: no run ended, nobody was refused,
    and nobody came back."""
    words = ("refused", "runs_ended", 'resumed="true"')
    return any(word in expression for word in words)


@needs_prometheus
def test_an_alert_is_told_of_clients_that_find_no_room(
    server: Server, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        asked = stack.enter_context(prometheus(server.port, tmp_path))

        def are_full() -> bool:
            # Who finds no room is told to come back, and others stay.
            stack.enter_context(server.stream("room"))
            return sum(asked.values("sse_streams_open")) == 2 * ROOM

        def is_firing() -> bool:
            server.request("GET", "/stream?channel=room")
            return "NoRoomForStreams" in asked.firing()

        until(are_full, PATIENCE)
        until(is_firing, PATIENCE)
