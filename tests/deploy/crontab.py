"""The five fields of a cron expression, read strictly.

Invariant: what one of Debian's cron, cronie and Kubernetes would refuse or read in its own way is refused: macros,
`?`, zones, seconds, 7 for Sunday, and names in ranges or lists.
"""

import re

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 6))
NAMES = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "day of the week": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
PART = re.compile(r"(?:\*|(?P<first>\d+)(?:-(?P<last>\d+))?)(?:/(?P<step>\d+))?", re.ASCII)


class CronError(ValueError):
    """An expression that is no cron expression, or never comes true."""


def parse(expression: str) -> tuple[frozenset[int], ...]:
    """The minutes, hours, days of the month, months and days of the week (0: Sunday) that an expression names.

    Raises:
        CronError: it has not five fields, one of them cannot be read or is out of range, or no such day exists.
    """
    words = expression.split(" ")
    if len(words) != len(FIELDS):
        raise CronError(f"{expression!r}: {len(words)} fields instead of {len(FIELDS)}, separated by one blank")
    minutes, hours, days, months, weekdays = (_field(word, *field) for word, field in zip(words, FIELDS, strict=True))
    if words[4] == "*" and min(days) > max(LONGEST_MONTHS[month - 1] for month in months):
        raise CronError(f"{expression!r}: no such day exists")
    return minutes, hours, days, months, weekdays


def _field(word: str, name: str, low: int, high: int) -> frozenset[int]:
    names = NAMES.get(name, ())
    if word.lower() in names:
        return frozenset({names.index(word.lower()) + low})
    return frozenset[int]().union(*(_part(part, name, low, high) for part in word.split(",")))


def _part(part: str, name: str, low: int, high: int) -> range:
    found = PART.fullmatch(part)
    if found is None:
        raise CronError(f"{part!r} is no {name}")
    first, last, step = found["first"], found["last"], int(found["step"] or 1)
    start = int(first or low)
    end = int(last or first or high)
    if (found["step"] and first and not last) or not step or not low <= start <= end <= high:
        raise CronError(f"{part!r} names no {name} from {low} to {high}, or its step has no range")
    return range(start, end + 1, step)
