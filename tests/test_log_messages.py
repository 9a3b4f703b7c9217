"""Each warning and error has its code, the table has all of them, and the page explains
each."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_sse_lite import log_messages as module
from flask_sse_lite.log_messages import MESSAGES, Message

from .documentation import ROOT

PACKAGE = ROOT / "flask_sse_lite"

SOURCES = {
    path: ast.parse(path.read_text("utf-8"))
    for path in PACKAGE.rglob("*.py")
    if path.name != "log_messages.py"
}

#: The table's names.
NAMES = [name for name, thing in vars(module).items() if isinstance(thing, Message)]

#: What a record can have besides its code. None of it can hold an identity, a token or
#: the name of a run.
EXTRA = {
    *("application", "channel", "channels", "dropped", "endpoint", "folder", "format"),
    *("path", "pause", "policy", "reason", "signal", "store", "type"),
}

PAGE = (ROOT / "docs" / "log-messages.rst").read_text("utf-8")


def calls(method: str) -> Iterator[tuple[Path, ast.Call]]:
    """All calls of a method of this name, in all modules."""
    for path, tree in SOURCES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr == method:
                    yield path, node


@pytest.mark.parametrize(
    "method", ["warning", "warn", "error", "exception", "critical"]
)
def test_no_module_logs_a_warning_or_an_error_without_a_code(method: str) -> None:
    found = [
        f"{path.name}:{call.lineno}"
        for path, call in calls(method)
        # A command's own errors are no log messages, and neither are docstrings.
        if "logger" in ast.unparse(call.func)
    ]
    assert found == []


def test_a_logger_logs_by_the_table_or_below_warnings() -> None:
    for path, call in calls("log"):
        (receiver, *_) = ast.unparse(call.func).rpartition(".")
        assert receiver in {*NAMES, "message"}, f"{path.name}:{call.lineno}"


def test_what_a_record_has_besides_is_known_and_no_secret() -> None:
    known = EXTRA | {"error", "to", "level"}
    for path, call in calls("log"):
        given = {keyword.arg for keyword in call.keywords}
        assert given <= known, f"{path.name}:{call.lineno}"


@pytest.mark.parametrize("name", NAMES)
def test_a_message_of_the_table_is_logged_somewhere(name: str) -> None:
    loaded = [
        node
        for tree in SOURCES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == name
    ]
    assert loaded


def test_the_codes_are_in_order_and_each_is_there_once() -> None:
    assert len(MESSAGES) == len(NAMES)
    for letter in "WE":
        codes = [code for code in MESSAGES if code[4] == letter]
        assert codes == [f"SSE-{letter}{n:02}" for n in range(1, len(codes) + 1)]


def explained() -> dict[str, str]:
    """The page's sections by their codes, each on one line."""
    parts = re.split(r"^(SSE-[WE]\d\d)\n~+\n", PAGE, flags=re.MULTILINE)
    return {
        code: " ".join(text.split())
        for code, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_the_page_explains_each_message_and_no_other() -> None:
    assert list(explained()) == list(MESSAGES)


@pytest.mark.parametrize("code", MESSAGES)
def test_the_page_has_the_message_as_it_is(code: str) -> None:
    text = re.sub("%[rs]", "…", MESSAGES[code].text)
    section = explained()[code]
    assert section.startswith(f":: {' '.join(text.split())} ")
    # What happened and what to do is said behind it.
    assert len(section) > len(text) + 60


def test_the_page_names_no_code_that_is_not_there() -> None:
    pages = [path.read_text("utf-8") for path in ROOT.glob("docs/*.rst")]
    named = {code for page in pages for code in re.findall(r"SSE-[WE]\d\d", page)}
    assert named == set(MESSAGES)


@pytest.mark.parametrize("message", [module.STORE_AWAY, module.HUB_FAILED])
def test_a_record_has_the_code_in_its_text_and_beside_it(
    message: Message, caplog: pytest.LogCaptureFixture
) -> None:
    message.log("It is 100 % away", store="the file", channel=None)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{message.code}: ")
    assert "It is 100 % away" in record.getMessage()
    assert record.name == "flask_sse_lite"
    assert record.levelno == message.level
    assert record.levelname[0] == message.code[4]
    assert vars(record)["sse_code"] == message.code
    assert vars(record)["sse_store"] == "the file"
    # The caller's place, so that the record leads there.
    assert record.filename == "test_log_messages.py"


def test_a_message_can_go_to_another_logger_and_level_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "application")
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        module.BAD_REQUEST.log(
            *("index", "left", "nothing"),
            error=True,
            to=logging.getLogger("application"),
            level=logging.INFO,
        )
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("application", logging.INFO)
    assert "ZeroDivisionError" in caplog.text


def test_what_a_handler_or_a_filter_raises_goes_to_the_standard_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Unfit(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise LookupError("outside of a request")

    handler = Unfit()
    logging.getLogger("flask_sse_lite").addHandler(handler)
    try:
        module.HUB_FAILED_TWICE.log()
    finally:
        logging.getLogger("flask_sse_lite").removeHandler(handler)
    assert "outside of a request" in capsys.readouterr().err
