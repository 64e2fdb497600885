"""`run`: purge what is due, or preview that."""

import shlex
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Timer
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, AsOf, Config, Output
from sweeper.console import OutputFormat
from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError, RefusedError
from sweeper.policy.instant import rfc3339
from sweeper.uri import KeptObject

if TYPE_CHECKING:
    from sweeper.policy.counts import Counts
    from sweeper.postgres.stop import StopRequest
    from sweeper.runs.approval import Approval
    from sweeper.runs.backfill import BackfillScope
    from sweeper.runs.job import Job
    from sweeper.runs.plan import PurgePlan
    from sweeper.runs.result import ActiveBackfill, Result
    from sweeper.runs.throttle import Budget

PREVIEW_REMEDIES = {
    "volume": "If that is right, approve the digest below (sweeper run --approve DIGEST) or a plan file (--out, --plan).",
    "future_as_of": "A preview may look ahead, a run may not.",
}
"""By guard, the remedy that a preview prints instead of that of the refusal, which tells the reader to preview."""
STOPS = {
    "signal": "it received a signal",
    "max_runtime": "--max-runtime is used up",
    "max_purge": "--max-purge is used up",
    "paused": "somebody has paused the sweeper. To continue: `sweeper resume`",
    "replica_lag": "a replica stayed too far behind for longer than [pace] longest_pause_seconds",
    "wal_rate": "the server wrote too much WAL for longer than [pace] longest_pause_seconds",
    "blocked_queries": "too many sessions waited for locks for longer than [pace] longest_pause_seconds",
    "autovacuum": "a VACUUM of a purged table took longer than [pace] longest_pause_seconds",
}
"""Message for each reason to stop."""
NOT_PURGED = {
    "failed": "could not be purged",
    "locked": "stayed locked by other sessions",
    "not_approved": "exceed what was approved",
    "protected_after_as_of": "were skipped because of a hold or flag recorded after as-of, even if released since",
    "stale_last_activity": "were skipped because a user message is newer than last_activity_at",
}
"""Message for each reason why a due record was not purged."""


MaxRuntime = Annotated[
    str | None, typer.Option("--max-runtime", metavar="TIME", help="Stop cleanly after this time, e.g. 90s, 15m, 2h.")
]
MaxPurge = Annotated[
    int | None,
    typer.Option("--max-purge", metavar="N", min=1, help="Stop cleanly after N conversations were purged."),
]
AcceptHistory = Annotated[
    bool,
    typer.Option(
        "--accept-history", help="Run although plan or consent history is missing or has fewer rows than before."
    ),
]
AcceptPolicy = Annotated[
    str | None,
    typer.Option(
        "--accept-policy",
        metavar="DIGEST",
        help="Run although the policy is not that of the last run; DIGEST is its own, or 12 characters of it.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", help="With --dry-run: write the plan to FILE as JSON, to review it and for --plan."
    ),
]


def run(
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    as_of: AsOf = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Preview: write nothing, and print the digest to approve.")
    ] = False,
    approve: Annotated[
        str | None,
        typer.Option(
            "--approve", metavar="DIGEST", help="Purge what this preview found, even beyond the volume limits."
        ),
    ] = None,
    out: Out = None,
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", help="As --approve, from the file that --out wrote.")
    ] = None,
    accept_history: AcceptHistory = False,
    accept_policy: AcceptPolicy = None,
    max_runtime: MaxRuntime = None,
    max_purge: MaxPurge = None,
) -> None:
    """Purge what is due, record evidence, and print the result.

    Example: sweeper run --dry-run
    """
    from sweeper.runs import policy_change

    approval = read_approval(approve, plan, out, dry_run=dry_run)
    accept = policy_change.read(accept_policy)
    if approval is not None and (as_of is not None or dry_run):
        raise ConfigurationError(
            f"{'--approve' if approve else '--plan'} contains its own as-of: nothing was done. Leave out --as-of and --dry-run."
        )
    at = approval.as_of if approval else context.instant("--as-of", as_of)
    budget = read_budget(max_runtime, max_purge)
    with context.prepared(config, at, is_patient=not dry_run) as job:
        if dry_run:
            show_plan(job, None, out, accept, output=output)
            return
        result = _sweep(job, approval, budget, accept, accept_history=accept_history)
    with console.afterwards():
        print_result(result, output=output)
    if not result.is_done:
        raise typer.Exit(1)


def read_approval(approve: str | None, plan: Path | None, out: Path | None, *, dry_run: bool) -> "Approval | None":
    """Return the approval that --approve or --plan gives; None if neither is given.

    Raises:
        ConfigurationError: neither can be used, both are given, or --out is given without --dry-run.
    """
    from sweeper.runs import approval as approvals
    from sweeper.runs import plan as plans

    if out is not None and not dry_run:
        raise ConfigurationError("--out writes what --dry-run finds: nothing was done. Add --dry-run, or leave it out.")
    if approve is not None and plan is not None:
        raise ConfigurationError("--approve and --plan each approve a dry run: nothing was done. Give one of them.")
    if plan is not None:
        return plans.read(plan)
    return approvals.read(approve) if approve is not None else None


