"""`manifest`: build, show, check, export, recall and retire the lists of messages that a training run may use.

Invariant: `manifest verify` exits with 1 if the manifest contains a message that may not be trained on. Of what people wrote,
`manifest export` prints the filtered text, and no command prints anything else.
"""

import json
import os
from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeper import console, files
from sweeper.cli import context
from sweeper.cli.context import AsJson, AsOf, Config, Output
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError, RefusedError
from sweeper.manifest import extra
from sweeper.policy.instant import rfc3339

if TYPE_CHECKING:
    from sweeper.manifest.description import Description
    from sweeper.manifest.export import TextExport
    from sweeper.manifest.lifecycle import RecallResult, Verification
    from sweeper.runs.job import Job


def _named(manifest: str) -> str:
    """Return the id of the manifest in a directory; anything but the directory of a manifest is an id already."""
    from sweeper.manifest import description as descriptions

    if not os.path.isfile(os.path.join(manifest, descriptions.NAME)):  # False for any text that is no file name
        return manifest
    return descriptions.read(Path(manifest)).id


ManifestId = Annotated[str, typer.Argument(metavar="ID|DIR", callback=_named, help="A manifest's id or directory.")]


class ExportFormat(StrEnum):
    """How `manifest export` writes conversations."""

    CHAT_JSONL = "chat-jsonl"


manifest_app = typer.Typer(help="Build, check, export, recall and end training manifests.", no_args_is_help=True)


@manifest_app.command("build")
def manifest_build(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A new or an empty directory.")],
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    as_of: AsOf = None,
    with_text: Annotated[
        bool, typer.Option("--with-text", help="Include the text, filtered as the policy says.")
    ] = False,
) -> None:
    """Build and freeze a manifest of what may be trained on.

    Example: sweeper manifest build /data/manifests/2026-12 --as-of 2026-12-01T00:00:00Z
    """
    from sweeper.cli import progress
    from sweeper.manifest import pseudonym

    with extra.required():
        from sweeper.manifest import lifecycle

    key = pseudonym.read()
    with context.prepared(config, context.instant("--as-of", as_of)) as job:
        _refuse_future(job)
        with progress.counted("messages") as told:
            frozen = lifecycle.freeze(job, directory, key, with_text=with_text, told=told)
    built = {
        **frozen.description.to_dict(),
        "directory": str(frozen.folder),
        "revoked": frozen.revoked,
        "replaced": frozen.replaced,
    }
    with console.afterwards():
        if output.is_data:
            console.print_data(built, output)
        else:
            _print_built(built)
    for id_ in frozen.displaced:
        console.warn(
            f"manifest {id_}, on which training was started, was in this directory before: no row can be recalled from it. "
            f"If there is a copy, name it: `sweeper manifest relocate {id_} DIR`. If no model from it is in use any more: "
            f"`sweeper manifest retire {id_}`."
        )
    if not frozen.description.eligible:
        console.warn("the manifest is EMPTY: not one message may be trained on. Look at `excluded` for the reasons.")


def _refuse_future(job: "Job") -> None:
    now = job.clock.now()
    if job.as_of > now:
        raise RefusedError(
            "future_as_of",
            f"--as-of {rfc3339(job.as_of)} is in the future: what users withdraw until then is not known yet.",
            f"Now is {rfc3339(now)}.",
            "Give an --as-of that is not in the future.",
            "No manifest was built.",
        )


def _print_built(built: dict[str, Any]) -> None:
    console.say(f"Manifest {built['id']} frozen at as-of {built['as_of']} in {built['directory']}")
    rows: list[tuple[object, ...]] = [("eligible", "", built["eligible"])]
    rows += [("excluded", reason, count) for reason, count in built["excluded"].items() if count]
    rows += [("revoked since", reason, count) for reason, count in sorted(built["revoked"].items())]
    if built["filter"]:
        rows += [("text replaced", kind, count) for kind, count in built["filter"]["found"].items()]
        rows.append(("text not written", "did not pass the filter", built["filter"]["not_passed"]))
    console.print_table(("", "", "messages"), rows)
    for id_ in built["replaced"]:
        console.say(f"Manifest {id_} was in this directory before and never started: it is retired.")


