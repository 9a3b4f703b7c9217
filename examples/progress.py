"""Progress: a job in a thread, and a page that follows it and can be reloaded.

To run it: ``flask --app examples/progress.py run``.
``progress_celery.py`` and ``progress_rq.py`` have the same page and the same job, with
a task queue in place of the thread.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from threading import Thread
from typing import Any

from flask import Flask, redirect, render_template_string, url_for
from flask.typing import ResponseReturnValue

from flask_sse_lite import SSE, Publisher, sse

PICTURES = 20

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Progress</title>
<style>
  body { font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto;
         padding: 0 1rem }
  button { font: inherit; padding: .3em .6em }
  progress { width: 100%; height: 1.5rem }
</style>
<h1>Progress</h1>
<form method="post" action="{{ url_for('start') }}">
  <button>Resize pictures</button>
</form>
{% if job %}
<p><progress aria-label="Pictures" value="0" max="1"></progress></p>
<p id="note" role="status">It begins as soon as it can.</p>
<script type="module">
  import { connect } from {{ url_for("sse.client")|tojson }};

  const bar = document.querySelector("progress");
  const note = document.querySelector("#note");
  const stream = connect({{ url_for("events", job=job)|tojson }});
  stream.json("progress", ({ done, of }) => {
    bar.value = done;
    bar.max = of;
    note.textContent = `${done} of ${of} pictures`;
  });
  stream.addEventListener("failed", event => { note.textContent = event.data; });
</script>
{% endif %}
"""


def resize(job: str, publisher: SSE | Publisher) -> None:
    """The job. Each event says where it stands, so a page needs only the last one.

    :param publisher: ``sse`` within the application, a ``Publisher`` elsewhere.
    """
    channel = f"job.{job}"
    try:
        for done in range(1, PICTURES + 1):
            time.sleep(0.1)  # The work.
            progress = {"done": done, "of": PICTURES}
            publisher.publish(progress, type="progress", channel=channel)
    except Exception:
        publisher.publish("Try again later.", type="failed", channel=channel)
        raise
    finally:
        publisher.close(channel)


def create_app(enqueue: Callable[[str], object] | None = None, **config: Any) -> Flask:
    """The application.

    :param enqueue: gives a job to a task queue. None: a thread does it.
    """
    app = Flask(__name__)
    app.config.from_mapping(config)
    app.config.from_prefixed_env()
    app.register_blueprint(sse)

    def work(job: str) -> None:
        with app.app_context():
            resize(job, sse)

    def in_a_thread(job: str) -> None:
        Thread(target=work, args=[job]).start()

    @app.get("/")
    @app.get("/jobs/<job>")
    def show(job: str | None = None) -> ResponseReturnValue:
        return render_template_string(PAGE, job=job)

    @app.post("/jobs")
    def start() -> ResponseReturnValue:
        job = uuid.uuid4().hex
        (enqueue or in_a_thread)(job)
        return redirect(url_for("show", job=job), 303)

    @app.get("/jobs/<job>/events")
    def events(job: str) -> ResponseReturnValue:  # Ask here whose job it is.
        # A page that comes late, or is reloaded, is told at once where the job stands.
        return sse.stream(f"job.{job}", replay=1)

    return app
