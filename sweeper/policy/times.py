"""Writes instants and lengths of time for people. Counts are written with `:,`, as in 1,234,567."""

from datetime import datetime, timedelta

from sweeper.policy.instant import rfc3339

UNITS = (("year", 31_557_600), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def when(instant: datetime, now: datetime) -> str:
    """Return an instant in UTC, to the second, and relative to now: `2026-11-28T02:30:00Z, 3 hours ago`."""
    return f"{rfc3339(instant.replace(microsecond=0))}, {relative(instant, now)}"


def relative(instant: datetime, now: datetime) -> str:
    """Return how long ago an instant is, or how soon, rounded to its largest unit; years from two on."""
    seconds = (now - instant).total_seconds()
    for unit, size in UNITS:
        if abs(seconds) // size > (unit == "year"):
            count = round(abs(seconds) / size)
            text = f"{count:,} {unit}{'s' if count > 1 else ''}"
            return f"{text} ago" if seconds > 0 else f"in {text}"
    return "now"


def length(span: timedelta | float) -> str:
    """Format a length of time with its two largest units; below 10 s in tenths of a second."""
    seconds_in_all = span.total_seconds() if isinstance(span, timedelta) else span
    if abs(seconds_in_all) < 10:
        return f"{seconds_in_all:.1f} s"
    left, parts = round(seconds_in_all), []
    for unit, seconds in (("days", 86_400), ("h", 3_600), ("min", 60), ("s", 1)):
        count, left = divmod(left, seconds)
        if count:
            parts.append(f"{count:,} {'day' if (unit, count) == ('days', 1) else unit}")
    return " ".join(parts[:2])
