"""The daemon: runs scheduled jobs, catches up on missed ones, and ends in order on request.

    signal → nothing new begins → what is at work ends its batch → (4 s) its statements are cancelled → (8.5 s) it is cut off

Invariant: a failing job never ends the daemon; asked to end, it ends within 10 s.
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
"""Interval of the scheduler's heartbeat."""
DEAD_SECONDS = 30.0
"""A scheduler without a heartbeat for this long counts as dead."""
CATCH_UP_SECONDS = 5.0
UNLOGGED = frozenset({"outcome", "duration_s", "found", "limit", "remedy"})
"""What a line of the log says otherwise: the last three are parts of a refusal's text."""
CANCEL_AFTER_SECONDS, CANCEL_EVERY_SECONDS, CUT_OFF_AFTER_SECONDS = 4.0, 0.5, 8.5
"""Counted from when the daemon was asked to end. A batch takes well under a second; what takes longer waits for a statement."""


class Daemon:
    """What happens between `begin` and `end`."""

    def __init__(
        self, fresh: Callable[[], Settings], clock: Clock, told: Callable[[EndedJob], None] = lambda _: None
    ) -> None:
        """Prepare everything; nothing is begun or connected.

        Args:
            fresh: reads the settings as they are on disk. The schedule stays that of now until the daemon ends.
            clock: says what time it is.
            told: called with each finished job, from the thread that did it.

        Raises:
            ConfigurationError: settings, policy, zone or an expression cannot be used, or a job lacks what it needs.
        """
        settings = fresh()
        load_policy(settings)
        self.clock, self._told = clock, told
        self.timetable = timetable(settings.schedule, tuple(SCHEDULED_JOBS))
        for name in self.timetable:
            SCHEDULED_JOBS[name].needs(settings)
        self._stop = StopRequest()
        self._database = databases.connect(settings, self._stop)
        self._bench = JobContext(fresh, clock, self._stop)
        self.job_metrics, self.readiness = JobMetrics(), Readiness(fresh, self._database)
        self._exporter = Exporter(settings, clock)
        self.scheduler = Scheduler(
            threads=len(self.timetable) + 2,  # each can be at work while all others are
            grace_seconds=settings.schedule.misfire_grace_seconds,
            missed=self._say_missed,
            busy=self._say_busy,
        )
        self.catch_up = CatchUp(
            self._database, clock, self.timetable, lambda name: self.scheduler.at_once(name, clock.now())
        )
        self._lock = Lock()
        self._at_work: set[str] = set()
        self._beat = time.monotonic()

    def begin(self, ended: Callable[[], None] = lambda: None) -> None:
        """Start the scheduler in its own threads; `ended` is called when it has ended."""
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
        """End in order: what is at work finishes its batch; what does not within 4 s is cancelled.

        Returns:
            What was still at work after 8.5 s.
        """
        asked = time.monotonic()
        self._stop.ask()
        self.scheduler.stop()
        self._wait(asked + CANCEL_AFTER_SECONDS)
        if self.at_work:
            log.get().warning("cancelling what does not end by itself", jobs=self.at_work)
        while self.at_work and time.monotonic() < asked + CUT_OFF_AFTER_SECONDS:
            self._stop.cancel()
            self._wait(time.monotonic() + CANCEL_EVERY_SECONDS)
        left = self.at_work
        if left:
            self._stop.cancel()  # once more, so that the server lets go of what it holds for us
        else:
            self._database.engine.dispose()
        return left

    def _wait(self, deadline: float) -> None:
        """Until nothing is at work, or the deadline."""
        while self.at_work and time.monotonic() < deadline:
            time.sleep(0.05)

    @property
    def at_work(self) -> list[str]:
        """The running jobs."""
        with self._lock:
            return sorted(self._at_work)

    @property
    def is_alive(self) -> bool:
        """True if the scheduler has sent a heartbeat lately."""
        return time.monotonic() - self._beat < DEAD_SECONDS

    def nexts(self) -> dict[str, datetime]:
        """When each job is done next."""
        return {name: instant for name, instant in self.scheduler.nexts().items() if name in self.timetable}

    def routes(self) -> Routes:
        """The HTTP routes of the daemon."""
        return {"/healthz": self._health, "/readyz": self._ready, "/metrics": self._metrics}

    def _health(self) -> Answer:
        return Answer.json({"alive": self.is_alive}, good=self.is_alive)

    def _ready(self) -> Answer:
        found = self.readiness.state()
        reasons = [*found.reasons, *(["it is stopping"] if self._stop.is_asked else [])]
        said = {
            "ready": not reasons,
            "reasons": reasons,
            "paused": found.paused,
            "at_work": self.at_work,
            "jobs": self.job_metrics.said(self.nexts()),
        }
        return Answer.json(said, good=not reasons)

    def _metrics(self) -> Answer:
        return Answer(HTTPStatus.OK, self._exporter.text() + self.job_metrics.text(self.nexts()), CONTENT_TYPE_LATEST)

    # What the scheduler calls, each in a thread of its own

    def _pulse(self) -> None:
        self._beat = time.monotonic()
        if self._stop.is_asked:
            self.scheduler.stop()  # asked while the scheduler was just beginning

    def _do(self, name: str) -> None:
        if self._stop.is_asked:
            return
        with self._working(name):
            ended = perform(name, self._bench)
            self.job_metrics.note(ended)
            _say(ended)
            self._told(ended)
            self.catch_up.ended(ended)

    def _catch_up(self) -> None:
        if self.catch_up.due() and not self._stop.is_asked:
            with self._working(CATCH_UP):
                self.catch_up.look()

    def _say_missed(self, name: str) -> None:
        if name in self.timetable:
            self.catch_up.missed(name)

    def _say_busy(self, name: str) -> None:
        if name in self.timetable:
            log.get().warning("still at work since last time: not begun again", job=name)

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
    told: Callable[[EndedJob], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT comes, then end in order within 10 s; signals that come after that are ignored.

    Args:
        fresh: reads the settings as they are on disk.
        clock: says what time it is.
        listen: HOST:PORT instead of that of the settings.
        told: called with each finished job.

    Raises:
        ConfigurationError: settings, policy, schedule or address cannot be used; nothing was started.
        SweeperError: the scheduler ended by itself.
    """
    daemon = Daemon(fresh, clock, told)
    with endpoint.answering(listen or fresh().serve.listen, daemon.routes()) as address:
        signals: SimpleQueue[int | None] = SimpleQueue()  # whose put may come in the middle of a get, as signals do
        _catch(signals)
        daemon.begin(lambda: signals.put(None))
        log.get().info("serving", address=address, next={n: rfc3339(at) for n, at in daemon.nexts().items()})
        number = signals.get()
        log.get().info("stopping", signal=signal.Signals(number).name if number else None, at_work=daemon.at_work)
        left = daemon.end()
        if left:
            _cut_off(left)
    if number is None:
        raise SweeperError(
            "the scheduler ended by itself: nothing more is done. Start the daemon again, and report it."
        )
    log.get().info("stopped")


def _catch(signals: "SimpleQueue[int | None]") -> None:
    """Put SIGTERM and SIGINT into a queue for the rest of the process."""

    def put(number: int, _: FrameType | None) -> None:
        signals.put(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, put)


def _cut_off(left: list[str]) -> NoReturn:
    """End the process whatever its threads do.

    That is safe, as every change is a transaction of its own: the server undoes the one that is open, and the next run
    records this one as interrupted. It is the last resort all the same: the evidence then says less.
    """
    log.get().error("cut off: what was at work did not end in time; the next run records it as interrupted", jobs=left)
    os._exit(1)


def _say(ended: EndedJob) -> None:
    """One line for each job that has ended."""
    said = {key: value for key, value in ended.result.items() if key not in UNLOGGED}
    logger = log.get()
    tell = {JobOutcome.FAILED: logger.error, JobOutcome.REFUSED: logger.warning, JobOutcome.LEASE_HELD: logger.warning}
    tell.get(ended.outcome, logger.info)(
        "job ended", job=ended.name, outcome=ended.outcome.value, duration_s=round(ended.seconds, 3), **said
    )
