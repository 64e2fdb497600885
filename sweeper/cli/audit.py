"""`audit`: take checkpoints of the evidence, verify it, and write receipts and exports.

Invariant: no output calls unproven evidence good; it reports every signature that is missing or was not checked.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, Config, Output
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError

if TYPE_CHECKING:
    from sweeper.evidence.keys import Verifier
    from sweeper.evidence.ledger import Checkpoint
    from sweeper.evidence.verify import KeptCheckpoint, VerifyReport
    from sweeper.postgres.database import Database

audit_app = typer.Typer(help="Checkpoint, verify, prove and export the evidence.", no_args_is_help=True)
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write to this file instead of stdout.")]
UNSIGNED = (
    "it is UNSIGNED: the owner of the database could have written it. Make a key (`openssl genpkey -algorithm ed25519 -out "
    "signing.pem`), name it in SWEEPER_SIGNING_KEY_FILE and run `sweeper audit checkpoint`."
)


@audit_app.command("checkpoint")
def audit_checkpoint(
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Also write the checkpoint to this file. Keep it elsewhere."),
    ] = None,
) -> None:
    """Take a checkpoint of all evidence. Every run takes one at its end.

    Example: sweeper audit checkpoint --out checkpoint.txt
    """
    from sweeper.evidence import checkpoint, ledger
    from sweeper.evidence import keys as signing

    with context.migrated(config) as database:
        signer = signing.read(database.settings)
        taken = checkpoint.take(database, context.CLOCK, signer)
        with database.transaction() as connection:
            last = taken or ledger.last(connection)
    if out is not None and last is not None:
        _write(out, last.note)
    with console.afterwards():
        _print_checkpoint(last, is_new=taken is not None, output=output)


def _print_checkpoint(last: "Checkpoint | None", *, is_new: bool, output: OutputFormat) -> None:
    if output.is_data:
        fields = {"size": last.size, "root": last.root.hex(), "signed_by": last.signed_by} if last else {"size": 0}
        console.print_data({"new": is_new, **fields, "note": last.note if last else None}, output)
        return
    if last is None:
        console.say("There is no evidence yet, and so no checkpoint.")
        return
    console.say(f"Checkpoint of {last.size:,} leaves{'' if is_new else '; no evidence is newer'}:")
    console.say(*last.note.rstrip().split("\n"))
    if last.signed_by is None:
        console.warn(UNSIGNED)


@audit_app.command("verify")
def audit_verify(
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", metavar="FILE", help="A checkpoint kept elsewhere that the ledger must continue."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key", metavar="PUB", help="Public key of the log, or its file. Default: that of the signing key."
        ),
    ] = None,
) -> None:
    """Compute the tree again, and compare the tables with it. The tables are runs, holds, orders, pauses and manifests.

    Prints every mismatch. Writes nothing.

    Example: sweeper audit verify --checkpoint checkpoint.txt --key sweeper.pub
    """
    from sweeper.cli import progress
    from sweeper.evidence import keys as signing
    from sweeper.evidence import verify

    keys, kept = signing.verifiers(key or ()), [_kept(path) for path in checkpoint or ()]
    with context.migrated(config) as database, progress.counted("leaves") as told:
        report = verify.verify(database, kept, keys or _own_keys(database), told)
    if output.is_data:
        console.print_data(report, output)
    else:
        _print_report(report)
    if report.fault is not None:
        raise typer.Exit(1)


def _own_keys(database: "Database") -> "tuple[Verifier, ...]":
    from sweeper.evidence import keys as signing

    signer = signing.read(database.settings)
    return (signer.verifier,) if signer else ()


def _kept(path: Path) -> "KeptCheckpoint":
    from sweeper.evidence import note as notes
    from sweeper.evidence.verify import KeptCheckpoint

    try:
        return KeptCheckpoint(str(path), notes.parse(_read(path).decode()))
    except ValueError as error:
        raise ConfigurationError(
            f"--checkpoint {path}: is not a checkpoint ({error}). Nothing was verified. Give a file that "
            "`sweeper audit checkpoint` wrote."
        ) from None


def _print_report(report: "VerifyReport") -> None:
    states = ", ".join(f"{count:,} {state}" for state, count in sorted(report.checkpoints.items()) if count)
    console.say(f"{report.verified:,} of {report.leaves:,} leaves verified; checkpoints: {states or 'none'}.")
    if report.kept_checkpoints:
        console.say(f"The ledger continues {report.kept_checkpoints} kept elsewhere.")
    for fault in report.faults:
        console.say(f"FAULT, {fault.kind}: {fault.text}.")
    if report.faults_found > len(report.faults):
        console.say(f"{report.faults_found - len(report.faults)} more faults; these are the first.")
    _print_compared(report)
    if report.fault is not None:
        return
    console.say("Everything fits.")
    if report.leaves > report.under_a_checkpoint:
        console.say(f"{report.leaves - report.under_a_checkpoint:,} leaves are under no checkpoint yet.")
    if any(report.not_covered.values()):
        sources = ", ".join(f"{count:,} {source}" for source, count in report.not_covered.items())
        console.say(f"Not covered yet, until the next checkpoint: {sources}.")
    _print_trust(report)


def _print_compared(report: "VerifyReport") -> None:
    if not report.compared:
        console.say("Nothing else was compared: no table can be compared with a ledger that does not fit.")
        return
    tables = ", ".join(f"{count:,} {table.replace('_', ' ')}" for table, count in report.compared.items())
    console.say(f"Compared with the events: {tables}, and the database's identity.")


def _print_trust(report: "VerifyReport") -> None:
    """Warn about checkpoints whose signature is missing or was not checked."""
    if report.checkpoints["not checked"]:
        console.warn("signatures were NOT checked: give --key.")
    if report.checkpoints["unsigned"] and not report.checkpoints["verified"]:
        console.warn(f"{report.checkpoints['unsigned']} checkpoints; {UNSIGNED}")


@audit_app.command("prove")
def audit_prove(
    conversation: Annotated[str, typer.Argument(metavar="CONVERSATION", help="The id of a purged conversation.")],
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    out: Out = None,
) -> None:
    """Write a receipt of a purge. It is of the newest if a conversation was purged again after a restore.

    Example: sweeper audit prove 039b45ef-67a4-5d95-920d-32ebed8cf6e7 --out receipt.json
    """
    from sweeper.evidence import receipt as receipts

    with context.migrated(config) as database:
        written = receipts.prove(database, _as_stored(database, conversation))
    if out is None:
        console.say(*written.receipt.text().rstrip().split("\n"))
    else:
        _write(out, written.receipt.text())
        proven = {**receipts.proven(written.receipt), "tombstones": written.tombstones, "file": str(out)}
        with console.afterwards():
            _print_proven(proven, output=output)
            if not output.is_data:
                console.say(f"The receipt is in {out}.")
    if written.tombstones > 1:
        console.warn(
            f"it was purged {written.tombstones} times; the receipt is of the newest purge that a checkpoint covers."
        )


def _as_stored(database: "Database", conversation: str) -> str:
    """Return the id as the store writes it; unchanged if the store no longer has that relation."""
    from sweeper.postgres import contract

    with database.transaction() as connection:
        types, _ = contract.relations(connection, database.settings.store.schema_name)
    what = "prove: the conversation"
    type_ = types.get("conversations", {}).get("id")
    found = (
        context.known_id(database, type_, conversation, what) if type_ else context.text_argument(what, conversation)
    )
    return found or conversation


@audit_app.command("check-receipt")
def audit_check_receipt(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A receipt.")],
    key: Annotated[str, typer.Option("--key", metavar="PUB", help="Public key of the log, or its file.")],
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Check a receipt offline, and say what it proves. Needs no settings and no database.

    Example: sweeper audit check-receipt receipt.json --key sweeper.pub
    """
    from sweeper.evidence import keys as signing
    from sweeper.evidence import receipt as receipts

    verifier = signing.verifier(key)
    receipt = receipts.check(_read(file), verifier)
    _print_proven(receipts.proven(receipt), output=output)
    if not output.is_data:
        key_id = verifier.line(receipt.checkpoint.tree.origin).split("+")[1]
        console.say(
            f"Checked: the signature of key {key_id}, and that the leaf is in the signed tree. This row of evidence has not been "
            "changed since. It does not prove that no other copy of the conversation exists."
        )


