"""Sizes the next batch so that it takes the target time, and halves it after a time-out.

Invariant: a batch never grows to more than twice the one before it, and never beyond [purge] batch.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

FIRST = 100
"""Size of the first batch, when nothing is known of this store yet."""
NEWEST = 0.3
"""Weight of the newest batch in the moving average."""
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass
class TimeLimits:
    """Durations of the batches in seconds, as a histogram; the last bucket is unbounded."""

    count: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))

    def add(self, seconds: float) -> None:
        """Count one batch."""
        self.count += 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)
        self.buckets[bisect_left(BUCKETS, seconds)] += 1

    def as_json(self) -> dict[str, Any]:
        """Return the histogram for machines, with cumulative buckets as in Prometheus."""
        names = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
        return {
            "count": self.count,
            "seconds": round(self.seconds, 3),
            "longest_s": round(self.longest, 3),
            "buckets": {name: sum(self.buckets[: number + 1]) for number, name in enumerate(names)},
        }


@dataclass
class BatchSizer:
    """The size of the next batch. `target` is in seconds, `most` in conversations."""

    target: float
    most: int
    size: int = 0
    average: float | None = None
    times: TimeLimits = field(default_factory=TimeLimits)

    def __post_init__(self) -> None:
        self.size = self.size or min(FIRST, self.most)

    def took(self, count: int, seconds: float) -> None:
        """Record how long (seconds) a batch of that many conversations took."""
        self.times.add(seconds)
        if count < 1:
            return
        each = max(seconds / count, 1e-6)
        self.average = each if self.average is None else (1 - NEWEST) * self.average + NEWEST * each
        wanted = int(self.target / self.average)
        if wanted < self.size or count >= self.size:  # a batch that was cut short says nothing about a larger one
            self.size = max(1, min(wanted, 2 * self.size, self.most))

    def halve(self) -> None:
        """Halve the next batches after a time-out, until the average allows larger ones."""
        self.size = max(1, self.size // 2)
        if self.average is not None:
            self.average = max(self.average, self.target / self.size)
