"""`plan` and `consent`: record plans and consent of accounts in the sweeper's own tables, for stores that keep none.

Invariant: what was recorded is never changed; who made a mistake records what is right.
"""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, Config, Output
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError
from sweeper.policy.instant import OutOfRange

if TYPE_CHECKING:
    from sweeper.postgres.choices import Choice, ChoiceKind
    from sweeper.settings import Settings

plan_app = typer.Typer(help="Record the plans of accounts, if the application keeps none.", no_args_is_help=True)
consent_app = typer.Typer(help="Record consent, if the application keeps none.", no_args_is_help=True)

AccountId = Annotated[str, typer.Argument(help="Id of the account, as the store writes it.")]
ALWAYS = OutOfRange.ALWAYS.value


@plan_app.command("record")
def plan_record(
    account: AccountId,
    plan: Annotated[str, typer.Argument(help="A plan of the policy, e.g. free.")],
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    effective: Annotated[
        str | None,
        typer.Option("--effective", metavar="INSTANT", help="Since when; -infinity: always. Default: now."),
    ] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Accept an account or a plan that is not known (yet).")
    ] = False,
) -> None:
    """Record that an account has a plan, until another one is recorded.

    Example: sweeper plan record 06164d11-6113-5000-b6a7-99f977e937e4 pro
    """
    from sweeper.postgres.choices import Choice

    since = OutOfRange.ALWAYS if effective == ALWAYS else context.instant("--effective", effective)
    _record(Choice(account, plan, None, since), config, output=output, unknown=unknown)


@consent_app.command("record")
def consent_record(
    account: AccountId,
    purpose: Annotated[str, typer.Option("--purpose", help="A purpose of the policy.")],
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    granted: Annotated[bool, typer.Option("--granted", help="It is granted, from now on at the earliest.")] = False,
    withdrawn: Annotated[bool, typer.Option("--withdrawn", help="It is withdrawn.")] = False,
    effective: Annotated[
        str | None, typer.Option("--effective", metavar="INSTANT", help="Since when. Default: now.")
    ] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Accept an account or a purpose that is not known (yet).")
    ] = False,
) -> None:
    """Record that an account grants a purpose or withdraws it.

    Example: sweeper consent record 06164d11-6113-5000-b6a7-99f977e937e4 --purpose model_improvement --withdrawn
    """
    from sweeper.postgres.choices import Choice

    if granted == withdrawn:
        raise ConfigurationError("consent record: give either --granted or --withdrawn. Nothing was recorded.")
    choice = Choice(account, purpose, granted, context.instant("--effective", effective))
    _record(choice, config, output=output, unknown=unknown)


@plan_app.command("list")
def plan_list(
    account: AccountId, config: Config = None, output: Output = OutputFormat.TABLE, _json: AsJson = False
) -> None:
    """List the recorded plans of an account, newest first.

    Example: sweeper plan list 06164d11-6113-5000-b6a7-99f977e937e4
    """
    _list("plan", account, config, output=output)


@consent_app.command("list")
def consent_list(
    account: AccountId, config: Config = None, output: Output = OutputFormat.TABLE, _json: AsJson = False
) -> None:
    """List what an account granted and withdrew, newest first.

    Example: sweeper consent list 06164d11-6113-5000-b6a7-99f977e937e4
    """
    _list("consent", account, config, output=output)


def _record(choice: "Choice", config: Path | None, *, output: OutputFormat, unknown: bool) -> None:
    from sweeper.postgres import choices

    context.text_argument("ACCOUNT", choice.account_id)
    context.text_argument("PLAN" if choice.kind == "plan" else "--purpose", choice.name)
    with context.migrated(config) as database:
        _refuse_implausible(database.settings, choice)
        account_id, is_known = choices.account(database, choice.account_id)
        if not unknown:
            _refuse_unknown_name(database.settings, choice)
        if not unknown and not is_known:
            raise ConfigurationError(
                f"the store knows no account {account_id}. Nothing was recorded. Fix the id, or give --unknown if the store will "
                "know it later."
            )
        row = choices.record(database, replace(choice, account_id=account_id))
        row["in_store"] = choices.is_shown(database, choice.kind, row["id"])
    with console.afterwards():
        if output.is_data:
            console.print_data(row, output)
        else:
            console.print_rows([row], now=context.CLOCK.now())
        _warn_unshown(database.settings, choice.kind, is_shown=row["in_store"])


def _refuse_implausible(settings: "Settings", choice: "Choice") -> None:
    if isinstance(choice.effective_at, datetime):
        effect = "all conversations of the account would be in doubt. Nothing was recorded. Give another instant."
        context.refuse_implausible(settings, "--effective", choice.effective_at, effect)


def _refuse_unknown_name(settings: "Settings", choice: "Choice") -> None:
    """Refuse a plan or a purpose that the policy does not have: a mistyped one would do nothing, or cause doubt."""
    from sweeper.settings import load_policy
    from sweeper.toml import did_you_mean

    policy = load_policy(settings)
    what, names = ("plan", policy.known_plans) if choice.kind == "plan" else ("purpose", policy.purposes.keys())
    if choice.name not in names:
        meant = did_you_mean(choice.name, sorted(names)) or "."
        raise ConfigurationError(
            f"the policy has no {what} {choice.name}{meant} Nothing was recorded. Fix the name, add it to the policy, or give "
            "--unknown."
        )


def _warn_unshown(settings: "Settings", kind: "ChoiceKind", *, is_shown: bool | None) -> None:
    """Warn if the store does not show what was recorded: then no decision knows it."""
    from sweeper.postgres.choices import RELATIONS

    relation = RELATIONS[kind]
    name = f"{settings.store.schema_name}.{relation}"
    if is_shown is None:
        console.warn(
            f"it is recorded. Whether it has an effect could not be seen: this role could not read {name} (see roles.sql)."
        )
    elif not is_shown:
        console.warn(
            f"it is recorded, and it has NO EFFECT: {name} does not show it. Make {name} a view of "
            f"sweeper.{relation}, as docs/tables.md says."
        )


def _list(kind: "ChoiceKind", account: str, config: Path | None, *, output: OutputFormat) -> None:
    from sweeper.postgres import choices

    context.text_argument("ACCOUNT", account)
    with context.migrated(config) as database:
        account_id, _ = choices.account(database, account)
        rows = choices.recorded(database, kind, account_id)
    none = f"no {kind} is recorded for account {account_id}"
    console.print_rows(rows, output=output, none=none, now=context.CLOCK.now())
