"""The wish that a process ends in order: asked once, from a signal handler or another thread, and seen by all that work.

The law of this file: asking takes no lock, because a signal may come while its own thread holds one.
"""

import time

LOOK_SECONDS = 0.05


class StopRequest:
    """Whether the process was asked to stop. What was asked is never taken back."""

    def __init__(self) -> None:
        self._asked = False

    @property
    def asked(self) -> bool:
        """Whether it was asked."""
        return self._asked

    def ask(self) -> None:
        """Ask that work ends where it can end in order; safe in a signal handler, and more than once."""
        self._asked = True

    def wait(self, seconds: float) -> bool:
        """Wait for so many seconds, or until it was asked; returns whether it was.

        It looks from time to time instead of being woken: to be woken there would have to be a lock.
        """
        deadline = time.monotonic() + seconds
        while not self._asked and (left := deadline - time.monotonic()) > 0:
            time.sleep(min(LOOK_SECONDS, left))
        return self._asked
