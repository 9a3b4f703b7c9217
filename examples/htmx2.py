"""htmx 2 and its extension ``sse``: the server renders what has changed, and all pages
show it.

An element that names a type (``sse-swap``) gets the events of this type.

To run it: ``flask --app examples/htmx2.py run``, and open two windows.
"""

from __future__ import annotations

from threading import Lock

from flask import Flask, render_template_string
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from flask_sse_lite import sse

PAGE = """<!doctype html>
<html lang="en">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Stock</title>
<script src="https://cdn.jsdelivr.net/npm/htmx.org@2.0.11/dist/htmx.min.js"></script>
<script src="https://cdn.jsdelivr.net/npm/htmx-ext-sse@2.2.4/dist/sse.min.js"></script>
<ul hx-ext="sse" sse-connect="{{ sse_url() }}" sse-close="stream-end">
<li hidden hx-get="/" hx-trigger="sse:stream-gap" hx-target="body"></li>
{% for name in items %}<li sse-swap="{{ name }}">{{ items[name] }}</li>{% endfor %}
</ul>
"""
ITEM = """{{ name }}: <b>{{ stock }}</b>
<button hx-post="/buy/{{ name }}" hx-swap="none">Buy</button>
"""

app = Flask(__name__)
app.config.from_prefixed_env()
app.register_blueprint(sse)
stock = {"apples": 10, "pears": 10}
lock = Lock()


def item(name: str) -> Markup:
    return Markup(render_template_string(ITEM, name=name, stock=stock[name]))


@app.get("/")
def show() -> ResponseReturnValue:
    sse.position()  # The page begins here: sse_url takes it up.
    return render_template_string(PAGE, items={name: item(name) for name in stock})


@app.post("/buy/<any(apples, pears):name>")
def buy(name: str) -> ResponseReturnValue:
    with lock:  # What is published last is how it is.
        stock[name] -= 1
        sse.publish(item(name), type=name)
    return "", 204
