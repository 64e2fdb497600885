"""`report` and `status`: print counts of all records, and the state of operation with advice.

Invariant: `report --textfile` writes the file for node_exporter even if the report fails.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, AsOf, Config, Output
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.policy.instant import rfc3339

if TYPE_CHECKING:
    from sweeper.copies.lag import CopyLag
    from sweeper.policy.counts import RecordCounts
    from sweeper.postgres.vacuum import DeadRows
    from sweeper.report.report import Report
    from sweeper.report.status import Status
    from sweeper.runs.job import Job
    from sweeper.settings import Settings

COUNT_SECONDS = 10.0
"""How long `status` counts overdue records; `report` counts all."""
MAX_PROGRESS_TOTAL = 50_000_000
"""The progress bar shows a total in stores smaller than this."""


def report(
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    as_of: AsOf = None,
    textfile: Annotated[
        Path | None,
        typer.Option("--textfile", metavar="FILE", help="Also write the metrics here, for node_exporter (FILE.prom)."),
    ] = None,
) -> None:
    """Count every record: kept, overdue, held, in doubt, purged. Exits with 1 if nothing is purged while overdue.

    That is, if something has been overdue for more than 26 hours and nothing of its kind was purged in the last 26 hours.
    Changes nothing except that it records an event of kind `reported`.

    Example: sweeper report --textfile /var/lib/prometheus/node-exporter/sweeper.prom
    """
    if textfile is not None and as_of is not None:
        raise ConfigurationError(
            "--textfile writes the numbers as of now: nothing was read or written. Leave out --as-of."
        )
    at = context.instant("--as-of", as_of)
    with context.configured(config) as settings, _textfile_written(settings, textfile):
        from sweeper.runs.job import prepare

        job = prepare(settings, context.CLOCK, at)
        try:
            found = _reported(job)
        finally:
            job.database.engine.dispose()
        with console.afterwards():
            if output.is_data:
                console.print_data(found, output)
            else:
                _print_report(found)
        if found.alarms:
            raise SweeperError(*found.alarms)


@contextmanager
def _textfile_written(settings: "Settings", file: Path | None) -> Iterator[None]:
    """Write the metrics when the block ends, even by an exception; that exception is then the one raised."""
    try:
        yield
    except BaseException:
        try:
            _write(settings, file)
        except SweeperError as second:
            console.print_error(second)
        raise
    _write(settings, file)


def _write(settings: "Settings", file: Path | None) -> None:
    from sweeper.report import exporter

    if file is not None:
        exporter.write(file, exporter.read(settings, context.CLOCK)[0])


def _reported(job: "Job") -> "Report":
    from sweeper.cli import progress
    from sweeper.postgres import store_counts
    from sweeper.report import report as reports

    with progress.watched() as watch:
        if progress.is_watched():
            count = job.database.within(lambda connection: store_counts.conversations(connection, MAX_PROGRESS_TOTAL))
            if count < MAX_PROGRESS_TOTAL:
                watch.expect(count)
        return reports.report(job, watch.advance)


def _print_report(report: "Report") -> None:
    job, past, counts = report.job, report.past, report.counts
    console.say(
        f"Report at {rfc3339(job.as_of)}, policy {job.policy.name!r} ({job.policy.digest[:12]}): "
        f"{counts.conversations.total} conversations, {counts.feedback.total} feedback rows."
    )
    _print_records("conversations", counts.conversations)
    if job.policy.redacting is not None:
        redactions = counts.redactions
        console.say(
            "",
            f"content still to be redacted: {redactions.due.total()} conversations overdue, {redactions.held_past_due} held",
        )
    if counts.feedback.total:
        _print_records("feedback", counts.feedback)
    _print_reasons(report)
    _print_purged(report)
    console.say("")
    console.say(f"last success: {rfc3339(past.last_success_at) if past.last_success_at else 'never'}")
    console.say(f"to purge what is overdue: {_forecast(report.drain_seconds)}")
    console.say(f"objects still to be removed: {past.objects_pending}")
    for copy in past.copies:
        console.say(f"copy {copy.copy}: {_lag(copy)}")
    console.say(f"holds and orders without effect: {_unmatched(report)}")
    if past.manifests.by_state:
        states = ", ".join(f"{count} {state}" for state, count in sorted(past.manifests.by_state.items()))
        console.say(f"manifests: {states}; never recalled: {past.manifests.never_recalled}")
    console.say(f"evidence: {_evidence(report)}")
    for table in past.tables:
        console.say(f"rows of {_dead_rows(table)}")
    console.say("", "What a purge does not reach:", *(f"  {place}" for place in past.beyond_reach))


def _lag(copy: "CopyLag") -> str:
    from sweeper.report.status import length

    if not copy.records:
        return "has been told all that was purged"
    failed = f"; the last delivery failed: {copy.last_error}" if copy.failed_at else ""
    return f"{copy.records} purged records behind, the oldest for {length(copy.seconds)}{failed}"


def _unmatched(report: "Report") -> str:
    found = report.unmatched
    if found is None:
        return "could not be checked"
    return f"{len(found.holds)} holds, {len(found.orders)} orders, {len(found.misspelt)} orders in another spelling"


def _print_records(what: str, counts: "RecordCounts") -> None:
    from sweeper.policy.evaluate import Outcome
    from sweeper.report.report import DAYS

    console.say("")
    rows: list[tuple[object, ...]] = [
        (
            rule,
            counts.kept(rule),
            outcomes[Outcome.PURGE],
            counts.oldest_due.get(rule),
            counts.held[rule],
            outcomes[Outcome.HELD],
            outcomes[Outcome.SPARED],
            *(counts.due_in[rule][days] for days in DAYS),
        )
        for rule, outcomes in sorted(counts.by_rule.items())
    ]
    due = [f"due in {days} d" for days in DAYS]
    console.print_table((what, "kept", "overdue", "oldest due", "held", "of them due", "spared", *due), rows)


def _print_reasons(report: "Report") -> None:
    found = [
        *(("unclassified", reason, n) for reason, n in sorted(report.counts.conversations.unclassified.items())),
        *(("unclassified feedback", reason, n) for reason, n in sorted(report.counts.feedback.unclassified.items())),
        *(("spared", reason, n) for reason, n in sorted(report.counts.skipped.items())),
        *(("anomaly", reason, n) for reason, n in sorted(report.counts.anomalies.items())),
    ]
    if found:
        console.say("")
        console.print_table(("", "reason", "count"), found)


def _print_purged(report: "Report") -> None:
    from sweeper.report.report import DAYS

    longest = report.past.purged_in_days[DAYS[-1]]
    rows: list[tuple[object, ...]] = [
        (kind, rule, *(report.past.purged_in_days[days][kind][rule] for days in DAYS))
        for kind, by_rule in longest.items()
        for rule in sorted(by_rule)
    ]
    console.say("")
    if rows:
        console.print_table(("purged", "rule", *(f"in the last {days} d" for days in DAYS)), rows)
    else:
        console.say(f"purged in the last {DAYS[-1]} days: nothing")


def _evidence(report: "Report") -> str:
    covered = report.past.evidence
    if covered.checkpoint_at is None:
        return f"no checkpoint was ever taken; {covered.rows} rows are uncovered"
    signed = "signed" if covered.signed else "unsigned"
    return f"newest checkpoint {rfc3339(covered.checkpoint_at)} ({signed}); {covered.rows} rows since"


def _forecast(seconds: float | None) -> str:
    from sweeper.report.status import length

    if seconds is None:
        return "unknown, because no run has purged anything lately"
    return f"{length(seconds)} of work at the recent pace" if seconds else "nothing to do"


def status(config: Config = None, output: Output = OutputFormat.TABLE, _json: AsJson = False) -> None:
    """Show how the store stands, what is wrong, and what to do. Exits with 0 if it could look, and with 2 without a policy.

    Shown are pauses, the lease, runs, backfills and what is overdue.

    Counts overdue records for at most 10 s; `report` counts all.

    Example: sweeper status --json
    """
    from sweeper.postgres import database as databases
    from sweeper.report import numbers as numbers
    from sweeper.report import status as statuses

    with context.configured(config) as settings:
        database = databases.connect(numbers.impatient(settings))
        try:
            deadline = time.monotonic() + COUNT_SECONDS
            found = statuses.read(database, context.CLOCK, lambda: time.monotonic() > deadline)
        finally:
            database.engine.dispose()
        if output.is_data:
            console.print_data(found, output)
        else:
            _print_status(found)
        _require_policy(settings)


def _require_policy(settings: "Settings") -> None:
    """Exit as any other command does without a usable policy: a status that could not count is not a good one."""
    from sweeper.settings import load_policy

    try:
        load_policy(settings)
    except ConfigurationError as error:
        console.print_error(error)
        raise typer.Exit(error.exit_code) from None


def _print_status(status: "Status") -> None:
    from sweeper.report.status import length

    console.say(f"{status.store} at {rfc3339(status.at)}")
    for pause in status.pauses:
        console.say(
            f"paused    since {rfc3339(pause.paused_at)}, {length(status.at - pause.paused_at)}: {pause.reason}"
        )
    if not status.pauses:
        console.say("paused    no")
    console.say(f"lease     {_lease(status)}")
    age = status.success_age
    console.say(
        f"success   {rfc3339(status.ended.success)}, {length(age)} ago"
        if status.ended.success and age
        else "success   never"
    )
    _print_overdue(status)
    _print_backfills(status)
    _print_upkeep(status)
    _print_runs(status)
    console.say("")
    console.say(
        *(f"! {line}" for line in status.advice), *(f"? Not looked at: {line}" for line in status.not_looked_at)
    )
    if not status.advice:
        console.say("Nothing wrong was found in what was looked at." if status.not_looked_at else "Nothing is wrong.")


def _lease(status: "Status") -> str:
    holder = status.holder
    if holder is None or not holder.held or holder.expires_at is None or holder.renewed_at is None:
        return "free"
    who = f"run {holder.run_id} ({holder.kind})" if holder.run_id else "a run that is about to begin"
    waiting = f"; another waits since {rfc3339(holder.wanted_at)}" if holder.wanted_at else ""
    return f"held by {who}, renewed {rfc3339(holder.renewed_at)}, ends {rfc3339(holder.expires_at)} unless renewed{waiting}"


def _print_overdue(status: "Status") -> None:
    overdue = status.overdue
    if isinstance(overdue, str):
        console.say("overdue   could not be counted")
        return
    counts, redactions = overdue.counts, overdue.counts.redacted_by_rule.total()
    more = (
        ""
        if overdue.complete
        else f" at least: counting stopped after {COUNT_SECONDS:g} s, `sweeper report` counts all"
    )
    console.say(
        f"overdue   {counts.due} conversations, {counts.feedback_by_rule.total()} feedback rows"
        f"{f', {redactions} redactions' if overdue.redacting_rules else ''}; {counts.held} held past "
        f"their due date{more}"
    )
    rows = [
        (kind, rule, count, found.oldest_due[rule])
        for kind, found in (
            ("conversation", counts.conversations),
            ("redaction", counts.redactions),
            ("feedback", counts.feedback),
        )
        for rule, count in sorted(found.due.items())
    ]
    if rows:
        console.print_table(("overdue", "rule", "count", "oldest due"), rows)


def _print_upkeep(status: "Status") -> None:
    upkeep = status.upkeep
    off = len(upkeep.guards_off) + len(upkeep.guards_off_in_run)
    missing = "unknown" if isinstance(upkeep.indexes, str) else len(upkeep.indexes)
    console.say(
        f"upkeep    guards off: {off}; missing indexes: {missing}; unreachable manifests: "
        f"{len(upkeep.unreachable)} of {upkeep.manifests}; pending objects: {upkeep.objects_pending}; uncovered rows of "
        f"evidence: {status.covered.rows}"
    )
    for copy in upkeep.copies:
        console.say(f"copy      {copy.copy}: {_lag(copy)}")
    for table in upkeep.dead:
        console.say(f"dead rows {_dead_rows(table)}")


def _dead_rows(table: "DeadRows") -> str:
    when = rfc3339(table.vacuumed_at) if table.vacuumed_at else "not known"
    return f"{table.name}: {table.dead} dead beside {table.live} others; last vacuum: {when}"


def _print_backfills(status: "Status") -> None:
    from sweeper.report.status import length

    for progress in status.backfills:
        plan, remaining = progress.plan, status.remaining(progress)
        rest = f", {length(remaining)} of work left at the recent pace" if remaining else ""
        console.say(
            f"backfill  {plan.id}: {rfc3339(plan.since)} to {rfc3339(plan.until)} by {plan.by}, done until "
            f"{rfc3339(plan.done_until)}, {progress.purged} of {plan.expected} purged ({progress.share:.0%}){rest}, "
            f"{'stopped' if plan.stopped_at else 'last heartbeat'} {rfc3339(plan.stopped_at or plan.seen_at)}"
        )


def _print_runs(status: "Status") -> None:
    from sweeper.report.status import length

    rows = [
        (
            run.id,
            run.kind,
            run.as_of,
            run.outcome or ("running" if status.is_alive(run) else "died"),
            run.stop_reason or run.guard,
            run.purged,
            run.skipped,
            length(run.seconds) if run.seconds is not None else None,
        )
        for run in status.runs
    ]
    if rows:
        console.say("")
        console.print_table(("run", "kind", "as of", "outcome", "why", "purged", "skipped", "took"), rows)