@manifest_app.command("start")
def manifest_start(
    manifest_id: ManifestId,
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Start a training run: check every row again. Writes what must be dropped to revoked-*.parquet.

    Example: sweeper manifest start /data/manifests/2026-12
    """
    with extra.required():
        from sweeper.manifest import lifecycle

    from sweeper.cli import progress

    with context.prepared(config) as job, progress.counted("messages") as told:
        description, revoked = lifecycle.start(job, manifest_id, told)
    with console.afterwards():
        if output.is_data:
            console.print_data({"id": manifest_id, "state": "started", "revoked": revoked}, output)
            return
        console.say(
            f"Manifest {manifest_id} started: {description.eligible - revoked.total():,} of {description.eligible:,} messages "
            "may be used. Anti-join them with revoked-*.parquet."
        )
        _print_reasons("revoked", revoked)


@manifest_app.command("complete")
def manifest_complete(
    manifest_id: ManifestId,
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Record that the training run has ended. `manifest recall` reports what leaves the manifest later.

    Example: sweeper manifest complete /data/manifests/2026-12
    """
    with extra.required():
        from sweeper.manifest import lifecycle

    with context.migrated(config) as database:
        lifecycle.complete(database, context.CLOCK, manifest_id)
    with console.afterwards():
        if output.is_data:
            console.print_data({"id": manifest_id, "state": "completed"}, output)
        else:
            console.say(f"Manifest {manifest_id} completed.")


@manifest_app.command("retire")
def manifest_retire(
    manifest_id: ManifestId,
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """End a manifest that is not used any more.

    Neither it nor a model from it may be in use: it is not started, completed or recalled again.

    Example: sweeper manifest retire ce9ce1fc9d59b6b2023f0042f8d51169
    """
    with extra.required():
        from sweeper.manifest import lifecycle

    with context.migrated(config) as database:
        retired = lifecycle.retire(database, manifest_id)
    with console.afterwards():
        if output.is_data:
            console.print_data(retired, output)
        else:
            console.say(
                f"Manifest {manifest_id} retired: `manifest recall` passes it over from now on. You may delete "
                f"{retired['directory']}; its evidence stays."
            )


@manifest_app.command("relocate")
def manifest_relocate(
    manifest_id: Annotated[str, typer.Argument(metavar="ID", help="A manifest whose directory was moved or restored.")],
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where it is now.")],
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Record where a manifest is now, after checking its files.

    All its files must be there unchanged, those of revoked rows included. Nothing is moved.

    Example: sweeper manifest relocate ce9ce1fc9d59b6b2023f0042f8d51169 /archive/manifests/2026-12
    """
    with extra.required():
        from sweeper.manifest import lifecycle

    with context.migrated(config) as database:
        relocated = lifecycle.relocate(database, manifest_id, directory)
    with console.afterwards():
        if output.is_data:
            console.print_data(relocated, output)
        else:
            console.say(f"Manifest {manifest_id} is in {relocated['directory']}, with all its files unchanged.")


@manifest_app.command("list")
def manifest_list(config: Config = None, output: Output = OutputFormat.TABLE, _json: AsJson = False) -> None:
    """List all manifests ever frozen, oldest first.

    Example: sweeper manifest list --json
    """
    with extra.required():
        from sweeper.manifest import lifecycle

    with context.migrated(config) as database:
        found = lifecycle.list_manifests(database)
    if output.is_data:
        console.print_data(found, output)
        return
    headers = ("id", "state", "as_of", "eligible", "revoked", "directory")
    for row in found:
        row["state"] += ", retired" if row["retired_at"] else ""
    console.print_table(headers, ([row[header] for header in headers] for row in found), now=context.CLOCK.now())


@manifest_app.command("show")
def manifest_show(
    manifest_id: ManifestId,
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Show what a manifest contains and where it is. Exits with 1 if its directory is gone.

    Example: sweeper manifest show /data/manifests/2026-12
    """
    from sweeper.manifest import description as descriptions

    with extra.required():
        from sweeper.manifest import lifecycle

    with context.migrated(config) as database:
        recorded = lifecycle.find(database, manifest_id)
    found, missing = None, None
    try:
        found = descriptions.read_of(Path(recorded["directory"]), manifest_id)
    except descriptions.DamagedError as error:
        missing = str(error)
    if output.is_data:
        console.print_data({**(found.to_dict() if found else {}), **recorded, "missing": missing}, output)
    else:
        _print_shown(recorded, found)
    if missing:
        console.warn(missing)
        raise typer.Exit(1)


def _print_shown(recorded: dict[str, Any], found: "Description | None") -> None:
    rows: list[tuple[object, ...]] = [(name, "", recorded[name]) for name in ("state", "as_of", "directory")]
    rows += [(name, "", at) for name, at in recorded.items() if name.endswith("_at") and at]
    rows += [("policy", found.policy.name if found else "", recorded["policy_digest"])]
    rows += [("eligible", "messages", recorded["eligible"]), ("revoked since", "messages", recorded["revoked"])]
    console.print_table(
        ("manifest", "", recorded["id"]), [*rows, *(_content_rows(found) if found else ())], now=context.CLOCK.now()
    )


def _content_rows(found: "Description") -> list[tuple[object, ...]]:
    """Return what the manifest's own description says."""
    rows: list[tuple[object, ...]] = [("excluded", reason, count) for reason, count in found.excluded.items() if count]
    if found.split:
        shares = found.split.shares
        rows += [("split", f"{name}, {shares[name]:g} %", count) for name, count in found.split.messages.items()]
    for what, tool in (("text filtered by", found.filter), ("languages by", found.language)):
        rows += [(what, tool.name, tool.version)] if tool else []
    return rows + [("file", file.name, f"{file.rows:,} rows, {file.bytes:,} bytes") for file in found.files]


@manifest_app.command("export")
def manifest_export(
    manifest_id: ManifestId,
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    format_: Annotated[
        ExportFormat, typer.Option("--format", help="One conversation a line, as chat trainers read it.")
    ] = ExportFormat.CHAT_JSONL,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write to this file; without it, to stdout.")
    ] = None,
) -> None:
    """Write the filtered text of what may still be trained on. One line is one conversation.

    Skips, counts and reports messages that have left the manifest or whose text did not pass the filter.

    Example: sweeper manifest export /data/manifests/2026-12 --format chat-jsonl --out chats.jsonl
    """
    if output.is_data and out is None:
        raise ConfigurationError(
            "--json prints the counts to stdout, where the conversations go as well: nothing was exported. Give --out FILE."
        )
    with extra.required():
        from sweeper.manifest import export as exports

    with context.prepared(config) as job, exports.open_export(job, manifest_id, format_.value) as export:
        _write_conversations(export, out)
    with console.afterwards():
        if output.is_data:
            console.print_data({**export.to_dict(), "out": str(out)}, output)
        else:
            _report_export(export, out)


def _write_conversations(export: "TextExport", out: Path | None) -> None:
    if out is None:
        for conversation in export.conversations():
            console.print_json(conversation)
        return
    from sweeper.cli import progress

    with files.atomic_write(out) as file, progress.counted("messages") as told:
        for conversation in export.conversations():
            file.write(json.dumps(conversation).encode() + b"\n")
            told(export.messages + export.skipped.total(), export.expected)


def _report_export(export: "TextExport", out: Path | None) -> None:
    """Say what was exported: on stdout, or on stderr if the conversations went to stdout."""
    skipped = ", ".join(f"{count} {reason}" for reason, count in sorted(export.skipped.items())) or "none"
    text = (
        f"{export.messages:,} messages in {export.written:,} conversations exported as of {rfc3339(export.as_of)}. "
        f"Messages skipped: {skipped}."
    )
    if out is None:
        console.warn(text)
    else:
        console.say(f"{text} Written to {out}")


@manifest_app.command("verify")
def manifest_verify(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A manifest's directory.")],
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Check a manifest's files and rows. Exits with 1 if a file was changed or a row may no longer be trained on.

    Example: sweeper manifest verify /data/manifests/2026-12
    """
    from sweeper.cli import progress
    from sweeper.manifest import pseudonym

    with extra.required():
        from sweeper.manifest import lifecycle

    key = pseudonym.read() if pseudonym.is_given() else None
    with context.prepared(config) as job, progress.counted("messages") as told:
        verified = lifecycle.verify(job, directory, key, told)
    if output.is_data:
        console.print_data(_verification_json(verified), output)
    else:
        _print_verification_json(verified)
    if verified.faults or verified.ineligible or verified.retired_at:
        raise typer.Exit(1)


def _verification_json(verified: "Verification") -> dict[str, Any]:
    return {
        "id": verified.description.id,
        "eligible": verified.description.eligible,
        "faults": verified.faults,
        "left": verified.ineligible,
        "revoked": verified.revoked,
        "retired_at": verified.retired_at,
    }


def _print_verification_json(verified: "Verification") -> None:
    for fault in verified.faults:
        console.say(f"FAULT: {fault}. Do not train on it; restore the directory from a copy.")
    if verified.faults:
        return
    checked = f"Manifest {verified.description.id}: files intact, {verified.description.eligible:,} rows."
    if verified.retired_at:
        console.say(f"It was retired on {rfc3339(verified.retired_at)}: do not train on it; build a new one.")
    if not verified.ineligible:
        console.say(f"{checked} All may still be trained on.")
        return
    others = ", the others in the files that `sweeper manifest recall --out DIR` writes"
    console.say(
        f"{checked} {verified.ineligible.total():,} may not be trained on any more; {verified.revoked:,} of those are named in "
        f"its revoked-*.parquet{others if verified.revoked < verified.ineligible.total() else ''}."
    )
    _print_reasons("left", verified.ineligible)


@manifest_app.command("recall")
def manifest_recall(
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write the rows to drop to this directory, one file per manifest."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Include what was recalled before.")] = False,
) -> None:
    """Find what must be dropped from every manifest. Counts since the last recall. Exits with 1 if one cannot be read.

    Without --out it only counts, and records nothing as recalled.

    Example: sweeper manifest recall --out /data/recalls
    """
    with extra.required():
        from sweeper.manifest import lifecycle

    from sweeper.cli import progress

    found: list[RecallResult] = []
    with context.prepared(config) as job:
        try:
            with progress.counted("messages") as told:
                found.extend(lifecycle.recall(job, out, everything=everything, told=told))
        finally:  # those that were recalled before a failure stay so
            for one in found if not output.is_data else ():
                _print_recalled(one, written=out is not None)
        retired = sum(row["retired_at"] is not None for row in lifecycle.list_manifests(job.database))
    with console.afterwards():
        if output.is_data:
            console.print_data(
                {"manifests": [_recall_json(one) for one in found], "recorded": out is not None, "retired": retired},
                output,
            )
        elif not found:
            console.say(f"No manifest of this store is in use; {retired} are retired.")
        elif out is None:
            console.note("Nothing was recorded as recalled: give --out DIR to write the rows.")
    if any(one.missing for one in found):
        raise typer.Exit(1)


def _recall_json(one: "RecallResult") -> dict[str, Any]:
    return {
        "id": one.manifest_id,
        "directory": one.directory,
        "state": one.state,
        "reasons": one.reasons,
        "files": one.files,
        "missing": one.missing,
    }


def _print_recalled(one: "RecallResult", *, written: bool) -> None:
    if one.missing:
        console.say(
            f"Manifest {one.manifest_id} ({one.state}) was NOT searched: {one.missing} Or, if it was moved, name its place: "
            f"`sweeper manifest relocate {one.manifest_id} DIR`. Then recall again: nothing is lost by waiting. If neither it "
            f"nor a model from it is used any more: `sweeper manifest retire {one.manifest_id}`. The others are recalled."
        )
        return
    console.say(
        f"Manifest {one.manifest_id} ({one.state}): {one.reasons.total():,} rows to drop since the last recall."
    )
    _print_reasons("drop" if written else "to drop", one.reasons)
    for file in one.files:
        console.say(f"  written to {file}")


def _print_reasons(verb: str, reasons: Counter[str]) -> None:
    if reasons:
        console.print_table(("", "", "messages"), ((verb, reason, count) for reason, count in sorted(reasons.items())))
