"""The daemon: runs the scheduled jobs, catches up on missed ones, and stops in order on a signal.

    signal → no job starts → running jobs finish their batch → (4 s) statements are cancelled → (8.5 s) the process is ended

Invariant: a job that fails never ends the daemon, and the daemon ends within 10 s of a signal.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from http import HTTPStatus
from queue import SimpleQueue
from threading import Lock, Thread
from types import FrameType
from typing import NoReturn

from prometheus_client import CONTENT_TYPE_LATEST

from sweeper import log
from sweeper.clock import Clock
from sweeper.daemon import http as endpoint
from sweeper.daemon.catch_up import CatchUp
from sweeper.daemon.http import Answer, Routes
from sweeper.daemon.job_metrics import JobMetrics
from sweeper.daemon.jobs import SCHEDULED_JOBS, EndedJob, JobContext, JobOutcome, perform
from sweeper.daemon.readiness import Readiness
from sweeper.daemon.schedule import Scheduler, timetable
from sweeper.errors import SweeperError
from sweeper.policy.instant import rfc3339
from sweeper.postgres import database as databases
from sweeper.postgres.stop import StopRequest
from sweeper.report.exporter import Exporter
from sweeper.settings import Settings, load_policy

PULSE, CATCH_UP = "pulse", "catch-up"
PULSE_SECONDS = 5.0
"""How often the scheduler shows that it is alive."""
DEAD_SECONDS = 30.0
"""A scheduler without a pulse for this long counts as dead."""
CATCH_UP_SECONDS = 5.0
UNLOGGED = frozenset({"outcome", "duration_s", "found", "limit", "remedy"})
"""Keys of a result that the log line leaves out: it has the first two already, and a refusal's text has the last three."""
CANCEL_AFTER_SECONDS, CANCEL_EVERY_SECONDS, CUT_OFF_AFTER_SECONDS = 4.0, 0.5, 8.5
"""Counted from the signal. A batch takes well under a second; what takes longer waits for a statement."""


class Daemon:
    """The scheduler, the jobs and their state, between `begin` and `end`."""

    def __init__(
        self, fresh: Callable[[], Settings], clock: Clock, on_ended: Callable[[EndedJob], None] = lambda _: None
    ) -> None:
        """Prepare everything; nothing is started or connected.

        Args:
            fresh: reads the settings from disk. The schedule does not change until the daemon ends.
            clock: tells the time.
            on_ended: called with each job that has ended, in the thread that ran it.

        Raises:
            ConfigurationError: settings, policy, zone or an expression are not valid, or a job lacks what it needs.
        """
        settings = fresh()
        load_policy(settings)
        self.clock, self._on_ended = clock, on_ended
        names = (name for name in SCHEDULED_JOBS if name != "copies" or settings.copies)
        self.timetable = timetable(settings.schedule, tuple(names))
        for name in self.timetable:
            SCHEDULED_JOBS[name].needs(settings)
        self._stop = StopRequest()
        self._database = databases.connect(settings, self._stop)
        self._context = JobContext(fresh, clock, self._stop)
        self.job_metrics, self.readiness = JobMetrics(), Readiness(fresh, self._database)
        self._exporter = Exporter(settings, clock)
        self.scheduler = Scheduler(
            threads=len(self.timetable) + 2,  # all jobs, the pulse and the catch-up can run at once
            grace_seconds=settings.schedule.misfire_grace_seconds,
            missed=self._missed,
            busy=self._log_busy,
        )
        self.catch_up = CatchUp(
            self._database, clock, self.timetable, lambda name: self.scheduler.run_now(name, clock.now())
        )
        self._lock = Lock()
        self._at_work: set[str] = set()
        self._beat = time.monotonic()

    def begin(self, ended: Callable[[], None] = lambda: None) -> None:
        """Start the scheduler in a thread of its own; `ended` is called when the scheduler has ended."""
        began = self.clock.now()
        for name, cron in self.timetable.items():
            self.scheduler.on_time(name, cron, partial(self._do, name), began)
        self.catch_up.expect(began)
        self.scheduler.every(PULSE, PULSE_SECONDS, self._pulse)
        self.scheduler.every(CATCH_UP, CATCH_UP_SECONDS, self._catch_up)

        def run() -> None:
            try:
                self.scheduler.run()
            finally:
                ended()

        Thread(target=run, name="scheduler", daemon=True).start()

    def end(self) -> list[str]:
        """Stop in order: running jobs finish their batch; after 4 s their statements are cancelled.

        Returns:
            The jobs still running after 8.5 s.
        """
        asked = time.monotonic()
        self._stop.ask()
        self.scheduler.stop()
        self._wait(asked + CANCEL_AFTER_SECONDS)
        if self.at_work:
            log.get().warning("cancelling jobs that did not end in time", jobs=self.at_work)
        while self.at_work and time.monotonic() < asked + CUT_OFF_AFTER_SECONDS:
            self._stop.cancel()
            self._wait(time.monotonic() + CANCEL_EVERY_SECONDS)
        remaining = self.at_work
        if remaining:
            self._stop.cancel()  # once more, so that the server releases their locks
        else:
            self._database.engine.dispose()
        return remaining

    def _wait(self, deadline: float) -> None:
        """Wait until no job is running, or for the deadline (monotonic)."""
        while self.at_work and time.monotonic() < deadline:
            time.sleep(0.05)

    @property
    def at_work(self) -> list[str]:
        """The jobs that are running now."""
        with self._lock:
            return sorted(self._at_work)

    @property
    def is_alive(self) -> bool:
        """True if the scheduler's last pulse is recent."""
        return time.monotonic() - self._beat < DEAD_SECONDS

    def nexts(self) -> dict[str, datetime]:
        """Return when each job runs next (UTC)."""
        return {name: instant for name, instant in self.scheduler.nexts().items() if name in self.timetable}

    def routes(self) -> Routes:
        """Return the HTTP paths and what answers them."""
        return {"/healthz": self._health, "/readyz": self._ready, "/metrics": self._metrics}

    def _health(self) -> Answer:
        return Answer.json({"alive": self.is_alive}, good=self.is_alive)

    def _ready(self) -> Answer:
        state = self.readiness.state()
        reasons = [*state.reasons, *(["it is stopping"] if self._stop.is_asked else [])]
        values = {
            "ready": not reasons,
            "reasons": reasons,
            "paused": state.paused,
            "at_work": self.at_work,
            "jobs": self.job_metrics.ends(self.nexts()),
        }
        return Answer.json(values, good=not reasons)

    def _metrics(self) -> Answer:
        return Answer(HTTPStatus.OK, self._exporter.text() + self.job_metrics.text(self.nexts()), CONTENT_TYPE_LATEST)

    # The scheduler calls these, each in a thread of its own

    def _pulse(self) -> None:
        self._beat = time.monotonic()
        if self._stop.is_asked:
            self.scheduler.stop()  # the request came while the scheduler was starting

    def _do(self, name: str) -> None:
        if self._stop.is_asked:
            return
        with self._working(name):
            ended = perform(name, self._context)
            self.job_metrics.note(ended)
            _log_ended(ended)
            self._on_ended(ended)
            self.catch_up.ended(ended)

    def _catch_up(self) -> None:
        if self.catch_up.due() and not self._stop.is_asked:
            with self._working(CATCH_UP):
                self.catch_up.look()

    def _missed(self, name: str) -> None:
        if name in self.timetable:
            self.catch_up.missed(name)

    def _log_busy(self, name: str) -> None:
        if name in self.timetable:
            log.get().warning("still running since last time: not started again", job=name)

    @contextmanager
    def _working(self, name: str) -> Iterator[None]:
        with self._lock:
            self._at_work.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._at_work.discard(name)


