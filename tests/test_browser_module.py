"""How the module that a page loads is served: where, and for how long it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask, url_for

import flask_sse_lite
from flask_sse_lite import SSE
from flask_sse_lite.browser import KEPT_SECONDS, module


@pytest.fixture
def address(app: Flask) -> str:
    with app.test_request_context():
        return url_for("sse.client")


def test_the_address_says_which_version_the_module_is(address: str) -> None:
    assert address == f"/stream/sse.js?v={module().version}"


def test_the_module_is_served_where_the_streams_are() -> None:
    app = Flask("application")
    app.register_blueprint(SSE("news"), url_prefix="/news")
    with app.test_request_context():
        address = url_for("news.client")
        assert url_for("news.stream") == "/news"
    assert address.startswith("/news/sse.js?v=")
    assert app.test_client().get(address).status_code == 200


def test_what_is_served_is_the_packages_file(app: Flask, address: str) -> None:
    response = app.test_client().get(address)
    file = Path(flask_sse_lite.static_folder, "sse.js")
    assert response.data == file.read_bytes() == module().text
    assert (file.parent / "sse.d.ts").is_file()
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_a_versioned_module_is_kept_for_a_year(app: Flask, address: str) -> None:
    control = app.test_client().get(address).cache_control
    assert control.public
    assert control.immutable
    assert control.max_age == KEPT_SECONDS == 31_536_000


@pytest.mark.parametrize("query", ["", "?v=", "?v=another"])
def test_any_other_is_asked_for_each_time(app: Flask, query: str) -> None:
    control = app.test_client().get(f"/stream/sse.js{query}").cache_control
    assert control.no_cache
    assert control.max_age is None


def test_who_has_the_module_is_not_sent_it_again(app: Flask, address: str) -> None:
    client = app.test_client()
    etag = client.get(address).headers["ETag"]
    again = client.get(address, headers={"If-None-Match": etag})
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == etag


def test_the_module_is_for_everybody(app: Flask, sse: SSE) -> None:
    app = Flask("application")
    guarded = SSE()
    guarded.authorizer(lambda channel: False)
    app.register_blueprint(guarded)
    assert app.test_client().get("/stream/sse.js").status_code == 200


def test_the_opening_says_how_long_a_heartbeat_is(app: Flask) -> None:
    app.config["SSE_HEARTBEAT"] = 0.25
    response = app.test_client().get("/stream")
    block = next(response.iter_encoded()).decode()
    assert block.startswith("event: stream-open\n")
    assert block.endswith("\n: heartbeat 0.25\n\n")
    response.close()
