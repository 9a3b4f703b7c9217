"""What an operator is told of streams: which way they went."""

from __future__ import annotations

import logging

import pytest

from flask_sse_lite.hub.counts import OpenStreams, Paths

NONE: OpenStreams = {"handed off": 0, "iterated": 0}


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
