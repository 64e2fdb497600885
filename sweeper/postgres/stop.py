"""The request to stop work, and the connections to cancel if it does not stop by itself.

Invariant: `ask` takes no lock, because a signal may interrupt a thread that holds one. A cancelled statement fails, and its
transaction is rolled back: nothing is half done.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Lock, Thread
from typing import Any

import psycopg
from sqlalchemy import Engine, event

CANCEL_SECONDS = 1.0
"""How long the server may take to accept one cancellation."""
WAIT_SECONDS = 0.3
"""How long `cancel` waits for all cancellations together; a server that is gone does not delay it further."""


class StopRequest:
    """A request to stop, shared by everything that must obey it. It cannot be withdrawn. Thread-safe.

    It has three steps: `ask` lets work stop in order, `abandon` ends all retries, `cancel` cancels running statements.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self.is_abandoned = False
        self._lock = Lock()
        self._cancels: dict[object, Callable[[], None]] = {}

    @property
    def reason(self) -> str:
        """Why work must stop, as a run records it; empty to continue."""
        return "signal" if self.is_asked else ""

    def ask(self) -> None:
        """Ask work to stop in order; safe in a signal handler."""
        self.is_asked = True

    def abandon(self) -> None:
        """Allow no more retries, also while the server is gone."""
        self.is_abandoned = True

    def watch(self, engine: Engine) -> None:
        """Register each connection of the engine while it is checked out of the pool."""
        event.listen(engine, "checkout", self._checked_out)
        event.listen(engine, "checkin", self._checked_in)

    @contextmanager
    def also(self, cancel: Callable[[], None]) -> Iterator[None]:
        """Register a function that cancels work outside of any engine, until the block ends."""
        key = object()
        self._add(key, cancel)
        try:
            yield
        finally:
            self._drop(key)

    def cancel(self) -> None:
        """Abandon, and cancel the running statements; ignore failures, since the server may be gone."""
        self.abandon()
        with self._lock:
            cancels = list(self._cancels.values())
        threads = [Thread(target=_quietly, args=(cancel,), daemon=True) for cancel in cancels]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + WAIT_SECONDS
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _checked_out(self, connection: psycopg.Connection[Any], place: object, _: object) -> None:
        self._add(place, lambda: connection.cancel_safe(timeout=CANCEL_SECONDS))

    def _checked_in(self, _: object, place: object) -> None:
        self._drop(place)  # by pool entry: an invalidated connection is passed as None

    def _add(self, key: object, cancel: Callable[[], None]) -> None:
        with self._lock:
            self._cancels[key] = cancel

    def _drop(self, key: object) -> None:
        with self._lock:
            self._cancels.pop(key, None)


def _quietly(cancel: Callable[[], None]) -> None:
    with suppress(Exception):
        cancel()
