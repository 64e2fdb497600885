"""`policy`: check a policy file, show its rules in plain words, and say what a changed one would do."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, AsOf, Config, Output
from sweeper.console import OutputFormat

if TYPE_CHECKING:
    from sweeper.policy.schema import Policy
    from sweeper.report.policy_diff import PolicyDiff, RecordsDiff

Table = tuple[str, Sequence[str], Sequence[tuple[str, ...]]]
"""A title, headers and rows."""

policy_app = typer.Typer(help="Check and show policies, and say what a change would do.", no_args_is_help=True)


@policy_app.command("check")
def check(
    file: Annotated[Path, typer.Argument(help="The policy file.")],
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Check a policy file: every fault at once, with its key. Needs no database. Exits with 2 on a fault.

    Example: sweeper policy check config/policy.toml
    """
    from sweeper.settings import read_policy

    policy = read_policy(file)
    if output.is_data:
        console.print_data({"name": policy.name, "digest": policy.digest, "rules": len(policy.every_rule)}, output)
    else:
        console.say(f"policy {policy.name!r}: no faults, {len(policy.every_rule)} rules. Digest: {policy.digest}")


@policy_app.command("show")
def show(
    file: Annotated[Path | None, typer.Argument(help="The policy file.", show_default="that of the settings")] = None,
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
) -> None:
    """Show the rules of a policy as tables in plain words. Needs no database.

    Example: sweeper policy show
    """
    from sweeper.policy import words
    from sweeper.settings import load, load_policy, read_policy

    policy = read_policy(file) if file is not None else load_policy(load(config))
    if output.is_data:
        console.print_data(words.as_json(policy), output)
    else:
        _print(policy)


@policy_app.command("diff")
def diff(
    new: Annotated[
        Path | None, typer.Argument(help="The new policy file.", show_default="that of the settings")
    ] = None,
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    against: Annotated[
        Path | None,
        typer.Option(
            "--against", metavar="OLD", help="Compare with this file. Default: the settings' policy, or the last run's."
        ),
    ] = None,
    as_of: AsOf = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Also write a page of HTML.")] = None,
) -> None:
    """Say what a new policy would change on this store before it acts.

    Every record is decided under both policies, in one snapshot. Nothing is changed. A policy that is
    already in the settings is compared with that of the last run.

    Example: sweeper policy diff new.toml --html changes.html
    """
    from sweeper.cli import progress
    from sweeper.files import atomic_write
    from sweeper.report import policy_diff
    from sweeper.runs import job as jobs
    from sweeper.settings import load, load_policy, read_policy

    at = context.instant("--as-of", as_of)
    settings = load(config)
    policy = read_policy(new) if new is not None else load_policy(settings)
    old = read_policy(against) if against is not None else load_policy(settings)
    with ExitStack() as stack:
        file = stack.enter_context(atomic_write(html)) if html is not None else None
        database = stack.enter_context(context.migrated(config))
        if against is None and old.digest == policy.digest:
            old = policy_diff.last_policy(database, policy)
        jobs.read_contract(database, old)
        job = jobs.on(database, policy, context.CLOCK, at)
        found = policy_diff.compare(job, old, stack.enter_context(progress.steps()))
        if file is not None:
            from sweeper.report import policy_page

            file.write(policy_page.page_of(found).encode())
    with console.afterwards():
        if output.is_data:
            console.print_data(found, output)
        else:
            _print_diff(found)


def _print_diff(found: "PolicyDiff") -> None:
    from sweeper.policy.instant import rfc3339

    console.say(
        f"At {rfc3339(found.job.as_of)}, from policy {found.old.name!r} ({found.old.digest[:12]}) to {found.new.name!r} "
        f"({found.new.digest[:12]}). Nothing was changed."
    )
    if not found.differences:
        console.say("Both are the same policy: nothing would change.")
    else:
        console.say("", "What differs (! may shorten retention or admit to training)")
        console.say(*(f"  {'!' if each.shortens else ' '} {each}" for each in found.differences))
    _print_moves("conversations", found.conversations)
    if found.redactions is not None:
        _print_moves("conversations' contents", found.redactions)
    if found.feedback.moves:
        _print_moves("feedback rows", found.feedback)
    if found.accounts:
        console.say("", "Accounts with the most conversations whose due date changes")
        console.print_table(
            ("account", "conversations", "shorter", "longer", "due at once"),
            [tuple(vars(each).values()) for each in found.accounts],
        )
    _print_examples(found)
    if found.training is not None:
        change = found.training
        console.say(
            "",
            f"Training: {change.enter:,} messages in {change.enter_conversations:,} conversations become eligible, "
            f"{change.leave:,} in {change.leave_conversations:,} cease to be, {change.both:,} stay.",
        )
    for index in found.missing_indexes:
        console.warn(f"{index.table}: {index.effect}. Create it: {index.create};")


