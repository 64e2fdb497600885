"""Decides between two batches whether to continue, how large the next batch is, and what to wait for first.

Invariant: whatever makes a run wait or stop has a name, and the name is logged, shown, recorded and counted.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any, Protocol

from sweeper import log
from sweeper.postgres.load_probe import Pressure
from sweeper.runs.batch_sizer import BatchSizer
from sweeper.settings import Settings

STEP_SECONDS = 0.1
"""A wait is divided into steps of this length, so that a request to stop is noticed."""
KEPT_BYTES = 16 << 20
"""Memory for the keys of what is proposed, compressed: several hundred thousand conversations."""
BATCH_SECONDS = 1.0
"""Under a rate limit, a batch takes no more than may be purged in this time."""


class StopReason(StrEnum):
    """Why a run ended before its work did; a load limit that was exceeded for too long gives its own name."""

    SIGNAL = "signal"
    MAX_RUNTIME = "max_runtime"
    MAX_PURGE = "max_purge"
    PAUSED = "paused"
    YIELDED = "yielded"
    HOURS = "hours"
    GIVEN_UP = "given_up"


ORDERED = frozenset({StopReason.MAX_RUNTIME, StopReason.MAX_PURGE})
"""Reasons that the person who started the run asked for; they are no failure."""


@dataclass(frozen=True)
class ProgressListener:
    """Callbacks for progress: the number of proposals to expect, each one done, and each wait."""

    expect: Callable[[int], None] = lambda _: None
    advance: Callable[[int], None] = lambda _: None
    waits: Callable[[str], None] = lambda _: None


@dataclass(frozen=True)
class Budget:
    """Limits of a run: seconds, conversations (and as many feedback rows), conversations a second, bytes for keys."""

    seconds: float | None = None
    purges: int | None = None
    per_second: float = 0.0
    memory: int = KEPT_BYTES


@dataclass
class ThrottleStats:
    """How often and how long (seconds) a run waited, by reason."""

    count: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def begin(self, reason: str) -> None:
        """Count a wait for this reason."""
        self.count[reason] = self.count.get(reason, 0) + 1

    def add(self, reason: str, seconds: float) -> None:
        """Add seconds to a wait."""
        self.seconds[reason] = self.seconds.get(reason, 0.0) + seconds

    def as_json(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            reason: {"count": count, "seconds": round(self.seconds.get(reason, 0.0), 3)}
            for reason, count in sorted(self.count.items())
        }


class LoadReader(Protocol):
    """Reads the load of the server."""

    def read(self) -> Mapping[Pressure, str]:
        """Return what is above its limit now, each in words."""


@dataclass
class Throttle:
    """Throttles one run.

    `renew` keeps its lease while it waits; `purged` says how many conversations it has purged, `stop_reason` why it is to end.
    `monotonic` (seconds, from any beginning) and `sleep` are those of the machine, so that a test need not wait.
    """

    settings: Settings
    watch: ProgressListener
    budget: Budget
    gauge: LoadReader
    renew: Callable[[], None]
    purged: Callable[[], int]
    pace: BatchSizer
    stop_reason: Callable[[], str] = lambda: ""
    stopped: str = ""
    waits: ThrottleStats = field(default_factory=ThrottleStats)
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    started: float = field(init=False)
    paced_from: float = field(init=False)
    looked: float = -inf

    def __post_init__(self) -> None:
        self.started = self.paced_from = self.monotonic()

    def next_batch(self) -> int:
        """Wait until a batch may begin and return how many conversations it may take; 0 means that the run must stop."""
        if self.is_over():
            return 0
        self._give_way()
        self._keep_to_the_rate()
        return 0 if self.is_over() else min(self.pace.size, self._room())

    def is_over(self) -> bool:
        """Return True if the run must stop; the reason is then in `stopped`."""
        if not self.is_cut_short() and self.budget.purges is not None and self.purged() >= self.budget.purges:
            self.stopped = StopReason.MAX_PURGE
        return bool(self.stopped)

    def is_cut_short(self) -> bool:
        """As `is_over`, for work that does not count against the number of purges in the budget."""
        if self.stopped in ("", StopReason.MAX_PURGE):
            self.stopped = self.stop_reason() or self._out_of_time() or self.stopped
        return self.stopped not in ("", StopReason.MAX_PURGE)

    def _out_of_time(self) -> str:
        over = self.budget.seconds is not None and self.monotonic() - self.started >= self.budget.seconds
        return StopReason.MAX_RUNTIME if over else ""

    def _room(self) -> int:
        """Return how many conversations the budget and the rate allow in a batch."""
        rooms = [self.pace.most]
        if self.budget.purges is not None:
            rooms.append(self.budget.purges - self.purged())
        if self.budget.per_second:
            rooms.append(max(1, int(self.budget.per_second * BATCH_SECONDS)))
        return min(rooms)

    @property
    def earliest(self) -> float:
        """Return when (on the clock of `monotonic`) the rate allows what was purged so far."""
        rate = self.budget.per_second
        return self.paced_from + self.purged() / rate if rate else self.paced_from

    def _keep_to_the_rate(self) -> None:
        """Wait until the rate allows what was purged so far; time lost in waits or slow batches is not caught up."""
        while not self.is_over() and (left := self.earliest - self.monotonic()) > 0:
            self._sleep(min(self.settings.lease.seconds / 4, left))
            self.renew()
        self.paced_from += max(self.monotonic() - self.earliest, 0.0)

    def _give_way(self) -> None:
        """Wait while the server is above a limit; after longest_pause_seconds the run stops."""
        if self.monotonic() - self.looked < self.settings.pace.look_seconds:
            return
        begun, reason = self.monotonic(), ""
        while not self.is_over() and (above := self._look()):
            if above[0] != reason:
                reason = above[0]
                self._tell(*above)
            self._sleep(max(self.settings.pace.look_seconds, STEP_SECONDS))
            self.waits.add(reason, self.monotonic() - self.looked)
            if not self.stopped and self.monotonic() - begun >= self.settings.pace.longest_pause_seconds:
                self.stopped = reason
            self.renew()
        if reason:
            self.watch.waits("")
            log.get().info("goes on" if not self.stopped else "waits no longer", waited_for=reason)

    def _look(self) -> tuple[Pressure, str] | None:
        self.looked = self.monotonic()
        return next(iter(self.gauge.read().items()), None)

    def _tell(self, reason: Pressure, words: str) -> None:
        self.waits.begin(reason)
        self.watch.waits(words)
        log.get().warning("waits", reason=reason.value, because=words)

    def _sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        while not self.is_over() and (left := until - self.monotonic()) > 0:
            self.sleep(min(STEP_SECONDS, left))
