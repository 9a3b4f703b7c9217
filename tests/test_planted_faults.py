"""The doctor is shown servers, proxies and applications in which one thing is wrong,
and names that; of those that are set up as the documentation has them, it says nothing.

Each row of a table plants one fault. The doctor is the command, with the configuration
of the server that it is shown.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .certificates import issued
from .patience import patient
from .proxies import PROGRAMS, VARNISH, careless, proxy, replaced, varnish
from .redis_servers import PERSISTENT, RedisServer, redis_server
from .servers import (
    CHANNELS,
    HOST,
    PATIENCE,
    ROOT,
    Server,
    descriptor_limit,
    reserved_port,
    serve,
    several,
    until,
)
from .versions import Environment, Layer, install, running_python

AILING = "tests.applications.ailing:app"

#: Seconds of silence between two signs of life: short, where a test waits for them, and
#: long, where a proxy is to cut the stream before.
BEAT, SLOW_BEAT = 1.0, 6.0

#: Seconds after which a proxy of the tests cuts what is silent.
SHORT = 2

#: Seconds for which the doctor waits for an answer: for long, where all must come; and
#: where some never comes, for as long as a busy machine can take.
LONG, ENOUGH = f"{PATIENCE:g}", f"{patient(10):g}"

Findings = dict[str, dict[str, str]]

#: An application in a folder of its own.
SHOP = """
from flask import Flask
from flask_sse_lite import sse

app = Flask(__name__)
app.config.from_prefixed_env()
sse.init_app(app)
app.add_url_rule("/ping", "ping", lambda: "pong")
"""


def ask_doctor(
    server: Server,
    url: str | None = None,
    *words: str,
    app: str = CHANNELS,
    environment: Mapping[str, str] | None = None,
    **changed: Any,
) -> Findings:
    """What the command finds, by code, with the configuration of a server.

    :param environment: more of the command's.
    :param changed: of that configuration.
    """
    target = () if url is None else ("--url", url, "--patience", ENOUGH)
    whole = {**server._environment, **(environment or {})}
    whole |= {f"FLASK_{name}": json.dumps(v) for name, v in changed.items()}
    folder = Path(server.home("."))
    return doctor_in(folder, *target, *words, app=app, environment=whole)


def doctor_in(
    folder: Path,
    *words: str,
    app: str = "shop",
    environment: dict[str, str] | None = None,
) -> Findings:
    """What the command finds, by code, in a folder."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "flask", "--app", app),
            *("sse", "doctor", "--json", *words),
        ],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,
        check=False,
    )
    print(done.stderr)
    told = json.loads(done.stdout)
    print(json.dumps(told, indent=1))
    found = {finding["code"]: finding for finding in told["findings"]}
    has_complaint = bool(complaints(found))
    assert done.returncode == has_complaint
    assert (told["verdict"] in ("wrong", "warning")) == has_complaint
    return found


def complaints(found: Findings) -> set[str]:
    return {
        code
        for code, finding in found.items()
        if finding["verdict"] in ("wrong", "warning")
    }


def check_named(found: Findings, code: str) -> None:
    """The fault is named, with how it is known and what must be done."""
    assert code in complaints(found), found
    assert found[code]["how"]
    assert found[code]["mending"]


# An application that is well, behind proxies that are not


