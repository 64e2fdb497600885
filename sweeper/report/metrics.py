"""Render the numbers in the Prometheus text format.

Invariant: every metric is a row of `TABLE`. A number that could not be read is left out and `sweeper_up` is 0, so that no stale
number looks fresh. Every series has the label `store`, so that the files of two stores on one machine do not collide.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeVar, get_args

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from sweeper.errors import printable
from sweeper.policy.anomaly import Anomaly
from sweeper.policy.counts import RecordCounts
from sweeper.policy.decide import Doubt
from sweeper.policy.evaluate import Spared
from sweeper.postgres import evidence
from sweeper.postgres.unmatched import UnmatchedProtections
from sweeper.report import numbers as numbers
from sweeper.report.numbers import Numbers, Recorded
from sweeper.report.operation import Reported
from sweeper.report.overdue import Overdue
from sweeper.report.upkeep import Upkeep
from sweeper.settings import GuardSettings

T = TypeVar("T")
Samples = Iterable[tuple[tuple[str, ...], float]]
Get = Callable[[Numbers], Samples]

OUTCOMES = (*get_args(evidence.Outcome), "interrupted")
KINDS = ("run", "backfill", "reapply")
GUARDS = tuple(GuardSettings.switches())
REASONS = ("replica_lag", "wal_rate", "blocked_queries", "autovacuum")
"""Kinds of server load for which a run waits."""
RECORDS = ("conversation", "feedback")


@dataclass(frozen=True)
class MetricRow:
    """One metric: name without the suffix of its type, help text, labels besides `store`, and how to get its samples."""

    name: str
    type: Literal["gauge", "counter", "histogram"]
    help: str
    labels: tuple[str, ...]
    get: Get

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its series in the text format."""
        suffixes = {"gauge": ("",), "counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
        return tuple(self.name + suffix for suffix in suffixes[self.type])


def _gauge(name: str, help_text: str, get: Get, *labels: str) -> MetricRow:
    return MetricRow(name, "gauge", help_text, labels, get)


def _counter(name: str, help_text: str, get: Get, *labels: str) -> MetricRow:
    return MetricRow(name, "counter", help_text, labels, get)


def _histogram(name: str, help_text: str, get: Get, *labels: str) -> MetricRow:
    return MetricRow(name, "histogram", help_text, labels, get)


def _if_read(part: Callable[[Numbers], T | None]) -> Callable[[Callable[[T], Samples]], Get]:
    """Return a decorator for sample functions of one part of the numbers; no samples if that part could not be read."""

    def wrap(get: Callable[[T], Samples]) -> Get:
        def samples(found: Numbers) -> Samples:
            known = part(found)
            return () if known is None else get(known)

        return samples

    return wrap


_recorded: Callable[[Callable[[Recorded], Samples]], Get] = _if_read(lambda found: found.recorded)
_upkeep: Callable[[Callable[[Upkeep], Samples]], Get] = _if_read(
    lambda found: found.recorded.upkeep if found.recorded else None
)
_overdue: Callable[[Callable[[Overdue], Samples]], Get] = _if_read(lambda found: found.overdue)
_unmatched: Callable[[Callable[[UnmatchedProtections], Samples]], Get] = _if_read(
    lambda found: found.overdue.unmatched if found.overdue else None
)
_reported: Callable[[Callable[[Reported], Samples]], Get] = _if_read(
    lambda found: found.recorded.reported if found.recorded else None
)
_drain: Callable[[Callable[[float], Samples]], Get] = _if_read(lambda found: found.drain_seconds)


def _single(value: float) -> Samples:
    return [((), float(value))]


def _each(found: Mapping[str, float], known: Iterable[str] = ()) -> Samples:
    """Return one sample per label; known labels that were not found are 0, so that the first increase is visible."""
    return [((label,), float(found.get(label, 0))) for label in sorted({*known, *found})]


def _pairs(found: Mapping[tuple[str, str], float], known: Iterable[tuple[str, str]] = ()) -> Samples:
    return [(labels, float(found.get(labels, 0))) for labels in sorted({*known, *found})]


def _stamp(instant: datetime | None) -> float:
    """Return an instant in seconds since 1970; 0 for None."""
    return instant.timestamp() if instant else 0.0


def _ages(found: Overdue, counts: RecordCounts, rules: Iterable[str]) -> Samples:
    return _each({rule: counts.overdue_seconds(rule, found.as_of) for rule in counts.due}, rules)


def _purged(found: Numbers) -> Samples:
    """Return all purges so far by record kind and rule; 0 for rules that have purged nothing yet, if the policy can be read."""
    if found.recorded is None:
        return ()
    rules = (found.overdue.rules, found.overdue.feedback_rules) if found.overdue else ((), ())
    known = ((record, rule) for record, names in zip(RECORDS, rules, strict=True) for rule in names)
    return _pairs({key: n for key, n in found.recorded.totals.purged.items() if key[0] in RECORDS}, known)


def _redacted(found: Numbers) -> Samples:
    """Return all redactions so far by rule."""
    if found.recorded is None:
        return ()
    rules = found.overdue.redacting_rules if found.overdue else ()
    purged = found.recorded.totals.purged
    return _each({rule: count for (record, rule), count in purged.items() if record == "redaction"}, rules)


def _incidents(found: Numbers) -> Samples:
    """Return how many conversations the policy's zero-retention rules have purged."""
    if found.recorded is None or found.overdue is None:
        return ()
    return _single(
        sum(found.recorded.totals.purged.get(("conversation", rule), 0) for rule in found.overdue.incident_rules)
    )


def _unclassified(found: Reported, kind: str) -> Mapping[str, float]:
    counts: Mapping[str, float] = found.details[kind]["unclassified"]
    return counts


TABLE: tuple[MetricRow, ...] = (
    _gauge(
        "sweeper_up",
        "1 if all numbers could be read. Numbers that could not be read, or that are still being counted, are left out.",
        lambda n: _single(not n.faults),
    ),
    _gauge(
        "sweeper_info",
        "Version of the program and first characters of the policy's digest.",
        lambda n: [((numbers.version(), n.policy), 1.0)],
        "version",
        "policy",
    ),
    _gauge("sweeper_numbers_timestamp_seconds", "When these numbers were read.", lambda n: _single(_stamp(n.at))),
    _gauge(
        "sweeper_overdue_conversations",
        "Conversations past their due date and not held, by rule.",
        _overdue(lambda o: _each(o.counts.by_rule, o.rules)),
        "rule",
    ),
    _gauge(
        "sweeper_oldest_overdue_seconds",
        "How long the oldest overdue conversation of a rule has been overdue; 0 if none is.",
        _overdue(lambda o: _ages(o, o.counts.conversations, o.rules)),
        "rule",
    ),
    _gauge(
        "sweeper_overdue_feedback",
        "Feedback rows past their due date and not held, by rule.",
        _overdue(lambda o: _each(o.counts.feedback_by_rule, o.feedback_rules)),
        "rule",
    ),
    _gauge(
        "sweeper_oldest_overdue_feedback_seconds",
        "How long the oldest overdue feedback row of a rule has been overdue; 0 if none is.",
        _overdue(lambda o: _ages(o, o.counts.feedback, o.feedback_rules)),
        "rule",
    ),
    _gauge(
        "sweeper_overdue_redactions",
        "Conversations whose content is past its due date and not held, by rule.",
        _overdue(lambda o: _each(o.counts.redacted_by_rule, o.redacting_rules)),
        "rule",
    ),
    _gauge(
        "sweeper_oldest_overdue_redaction_seconds",
        "How long the oldest overdue content of a rule has been overdue; 0 if none is.",
        _overdue(lambda o: _ages(o, o.counts.redactions, o.redacting_rules)),
        "rule",
    ),
    _gauge(
        "sweeper_held_conversations",
        "Conversations past their due date that only a legal hold keeps.",
        _overdue(lambda o: _single(o.counts.held)),
    ),
    _gauge(
        "sweeper_unmatched_protections",
        "Legal holds in force and erasure orders that match nothing in the store; absent if that could not be checked.",
        _unmatched(lambda u: _each(u.as_json(), ("holds", "orders", "misspelt_orders"))),
        "kind",
    ),
    _gauge(
        "sweeper_drain_seconds",
        "How long runs at their recent pace need for the overdue conversations; absent if unknown.",
        _drain(_single),
    ),
    _counter("sweeper_purged", "Records purged, by kind and rule.", _purged, "record", "rule"),
    _gauge(
        "sweeper_purged_lately",
        "Records purged, and conversations redacted, within the last 26 hours, by kind.",
        _recorded(lambda r: _each(r.purged_lately, (*RECORDS, "redaction"))),
        "record",
    ),
    _counter("sweeper_redacted", "Conversations redacted, by rule.", _redacted, "rule"),
    _counter(
        "sweeper_spared",
        "Records that were due and that a run skipped, by reason.",
        _recorded(lambda r: _each(r.totals.spared, Spared)),
        "reason",
    ),
    _gauge(
        "sweeper_last_run_purged",
        "Records that the last sweep with a full result purged; 0 if there is none.",
        _upkeep(lambda u: _single(u.last.purged if u.last else 0)),
    ),
    _gauge(
        "sweeper_last_run_spared",
        "Records that were due and that the last sweep with a full result skipped, by reason.",
        _upkeep(lambda u: _each(u.last.skipped if u.last else {}, Spared)),
        "reason",
    ),
    _gauge(
        "sweeper_last_run_unclassified",
        "Records that the last sweep with a full result kept because of doubt, by reason.",
        _upkeep(lambda u: _each(u.last.doubted if u.last else {}, Doubt)),
        "reason",
    ),
    _gauge(
        "sweeper_manifests",
        "Training manifests, by whether this machine can read their directory.",
        _upkeep(lambda u: _each({"reachable": u.manifests - len(u.unreachable), "unreachable": len(u.unreachable)})),
        "place",
    ),
    _gauge(
        "sweeper_guard_off",
        "1 for each guard that the settings switch off, here or in the last run.",
        _upkeep(lambda u: _each(dict.fromkeys([*u.guards_off, *u.guards_off_in_run], 1), GUARDS)),
        "guard",
    ),
    _gauge(
        "sweeper_missing_indexes",
        "Indexes that runs need and the store lacks; absent if that could not be found out.",
        _upkeep(lambda u: () if isinstance(u.indexes, str) else _single(len(u.indexes))),
    ),
    _gauge(
        "sweeper_objects_behind",
        "Objects of purged attachments that a run has tried to remove in vain, that are old, or that no prefix allows to remove.",
        _upkeep(lambda u: _single(u.objects_behind)),
    ),
    _counter("sweeper_failed", "Records that a run could not purge.", _recorded(lambda r: _single(r.totals.failed))),
    _counter(
        "sweeper_zero_retention_incidents", "Zero-retention conversations that were stored and then purged.", _incidents
    ),
    _histogram(
        "sweeper_batch_seconds",
        "Duration of the purging transactions.",
        _recorded(lambda r: _each(r.totals.batch_buckets, ("+Inf",))),
        "le",
    ),
    _counter(
        "sweeper_pauses",
        "How often runs waited for the server, by reason.",
        _recorded(lambda r: _each(r.totals.pauses, REASONS)),
        "reason",
    ),
    _counter(
        "sweeper_pause_seconds",
        "How long runs waited for the server, by reason.",
        _recorded(lambda r: _each(r.totals.pause_seconds, REASONS)),
        "reason",
    ),
    _gauge(
        "sweeper_paused",
        "1 while `sweeper pause` stops all purging.",
        _recorded(lambda r: _single(r.paused)),
    ),
    _gauge(
        "sweeper_last_success_timestamp_seconds",
        "When the last successful run ended; 0 if none has succeeded.",
        _recorded(lambda r: _single(_stamp(r.ended.success))),
    ),
    _gauge(
        "sweeper_last_run_outcome",
        "1 for the outcome of the last run that ended, not counting backfills.",
        _recorded(lambda r: [((outcome,), float(outcome == r.ended.outcome)) for outcome in OUTCOMES]),
        "outcome",
    ),
    _counter(
        "sweeper_guard_refusals",
        "Runs that a guard refused, by guard.",
        _recorded(lambda r: _each(r.totals.refusals, GUARDS)),
        "guard",
    ),
    _counter(
        "sweeper_runs",
        "Runs that ended, by kind and outcome.",
        _recorded(lambda r: _pairs(r.totals.runs, ((kind, outcome) for kind in KINDS for outcome in OUTCOMES))),
        "kind",
        "outcome",
    ),
    _gauge(
        "sweeper_objects_pending",
        "Objects of purged attachments that have not been removed yet.",
        _upkeep(lambda u: _single(u.objects_pending)),
    ),
    _gauge(
        "sweeper_copy_behind_records",
        "Purged records that a copy elsewhere has not acknowledged, counted up to a million.",
        _upkeep(lambda u: _each({copy.copy: copy.records for copy in u.copies})),
        "copy",
    ),
    _gauge(
        "sweeper_copy_behind_seconds",
        "How long ago the oldest of those records was purged; 0 if there is none.",
        _upkeep(lambda u: _each({copy.copy: copy.seconds for copy in u.copies})),
        "copy",
    ),
    _gauge(
        "sweeper_checkpoint_timestamp_seconds",
        "When the newest checkpoint of the evidence was taken; 0 if none was.",
        _recorded(lambda r: _single(_stamp(r.covered.checkpoint_at))),
    ),
    _gauge(
        "sweeper_uncovered_evidence_rows",
        "Rows of evidence that no checkpoint covers, counted up to a million a table.",
        _recorded(lambda r: _single(r.covered.rows)),
    ),
    _gauge(
        "sweeper_last_report_timestamp_seconds",
        "When `sweeper report` last ran; 0 if it never did.",
        _recorded(lambda r: _single(_stamp(r.reported.at if r.reported else None))),
    ),
    _gauge(
        "sweeper_unclassified_conversations",
        "Conversations kept because of doubt, by reason, as of the last report.",
        _reported(lambda r: _each(_unclassified(r, "conversations"), Doubt.of_conversations())),
        "reason",
    ),
    _gauge(
        "sweeper_unclassified_feedback",
        "Feedback rows kept because of doubt, by reason, as of the last report.",
        _reported(lambda r: _each(_unclassified(r, "feedback"), Doubt.of_feedback())),
        "reason",
    ),
    _gauge(
        "sweeper_zero_retention_stored_conversations",
        "Zero-retention conversations in the store, including held ones, as of the last report.",
        _reported(lambda r: _single(r.details["anomalies"].get(Anomaly.ZERO_RETENTION_STORED.value, 0))),
    ),
    _gauge(
        "sweeper_undecided_after_deadline_conversations",
        "Conversations whose user wrote after the deadline for choosing and never chose, as of the last report.",
        _reported(lambda r: _single(r.details["anomalies"].get(Anomaly.UNDECIDED.value, 0))),
    ),
)


def text(found: Numbers) -> bytes:
    """Return the numbers in the Prometheus text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_NumbersCollector(found))
    return generate_latest(registry)


@dataclass(frozen=True, eq=False)  # the registry hashes its collectors by identity
class _NumbersCollector(Collector):
    """Collects the rows of `TABLE` and nothing about this process."""

    found: Numbers

    def collect(self) -> Iterator[Metric]:
        """Yield one family for each row of the table that has samples."""
        for row in TABLE:
            samples = list(row.get(self.found))
            if samples:
                yield _family(row, samples, self.found)


def _family(row: MetricRow, samples: Samples, found: Numbers) -> Metric:
    if row.type == "histogram":
        return _batches(row, samples, found)
    kind = CounterMetricFamily if row.type == "counter" else GaugeMetricFamily
    family = kind(row.name, row.help, labels=("store", *row.labels))
    for labels, value in samples:
        family.add_metric(tuple(map(printable, (found.store, *labels))), value)
    return family


def _batches(row: MetricRow, samples: Samples, found: Numbers) -> Metric:
    """Return the histogram: cumulative counts by upper bound, and the total seconds of all batches."""
    buckets = sorted(((labels[0], value) for labels, value in samples), key=lambda bucket: float(bucket[0]))
    family = HistogramMetricFamily(row.name, row.help, labels=("store",))
    family.add_metric((found.store,), buckets, found.recorded.totals.batch_seconds if found.recorded else 0.0)
    return family
