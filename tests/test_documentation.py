"""The documentation: its Python examples run as they stand, it names every setting, and
its links lead somewhere.

Each example is a file, named by its first line. An interpreter of its own imports it,
and checks that it does what the documentation says.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent, indent
from typing import get_args

import pytest
from blinker import Signal

from flask_sse_lite import signals
from flask_sse_lite.servers.server import Reason
from flask_sse_lite.settings import Settings

from .documentation import PAGES, README, ROOT, blocks

#: The README can be read in one go: all else stands in docs/.
MOST_LINES = 300

#: Python blocks: the directive, an empty line, and everything indented below it. A
#: comment before the directive says why a block cannot run as it stands.
PYTHON_BLOCK = re.compile(
    r"^(?:\.\. fragment: (.+\n(?:   .+\n)*))?"
    r"\.\. code-block:: python\n\n((?: +.*\n|\n)+)",
    re.MULTILINE,
)
FILE_NAME = re.compile(r"# (\w+\.py)\n")

#: What precedes each check.
BEGINNING = """
from flask_sse_lite.testing import published, read_events
def heard(stream, count):
    return [event.data for event in read_events(stream, count=count)]
"""

#: What each example must do, by its file's name. The application is ``app``.
CHECKS = {
    "app.py": """
client = app.test_client()
assert 'new EventSource("/stream")' in client.get("/").text
stream = client.get("/stream")
assert client.post("/say", data={"text": "hello"}).status_code == 204
assert heard(stream, 1) == ["hello"]
""",
    "rooms.py": """
client = app.test_client()
assert client.get("/rooms/kitchen/events").status_code == 403
with client.session_transaction() as session:
    session["user"] = "ann"
assert client.get("/rooms/cellar/events").status_code == 403
stream = client.get("/rooms/kitchen/events")
assert client.post("/rooms/kitchen/messages", data={"text": "hi"}).status_code == 204
(event,) = read_events(stream, count=1)
assert (event.type, event.json) == ("said", {"by": "ann", "text": "hi"})
assert client.get("/stream").status_code == 404
""",
    "authorizer.py": """
client = app.test_client()
assert client.get("/stream?channel=user.ann").status_code == 403
with client.session_transaction() as session:
    session["user"] = "ann"
assert client.get("/stream?channel=user.ann").status_code == 200
assert client.get("/stream?channel=user.bob").status_code == 403
assert client.get("/stream?channel=user.ann&channel=user.bob").status_code == 403
""",
    "factory.py": """
from factory import create_app
for app in (app, create_app()):
    client = app.test_client()
    assert client.get("/stream?channel=user.ann").status_code == 401
    with client.session_transaction() as session:
        session["user"] = "ann"
    origin = {"Origin": "https://app.example.com"}
    stream = client.get("/stream?channel=user.ann", headers=origin)
    assert stream.headers["Access-Control-Allow-Origin"] == origin["Origin"]
    from flask_sse_lite import sse
    with app.app_context():
        sse.publish("hello", channel="user.ann")
    assert heard(stream, 1) == ["hello"]
    assert client.get("/stream?channel=user.bob").status_code == 403
""",
    "login.py": """
assert app.test_client().get("/stream").status_code == 401
client = app.test_client()
with client.session_transaction() as session:
    session["_user_id"] = "ann"
assert client.get("/stream").status_code == 200
""",
    "inspected.py": """
client, other = app.test_client(), app.test_client()
for one, user in ((client, "ann"), (other, "bob")):
    with one.session_transaction() as session:
        session["_user_id"] = user
assert app.test_client().get("/stream/inspector").status_code == 401
assert other.get("/stream/inspector").status_code == 403
assert "Inspector" in client.get("/stream/inspector").text
assert client.post("/stream/inspector/publish").status_code == 403
""",
    "leaving.py": """
client, other = app.test_client(), app.test_client()
for one, user in ((client, "ann"), (other, "bob")):
    with one.session_transaction() as session:
        session["user"] = user
streams = [one.get("/stream") for one in (client, other)]
assert all(next(stream.iter_encoded()) for stream in streams)
assert client.post("/logout").status_code == 204
from flask_sse_lite import sse
with app.app_context():
    sse.publish("later")
assert b"".join(streams[0].iter_encoded()) == b""
assert heard(streams[1], 1) == ["later"]
""",
    "presence.py": """
import json, re
client, other = app.test_client(), app.test_client()
assert client.get("/rooms/kitchen").status_code == 401
for one, user in ((client, "ann"), (other, "bob")):
    with one.session_transaction() as session:
        session["user"] = user
