"""How each scheduled job ended last, as JSON for `/readyz` and as metrics for Prometheus."""

from collections.abc import Mapping
from datetime import datetime
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

from sweeper.daemon.jobs import EndedJob


class JobMetrics:
    """The last end of each job since the process started. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last: dict[str, EndedJob] = {}
        self._registry = CollectorRegistry()
        self._ends = Gauge(
            "sweeper_job_last_end_timestamp_seconds",
            "When a scheduled job last ended with this outcome, in seconds since 1970.",
            ("job", "outcome"),
            registry=self._registry,
        )
        self._runs = Counter(
            "sweeper_job_runs",
            "How often a scheduled job has ended with this outcome.",
            ("job", "outcome"),
            registry=self._registry,
        )
        self._nexts = Gauge(
            "sweeper_job_next_timestamp_seconds",
            "When a scheduled job runs next, in seconds since 1970.",
            ("job",),
            registry=self._registry,
        )

    def note(self, ended: EndedJob) -> None:
        """Record how a job ended."""
        with self._lock:
            self._last[ended.job] = ended
        self._ends.labels(ended.job, ended.outcome.value).set(ended.ended_at.timestamp())
        self._runs.labels(ended.job, ended.outcome.value).inc()

    def ends(self, nexts: Mapping[str, datetime]) -> dict[str, Any]:
        """Return for each job in `nexts` when it runs next, how it ended last and when (UTC)."""
        with self._lock:
            last = dict(self._last)
        return {
            name: {
                "next_at": nexts[name],
                "last_outcome": last[name].outcome if name in last else None,
                "last_ended_at": last[name].ended_at if name in last else None,
            }
            for name in sorted(nexts)
        }

    def text(self, nexts: Mapping[str, datetime]) -> bytes:
        """Return the metrics in Prometheus' text format; `nexts` says when each job runs next (UTC)."""
        for name, instant in nexts.items():
            self._nexts.labels(name).set(instant.timestamp())
        return generate_latest(self._registry)
