"""Cron expressions, compared with a slow oracle that steps minute by minute, and where implementations differ.

The half-hour zone is Australia/Lord_Howe, where CronSim alone would miss times around a change of the clock.
"""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sweeper.daemon import cron
from sweeper.daemon.cron import Cron, CronError, missed

MINUTE = timedelta(minutes=1)
NAMES_OF_MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
NAMES_OF_DAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
NAMES = {name: number for names in (["", *NAMES_OF_MONTHS], NAMES_OF_DAYS) for number, name in enumerate(names)}
LORD_HOWE, BERLIN, NEW_YORK = "Australia/Lord_Howe", "Europe/Berlin", "America/New_York"
CHANGES = {
    "Berlin, spring": (BERLIN, "2026-03-29T01:00"),
    "Berlin, autumn": (BERLIN, "2026-10-25T01:00"),
    "New York, spring": (NEW_YORK, "2026-03-08T07:00"),
    "New York, autumn": (NEW_YORK, "2026-11-01T06:00"),
    "Lord Howe, spring": (LORD_HOWE, "2026-10-03T15:30"),
    "Lord Howe, autumn": (LORD_HOWE, "2026-04-04T15:00"),
    "Havana, at midnight": ("America/Havana", "2026-03-08T05:00"),
    "Havana, autumn": ("America/Havana", "2026-11-01T05:00"),
    "Santiago, autumn, before midnight": ("America/Santiago", "2026-04-05T03:00"),
    "Beirut, spring, at midnight": ("Asia/Beirut", "2026-03-28T22:00"),
    "Apia, a day that was not": ("Pacific/Apia", "2011-12-30T10:00"),
    "no change": ("UTC", "2024-02-28T23:00"),
}
"""Zone, and the instant (UTC) at which its clock changes."""


def at(text: str) -> datetime:
    """An instant in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# The oracle


def allows(field: str, value: int, top: int) -> bool:
    """True if a field of an expression allows a value; `top` is the field's highest value."""
    return any(item_allows(item, value, top) for item in field.lower().split(","))


def item_allows(item: str, value: int, top: int) -> bool:
    """True if one item of a list allows the value."""
    span, _, step = item.partition("/")
    low, _, high = span.partition("-")
    first = {31: 1, 12: 1}.get(top, 0) if low == "*" else number(low)
    last = top if low == "*" else number(high or low)
    return first <= value <= last and (value - first) % int(step or 1) == 0


def number(text: str) -> int:
    """Return the number that a number or a name stands for."""
    return NAMES[text] if text in NAMES else int(text)


def matches(expression: str, wall: datetime) -> bool:
    """True if the expression matches a local time."""
    minute, hour, day, month, weekday = expression.split()
    by_date = allows(day, wall.day, 31)
    sunday_is_0 = (wall.weekday() + 1) % 7
    by_weekday = allows(weekday, sunday_is_0, 7) or (sunday_is_0 == 0 and allows(weekday, 7, 7))
    unrestricted = day[0] == "*" or weekday[0] == "*"
    return (
        allows(minute, wall.minute, 59)
        and allows(hour, wall.hour, 23)
        and allows(month, wall.month, 12)
        and (by_date and by_weekday if unrestricted else by_date or by_weekday)
    )


def walk(expression: str, zone: tzinfo, start: datetime, end: datetime) -> list[datetime]:
    """Return the instants after `start` up to `end`, found by checking the local time at each minute."""
    fires, real = [], expression.split()[1].startswith("*")
    minute = start - timedelta(days=2)
    shown = minute.astimezone(zone).replace(tzinfo=None)
    while minute < end:
        minute += MINUTE
        wall = minute.astimezone(zone).replace(tzinfo=None)
        new = []
        while shown < wall:
            shown += MINUTE
            new.append(shown)
        if minute > start and any(matches(expression, each) for each in ([wall] if real else new)):
            fires.append(minute)
    return fires


