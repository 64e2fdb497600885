"""Instants as a store really holds them: UTC, NULL, or something no calendar can hold.

The law of this file: an instant that cannot be trusted is never compared as if it could be.
"""

from datetime import UTC, datetime
from enum import Enum
from typing import TypeAlias


class OutOfRange(Enum):
    """An instant that PostgreSQL stores and `datetime` cannot hold."""

    ALWAYS = "-infinity"
    ANCIENT = "before year 1"
    DISTANT = "after year 9999"
    NEVER = "infinity"

    @property
    def is_past(self) -> bool:
        """Whether it lies before every instant that `datetime` can hold."""
        return self in (OutOfRange.ALWAYS, OutOfRange.ANCIENT)


StoredTimestamp: TypeAlias = datetime | OutOfRange | None
"""An instant as read from the store."""


def aware(instant: datetime) -> datetime:
    """The instant in UTC.

    Raises:
        ValueError: it is naive; a naive instant means different things on different machines.
    """
    if instant.tzinfo is None:
        raise ValueError(f"naive instant {instant.isoformat()}: give it a time zone, for instance UTC")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{instant.isoformat()} is before year 1 or after year 9999 in UTC") from None


def at_or_before(stored: StoredTimestamp, limit: datetime) -> bool:
    """Whether a stored instant lies at or before `limit`; NULL does not."""
    if isinstance(stored, OutOfRange):
        return stored.is_past
    return stored is not None and stored <= limit


def rfc3339(instant: datetime) -> str:
    """The instant as RFC 3339 in UTC, with microseconds only if they are not zero."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def parse(text: str) -> datetime:
    """An instant from RFC 3339 text.

    Raises:
        ValueError: the text is no instant, or names no offset from UTC.
    """
    return aware(datetime.fromisoformat(text))
