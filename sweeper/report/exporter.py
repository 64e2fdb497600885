"""Serves the metrics: reads the numbers on request and caches the text for a while.

Invariant: it never raises, and never hands out an old number as a new one.
"""

import os
import threading
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sweeper import log
from sweeper.clock import Clock
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.files import atomic_write
from sweeper.report import metrics
from sweeper.report import numbers as numbers
from sweeper.report.numbers import Numbers
from sweeper.settings import Settings


def read(settings: Settings, clock: Clock) -> tuple[bytes, bool]:
    """Return the text of the numbers now, and whether all could be read. Never raises."""
    try:
        found = numbers.read(settings, clock)
        for fault in found.faults:
            log.get().warning("numbers could not be read", reason=fault)
        return metrics.text(found), not found.faults
    except Exception as error:  # whoever asks for numbers must be told that there are none, whatever went wrong
        log.get().error("numbers could not be read", reason=type(error).__name__)
        return nothing(settings, clock), False


def nothing(settings: Settings, clock: Clock) -> bytes:
    """Return the text that says that no number is known."""
    return metrics.text(Numbers(numbers.store_name(settings), "", clock.now(), faults=("unknown",)))


def write(file: Path, written: bytes) -> None:
    """Replace a file atomically, readable by all: readers see the old text or the new one.

    Raises:
        SweeperError: it cannot be written; the file is as it was.
    """
    try:
        with atomic_write(file) as opened:
            os.fchmod(opened.fileno(), 0o644)  # node_exporter is another user
            opened.write(written)
    except ConfigurationError as error:
        raise SweeperError(f"--textfile {error}") from None  # what was asked for besides is done


FAILED_SECONDS = 15.0
"""Seconds after a failure before the numbers are read again."""
REST = 10
"""Reading the numbers takes at most this fraction (1/REST) of the time, so that a large backlog is counted less often."""


@dataclass(frozen=True)
class _Kept:
    text: bytes
    at: datetime
    seconds: float

    def age(self, now: datetime) -> float:
        """Return the age in seconds; after the clock was set back it counts as old."""
        passed = (now - self.at).total_seconds()
        return passed if passed >= 0 else float("inf")


class Exporter:
    """Returns the text, read again when it is older than [serve] numbers_seconds. Never raises; safe from several threads.

    Whoever asks waits for a reading `wait` seconds at most; while a longer one goes on, what is known is handed out, but
    nothing older than twice the time that it may be kept.
    """

    def __init__(self, settings: Settings, clock: Clock, wait: float = 8.0) -> None:
        self._settings, self._clock, self._wait = settings, clock, wait
        self._lock = threading.Lock()
        self._kept: _Kept | None = None
        self._reading: threading.Thread | None = None

    def text(self) -> bytes:
        """The metrics for a scrape."""
        kept = self._kept
        if kept is None or kept.age(self._clock.now()) >= kept.seconds:
            self._started().join(self._wait)
            kept = self._kept
        if kept is None or kept.age(self._clock.now()) >= 2 * kept.seconds:
            return nothing(self._settings, self._clock)
        return kept.text

    def _started(self) -> threading.Thread:
        """Return the reading thread, started if it is not running."""
        with self._lock:
            if self._reading is None or not self._reading.is_alive():
                self._reading = threading.Thread(target=self._read, name="numbers", daemon=True)
                self._reading.start()
            return self._reading

    def _read(self) -> None:
        began = time.monotonic()
        found, complete = read(self._settings, self._clock)
        took = time.monotonic() - began
        lasts = max(float(self._settings.serve.numbers_seconds), REST * took) if complete else FAILED_SECONDS
        self._kept = _Kept(found, self._clock.now(), lasts)
