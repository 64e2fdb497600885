"""Retention periods, which are added to an anchor and never subtracted from the present (policy, Time 2 and 3)."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from dateutil.relativedelta import relativedelta

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
MONTHS = {"month": 1, "year": 12}
UNITS = (*SECONDS, *MONTHS)
SLACK = timedelta(days=4)
"""How far a proposal over-reaches: 31 January plus one month is 28 February, three days further than counted back."""
NEVER, ALWAYS = "CAST('infinity' AS timestamptz)", "CAST('-infinity' AS timestamptz)"

_WRITTEN = re.compile(r"([0-9]{1,12}) (second|minute|hour|day|week|month|year)s?")


@dataclass(frozen=True, slots=True)
class Period:
    """A number of seconds, a number of calendar months (clamped to the last day of the month, in UTC), or forever."""

    seconds: int = 0
    months: int = 0
    forever: bool = False

    @classmethod
    def parse(cls, text: str) -> "Period":
        """Parse "0", "forever" or "<whole number> <unit>".

        Raises:
            ValueError: the text is none of these.
        """
        if text == "0":
            return cls()
        if text == "forever":
            return cls(forever=True)
        written = _WRITTEN.fullmatch(text)
        if written is None:
            raise ValueError(
                f'{text!r} is no period: write "0", "forever" or a whole number and one of {", ".join(UNITS)}'
            )
        return cls.of(int(written[1]), written[2])

    @classmethod
    def of(cls, count: int, unit: str) -> "Period":
        """Return `count` units as a period; a count too large for any calendar means forever."""
        if unit in SECONDS:
            seconds = count * SECONDS[unit]
            return cls(seconds=seconds) if seconds <= LONGEST["+"].seconds else cls(forever=True)
        months = count * MONTHS[unit]
        return cls(months=months) if months <= LONGEST["+"].months else cls(forever=True)

    def after(self, anchor: datetime) -> datetime | None:
        """Return the instant one period after `anchor` (UTC); None means never."""
        if self.forever:
            return None
        try:
            if self.months:
                return anchor + relativedelta(months=self.months)
            return anchor + timedelta(seconds=self.seconds)
        except (OverflowError, ValueError):  # past year 9999
            return None

    def never_shorter_than(self, other: "Period") -> bool:
        """Return whether this period is at least as long as another from whatever anchor; months against days in doubt not."""
        if self.forever or other.forever:
            return self.forever
        if bool(self.months) == bool(other.months):
            return self.months >= other.months and self.seconds >= other.seconds
        return self._days(365, 28) >= other._days(366, 31)

    def _days(self, year: int, month: int) -> float:
        """Return the period in days, if years and months have so many."""
        return self.months // 12 * year + self.months % 12 * month + self.seconds / SECONDS["day"]

    def sql(self, instant: str, sign: Literal["+", "-"] = "+") -> str:
        """Return the SQL of the instant one period after another in a session in UTC; infinity is never.

        With "-", return an instant about one period before it, for bounds with a slack.
        """
        if self.forever:
            return NEVER if sign == "+" else ALWAYS
        months, seconds = min(self.months, LONGEST[sign].months), min(self.seconds, LONGEST[sign].seconds)
        return f"({instant} {sign} make_interval(months => {months}, secs => {seconds}))"

    def latest(self, as_of: datetime) -> datetime | None:
        """Return the latest anchor from which the period can have ended at `as_of`: exact in seconds, with a slack in months."""
        before = self.before(as_of)
        return before + SLACK if before is not None and self.months else before

    def earliest(self, since: datetime) -> datetime | None:
        """Return the earliest anchor from which the period ends at `since` or later, with a slack in months; None: no bound."""
        before = self.before(since)
        slack = SLACK if self.months else timedelta()
        if before is None or before - datetime.min.replace(tzinfo=UTC) < slack:  # before year 1
            return None
        return before - slack

    def before(self, instant: datetime) -> datetime | None:
        """Return an instant about one period before `instant`, for search bounds that allow some slack; None if there is none."""
        if self.forever:
            return None
        try:
            return instant - relativedelta(months=self.months) - timedelta(seconds=self.seconds)
        except (OverflowError, ValueError):  # before year 1
            return None

    def __str__(self) -> str:
        if self.forever:
            return "forever"
        count, units = (self.months, MONTHS) if self.months else (self.seconds, SECONDS)
        for unit, size in sorted(units.items(), key=lambda item: -item[1]):
            if count and unit != "week" and count % size == 0:
                return f"{count // size} {unit}{'s' * (count != size)}"
        return "0"


LONGEST = {"+": Period(10_000 * 366 * 86_400, 120_000), "-": Period(1_900 * 365 * 86_400, 1_900 * 12)}
"""The longest period in seconds, or in months, that is added or subtracted. Forward it passes every year that `datetime` can
hold; backward it ends, from any as-of, at an instant that PostgreSQL can hold."""


def units_sql(count: str, unit: str, sign: Literal["+", "-"]) -> str:
    """Return the SQL interval of a number of units that is given as text, at most `LONGEST`."""
    if unit in MONTHS:
        months = f"LEAST(CAST({count} AS numeric) * {MONTHS[unit]}, {LONGEST[sign].months})"
        return f"make_interval(months => CAST({months} AS integer))"
    seconds = f"LEAST(CAST({count} AS numeric) * {SECONDS[unit]}, {LONGEST[sign].seconds})"
    return f"make_interval(secs => CAST({seconds} AS double precision))"
