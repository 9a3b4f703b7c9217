"""The tickets: opened, closed, and shown as they change."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from threading import Lock

from flask import (
    Blueprint,
    Flask,
    abort,
    current_app,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse

from .accounts import require_user

CHANNEL = "tickets"

blueprint = Blueprint("tickets", __name__)


@dataclass
class Ticket:
    number: int
    text: str
    by: str
    is_open: bool = True


@dataclass
class Desk:
    """The tickets of one application. In yours, a database."""

    tickets: dict[int, Ticket] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)


def init_app(app: Flask) -> None:
    app.extensions["desk"] = Desk()


def current_desk() -> Desk:
    desk: Desk = current_app.extensions["desk"]
    return desk


def tell(ticket: Ticket) -> None:
    """Tell all pages how a ticket is now. The desk's lock must be held, so that what is
    told last is how it is."""
    sse.publish(asdict(ticket), type="ticket", channel=CHANNEL)


@blueprint.get("/")
def show() -> ResponseReturnValue:
    if "user" not in session:
        return redirect(url_for("accounts.login"))
    position = sse.position()  # Before the tickets: the page is told of what follows.
    desk = current_desk()
    with desk.lock:
        tickets = [asdict(ticket) for ticket in desk.tickets.values()]
    url = url_for("tickets.events", last_event_id=position)
    return render_template(
        "tickets.html", user=require_user(), tickets=tickets, url=url
    )


@blueprint.get("/events")
def events() -> ResponseReturnValue:
    return sse.stream(CHANNEL, identity=require_user())


@blueprint.post("/tickets")
def create() -> ResponseReturnValue:
    user = require_user()
    desk = current_desk()
    with desk.lock:
        ticket = Ticket(len(desk.tickets) + 1, request.form["text"], by=user)
        desk.tickets[ticket.number] = ticket
        tell(ticket)
    return "", 204


@blueprint.post("/tickets/<int:number>/close")
def close(number: int) -> ResponseReturnValue:
    require_user()
    desk = current_desk()
    with desk.lock:
        ticket = desk.tickets.get(number) or abort(404)
        ticket.is_open = False
        tell(ticket)
    return "", 204
