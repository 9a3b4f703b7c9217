"""Turbo: the server renders what has changed, and all pages show it.

An event is a ``<turbo-stream>``, which says what becomes of its template. Turbo hears
only events without a type.

To run it: ``flask --app examples/turbo.py run``, and open two windows.
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
<script type="module"
  src="https://cdn.jsdelivr.net/npm/@hotwired/turbo@8.0.23/dist/turbo.es2017-esm.js">
</script>
<ul>{{ items }}</ul>
<turbo-stream-source src="{{ sse_url() }}"></turbo-stream-source>
"""
ITEM = """<li id="{{ name }}">{{ name }}: <b>{{ stock }}</b>
<form method="post" action="/buy/{{ name }}" style="display: inline">
<button>Buy</button></form></li>
"""
CHANGE = """<turbo-stream action="replace" target="{{ name }}">
<template>{{ item }}</template></turbo-stream>
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
        sse.publish(render_template_string(CHANGE, name=name, item=item(name)))
    return "", 204