def within(expression: str, zone: tzinfo, start: datetime, end: datetime) -> list[datetime]:
    """Return the same from the program."""
    found = []
    for fire in cron.parse(expression, zone).after(start):
        if fire > end:
            break
        found.append(fire)
    return found


@st.composite
def fields(draw: st.DrawFn, low: int, high: int, *names: str) -> str:
    """One field of an expression: `*`, values, ranges and steps, in a list."""
    spelt = st.integers(low, high).map(lambda n: names[n - low] if n - low < len(names) and n % 2 else str(n))

    def span() -> str:
        first, last = sorted(draw(st.lists(st.integers(low, high), min_size=2, max_size=2, unique=True)))
        return f"{first}-{last}"

    def item() -> str:
        kind = draw(st.sampled_from(["*", "*/", "value", "value", "range", "range/"]))
        step = draw(st.integers(1, high + 2))
        return {"*": "*", "*/": f"*/{step}", "value": draw(spelt), "range": span(), "range/": f"{span()}/{step}"}[kind]

    return ",".join(item() for _ in range(draw(st.integers(1, 3))))


EXPRESSIONS = st.tuples(
    fields(0, 59),
    st.one_of(fields(0, 23), fields(0, 3)),  # clocks change in these
    st.one_of(st.just("*"), fields(1, 31)),
    st.one_of(st.just("*"), fields(1, 12, *NAMES_OF_MONTHS)),
    st.one_of(st.just("*"), fields(0, 7, *NAMES_OF_DAYS)),
).map(" ".join)


@given(EXPRESSIONS, st.sampled_from(sorted(CHANGES)), st.integers(-1700, 400))
@example("0 0 * * 5-7", "no change", 0)
@example("30 2 * * *", "Berlin, autumn", -1440)
@example("30 2 * * *", "Berlin, spring", -1440)
@example("10 2 * * *", "Lord Howe, spring", -1440)
@example("45 1 * * *", "Lord Howe, autumn", -1440)
@example("*/10 * * * *", "Lord Howe, autumn", -300)
@example("45 * * * *", "Lord Howe, autumn", -300)
@example("0 */2 * * *", "Lord Howe, autumn", -300)
@example("*/10 */6 * * *", "Lord Howe, spring", -300)
@example("*/10 2 * * *", "Berlin, spring", -1440)
@example("0 0 * * *", "Havana, at midnight", -1440)
@example("0 0 * * *", "Santiago, autumn, before midnight", -1440)
@example("0 */2 * * *", "Santiago, autumn, before midnight", -1440)
@example("0 */2 29 * *", "Beirut, spring, at midnight", -300)
@example("30 2 * * *", "Berlin, autumn", 10)
@example("15 12 30 * *", "Apia, a day that was not", -1440)
@settings(max_examples=60)
def test_as_the_oracle(expression: str, change: str, minutes: int) -> None:
    """Around every clock change, an expression fires exactly when the oracle says."""
    name, instant = CHANGES[change]
    zone, start = ZoneInfo(name), at(instant) + minutes * MINUTE
    end = start + timedelta(hours=30)
    try:
        found = within(expression, zone, start, end)
    except CronError as error:
        assert "never fires" in str(error)  # noqa: PT017 — most expressions do come
        found = []
    assert found == walk(expression, zone, start, end)


# What cron means


WEEK = [f"2026-01-{day:02}" for day in range(4, 11)]
"""From a Sunday to a Saturday."""


def days(expression: str) -> str:
    """Return the days of one week on which an expression fires, as cron numbers them."""
    fires = {str(fire.date()) for fire in within(expression, UTC, at("2026-01-03T23:59"), at("2026-01-10T23:59"))}
    return "".join(str(number) for number, day in enumerate(WEEK) if day in fires)


