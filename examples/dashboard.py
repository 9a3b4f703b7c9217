"""Dashboard: a page with its figures in it, and a stream from exactly there on.

To run it: ``flask --app examples/dashboard.py run``, and open two windows.
"""

from __future__ import annotations

from threading import Lock

from flask import Flask, render_template_string
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Dashboard</title>
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
         padding: 0 1rem }
  #figures { display: grid; gap: 1rem;
             grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)) }
  section { border: 1px solid; border-radius: .5rem; padding: 0 1rem 1rem }
  h2 { font-size: 1rem; margin: .5rem 0 0 }
  output { display: block; font-size: 2.5rem; font-variant-numeric: tabular-nums }
  button { font: inherit; padding: .3em .6em }
</style>
<h1>Sold today</h1>
<div id="figures">
{% for name, count in sold.items() %}
  <section>
    <h2>{{ name }}</h2>
    <output id="{{ name }}">{{ count }}</output>
    <button value="{{ url_for('sell', name=name) }}">Sell one</button>
  </section>
{% endfor %}
</div>
<script type="module">
  import { connect } from {{ url_for("sse.client")|tojson }};

  const stream = connect({{ sse_url()|tojson }});
  stream.json("sold", ({ name, count }) => {
    document.getElementById(name).textContent = count;
  });
  // Events were lost, so the figures can be old: load them again.
  stream.addEventListener("gap", () => location.reload());

  for (const button of document.querySelectorAll("button")) {
    button.onclick = () => fetch(button.value, { method: "POST" });
  }
</script>
"""

app = Flask(__name__)
app.config.from_prefixed_env()
app.register_blueprint(sse)
sold = {"apples": 0, "pears": 0, "plums": 0}  # In your application, a database.
lock = Lock()


@app.get("/")
def show() -> ResponseReturnValue:
    sse.position()  # First the position, which sse_url takes up, and then the figures.
    return render_template_string(PAGE, sold=dict(sold))


@app.post("/sold/<any(apples, pears, plums):name>")
def sell(name: str) -> ResponseReturnValue:
    with lock:  # What is published last is how it is.
        sold[name] += 1
        # The new figure, not the difference: a page that gets it twice is still right.
        sse.publish({"name": name, "count": sold[name]}, type="sold")
    return "", 204
