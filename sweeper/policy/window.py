"""A window of dues: what a sweep is about when it is not about everything that is due."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from dateutil.relativedelta import relativedelta


@dataclass(frozen=True, slots=True)
class Window:
    """Dues from `since` (inclusive) to `until` (exclusive), both UTC; None is no bound. Those in the `gap` are another's."""

    since: datetime | None = None
    until: datetime | None = None
    excluded_window: tuple[datetime, datetime] | None = None

    def holds(self, due: datetime | None) -> bool:
        """Whether a due lies in the window; "never" lies in none that has a bound."""
        if due is None:
            return self == EVERYTHING
        if self.excluded_window is not None and self.excluded_window[0] <= due < self.excluded_window[1]:
            return False
        return (self.since is None or due >= self.since) and (self.until is None or due < self.until)

    def parts(self) -> tuple["Window", ...]:
        """Windows without a gap that together are this one, the oldest first."""
        if self.excluded_window is None:
            return (self,)
        return Window(self.since, self.excluded_window[0]), Window(self.excluded_window[1], self.until)

    def horizon(self, as_of: datetime) -> datetime:
        """The latest due that is looked for at `as_of`."""
        return as_of if self.until is None else min(as_of, self.until)


EVERYTHING = Window()


class Slice(StrEnum):
    """How long the slices of a backfill are."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    def end(self, begin: datetime) -> datetime:
        """Where the slice ends that begins then: at midnight UTC, of a Monday, of the first of a month."""
        midnight = datetime(begin.year, begin.month, begin.day, tzinfo=UTC)
        match self:
            case Slice.DAY:
                return midnight + timedelta(days=1)
            case Slice.WEEK:
                return midnight + timedelta(days=7 - midnight.weekday())
            case Slice.MONTH:
                return midnight.replace(day=1) + relativedelta(months=1)


def slices(since: datetime, until: datetime, by: Slice) -> Iterator[Window]:
    """Windows that together cover the dues from `since` to `until`, the oldest first."""
    begin = since
    while begin < until:
        end = min(by.end(begin), until)
        yield Window(begin, end)
        begin = end
