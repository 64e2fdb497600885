"""The connections that are at work now, so that a process that must end can cancel what they wait for.

The law of this file: a cancelled statement fails, and its transaction with it; nothing is half done.
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


class CancelRegistry:
    """What is at work on the engines it watches. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._cancels: dict[object, Callable[[], None]] = {}

    def watch(self, engine: Engine) -> None:
        """Know every connection of the engine from when it is taken from the pool until it is given back."""
        event.listen(engine, "checkout", self._taken)
        event.listen(engine, "checkin", self._given_back)

    @contextmanager
    def also(self, cancel: Callable[[], None]) -> Iterator[None]:
        """Inside, cancel something that is not of an engine, too."""
        key = object()
        self._add(key, cancel)
        try:
            yield
        finally:
            self._drop(key)

    def cancel(self) -> None:
        """Cancel whatever runs now; what cannot be cancelled is left, since the server may be what is gone."""
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
