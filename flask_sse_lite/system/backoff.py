"""How long a loop that has failed pauses before it starts again.

Here lives the length of that pause. It grows while the loop keeps failing, so that a
broken loop uses little CPU. This module never pauses and never restarts a loop: the
loop's owner does.
"""

from __future__ import annotations

import time

#: Seconds without a failure after which the next failure counts as the first.
CALM = 10.0


class Backoff:
    """The pauses of one loop. No other thread than the loop's own must call this.

    :param first: seconds of the first pause; each later pause is twice as long.
    :param longest: seconds that no pause exceeds.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._failed_at = 0.0
        #: How often the loop has failed, without ``CALM`` seconds between two failures.
        self.failures = 0

    def next(self) -> float:
        """Note that the loop has failed.

        :returns: seconds to pause before the loop starts again.
        """
        now = time.monotonic()
        if now - self._failed_at > CALM:
            self.failures = 0
        self._failed_at = now
        self.failures += 1
        doublings = min(self.failures - 1, 30)
        pause: float = min(self._first * 2**doublings, self._longest)
        return pause
