"""htmx 4: the server renders what has changed, and all pages show it.

htmx swaps events without a type into the page. Each of these replaces the element that
has its id. An event with a type becomes an event of the element that connects.

To run it: ``flask --app examples/htmx.py run``, and open two windows.
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
<script src="https://cdn.jsdelivr.net/npm/htmx.org@4.0.1/dist/htmx.min.js"></script>
<script src="https://cdn.jsdelivr.net/npm/htmx.org@4.0.1/dist/ext/hx-sse.min.js"></script>
<ul hx-sse:connect="{{ sse_url() }}" hx-sse:close="stream-end"
    hx-on:stream-gap="location.reload()">{{ items }}</ul>
"""
ITEM = """<li id="{{ name }}" hx-swap-oob="true">{{ name }}: <b>{{ stock }}</b>
<button hx-post="/buy/{{ name }}" hx-swap="none">Buy</button></li>
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
    return render_template_string(PAGE, items=Markup().join(map(item, stock)))


@app.post("/buy/<any(apples, pears):name>")
def buy(name: str) -> ResponseReturnValue:
    with lock:  # What is published last is how it is.
        stock[name] -= 1
        sse.publish(item(name))
    return "", 204
