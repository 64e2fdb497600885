"""`reapply`: after a restore from backup, purge again the conversations that the backup brought back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, Config, Output
from sweeper.cli.run import STOPS, print_counts, stop_on_signal
from sweeper.console import OutputFormat
from sweeper.encoding import to_json
from sweeper.errors import RefusedError

if TYPE_CHECKING:
    from sweeper.evidence.export import Ledger
    from sweeper.runs.job import Job
    from sweeper.runs.reapply import Reapplied


def reapply(
    ledger: Annotated[Path, typer.Option("--ledger", metavar="FILE", help="A file written by `sweeper audit export`.")],
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="PUB", help="Public key of the log, or its file. Default: that of the signing key."
        ),
    ] = None,
    accept_unsigned: Annotated[
        bool, typer.Option("--accept-unsigned", help="Accept a ledger without a valid signature.")
    ] = False,
    accept_ledger: Annotated[
        str | None,
        typer.Option(
            "--accept-ledger",
            metavar="DIGEST",
            help="Accept a ledger that is not shown to belong to this database. The refusal prints the digest.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Preview: write nothing.")] = False,
) -> None:
    """After a restore, purge again what the backup brought back. That is what the ledger records as purged.

    Example: sweeper reapply --ledger ledger.jsonl --key sweeper.pub --dry-run
    """
    from sweeper.runs import reapply as reapplying

    with context.prepared(config, is_patient=not dry_run) as job:
        read = _read(job, ledger, key, accept_unsigned=accept_unsigned)
        found = reapplying.preview(job, read, accept_ledger) if dry_run else _reapplied(job, read, accept_ledger)
    with console.afterwards():
        _print(found, output=output)
    if not found.is_done:
        raise typer.Exit(1)


def _reapplied(job: "Job", read: "Ledger", accept_ledger: str | None) -> "Reapplied":
    from sweeper.cli.progress import watched
    from sweeper.runs import reapply as reapplying

    with stop_on_signal(job.database.stop), watched() as watch:
        return reapplying.reapply(job, read, watch, accept_ledger)


def _read(job: "Job", path: Path, key: str | None, *, accept_unsigned: bool) -> "Ledger":
    """Read and check the whole ledger."""
    from sweeper.cli import progress
    from sweeper.evidence import export, keys

    signer = keys.read(job.settings) if key is None else None
    verifier = keys.verifier(key) if key is not None else signer.verifier if signer else None
    if verifier is None and not accept_unsigned:
        raise RefusedError(
            "ledger",
            f"{path} cannot be verified: there is no key to check its signature with.",
            "",
            "Give --key, or, if the ledger was never signed and you trust the file, --accept-unsigned.",
        )
    with progress.counted("leaves") as told:
        return export.read(path, None if accept_unsigned else verifier, told)


def _print(found: "Reapplied", *, output: OutputFormat) -> None:
    counted = to_json(found)
    if output.is_data:
        console.print_data(counted, output)
        return
    what = "Preview" if found.outcome == "preview" else f"Run {found.run_id} {found.outcome}"
    count, verb = (
        (counted["would_purge"], "would be purged") if "would_purge" in counted else (counted["purged"], "were purged")
    )
    console.say(
        f"{what}: of {counted['in_ledger']:,} purged records in the ledger {counted['back']:,} are back; {count:,} conversations "
        f"and {counted.get('feedback_would_purge', counted.get('feedback_purged')):,} feedback rows {verb} again."
    )
    if redacted := counted.get("would_redact", counted.get("redacted")):
        console.say(f"{redacted} conversations {verb.replace('purged', 'redacted')} again.")
    if counted["newest_purge"]:
        console.say(
            f"The newest purge in the ledger is of {counted['newest_purge']}; what was purged after it is not in the ledger."
        )
    counts = found.counts
    print_counts(counts, "again", counts.by_rule, counts.feedback_by_rule, counts.redacted_by_rule)
    if found.stop_reason:
        console.say(f"It stopped early: {STOPS.get(found.stop_reason, found.stop_reason)}. Reapply again for the rest.")
    if found.outcome == "preview" and found.lost.holds:
        console.say("A run would refuse (holds): place these legal holds again first.")
    if found.outcome == "preview" and found.lost.withdrawals:
        console.say("A run would refuse (withdrawals): withdraw these erasure orders again first.")
    if found.outcome == "preview" and found.lost.choices:
        console.say("A run would refuse (choices): record these plan changes and consent events again first.")
    for what, lost in (
        ("legal holds", found.lost.holds),
        ("erasure orders", found.lost.orders),
        ("withdrawals of erasure orders", found.lost.withdrawals),
        ("plan changes and consent events", found.lost.choices),
    ):
        if lost:
            console.warn(f"{len(lost)} {what} of the ledger are not in this database: {'; '.join(lost)}.")