def _print_moves(what: str, found: "RecordsDiff") -> None:
    total = found.total
    console.say(
        "",
        f"Of {total.records:,} {what}, {total.shorter:,} would live shorter and {total.longer:,} longer. {total.due_at_once:,} "
        f"of the former would be due at once, {total.due_in_7_days:,} within 7 days, {total.due_in_30_days:,} within 30 days; "
        f"{total.not_due_any_more:,} are due now and would not be.",
    )
    if total.shorter_held:
        console.say(
            f"{total.shorter_held:,} of those that would live shorter are under a legal hold, and stay while it is in force."
        )
    names = ("records", "shorter", "longer", "due_at_once", "due_in_7_days", "due_in_30_days", "not_due_any_more")
    headers = (what, "would live shorter", "longer", "due at once", "in 7 days", "in 30 days", "not due any more")
    rows = [(move.old_rule, move.new_rule, *(f"{getattr(move, name):,}" for name in names)) for move in found.moves]
    if rows:
        console.print_table(("old rule", "new rule", *headers), rows)


def _print_examples(found: "PolicyDiff") -> None:
    for what, records in (
        ("conversations", found.conversations),
        ("conversations' contents", found.redactions),
        ("feedback rows", found.feedback),
    ):
        if records is not None and records.examples:
            console.say("", f"Examples of {what}")
            rows = [
                (each.id, which, one.rule, one.due_at or "never", one.because)
                for each in records.examples
                for which, one in (("old", each.old), ("new", each.new))
            ]
            console.print_table(("id", "policy", "rule", "due", "because"), rows)


def _print(policy: "Policy") -> None:
    from sweeper.policy import words
    from sweeper.policy.instant import rfc3339

    console.say(f"Policy {policy.name!r}, digest {policy.digest}")
    for title, headers, rows in _tables(policy):
        console.say("", title)
        console.print_table(headers, rows)
    console.say("", "Training", *(f"  {line}" for line in words.training(policy.training)))
    since, before = policy.plausible.since, policy.plausible.before
    console.say("", f"A timestamp is believed from {rfc3339(since)} to before {rfc3339(before)}.")
    if policy.feedback_without_transcript:
        console.say(f"Feedback that must not carry a transcript: {words.listed(policy.feedback_without_transcript)}.")


def _tables(policy: "Policy") -> Iterator[Table]:
    """Yield each part of the policy that has rows, with its title and headers."""
    from sweeper.policy import words

    parts: tuple[Table, ...] = (
        (
            "Rules: of those that apply to a conversation, the earliest due date wins",
            ("rule", "applies when", "due", "because"),
            [(each.name, words.applies(each, policy), words.due(each), each.because) for each in policy.every_rule],
        ),
        (
            "Floors: they lengthen what the rules say",
            ("floor", "due", "because"),
            [(each.name, words.floor(each), each.because) for each in policy.floors],
        ),
        (
            "Feedback: it has its own clock",
            ("rule", "applies to", "due", "because"),
            [(each.name, words.feedback(each), words.feedback_due(each), each.because) for each in policy.feedback],
        ),
        (
            "Classes of plans",
            ("class", "plans"),
            [(name, words.listed(members, "and")) for name, members in policy.plans.items()],
        ),
        (
            "Purposes that people can consent to",
            ("purpose", "granted"),
            [(name, words.purpose(found, policy)) for name, found in policy.purposes.items()],
        ),
    )
    yield from (part for part in parts if part[2])
