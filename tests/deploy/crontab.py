"""The five fields of a cron expression, read strictly.

The law of this file: what one of cron, Kubernetes and APScheduler would read differently or refuse is refused: macros, `?`, zones,
seconds, and names where they stand for a range's end.
"""

import re

FIELDS = (("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31), ("month", 1, 12), ("day of the week", 0, 6))
NAMES = {
    "month": "jan feb mar apr may jun jul aug sep oct nov dec".split(),
    "day of the week": "sun mon tue wed thu fri sat".split(),
}
LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
PART = re.compile(r"(?:\*|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?", re.ASCII)


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
    minutes, hours, days, months, weekdays = (
        _field(word, *field) for word, field in zip(words, FIELDS, strict=True)
    )
    if words[4] == "*" and min(days) > max(LONGEST_MONTHS[month - 1] for month in months):
        raise CronError(f"{expression!r}: no such day exists")
    return minutes, hours, days, months, weekdays


def _field(word: str, name: str, low: int, high: int) -> frozenset[int]:
    return frozenset[int]().union(*(_part(part, name, low, high) for part in word.split(",")))


def _part(part: str, name: str, low: int, high: int) -> range:
    found = PART.fullmatch(part)
    if found is None:
        raise CronError(f"{part!r} is no {name}")
    first, last, step = found["first"], found["last"], found["step"]
    if step and first and not last:
        raise CronError(f"{part!r}: a step needs a range")
    start = _number(first, name, low, high) if first else low
    end = _number(last, name, low, high) if last else start if first else high
    if end < start or step == "0":
        raise CronError(f"{part!r} names no {name}")
    return range(start, end + 1, int(step or 1))


def _number(word: str, name: str, low: int, high: int) -> int:
    names = NAMES.get(name, [])
    number = names.index(word.lower()) + low if word.lower() in names else int(word) if word.isdecimal() else -1
    if not low <= number <= high:
        raise CronError(f"{word!r} is no {name} from {low} to {high}")
    return number
