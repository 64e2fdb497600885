"""`backfill`: purge a large backlog of overdue conversations, slice by slice."""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, Config, Output
from sweeper.cli.run import (
    STOPS,
    AcceptHistory,
    AcceptPolicy,
    MaxPurge,
    MaxRuntime,
    Out,
    read_approval,
    read_budget,
    show_plan,
    stop_on_signal,
)
from sweeper.console import OutputFormat
from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError
from sweeper.policy.instant import rfc3339
from sweeper.policy.window import Slice

if TYPE_CHECKING:
    from sweeper.policy.hours import Hours
    from sweeper.postgres.backfills import BackfillPlan
    from sweeper.runs.backfill import BackfillScope
    from sweeper.runs.backfill_runner import BackfillOutcome
    from sweeper.runs.job import Job


def backfill(
    since: Annotated[str | None, typer.Option("--since", metavar="INSTANT", help="The earliest due date.")] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="INSTANT", help="The end of the due dates, exclusive.")
    ] = None,
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    by: Annotated[Slice | None, typer.Option("--by", help="Length of a slice; a month by default.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Preview the whole plan: write nothing, and print the digest to approve.")
    ] = False,
    approve: Annotated[
        str | None,
        typer.Option(
            "--approve", metavar="DIGEST", help="Start the plan that this preview found. Not needed to continue it."
        ),
    ] = None,
    out: Out = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            "--plan", metavar="FILE", help="As --since, --until, --by and --approve, from the file that --out wrote."
        ),
    ] = None,
    between: Annotated[
        str | None,
        typer.Option("--between", metavar="HH:MM-HH:MM", help="Purge only in these hours, in [schedule] zone."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="N", min=0.01, help="Purge at most N conversations a second.")
    ] = None,
    give_up: Annotated[
        bool, typer.Option("--give-up", help="End the plan where it is. `sweeper run` purges the rest.")
    ] = False,
    accept_history: AcceptHistory = False,
    accept_policy: AcceptPolicy = None,
    max_runtime: MaxRuntime = None,
    max_purge: MaxPurge = None,
) -> None:
    """Purge years of overdue conversations, the oldest first. Stop it at any time; the same command continues it.

    Example: sweeper backfill --since 2021-01-01T00:00:00Z --until 2026-01-01T00:00:00Z --dry-run
    """
    from sweeper.runs import backfill as backfills
    from sweeper.runs import policy_change
    from sweeper.runs.backfill_runner import BackfillRunner

    if dry_run + give_up + (approve is not None or plan is not None) > 1:
        raise ConfigurationError(
            "--dry-run, --give-up, and --approve or --plan exclude one another: nothing was done. Preview first, then approve "
            "what that finds."
        )
    if plan is not None and (since, until, by) != (None, None, None):
        raise ConfigurationError("--plan contains its own --since, --until and --by: nothing was done. Leave them out.")
    approval = read_approval(approve, plan, out, dry_run=dry_run)
    accept = policy_change.read(accept_policy)
    with context.prepared(config, is_patient=not (dry_run or give_up)) as job:
        scope = _scope(job, since, until, by) if approval is None or plan is None else backfills.scope_of(approval)
        hours = _hours(job, between)
        budget = read_budget(max_runtime, max_purge, _rate(job, rate))
        if dry_run:
            show_plan(job, scope, out, accept, output=output)
            return
        if give_up:
            _print_given_up(backfills.give_up(job, scope), output=output)
            return
        started = backfills.begin(job, scope, approval, accept)
        with stop_on_signal(job.database.stop), _watched() as watch:
            outcome = BackfillRunner(job, started, watch, budget, hours, accept_history, accept).run()
    with console.afterwards():
        _print_outcome(outcome, output=output)
    if outcome.outcome == "failed" or outcome.stop_reason == "signal" or outcome.is_stalled:
        raise typer.Exit(1)


def _print_given_up(plan: "BackfillPlan", *, output: OutputFormat) -> None:
    if output.is_data:
        console.print_data({"backfill": plan.id, "outcome": "given_up", "done_until": plan.done_until}, output)
    else:
        console.say(
            f"Backfill {plan.id} is given up, done until {rfc3339(plan.done_until)}. `sweeper run` purges the rest."
        )


def _watched() -> Any:
    from sweeper.cli.progress import watched

    return watched()


def _scope(job: "Job", since: str | None, until: str | None, by: Slice | None) -> "BackfillScope":
    from sweeper.runs.backfill import BackfillScope, refuse_future

    begin, end = context.instant("--since", since), context.instant("--until", until)
    if begin is None or end is None:
        raise ConfigurationError("--since or --until is missing. Nothing was done. Give both, or --plan FILE.")
    scope = BackfillScope(begin, end, by or Slice.MONTH)
    refuse_future(scope, job.clock.now())
    return scope


def _rate(job: "Job", rate: float | None) -> float:
    if rate is None:
        return job.settings.backfill.per_second
    if not isfinite(rate):
        raise ConfigurationError(f"--rate {rate} is not a number of conversations a second. Nothing was done.")
    return rate


def _hours(job: "Job", between: str | None) -> "Hours | None":
    from zoneinfo import ZoneInfo

    from sweeper.policy.hours import Hours

    text = job.settings.backfill.between if between is None else between
    if not text:
        return None
    source = "[backfill] between" if between is None else "--between"
    try:
        return Hours.parse(text, ZoneInfo(job.settings.schedule.zone))
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{source}: {error}. Nothing was done.") from None


def _print_outcome(outcome: "BackfillOutcome", *, output: OutputFormat) -> None:
    found = to_json(outcome)
    if output.is_data:
        console.print_data(found, output)
        return
    console.say(
        f"Backfill {found['backfill']} {found['outcome']}: {found['purged_now']:,} conversations purged now, {found['purged']:,} "
        f"of {found['expected']:,} in all, in {found['duration_s']} s. Everything due before {found['done_until']} has been "
        "swept."
    )
    if outcome.stop_reason:
        console.say(
            f"It stopped early: {STOPS.get(outcome.stop_reason, outcome.stop_reason)}; the same command continues it."
        )
    if outcome.is_stalled:
        console.warn(
            "NOTHING was purged, although records are overdue: not all were looked at or could be purged. See the log."
        )
    if outcome.left > outcome.failed:
        console.say(
            f"{outcome.left - outcome.failed:,} due conversations were skipped: other sessions had locked them, they exceed what "
            "was approved, or a hold, a flag or a user message protects them. The next `sweeper run` purges those that "
            "nothing protects any more."
        )
    if outcome.failed:
        console.say(f"{outcome.failed:,} records could not be purged; the log on stderr names each with its reason.")
