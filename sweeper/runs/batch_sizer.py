"""Chooses the size of the next batch from the time that recent batches took, and halves it after a time-out.

Invariant: a batch is at most twice as large as the one before it, and never larger than [purge] batch.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

FIRST = 100
"""Size of the first batch, before any time was measured."""
NEWEST = 0.3
"""Weight of the newest batch in the moving average."""
BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


@dataclass
class BatchTimes:
    """Histogram of the batches' durations, in seconds; the last bucket has no upper bound."""

    count: int = 0
    seconds: float = 0.0
    longest: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))

    def add(self, seconds: float) -> None:
        """Count a batch."""
        self.count += 1
        self.seconds += seconds
        self.longest = max(self.longest, seconds)
        self.buckets[bisect_left(BUCKETS, seconds)] += 1

    def as_json(self) -> dict[str, Any]:
        """Return the histogram for machines; the buckets are cumulative, as in Prometheus."""
        names = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
        return {
            "count": self.count,
            "seconds": round(self.seconds, 3),
            "longest_s": round(self.longest, 3),
            "buckets": {name: sum(self.buckets[: number + 1]) for number, name in enumerate(names)},
        }


@dataclass
class BatchSizer:
    """The size of the next batch: `target` is a batch's intended duration in seconds, `most` the largest size."""

    target: float
    most: int
    size: int = 0
    average: float | None = None
    times: BatchTimes = field(default_factory=BatchTimes)

    def __post_init__(self) -> None:
        self.size = self.size or min(FIRST, self.most)

    def took(self, count: int, seconds: float) -> None:
        """Record a batch of `count` conversations that took `seconds`, and adapt the size."""
        self.times.add(seconds)
        if count < 1:
            return
        each = max(seconds / count, 1e-6)
        self.average = each if self.average is None else (1 - NEWEST) * self.average + NEWEST * each
        fitting = int(self.target / self.average)
        if fitting < self.size or count >= self.size:  # a batch that was not full says nothing about a larger one
            self.size = max(1, min(fitting, 2 * self.size, self.most))

    def halve(self) -> None:
        """Halve the size after a time-out, and raise the average so that it stays halved."""
        self.size = max(1, self.size // 2)
        if self.average is not None:
            self.average = max(self.average, self.target / self.size)
