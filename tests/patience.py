"""How long tests wait for what must come: one factor for all of them.

Here lives the factor alone. Every upper bound of a wait is ``patient(seconds)``, or is
made of one, so that a slow or busy machine needs one word: ``PATIENCE=3 make test``. A
time within which the product promises something is no such bound.
"""

from __future__ import annotations

import os

#: How much slower than a quiet machine of two cores this one can be.
FACTOR = float(os.environ.get("PATIENCE") or 1)

if FACTOR < 1:
    raise ValueError(
        f"PATIENCE is {FACTOR:g}: it must be 1 or more, and is by how much waits are "
        "longer than on a quiet machine."
    )


def patient(seconds: float) -> float:
    """So many seconds of a quiet machine."""
    return seconds * FACTOR
