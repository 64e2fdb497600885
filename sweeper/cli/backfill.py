"""`backfill`: clears a backlog of years, slice by slice."""

from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, Config
from sweeper.cli.run import (
    STOPS,
    AcceptHistory,
    MaxPurge,
    MaxRuntime,
    Out,
    read_approval,
    read_budget,
    show_plan,
    stop_on_signal,
)
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
    as_json: AsJson = False,
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
    max_runtime: MaxRuntime = None,
    max_purge: MaxPurge = None,
) -> None:
    """Purge years of overdue conversations, the oldest first. Stop it at any time; the same command continues it.

    Example: sweeper backfill --since 2021-01-01T00:00:00Z --until 2026-01-01T00:00:00Z --dry-run
    """
    from sweeper.runs import backfill as filling
    from sweeper.runs.backfill_runner import BackfillRunner

    if dry_run + give_up + (approve is not None or plan is not None) > 1:
        raise ConfigurationError(
            "--dry-run, --give-up, and --approve or --plan are three things: nothing was done. Preview first, then approve "
            "what that finds."
        )
    if plan is not None and (since, until, by) != (None, None, None):
        raise ConfigurationError("--plan brings its own --since, --until and --by: nothing was done. Leave them out.")
    approval = read_approval(approve, plan, out, dry_run=dry_run)
    with context.prepared(config) as job:
        scope = _scope(job, since, until, by) if approval is None or plan is None else filling.scope_of(approval)
        hours = _hours(job, between)
        budget = read_budget(max_runtime, max_purge, _rate(job, rate))
        if dry_run:
            show_plan(job, scope, out, as_json=as_json)
            return
        if give_up:
            _print_given_up(filling.give_up(job, scope), as_json=as_json)
            return
        begun = filling.begin(job, scope, approval)
        with stop_on_signal(job.database.stop), _watched() as watch:
            drained = BackfillRunner(job, begun, watch, budget, hours, accept_history).run()
    with console.afterwards():
        _print_drained(drained, as_json=as_json)
    if drained.outcome == "failed" or drained.stop_reason == "signal" or drained.is_stalled:
        raise typer.Exit(1)


def _print_given_up(plan: "BackfillPlan", *, as_json: bool) -> None:
    if as_json:
        console.print_json({"backfill": plan.id, "outcome": "given_up", "done_until": rfc3339(plan.done_until)})
    else:
        console.say(
            f"Backfill {plan.id} is given up, done until {rfc3339(plan.done_until)}. `sweeper run` takes what is left."
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
        raise ConfigurationError(f"--rate {rate} is no number of conversations a second. Nothing was done.")
    return rate


def _hours(job: "Job", between: str | None) -> "Hours | None":
    from zoneinfo import ZoneInfo

    from sweeper.policy.hours import Hours

    text = job.settings.backfill.between if between is None else between
    if not text:
        return None
    where = "[backfill] between" if between is None else "--between"
    try:
        return Hours.parse(text, ZoneInfo(job.settings.schedule.zone))
    except (ValueError, OSError) as error:
        raise ConfigurationError(f"{where}: {error}. Nothing was done.") from None


def _print_drained(drained: "BackfillOutcome", *, as_json: bool) -> None:
    said = drained.as_json()
    if as_json:
        console.print_json(said)
        return
    console.say(
        f"Backfill {said['backfill']} {said['outcome']}: {said['purged_now']} conversations purged now, {said['purged']} of "
        f"{said['expected']} in all, in {said['duration_s']} s. Everything due before {said['done_until']} has been swept."
    )
    if drained.stop_reason:
        console.say(
            f"It stopped early: {STOPS.get(drained.stop_reason, drained.stop_reason)}; the same command goes on."
        )
    if drained.is_stalled:
        console.warn(
            "NOTHING was purged, and not all that is overdue has been looked at or could be purged. See the log."
        )
    if drained.left > drained.failed:
        console.say(
            f"{drained.left - drained.failed} that are due were left: others had them locked, more is due than was approved, or "
            "a hold, a flag or a user message spared them. The next `sweeper run` takes those that nothing spares any more."
        )
    if drained.failed:
        console.say(f"{drained.failed} records could not be purged; the log on stderr names each with its reason.")
