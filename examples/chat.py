"""Chat: a room with what was said in it, and who is there.

To run it: ``flask --app examples/chat.py run``, and enter with two names, in two
browsers or in a private window.
"""

from __future__ import annotations

import secrets
from collections import defaultdict, deque
from threading import Lock

from flask import (
    Flask,
    abort,
    redirect,
    render_template_string,
    request,
    session,
    url_for,
)
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse

#: Messages of a room that a newcomer is shown.
SHOWN = 50

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Chat</title>
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto;
         padding: 0 1rem; overflow-wrap: anywhere }
  form { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1rem 0 }
  input, button { font: inherit; padding: .3em .6em }
  ::placeholder { color: inherit; opacity: .7 }
  input { flex: 1 1 10rem }
  ul { list-style: none; padding: 0 }
  #here { display: flex; flex-wrap: wrap; gap: .5rem }
  #here li { border: 1px solid; border-radius: 1rem; padding: 0 .7rem }
</style>
{% if user %}
<h1>{{ room }}</h1>
<ul id="here" aria-label="Who is here"></ul>
<ul id="said" aria-label="What was said" aria-live="polite"></ul>
<form id="say">
  <input name="text" aria-label="Your message" autocomplete="off" required autofocus>
  <button>Send</button>
</form>
<form method="post" action="{{ url_for('leave') }}"><button>Leave</button></form>
<script type="module">
  import { connect } from {{ url_for("sse.client")|tojson }};

  const here = new Set({{ here|tojson }});
  const items = texts => texts.map(text => {
    const item = document.createElement("li");
    item.textContent = text;  // As text: nobody can send markup.
    return item;
  });
  const showHere = () =>
    document.querySelector("#here").replaceChildren(...items([...here].sort()));
  const showSaid = ({ by, text }) =>
    document.querySelector("#said").append(...items([`${by}: ${text}`]));

  showHere();
  {{ said|tojson }}.forEach(showSaid);
  const stream = connect({{ url|tojson }}, { shared: {{ user|tojson }} });
  stream.json("said", showSaid);
  stream.json("stream-join", ({ identity }) => { here.add(identity); showHere(); });
  stream.json("stream-leave", ({ identity }) => { here.delete(identity); showHere(); });
  for (const type of ["gap", "refused"]) {
    stream.addEventListener(type, () => location.reload());
  }

  const form = document.querySelector("#say");
  form.onsubmit = event => {
    event.preventDefault();
    fetch({{ url_for("say", room=room)|tojson }},
          { method: "POST", body: new FormData(form) });
    form.reset();
  };
</script>
{% else %}
<h1>Chat</h1>
<form method="post" action="{{ url_for('enter') }}">
  <input name="user" aria-label="Your name" placeholder="Your name" required autofocus>
  <button>Enter</button>
</form>
{% endif %}
"""

app = Flask(__name__)
app.secret_key = secrets.token_bytes()  # Each start forgets all: set a key of your own.
app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
app.config["SSE_PRESENCE"] = ["room.*"]  # These channels are told who comes and leaves.
app.config.from_prefixed_env()

# In your application, a database: this is the memory of one process.
said: defaultdict[str, deque[dict[str, str]]] = defaultdict(lambda: deque(maxlen=SHOWN))
lock = Lock()


@sse.identity
def who() -> str | None:
    return session.get("user")


app.register_blueprint(sse)


def visitor() -> str:
    user: str = session.get("user") or abort(401)
    return user


@app.get("/", defaults={"room": "Kitchen"})
@app.get("/rooms/<room>")
def show(room: str) -> ResponseReturnValue:
    if "user" not in session:
        return render_template_string(PAGE)
    with lock:
        # First the position, and then the data: the page is told of all that follows.
        position = sse.position()
        messages = list(said.get(room, ()))  # A look makes no room.
    return render_template_string(
        PAGE,
        user=visitor(),
        room=room,
        said=messages,
        here=[visitor(), *sse.present(f"room.{room}")],
        url=url_for("events", room=room, last_event_id=position),
    )


@app.get("/rooms/<room>/events")
def events(room: str) -> ResponseReturnValue:
    visitor()  # Ask here who may enter.
    return sse.stream(f"room.{room}")


@app.post("/rooms/<room>")
def say(room: str) -> ResponseReturnValue:
    message = {"by": visitor(), "text": request.form["text"]}
    with lock:  # A page that is made meanwhile shows the message or is sent it.
        said[room].append(message)
        sse.publish(message, type="said", channel=f"room.{room}")
    return "", 204


@app.post("/enter")
def enter() -> ResponseReturnValue:
    # Ask for a password here.
    session["user"] = request.form["user"][:40] or abort(400)
    return redirect(url_for("show"), 303)


@app.post("/leave")
def leave() -> ResponseReturnValue:
    if user := session.pop("user", None):
        sse.disconnect(identity=user, hold_off=5)
    return redirect(url_for("show"), 303)