page = client.get("/rooms/kitchen").text
address = json.loads(re.search(r"EventSource\\((.*)\\);", page)[1])
with client.get(address) as stream:
    next(stream.iter_encoded())
    events = read_events(client.get(address), count=1)
    here = other.get("/rooms/kitchen").text
assert [(e.type, e.json["identity"]) for e in events] == [("stream-join", "ann")]
assert 'new Set(["ann"])' in here
app.extensions["sse"].close()
""",
    "tokens.py": """
from flask_sse_lite import sse
client = app.test_client()
assert client.get("/rooms/kitchen/token").status_code == 401
with client.session_transaction() as session:
    session["user"] = "ann"
token = client.get("/rooms/kitchen/token").json["token"]
bearer = {"headers": {"Authorization": f"Bearer {token}"}}
stranger = app.test_client()
stream = stranger.get("/stream", **bearer)
with app.app_context():
    sse.publish("hello", channel="room.kitchen")
assert heard(stream, 1) == ["hello"]
assert stranger.get("/stream?channel=room.cellar", **bearer).status_code == 403
""",
    "cors.py": """
origin = {"Origin": "https://app.example.com"}
headers = app.test_client().get("/stream", headers=origin).headers
assert headers["Access-Control-Allow-Origin"] == "https://app.example.com"
assert headers["Access-Control-Allow-Credentials"] == "true"
""",
    "stock.py": """
import json, re
client = app.test_client()
page = client.get("/").text
assert "3 apples" in page
url = json.loads(re.search(r"connect\\((.*)\\);", page)[1])
client.post("/sell")
assert heard(client.get(url), 1) == ['{"apples": 2}']
""",
    "audit.py": """
from flask_sse_lite import sse
from flask_sse_lite.testing import await_signals
stream = app.test_client().get("/stream")
with app.app_context():
    sse.publish("hello")
    sse.close()
assert heard(stream, 2) == ["hello", ""]
await_signals(app)
assert ends == ["('sse',): ended after 1 events"]
""",
    "traced.py": """
from flask_sse_lite.traced import trace_of
from flask_sse_lite import sse
client = app.test_client()
stream = client.get("/stream")
assert client.post("/say").status_code == 204
assert heard(stream, 1) == ["hello"]
with app.app_context():
    assert trace_of(sse.publish("x")) is None  # There is no SDK.
""",
    "measured.py": """
from prometheus_client import REGISTRY
from flask_sse_lite import sse
from flask_sse_lite.testing import await_signals
name = "sse_events_published_total"
assert app.test_client().get("/metrics").status_code == 200
before = REGISTRY.get_sample_value(name)
with app.app_context():
    sse.publish("hello")
await_signals(app)
assert REGISTRY.get_sample_value(name) == before + 1
assert name in app.test_client().get("/metrics").text
""",
    "jobs.py": """
client = app.test_client()
stream = client.get("/jobs/7/events")
assert client.post("/jobs/7").status_code == 202
*progress, end = read_events(stream)
assert [event.json for event in progress] == list(range(0, 101, 10))
assert end.type == "stream-end"
assert [e.data for e in read_events(client.get("/jobs/7/events"))] == ["100", ""]
gone = client.get("/jobs/7/events", headers={"Last-Event-ID": end.id})
assert gone.status_code == 204
""",
    "secret.py": """
import os
from flask_sse_lite import sse
from flask_sse_lite.brokers.memory import MemoryBroker
assert isinstance(app.extensions["sse"].broker, MemoryBroker)
stream = app.test_client().get("/stream")
with app.app_context():
    sse.publish("hello")
assert heard(stream, 1) == ["hello"]
os.unlink(app.config["SSE_URL"].removeprefix("secret://"))
""",
    "words.py": """
*words, end = read_events(app.test_client().get("/words?text=one+two"))
assert [event.json for event in words] == [{"word": "one"}, {"word": "two"}]
assert end.type == "stream-end"
""",
    "answers.py": """
client = app.test_client()
cut = client.get("/answer?question=life")
(first,) = read_events(cut, count=1)
assert first.data == "It "
back = client.get("/answer?question=life", headers={"Last-Event-ID": first.id})
*rest, end = read_events(back)
assert [event.data for event in rest] == ["depends ", "on ", "life"]
assert end.type == "stream-end"
again = client.get("/answer?question=life", headers={"Last-Event-ID": end.id})
assert again.status_code == 204
*whole, _ = read_events(client.get(cut.location))
assert "".join(event.data for event in whole) == "It depends on life"
""",
}


def python_blocks() -> dict[str, str]:
    """The documentation's Python examples by file name."""
    blocks = {}
    for match in PYTHON_BLOCK.finditer(PAGES):
        block = dedent(match[2])
        if match[1]:
            continue
        name = FILE_NAME.match(block)
        assert name, f"An example does not begin with its file's name:\n{block}"
        assert name[1] not in blocks
        blocks[name[1]] = block
    return blocks


