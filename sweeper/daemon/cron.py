"""Cron expressions, and the instants at which they fire: five fields in a zone mean what cron means by them.

The law of this file: a job at a set hour fires once for each of its times of day, whatever a zone's clock does. A time that
occurs twice (autumn) fires at its first occurrence; one that is skipped (spring) fires when the clock has jumped over it.
Where the hour begins with `*`, the job goes by real time: in every hour that there is, in none that there is not.
"""

import calendar
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import chain, islice
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

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
DAY = timedelta(days=1)
HORIZON = 366 * 45
"""Days: 29 February falls on a given day of the week once in 40 years at the least."""
COUNTED_AT_MOST = 10_000
"""So many missed instants are counted; more are told as so many."""


class CronError(ValueError):
    """The expression or the zone means nothing; the text says what is wrong with it."""


@dataclass(frozen=True)
class _Field:
    """What a field of an expression may hold."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()
    """The names of its values, from the lowest on."""


MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
FIELDS = (
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, MONTHS),
    _Field("day of week", 0, 7, WEEKDAYS),
)
SUNDAY = 7
"""Sunday as a second number: 0 and 7 are the same day."""


@dataclass(frozen=True)
class Cron:
    """A cron expression in a zone: which instants it names. All instants in and out are in UTC."""

    expression: str
    zone: tzinfo
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    real_time: bool
    """The hour begins with `*`."""
    either_day: bool
    """Day of month and day of week are both restricted: either suffices."""

    def after(self, instant: datetime) -> Iterator[datetime]:
        """All instants later than `instant`, in order, as far as the horizon from it."""
        start = aware(instant)
        days = (start.date() + number * DAY for number in range(HORIZON))
        return (fire for day in days for fire in self._within(day) if fire > start)

    def last(self, instant: datetime) -> datetime | None:
        """The latest instant at or before `instant`, as far back as the horizon."""
        end = aware(instant)
        days = (end.date() - number * DAY for number in range(HORIZON))
        return next((fire for day in days for fire in reversed(self._within(day)) if fire <= end), None)

    def _within(self, day: date) -> list[datetime]:
        """The instants of a day in UTC, in order: they are of that day, the one before or the one after in the zone."""
        local = (day + number * DAY for number in (-1, 0, 1))
        found = chain.from_iterable(self._of(each) for each in local if self._names(each))
        return sorted({fire for fire in found if fire.date() == day})

    def _names(self, day: date) -> bool:
        """Whether a day in the zone is one of the expression's."""
        if day.month not in self.months:
            return False
        by_date, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_date or by_weekday if self.either_day else by_date and by_weekday

    def _of(self, day: date) -> Iterator[datetime]:
        for hour in self.hours:
            for minute in self.minutes:
                yield from self._real(datetime.combine(day, time(hour, minute)))

    def _real(self, wall: datetime) -> Iterator[datetime]:
        """When a time on the zone's wall really is: once; in autumn perhaps twice, in spring perhaps never."""
        first, second = (wall.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if first <= second:
            yield first
            if self.real_time:
                yield second
        elif not self.real_time:
            yield self._jump(second, first)

    def _jump(self, before: datetime, after: datetime) -> datetime:
        """The instant between two at which the zone's clock jumps."""
        offset = before.astimezone(self.zone).utcoffset()
        seconds = range(int((after - before).total_seconds()))
        return before + timedelta(seconds=bisect_left(seconds, 1, key=lambda s: self._left(offset, before, s)))

    def _left(self, offset: timedelta | None, before: datetime, seconds: int) -> bool:
        """Whether the zone has left an offset so many seconds later."""
        return (before + timedelta(seconds=seconds)).astimezone(self.zone).utcoffset() != offset


@dataclass(frozen=True)
class Missed:
    """Instants at which something should have begun and did not: how many (at most COUNTED_AT_MOST), first and last."""

    count: int
    first: datetime
    last: datetime

    @property
    def told(self) -> str:
        """The number in words."""
        more = " or more" if self.count == COUNTED_AT_MOST else ""
        return f"{self.count}{more} time{'s' if self.count > 1 else ''}"


def missed(cron: Cron, since: datetime, until: datetime) -> Missed | None:
    """What was missed: the instants after `since`, when it was last done, up to and including `until`; None for nothing.

    Whatever began exactly at an instant has not missed it. The work is bounded, however long ago `since` is.
    """
    count, first = 0, None
    for fire in islice(cron.after(since), COUNTED_AT_MOST):
        if fire > until:
            break
        count, first = count + 1, first or fire
    last = cron.last(until)
    return Missed(count, first, last) if first is not None and last is not None else None


def zone(name: str) -> tzinfo:
    """The time zone of a name.

    Raises:
        CronError: there is none of that name.
    """
    if name == "UTC":
        return UTC  # needs no zone data, which a small image may lack
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise CronError("is no time zone that is known here; write UTC, or a name such as Europe/Berlin") from None


def parse(expression: str, in_zone: tzinfo) -> Cron:
    """What a cron expression means in a zone.

    Raises:
        CronError: nothing, or nothing that ever comes.
    """
    texts = _fields(expression)
    minutes, hours, days, months, weekdays = map(_values, FIELDS, texts)
    _, hour, day, _, weekday = texts
    either = not (day.startswith("*") or weekday.startswith("*"))
    if not either and not any(d <= calendar.monthrange(2024, month)[1] for month in months for d in days):
        raise CronError(f"never comes: no month in {texts[3]!r} has a day in {day!r}")
    sundays = frozenset(value % SUNDAY for value in weekdays)
    return Cron(expression, in_zone, minutes, hours, days, months, sundays, hour.startswith("*"), either)


def _fields(expression: str) -> list[str]:
    named = expression.strip().lower()
    if named.startswith("@") and named not in NICKNAMES:
        raise CronError(f"{named.split()[0]!r} is none of {', '.join(NICKNAMES)}")
    texts = NICKNAMES.get(named, named).split()
    if len(texts) != len(FIELDS):
        wanted = ", ".join(field.name for field in FIELDS)
        raise CronError(f"has {len(texts)} fields where cron has {len(FIELDS)}: {wanted}")
    return texts


def _values(field: _Field, text: str) -> frozenset[int]:
    """The values that a list, `1,3-5,*/2`, stands for."""
    return frozenset(chain.from_iterable(_range(field, item) for item in text.split(",")))


def _range(field: _Field, item: str) -> range:
    """The values of `*`, `5`, `2-4`, `*/2` or `2-10/2`."""
    span, slash, step_text = item.partition("/")
    step = _whole(field, step_text) if slash else 1
    if step < 1:
        raise CronError(f"{field.name} {item!r}: a step is at least 1")
    if span == "*":
        return range(field.low, field.high + 1, step)
    begin, dash, end = span.partition("-")
    if slash and not dash:
        raise CronError(f"{field.name} {item!r}: a step needs a range; write {begin}-{field.high}/{step_text}")
    first = _value(field, begin)
    last = _value(field, end) if dash else first
    if last < first:
        raise CronError(f"{field.name} {item!r} ends before it begins; write two ranges with a comma between them")
    return range(first, last + 1, step)


def _value(field: _Field, text: str) -> int:
    if text in field.names:
        return field.low + field.names.index(text)
    value = _whole(field, text)
    if not field.low <= value <= field.high:
        raise CronError(f"{field.name} {value} is not in {field.low}-{field.high}")
    return value


def _whole(field: _Field, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        kinds = f"a number or one of {', '.join(field.names)}" if field.names else "a number"
        raise CronError(f"{field.name} {text!r} is not {kinds}")
    return int(text)
