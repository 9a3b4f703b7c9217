"""Who is compared with whom: the peers, and what each is and does.

What never lives here: how anything is installed (environments.py), run (processes.py)
or measured (measuring.py).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from contenders import BASELINE, CONTENDERS, RECIPE, SERVERS, Contender, gunicorn
from environments import (
    Checkout,
    Debian,
    Environment,
    Here,
    NodePackage,
    Virtualenv,
)
from processes import BUILD

FLASK_SSE = Virtualenv("flask-sse", shown=("Flask-SSE", "gunicorn", "gevent"))
SSE_STARLETTE = Virtualenv(
    "sse-starlette", shown=("sse-starlette", "uvicorn", "uvloop")
)
FASTAPI = Virtualenv("fastapi", shown=("fastapi", "uvicorn", "uvloop"))
BETTER_SSE = NodePackage("better-sse", "0.16.1")
REDIS = Debian({"redis-server": Path("/usr/bin/redis-server")}, service="redis-server")
NGINX = Debian(
    {
        "nginx": Path("/usr/sbin/nginx"),
        "libnginx-mod-nchan": Path("/usr/lib/nginx/modules/ngx_nchan_module.so"),
    },
    service="nginx",
)
REPLAYS = "exactly what it missed, or is told of the gap"
NO_REPLAY = "no replay"


@dataclass(frozen=True)
class Entry:
    """One line of the comparison.

    :param title: what the chart and the tables call it
    :param back: what a client that comes back gets
    :param shares: how several processes share the events; not measured here
    """

    contender: Contender
    title: str
    environments: tuple[Environment, ...]
    back: str
    shares: str
    ours: bool = False

    def prepare(self) -> None:
        for environment in self.environments:
            environment.prepare()

    def versions(self) -> str:
        found: dict[str, str] = {}
        for environment in self.environments:
            found.update(environment.versions())
        return ", ".join(f"{name} {version}" for name, version in found.items())


def ours(server: str, *shown: str) -> Entry:
    return Entry(
        CONTENDERS[f"ours-{server}"],
        f"flask_sse_lite, {server}",
        (Checkout("flask_sse_lite"), Here(shown=("gunicorn", *shown))),
        back=REPLAYS,
        shares="a SQLite file, or Redis",
        ours=True,
    )


def uvicorn(app: str, environment: Virtualenv) -> tuple[str, ...]:
    """Return the command of one process, with uvloop and httptools."""
    return (
        *(environment.python, "-m", "uvicorn", "--host=127.0.0.1", "--port={port}"),
        *("--no-access-log", "--log-level=warning", "--timeout-graceful-shutdown=1"),
        *(f"--app-dir={SERVERS}", app),
    )


_ALL = (
    Entry(
        CONTENDERS[BASELINE],
        "C, one send() each",
        (),
        back=NO_REPLAY,
        shares="not at all",
    ),
    ours("gevent", "gevent"),
    ours("sync"),
    ours("gthread"),
    Entry(
        CONTENDERS[RECIPE],
        "queue per client, gevent",
        (Here(shown=("gunicorn", "gevent")),),
        back=NO_REPLAY,
        shares="not at all",
    ),
    Entry(
        Contender(
            "flask-sse",
            gunicorn(
                "flask_sse_redis:app",
                "--worker-class=gevent",
                "--worker-connections={connections}",
                "--env=FLASK_REDIS_URL=redis://127.0.0.1:{beside_port}",
                python=FLASK_SSE.python,
            ),
            "gunicorn gevent, and Redis, which is counted with it",
            beside=(
                *("/usr/bin/redis-server", "--bind", "127.0.0.1"),
                *("--port", "{beside_port}", "--save", "", "--appendonly", "no"),
            ),
            silent=True,
        ),
        "Flask-SSE, gevent, Redis",
        (FLASK_SSE, REDIS),
        back=NO_REPLAY,
        shares="Redis, always",
    ),
    Entry(
        Contender(
            "sse-starlette",
            uvicorn("sse_starlette_queue:app", SSE_STARLETTE),
            "uvicorn, a queue and a task per subscriber",
        ),
        "sse-starlette, uvicorn",
        (SSE_STARLETTE,),
        back=NO_REPLAY,
        shares="left to the application",
    ),
    Entry(
        Contender(
            "fastapi",
            uvicorn("fastapi_queue:app", FASTAPI),
            "uvicorn, a queue and some tasks per subscriber",
        ),
        "FastAPI's own, uvicorn",
        (FASTAPI,),
        back=NO_REPLAY,
        shares="left to the application",
    ),
    Entry(
        Contender(
            "better-sse",
            (
                *("node", f"{SERVERS}/better_sse.js", "{port}"),
                f"{BUILD}/better-sse/node_modules/better-sse",
            ),
            "Node, a session per subscriber",
        ),
        "better-sse, Node",
        (BETTER_SSE,),
        back=NO_REPLAY,
        shares="left to the application",
    ),
    Entry(
        Contender(
            "nchan",
            (
                *(sys.executable, f"{SERVERS}/nchan.py", "{port}", "{connections}"),
                "{build}/nchan",
            ),
            "nginx, in C; an event is an HTTP request to it",
            events="/events",
        ),
        "nchan, nginx (C)",
        (NGINX,),
        back="what is left of what it missed; a gap is not told",
        shares="shared memory, or Redis",
    ),
)

LINEUP = {entry.contender.name: entry for entry in _ALL}
