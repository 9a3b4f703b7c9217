"""How the module that a page loads is served: where, and for how long it is kept."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, render_template_string, url_for

import flask_sse_lite
from flask_sse_lite import SSE, InvalidValue
from flask_sse_lite.browser_module import KEPT_SECONDS, module
from flask_sse_lite.testing import read_events


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
    assert block.endswith("\n: heartbeat 0.25 shareable\n\n")
    response.close()


def test_the_opening_says_that_a_newcomer_does_not_begin_at_the_present(
    app: Flask, sse: SSE
) -> None:
    app.add_url_rule("/replayed", "replayed", lambda: sse.stream("sse", replay=1))
    app.add_url_rule("/run", "run", lambda: sse.run(iter(["first"])))
    for address in ("/replayed", "/run"):
        response = app.test_client().get(address)
        block = next(response.iter_encoded())
        assert b": heartbeat" in block
        assert b"shareable" not in block
        response.close()


# In templates


def rendered(app: Flask, template: str, **values: object) -> str:
    with app.test_request_context():
        return render_template_string(template, **values)


def test_a_template_gets_a_streams_address_with_the_pages_position(
    app: Flask, sse: SSE
) -> None:
    app.config["SSE_PUBLIC_CHANNELS"] = ["*"]
    with app.test_request_context():
        page = render_template_string("{{ sse_url('room 7')|safe }}")
        sse.publish("behind", channel="room 7")
    address = urlsplit(page)
    assert address.path == "/stream"
    query = parse_qs(address.query)
    assert query["channel"] == ["room 7"]
    response = app.test_client().get(page)
    (event,) = read_events(response, count=1)
    assert event.data == "behind"


def test_an_address_of_several_channels_and_of_none(app: Flask) -> None:
    several = rendered(app, "{{ sse_url('a', 'b')|safe }}")
    assert parse_qs(urlsplit(several).query)["channel"] == ["a", "b"]
    assert "channel" not in rendered(app, "{{ sse_url() }}")


def test_an_address_in_a_page_is_escaped(app: Flask) -> None:
    assert "&amp;" in rendered(app, "{{ sse_url('a', 'b') }}")


def test_the_pages_position_is_the_first_that_its_request_took(
    app: Flask, sse: SSE
) -> None:
    with app.test_request_context():
        position = sse.position()
        sse.publish("between")
        assert sse.position() != position
        page = render_template_string("{{ sse_url() }}")
        assert parse_qs(urlsplit(page).query)["last_event_id"] == [position]
    with app.test_request_context():
        first, second = render_template_string(
            "{% set first = sse_url() %}{{ publish('between') }}{{ first }} "
            "{{ sse_url() }}",
            publish=lambda text: sse.publish(text) and "",
        ).split()
        assert first == second


def test_the_modules_tag_has_its_address_and_a_nonce(app: Flask, address: str) -> None:
    tag = f'<script type="module" src="{address}"></script>'
    assert rendered(app, "{{ sse_script() }}") == tag
    with_nonce = rendered(app, "{{ sse_script(nonce) }}", nonce='"n>')
    assert with_nonce == tag.replace('"></', '" nonce="&#34;n&gt;"></')


def test_templates_know_the_blueprint_that_was_registered_first() -> None:
    app = Flask("application")
    app.register_blueprint(SSE("news"), url_prefix="/news")
    app.register_blueprint(SSE("others"), url_prefix="/others")
    assert rendered(app, "{{ sse_url() }}").startswith("/news?")
    assert "/news/sse.js" in rendered(app, "{{ sse_script() }}")


def test_a_name_that_no_channel_can_have_is_refused(app: Flask) -> None:
    with pytest.raises(InvalidValue):
        rendered(app, "{{ sse_url('') }}")


def test_templates_can_still_be_configured_after_the_registration(app: Flask) -> None:
    assert "jinja_env" not in vars(app)