def read_budget(max_runtime: str | None, max_purge: int | None, per_second: float = 0.0) -> "Budget":
    """Return the limits of a run.

    Raises:
        ConfigurationError: `max_runtime` is not a length of time.
    """
    from sweeper.cli import duration
    from sweeper.runs.throttle import Budget

    try:
        seconds = duration.parse(max_runtime) if max_runtime is not None else None
    except ValueError as error:
        raise ConfigurationError(f"--max-runtime: {error}. Nothing was done.") from None
    return Budget(seconds, max_purge, per_second)


def _sweep(
    job: "Job", approval: "Approval | None", budget: "Budget", accept_policy: str | None, *, accept_history: bool
) -> "Result":
    from sweeper.cli.progress import watched
    from sweeper.postgres import store_counts
    from sweeper.runs import approval as approvals
    from sweeper.runs import sweep as sweeps

    if approval is not None:
        with job.database.transaction() as connection:
            store = store_counts.identity(connection, job.settings.store.schema_name)
        approvals.check(approval, store, job.policy.digest, job.clock.now())
    with stop_on_signal(job.database.stop), watched() as watch:
        return sweeps.sweep(
            job,
            approval=approval,
            accept_history=accept_history,
            accept_policy=accept_policy,
            watch=watch,
            budget=budget,
        )


def show_plan(
    job: "Job", scope: "BackfillScope | None", out: Path | None, accept_policy: str | None, *, output: OutputFormat
) -> None:
    """Preview a run, or the backfill of `scope`; write the plan to `out`, if that is given, and print it.

    Raises:
        ConfigurationError: nothing can be written to `out`.
    """
    from sweeper.cli import progress
    from sweeper.runs import sweep as sweeps

    with progress.watched() as watch:
        plan = sweeps.preview(job, watch, scope, accept_policy)
    if out is not None:
        plan.write(out)
    if output.is_data:
        console.print_data(plan, output)
        return
    _print_plan(plan)
    if out is not None:
        command = f"sweeper {'backfill' if scope else 'run'} --plan {shlex.quote(str(out))}"
        console.note(f"The plan is in {out}. To execute it: {command}")
    console.say(f"digest: {plan.approval.token()}")


def _print_plan(plan: "PurgePlan") -> None:
    """Print what would be purged by rule (a backfill: also by slice), what is kept, and what a run would refuse."""
    job, scope, counts = plan.job, plan.scope, plan.counts
    console.say(
        f"Preview {f'of {scope} ' if scope else ''}at {rfc3339(job.as_of)}, policy {job.policy.name!r} "
        f"({job.policy.digest[:12]}). Nothing was written."
    )
    feedback = ". `sweeper run` purges feedback" if scope else f" and {counts.feedback_by_rule.total():,} feedback rows"
    console.say(f"Would purge {counts.due:,} conversations{feedback}.")
    if job.policy.redacting is not None:
        redacted = counts.redacted_by_rule.total()
        console.say("`sweeper run` redacts." if scope else f"Would redact {redacted:,} conversations that stay.")
    print_counts(counts, "would purge", counts.by_rule, counts.feedback_by_rule, counts.redacted_by_rule)
    if plan.by_slice:
        console.print_table(("due from", "to", "would purge"), (row.values() for row in to_json(plan)["slices"]))
    if scope and counts.outside:
        console.say(
            f"{counts.outside:,} more are due outside the plan. Until the backfill is finished or given up, runs skip what is "
            "due before --until."
        )
    if plan.policy_change is not None and not any(refusal.guard == "policy" for refusal in plan.refusals):
        console.say(f"! {plan.policy_change}")
    for refusal in plan.refusals:
        console.say(f"A run would refuse ({refusal.guard}): {_preview_refusal(refusal)}")


def _preview_refusal(refusal: RefusedError) -> str:
    """Return the text of a refusal with the remedy for a reader of a preview."""
    remedy = PREVIEW_REMEDIES.get(refusal.guard)
    return " ".join(filter(None, (refusal.found, refusal.limit, remedy))) if remedy else str(refusal)


