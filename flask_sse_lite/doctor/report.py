"""The report: what a doctor has found, as text for people and as data for machines.

Here lives the form of a finding. What can be found stands in ``codes``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from .codes import CODES
from .discretion import without_secrets

#: ``unknown`` stands for "could not tell, because".
Verdict = Literal["ok", "warning", "wrong", "unknown"]

#: The verdicts in the order in which a report has them, each with its word for people.
WORDS: dict[Verdict, str] = {
    "wrong": "wrong",
    "warning": "warning",
    "unknown": "unknown",
    "ok": "ok",
}

#: Columns of a report. A terminal has 80 at least.
WIDTH = 80

#: What the lines of a finding are indented by, behind its verdict.
INDENT = " " * 13


@dataclass(frozen=True)
class Finding:
    """One finding.

    ``what`` says what is so, ``how`` how the doctor knows, and ``mending`` what must be
    written where. A finding that is ``ok`` has no mending, and one that is ``unknown``
    says in ``what`` why it cannot be told.
    """

    code: str
    verdict: Verdict
    what: str
    how: str = ""
    mending: str = ""

    @property
    def is_complaint(self) -> bool:
        return self.verdict in ("warning", "wrong")

    def lines(self) -> Iterator[str]:
        """The finding for people."""
        head = f"{WORDS[self.verdict]:12} {self.code}: {self.what}"
        yield from textwrap.wrap(head, WIDTH, subsequent_indent=INDENT)
        if self.how:
            yield from _wrapped(f"How it knows: {self.how}")
        if self.mending:
            yield f"{INDENT}What to do:"
            for line in self.mending.splitlines():
                yield f"{INDENT}  {line}".rstrip()


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)


@dataclass
class Report:
    """All findings, at most one for each code. Not thread-safe."""

    #: Codes that the operator does not want to hear of.
    ignored: frozenset[str] = frozenset()
    _found: dict[str, Finding] = field(default_factory=dict)

    def ok(self, code: str, what: str) -> None:
        self._add(Finding(code, "ok", what))

    def unknown(self, code: str, why: str) -> None:
        """Note that something could not be told.

        :param why: goes on behind "could not tell, because".
        """
        self._add(Finding(code, "unknown", f"could not tell, because {why}"))

    def warning(self, code: str, what: str, how: str, *, by: str = "") -> None:
        """Note what can do harm.

        :param by: the proxy or the server that is to be set up otherwise, if it is
            known.
        """
        self._complain(Finding(code, "warning", what, how, CODES[code].mended(by)))

    def wrong(self, code: str, what: str, how: str, *, by: str = "") -> None:
        """Note what keeps events from clients, or loses them."""
        self._complain(Finding(code, "wrong", what, how, CODES[code].mended(by)))

    def _complain(self, finding: Finding) -> None:
        self._add(finding)

    def _add(self, finding: Finding) -> None:
        """Keep a finding, unless a worse one of its code is known. Whatever is known
        goes before what could not be told. A report is shown to others, so its secrets
        are replaced."""
        finding = replace(
            finding,
            what=without_secrets(finding.what),
            how=without_secrets(finding.how),
        )
        known = self._found.get(finding.code)
        order = ["wrong", "warning", "ok", "unknown"]
        if known is None or order.index(finding.verdict) < order.index(known.verdict):
            self._found[finding.code] = finding

    def says(self, code: str, verdict: Verdict) -> bool:
        """Whether something was found."""
        known = self._found.get(code)
        return known is not None and known.verdict == verdict

    def findings(self) -> list[Finding]:
        """The findings, the worst first, without those that are ignored."""
        order = [*WORDS]
        found = [f for f in self._found.values() if f.code not in self.ignored]
        return sorted(found, key=lambda finding: order.index(finding.verdict))

    def is_clean(self) -> bool:
        """Whether there is nothing to complain of."""
        return not any(finding.is_complaint for finding in self.findings())

    def as_text(self) -> str:
        lines: list[str] = []
        for finding in self.findings():
            lines += finding.lines()
            if finding.is_complaint:
                lines.append(f"{INDENT}More: docs/doctor.rst, {finding.code}")
                lines.append("")
        counts = ", ".join(
            f"{sum(f.verdict == verdict for f in self.findings())} {word}"
            for verdict, word in WORDS.items()
        )
        return "\n".join([*lines, f"{counts}."])

    def as_data(self) -> dict[str, Any]:
        """For machines: ``verdict`` is that of the worst finding."""
        found = self.findings()
        return {
            "verdict": found[0].verdict if found else "ok",
            "findings": [
                {
                    "code": finding.code,
                    "verdict": finding.verdict,
                    "what": finding.what,
                    "how": finding.how,
                    "mending": finding.mending,
                }
                for finding in found
            ],
        }
