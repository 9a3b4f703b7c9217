"""Who is there: logins, and what a logout does to open streams."""

from __future__ import annotations

from flask import (
    Blueprint,
    abort,
    redirect,
    render_template,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse

blueprint = Blueprint("accounts", __name__)


def require_user() -> str:
    """The user of this request. Without one, the answer is 401, after which a stream
    stays away."""
    user: str = session.get("user") or abort(401)
    return user


@blueprint.get("/login")
def login() -> ResponseReturnValue:
    return render_template("login.html")


@blueprint.post("/login")
def enter() -> ResponseReturnValue:
    # Ask for a password here.
    session["user"] = request.form["user"][:40] or abort(400)
    return redirect(url_for("tickets.show"), 303)


@blueprint.post("/logout")
def leave() -> ResponseReturnValue:
    if user := session.pop("user", None):
        sse.disconnect(identity=user, hold_off=5)
    return redirect(url_for("accounts.login"), 303)