def print_result(result: "Result", output: OutputFormat = OutputFormat.TABLE) -> None:
    """Print the result of a run."""
    found = to_json(result)
    if output.is_data:
        console.print_data(found, output)
        return
    console.say(
        f"Run {result.run_id} {result.outcome}: {found['purged']:,} conversations and {found['feedback_purged']:,} feedback rows "
        f"purged as of {found['as_of']} in {found['duration_s']} s."
    )
    if result.job.policy.redacting is not None:
        console.say(f"{found['redacted']:,} conversations that stay were redacted.")
    if found["spared"] or found["unclassified"]:
        console.say(
            f"{found['spared']:,} records were skipped and {found['unclassified']:,} are in doubt, in "
            f"{found['batches']['count']:,} batches of {found['batches']['seconds']} s in all."
        )
    if result.throttle.stopped:
        console.say(
            f"It stopped early: {STOPS.get(result.throttle.stopped, result.throttle.stopped)}. The next run does the rest."
        )
    if result.active_backfill is not None:
        _print_active_backfill(result.active_backfill)
    if result.is_stalled:
        console.warn(_stalled(result))
    _print_changed(result)
    console.say(*(f"! {line}" for line in result.advice))
    purged = result.purged
    print_counts(result.counts, "purged", purged["conversation"], purged["feedback"], purged["redaction"])
    if result.objects_pending:
        _print_objects(result)
    if result.counts.failed:
        console.say(
            f"{result.counts.failed:,} records could not be purged; the log on stderr names each with its reason."
        )


def _print_objects(result: "Result") -> None:
    """Print how many objects are pending, and why they were kept."""
    waiting = f"{result.objects_pending:,} objects of purged attachments are still to be removed"
    if KeptObject.NO_PREFIXES in result.objects_kept:
        console.say(
            f"{waiting}: [objects] prefixes is empty, so no object is removed. List where objects may be removed, for "
            'instance prefixes = ["s3://bucket/"].'
        )
        return
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(result.objects_kept.items()))
    details = f"; kept by this run: {reasons} (sweeper.object_purges.last_error says which)" if reasons else ""
    console.say(f"{waiting}{details}. The next run tries again.")


def _print_active_backfill(active_backfill: "ActiveBackfill") -> None:
    plan = active_backfill.plan
    deferred = f"what is due from {rfc3339(plan.done_until)} to {rfc3339(plan.until)} is left to backfill {plan.id}"
    if active_backfill.silent:
        console.warn(
            f"{deferred}, and NOBODY works on that: its last heartbeat was at {rfc3339(plan.seen_at)}. `{plan.command}` "
            "continues it, the same with --give-up leaves the rest to runs."
        )
    else:
        console.say(f"{deferred[0].upper()}{deferred[1:]}. Its last heartbeat was at {rfc3339(plan.seen_at)}.")


def _stalled(result: "Result") -> str:
    reason = "not all records that may be overdue were looked at"
    if result.overdue:
        why = ", ".join(f"{count:,} {NOT_PURGED[reason]} ({reason})" for reason, count in result.left.items())
        reason = f"{result.overdue:,} records were due: {why}"
    return (
        f"NOTHING was purged, and {reason}. Look at the log and at `sweeper status`, fix what they name, and run again."
    )


def _print_changed(result: "Result") -> None:
    changed = result.counts.skipped["changed"]
    if changed and result.purged_nothing and not result.is_stalled:
        console.say(
            f"Nothing was purged: {changed:,} conversations were due when they were proposed, and had changed before they were "
            "locked. They are no longer due."
        )


def print_counts(
    counts: "Counts",
    verb: str,
    conversations: Mapping[str, int],
    feedback: Mapping[str, int],
    redactions: Mapping[str, int],
) -> None:
    """Print the counts of a preview or a run, by rule and reason."""
    rows: list[tuple[object, ...]] = [(verb, rule, count) for rule, count in sorted(conversations.items())]
    redacts = {"would purge": "would redact", "purged": "redacted"}.get(verb, f"{verb} (redaction)")
    rows += [(redacts, rule, count) for rule, count in sorted(redactions.items())]
    rows += [(f"{verb} (feedback)", rule, count) for rule, count in sorted(feedback.items())]
    held = counts.held + counts.feedback.held_past_due
    if held:
        rows.append(("held", "due, but under legal hold", held))
    if counts.redactions.held_past_due:
        rows.append(("held", "due for redaction, but under legal hold", counts.redactions.held_past_due))
    rows += [("spared", reason, count) for reason, count in sorted(counts.skipped.items())]
    rows += [("unclassified", reason, count) for reason, count in sorted(counts.unclassified.items())]
    for reason, count in sorted(counts.anomalies.items()):
        rows.append(("anomaly", f"{reason} (among those looked at)", count))
    if rows:
        console.print_table(("", "", "count"), rows)


ABANDON_SECONDS = 4.0
"""Seconds after a signal at which a run stops waiting for an unreachable server; a batch ends well before."""


@contextmanager
def stop_on_signal(stop: "StopRequest") -> Iterator[None]:
    """Context manager: on SIGINT or SIGTERM, stop after the current batch; `ABANDON_SECONDS` later, stop retrying too."""

    def ask(_: int, __: FrameType | None) -> None:
        if not stop.is_asked:
            abandon = Timer(ABANDON_SECONDS, stop.abandon)
            abandon.daemon = True
            abandon.start()
        stop.ask()

    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
