"""Retention periods, which are added to an anchor and never subtracted from the present (policy, Time 2 and 3)."""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from dateutil.relativedelta import relativedelta

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800}
MONTHS = {"month": 1, "year": 12}
UNITS = (*SECONDS, *MONTHS)
LONGEST = 10_000 * 366 * 86_400
"""Seconds; a longer period ends after the last year that can be stored."""

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
            return cls(seconds=seconds) if seconds <= LONGEST else cls(forever=True)
        months = count * MONTHS[unit]
        return cls(months=months) if months <= 120_000 else cls(forever=True)

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
