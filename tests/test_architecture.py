"""Dependencies point one way: the imports of every module are read and checked. Each
module has a file of tests whose name one can guess, and what tests share stands in none
of these."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "flask_sse_lite"

#: The rooms of the package, each a module or a folder, in bands, the lowest first. A
#: room imports from lower bands, which stand above its own in this list, and not from
#: its neighbours. The package's own ``__init__`` is the highest.
BANDS: list[set[str]] = [
    {"errors", "log_messages"},
    {
        *("event", "system", "names", "client_faults", "own_functions", "routes"),
        "type_names",
    },
    {"decoder", "own_events", "position", "servers", "traced"},
    {"history"},
    {"settings", "signals"},
    {"advice", "arguments", "brokers", "hub"},
    {"generators"},
    {"channels", "response"},
    {"browser_module", "doctor", "publisher"},
    {"cli"},
    {"application"},
    {"metrics", "opentelemetry", "tokens"},
    {"permission", "sqlalchemy", "testing"},
    {"views"},
    {"inspector"},
    {"extension"},
    {"from_flask_sse"},
    {"__init__"},
]

#: The modules that speak to Redis, and those that speak to an SQLite file.
REDIS = ["", ".links", ".lives", ".pool", ".url"]
SQLITE = [
    *("board", "connection", "counts", "housekeeping", "life", "runs", "scales"),
    "store",
]

#: The modules of the brokers' suite.
SUITE = [
    "",
    *(".harness", ".publishing", ".resuming", ".life", ".runs", ".counts"),
    ".presence",
]

#: The modules of the doctor that look at the application itself.
DOCTOR = ["", ".arrival", ".case", ".inside", ".middlewares", ".processes"]

#: Imports that only few modules may make. A package's name stands for all of it.
CONFINED: dict[str, set[str]] = {
    "flask": {
        *("generators.items", "response", "publisher", "cli", "application", "views"),
        *("extension", "from_flask_sse", "client_faults", "own_functions", "routes"),
        *("permission", "tokens", "browser_module", "metrics", "opentelemetry"),
        *("inspector.forgery", "inspector.pages"),
        *(f"doctor{name}" for name in DOCTOR),
    },
    "click": {"cli"},
    "itsdangerous": {"tokens", "doctor.account"},
    "werkzeug": {
        *("response", "views", "extension", "client_faults", "sqlalchemy"),
        *("permission", "inspector.pages"),
    },
    "socket": {
        *("brokers.redis.links", "brokers.sqlite.doorbell", "hub.handoff"),
        *("hub.stall", "system.outgoing", "system.poller"),
    },
    "select": {"system.poller"},
    "ctypes": {"system.poller", "system.pipes"},
    "fcntl": {
        *("brokers.sqlite.files", "brokers.sqlite.witness", "hub.handoff"),
        *("system.outgoing", "system.pipes"),
    },
    "resource": {"system.open_files"},
    "gevent": {"system.gevent", "system.poller"},
    # The suite's forked children end themselves where they hang.
    "signal": {"system.poller", "servers.gunicorn", "testing.broker_suite.life"},
    "atexit": {"hub.loop", "signals.courier"},
    "random": {"system.chance"},
    "blinker": {
        *("signals", "signals.courier", "signals.deliveries"),
        "inspector.reporting",
    },
    "gunicorn": set(),
    "cheroot": set(),
    "uwsgi": set(),
    "pytest": {f"testing.broker_suite{name}" for name in SUITE},
    "redis": {f"brokers.redis{name}" for name in REDIS},
    "sqlalchemy": {"sqlalchemy"},
    "prometheus_client": {"metrics"},
    "opentelemetry": {"opentelemetry"},
    "sqlite3": {f"brokers.sqlite.{name}" for name in SQLITE},
    "asyncio": set(),
    "multiprocessing": set(),
    "subprocess": set(),
    "selectors": set(),
}

#: What the module of the wire format may import: nothing that waits or does I/O.
PURE = {
    *("__future__", "codecs", "collections", "dataclasses", "enum", "functools"),
    *("json", "re", "secrets", "typing"),
}

#: Packages that every installation has besides the standard library.
INSTALLED = {"flask", "werkzeug", "click", "itsdangerous", "markupsafe", "blinker"}

#: Modules that can be missing, so that they are imported where they are used.
OPTIONAL = {"gevent", "resource", "fcntl", "termios"}

#: What some modules need that are only imported where they are wanted.
NEEDED = {
    **{f"brokers.redis{name}": {"redis"} for name in REDIS},
    "sqlalchemy": {"sqlalchemy"},
    "metrics": {"prometheus_client"},
    "opentelemetry": {"opentelemetry"},
    # Authors of a broker of their own run the suite under pytest.
    **{f"testing.broker_suite{name}": {"pytest"} for name in SUITE},
}


#: The tests of a module, or of all modules of a folder, that nobody would guess. The
#: sentence says why they stand there.
EXPLAINED = {
    "advice": (
        "test_configuration.py",
        "Its warnings are what the operator of an application meets.",
    ),
    "application": (
        "test_registration.py",
        "A registration decides which application a verb means.",
    ),
    "arguments": (
        "test_publish.py",
        "The arguments of every verb are checked as those of publish are.",
    ),
    "brokers.sqlite.connection": (
        "test_sqlite.py",
        "The file test_connection.py has another subject, connections to clients.",
    ),
    "brokers.sqlite.counts": (
        "test_sqlite.py",
        "The file test_counts.py has another subject, what an operator is told.",
    ),
    "brokers.sqlite.runs": (
        "test_brokers.py",
        "The suite of every broker begins, feeds and ends the runs of an SQLite file.",
    ),
    "brokers.view": (
        "test_view_of_a_store.py",
        "The file test_view.py has another subject, the view that a request meets.",
    ),
    "channels": (
        "test_messages.py",
        "Channels do what the verbs say, and each verb has a file of tests.",
    ),
    "extension": (
        "test_registration.py",
        "An SSE serves an application from its registration on.",
    ),
    "from_flask_sse": (
        "test_flask_sse.py",
        "Flask-SSE is the package whose applications must go on working.",
    ),
    "history": ("test_log.py", "All modules of the folder are parts of the log."),
    "history.fed": (
        "test_feeding.py",
        "A log is fed by what follows a store, and the file has the events' whole way.",
    ),
    "own_functions": (
        "test_several_applications.py",
        "An application's own functions matter where applications share an SSE.",
    ),
    "permission": (
        "test_permissions.py",
        "Permission is given in several ways, and the file has all of them.",
    ),
    "routes": ("test_registration.py", "Routes come about by a registration."),
    "servers.server": (
        "test_known_servers.py",
        "The file test_servers.py runs servers, and the base class of what is known of "
        "them runs none.",
    ),
    "sqlalchemy": (
        "test_transactions.py",
        "SQLAlchemy's part is to publish where a transaction ends.",
    ),
    "testing.broker_suite": (
        "test_own_broker.py",
        "The suite is for the author of a broker, and runs there as it does for them.",
    ),
    "type_names": (
        "test_configuration.py",
        "The warning of a type is among those that an operator meets.",
    ),
    "views": ("test_view.py", "The blueprint has one view for streams."),
}

TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Import:
    """One import: its module, and whether it is only for the type checker, or made when
    a function is called."""

    module: str
    line: int
    is_ours: bool = False
    is_for_types: bool = False
    is_in_function: bool = False

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


def module_name(path: Path) -> str:
    """A module's name within the package: ``brokers``, ``brokers.memory``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    if len(parts) > 1 and parts[-1] == "__init__":
        parts = parts[:-1]
    return ".".join(parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports_of(name: str) -> list[Import]:
    path = SOURCES[name]
    found = list(_walk(ast.parse(path.read_text("utf-8")), path, False, False))
    return [imported for imported in found if imported.module != name]


def _walk(
    node: ast.AST, path: Path, is_for_types: bool, is_in_function: bool
) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(
                    alias.name,
                    child.lineno,
                    is_ours=alias.name.startswith("flask_sse_lite"),
                    is_for_types=is_for_types,
                    is_in_function=is_in_function,
                )
        elif isinstance(child, ast.ImportFrom):
            for module in _modules_of(child, path):
                yield Import(
                    module,
                    child.lineno,
                    is_ours=child.level > 0 or module.startswith("flask_sse_lite"),
                    is_for_types=is_for_types,
                    is_in_function=is_in_function,
                )
        else:
            for_types = is_for_types or (
                isinstance(child, ast.If)
                and isinstance(child.test, ast.Name)
                and child.test.id == "TYPE_CHECKING"
            )
            in_function = is_in_function or isinstance(
                child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
            )
            yield from _walk(child, path, for_types, in_function)


def _modules_of(node: ast.ImportFrom, path: Path) -> set[str]:
    """The modules that a ``from … import`` imports from."""
    if not node.level:
        return {node.module or ""}
    package = path.parent.relative_to(PACKAGE).parts
    base = package[: len(package) - node.level + 1]
    if node.module:
        return {".".join([*base, node.module])}
    # from . import name: a module of that package, or something in it.
    names = {".".join([*base, alias.name]) for alias in node.names}
    return {name if name in SOURCES else ".".join(base) or "__init__" for name in names}


def room_of(name: str) -> str:
    return name.partition(".")[0]


BAND_OF = {room: number for number, rooms in enumerate(BANDS) for room in rooms}


def test_the_imports_are_found() -> None:
    assert {i.module for i in imports_of("history.cursor") if i.is_ours} == {
        *("event", "position"),
    }
    assert {i.module for i in imports_of("brokers.memory") if i.is_ours} == {
        *("errors", "event", "history.log", "settings"),
        *("brokers.contract", "brokers.presence", "brokers.teller"),
    }
    assert any(i.module == "flask" and i.is_for_types for i in imports_of("testing"))
    assert any(
        i.module == "gevent" and i.is_in_function for i in imports_of("system.poller")
    )


def test_every_room_has_its_band() -> None:
    assert {room_of(name) for name in SOURCES} == set(BAND_OF)
    assert len(BAND_OF) == sum(map(len, BANDS))


@pytest.mark.parametrize("name", SOURCES)
def test_a_module_imports_from_the_bands_before_its_own(name: str) -> None:
    # Also for the type checker alone: knowing a type means knowing its room.
    here = room_of(name)
    others = {room_of(i.module) for i in imports_of(name) if i.is_ours} - {here}
    assert {room for room in others if BAND_OF[room] >= BAND_OF[here]} == set()


def test_no_band_is_lower_than_it_must_be() -> None:
    for number, rooms in enumerate(BANDS[1:], 1):
        used = {
            room_of(i.module)
            for name in SOURCES
            if room_of(name) in rooms
            for i in imports_of(name)
            if i.is_ours
        }
        assert used & BANDS[number - 1], rooms


def test_no_module_is_imported_by_what_it_imports() -> None:
    graph = {
        name: {i.module for i in imports_of(name) if i.is_ours} for name in SOURCES
    }
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("name", SOURCES)
def test_our_own_modules_are_imported_at_the_top(name: str) -> None:
    # An import inside a function can hide a circle.
    assert [i for i in imports_of(name) if i.is_ours and i.is_in_function] == []


@pytest.mark.parametrize("name", SOURCES)
def test_within_the_package_imports_are_relative(name: str) -> None:
    assert [i for i in imports_of(name) if i.package == "flask_sse_lite"] == []


@pytest.mark.parametrize("package", CONFINED)
def test_what_is_confined_is_imported_in_its_rooms_only(package: str) -> None:
    users = {
        name
        for name in SOURCES
        for imported in imports_of(name)
        if imported.package == package
        and not imported.is_ours
        and not imported.is_for_types
    }
    assert users - CONFINED[package] == set()


def test_the_wire_format_imports_nothing_that_waits() -> None:
    for name in ("errors", "event", "decoder", "own_events", "position"):
        others = {i.package for i in imports_of(name) if not i.is_ours}
        assert others - PURE == set()


@pytest.mark.parametrize("name", SOURCES)
def test_nothing_is_imported_that_need_not_be_installed(name: str) -> None:
    known = sys.stdlib_module_names | INSTALLED | NEEDED.get(name, set())
    foreign = {
        imported.package
        for imported in imports_of(name)
        if not imported.is_ours
        and not imported.is_for_types
        and not (imported.is_in_function and imported.package in OPTIONAL)
    }
    assert foreign - known == set()


@pytest.mark.parametrize("module", ["flask_sse_lite", "flask_sse_lite.testing"])
def test_importing_starts_nothing_and_brings_no_optional_part(module: str) -> None:
    script = f"""
import json, os, sys, threading
import {module}
print(json.dumps({{
    "threads": threading.active_count(),
    "descriptors": len(os.listdir("/proc/self/fd")),
    "modules": sorted(sys.modules),
}}))
"""
    empty = script.replace(f"import {module}\n", "import flask\n")
    without, found = (
        json.loads(
            subprocess.run(
                [sys.executable, "-c", source],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                check=True,
                timeout=60,
            ).stdout
        )
        for source in (empty, script)
    )
    assert module in found["modules"]
    assert found["threads"] == 1
    assert found["descriptors"] == without["descriptors"]
    optional = {"gevent", "gunicorn", "redis", "sqlite3", "cheroot", "asyncio"}
    optional |= {"sqlalchemy", "pytest", "prometheus_client", "opentelemetry"}
    assert optional & (set(found["modules"]) - set(without["modules"])) == set()


def test_the_package_works_where_gevent_cannot_be_imported() -> None:
    script = """
import sys
sys.modules["gevent"] = None
import flask, flask_sse_lite
from flask_sse_lite.testing import read_events
app = flask.Flask("application")
app.register_blueprint(flask_sse_lite.sse)
flask_sse_lite.sse.publish("before")
response = app.test_client().get("/stream")
flask_sse_lite.sse.publish("hello")
assert [event.data for event in read_events(response, count=1)] == ["hello"]
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


def has_code(path: Path) -> bool:
    """Whether there is more in a module than its docstring."""
    body = ast.parse(path.read_text("utf-8")).body
    return any(not isinstance(node, (ast.Expr, ast.ImportFrom)) for node in body)


#: All modules, but for those that only say what lives in a folder.
GUESSED = [name for name in SOURCES if has_code(SOURCES[name]) and name != "__init__"]


def is_explained(name: str) -> bool:
    """Whether it is explained where the tests of a module, or of its folder, stand."""
    return any(f"{name}.".startswith(f"{explained}.") for explained in EXPLAINED)


def files_of(name: str) -> list[str]:
    """The files where one looks for the tests of a module, the most telling first."""
    parts = name.split(".")
    guesses = [f"test_{part}.py" for part in reversed(parts)]
    rooms = [".".join(parts[:length]) for length in range(len(parts), 0, -1)]
    explained = [EXPLAINED[room][0] for room in rooms if room in EXPLAINED]
    files = dict.fromkeys([*guesses, *explained])
    return [name for name in files if (TESTS / name).exists()]


@pytest.mark.parametrize("name", GUESSED)
def test_one_can_guess_where_the_tests_of_a_module_stand(name: str) -> None:
    assert files_of(name)


@pytest.mark.parametrize(
    "path", sorted(TESTS.glob("test_*.py")), ids=lambda path: path.name
)
def test_no_two_modules_have_the_same_guess(path: Path) -> None:
    # Modules of one name in different folders would all seem to be tested there.
    names = [
        name
        for name in GUESSED
        if path.name == f"test_{name.rpartition('.')[2]}.py" and not is_explained(name)
    ]
    assert len(names) <= 1


@pytest.mark.parametrize("name", EXPLAINED)
def test_where_nobody_can_guess_it_that_is_explained(name: str) -> None:
    file, why = EXPLAINED[name]
    assert name in SOURCES
    assert (TESTS / file).exists()
    assert file != f"test_{name.rpartition('.')[2]}.py"
    assert why.endswith(".")
    if "." not in name:
        assert not (TESTS / f"test_{name}.py").exists()


@pytest.mark.parametrize(
    "path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.name
)
def test_no_file_imports_from_a_test_file(path: Path) -> None:
    # Such an import brings the other file's fixtures, settings and needs with it.
    modules = {
        f"{node.module or ''}.{alias.name}"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    } | {
        alias.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert [name for name in modules if ".test_" in f".{name}"] == []
