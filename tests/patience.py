"""How long tests wait for what must come: one factor for all of them.

Only the factor lives here. Every upper bound of a wait is ``patient(seconds)``, or is
made of one, so that one word is enough for a slow or busy machine:
``PATIENCE=3 make test``. A time within which the product promises something is no such
bound.
"""

from __future__ import annotations

import os

#: How many times slower this machine can be than a quiet one of two cores.
FACTOR = float(os.environ.get("PATIENCE") or 1)

if FACTOR < 1:
    raise ValueError(
        f"PATIENCE is {FACTOR:g}: it must be 1 or more, and is by how much waits are "
        "longer than on a quiet machine."
    )


def patient(seconds: float) -> float:
    """The bound for a wait that takes at most so many seconds on a quiet machine."""
    return seconds * FACTOR