def application_of(folder: Path, heartbeat: float) -> AbstractContextManager[Server]:
    return serve(
        "gunicorn gevent",
        SSE_HEARTBEAT=heartbeat,
        SSE_URL=f"sqlite:///{folder}/events.db",
        SECRET_KEY="of the tests",
    )


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with application_of(tmp_path_factory.mktemp("store"), BEAT) as server:
        yield server


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An application whose streams are silent for longer than a proxy waits."""
    with application_of(tmp_path_factory.mktemp("store"), SLOW_BEAT) as server:
        yield server


def changed(*pairs: tuple[str, str]) -> Callable[[str], str]:
    """A change of a documented block."""

    def change(block: str) -> str:
        for old, new in pairs:
            block = replaced(block, old, new)
        return block

    return change


#: A line of nginx's block behind which others can stand.
_IN_NGINX = "proxy_set_header Host $host;\n"
_IN_APACHE = 'ProxyPassReverse "/" "http://127.0.0.1:8000/"\n'
_IN_CADDY = "reverse_proxy 127.0.0.1:8000\n"
_MODULES = "/usr/lib/apache2/modules"


def nginx(lines: str) -> Callable[[str], str]:
    return changed((_IN_NGINX, f"{_IN_NGINX}{lines}\n"))


def apache(lines: str) -> Callable[[str], str]:
    return changed((_IN_APACHE, f"{_IN_APACHE}{lines}\n"))


_OLD_HTTP = ("proxy_http_version 1.1;", "proxy_http_version 1.0;")


class Behind(NamedTuple):
    """What is planted in a proxy, and the code that names it."""

    code: str
    name: str
    change: Callable[[str], str] = str
    timeout: int = 60


PROXIES = {
    "nginx collects": Behind(
        "buffering",
        "nginx",
        changed(
            _OLD_HTTP,
            (_IN_NGINX, _IN_NGINX + "proxy_ignore_headers X-Accel-Buffering;"),
        ),
    ),
    "nginx compresses": Behind(
        "compression",
        "nginx",
        nginx("gzip on; gzip_types text/event-stream; gzip_min_length 0;"),
    ),
    "nginx waits too short": Behind("time-out", "nginx", timeout=SHORT),
    "nginx speaks HTTP/1.0": Behind("http-version", "nginx", changed(_OLD_HTTP)),
    "nginx drops Last-Event-ID": Behind(
        "last-event-id", "nginx", nginx('proxy_set_header Last-Event-ID "";')
    ),
    "nginx drops the query": Behind("query", "nginx", nginx('set $args "";')),
    "nginx has it cached": Behind("caching", "nginx", nginx("expires 1h;")),
    "haproxy holds each back": Behind(
        "delay", "haproxy", changed(("option http-no-delay\n", "\n"))
    ),
    "haproxy waits too short": Behind("time-out", "haproxy", timeout=SHORT),
    "haproxy drops Last-Event-ID": Behind(
        "last-event-id",
        "haproxy",
        changed(
            ("bind :80\n", "bind :80\n    http-request del-header Last-Event-ID\n")
        ),
    ),
    "apache waits too short": Behind("time-out", "apache", timeout=SHORT),
    "apache compresses": Behind(
        "compression",
        "apache",
        apache(
            f"LoadModule filter_module {_MODULES}/mod_filter.so\n"
            f"LoadModule deflate_module {_MODULES}/mod_deflate.so\n"
            "SetOutputFilter DEFLATE"
        ),
    ),
    "caddy compresses": Behind(
        "compression",
        "caddy",
        changed(
            (
                _IN_CADDY,
                f"{_IN_CADDY}encode gzip {{\nminimum_length 1\nmatch {{\n"
                "header Content-Type text/event-stream*\n}\n}\n",
            )
        ),
    ),
    "caddy waits too short": Behind(
        "time-out",
        "caddy",
        changed(
            (
                _IN_CADDY,
                f"reverse_proxy 127.0.0.1:8000 {{\ntransport http {{\n"
                f"read_timeout {SHORT}s\n}}\n}}\n",
            )
        ),
    ),
}


@pytest.mark.parametrize("planted", PROXIES)
def test_what_a_proxy_does_wrong_is_named(
    planted: str, application: Server, slow: Server
) -> None:
    behind = PROXIES[planted]
    if PROGRAMS[behind.name] is None:
        pytest.skip(f"{behind.name} is not installed")
    upstream = slow if behind.code == "time-out" else application
    with proxy(
        behind.name, upstream.port, timeout=behind.timeout, change=behind.change
    ) as front:
        found = ask_doctor(upstream, f"{front.url}/stream")
    check_named(found, behind.code)


@pytest.mark.skipif(PROGRAMS["nginx"] is None, reason="nginx is not installed")
@pytest.mark.parametrize("trust", ["authority", "insecure", "none"])
def test_what_speaks_tls_is_asked_in_tls(
    trust: str, application: Server, tmp_path: Path
) -> None:
    certificate = issued(tmp_path)
    words = ["--insecure"] if trust == "insecure" else []
    if trust != "none":
        words += ["--patience", LONG]
    more = {"SSL_CERT_FILE": certificate.authority} if trust == "authority" else {}
    with proxy("nginx", application.port, certificate=certificate) as front:
        url = f"https://{HOST}:{front.port}/stream"
        found = ask_doctor(application, url, *words, environment=more)
    if trust == "none":
        check_named(found, "answer")
        assert "certificate" in found["answer"]["how"]
    else:
        assert complaints(found) == set()
        assert "offered HTTP/2" in found["http-version"]["what"]


VARNISHES = {
    "buffering": {"response": "set beresp.do_stream = false;"},
    "time-out": {"backend": f".between_bytes_timeout = {SHORT}s;"},
    "query": {"receive": 'set req.url = regsub(req.url, "[?].*", "");'},
}


@pytest.mark.skipif(VARNISH is None, reason="varnish is not installed")
@pytest.mark.parametrize("code", VARNISHES)
def test_what_varnish_does_wrong_is_named(
    code: str, application: Server, slow: Server
) -> None:
    upstream = slow if code == "time-out" else application
    with varnish(upstream.port, **VARNISHES[code]) as front:
        found = ask_doctor(upstream, f"{front.url}/stream")
    check_named(found, code)
    assert "Varnish:" in found[code]["mending"]


@pytest.mark.skipif(PROGRAMS["nginx"] is None, reason="nginx is not installed")
@pytest.mark.parametrize("is_told", [False, True])
def test_an_application_that_is_away_is_told_from_one_that_is_not_there(
    is_told: bool, application: Server
) -> None:
    """As documented, nginx has streams come back; otherwise their pages give up."""
    plain = changed(("error_page 500 502 503 504 =200 @away;", ""))
    with (
        reserved_port() as port,
        proxy("nginx", port, change=str if is_told else plain) as front,
    ):
        found = ask_doctor(application, f"{front.url}/stream")
    if is_told:
        assert found["away"]["verdict"] == "ok"
        check_named(found, "answer")
    else:
        check_named(found, "away")


def test_a_proxy_that_hides_that_clients_leave_is_named(application: Server) -> None:
    with careless(application.port) as front:
        found = ask_doctor(application, f"{front.url}/stream")
    check_named(found, "leaving")
    # The doctor has had its streams end, nevertheless.
    until(lambda: application.stats()["streams"] == 0)


# Servers


@contextmanager
def gunicorn_of_one_thread() -> Iterator[tuple[Server, str, tuple[str, ...]]]:
    """A stream that is not taken over holds the only worker, until gunicorn kills
    it."""
    with serve(
        "gunicorn sync",
        options="--timeout 4 --log-level critical",
        SSE_HANDOFF=False,
        SSE_HEARTBEAT=BEAT,
        SECRET_KEY="of the tests",
    ) as server:
        yield server, CHANNELS, ("held-worker", "time-out")


@contextmanager
def several_on_memory() -> Iterator[tuple[Server, str, tuple[str, ...]]]:
    with serve(
        "gunicorn gthread",
        options=several("gunicorn gthread", 2),
        SSE_HEARTBEAT=BEAT,
        SECRET_KEY="of the tests",
    ) as server:
        yield server, CHANNELS, ("workers",)


@contextmanager
def recycled_workers() -> Iterator[tuple[Server, str, tuple[str, ...]]]:
    with serve(
        "gunicorn gthread",
        options="--max-requests 500",
        SSE_HEARTBEAT=BEAT,
        SECRET_KEY="of the tests",
    ) as server:
        # gunicorn's options are looked at when the first stream begins.
        yield server, CHANNELS, ("server-options",)


@contextmanager
def room_for_one_stream() -> Iterator[tuple[Server, str, tuple[str, ...]]]:
    """The doctor opens a second stream beside its first."""
    with serve(
        "gunicorn gevent",
        SSE_MAX_CONNECTIONS=1,
        SSE_HEARTBEAT=BEAT,
        SECRET_KEY="of the tests",
    ) as server:
        yield server, CHANNELS, ("room",)


@contextmanager
def uwsgi_without_threads() -> Iterator[tuple[Server, str, tuple[str, ...]]]:
    """A newer uWSGI always has threads, so that the application takes them away."""
    with serve(
        "uWSGI",
        app=AILING,
        AILMENT="no threads",
        SSE_HEARTBEAT=BEAT,
        SECRET_KEY="of the tests",
    ) as server:
        yield server, CHANNELS, ("uwsgi-threads",)


@contextmanager
def adapter_of_asgi() -> Iterator[tuple[Server, str, tuple[str, ...]]]:
    layer = Layer(("a2wsgi", "uvicorn", "Flask"), running_python())
    made = Environment(running_python(), (layer,))
    install([made])
    with serve(
        "adapter",
        options="a2wsgi",
        python=made.command,
        SSE_HEARTBEAT=BEAT,
        SECRET_KEY="of the tests",
    ) as server:
        yield server, CHANNELS, ("asgi-adapter",)


def ailing(
    ailment: str, *codes: str
) -> AbstractContextManager[tuple[Server, str, tuple[str, ...]]]:
    @contextmanager
    def made() -> Iterator[tuple[Server, str, tuple[str, ...]]]:
        with serve(
            "gunicorn gthread",
            app=AILING,
            AILMENT=ailment,
            SSE_HEARTBEAT=BEAT,
            SECRET_KEY="of the tests",
        ) as server:
            yield server, AILING, codes

    return made()


SERVERS: dict[str, Callable[[], Any]] = {
    "gunicorn of one thread": gunicorn_of_one_thread,
    "several workers on memory": several_on_memory,
    "recycled workers": recycled_workers,
    "room for one stream": room_for_one_stream,
    "uWSGI without threads": uwsgi_without_threads,
    "an adapter of ASGI": adapter_of_asgi,
    "a middleware collects": partial(ailing, "collecting", "middleware", "buffering"),
    "a middleware changes": partial(ailing, "changing", "middleware"),
    "a hook compresses": partial(ailing, "compressing", "middleware", "compression"),
    "a login page with 200": partial(ailing, "login page", "login"),
    "a redirect to a login": partial(ailing, "login redirect", "login"),
}


@pytest.mark.parametrize("planted", SERVERS)
def test_what_a_server_or_an_application_does_wrong_is_named(planted: str) -> None:
    with SERVERS[planted]() as (server, app, codes):
        found = ask_doctor(server, server.url, app=app)
    for code in codes:
        check_named(found, code)


def test_a_login_lets_the_doctor_in() -> None:
    with ailing("login page") as (server, app, _):
        words = ("--header", "Cookie: session=ann", "--patience", LONG)
        found = ask_doctor(server, server.url, *words, app=app)
    assert complaints(found) == set()


def test_a_command_with_another_broker_than_the_servers_says_so(
    application: Server, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/others.db"
    found = ask_doctor(application, f"{application.url}/stream", SSE_URL=url)
    check_named(found, "same-broker")


# What gunicorn is told by a file and its environment


#: The same with a thread of its own, which begins when the application is loaded.
CLOCK = f"""{SHOP}
from threading import Event, Thread

