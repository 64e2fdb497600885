"""The request that work ends, and the connections to cancel where it does not end by itself.

Invariant: asking takes no lock, because a signal may come while its own thread holds one. A cancelled statement fails, and its
transaction with it: nothing is half done.
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
"""How long all of them together are waited for; a server that is gone holds nobody up."""


class StopRequest:
    """Whether work is to end, for all that share this object. Nothing that was asked is taken back. Safe from several threads.

    It has three steps: `ask` lets work end where it can end in order, `abandon` ends all retrying, `cancel` cancels statements.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self.is_abandoned = False
        self._lock = Lock()
        self._cancels: dict[object, Callable[[], None]] = {}

    @property
    def reason(self) -> str:
        """Why work is to end, as a run records it; "" to go on."""
        return "signal" if self.is_asked else ""

    def ask(self) -> None:
        """Ask that work ends where it can end in order; safe in a signal handler."""
        self.is_asked = True

    def abandon(self) -> None:
        """Let nothing be tried again: a server that is gone is waited for no longer."""
        self.is_abandoned = True

    def watch(self, engine: Engine) -> None:
        """Register each connection of the engine while it is taken from the pool."""
        event.listen(engine, "checkout", self._taken)
        event.listen(engine, "checkin", self._given_back)

    @contextmanager
    def also(self, cancel: Callable[[], None]) -> Iterator[None]:
        """Register, inside the block, a way to cancel something that belongs to no engine."""
        key = object()
        self._add(key, cancel)
        try:
            yield
        finally:
            self._drop(key)

    def cancel(self) -> None:
        """Abandon, and cancel what runs now. What cannot be cancelled is left, since the server may be gone."""
        self.abandon()
        with self._lock:
            cancels = list(self._cancels.values())
        threads = [Thread(target=_quietly, args=(cancel,), daemon=True) for cancel in cancels]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + WAIT_SECONDS
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0.0))

    def _taken(self, connection: psycopg.Connection[Any], place: object, _: object) -> None:
        self._add(place, lambda: connection.cancel_safe(timeout=CANCEL_SECONDS))

    def _given_back(self, _: object, place: object) -> None:
        self._drop(place)  # the place in the pool: the connection itself is no longer told where it was invalidated

    def _add(self, key: object, cancel: Callable[[], None]) -> None:
        with self._lock:
            self._cancels[key] = cancel

    def _drop(self, key: object) -> None:
        with self._lock:
            self._cancels.pop(key, None)


def _quietly(cancel: Callable[[], None]) -> None:
    with suppress(Exception):
        cancel()
