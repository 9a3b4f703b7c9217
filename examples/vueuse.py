"""VueUse: the server says what has changed, and all pages show it.

``useEventSource`` comes back after an error only with ``autoReconnect``, and goes on
with that after the end of a stream, so the page closes it then.

To run it: ``flask --app examples/vueuse.py run``, and open two windows.
"""

from __future__ import annotations

from threading import Lock

from flask import Flask, render_template_string
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse

PAGE = """<!doctype html>
<html lang="en">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Stock</title>
{% set cdn = "https://cdn.jsdelivr.net/npm" %}
<script src="{{ cdn }}/vue@3.5.45/dist/vue.global.prod.js"></script>
<script src="{{ cdn }}/@vueuse/shared@15.0.0/dist/index.iife.min.js"></script>
<script src="{{ cdn }}/@vueuse/core@15.0.0/dist/index.iife.min.js"></script>
<ul><li v-for="(count, name) in stock">
  <span v-text="name"></span>: <b v-text="count"></b> <button
    @click="buy(name)">Buy</button>
</li></ul>
<script>
  const stock = Vue.reactive({{ stock|tojson }});
  const buy = name => fetch(`/buy/${name}`, { method: "POST" });
  const types = ["stock", "stream-gap", "stream-end"];
  const options = { autoReconnect: true };
  const source = VueUse.useEventSource({{ sse_url()|tojson }}, types, options);
  Vue.watch([source.event, source.data], ([type, data]) => {
    if (type === "stock") Object.assign(stock, JSON.parse(data));
    if (type === "stream-gap") location.reload();
    if (type === "stream-end") source.close();
  });
  Vue.createApp({ setup: () => ({ stock, buy }) }).mount("ul");
</script>
"""

app = Flask(__name__)
app.config.from_prefixed_env()
app.register_blueprint(sse)
stock = {"apples": 10, "pears": 10}
lock = Lock()


@app.get("/")
def show() -> ResponseReturnValue:
    sse.position()  # The page begins here: sse_url takes it up.
    return render_template_string(PAGE, stock=stock)


@app.post("/buy/<any(apples, pears):name>")
def buy(name: str) -> ResponseReturnValue:
    with lock:  # What is published last is how it is.
        stock[name] -= 1
        sse.publish({name: stock[name]}, type="stock")
    return "", 204
