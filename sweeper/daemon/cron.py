"""Cron expressions in a time zone, evaluated by CronSim as Debian's cron would.

Invariant: a job at a set hour fires once for each of its times of day, whatever a zone's clock does. A time that occurs twice
(autumn) fires at its first occurrence; one that is skipped (spring) fires when the clock has jumped over it. If the hour begins
with `*`, the job follows real time: it fires in every hour that exists, and in none that does not.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from sweeper.policy.instant import aware

NICKNAMES: Mapping[str, str] = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
FIELDS = {
    "minute": "0 to 59",
    "hour": "0 to 23",
    "day of month": "1 to 31",
    "month": "1 to 12 or jan to dec",
    "day of week": "0 to 7 or sun to sat",
}
"""The fields of an expression in order, each with its values."""
COUNTED_AT_MOST = 10_000
"""`missed` counts no further than this."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE, HOUR = 60, 3_600
"""Seconds."""
_VALUE = r"(?:[0-9]+|[a-z]{3})"
_ITEM = rf"(?:\*(?:/[0-9]+)?|{_VALUE}(?:-{_VALUE}(?:/[0-9]+)?)?)"
_WRITTEN = re.compile(rf"{_ITEM}(?:,{_ITEM})*")
"""The syntax that every cron implementation reads alike; CronSim accepts more."""


class CronError(ValueError):
    """A cron expression or time zone is not valid; the message completes a sentence about it."""


class _Walk(CronSim):
    """CronSim for clocks that change by half an hour (Australia/Lord_Howe), or from midnight on (America/Havana)."""

    def tick(self, seconds: int = 1) -> None:
        before = self.dt
        super().tick(seconds)
        is_uneven = self.dt.utcoffset() != before.utcoffset() or (seconds == HOUR and self.dt.minute)
        if seconds > MINUTE and is_uneven:  # a minute at a time instead, so that nothing is stepped over
            self.dt = before
            super().tick(MINUTE)
            while seconds == HOUR and self.dt.hour == before.hour:
                super().tick(MINUTE)

    def advance_day(self) -> bool:
        has_moved = super().advance_day()
        if self.dt.tzinfo is not None:  # a midnight that was skipped becomes the time after it
            self.dt = self.dt.astimezone(UTC).astimezone(self.dt.tzinfo)
        return has_moved


@dataclass(frozen=True)
class Cron:
    """A valid cron expression of five fields, and the time zone that its times are in."""

    expression: str
    """As the settings write it."""
    fields: str
    """As CronSim reads it."""
    zone: tzinfo

    def after(self, instant: datetime) -> Iterator[datetime]:
        """Yield the instants (UTC) after `instant` at which the expression fires, in order, for the next 50 years."""
        start = aware(instant)
        for fire in _Walk(self.fields, start.astimezone(self.zone)):
            if (exact := fire.astimezone(UTC)) > start:  # a time that occurs twice may have passed
                yield exact


def missed(cron: Cron, since: datetime, until: datetime) -> list[datetime]:
    """Return the instants after `since` up to and including `until`, at most `COUNTED_AT_MOST` of them.

    A job that was last done exactly at an instant has not missed it.
    """
    return list(islice(takewhile(lambda fire: fire <= until, cron.after(since)), COUNTED_AT_MOST))


def zone(name: str) -> tzinfo:
    """Return the time zone of a name.

    Raises:
        CronError: no zone has that name.
    """
    if name == "UTC":
        return UTC  # needs no zone data, which a small image may lack
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CronError("is not a known time zone; write UTC, or a name such as Europe/Berlin") from None


def parse(expression: str, in_zone: tzinfo) -> Cron:
    """Parse a cron expression or a nickname such as @daily.

    Raises:
        CronError: the expression is not valid, or never fires.
    """
    named = expression.strip().lower()
    if named.startswith("@") and named not in NICKNAMES:
        raise CronError(f"{named.split()[0]!r} is none of {', '.join(NICKNAMES)}")
    texts = NICKNAMES.get(named, named).split()
    if len(texts) != len(FIELDS):
        raise CronError(f"has {len(texts)} fields where cron has {len(FIELDS)}: {', '.join(FIELDS)}")
    for position, (field, values) in enumerate(FIELDS.items()):
        alone = ["*"] * len(FIELDS)
        alone[position] = texts[position]
        if not _WRITTEN.fullmatch(texts[position]) or not _is_valid(alone):
            raise CronError(
                f"{field} {texts[position]!r} is not valid: write values ({values}), ranges such as 2-4 in ascending order, "
                "steps such as */2 or 2-10/2, or a list of these with commas and no blanks"
            )
    if not _is_valid(texts):
        raise CronError(f"never fires: no month in {texts[3]!r} has a day in {texts[2]!r}")
    minute, *others = texts
    fields = " ".join([re.sub(r"^\*", "0-59", minute), *others])  # so that the hour alone decides about real time
    return Cron(expression, fields, in_zone)


def _is_valid(texts: list[str]) -> bool:
    try:
        CronSim(" ".join(texts), EPOCH)
    except CronSimError:
        return False
    return True
