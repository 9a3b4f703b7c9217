"""Tickets: who is told what of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from flask import Flask
from flask.testing import FlaskClient

from flask_sse_lite.testing import published, read_events

OPENED = {"number": 1, "text": "It hangs.", "by": "ann", "is_open": True}


def test_what_one_opens_the_others_see(log_in: Callable[[str], FlaskClient]) -> None:
    ann, bob = log_in("ann"), log_in("bob")
    stream = bob.get("/events")  # It begins here. It is read when all has happened.
    ann.post("/tickets", data={"text": "It hangs."})
    bob.post("/tickets/1/close")
    opened, closed = read_events(stream, count=2)
    assert opened.type == "ticket"
    assert opened.json == OPENED
    assert closed.json == OPENED | {"is_open": False}


def test_a_ticket_is_published_on_its_channel(
    app: Flask, log_in: Callable[[str], FlaskClient]
) -> None:
    with published(app) as events:  # No stream is needed for this.
        log_in("ann").post("/tickets", data={"text": "It hangs."})
    assert [(event.channel, event.json) for event in events] == [("tickets", OPENED)]


def test_nothing_is_published_of_a_ticket_that_is_not_there(
    app: Flask, log_in: Callable[[str], FlaskClient]
) -> None:
    with published(app) as events:
        assert log_in("ann").post("/tickets/7/close").status_code == 404
    assert events == []


def test_a_page_is_told_of_what_comes_after_its_data(
    log_in: Callable[[str], FlaskClient],
) -> None:
    ann = log_in("ann")
    ann.post("/tickets", data={"text": "Shown in the page."})
    page = ann.get("/").text
    assert "Shown in the page." in page
    # Before the page has connected:
    ann.post("/tickets", data={"text": "Told by the stream."})
    (url,) = re.findall(r'connect\(("/events.+?"),', page)
    (event,) = read_events(ann.get(json.loads(url)), count=1)
    assert event.json["text"] == "Told by the stream."


def test_applications_of_one_factory_share_nothing(
    app: Flask, log_in: Callable[[str], FlaskClient]
) -> None:
    from .. import create_app

    with published(create_app({"TESTING": True})) as events:
        log_in("ann").post("/tickets", data={"text": "It hangs."})
    assert events == []
