"""Dates: a due is reached to the microsecond, by the calendar of UTC, wherever the machine stands and whatever its clock says."""

import os
import time
from calendar import monthrange
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from freezegun import freeze_time
from hypothesis import given
from hypothesis import strategies as st

from sweeper.clock import Clock
from sweeper.policy.decide import Verdict, decide
from sweeper.policy.facts import Account, ConsentEvent, Conversation, Facts, Feedback, Order, PlanChange
from sweeper.policy.feedback import FeedbackFacts, decide_feedback
from sweeper.policy.instant import aware, parse, rfc3339
from sweeper.policy.period import LONGEST, MONTHS, SECONDS, UNITS, Period
from sweeper.policy.schema import Policy

ZONES = ("America/New_York", "Europe/Stockholm", "Pacific/Auckland", "Australia/Lord_Howe", "Asia/Taipei", "UTC")
TICK = timedelta(microseconds=1)
DAYS = Period(seconds=30 * 86_400)
YEARS = Period(months=60)


@contextmanager
def standing_in(zone: str) -> Iterator[None]:
    """This process in another time zone."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = zone
    time.tzset()
    try:
        yield
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test's process stands in this zone."""
    with standing_in(request.param):
        yield request.param


def at(text: str) -> datetime:
    """An instant."""
    return parse(text)


# One conversation for each rule of the table, anchored at T, with the due that the rule gives it.

T = at("2028-02-29T12:00:00Z")
BORN = at("2028-02-01T00:00:00Z")
FIVE_YEARS = at("2033-02-28T12:00:00Z")
TWO_YEARS = at("2030-02-28T12:00:00Z")
THIRTY_DAYS = at("2028-03-30T12:00:00Z")


def facts(
    plan: str = "pro",
    consent: tuple[ConsentEvent, ...] = (),
    closed_at: datetime | None = None,
    orders: tuple[Order, ...] = (),
    **columns: Any,
) -> Facts:
    """A conversation last active at T, of an account with one plan."""
    account = Account(
        "a1", at("2019-01-01T00:00:00Z"), closed_at, (PlanChange(1, at("2019-01-01T00:00:00Z"), plan),), consent
    )
    row = {
        "kind": "chat",
        "platform": "first_party",
        "incognito": False,
        "zero_retention": False,
        "created_at": BORN,
        "last_activity_at": T,
        "deleted_at": None,
        "restored_at": None,
        "flagged_at": None,
        **columns,
    }
    return Facts(Conversation("c1", "a1", **row), account, (), orders)


def event(
    number: int, recorded_at: datetime, purpose: str = "model_improvement", *, granted: bool = True
) -> ConsentEvent:
    """A grant or a withdrawal."""
    return ConsentEvent(number, purpose, granted, recorded_at, None)


GRANT = event(1, at("2026-01-01T00:00:00Z"))
RULES = {
    "zero_retention": (facts(zero_retention=True), T),
    "deleted": (facts(consent=(GRANT,), deleted_at=T), THIRTY_DAYS),
    "account_closed": (
        facts(plan="api", consent=(event(1, BORN - TICK, "development_partner"),), closed_at=T),
        THIRTY_DAYS,
    ),
    "incognito": (facts(consent=(GRANT,), incognito=True), THIRTY_DAYS),
    "commercial": (facts(plan="team"), THIRTY_DAYS),
    "partner": (facts(plan="api", consent=(event(1, BORN - TICK, "development_partner"),)), TWO_YEARS),
    "consent_ended": (facts(consent=(GRANT, event(2, T + TICK, granted=False))), THIRTY_DAYS + TICK),
    "training_allowed": (facts(consent=(GRANT,)), FIVE_YEARS),
    "standard": (facts(), THIRTY_DAYS),
    "flagged": (facts(flagged_at=T), TWO_YEARS),
    "erasure_order": (facts(consent=(GRANT,), orders=(Order("o", "a1", None, T, THIRTY_DAYS),)), THIRTY_DAYS),
}


def outcome(verdict: Verdict) -> tuple[str | None, datetime | None, bool]:
    """What a verdict says."""
    return verdict.rule, verdict.due, verdict.purge


