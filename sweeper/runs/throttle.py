"""Decides between two batches whether to continue, how long to wait, and how large the next batch is.

Invariant: every reason to wait or stop has a name, which is logged, shown, recorded and counted.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from math import inf
from typing import Any, Protocol

from sweeper import log
from sweeper.postgres.load_probe import Pressure
from sweeper.postgres.run_sign import RunSign
from sweeper.runs.batch_sizer import BatchSizer
from sweeper.settings import Settings

STEP_SECONDS = 0.1
"""Seconds between checks for a stop request during a wait."""
KEPT_BYTES = 16 << 20
"""Memory for the compressed keys of proposals: enough for several hundred thousand conversations."""
BATCH_SECONDS = 1.0
"""Under a rate limit, a batch is no larger than what may be purged in this time."""


class StopReason(StrEnum):
    """Why a run ended early. A `Pressure` that lasted too long is a stop reason as well, under its own name."""

    SIGNAL = "signal"
    MAX_RUNTIME = "max_runtime"
    MAX_PURGE = "max_purge"
    PAUSED = "paused"
    YIELDED = "yielded"
    HOURS = "hours"
    GIVEN_UP = "given_up"


ORDERED = frozenset({StopReason.MAX_RUNTIME, StopReason.MAX_PURGE})
"""Limits that the person who started the run has set; reaching one is no failure."""


@dataclass(frozen=True)
class ProgressListener:
    """Callbacks for progress: the expected number of proposals, the number just done, the reason of a wait ("" at its end).

    `proposes` comes before them: the number of the range of accounts or orders that is searched, and the proposals found before.
    """

    expect: Callable[[int], None] = lambda _: None
    advance: Callable[[int], None] = lambda _: None
    waits: Callable[[str], None] = lambda _: None
    proposes: Callable[[int, int], None] = lambda _, __: None

    def signed(self, sign: RunSign) -> "ProgressListener":
        """Return a listener that also shows on a sign what it hears."""

        def expect(count: int) -> None:
            sign.expect(count)
            self.expect(count)

        def waits(reason: str) -> None:
            sign.show(reason.partition(": ")[0])  # what a person wrote, such as the reason of a pause, stays private
            self.waits(reason)

        def proposes(number: int, found: int) -> None:
            sign.show("searches for what is due")
            self.proposes(number, found)

        return replace(self, expect=expect, waits=waits, proposes=proposes)


@dataclass(frozen=True)
class Budget:
    """A run's limits: seconds, purged conversations (and as many feedback rows), conversations a second, bytes for keys."""

    seconds: float | None = None
    purges: int | None = None
    per_second: float = 0.0
    memory: int = KEPT_BYTES


@dataclass
class ThrottleStats:
    """How often and how long, in seconds, a run waited, by reason."""

    count: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def begin(self, reason: str) -> None:
        """Count a wait for this reason."""
        self.count[reason] = self.count.get(reason, 0) + 1

    def add(self, reason: str, seconds: float) -> None:
        """Add to the time waited for this reason."""
        self.seconds[reason] = self.seconds.get(reason, 0.0) + seconds

    def as_json(self) -> dict[str, Any]:
        """Return the waits for machines."""
        return {
            reason: {"count": count, "seconds": round(self.seconds.get(reason, 0.0), 3)}
            for reason, count in sorted(self.count.items())
        }


class LoadReader(Protocol):
    """Reads the load of the server."""

    def read(self) -> Mapping[Pressure, str]:
        """Return each load that is above its limit now, with a description."""


@dataclass
class Throttle:
    """Throttles one run.

    `renew` renews its lease during waits; `purged` returns the number of purged conversations, `stop_reason` why to stop or "".
    `monotonic` (seconds) and `sleep` are replaced in tests.
    """

    settings: Settings
    watch: ProgressListener
    budget: Budget
    probe: LoadReader
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
    read_at: float = -inf

    def __post_init__(self) -> None:
        self.started = self.paced_from = self.monotonic()

    def next_batch(self) -> int:
        """Wait if necessary, and return the largest size of the next batch; 0 if the run must stop."""
        if self.is_over():
            return 0
        self._wait_for_load()
        self._wait_for_rate()
        return 0 if self.is_over() else min(self.pace.size, self._room())

    def is_over(self) -> bool:
        """True if the run must stop; `stopped` then has the reason."""
        if not self.is_cut_short() and self.budget.purges is not None and self.purged() >= self.budget.purges:
            self.stopped = StopReason.MAX_PURGE
        return bool(self.stopped)

    def is_cut_short(self) -> bool:
        """As `is_over`, for work that does not count as purges: the budget's limit of purges does not end it."""
        if self.stopped in ("", StopReason.MAX_PURGE):
            self.stopped = self.stop_reason() or self._time_limit_reason() or self.stopped
        return self.stopped not in ("", StopReason.MAX_PURGE)

    def _time_limit_reason(self) -> str:
        over = self.budget.seconds is not None and self.monotonic() - self.started >= self.budget.seconds
        return StopReason.MAX_RUNTIME if over else ""

    def _room(self) -> int:
        """Return how many conversations budget and rate allow in a batch."""
        rooms = [self.pace.most]
        if self.budget.purges is not None:
            rooms.append(self.budget.purges - self.purged())
        if self.budget.per_second:
            rooms.append(max(1, int(self.budget.per_second * BATCH_SECONDS)))
        return min(rooms)

    @property
    def earliest(self) -> float:
        """When, in `monotonic` seconds, the rate allows the next purge."""
        rate = self.budget.per_second
        return self.paced_from + self.purged() / rate if rate else self.paced_from

    def _wait_for_rate(self) -> None:
        """Wait until the rate allows the next purge; time lost to waits or slow batches is not caught up."""
        while not self.is_over() and (left := self.earliest - self.monotonic()) > 0:
            self._sleep(min(self.settings.lease.seconds / 4, left))
            self.renew()
        self.paced_from += max(self.monotonic() - self.earliest, 0.0)

    def _wait_for_load(self) -> None:
        """Wait while the server's load is above a limit; stop the run after [pace] longest_pause_seconds."""
        if self.monotonic() - self.read_at < self.settings.pace.look_seconds:
            return
        begun, reason = self.monotonic(), ""
        while not self.is_over() and (above := self._read_load()):
            if above[0] != reason:
                reason = above[0]
                self._begin_wait(*above)
            self._sleep(max(self.settings.pace.look_seconds, STEP_SECONDS))
            self.waits.add(reason, self.monotonic() - self.read_at)
            if not self.stopped and self.monotonic() - begun >= self.settings.pace.longest_pause_seconds:
                self.stopped = reason
            self.renew()
        if reason:
            self.watch.waits("")
            log.get().info("goes on" if not self.stopped else "waits no longer", waited_for=reason)

    def _read_load(self) -> tuple[Pressure, str] | None:
        self.read_at = self.monotonic()
        return next(iter(self.probe.read().items()), None)

    def _begin_wait(self, reason: Pressure, words: str) -> None:
        self.waits.begin(reason)
        self.watch.waits(words)
        log.get().warning("waits", reason=reason.value, because=words)

    def _sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        while not self.is_over() and (left := until - self.monotonic()) > 0:
            self.sleep(min(STEP_SECONDS, left))
