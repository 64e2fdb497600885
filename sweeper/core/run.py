"""Runs: neighbouring numbers told as the first of them and how many they are.

The law of this file: runs that come out hold exactly the numbers that went in, each once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

LAST = 2**63 - 1
"""The largest bigint, beyond which a range must be left open."""


@dataclass(frozen=True)
class Run:
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


def runs(numbers: Iterable[int]) -> list[Run]:
    """The runs that ascending numbers are made of."""
    found: list[Run] = []
    first = last = None
    for number in numbers:
        if last is None or first is None:
            first = number
        elif number != last + 1:
            found.append(Run(first, last + 1 - first))
            first = number
        last = number
    if first is not None and last is not None:
        found.append(Run(first, last + 1 - first))
    return found


def portions(whole: Iterable[Run], size: int) -> Iterator[list[Run]]:
    """The runs in portions of at most `size` numbers; a run that does not fit is divided."""
    portion: list[Run] = []
    room = size
    for run in whole:
        left = run
        while left.length >= room:
            yield [*portion, Run(left.first, room)]
            left = Run(left.first + room, left.length - room)
            portion, room = [], size
        if left.length:
            portion.append(left)
            room -= left.length
    if portion:
        yield portion


def multirange(whole: Iterable[Run]) -> str:
    """The runs as PostgreSQL writes an int8multirange."""
    return "{" + ",".join(f"[{run.first},{'' if run.end > LAST else run.end})" for run in whole) + "}"
