"""The documentation as the tests read it: README.rst, and all of docs/."""

from __future__ import annotations

from pathlib import Path

import flask_sse_lite

ROOT = Path(flask_sse_lite.__file__).parent.parent
README = (ROOT / "README.rst").read_text("utf-8")

#: All pages, one after the other, the README first.
PAGES = "\n".join(
    [README, *(path.read_text("utf-8") for path in sorted(ROOT.glob("docs/*.rst")))]
)
