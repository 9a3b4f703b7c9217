"""The application of these files: a stream that each page follows. Put yours here.

To run it on your machine: ``flask run``, in this folder.
"""

from __future__ import annotations

from flask import Flask, render_template_string, request
from flask.typing import ResponseReturnValue

from flask_sse_lite import sse

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Deployed</title>
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto;
         padding: 0 1rem; overflow-wrap: anywhere }
</style>
<h1>Deployed</h1>
<p id="state" role="status"></p>
<ul></ul>
<script type="module">
  import { connect } from {{ url_for("sse.client")|tojson }};

  const stream = connect({{ sse_url()|tojson }});
  stream.onmessage = event => {
    const line = document.createElement("li");
    line.textContent = event.data;
    document.querySelector("ul").append(line);
  };
  stream.addEventListener("statechange", event => {
    document.querySelector("#state").textContent = event.detail.state;
  });
</script>
"""

app = Flask(__name__)
app.config.from_prefixed_env()  # FLASK_SSE_URL is the setting SSE_URL.
app.register_blueprint(sse)


@app.get("/")
def show() -> ResponseReturnValue:
    return render_template_string(PAGE)


@app.post("/say")
def say() -> ResponseReturnValue:
    sse.publish(request.form["text"])
    return "", 204


@app.get("/health")
def health() -> ResponseReturnValue:
    """The process answers. A store that is away is no reason to restart it: streams go
    on when the store is back."""
    return "", 204