BLOCKS = python_blocks()


#: The blocks that cannot run as they stand, and why.
FRAGMENTS = [
    (dedent(match[2]), match[1].strip())
    for match in PYTHON_BLOCK.finditer(PAGES)
    if match[1]
]


#: Examples of pages that other files of tests follow, with a server and a browser, or
#: with a task queue.
RUN_ELSEWHERE = {
    "talk.py": "test_quickstart.py",
    "celery_tasks.py": "test_task_queues.py",
    "celery_app.py": "test_task_queues.py",
    "rq_tasks.py": "test_task_queues.py",
    "rq_app.py": "test_task_queues.py",
}

#: Examples that are applications, and are looked at here.
APPLICATIONS = [
    name
    for name in BLOCKS
    if not name.startswith("test_") and name not in RUN_ELSEWHERE
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder with the examples."""
    for name, block in BLOCKS.items():
        (tmp_path / name).write_text(block, "utf-8")
    return tmp_path


def run(folder: Path, arguments: Sequence[str]) -> str:
    """What a new interpreter prints that runs in a folder."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("name", APPLICATIONS)
def test_an_example_does_what_is_said_of_it(folder: Path, name: str) -> None:
    script = f"from {name.removesuffix('.py')} import *\n{BEGINNING}{CHECKS[name]}"
    assert run(folder, ["-c", script]) == ""


#: Examples that make one application at the top level.
PLAIN = [name for name in APPLICATIONS if name != "factory.py"]


@pytest.mark.parametrize("name", PLAIN)
def test_an_example_works_in_a_factory_that_is_called_again(
    folder: Path, name: str
) -> None:
    # Both applications share the ready-made sse, and both exist before either is used.
    body = indent((folder / name).read_text("utf-8"), "    ")
    (folder / "made.py").write_text(
        f"def create_app():\n{body}\n    return app, locals()\n", "utf-8"
    )
    check = indent(f"{BEGINNING}{CHECKS[name]}", "    ")
    script = (
        "from made import create_app\n"
        "for app, names in [create_app(), create_app()]:\n"
        "    globals().update(names)\n"
        f"{check}\n"
    )
    assert run(folder, ["-c", script]) == ""


# The examples in examples/

EXAMPLES = ROOT / "examples"

#: What the applications of each example's factory must do. The application is ``app``.
FACTORIES = {
    "factory": """
client = app.test_client()
assert client.post("/login", data={"user": "ann"}).status_code == 303
stream = client.get("/events")
assert client.post("/tickets", data={"text": "hello"}).status_code == 204
(event,) = read_events(stream, count=1)
assert (event.json["number"], event.json["by"]) == (1, "ann")
assert client.post("/logout").status_code == 303
""",
    "openai_compatible": """
app.config["TOKENS_PER_SECOND"] = 10_000
said = {"role": "user", "content": "What is a river?"}
asked = {"model": "river", "messages": [said], "stream": True}
answer = app.test_client().post("/v1/chat/completions", json=asked)
assert answer.text.endswith("data: [DONE]\\n\\n")
""",
    "progress": """
import progress
progress.PICTURES = 2
client = app.test_client()
job = client.post("/jobs")
assert job.status_code == 303
assert client.get(job.location).status_code == 200
*done, end = read_events(client.get(f"{job.location}/events"))
assert done[-1].json == {"done": 2, "of": 2}
""",
    # test_task_queues.py has them do a job.
    "progress_celery": 'assert app.test_client().get("/").status_code == 200\n',
    "progress_rq": 'assert app.test_client().get("/").status_code == 200\n',
    "showcase": """
from flask_sse_lite import sse
from showcase import worker
client = app.test_client()
with app.app_context():
    since = sse.position()
    told = {c: sse.messages(c, since) for c in ("chat", "figures", worker.channel())}
stream = client.get("/events?name=ann")
assert client.post("/chat", data={"name": "ann", "text": "hi"}).status_code == 204
assert [next(told[c]).type for c in told] == ["chat", "figures", "worker"]
""",
    "transactions": """
client = app.test_client()
stream = client.get("/stream")
assert client.post("/buy/apples").status_code == 204
(event,) = read_events(stream, count=1)
assert event.json["name"] == "apples"
assert f'<b id="apples">{event.json["stock"]}</b>' in client.get("/").text
""",
}


def test_all_factories_of_the_examples_are_called() -> None:
    files = [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*/__init__.py")]
    assert {*FACTORIES} == {
        path.parent.name if path.stem == "__init__" else path.stem
        for path in files
        if "def create_app(" in path.read_text("utf-8")
    }


@pytest.mark.parametrize("name", FACTORIES)
def test_a_factory_of_the_examples_can_be_called_again(
    tmp_path: Path, name: str
) -> None:
    # Both applications share the ready-made sse, and both exist before either is used.
    script = (
        f"import sys\nsys.path.insert(0, {str(EXAMPLES)!r})\n"
        f"from {name} import create_app\n{BEGINNING}"
        f"for app in [create_app(), create_app()]:\n{indent(FACTORIES[name], '    ')}"
    )
    assert run(tmp_path, ["-c", script]) == ""


def test_the_example_tests_pass(folder: Path) -> None:
    output = run(folder, ["-m", "pytest", "-p", "no:cacheprovider", "test_app.py"])
    assert "2 passed" in output


def test_the_first_example_comes_within_the_first_screens() -> None:
    assert README.index("# app.py") < 2000


def test_the_readme_is_read_in_one_go() -> None:
    assert len(README.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/*.rst")), ids=lambda p: p.name)
def test_links_between_the_pages_lead_somewhere(path: Path) -> None:
    text = path.read_text("utf-8")
    for target in re.findall(r"<([\w./-]+\.(?:rst|md|svg|png))>`_", text):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/*.rst")), ids=lambda p: p.name)
def test_one_text_is_one_link_on_a_page(path: Path) -> None:
    # docutils before 0.22 warns where the same text leads to two places.
    targets: dict[str, str] = {}
    for text, target in re.findall(
        r"`([^`<]+?)\s+<([^>`]+)>`_", path.read_text("utf-8")
    ):
        name = " ".join(text.split()).lower()
        assert targets.setdefault(name, target) == target, text


def test_the_readme_names_pages_that_exist_and_the_index_of_all() -> None:
    # test_site.py has the index name every page.
    named = set(re.findall(r"docs/([\w-]+\.rst)", README))
    pages = {path.name for path in ROOT.glob("docs/*.rst")}
    assert named - pages == set()
    assert "index.rst" in named


def test_every_reason_stands_in_the_table() -> None:
    page = (ROOT / "docs" / "deployment.rst").read_text("utf-8")
    rows = re.findall(r"^   \* - ``([a-z-]+)``\n     - ", page, re.MULTILINE)
    assert rows == list(get_args(Reason))


@pytest.mark.parametrize(
    ("title", "words"),
    [
        ("Why a stream has ended", signals.DisconnectReason),
        ("Why a client was refused", signals.RefusalReason),
        ("Why a run is over", signals.RunEndReason),
    ],
)
def test_every_word_of_a_signal_stands_in_its_table(title: str, words: object) -> None:
    page = (ROOT / "docs" / "signals.rst").read_text("utf-8")
    section = page.partition(f"{title}\n---")[2].partition("\n\n\n")[0]
    rows = re.findall(r"^   \* - ``([a-z-]+)``\n     - ", section, re.MULTILINE)
    assert rows == ["reason", *get_args(words)]


def test_every_signal_is_explained() -> None:
    page = (ROOT / "docs" / "signals.rst").read_text("utf-8")
    explained = re.findall(r"^``sse\.(\w+)``$", page, re.MULTILINE)
    assert explained == [
        name for name, thing in vars(signals).items() if isinstance(thing, Signal)
    ]


def test_every_setting_stands_in_the_table_with_its_default() -> None:
    rows = dict(re.findall(r"   \* - ``(SSE_\w+)``\n     - ``(.+)``\n", PAGES))
    expected = {
        f"SSE_{setting.name.upper()}": setting.metadata["default"]
        for setting in dataclasses.fields(Settings)
        if setting.metadata
    }
    shown = {
        key: str(list(value)) if isinstance(value, tuple) else repr(value)
        for key, value in expected.items()
    }
    assert {key: row.replace('"', "'") for key, row in rows.items()} == shown


def test_every_python_block_runs_or_says_why_it_cannot() -> None:
    assert PAGES.count("code-block:: python") == len(BLOCKS) + len(FRAGMENTS)
    for block, why in FRAGMENTS:
        assert why.endswith("."), why
        compile(block, "<fragment>", "exec")


def test_what_a_page_imports_from_the_package_is_there() -> None:
    imports = re.findall(r"^ +from (flask_sse_lite[\w.]*) import (.+)", PAGES, re.M)
    assert imports
    for module, names in imports:
        for name in re.findall(r"\w+", names.partition("#")[0]):
            is_there = hasattr(import_module(module), name)
            assert is_there or find_spec(f"{module}.{name}"), (module, name)


def test_what_is_run_elsewhere_is_read_there() -> None:
    for name, file in RUN_ELSEWHERE.items():
        assert name in BLOCKS
        assert (ROOT / "tests" / file).exists()


#: Blocks of other languages, each with the file that tests them.
OTHER_LANGUAGES = {
    "javascript": "test_documentation.py",
    "text": "test_doctor.py",
    "html": "test_hypermedia.py",
    "html+jinja": "test_quickstart.py",
    "nginx": "test_proxies.py",
    "haproxy": "test_proxies.py",
    "apache": "test_proxies.py",
    "http": "test_proxies.py",
    "caddy": "test_proxies.py",
}


def test_every_other_block_is_tested_somewhere() -> None:
    # Commands (sh) are run by the tests that follow a page. Blocks without a language
    # are commands that need another machine, and what is printed.
    for path in [ROOT / "README.rst", *ROOT.glob("docs/*.rst")]:
        text = path.read_text("utf-8")
        for language in set(re.findall(r"code-block:: (\S+)", text)):
            tester = {"python": "test_documentation.py", "sh": RUN_BY.get(path.name)}
            file = (tester | OTHER_LANGUAGES)[language]
            assert file, f"{path.name} has commands that no test runs"
            assert (ROOT / "tests" / file).exists()


#: Pages whose commands are run, each with the file of tests that does it.
RUN_BY = {
    "quickstart.rst": "test_quickstart.py",
    "tasks-with-celery-and-rq.rst": "test_task_queues.py",
}


def test_every_javascript_block_is_javascript(tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    for number, block in enumerate(blocks(PAGES, "javascript")):
        file = tmp_path / f"{number}.mjs"
        file.write_text(block, "utf-8")
        done = subprocess.run(["node", "--check", str(file)], stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr.decode()


def test_what_the_log_is_said_to_say_stands_in_the_package() -> None:
    page = (ROOT / "docs" / "troubleshooting.rst").read_text("utf-8")
    quoted = re.findall(r"log\s+(?:says|once|at)[^`]*?\s``([^`]{8,})``", page)
    assert len(quoted) >= 8
    said = {
        " ".join(node.value.split())
        for path in (ROOT / "flask_sse_lite").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    for text in quoted:
        assert any(text in constant for constant in said), text


def test_no_python_hides_in_a_block_without_a_language() -> None:
    for path in ROOT.glob("docs/*.rst"):
        for block in re.findall(r"::\n\n((?: +.*\n|\n)+)", path.read_text("utf-8")):
            assert not re.match(r"\s*(from|import|def|class|@)\b", block), block


# What it counts with


#: How far two runs of the benchmarks can be apart: docs/benchmarks.rst says so.
SPREAD = 1.4


def test_the_arithmetic_counts_with_what_was_measured() -> None:
    scaling = (ROOT / "docs" / "scaling.rst").read_text("utf-8")
    (microseconds,) = re.findall(r"a delivery +(\d+) µs", scaling)
    (kilobytes,) = re.findall(r"an open stream +([\d.]+) kB", scaling)
    benchmarks = (ROOT / "docs" / "benchmarks.rst").read_text("utf-8")
    ours = r"^flask_sse_lite, gevent +([\d.]+) µs +[\d.]+ +(?:< )?([\d.]+) kB"
    ((measured, memory),) = re.findall(ours, benchmarks, re.MULTILINE)
    assert float(measured) <= float(microseconds) * SPREAD
    assert float(memory) <= float(kilobytes) * SPREAD

    row = r"^([\d,]{6,}) +([\d,]+) +([\d.]+) +(\d+) +([\d.]+) (MB|GB)$"
    rows = re.findall(row, scaling, re.MULTILINE)
    assert len(rows) == 6
    for streams, deliveries, cores, processes, size, unit in rows:
        load = int(deliveries.replace(",", "")) * int(microseconds) / 1e6
        assert float(cores) == pytest.approx(load)
        assert int(processes) == max(1, round(load / 0.5))
        total = int(streams.replace(",", "")) * float(kilobytes) / 1000
        assert float(size) * {"MB": 1, "GB": 1000}[unit] == pytest.approx(total)
