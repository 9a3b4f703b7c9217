"""Alpine: the server says what has changed, and all pages show it.

Alpine has nothing for streams. The extension's module ``sse.js`` has, and its events
become events of the window, for which every element can listen.

To run it: ``flask --app examples/alpine.py run``, and open two windows.
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
<script defer src="https://cdn.jsdelivr.net/npm/alpinejs@3.17.5/dist/cdn.min.js"></script>
<script type="module">
  import { connect } from {{ url_for("sse.client")|tojson }};
  const stream = connect({{ sse_url()|tojson }});
  stream.json("stock", detail => dispatchEvent(new CustomEvent("stock", { detail })));
  stream.addEventListener("gap", () => location.reload());
</script>
<ul x-data='{ stock: {{ stock|tojson }} }'
    @stock.window="Object.assign(stock, $event.detail)">
  <template x-for="name in Object.keys(stock)">
    <li><span x-text="name"></span>: <b x-text="stock[name]"></b>
    <button @click="fetch(`/buy/${name}`, { method: 'POST' })">Buy</button></li>
  </template>
</ul>
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
