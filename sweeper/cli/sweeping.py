"""`run`: one sweep, or its preview."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper.cli import door, output
from sweeper.cli.door import AsJson, AsOf, Config
from sweeper.core.instant import rfc3339
from sweeper.errors import ConfigurationError, RefusedError

if TYPE_CHECKING:
    from sweeper.approval import Approval
    from sweeper.job import Job
    from sweeper.sweep import Preview, Result
    from sweeper.tally import Tally

WAYS_OUT = {
    "volume": "If that is right, approve the digest below: sweeper run --approve DIGEST",
    "future_as_of": "A preview may look ahead, a run may not.",
}
"""Where a preview knows a nearer way out than the refusal itself, which sends to a preview."""


def run(
    config: Config = None,
    as_json: AsJson = False,
    as_of: AsOf = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Preview: write nothing, print the digest to approve.")
    ] = False,
    approve: Annotated[
        str | None,
        typer.Option("--approve", metavar="DIGEST", help="Run what a dry run found, even beyond the volume limits."),
    ] = None,
    accept_history: Annotated[
        bool, typer.Option("--accept-history", help="Go on although plan or consent history is missing or became less.")
    ] = False,
) -> None:
    """One sweep: purge what is due, record it, report it.

    Example: sweeper run --dry-run
    """
    from sweeper import approval as approvals

    if approve is not None and (as_of is not None or dry_run):
        raise ConfigurationError("--approve brings its own as-of: nothing was done. Leave out --as-of and --dry-run.")
    approval = approvals.read(approve) if approve is not None else None
    at = approval.as_of if approval else door.instant("--as-of", as_of)
    with door.prepared(config, at) as job:
        if dry_run:
            print_preview(_previewed(job), as_json=as_json)
            return
        try:
            result = _swept(job, approval, accept_history=accept_history)
        except RefusedError as refusal:
            if as_json:
                output.print_json({"outcome": "refused", "guard": refusal.guard, "text": str(refusal)})
            raise
    with output.afterwards():
        print_result(result, as_json=as_json)
    if result.outcome != "completed":
        raise typer.Exit(1)


def _swept(job: "Job", approval: "Approval | None", *, accept_history: bool) -> "Result":
    from sweeper import approval as approvals
    from sweeper import sweep as sweeps
    from sweeper.progress import watched
    from sweeper.store import census

    if approval is not None:
        with job.database.transaction() as connection:
            store = census.identity(connection, job.settings.store.schema_name)
        approvals.check(approval, store, job.policy.digest, job.clock.now())
    with _stop_on_signal() as stopping, watched(stopping) as watch:
        return sweeps.sweep(job, approval=approval, accept_history=accept_history, watch=watch)


def _previewed(job: "Job") -> "Preview":
    """The preview; what it will look at is counted first where somebody watches."""
    from sweeper import progress
    from sweeper import sweep as sweeps

    with progress.watched(lambda: False) as watch:
        if progress.is_watched():
            watch.expect(sum(len(page.free) + len(page.held) for page in job.selector.pages()))
        return sweeps.preview(job, watch)


def print_preview(preview: "Preview", *, as_json: bool) -> None:
    """What a run would do, and what it would refuse."""
    if as_json:
        output.print_json(preview.as_json())
        return
    job, tally = preview.job, preview.tally
    output.say(
        f"Preview at {rfc3339(job.as_of)}, policy {job.policy.name!r} ({job.policy.digest[:12]}). Nothing was written."
    )
    output.say(f"Would purge {tally.due} conversations and {tally.feedback_by_rule.total()} feedback rows.")
    _print_tally(tally, "would purge", tally.by_rule, tally.feedback_by_rule)
    for refusal in preview.refusals:
        output.say(f"A run would refuse ({refusal.guard}): {_seen_from_a_preview(refusal)}")
    output.say(f"digest: {preview.approval.token()}")


def _seen_from_a_preview(refusal: RefusedError) -> str:
    """The refusal, with the way out that a reader of a preview has."""
    found, _, _ = str(refusal).partition(" Nothing was purged.")
    return f"{found} {WAYS_OUT[refusal.guard]}" if refusal.guard in WAYS_OUT else str(refusal)


def print_result(result: "Result", *, as_json: bool) -> None:
    """What a run did."""
    found = result.as_json()
    if as_json:
        output.print_json(found)
        return
    output.say(
        f"Run {result.run_id} {result.outcome}: {found['purged']} conversations and {found['feedback_purged']} feedback rows "
        f"purged as of {found['as_of']} in {found['duration_s']} s."
    )
    _print_tally(result.tally, "purged", result.purged["conversation"], result.purged["feedback"])
    if result.objects_pending:
        output.say(
            f"{result.objects_pending} objects of purged attachments could not be removed yet; the next run tries again."
        )
    if result.tally.failed:
        output.say(f"{result.tally.failed} records could not be purged; the log on stderr names each with its reason.")


def _print_tally(tally: "Tally", verb: str, conversations: Mapping[str, int], feedback: Mapping[str, int]) -> None:
    rows: list[tuple[object, ...]] = [(verb, rule, count) for rule, count in sorted(conversations.items())]
    rows += [(f"{verb} (feedback)", rule, count) for rule, count in sorted(feedback.items())]
    if tally.held + tally.feedback_held:
        rows.append(("held", "due, but under legal hold", tally.held + tally.feedback_held))
    rows += [("spared", reason, count) for reason, count in sorted(tally.spared.items())]
    rows += [("unclassified", reason, count) for reason, count in sorted(tally.unclassified.items())]
    for reason, count in sorted(tally.anomalies.items()):
        rows.append(("anomaly", f"{reason} (among those looked at)", count))
    if rows:
        output.print_table(("", "", "count"), rows)


@contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Ask the sweep to stop after the batch at work when SIGINT or SIGTERM comes."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
