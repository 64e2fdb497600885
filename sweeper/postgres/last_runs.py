"""When things were last done according to the evidence, whether by a daemon, cron or a person."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from sweeper.postgres import evidence
from sweeper.postgres.statement import statement

SERVING = "serving"
"""The kind of event that a starting daemon records."""
Last = Callable[[Connection, str], datetime | None]
"""Returns when something was last done for a store; None means never."""


def sweep(connection: Connection, store: str) -> datetime | None:
    """Return when the latest sweep began that completed or was stopped by its budget; slices of backfills do not count."""
    return _at(connection, "last_sweep", store=store)


def manifest(connection: Connection, store: str) -> datetime | None:
    """Return when the latest manifest of the store was frozen."""
    return _at(connection, "last_manifest", store=store)


def event(kind: str) -> Last:
    """Return a function that tells when an event of this kind was last recorded."""
    return lambda connection, store: _at(connection, "last_event", store=store, kind=kind)


def first_served(connection: Connection, store: str) -> datetime | None:
    """Return when a daemon first began to serve the store."""
    return _at(connection, "first_event", store=store, kind=SERVING)


def serves(connection: Connection, store: str, schedule: dict[str, str]) -> None:
    """Record that a daemon begins to serve the store, with its schedule."""
    evidence.record(connection, SERVING, None, {"store": store, "schedule": schedule})


def _at(connection: Connection, name: str, **values: Any) -> datetime | None:
    found: datetime | None = connection.execute(statement(name), values).scalar_one()
    return found
