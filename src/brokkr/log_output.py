"""
The way out of log lines: a file that may be full, closed or stuck, which stops no program.

The log is for those who look at a program, and not for the program.  So a line that cannot be
written is counted and dropped, and the next one is tried anew.
"""

# Note [A reader that does not read]
#
# Who writes into a full pipe waits until somebody reads from it, and here that is the only
# thread, which renews leases.  So the output is asked first whether it takes a line, and given
# a moment if it does not; while it is stuck, no line is given another moment for a while.  A
# pipe that says that it takes something takes PIPE_BUF bytes at once, so longer lines are
# written in such pieces.

import os
import select
from threading import Lock
from time import monotonic
from typing import Final

STANDARD_ERROR: Final = 2

_PATIENCE_SECONDS: Final = 0.1
_STUCK_SECONDS: Final = 5.0


class LogOutput:
    """
    Lines on their way to a file descriptor, from any thread.

    Attributes:
        lost: How many lines were not written, or not to their end.
    """

    def __init__(self, descriptor: int) -> None:
        self.lost = 0
        self._descriptor = descriptor
        self._lock = Lock()
        self._lost_before = 0
        self._is_torn = False
        self._impatient_until = 0.0
        self._patient_until = 0.0

    def write(self, text: str) -> None:
        """Write whole lines, or count them as one that is lost; never raise, never wait long."""
        line = text.encode("utf-8", "backslashreplace")
        with self._lock:
            now = monotonic()
            self._patient_until = now
            if now >= self._impatient_until:
                self._patient_until += _PATIENCE_SECONDS
            if self._is_torn:
                line = b"\n" + line
            for start in range(0, len(line), select.PIPE_BUF):
                if not self._takes(line[start : start + select.PIPE_BUF]):
                    self.lost += 1
                    return
            self._is_torn = False
            self._lost_before = self.lost

    def flush(self) -> None:
        """Do nothing: no line is held back."""

    def count_lost(self) -> None:
        """Count a line that was lost before it came here."""
        with self._lock:
            self.lost += 1

    @property
    def lately_lost(self) -> int:
        """Return how many lines were lost since one was last written."""
        return self.lost - self._lost_before

    def _takes(self, piece: bytes) -> bool:
        """Write a piece, if that is possible now, and say whether it is written."""
        try:
            while piece:
                if not self._is_ready():
                    return False
                written = os.write(self._descriptor, piece)
                self._is_torn = True
                piece = piece[written:]
        except (OSError, ValueError):
            return False
        return True

    def _is_ready(self) -> bool:
        """Ask whether a write would wait: Note [A reader that does not read]."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        now = monotonic()
        if poll.poll(max(0.0, self._patient_until - now) * 1000):
            return True
        if self._patient_until > now:
            self._impatient_until = self._patient_until + _STUCK_SECONDS
        return False


standard_error: Final = LogOutput(STANDARD_ERROR)
"""Where this process logs."""
