"""The documentation as the tests read it: README.rst, all of docs/, and the blocks of a
page."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import flask_sse_lite

ROOT = Path(flask_sse_lite.__file__).parent.parent
README = (ROOT / "README.rst").read_text("utf-8")

#: All pages, one after the other, the README first.
PAGES = "\n".join(
    [README, *(path.read_text("utf-8") for path in sorted(ROOT.glob("docs/*.rst")))]
)


def blocks(page: str, language: str) -> list[str]:
    """A page's blocks of a language, in their order.

    :param page: its text.
    """
    pattern = rf"^\.\. code-block:: {re.escape(language)}\n\n((?: +.*\n|\n)+)"
    return [dedent(b).strip() + "\n" for b in re.findall(pattern, page, re.MULTILINE)]
