"""When something that failed is tried again: soon at first, then later and later."""

from __future__ import annotations

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 30.0
STABLE_SECONDS = 60.0


class Backoff:
    """Doubles the wait with each failure, from FIRST_SECONDS to LONGEST_SECONDS; what ran STABLE_SECONDS begins anew.

    >>> backoff = Backoff()
    >>> [backoff.failed(ran_seconds=0.0) for _ in range(3)], backoff.failed(ran_seconds=90.0)
    ([0.1, 0.2, 0.4], 0.1)
    """

    def __init__(self) -> None:
        self.failures = 0

    def failed(self, ran_seconds: float) -> float:
        """Seconds to wait after a failure of what had run so long."""
        if ran_seconds >= STABLE_SECONDS:
            self.failures = 0
        self.failures += 1
        return min(LONGEST_SECONDS, FIRST_SECONDS * 2.0 ** min(self.failures - 1, 20))
