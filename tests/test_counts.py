"""What an operator is told of streams: how many there are, whose, and which way they
went."""

from __future__ import annotations

import logging

import pytest

from flask_sse_lite.history.log import Log
from flask_sse_lite.hub.counts import Listeners, OpenStreams, Paths

NONE: OpenStreams = {"handed off": 0, "iterated": 0}


class TestListeners:
    def test_those_of_each_channel_are_counted_and_of_each_log_apart(self) -> None:
        log, other = Log(history=1, age=1), Log(history=1, age=1)
        listeners = Listeners()
        listeners.note(log, ["a", "b"], 1, "ann")
        listeners.note(log, ["a"], 1, "bob")
        listeners.note(log, ["a"], 1, "ann")
        listeners.note(log, ["c"], 1)
        listeners.note(other, ["a", "d"], 1, "ann")
        assert len(listeners) == 5
        assert (listeners.of(log, "a"), listeners.of(other, "a")) == (3, 1)
        assert listeners.of(log, "d") == 0
        assert listeners.logs() == {log, other}
        assert listeners.by_channel(log) == {"a": 3, "b": 1, "c": 1}
        assert listeners.by_channel(other) == {"a": 1, "d": 1}
        assert listeners.by_identity(log) == {
            "a": {"ann": 2, "bob": 1},
            "b": {"ann": 1},
        }
        assert listeners.by_identity(other) == {"a": {"ann": 1}, "d": {"ann": 1}}

    def test_who_leaves_leaves_nothing_behind(self) -> None:
        log, listeners = Log(history=1, age=1), Listeners()
        for identity in ("ann", "ann", "bob", None):
            listeners.note(log, ["a"], 1, identity)
        listeners.note(log, ["a"], -1, "ann")
        assert listeners.by_identity(log) == {"a": {"ann": 1, "bob": 1}}
        for identity in ("ann", "bob"):
            listeners.note(log, ["a"], -1, identity)
        assert listeners.by_channel(log) == {"a": 1}
        assert listeners.by_identity(log) == {}
        listeners.note(log, ["a"], -1)
        assert (len(listeners), listeners.logs()) == (0, set())
        assert not listeners._by_identity


class TestPaths:
    def test_each_way_is_counted(self) -> None:
        paths = Paths()
        for server in ("gunicorn", "gunicorn", "werkzeug"):
            paths.note_handed_off(server)
        for _ in range(2):
            paths.note_iterated("the test asks for it", "tls", is_remediable=False)
        assert paths.stats(NONE) == {
            "open": NONE,
            "handed off": {"gunicorn": 2, "werkzeug": 1},
            "iterated": {"the test asks for it": 2},
            "reasons": {"tls": 2},
        }

    def test_each_stream_has_a_debug_line(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        paths = Paths()
        with caplog.at_level(logging.DEBUG, "flask_sse_lite"):
            paths.note_handed_off("gunicorn")
            paths.note_iterated("it has TLS", "tls", is_remediable=False)
        one, other = caplog.records
        assert one.getMessage() == "A stream is handed off: gunicorn"
        assert vars(one)["sse_path"] == "handed off"
        assert other.getMessage() == "A stream is iterated: it has TLS"
        assert vars(other)["sse_path"] == "iterated"
        assert vars(other)["sse_reason"] == "tls"

    def test_what_an_operator_can_mend_is_a_warning_once(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        paths = Paths()
        with caplog.at_level(logging.WARNING, "flask_sse_lite"):
            paths.note_iterated("nobody can help it", "tls", is_remediable=False)
            assert not caplog.records
            paths.note_iterated("it has TLS", "tls", is_remediable=True)
            (record,) = caplog.records
            paths.note_iterated("it has TLS", "tls", is_remediable=True)
        assert caplog.records == [record]
        assert "it has TLS" in record.getMessage()
        assert vars(record)["sse_path"] == "iterated"
        assert vars(record)["sse_reason"] == "tls"
