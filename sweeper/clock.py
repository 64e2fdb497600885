"""The one place that reads a clock; everything else is given an instant."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy import Connection


def _now() -> datetime:
    return datetime.now(UTC)


def _database_now(connection: "Connection") -> datetime:
    from sqlalchemy import text  # slow to import, and `sweeper --help` has a clock too

    instant: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    return instant


@dataclass(frozen=True)
class Clock:
    """This machine's clock and the database's, so that a test can set both."""

    now: Callable[[], datetime] = _now
    database_now: Callable[["Connection"], datetime] = _database_now
