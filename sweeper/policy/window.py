"""Windows of due dates: which of the due conversations a run or a slice of a backfill purges."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from dateutil.relativedelta import relativedelta


@dataclass(frozen=True, slots=True)
class Window:
    """Due dates from `since` (inclusive) to `until` (exclusive), in UTC; None means unbounded.

    Due dates within `excluded_window` (begin inclusive, end exclusive) belong to an active backfill and are not in the window.
    """

    since: datetime | None = None
    until: datetime | None = None
    excluded_window: tuple[datetime, datetime] | None = None

    def holds(self, due: datetime | None) -> bool:
        """Return True if a due date lies in the window; None (never due) lies only in the unbounded one."""
        if due is None:
            return self == EVERYTHING
        if self.excluded_window is not None and self.excluded_window[0] <= due < self.excluded_window[1]:
            return False
        return (self.since is None or due >= self.since) and (self.until is None or due < self.until)

    def parts(self) -> tuple["Window", ...]:
        """Return the windows without an excluded window that together equal this one, the oldest first."""
        if self.excluded_window is None:
            return (self,)
        return Window(self.since, self.excluded_window[0]), Window(self.excluded_window[1], self.until)

    def horizon(self, as_of: datetime) -> datetime:
        """Return the latest due date to look for at `as_of`."""
        return as_of if self.until is None else min(as_of, self.until)


EVERYTHING = Window()


class Slice(StrEnum):
    """The length of a backfill's slices."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"

    def end(self, begin: datetime) -> datetime:
        """Return the end of the slice that begins at `begin`: the next midnight UTC, Monday or first day of a month."""
        midnight = datetime(begin.year, begin.month, begin.day, tzinfo=UTC)
        match self:
            case Slice.DAY:
                return midnight + timedelta(days=1)
            case Slice.WEEK:
                return midnight + timedelta(days=7 - midnight.weekday())
            case Slice.MONTH:
                return midnight.replace(day=1) + relativedelta(months=1)


def slices(since: datetime, until: datetime, by: Slice) -> Iterator[Window]:
    """Yield the windows that cover the due dates from `since` to `until`, the oldest first."""
    begin = since
    while begin < until:
        end = min(by.end(begin), until)
        yield Window(begin, end)
        begin = end
