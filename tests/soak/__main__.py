"""``python -m tests.soak``: run the soak, and write what came of it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .conducting import conduct
from .page import page
from .plan import long, short
from .verdicts import BROKEN, is_kept, verdicts

MINUTES = 30.0


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak",
        description="Soak a whole service, and write what came of it as one page. The "
        "exit status is 1 where a promise broke.",
    )
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--short", action="store_true", help="the run of make test")
    parser.add_argument("--output", type=Path, default=Path("build/soak"))
    options = parser.parse_args()
    plan = short() if options.short else long(options.minutes)
    record = conduct(plan, options.output, lambda line: print(line, flush=True))
    found = verdicts(record)
    record.save(options.output / "record.json")
    file = options.output / "index.html"
    file.write_text(page(record, found), encoding="utf-8")
    for promise, state, why in found:
        print(
            f"{state:8}{promise}: {why}", file=sys.stderr if state == BROKEN else None
        )
    print(f"The page: {file}")
    return 0 if is_kept(found) else 1


if __name__ == "__main__":
    sys.exit(main())
