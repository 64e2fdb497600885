"""Spans: neighbouring numbers told as the first of them and how many they are.

The law of this file: spans that come out hold exactly the numbers that went in, each once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LAST = 2**63 - 1
"""The largest bigint, beyond which a range must be left open."""


@dataclass(frozen=True)
class IdSpan:
    """The numbers from `first` on, `length` of them, at least one."""

    first: int
    length: int

    @property
    def end(self) -> int:
        """The number after the last."""
        return self.first + self.length

    def numbers(self) -> range:
        """Each number."""
        return range(self.first, self.end)


def spans(numbers: Iterable[int]) -> list[IdSpan]:
    """The spans that ascending numbers are made of."""
    found: list[IdSpan] = []
    first = last = None
    for number in numbers:
        if last is None or first is None:
            first = number
        elif number != last + 1:
            found.append(IdSpan(first, last + 1 - first))
            first = number
        last = number
    if first is not None and last is not None:
        found.append(IdSpan(first, last + 1 - first))
    return found


def portions(whole: Iterable[IdSpan], size: int) -> Iterator[list[IdSpan]]:
    """The spans in portions of at most `size` numbers; a span that does not fit is divided."""
    portion: list[IdSpan] = []
    room = size
    for span in whole:
        left = span
        while left.length >= room:
            yield [*portion, IdSpan(left.first, room)]
            left = IdSpan(left.first + room, left.length - room)
            portion, room = [], size
        if left.length:
            portion.append(left)
            room -= left.length
    if portion:
        yield portion


def multirange(whole: Iterable[IdSpan]) -> str:
    """The spans as PostgreSQL writes an int8multirange."""
    return "{" + ",".join(f"[{span.first},{'' if span.end > LAST else span.end})" for span in whole) + "}"