def serve(
    fresh: Callable[[], Settings],
    clock: Clock,
    listen: str | None = None,
    on_ended: Callable[[EndedJob], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then stop in order within 10 s; later signals are ignored.

    Args:
        fresh: reads the settings from disk.
        clock: tells the time.
        listen: HOST:PORT in place of the settings' address.
        on_ended: called with each job that has ended.

    Raises:
        ConfigurationError: settings, policy, schedule or address are not valid; nothing was started.
        SweeperError: the scheduler ended by itself.
    """
    daemon = Daemon(fresh, clock, on_ended)
    with endpoint.answering(listen or fresh().serve.listen, daemon.routes()) as address:
        signals: SimpleQueue[int | None] = SimpleQueue()  # reentrant: a signal may interrupt `get`
        _catch(signals)
        daemon.begin(lambda: signals.put(None))
        log.get().info("serving", address=address, next={n: rfc3339(at) for n, at in daemon.nexts().items()})
        number = signals.get()
        log.get().info("stopping", signal=signal.Signals(number).name if number else None, at_work=daemon.at_work)
        remaining = daemon.end()
        if remaining:
            _cut_off(remaining)
    if number is None:
        raise SweeperError(
            "the scheduler ended by itself: no job runs any more. Start the daemon again, and report it."
        )
    log.get().info("stopped")


def _catch(signals: "SimpleQueue[int | None]") -> None:
    """Put every SIGTERM and SIGINT into a queue from now on."""

    def put(number: int, _: FrameType | None) -> None:
        signals.put(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, put)


def _cut_off(remaining: list[str]) -> NoReturn:
    """End the process whatever its threads do.

    This is safe: every change is one transaction, so the server rolls back the open one, and the next run records this one as
    interrupted. It is the last resort, since the evidence then has no result of the run.
    """
    log.get().error("cut off: jobs did not end in time; the next run records theirs as interrupted", jobs=remaining)
    os._exit(1)


def _log_ended(ended: EndedJob) -> None:
    """Log one line for a job that has ended."""
    values = {key: value for key, value in ended.result.items() if key not in UNLOGGED}
    logger = log.get()
    levels = {
        JobOutcome.FAILED: logger.error,
        JobOutcome.REFUSED: logger.warning,
        JobOutcome.LEASE_HELD: logger.warning,
    }
    levels.get(ended.outcome, logger.info)(
        "job ended", job=ended.job, outcome=ended.outcome.value, duration_s=ended.duration_s, **values
    )
