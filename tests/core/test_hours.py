"""Hours of the day and durations: over midnight, where clocks change, and written wrongly."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.cli import duration
from sweeper.policy.hours import Hours
from tests.facts import instant

TICK = timedelta(microseconds=1)
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "America/Sao_Paulo"]
INSTANTS = st.one_of(
    st.timedeltas(timedelta(0), timedelta(days=4_000)).map(lambda passed: datetime(2017, 1, 1, tzinfo=UTC) + passed),
    st.builds(
        lambda hours, minutes: datetime(2025, 3, 29, 22, tzinfo=UTC) + timedelta(hours=hours, minutes=minutes),
        st.integers(0, 8),
        st.integers(0, 59),
    ),
    st.builds(
        lambda hours, minutes: datetime(2025, 10, 25, 22, tzinfo=UTC) + timedelta(hours=hours, minutes=minutes),
        st.integers(0, 8),
        st.integers(0, 59),
    ),
)


def shown(hour: int, minute: int) -> str:
    """Format a time of day."""
    return f"{hour:02d}:{minute:02d}"


TIMES = st.builds(shown, st.integers(0, 23), st.integers(0, 59))


@pytest.mark.parametrize(
    ("written", "at", "holds"),
    [
        ("01:00-05:00", "00:59:59.999999", False),
        ("01:00-05:00", "01:00:00", True),
        ("01:00-05:00", "04:59:59.999999", True),
        ("01:00-05:00", "05:00:00", False),
        ("22:00-04:00", "21:59:59.999999", False),
        ("22:00-04:00", "22:00:00", True),
        ("22:00-04:00", "00:00:00", True),
        ("22:00-04:00", "03:59:59.999999", True),
        ("22:00-04:00", "04:00:00", False),
        ("22:00-04:00", "12:00:00", False),
        ("22:00-00:00", "23:59:59.999999", True),
        ("22:00-00:00", "00:00:00", False),
        ("00:00-23:59", "00:00:00", True),
    ],
)
def test_edges(written: str, at: str, holds: bool) -> None:  # noqa: FBT001 — a column of the table
    """The first minute is inside and the last one outside, also over midnight."""
    assert Hours.parse(written, UTC).holds(instant(f"2025-06-01T{at}Z")) is holds


@pytest.mark.parametrize(
    ("zone", "at", "holds"),
    [
        ("Europe/Berlin", "2025-01-15T00:30:00Z", True),  # 01:30 in winter
        ("Europe/Berlin", "2025-07-15T00:30:00Z", True),  # 02:30 in summer
        ("Europe/Berlin", "2025-01-14T23:30:00Z", False),  # 00:30 in winter
        ("Europe/Berlin", "2025-07-14T23:30:00Z", True),  # 01:30 in summer
        ("Europe/Berlin", "2025-03-30T00:59:59Z", True),  # 01:59:59, and the next second shows 03:00
        ("Europe/Berlin", "2025-03-30T01:00:00Z", False),
        ("Europe/Berlin", "2025-10-26T00:30:00Z", True),  # 02:30 for the first time
        ("Europe/Berlin", "2025-10-26T01:30:00Z", True),  # and for the second
        ("Europe/Berlin", "2025-10-26T02:00:00Z", False),
        ("Asia/Kathmandu", "2025-01-14T19:15:00Z", True),  # 01:00
    ],
)
def test_zone_says_what_the_clock_shows(zone: str, at: str, holds: bool) -> None:  # noqa: FBT001 — a column of the table
    """Hours are local time, before and after the clock changes."""
    assert Hours.parse("01:00-03:00", ZoneInfo(zone)).holds(instant(at)) is holds


@given(begin=TIMES, end=TIMES, zone=st.sampled_from(ZONES), at=INSTANTS)
def test_every_instant_lies_in_the_hours_or_in_the_rest(begin: str, end: str, zone: str, at: datetime) -> None:
    """Every instant lies either in the hours or in their complement."""
    if begin != end:
        there = ZoneInfo(zone)
        assert Hours.parse(f"{begin}-{end}", there).holds(at) != Hours.parse(f"{end}-{begin}", there).holds(at)


@given(begin=TIMES, end=TIMES, zone=st.sampled_from(ZONES), at=INSTANTS)
def test_waiting_leads_to_the_beginning(begin: str, end: str, zone: str, at: datetime) -> None:
    """Waiting for `until_open`, repeatedly if clocks change, leads into the hours; inside them the wait is zero."""
    if begin == end:
        return
    hours = Hours.parse(f"{begin}-{end}", ZoneInfo(zone))
    assert (hours.until_open(at) == timedelta(0)) == hours.holds(at)
    first = at
    for _ in range(4):
        wait = hours.until_open(at)
        assert timedelta(0) <= wait <= timedelta(hours=49)
        at += wait
    assert hours.holds(at) or _is_skipped(hours, first)


def _is_skipped(hours: Hours, at: datetime) -> bool:
    """True if the hours lie inside the hour that is skipped that day."""
    steps = (at + timedelta(minutes=number) for number in range(25 * 60))
    return not any(hours.holds(step) for step in steps)


@pytest.mark.parametrize(
    "text", ["", "1-5", "1:00-5:00", "24:00-05:00", "01:60-05:00", "01:00", "01:00-", "01:00 - 05:00", "01:00-05:00x"]
)
def test_what_is_no_hours_is_said_so(text: str) -> None:
    """Any other form is refused with a message that shows HH:MM-HH:MM."""
    with pytest.raises(ValueError, match="HH:MM-HH:MM"):
        Hours.parse(text, UTC)


def test_hours_of_no_length_are_refused() -> None:
    """Equal begin and end are refused: they could mean always or never."""
    with pytest.raises(ValueError, match="same time"):
        Hours.parse("03:00-03:00", UTC)


def test_hours_say_what_they_are() -> None:
    """The text names the hours and the zone."""
    assert str(Hours.parse("22:00-04:00", ZoneInfo("Europe/Berlin"))) == "22:00-04:00 Europe/Berlin"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("15m", 900),
        ("2h", 7_200),
        ("1h30m", 5_400),
        ("1h1m1s", 3_661),
        ("1h30", 3_630),
        (" 5m ", 300),
    ],
)
def test_durations(text: str, seconds: int) -> None:
    """Hours, minutes and seconds, in this order, each at most once; a bare number is seconds."""
    assert duration.parse(text) == seconds


@pytest.mark.parametrize("text", ["", " ", "m", "1d", "-5m", "5 m", "1.5h", "30m1h", "1h1h", "0", "0s", "0h0m", "ten"])
def test_what_is_no_duration_is_said_so(text: str) -> None:
    """Any other form, and a duration of zero, is refused."""
    with pytest.raises(ValueError, match="time"):
        duration.parse(text)


@given(hours=st.integers(0, 999_999), minutes=st.integers(0, 99), seconds=st.integers(1, 99))
def test_parts_of_a_duration_add_up(hours: int, minutes: int, seconds: int) -> None:
    """The parts of a duration are added."""
    assert duration.parse(f"{hours}h{minutes}m{seconds}s") == hours * 3_600 + minutes * 60 + seconds
