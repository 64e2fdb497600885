"""`migrate`, `check` and `demo`: set up, check and try the sweeper."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, Config, Output
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sweeper.postgres.finding import CheckFinding
    from sweeper.settings import Settings


def migrate(config: Config = None, output: Output = OutputFormat.TABLE, _json: AsJson = False) -> None:
    """Create or upgrade the sweeper's own tables (schema sweeper). Touches nothing else.

    Example: sweeper migrate
    """
    from sweeper.postgres import migrate as migrations

    with context.connected(config) as database:
        before, after = migrations.migrate(database)
    with console.afterwards():
        if output.is_data:
            console.print_data({"before": before, "after": after}, output)
        elif before == after:
            console.say(f"already at revision {after}")
        else:
            console.say(f"sweeper's tables: revision {before or 'none'} → {after}")


def check(
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    trial: Annotated[
        bool | None,
        typer.Option(
            "--trial/--no-trial",
            help="Try to purge even if a trigger seems to act outside of the database, or do not try.",
            show_default="try, unless a trigger seems to act outside of the database",
        ),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Also exit with 1 on a warning, for CI.")] = False,
) -> None:
    """Check the database, settings, policy and keys, and try to purge. Each fault has its remedy. Exits with 1 on a fault.

    Checked are connection, privileges, contract, indexes, clock and policy.

    The trial deletes a few conversations and one made up for it, reports what fails and where content survives, and rolls back.

    Example: sweeper check
    """
    from sweeper.postgres import check as checks
    from sweeper.postgres.finding import Level
    from sweeper.settings import load_policy

    with context.connected(config) as database:
        findings = checks.check(database, load_policy(database.settings), context.CLOCK, trial_requested=trial)
        findings += [
            _signing(database.settings),
            *_pseudonyms(),
            *_copies(database.settings),
            *_exposed(database.settings),
        ]
    if output.is_data:
        console.print_data(findings, output)
    else:
        for finding in findings:
            console.say(f"{finding.level.value.upper():<8} {finding.subject}: {finding.text}")
            if finding.remedy:
                console.say(f"         → {finding.remedy}")
    failing = {Level.FAULT, Level.WARNING} if strict else {Level.FAULT}
    if any(finding.level in failing for finding in findings):
        raise typer.Exit(1)


def _signing(settings: "Settings") -> "CheckFinding":
    """Check that the signing key can be used; a run refuses to begin with a broken one."""
    from sweeper.evidence import keys
    from sweeper.postgres.finding import CheckFinding, Level

    try:
        signer = keys.read(settings)
    except ConfigurationError as error:
        return CheckFinding(
            Level.FAULT, "signing key", str(error), "fix the key file, or name none: runs refuse to begin"
        )
    if signer is None:
        text = "there is none: checkpoints of the evidence are unsigned"
        return CheckFinding(Level.WARNING, "signing key", text, keys.REMEDY.removeprefix("Nothing was done. "))
    return CheckFinding(Level.OK, "signing key", "there is one: checkpoints are signed")


def _pseudonyms() -> "Iterator[CheckFinding]":
    """Check the pseudonym key, if one is given."""
    from sweeper.manifest import pseudonym
    from sweeper.postgres.finding import CheckFinding, Level

    if not pseudonym.is_given():
        return
    try:
        pseudonym.read()
    except ConfigurationError as error:
        remedy = "use another key, or none: no manifest can be built with this one"
        yield CheckFinding(Level.FAULT, "pseudonym key", str(error), remedy)
    else:
        yield CheckFinding(Level.OK, "pseudonym key", "there is one: manifests can be built")


def _copies(settings: "Settings") -> "Iterator[CheckFinding]":
    """Check that each copy can be told what was purged: start its command with nothing to delete, or connect to its URL."""
    from sweeper.copies import sender
    from sweeper.postgres.finding import CheckFinding, Level

    for copy in settings.copies:
        subject = f"copy {copy.name}"
        try:
            sender.sender(copy).probe()
        except ConfigurationError as error:
            yield CheckFinding(Level.FAULT, subject, str(error), "runs refuse to begin until then")
        except sender.NotDeliveredError as error:
            remedy = "a command must exit with 0 when it reads nothing, and a URL must be reachable from here"
            yield CheckFinding(Level.FAULT, subject, f"{error}: it would not be told what was purged", remedy)
        else:
            yield CheckFinding(Level.OK, subject, "its command starts" if copy.command else "its URL can be reached")


def _exposed(settings: "Settings") -> "Iterator[CheckFinding]":
    """Check that no other user may read or replace the key files."""
    import os

    from sweeper import files
    from sweeper.manifest import pseudonym
    from sweeper.postgres.finding import CheckFinding, Level

    named = os.environ.get(pseudonym.FILE)
    keys = [("signing key", settings.evidence.signing_key_file), ("pseudonym key", Path(named) if named else None)]
    keys += [(f"copy {copy.name}", file) for copy in settings.copies for file in (copy.secret_file, copy.headers_file)]
    for subject, file in keys:
        for text, remedy in files.exposures(file) if file else ():
            yield CheckFinding(Level.WARNING, subject, text, remedy)


def demo(
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    keep: Annotated[
        Path | None,
        typer.Option("--keep", metavar="DIR", help="Keep the data in this directory, to try commands on it."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the made-up plans and consent histories.")] = 1,
) -> None:
    """Demonstrate everything on 7,168 real conversations. They are in a PostgreSQL of its own; nothing of yours is touched.

    Example: sweeper demo --keep /tmp/sweeper-demo
    """
    from sweeper.demo import walkthrough
    from sweeper.demo.page import DemoPage

    if output.is_data:
        console.print_data(walkthrough.summary(config, context.CLOCK, seed, keep), output)
    else:
        walkthrough.show(DemoPage(_run_command), config, context.CLOCK, seed, keep)


def _run_command(arguments: "Sequence[str]") -> None:
    """Run a command as if typed, but ignore its exit code."""
    from sweeper.cli import app  # imports this module, so not at the top

    with contextlib.suppress(typer.Exit):
        app(list(arguments), standalone_mode=False)