def tick() -> None:
    while not Event().wait(1):
        sse.publish("tick")

Thread(target=tick, name="clock", daemon=True).start()
"""


#: The same with a thread that is a library's.
POOL = f"""{SHOP}
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor()
pool.submit(print).result()
"""


class Folder(NamedTuple):
    """A folder in which gunicorn would be started, and the code that names what is
    wrong; empty where nothing is."""

    code: str
    file: str = ""
    arguments: str = ""
    config: dict[str, Any] = {}  # noqa: RUF012
    app: str = SHOP


FOLDERS = {
    "several workers on memory": Folder("workers", "workers = 4"),
    "several workers by the environment": Folder("workers", "", "--workers 4"),
    "several workers beside an address": Folder(
        "workers", "", "--bind 127.0.0.1:8000 --config none.py -w 4"
    ),
    "recycled workers": Folder("server-options", "max_requests = 500"),
    "workers killed at once": Folder("server-options", "graceful_timeout = 0"),
    "eventlet": Folder("server-options", "worker_class = 'eventlet'"),
    "ASGI": Folder("asgi-adapter", "worker_class = 'asgi'"),
    "uvicorn": Folder("asgi-adapter", "worker_class = 'uvicorn.workers.UvicornWorker'"),
    "tornado": Folder("collecting-server", "worker_class = 'tornado'"),
    "kept by one thread": Folder(
        "held-worker", "timeout = 60", config={"SSE_HANDOFF": False}
    ),
    "kept by too few threads": Folder(
        "kept-streams",
        "threads = 8",
        config={"SSE_HANDOFF": False, "SSE_MAX_CONNECTIONS": 100},
    ),
    "kept by too few greenlets": Folder(
        "kept-streams",
        "worker_class = 'gevent'",
        config={"SSE_HANDOFF": False, "SSE_MAX_CONNECTIONS": 1500},
    ),
    "as many workers as there are processors": Folder(
        "workers",
        "import multiprocessing\nworkers = multiprocessing.cpu_count() * 2 + 1",
    ),
    "recycled workers, by arithmetic": Folder(
        "server-options", "often = 10\nmax_requests = often * 50"
    ),
    "a thread in the master": Folder("server-options", "preload_app = True", app=CLOCK),
    "a thread in the master, by the environment": Folder(
        "server-options", "", "--preload --workers 1", app=CLOCK
    ),
    "TLS with one thread": Folder(
        "held-worker", "certfile = 'cert.pem'\nkeyfile = 'key.pem'"
    ),
    "a broker that gunicorn alone knows": Folder(
        "same-broker", "raw_env = ['FLASK_SSE_URL=sqlite:///events.db']\nworkers = 4"
    ),
    "a library's thread in the master": Folder("", "preload_app = True", app=POOL),
    "a thread in each worker": Folder("", "workers = 1", app=CLOCK),
    "a thread in the master, on SQLite": Folder(
        "",
        "preload_app = True\nworkers = 4",
        config={"SSE_URL": "sqlite:///events.db"},
        app=CLOCK,
    ),
    "a broker that gunicorn and the doctor know": Folder(
        "",
        "raw_env = ['FLASK_SSE_URL=\"sqlite:///events.db\"']\nworkers = 4",
        config={"SSE_URL": "sqlite:///events.db"},
    ),
    "TLS with many threads": Folder(
        "", "certfile = 'cert.pem'\nkeyfile = 'key.pem'\nthreads = 200"
    ),
    "one worker": Folder("", "workers = 1\nworker_class = 'gevent'"),
    "a sync worker": Folder("", "timeout = 5\npreload_app = True"),
    "several workers on SQLite": Folder(
        "", "workers = 4", config={"SSE_URL": "sqlite:///events.db"}
    ),
    "the environment goes before the file": Folder("", "workers = 4", "--workers 1"),
    "hardly any recycling": Folder("", "max_requests = 1_000_000"),
    "kept by enough threads": Folder(
        "",
        "threads = 200",
        config={"SSE_HANDOFF": False, "SSE_MAX_CONNECTIONS": 100},
    ),
    "made by code": Folder(
        "",
        "workers = int(open('workers').read())\nmax_requests = workers and 9",
    ),
    "the file of examples/deploy": Folder(
        "", (ROOT / "examples" / "deploy" / "gunicorn.conf.py").read_text("utf-8")
    ),
}


@pytest.mark.parametrize("planted", FOLDERS)
def test_what_gunicorn_would_be_told_wrongly_is_named(
    planted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, file, arguments, config, app = FOLDERS[planted]
    (tmp_path / "shop.py").write_text(app, "utf-8")
    if file:
        (tmp_path / "gunicorn.conf.py").write_text(file, "utf-8")
    if arguments:
        monkeypatch.setenv("GUNICORN_CMD_ARGS", arguments)
    for name, value in config.items():
        monkeypatch.setenv(f"FLASK_{name}", json.dumps(value))
    found = doctor_in(tmp_path)
    if code:
        check_named(found, code)
        assert complaints(found) == {code}
        source = "gunicorn.conf.py" if file else "GUNICORN_CMD_ARGS"
        assert source in found[code]["how"]
    else:
        assert complaints(found) == set()


def test_nothing_of_gunicorns_file_is_run(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP, "utf-8")
    trap = "open('run', 'w')\nworkers = 4\nraise SystemExit(3)\n"
    (tmp_path / "gunicorn.conf.py").write_text(trap, "utf-8")
    check_named(doctor_in(tmp_path), "workers")
    assert not (tmp_path / "run").exists()


def test_the_file_of_a_gunicorn_that_runs_is_read(tmp_path: Path) -> None:
    """Its command line names neither the application nor the number of workers."""
    (tmp_path / "shop.py").write_text(SHOP, "utf-8")
    settings = "wsgi_app = 'shop:app'\nworkers = 3\nmax_requests = 500\n"
    (tmp_path / "settings.py").write_text(settings, "utf-8")
    with serve("gunicorn sync", app="", folder=tmp_path, options="-c settings.py"):
        found = doctor_in(tmp_path)
    for code in ("workers", "server-options"):
        check_named(found, code)
        assert "The process " in found[code]["how"]
        assert "settings.py" in found[code]["how"]


# What the machine has


def test_a_limit_on_open_files_that_is_too_low_is_named() -> None:
    with (
        descriptor_limit(512),
        serve(
            "gunicorn gthread",
            SSE_HEARTBEAT=BEAT,
            SSE_MAX_CONNECTIONS=10_000,
            SECRET_KEY="of the tests",
        ) as server,
    ):
        found = ask_doctor(server, server.url)
    check_named(found, "open-files")


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        (("--maxmemory-policy", "allkeys-lru", *PERSISTENT), {"redis-policy"}),
        ((), {"redis-persistence"}),
        (("--maxmemory", "1kb", *PERSISTENT), {"broker"}),
    ],
    ids=["it deletes", "it keeps nothing", "it is full"],
)
def test_a_redis_that_loses_events_is_named(
    options: tuple[str, ...], codes: set[str], application: Server
) -> None:
    with redis_server(*options) as redis:
        found = ask_doctor(application, SSE_URL=redis.url)
    assert complaints(found) == codes
    for code in codes:
        check_named(found, code)


def test_a_redis_that_is_away_is_named(application: Server) -> None:
    with reserved_port() as port:
        found = ask_doctor(application, SSE_URL=f"redis://127.0.0.1:{port}")
    assert complaints(found) == {"broker"}


# What is right


@contextmanager
def right_development_server() -> Iterator[tuple[Server, Server]]:
    with serve("werkzeug", SSE_HEARTBEAT=BEAT, SECRET_KEY="of the tests") as server:
        yield server, server


@contextmanager
def right_without_a_key() -> Iterator[tuple[Server, Server]]:
    with serve("werkzeug", SSE_HEARTBEAT=BEAT) as server:
        yield server, server


def right(kind: str, options: str = "", store: str = "") -> Callable[[], Any]:
    @contextmanager
    def made() -> Iterator[tuple[Server, Server]]:
        with ExitStack() as stack:
            config: dict[str, Any] = {}
            if store == "redis":
                redis: RedisServer = stack.enter_context(redis_server(*PERSISTENT))
                config["SSE_URL"] = redis.url
            server = stack.enter_context(
                serve(
                    kind,
                    options=options,
                    SSE_HEARTBEAT=BEAT,
                    SECRET_KEY="of the tests",
                    **config,
                )
            )
            yield server, server

    return made


def right_proxy(name: str) -> Callable[[], Any]:
    @contextmanager
    def made() -> Iterator[tuple[Server, Server]]:
        with (
            right("gunicorn gevent", store="redis")() as (server, _),
            proxy(name, server.port) as front,
        ):
            yield server, front

    return made


RIGHT: dict[str, Callable[[], Any]] = {
    "the development server": right_development_server,
    "an application without a key": right_without_a_key,
    "gunicorn gevent": right("gunicorn gevent"),
    "gunicorn gthread": right("gunicorn gthread", "--threads 8"),
    "gunicorn sync": right("gunicorn sync"),
    "uWSGI": right("uWSGI"),
    "cheroot": right("cheroot"),
    "two workers on Redis": right(
        "gunicorn gthread", several("gunicorn gthread", 2), "redis"
    ),
    **{f"behind {name}": right_proxy(name) for name in PROGRAMS},
}


@pytest.mark.parametrize("set_up", RIGHT)
def test_what_is_right_gets_no_complaint(set_up: str) -> None:
    name = set_up.removeprefix("behind ")
    if name in PROGRAMS and PROGRAMS[name] is None:
        pytest.skip(f"{name} is not installed")
    with RIGHT[set_up]() as (server, front):
        found = ask_doctor(server, front.url, "--patience", LONG)
    assert complaints(found) == set()
    if "without" not in set_up:
        assert found["leaving"]["verdict"] == found["resuming"]["verdict"] == "ok"
        assert found["buffering"]["verdict"] == found["delay"]["verdict"] == "ok"


def test_sqlite_as_it_is_documented_gets_no_complaint(application: Server) -> None:
    found = ask_doctor(application, application.url, "--patience", LONG)
    assert complaints(found) == set()
    assert (
        found["sqlite-folder"]["verdict"] == found["sqlite-rights"]["verdict"] == "ok"
    )
    assert found["same-broker"]["verdict"] == "ok"


def test_a_visit_leaves_nothing_behind(application: Server) -> None:
    before = application.stats()["streams"]
    ask_doctor(application, application.url)
    assert application.stats()["streams"] == before
    with application.flask("sse", "channels") as process:
        printed, _ = process.communicate(timeout=PATIENCE)
    assert "doctor" not in printed