@pytest.mark.parametrize("rule", RULES)
def test_due_to_the_microsecond(rule: str, zone: str, policy: Policy) -> None:
    """Under each rule a record is kept until a microsecond before its due and expired at it and after it, in every zone."""
    known, due = RULES[rule]
    assert zone
    assert outcome(decide(known, policy, due - TICK)) == (rule, due, False)
    assert outcome(decide(known, policy, due)) == (rule, due, True)
    assert outcome(decide(known, policy, due + TICK)) == (rule, due, True)


@pytest.mark.parametrize("days", range(-1, 2))
def test_as_of_in_another_offset_is_the_same_instant(days: int, zone: str, policy: Policy) -> None:
    """An as-of written with an offset decides as the same instant in UTC does."""
    known, due = RULES["standard"]
    for hours in (-12, -3.5, 0, 5.75, 14):
        instant = due + timedelta(days=days)
        elsewhere = instant.astimezone(timezone(timedelta(hours=hours)))
        assert outcome(decide(known, policy, elsewhere)) == outcome(decide(known, policy, instant))
        assert decide(known, policy, elsewhere).as_of.tzinfo is UTC
    assert zone


@pytest.mark.parametrize("clock", ["2020-01-01", "2028-03-30 11:59:59", "2099-12-31 23:59:59"])
def test_deciding_reads_no_clock(clock: str, zone: str, policy: Policy) -> None:
    """The verdict follows as-of alone, whatever the machine's clock and zone."""
    with freeze_time(clock):
        for rule, (known, due) in RULES.items():
            assert outcome(decide(known, policy, due)) == (rule, due, True), (zone, rule)


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("2026-03-08 06:59:59.999999", "2026-03-08T06:59:59.999999Z"),  # New York springs forward at 07:00Z
        ("2026-10-25 01:30:00", "2026-10-25T01:30:00Z"),  # Stockholm's hour that comes twice
        ("2026-04-04 15:15:00", "2026-04-04T15:15:00Z"),  # Lord Howe's half hour
        ("2028-02-29 23:59:59.999999", "2028-02-29T23:59:59.999999Z"),
    ],
)
def test_clock_says_utc(local: str, utc: str, zone: str) -> None:
    """The one clock that is read says UTC, aware, in every zone and at the edges of summer time."""
    with freeze_time(local):
        now = Clock().now()
    assert (rfc3339(now), now.utcoffset()) == (utc, timedelta(0)), zone


# Periods


@pytest.mark.parametrize(
    "anchor",
    [
        "2026-02-20T12:00:00Z",  # New York to summer time on 8 March
        "2026-03-15T00:30:00Z",  # Stockholm on 29 March
        "2026-03-20T13:30:00Z",  # Auckland and Lord Howe back on 5 April
        "2026-10-10T00:30:00Z",  # Stockholm back on 25 October
        "2026-10-15T05:30:00Z",  # New York back on 1 November
        "2028-02-15T00:00:00Z",  # over a leap day
        "2026-12-31T23:59:59.999999Z",
    ],
)
def test_thirty_days_are_seconds(anchor: str, zone: str) -> None:
    """30 days are 2,592,000 seconds, across summer time, leap days and years, in every zone."""
    due = DAYS.after(at(anchor))
    assert due is not None
    assert due.timestamp() - at(anchor).timestamp() == 2_592_000, zone


@pytest.mark.parametrize(
    ("anchor", "period", "due"),
    [
        ("2028-02-29T12:00:00Z", "5 years", "2033-02-28T12:00:00Z"),
        ("2028-02-29T12:00:00Z", "4 years", "2032-02-29T12:00:00Z"),
        ("2028-02-29T23:59:59.999999Z", "1 year", "2029-02-28T23:59:59.999999Z"),
        ("2096-02-29T00:00:00Z", "4 years", "2100-02-28T00:00:00Z"),  # 2100 is no leap year
        ("1996-02-29T00:00:00Z", "4 years", "2000-02-29T00:00:00Z"),  # 2000 is one
        ("2027-02-28T12:00:00Z", "1 year", "2028-02-28T12:00:00Z"),  # clamps down, never up
        ("2028-02-28T12:00:00Z", "5 years", "2033-02-28T12:00:00Z"),
        ("2028-03-01T00:00:00Z", "5 years", "2033-03-01T00:00:00Z"),
        ("2026-01-31T10:00:00Z", "1 month", "2026-02-28T10:00:00Z"),
        ("2028-01-31T10:00:00Z", "1 month", "2028-02-29T10:00:00Z"),
        ("2026-03-31T10:00:00Z", "1 month", "2026-04-30T10:00:00Z"),
        ("2026-08-31T00:00:00Z", "18 months", "2028-02-29T00:00:00Z"),
        ("2026-12-31T00:00:00Z", "2 months", "2027-02-28T00:00:00Z"),
        ("2026-10-25T01:30:00Z", "5 years", "2031-10-25T01:30:00Z"),
        ("2026-06-30T00:00:00Z", "0", "2026-06-30T00:00:00Z"),
        ("2026-06-30T00:00:00Z", "72 hours", "2026-07-03T00:00:00Z"),
    ],
)
def test_calendar_periods(anchor: str, period: str, due: str, zone: str) -> None:
    """Months and years are calendar ones in UTC, clamped to the last day of the month."""
    assert Period.parse(period).after(at(anchor)) == at(due), zone


