"""How long to wait before retry *n*: ``base * 2^n``, up to a cap."""

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """An exponential delay.  With a base of 60 s: 120, 240, 480 s …, then the cap."""

    base: timedelta = timedelta(seconds=60)
    cap: timedelta = timedelta(hours=1)

    def delay(self, retry: int) -> timedelta:
        """Return the delay before retry number ``retry``, counted from 1."""
        # Compared in seconds first: a timedelta overflows long before a float does.
        seconds = self.base.total_seconds() * 2.0 ** min(retry, 1000)
        return timedelta(seconds=min(seconds, self.cap.total_seconds()))
