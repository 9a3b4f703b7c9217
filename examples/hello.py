"""Hello: what one window says, all windows show.

To run it: ``flask --app examples/hello.py run``, and open two windows.
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
<title>Hello</title>
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto;
         padding: 0 1rem; overflow-wrap: anywhere }
  input, button { font: inherit; padding: .3em .6em }
</style>
<h1>Hello</h1>
<form>
  <input name="text" aria-label="What to say" autocomplete="off" required autofocus>
  <button>Say</button>
</form>
<ul id="said"></ul>
<script type="module">
  import { connect } from {{ url_for("sse.client")|tojson }};

  const stream = connect({{ sse_url()|tojson }});
  stream.json("said", ({ text }) => {
    const line = document.createElement("li");
    line.textContent = text;  // As text: nobody can send markup.
    document.querySelector("#said").append(line);
  });

  const form = document.querySelector("form");
  form.onsubmit = event => {
    event.preventDefault();
    fetch({{ url_for("say")|tojson }}, { method: "POST", body: new FormData(form) });
    form.reset();
  };
</script>
"""

app = Flask(__name__)
app.config.from_prefixed_env()
app.register_blueprint(sse)


@app.get("/")
def show() -> ResponseReturnValue:
    return render_template_string(PAGE)


@app.post("/say")
def say() -> ResponseReturnValue:
    sse.publish({"text": request.form["text"]}, type="said")
    return "", 204
