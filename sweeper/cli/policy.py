"""`policy`: check a policy file, show its rules in plain words, and say what a changed one would do."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper import console
from sweeper.cli.context import AsJson, Config, Output
from sweeper.console import OutputFormat

if TYPE_CHECKING:
    from sweeper.policy.schema import Policy

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