def test_order_of_anchors_is_not_that_of_dues() -> None:
    """Two anchors of a day may have one due: it is computed forward, not back from now."""
    anchors = [at("2028-02-28T12:00:00Z"), at("2028-02-29T12:00:00Z")]
    assert len({YEARS.after(anchor) for anchor in anchors}) == 1
    assert YEARS.before(at("2033-02-28T12:00:00Z")) == anchors[0]


def test_forward_differs_from_backward(policy: Policy) -> None:
    """What was last active on a leap day is due on 28 February five years on, though five years back from then is the 28th."""
    known, due = RULES["training_allowed"]
    back = due.replace(year=due.year - 5)
    assert back < T
    assert decide(known, policy, due).purge


@pytest.mark.parametrize("zone_name", ZONES)
@given(
    anchor=st.datetimes(datetime(2015, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 — hypothesis adds the zone
    months=st.integers(1, 240),
)
def test_months_clamp(zone_name: str, anchor: datetime, months: int) -> None:
    """A calendar period keeps the time of day and the day, or takes the last day of a month that is too short."""
    with standing_in(zone_name):
        due = Period(months=months).after(anchor)
    assert due is not None
    total = anchor.year * 12 + anchor.month - 1 + months
    year, month = divmod(total, 12)
    day = min(anchor.day, monthrange(year, month + 1)[1])
    assert due == anchor.replace(year=year, month=month + 1, day=day)


@given(
    anchors=st.lists(
        st.datetimes(datetime(2015, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 — as above
        min_size=2,
        max_size=2,
    ),
    period=st.sampled_from(["0", "30 days", "1 month", "18 months", "2 years", "5 years"]),
)
def test_later_anchor_is_never_due_earlier(anchors: list[datetime], period: str) -> None:
    """Of two anchors the later is due no earlier."""
    first, second = sorted(anchors)
    length = Period.parse(period)
    earlier, later = length.after(first), length.after(second)
    assert earlier is not None
    assert later is not None
    assert earlier <= later


@pytest.mark.parametrize(
    ("last", "due"),
    [
        ("9993-12-31T23:59:59.999999Z", "9998-12-31T23:59:59.999999Z"),
        ("9994-01-01T00:00:00Z", None),
        ("9994-06-01T00:00:00Z", None),
        ("9998-12-31T23:59:59.999999Z", None),
    ],
)
def test_never_from_9999_on(last: str, due: str | None, policy: Policy) -> None:
    """A due at or after 9999-01-01 is never, also where the calendar ends before the period does."""
    known = facts(consent=(GRANT,), created_at=BORN, last_activity_at=at(last))
    verdict = decide(known, policy, at("9999-12-31T23:59:59.999999Z"))
    assert (verdict.rule, verdict.due) == ("training_allowed", at(due) if due else None)
    assert verdict.purge is (due is not None)


def test_feedback_never_from_9999_on(policy: Policy) -> None:
    """Feedback has no due past the calendar either."""
    for submitted, due in (
        ("9993-12-31T23:59:59.999999Z", at("9998-12-31T23:59:59.999999Z")),
        ("9994-01-01T00:00:00Z", None),
    ):
        row = FeedbackFacts(Feedback("f1", "a1", None, "thumbs", at(submitted)))
        verdict = decide_feedback(row, policy, at("9999-12-31T00:00:00Z"))
        assert (verdict.due, verdict.purge) == (due, due is not None)


def test_feedback_to_the_microsecond(zone: str, policy: Policy) -> None:
    """Feedback is due five calendar years on; a bug report from before 2025-10-17 thirty days on."""
    terms = at("2025-10-17T00:00:00Z")
    for kind, submitted, due in (
        ("thumbs", T, FIVE_YEARS),
        ("survey", T, FIVE_YEARS),
        ("bug_report", T, FIVE_YEARS),
        ("bug_report", terms, at("2030-10-17T00:00:00Z")),
        ("bug_report", terms - TICK, terms - TICK + timedelta(days=30)),
        ("thumbs", terms - TICK, at("2030-10-16T23:59:59.999999Z")),
    ):
        row = FeedbackFacts(Feedback("f1", "a1", None, kind, submitted))
        found = [decide_feedback(row, policy, due + step) for step in (-TICK, timedelta(0), TICK)]
        assert [(v.due, v.purge) for v in found] == [(due, False), (due, True), (due, True)], (zone, kind)


# Periods as text

SMALL = st.integers(0, 100_000)


@given(count=SMALL, unit=st.sampled_from(UNITS))
def test_written_periods_are_read(count: int, unit: str) -> None:
    """A whole number and a unit, with or without its s, is that many of them."""
    period = Period.parse(f"{count} {unit}")
    assert period == Period.parse(f"{count} {unit}s") == Period.of(count, unit)
    if unit in SECONDS:
        assert (period.seconds, period.months, period.forever) == (count * SECONDS[unit], 0, False)
    elif count * MONTHS[unit] <= 120_000:
        assert (period.seconds, period.months, period.forever) == (0, count * MONTHS[unit], False)
    else:
        assert period.forever


PERIODS = st.one_of(
    st.builds(Period, seconds=st.integers(0, LONGEST["+"].seconds)),
    st.builds(Period, months=st.integers(0, 120_000)),
    st.just(Period(forever=True)),
)


@given(PERIODS)
def test_printed_periods_are_read_back(period: Period) -> None:
    """A period reads back from what it prints as."""
    assert Period.parse(str(period)) == period


@given(st.text(max_size=20))
def test_any_other_text_is_no_period(text: str) -> None:
    """Text is a period that prints as one, or is refused."""
    try:
        period = Period.parse(text)
    except ValueError:
        return
    assert Period.parse(str(period)) == period


@pytest.mark.parametrize("text", ["", "30", "30days", "30  days", " 30 days", "30 days ", "-1 day", "1.5 days", "1e3 days",
                                  "∞", "never", "Forever", "00", "30 DAYS", "30 d", "P30D", "one day", "٣٠ days",
                                  "9999999999999 days", "30 days\n"])  # fmt: skip
def test_not_a_period(text: str) -> None:
    """Anything but "0", "forever" or a whole number with a unit is refused."""
    with pytest.raises(ValueError, match="is no period"):
        Period.parse(text)


@pytest.mark.parametrize("text", ["999999999999 years", "999999999999 seconds", "999999999999 weeks"])
def test_periods_past_every_calendar_are_forever(text: str) -> None:
    """A period past any year that can be stored never ends."""
    assert Period.parse(text).after(at("2015-01-01T00:00:00Z")) is None


# Instants as text


@pytest.mark.parametrize(
    "text",
    ["2026-01-01T00:00:00", "2026-01-01", "2026-01-01T25:00:00Z", "2026-02-30T00:00:00Z", "yesterday", "",
     "10000-01-01T00:00:00Z", "2026-01-01T00:00:00+25:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"],
)  # fmt: skip
def test_not_an_instant(text: str, zone: str) -> None:
    """Text without an offset, and text that is no instant of the calendar of UTC, is refused in every zone."""
    with pytest.raises(ValueError, match=r".+"):
        parse(text)
    assert zone


def test_naive_is_refused(zone: str, policy: Policy) -> None:
    """A naive instant means different things on different machines: nothing is decided by it."""
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 — the point
    with pytest.raises(ValueError, match="naive"):
        aware(naive)
    with pytest.raises(ValueError, match="naive"):
        decide(RULES["standard"][0], policy, naive)
    assert zone


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.timezones()))  # noqa: DTZ001 — as above
def test_instants_read_back(instant: datetime) -> None:
    """An instant reads back from what it prints as, in UTC, with microseconds only where there are some."""
    text = rfc3339(instant)
    assert parse(text) == instant.astimezone(UTC)
    assert text.endswith("Z")
    assert ("." in text) == bool(instant.microsecond)
