"""Notifications: each user has a channel, and a logout ends the user's streams.

To run it: ``pip install flask-login``, ``flask --app examples/notifications.py run``,
and log in as two users, in two browsers or in a private window.
"""

from __future__ import annotations

import secrets

from flask import Flask, abort, redirect, render_template_string, request, url_for
from flask.typing import ResponseReturnValue
from flask_login import LoginManager, UserMixin, current_user, login_user, logout_user

from flask_sse_lite import sse

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Notifications</title>
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto;
         padding: 0 1rem; overflow-wrap: anywhere }
  form { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0 }
  input, button { font: inherit; padding: .3em .6em }
  ::placeholder { color: inherit; opacity: .7 }
</style>
<h1>Notifications</h1>
{% if current_user.is_authenticated %}
<p id="state" role="status">You are {{ current_user.id }}.</p>
<form method="post" action="{{ url_for('logout') }}"><button>Log out</button></form>
<form id="notify">
  <input name="to" aria-label="To whom" placeholder="To whom" required>
  <input name="text" aria-label="Text" placeholder="Text" autocomplete="off" required>
  <button>Notify</button>
</form>
<ul id="notices"></ul>
<script type="module">
  import { connect } from {{ url_for("sse.client")|tojson }};

  // The tabs of one user share a connection, and those of two users never do.
  const stream = connect({{ url|tojson }}, { shared: {{ current_user.id|tojson }} });
  stream.json("notice", ({ by, text }) => {
    const line = document.createElement("li");
    line.textContent = `${by}: ${text}`;
    document.querySelector("#notices").prepend(line);
  });
  stream.addEventListener("refused", () => {
    document.querySelector("#state").textContent = "You are logged out.";
  });

  const form = document.querySelector("#notify");
  form.onsubmit = event => {
    event.preventDefault();
    fetch({{ url_for("notify")|tojson }}, { method: "POST", body: new FormData(form) });
    form.text.value = "";
  };
</script>
{% else %}
<form method="post" action="{{ url_for('login') }}">
  <input name="user" aria-label="Your name" placeholder="Your name" required autofocus>
  <button>Log in</button>
</form>
{% endif %}
"""


class User(UserMixin):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        self.id = name


@sse.identity
def who() -> str | None:
    """Whose stream it is: so ``sse.disconnect`` finds it."""
    user: str | None = current_user.get_id()
    return user


app = Flask(__name__)
app.secret_key = secrets.token_bytes()  # Each start logs all out: set a key.
# Another site's form cannot post here as one of your users.
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
app.config.from_prefixed_env()
LoginManager(app).user_loader(User)  # Look the user up here.
app.register_blueprint(sse)


@app.get("/")
def show() -> ResponseReturnValue:
    # The page is told of all that follows, also before its stream has begun.
    url = url_for("events", last_event_id=sse.position())
    return render_template_string(PAGE, url=url)


@app.get("/notifications")
def events() -> ResponseReturnValue:
    if not current_user.is_authenticated:
        abort(401)  # No redirect to a login page: a stream could not follow it.
    return sse.stream(f"user.{current_user.id}")


@app.post("/notify")
def notify() -> ResponseReturnValue:
    if not current_user.is_authenticated:
        abort(401)
    notice = {"by": current_user.id, "text": request.form["text"]}
    sse.publish(notice, type="notice", channel=f"user.{request.form['to']}")
    return "", 204


@app.post("/login")
def login() -> ResponseReturnValue:
    name = request.form["user"][:40] or abort(400)
    login_user(User(name))  # Ask for a password here.
    return redirect(url_for("show"), 303)


@app.post("/logout")
def logout() -> ResponseReturnValue:
    user = current_user.get_id()
    logout_user()
    if user is not None:
        # The streams of all of the user's tabs and devices end. Each comes back, and
        # goes on if it is still logged in. This browser has its cookie until it gets
        # the response: none of them is let in before that.
        sse.disconnect(identity=user, hold_off=5)
    return redirect(url_for("show"), 303)