@pytest.mark.parametrize(
    ("weekday", "fires"),
    [("0", "0"), ("7", "0"), ("1", "1"), ("6", "6"), ("1-5", "12345"), ("5-7", "056"), ("0-4", "01234"), ("0-7", "0123456"),
     ("1-5/2", "135"), ("*/2", "0246"), ("*/7", "0"), ("1-7/2", "0135"), ("sun", "0"), ("MON-Fri", "12345"), ("sat,sun", "06"),
     ("mon-5,7", "012345"), ("*", "0123456")],
)  # fmt: skip
def test_days_of_the_week(weekday: str, fires: str) -> None:
    """Numbers, names, ranges and steps of days begin at Sunday, and 7 is Sunday again."""
    assert days(f"0 0 * * {weekday}") == fires


@pytest.mark.parametrize(
    ("expression", "fires"),
    [("0 0 5 * 3", "13"), ("0 0 5 * *", "1"), ("0 0 * * 3", "3"), ("0 0 */2 * 1", "1"), ("0 0 */2 * 2", ""), ("0 0 5 1 3", "13"),
     ("0 0 5 2 3", ""), ("0 0 31 2 6", ""), ("0 0 5-7 JAN */3", "3")],
)  # fmt: skip
def test_day_of_month_and_day_of_week(expression: str, fires: str) -> None:
    """If both are restricted either suffices; if one begins with `*` both must hold."""
    assert days(expression) == fires


@pytest.mark.parametrize(("nickname", "fires"), [("@hourly", 168), ("@daily", 7), ("@Weekly", 1), ("@monthly", 0)])
def test_nicknames(nickname: str, fires: int) -> None:
    """A nickname fires as the expression it stands for."""
    assert len(within(nickname, UTC, at("2026-01-03T23:59"), at("2026-01-10T23:59"))) == fires


NIGHTS = {
    (BERLIN, "30 2 * * *", "2026-03-28T12:00"): ["2026-03-29T01:00", "2026-03-30T00:30"],
    (BERLIN, "30 2 * * *", "2026-10-24T12:00"): ["2026-10-25T00:30", "2026-10-26T01:30"],
    (BERLIN, "0 2,3 * * *", "2026-03-28T12:00"): ["2026-03-29T01:00", "2026-03-30T00:00"],
    (BERLIN, "30 * * * *", "2026-03-29T00:00"): ["2026-03-29T00:30", "2026-03-29T01:30"],
    (BERLIN, "30 * * * *", "2026-10-25T00:00"): ["2026-10-25T00:30", "2026-10-25T01:30"],
    (BERLIN, "30 */2 * * *", "2026-03-28T23:00"): ["2026-03-28T23:30", "2026-03-29T02:30"],
    (NEW_YORK, "30 2 * * *", "2026-03-07T12:00"): ["2026-03-08T07:00", "2026-03-09T06:30"],
    (NEW_YORK, "30 1 * * *", "2026-10-31T12:00"): ["2026-11-01T05:30", "2026-11-02T06:30"],
    (LORD_HOWE, "15 2 * * *", "2026-10-03T12:00"): ["2026-10-03T15:30", "2026-10-04T15:15"],
    (LORD_HOWE, "45 1 * * *", "2026-04-04T12:00"): ["2026-04-04T14:45", "2026-04-05T15:15"],
    ("UTC", "0 0 29 2 *", "2096-03-01T00:00"): ["2104-02-29T00:00", "2108-02-29T00:00"],
}


@pytest.mark.parametrize(("night", "fires"), NIGHTS.items(), ids=str)
def test_when_clocks_change(night: tuple[str, str, str], fires: list[str]) -> None:
    """A set time fires once in a repeated hour, and right after a skipped one; `*` follows real time."""
    name, expression, start = night
    assert list(islice(cron.parse(expression, ZoneInfo(name)).after(at(start)), 2)) == [at(fire) for fire in fires]


