"""`report`: print counts of all records.

Invariant: `report --textfile` writes the file for node_exporter even if the report fails.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, AsOf, Config, Output
from sweeper.cli.status import dead_rows_text, lag_text
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.policy.instant import rfc3339

if TYPE_CHECKING:
    from sweeper.policy.counts import RecordCounts
    from sweeper.report.report import Report
    from sweeper.settings import Settings


def report(
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    as_of: AsOf = None,
    textfile: Annotated[
        Path | None,
        typer.Option("--textfile", metavar="FILE", help="Also write the metrics here, for node_exporter (FILE.prom)."),
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            metavar="FILE",
            help="Also write the report here as one page of HTML with charts, to read or print.",
        ),
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
        found = _reported(settings, at, html)
        with console.afterwards():
            if output.is_data:
                console.print_data(found, output)
            else:
                _print_report(found)
                console.say(*([f"page: {html}"] if html else ()))
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


def _reported(settings: "Settings", at: "datetime | None", html: Path | None) -> "Report":
    """Make the report, and the page of it; a page that cannot be written is refused before the work begins."""
    from sweeper import files
    from sweeper.cli import progress
    from sweeper.report import report as reports
    from sweeper.report import store_page
    from sweeper.runs.job import prepare

    with files.atomic_write(html) if html else nullcontext() as page, progress.steps() as step:
        job = prepare(settings, context.CLOCK, at)
        try:
            if page is None:
                return reports.report(job, step)
            found, text = store_page.paged(job, step)
            page.write(text.encode())
            return found
        finally:
            job.database.engine.dispose()


def _print_report(report: "Report") -> None:
    from sweeper.policy.times import when

    job, past, counts = report.job, report.past, report.counts
    console.say(
        f"Report at {rfc3339(job.as_of)}, policy {job.policy.name!r} ({job.policy.digest[:12]}): "
        f"{counts.conversations.total:,} conversations, {counts.feedback.total:,} feedback rows."
    )
    _print_records("conversations", counts.conversations, job.as_of)
    if job.policy.redacting is not None:
        due, held = counts.redactions.due.total(), counts.redactions.held_past_due
        console.say("", f"content still to be redacted: {due:,} conversations overdue, {held:,} held")
    if counts.feedback.total:
        _print_records("feedback", counts.feedback, job.as_of)
    _print_reasons(report)
    _print_purged(report)
    console.say("")
    console.say(f"last success: {when(past.last_success_at, job.as_of) if past.last_success_at else 'never'}")
    console.say(f"to purge what is overdue: {_forecast(report.drain_seconds)}")
    console.say(f"objects still to be removed: {past.objects_pending:,}")
    for copy in past.copies:
        console.say(f"copy {copy.copy}: {lag_text(copy)}")
    console.say(f"holds and orders without effect: {_unmatched(report)}")
    if past.manifests.by_state:
        states = ", ".join(f"{count} {state}" for state, count in sorted(past.manifests.by_state.items()))
        console.say(f"manifests: {states}; never recalled: {past.manifests.never_recalled}")
    console.say(f"evidence: {_evidence(report)}")
    for table in past.tables:
        console.say(f"rows of {dead_rows_text(table, job.as_of)}")
    console.say("", "What a purge does not reach:", *(f"  {place}" for place in past.beyond_reach))


def _unmatched(report: "Report") -> str:
    found = report.unmatched
    if found is None:
        return "could not be checked"
    return (
        f"{len(found.holds):,} holds, {len(found.orders):,} orders, {len(found.misspelt):,} orders in another spelling"
    )


def _print_records(what: str, counts: "RecordCounts", now: datetime) -> None:
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
    console.print_table((what, "kept", "overdue", "oldest due", "held", "of them due", "spared", *due), rows, now=now)


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
    from sweeper.policy.times import when

    covered = report.past.evidence
    if covered.checkpoint_at is None:
        return f"no checkpoint was ever taken; {covered.rows:,} rows are uncovered"
    signed = "signed" if covered.signed else "unsigned"
    return f"newest checkpoint {when(covered.checkpoint_at, report.job.as_of)} ({signed}); {covered.rows:,} rows since"


def _forecast(seconds: float | None) -> str:
    from sweeper.policy.times import length

    if seconds is None:
        return "unknown, because no run has purged anything lately"
    return f"{length(seconds)} of work at the recent pace" if seconds else "nothing to do"
