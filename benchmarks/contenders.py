"""The servers measured, one entry each. What never lives here: how they are measured.

To add one: a file in `servers/` that has the routes of `servers/control.py` (or speaks
the same, as `baseline.c` does), and an entry in `CONTENDERS`. In a command `{port}`,
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
    name: str
    command: tuple[str, ...]
    notes: str

    def command_line(self, **values: object) -> list[str]:
        return [part.format_map(values) for part in self.command]


def gunicorn(app: str, *options: str) -> tuple[str, ...]:
    """Return the command of one worker; the generous timeout is for large rounds.

    The graceful timeout is short because greenlets that wait on a queue never notice
    that their clients have left, and the control socket would lie in the user's home.
    """
    return (
        *(sys.executable, "-m", "gunicorn", "--bind=127.0.0.1:{port}", "--workers=1"),
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
