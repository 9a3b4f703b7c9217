"""How long a loop waits that has failed, before it starts again.

Here lives that pause alone: it grows while the loop keeps failing, so that no loop is
busy with its failures. What starts again, and with what, its owner knows.
"""

from __future__ import annotations

import time

#: Seconds without a failure after which the next one counts as the first.
CALM = 10.0


class Backoff:
    """The pauses of one loop. For the loop's own thread.

    :param first: seconds of the first pause; each is twice the one before.
    :param longest: seconds of the longest.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._failed_at = 0.0
        #: How often the loop has failed without a calm in between.
        self.failures = 0

    def next(self) -> float:
        """The loop has failed.

        :returns: seconds to pause.
        """
        now = time.monotonic()
        if now - self._failed_at > CALM:
            self.failures = 0
        self._failed_at = now
        self.failures += 1
        doublings = min(self.failures - 1, 30)
        pause: float = min(self._first * 2**doublings, self._longest)
        return pause
