"""Keeps the last outcome of each job for HTTP: as JSON for people and as numbers for Prometheus."""

from collections.abc import Mapping
from datetime import datetime
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from sweeper.daemon.jobs import EndedJob


class JobMetrics:
    """What has ended since the process began. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last: dict[str, EndedJob] = {}
        self._registry = CollectorRegistry()
        self._ends = Gauge(
            "sweeper_job_last_end_timestamp_seconds",
            "When a job of the schedule last ended so, in seconds since 1970.",
            ("job", "outcome"),
            registry=self._registry,
        )
        self._runs = Counter(
            "sweeper_job_runs",
            "How often a job of the schedule has ended so.",
            ("job", "outcome"),
            registry=self._registry,
        )
        self._nexts = Gauge(
            "sweeper_job_next_timestamp_seconds",
            "When a job of the schedule is done next, in seconds since 1970.",
            ("job",),
            registry=self._registry,
        )

    def note(self, ended: EndedJob) -> None:
        """Record the outcome of a job."""
        with self._lock:
            self._last[ended.name] = ended
        self._ends.labels(ended.name, ended.outcome.value).set(ended.ended_at.timestamp())
        self._runs.labels(ended.name, ended.outcome.value).inc()

    def said(self, nexts: Mapping[str, datetime]) -> dict[str, Any]:
        """Of each job how it ended last and when it is done next, for machines; `nexts` as the scheduler says."""
        with self._lock:
            last = dict(self._last)
        return {
            name: {
                "next_at": nexts[name],
                "last_outcome": last[name].outcome.value if name in last else None,
                "last_ended_at": last[name].ended_at if name in last else None,
            }
            for name in sorted(nexts)
        }

    def text(self, nexts: Mapping[str, datetime]) -> bytes:
        """Collects the numbers as Prometheus metrics."""
        for name, instant in nexts.items():
            self._nexts.labels(name).set(instant.timestamp())
        return generate_latest(self._registry)
