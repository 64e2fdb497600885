"""Reads the clocks of this machine and of the database; no other module does."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection


def _now() -> datetime:
    return datetime.now(UTC)


def _database_now(connection: "Connection") -> datetime:
    from sqlalchemy import text  # slow to import, and `sweeper --help` needs no database

    instant: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return instant


@dataclass(frozen=True)
class Clock:
    """The clocks of this machine and of the database (UTC), which tests replace."""

    now: Callable[[], datetime] = _now
    database_now: Callable[["Connection"], datetime] = _database_now
