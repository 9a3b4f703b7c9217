"""The servers measured, one entry each. What never lives here: how they are measured.

To add a server, write a file in `servers/` with the route /publish of
`servers/control.py`, and an entry in `CONTENDERS`. A peer has an environment of its
own, and its entry stands in `lineup.py`. In a command `{port}`, `{beside_port}`,
`{connections}` and `{build}` are filled in.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

SERVERS = Path(__file__).parent / "servers"
STREAM = "/stream?channel=sse"

BASELINE = "c-baseline"
RECIPE = "queue-recipe"


@dataclass(frozen=True)
class Contender:
    """How a server is run, and what the load generator must know of it.

    :param beside: the command of a program that the server needs. It is started first,
        and its CPU and memory are counted as the server's
    :param events: the path that takes one event as a request's body, for a server that
        cannot make the events itself
    :param silent: it sends nothing, not even a head, before the first event
    """

    name: str
    command: tuple[str, ...]
    notes: str
    beside: tuple[str, ...] = ()
    events: str | None = None
    silent: bool = False

    def command_lines(self, **values: object) -> list[list[str]]:
        """Return the commands in the order in which they are started."""
        commands = filter(None, (self.beside, self.command))
        return [[part.format_map(values) for part in command] for command in commands]


def gunicorn(app: str, *options: str, python: str = sys.executable) -> tuple[str, ...]:
    """Return the command of one worker.

    The timeout is long enough for large rounds. The graceful timeout is short because
    greenlets that wait on a queue never notice that their clients have left. There is
    no control socket, as it would lie in the user's home.
    """
    return (
        *(python, "-m", "gunicorn", "--bind=127.0.0.1:{port}", "--workers=1"),
        *("--timeout=120", "--graceful-timeout=1", "--no-control-socket"),
        *(f"--chdir={SERVERS}", *options, app),
    )


_ALL = (
    Contender(
        BASELINE,
        ("{build}/baseline", "{port}"),
        "C, epoll, one send per delivery",
    ),
    Contender(
        RECIPE,
        gunicorn(
            "queue_recipe:app",
            "--worker-class=gevent",
            "--worker-connections={connections}",
        ),
        "gunicorn gevent, a queue and a greenlet per subscriber",
    ),
    Contender(
        "ours-iterable",
        gunicorn(
            "ours:app",
            "--worker-class=gevent",
            "--worker-connections={connections}",
            "--env=FLASK_SSE_HANDOFF=false",
        ),
        "gunicorn gevent, no handoff: a greenlet per subscriber",
    ),
    # gunicorn's limit of 1000 connections stays: subscribers must not count for it.
    Contender(
        "ours-gevent",
        gunicorn("ours:app", "--worker-class=gevent"),
        "gunicorn gevent, no other options",
    ),
    Contender(
        "ours-sync",
        gunicorn("ours:app", "--worker-class=sync"),
        "gunicorn sync, no other options",
    ),
    Contender(
        "ours-gthread",
        gunicorn("ours:app", "--worker-class=gthread", "--threads=4"),
        "gunicorn gthread, 4 threads",
    ),
)

CONTENDERS = {contender.name: contender for contender in _ALL}


def at_scale(worker: str, *options: str) -> Contender:
    """Return the extension on a worker class of gunicorn, for scale.py."""
    return Contender(
        f"ours-{worker}",
        gunicorn(
            "ours_at_scale:app",
            f"--worker-class={worker}",
            *options,
            '--env=FLASK_SSE_PUBLIC_CHANNELS=["*"]',
        ),
        f"gunicorn {worker}",
    )