def test_the_rarest_day() -> None:
    """A 29 February on a Sunday is found across the year 2100, which has no 29 February."""
    rare = cron.parse("0 0 29 2 */7", UTC)
    assert next(rare.after(at("2088-02-29T00:00"))) == at("2128-02-29T00:00")


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", ":broken"])
def machine_zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """Set the machine's time zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def test_whatever_the_machine_is_set_to(machine_zone: str) -> None:
    """The machine's time zone does not matter."""
    for (name, expression, start), fires in NIGHTS.items():
        found = islice(cron.parse(expression, ZoneInfo(name)).after(at(start)), 2)
        assert list(found) == [at(fire) for fire in fires], machine_zone


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (
            "61 * * * *",
            "minute '61' is not valid: write values (0 to 59), ranges such as 2-4 in ascending order, steps",
        ),
        ("* 24 * * *", "hour '24' is not valid: write values (0 to 23)"),
        ("* * 0 * *", "day of month '0' is not valid: write values (1 to 31)"),
        ("* * * 13 *", "month '13' is not valid: write values (1 to 12 or jan to dec)"),
        ("* * * * 8", "day of week '8' is not valid: write values (0 to 7 or sun to sat)"),
        ("* * * * fri-mon", "day of week 'fri-mon' is not valid"),
        ("* * * sunday *", "month 'sunday' is not valid"),
        ("mon * * * *", "minute 'mon' is not valid"),
        ("*/0 * * * *", "minute '*/0' is not valid"),
        ("*/x * * * *", "minute '*/x' is not valid"),
        ("5/15 * * * *", "minute '5/15' is not valid"),
        ("1,,2 * * * *", "minute '1,,2' is not valid"),
        ("-1 * * * *", "minute '-1' is not valid"),
        ("1-2-3 * * * *", "minute '1-2-3' is not valid"),
        ("\u0661 * * * *", "minute '\u0661' is not valid"),
        ("* * L * *", "day of month 'l' is not valid"),
        ("* * LW * *", "day of month 'lw' is not valid"),
        ("* * * * mon#2", "day of week 'mon#2' is not valid"),
        ("* * * *", "has 4 fields where cron has 5: minute, hour, day of month, month, day of week"),
        ("0 * * * * *", "has 6 fields"),
        ("@reboot", "'@reboot' is none of @hourly, @daily"),
        ("0 0 31 2,4 *", "never fires: no month in '2,4' has a day in '31'"),
        ("0 0 30 2 */2", "never fires"),
    ],
)
def test_what_means_nothing(expression: str, words: str) -> None:
    """An expression that cron would refuse, or that never fires, is refused; the message names the field."""
    with pytest.raises(CronError) as caught:
        cron.parse(expression, UTC)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", ["", "Europe", "Mars/Base", "../etc/passwd", "/etc/localtime", "CEST+2\0"])
def test_what_is_no_zone(name: str) -> None:
    """An unknown time zone is refused."""
    with pytest.raises(CronError, match="is not a known time zone"):
        cron.zone(name)


# What was missed


NIGHTLY: Cron = cron.parse("17 2 * * *", UTC)
LAST = at("2026-01-10T02:17")
TICK = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (LAST, LAST, []),
        (LAST - TICK, LAST, [LAST]),
        (LAST - TICK, LAST - TICK, []),
        (LAST + TICK, LAST + timedelta(hours=23), []),
        (LAST, LAST + timedelta(days=1) - TICK, []),
        (LAST, LAST + timedelta(days=1), [LAST + timedelta(days=1)]),
        (LAST - timedelta(days=44), LAST, [LAST - timedelta(days=day) for day in range(43, -1, -1)]),
        (LAST + timedelta(days=9), LAST, []),
    ],
)
def test_missed(since: datetime, until: datetime, expected: list[datetime]) -> None:
    """Missed are the instants after the last execution up to now; an execution exactly at its instant is in time."""
    assert missed(NIGHTLY, since, until) == expected


def test_missed_for_years() -> None:
    """The number of missed instants that are counted is bounded."""
    found = missed(cron.parse("* * * * *", UTC), at("1990-01-01T00:00"), at("2026-01-10T02:17:30"))
    assert (len(found), found[0]) == (cron.COUNTED_AT_MOST, at("1990-01-01T00:01"))