def _print_proven(proven: dict[str, Any], *, output: OutputFormat) -> None:
    if output.is_data:
        console.print_data(proven, output)
        return
    console.say(
        f"The {proven['record']} {proven['record_id']} was purged at {proven['purged_at']} by run {proven['run']}: "
        f"rule {proven['rule']}, due {proven['due_at']}, as-of {proven['as_of']}, policy {proven['policy'][:12]}."
    )
    console.say(
        f"This is leaf {proven['leaf']} of the log {proven['log']}, signed when it had {proven['size']:,} leaves."
    )


@audit_app.command("export")
def audit_export(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Where to write the ledger. Replaced once it is complete.")
    ],
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Write all evidence under the newest checkpoint to a file. It has JSON lines, and needs no database to verify.

    Example: sweeper audit export ledger.jsonl
    """
    from sweeper.cli import progress
    from sweeper.evidence import export

    with context.migrated(config) as database, progress.counted("leaves") as told:
        note = export.write(database, file, told)
    with console.afterwards():
        if output.is_data:
            console.print_data({"file": str(file), "size": note.tree.size, "log": note.tree.origin}, output)
        else:
            console.say(f"{note.tree.size:,} leaves of the log {note.tree.origin} are in {file}.")
        if not note.signatures:
            console.warn(f"its checkpoint is the newest, and {UNSIGNED}")


@audit_app.command("check-export")
def audit_check_export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file written by `sweeper audit export`.")],
    key: Annotated[str, typer.Option("--key", metavar="PUB", help="Public key of the log, or its file.")],
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Check an exported ledger offline, and say what is in it. Needs no settings and no database.

    Example: sweeper audit check-export ledger.jsonl --key sweeper.pub
    """
    from collections import Counter

    from sweeper.cli import progress
    from sweeper.evidence import export
    from sweeper.evidence import keys as signing

    with progress.counted("leaves") as told:
        ledger = export.read(file, signing.verifier(key), told)
    leaves: Counter[str] = Counter()
    runs: set[export.OpenedRun] = set()
    for leaf in ledger.leaves():
        leaves[leaf["source"]] += 1
        if (opened := export.opened_run(leaf)) is not None:
            runs.add(opened)
    summary: dict[str, Any] = {"log": ledger.tree.origin, "size": ledger.tree.size, "root": ledger.tree.root.hex()}
    summary |= {source: leaves[source] for source in ("tombstones", "events")}
    summary["databases"] = sorted({run.identity for run in runs if run.identity is not None})
    summary["stores"] = sorted({run.store for run in runs if run.store is not None})
    if output.is_data:
        console.print_data(summary, output)
        return
    console.say(
        f"Everything fits: {summary['size']:,} leaves of the log {summary['log']} under a signed checkpoint, "
        f"{summary['tombstones']:,} tombstones and {summary['events']:,} events."
    )
    databases = ", ".join(summary["databases"]) or "a database that they do not name (they are of an earlier version)"
    if runs:
        console.say(
            f"Its runs were in {databases}, in the stores {', '.join(summary['stores']) or 'that they do not name'}."
        )


