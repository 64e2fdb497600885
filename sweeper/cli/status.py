"""`status`: print the state of operation with advice, once or, with --watch, as it changes."""

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, Config, Output
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError
from sweeper.policy.instant import rfc3339

if TYPE_CHECKING:
    from sweeper.copies.lag import CopyLag
    from sweeper.postgres.vacuum import DeadRows
    from sweeper.report.status import Status
    from sweeper.settings import Settings

COUNT_SECONDS = 10.0
"""How long `status` counts overdue records; `report` counts all."""


def status(
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show on a terminal how runs and backfills proceed, until Ctrl-C.")
    ] = False,
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=0.2, max=3600, help="With --watch: look so often.")
    ] = 2.0,
) -> None:
    """Show how the store stands, what is wrong, and what to do. Exits with 0 if it could look, and with 2 without a policy.

    Shown are pauses, the lease, runs, backfills and what is overdue.

    Counts overdue records for at most 10 s; `report` counts all.

    Example: sweeper status --watch
    """
    if watch:
        from sweeper.cli.watch import watch_status

        watch_status(config, every, output)
        return
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
    from sweeper.policy.times import when

    console.say(f"{status.store} at {rfc3339(status.at)}")
    for pause in status.pauses:
        console.say(f"paused    since {when(pause.paused_at, status.at)}: {pause.reason}")
    if not status.pauses:
        console.say("paused    no")
    console.say(f"lease     {_lease(status)}")
    console.say(*(f"now       {who}: {sign.doing}" for who, sign in status.signs.items() if sign.doing))
    console.say(f"success   {when(status.ended.success, status.at) if status.ended.success else 'never'}")
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
    from sweeper.policy.times import when

    holder = status.holder
    if holder is None or not holder.held or holder.expires_at is None or holder.renewed_at is None:
        return "free"
    who = f"run {holder.run_id} ({holder.kind})" if holder.run_id else "a run that is about to begin"
    waiting = f"; another waits since {when(holder.wanted_at, status.at)}" if holder.wanted_at else ""
    renewed, ends = when(holder.renewed_at, status.at), when(holder.expires_at, status.at)
    return f"held by {who}, renewed {renewed}; ends {ends}, unless renewed{waiting}"


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
        f"overdue   {counts.due:,} conversations, {counts.feedback_by_rule.total():,} feedback rows"
        f"{f', {redactions:,} redactions' if overdue.redacting_rules else ''}; {counts.held:,} held past "
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
        console.print_table(("overdue", "rule", "count", "oldest due"), rows, now=status.at)


def _print_upkeep(status: "Status") -> None:
    upkeep = status.upkeep
    off = len(upkeep.guards_off) + len(upkeep.guards_off_in_run)
    missing = "unknown" if isinstance(upkeep.indexes, str) else len(upkeep.indexes)
    console.say(
        f"upkeep    guards off: {off}; missing indexes: {missing}; unreachable manifests: "
        f"{len(upkeep.unreachable)} of {upkeep.manifests}; pending objects: {upkeep.objects_pending:,}; uncovered rows of "
        f"evidence: {status.covered.rows:,}"
    )
    for copy in upkeep.copies:
        console.say(f"copy      {copy.copy}: {lag_text(copy)}")
    for table in upkeep.dead:
        console.say(f"dead rows {dead_rows_text(table, status.at)}")


def _print_backfills(status: "Status") -> None:
    from sweeper.policy.times import length, when

    for progress in status.backfills:
        plan, remaining = progress.plan, status.remaining(progress)
        rest = f", {length(remaining)} of work left at the recent pace" if remaining else ""
        console.say(
            f"backfill  {plan.id}: {rfc3339(plan.since)} to {rfc3339(plan.until)} by {plan.by}, done until "
            f"{rfc3339(plan.done_until)}, {progress.purged:,} of {plan.expected:,} purged ({progress.share:.0%}){rest}, "
            f"{'stopped' if plan.stopped_at else 'last heartbeat'} {when(plan.stopped_at or plan.seen_at, status.at)}"
        )


def _print_runs(status: "Status") -> None:
    from sweeper.policy.times import length

    rows = [
        (
            str(run.id),
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
        console.print_table(
            ("run", "kind", "as of", "outcome", "why", "purged", "skipped", "took"), rows, now=status.at
        )


def lag_text(copy: "CopyLag") -> str:
    """Return how far a copy lags, in words."""
    from sweeper.policy.times import length

    if not copy.records:
        return "has been told all that was purged"
    failed = f"; the last delivery failed: {copy.last_error}" if copy.failed_at else ""
    return f"{copy.records:,} purged records behind, the oldest for {length(copy.seconds)}{failed}"


def dead_rows_text(table: "DeadRows", now: datetime) -> str:
    """Return the dead rows of a table and its last VACUUM, in words."""
    from sweeper.policy.times import when

    vacuumed = when(table.vacuumed_at, now) if table.vacuumed_at else "not known"
    return f"{table.name}: {table.dead:,} dead beside {table.live:,} others; last vacuum: {vacuumed}"
