"""When things were last done, as the evidence says, whoever did them: a daemon, cron or a person."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from sweeper.postgres import evidence
from sweeper.postgres.statement import statement

SERVING = "serving"
"""The kind of event that a daemon leaves when it begins."""
Last = Callable[[Connection, str], datetime | None]
"""When something was last done for a store; None: never."""


def sweep(connection: Connection, store: str) -> datetime | None:
    """When the latest sweep of the store began that completed or was stopped in order; no slice of a backfill is one."""
    return _at(connection, "last_sweep", store=store)


def manifest(connection: Connection, store: str) -> datetime | None:
    """When the latest manifest of the store was frozen."""
    return _at(connection, "last_manifest", store=store)


def event(kind: str) -> Last:
    """When an event of the kind was last recorded, for the store or for all of them."""
    return lambda connection, store: _at(connection, "last_event", store=store, kind=kind)


def first_served(connection: Connection, store: str) -> datetime | None:
    """When a daemon first began to serve the store."""
    return _at(connection, "first_event", store=store, kind=SERVING)


def record_serving(connection: Connection, store: str, schedule: dict[str, str]) -> None:
    """Record that a daemon begins to serve the store, and what it does when."""
    evidence.record(connection, SERVING, None, {"store": store, "schedule": schedule})


def _at(connection: Connection, name: str, **values: Any) -> datetime | None:
    found: datetime | None = connection.execute(statement(name), values).scalar_one()
    return found
