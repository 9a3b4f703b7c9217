"""Datastar: the server renders what has changed, and all pages show it.

``datastar-py`` writes an event; its type and its data are published. ``retry`` has
Datastar come back after each end, also after an error; it stays away after 204.

To run it: ``pip install datastar-py``, ``flask --app examples/datastar.py run``, and
open two windows.
"""

from __future__ import annotations

from threading import Lock

from datastar_py import ServerSentEventGenerator
from flask import Flask, render_template_string
from flask.typing import ResponseReturnValue
from markupsafe import Markup

from flask_sse_lite import sse

PAGE = """<!doctype html>
<html lang="en">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Stock</title>
<script type="module"
  src="https://cdn.jsdelivr.net/gh/starfederation/datastar@v1.0.1/bundles/datastar.js">
</script>
<ul data-init="@get('{{ sse_url() }}', {retry: 'always', retryMaxCount: Infinity})">
{{ items }}</ul>
"""
ITEM = """<li id="{{ name }}">{{ name }}: <b>{{ stock }}</b>
<button data-on:click="@post('/buy/{{ name }}')">Buy</button></li>
"""

app = Flask(__name__)
app.config.from_prefixed_env()
app.register_blueprint(sse)
stock = {"apples": 10, "pears": 10}
lock = Lock()


def item(name: str) -> Markup:
    return Markup(render_template_string(ITEM, name=name, stock=stock[name]))


def publish(event: str) -> None:
    """Publish what datastar-py has written: a line for the type, and lines of data."""
    head, *lines = event.rstrip("\n").split("\n")
    data = "\n".join(line.removeprefix("data: ") for line in lines)
    sse.publish(data, type=head.removeprefix("event: "))


@app.get("/")
def show() -> ResponseReturnValue:
    sse.position()  # The page begins here: sse_url takes it up.
    return render_template_string(PAGE, items=Markup().join(map(item, stock)))


@app.post("/buy/<any(apples, pears):name>")
def buy(name: str) -> ResponseReturnValue:
    with lock:  # What is published last is how it is.
        stock[name] -= 1
        publish(ServerSentEventGenerator.patch_elements(item(name)))
    return "", 204
