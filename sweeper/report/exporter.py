"""Serve the metrics text: read the numbers on request and cache the text for a while.

Invariant: the exporter never raises and never presents an old number as a new one.
"""

import os
import threading
import time
from collections.abc import Callable
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


def read(settings: Settings, clock: Clock, counting: Callable[[Numbers], None] = lambda _: None) -> tuple[bytes, bool]:
    """Return the current metrics text, and whether all numbers could be read. Never raises.

    `counting` gets the numbers that are known before the overdue records are counted.
    """
    try:
        found = numbers.read(settings, clock, counting)
        for fault in found.faults:
            log.get().warning("numbers could not be read", reason=fault)
        return metrics.text(found), not found.faults
    except Exception as error:  # a scrape must get `sweeper_up 0` whatever went wrong
        log.get().error("numbers could not be read", reason=type(error).__name__)
        return nothing(settings, clock), False


def nothing(settings: Settings, clock: Clock) -> bytes:
    """Return the metrics text for the case that no number could be read."""
    return metrics.text(Numbers(numbers.store_name(settings), "", clock.now(), faults=("unknown",)))


def write(file: Path, text: bytes) -> None:
    """Replace a file atomically and make it readable by all users: a reader sees the old text or the new one.

    Raises:
        SweeperError: the file cannot be written; it is unchanged.
    """
    try:
        with atomic_write(file) as opened:
            os.fchmod(opened.fileno(), 0o644)  # node_exporter is another user
            opened.write(text)
    except ConfigurationError as error:
        raise SweeperError(f"--textfile {error}") from None  # not a usage error: the rest of the command succeeded


FAILED_SECONDS = 15.0
"""How long, in seconds, a text with missing numbers is cached before the numbers are read again."""
FIRST_SECONDS = 0.5
"""How long a request waits, in seconds, while no text is cached yet."""
COOLDOWN_FACTOR = 10
"""A text is cached for at least this many times the duration of its reading, so that a large backlog is counted less often."""


@dataclass(frozen=True)
class _CachedText:
    """A metrics text with the time (UTC) at which it was read and the seconds for which it is fresh."""

    text: bytes
    at: datetime
    seconds: float

    def age(self, now: datetime) -> float:
        """Return the age in seconds; infinite if the clock was set back."""
        passed = (now - self.at).total_seconds()
        return passed if passed >= 0 else float("inf")


class Exporter:
    """Serves the metrics text and reads it again when it is older than [serve] numbers_seconds. Thread-safe; never raises.

    A request waits at most `wait` seconds for a reading. If the reading takes longer, the request gets the cached text, unless
    that is older than twice the time for which it is fresh. The first requests wait at most `FIRST_SECONDS`; until the first
    count of overdue records is done, they get all other numbers.
    """

    def __init__(self, settings: Settings, clock: Clock, wait: float = 8.0) -> None:
        self._settings, self._clock, self._wait = settings, clock, wait
        self._lock = threading.Lock()
        self._cached: _CachedText | None = None
        self._is_cached = threading.Event()
        self._reading: threading.Thread | None = None

    def text(self) -> bytes:
        """Return the metrics for one scrape."""
        cached = self._cached
        if cached is None or cached.age(self._clock.now()) >= cached.seconds:
            reading = self._reading_thread()
            if cached is None:
                self._is_cached.wait(min(FIRST_SECONDS, self._wait))
            else:
                reading.join(self._wait)
            cached = self._cached
        if cached is None or cached.age(self._clock.now()) >= 2 * cached.seconds:
            return nothing(self._settings, self._clock)
        return cached.text

    def _reading_thread(self) -> threading.Thread:
        """Return the one thread that reads the numbers; start it if it is not running."""
        with self._lock:
            if self._reading is None or not self._reading.is_alive():
                self._reading = threading.Thread(target=self._read, name="numbers", daemon=True)
                self._reading.start()
            return self._reading

    def _read(self) -> None:
        began = time.monotonic()
        found, complete = read(self._settings, self._clock, self._cache_first)
        took = time.monotonic() - began
        fresh_for = (
            max(float(self._settings.serve.numbers_seconds), COOLDOWN_FACTOR * took) if complete else FAILED_SECONDS
        )
        self._cache(found, fresh_for)

    def _cache_first(self, known: Numbers) -> None:
        """Cache what is known while the first reading still counts; later ones leave the text of the one before."""
        if self._cached is None:
            self._cache(metrics.text(known), float(self._settings.serve.numbers_seconds))

    def _cache(self, text: bytes, fresh_for: float) -> None:
        self._cached = _CachedText(text, self._clock.now(), fresh_for)
        self._is_cached.set()
