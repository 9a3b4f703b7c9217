"""Our own events: what each says, that only one module knows it, and that the
documentation for pages names it."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from flask_sse_lite import InvalidType, InvalidValue, own_events
from flask_sse_lite.event import Event
from flask_sse_lite.own_events import TYPES, Reason

from .documentation import PAGES, ROOT

PACKAGE = ROOT / "flask_sse_lite"

#: The page that explains our own events.
PAGE = (ROOT / "docs" / "in-the-page.rst").read_text("utf-8")

TYPE = re.compile(r"(?<![-\w])stream-[a-z]+\b")
REASON = re.compile(r'{"reason": "(\w+)"')


@pytest.mark.parametrize(
    ("event", "frame"),
    [
        (
            own_events.opening("7", 9),
            b"event: stream-open\ndata: \nid: 7\nretry: 9\n\n",
        ),
        (own_events.position("7"), b"event: stream-position\ndata: \nid: 7\n\n"),
        (
            own_events.gap("7", ["ä", "b"], "9"),
            b'event: stream-gap\ndata: {"since": "7", "channels": ["\\u00e4", "b"]}\n'
            b"id: 9\n\n",
        ),
        (
            own_events.error(Reason.FAILED),
            b'event: stream-error\ndata: {"reason": "error"}\n\n',
        ),
        (
            own_events.failure("ä", json.dumps),
            b'event: stream-error\ndata: {"reason": "error", "message": "\\u00e4"}\n\n',
        ),
        (own_events.SHUTDOWN, b'event: stream-error\ndata: {"reason": "shutdown"}\n\n'),
        (own_events.LOST, b'event: stream-error\ndata: {"reason": "lost"}\n\n'),
        (
            own_events.ABANDONED,
            b'event: stream-error\ndata: {"reason": "abandoned"}\n\n',
        ),
        (
            own_events.joined("ä:\n", "b"),
            b"event: stream-join\n"
            b'data: {"identity": "\\u00e4:\\n", "channel": "b"}\n\n',
        ),
        (
            own_events.left("a", "b"),
            b'event: stream-leave\ndata: {"identity": "a", "channel": "b"}\n\n',
        ),
        (own_events.end("7"), b"event: stream-end\ndata: \nid: 7\n\n"),
    ],
)
def test_this_is_what_it_says(event: Event, frame: bytes) -> None:
    assert event.encode() == frame
    assert event.type in TYPES


def test_a_gap_that_has_a_place_names_its_channel() -> None:
    assert own_events.gap("7", ["a"], "9", "a").channel == "a"
    assert own_events.gap("7", ["a"], "9").channel is None


def test_a_message_that_cannot_be_told_is_refused() -> None:
    with pytest.raises(InvalidType):
        own_events.failure({1, 2}, json.dumps)


@pytest.mark.parametrize("type", TYPES)
def test_an_application_cannot_send_one(type: str) -> None:
    with pytest.raises(InvalidValue):
        Event("", type)


def literals(path: Path) -> list[str]:
    """The texts in a module's code. Docstrings do not count, as no client gets them."""
    tree = ast.parse(path.read_text("utf-8"))
    loose = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in loose
    ]


OTHERS = sorted({*PACKAGE.rglob("*.py")} - {PACKAGE / "own_events.py"})

#: Prometheus' label of that name is another thing than what stands in an event.
LABELS = PACKAGE / "metrics.py"


@pytest.mark.parametrize("path", OTHERS, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_other_module_spells_a_type_or_a_reason(path: Path) -> None:
    found = literals(path)
    assert [text for text in found if TYPE.fullmatch(text)] == []
    if path != LABELS:
        assert [text for text in found if text == "reason" or '"reason"' in text] == []


def test_no_other_module_makes_a_type() -> None:
    users = {
        path.name
        for path in OTHERS
        if "RESERVED_TYPE_PREFIX" in path.read_text("utf-8")
    }
    assert users == {"event.py"}  # It refuses an application's types that begin so.


def test_the_texts_of_a_module_are_found() -> None:
    assert "stream-" in literals(PACKAGE / "event.py")
    assert {"open", "reason"} <= set(literals(PACKAGE / "own_events.py"))


def test_pages_are_told_of_every_type() -> None:
    rows = re.findall(r"^``(stream-\w+)`` ", PAGE, re.MULTILINE)
    assert sorted(rows) == sorted(TYPES)


def test_pages_are_told_of_every_reason() -> None:
    assert set(REASON.findall(PAGE)) == {reason.value for reason in Reason}


def test_the_documentation_names_no_other() -> None:
    assert set(TYPE.findall(PAGES)) <= set(TYPES)
    assert set(REASON.findall(PAGES)) <= {reason.value for reason in Reason}


def test_the_documentation_names_what_stands_in_a_gap() -> None:
    (shown,) = re.findall(r'``{"since": …, ("\w+"): \[…\]}``', PAGE)
    assert list(own_events.gap("7", [], "9").json) == ["since", json.loads(shown)]