@audit_app.command("key")
def audit_key(config: Config = None, output: Output = OutputFormat.TABLE, _json: AsJson = False) -> None:
    """Print the public key that verifies checkpoints. It is a C2SP verifier key.

    The signing key is Ed25519 in PEM, as `openssl genpkey -algorithm ed25519 -out signing.pem` makes it; its file is named in
    SWEEPER_SIGNING_KEY_FILE or [evidence] signing_key_file.

    Example: sweeper audit key
    """
    from sweeper.evidence import checkpoint
    from sweeper.evidence import keys as signing

    with context.migrated(config) as database:
        signer = signing.read(database.settings)
        if signer is None:
            raise ConfigurationError(f"there is no signing key. {signing.REMEDY}")
        with database.transaction() as connection:
            origin = checkpoint.origin(connection, database.settings)
    line = signer.verifier.line(origin)
    if output.is_data:
        console.print_data({"key": line, "name": origin, "id": signer.key_id(origin)}, output)
    else:
        console.say(line)


def _read(path: Path) -> bytes:
    from sweeper import files

    try:
        return files.read_bytes(path)
    except files.UnreadableError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error}). Nothing was checked. Name the file.") from None


def _write(path: Path, text: str) -> None:
    from sweeper.files import atomic_write

    with atomic_write(path) as file:
        file.write(text.encode())
