"""Timestamps as the store holds them: an instant in UTC, NULL, or a value that `datetime` cannot represent.

Invariant: a timestamp that cannot be trusted is never compared as if it could be.
"""

from datetime import UTC, datetime
from enum import Enum
from typing import TypeAlias


class OutOfRange(Enum):
    """A timestamp that PostgreSQL can store and `datetime` cannot represent."""

    ALWAYS = "-infinity"
    ANCIENT = "before year 1"
    DISTANT = "after year 9999"
    NEVER = "infinity"

    @property
    def is_past(self) -> bool:
        """True if it is earlier than every `datetime`."""
        return self in (OutOfRange.ALWAYS, OutOfRange.ANCIENT)


StoredTimestamp: TypeAlias = datetime | OutOfRange | None
"""A timestamp as read from the store."""


def aware(instant: datetime) -> datetime:
    """Return the instant in UTC.

    Raises:
        ValueError: the instant is naive, or lies outside the years 1 to 9999 in UTC.
    """
    if instant.tzinfo is None:
        raise ValueError(f"naive instant {instant.isoformat()}: give it a time zone, for instance UTC")
    try:
        return instant.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"{instant.isoformat()} is before year 1 or after year 9999 in UTC") from None


def at_or_before(stored: StoredTimestamp, limit: datetime) -> bool:
    """Return True if a stored timestamp is at or before `limit`; NULL is not."""
    if isinstance(stored, OutOfRange):
        return stored.is_past
    return stored is not None and stored <= limit


def rfc3339(instant: datetime) -> str:
    """Return the instant as RFC 3339 in UTC, with microseconds only if they are not zero."""
    return instant.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def parse(text: str) -> datetime:
    """Return the instant that an RFC 3339 text names.

    Raises:
        ValueError: the text is not an instant, or has no offset from UTC.
    """
    return aware(datetime.fromisoformat(text))
