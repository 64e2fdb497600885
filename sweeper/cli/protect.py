"""`hold` and `order`: place, release and list legal holds; add, withdraw and list erasure orders.

Invariant: a hold can be placed while the policy is broken or a table of the store is missing.
"""

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, Config, Output
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.policy.instant import rfc3339

if TYPE_CHECKING:
    from sweeper.postgres.hold_scope import HoldScope, Reach

hold_app = typer.Typer(help="Place, release and list legal holds. What is held is never purged.", no_args_is_help=True)
order_app = typer.Typer(help="Add, withdraw and list erasure orders. No rule postpones them.", no_args_is_help=True)

Unknown = Annotated[bool, typer.Option("--unknown", help="Accept an id that is not in the store (yet).")]
Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Do not ask. Without it a terminal is asked, and a script is not.")
]


@hold_app.command("place")
def hold_place(
    matter: Annotated[str, typer.Argument(help="What the hold is for, e.g. a case number.")],
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    account: Annotated[str | None, typer.Option("--account", help="Hold everything of this account.")] = None,
    conversation: Annotated[str | None, typer.Option("--conversation", help="Hold this conversation.")] = None,
    everything: Annotated[bool, typer.Option("--everything", help="Hold everything in the store.")] = False,
    unknown: Unknown = False,
    yes: Yes = False,
) -> None:
    """Place a legal hold. Once this returns, no purge violates it.

    Example: sweeper hold place CASE-2026-7 --account 06164d11-6113-5000-b6a7-99f977e937e4
    """
    from sweeper.postgres import hold_scope, protections

    if everything == (account is not None or conversation is not None):
        raise ConfigurationError(
            "hold place: name --account, --conversation or both, or else --everything. Nothing was held."
        )
    _check_texts({"hold place: the matter": matter, "--account": account, "--conversation": conversation})
    with context.migrated(config) as database:
        scope = None if everything else hold_scope.read(database, account, conversation)
        if scope is not None and not unknown:
            _refuse_unknown(scope, "held")
        if not yes and (everything or account is not None):
            _ask(
                f"The hold {_covers(scope.either if scope else None)}: none of it is purged until you release it.",
                "held",
            )
        ids = (scope.account_id, scope.conversation_id) if scope else (None, None)
        hold = protections.place_hold(database, matter, *ids, context.CLOCK.now())
    with console.afterwards():
        _print_placed(hold, scope.either if scope else None, output=output)


def _ask(found: str, done: str) -> None:
    """Ask a person whether to go on. Without a terminal nobody is asked, so that scripts written before --yes go on working.

    Raises:
        SweeperError: the answer is no.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        return
    console.warn(found)
    try:
        confirmed = typer.confirm("Do it?", err=True)
    except typer.Abort:
        confirmed = False
    if not confirmed:
        raise SweeperError(f"it was not confirmed. Nothing was {done}. Answer y, or give --yes.")


@hold_app.command("release")
def hold_release(
    matter: Annotated[str | None, typer.Argument(help="Release all holds of this matter.")] = None,
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    hold_id: Annotated[int | None, typer.Option("--id", help="Release this one hold.")] = None,
) -> None:
    """Release legal holds. The next run purges what only they kept.

    Example: sweeper hold release CASE-2026-7
    """
    from sweeper.postgres import protections

    if (matter is None) == (hold_id is None):
        raise ConfigurationError("hold release: name a matter or --id. Nothing was released.")
    _check_texts({"hold release: the matter": matter})
    with context.migrated(config) as database:
        released = protections.release_holds(database, matter, hold_id, context.CLOCK.now())
    if not released:
        raise SweeperError(f"no hold in force for {matter or hold_id}. Nothing was released. See `sweeper hold list`.")
    with console.afterwards():
        console.print_rows(released, output=output, now=context.CLOCK.now())


@hold_app.command("list")
def hold_list(
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    released: Annotated[bool, typer.Option("--all", help="Also list released holds.")] = False,
) -> None:
    """List legal holds, active ones first, then by age, newest first.

    Example: sweeper hold list --all
    """
    from sweeper.postgres import protections, unmatched

    with context.migrated(config) as database:
        holds = protections.list_holds(database, released=released)
        found = unmatched.attempt_holds(database, context.CLOCK.now())
    _mark(holds, None if found is None else {"unknown_id": found})
    holds.sort(key=lambda hold: (hold["released_at"] is not None, -hold["id"]))
    none = "no legal hold" if released else "no legal hold is in force; --all lists released ones as well"
    console.print_rows(holds, output=output, none=none, now=context.CLOCK.now())


@order_app.command("add")
def order_add(
    reference: Annotated[str, typer.Argument(help="Reference of the order.")],
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    account: Annotated[
        str | None, typer.Option("--account", help="Erase everything of this account created so far.")
    ] = None,
    conversation: Annotated[
        str | None,
        typer.Option("--conversation", help="Erase this conversation (with --account: if it belongs to it)."),
    ] = None,
    due: Annotated[str | None, typer.Option("--due", metavar="INSTANT", help="When it must be gone.")] = None,
    unknown: Unknown = False,
    yes: Yes = False,
) -> None:
    """Record an erasure order. Without --due it only excludes from training, at once.

    Example: sweeper order add DSR-118 --account 06164d11-6113-5000-b6a7-99f977e937e4 --due 2026-12-24T00:00:00Z
    """
    from sweeper.postgres import hold_scope, protections

    if account is None and conversation is None:
        raise ConfigurationError("order add: name --account, --conversation or both. Nothing was recorded.")
    _check_texts({"order add: the reference": reference, "--account": account, "--conversation": conversation})
    due_at = context.instant("--due", due)
    with context.migrated(config) as database:
        context.refuse_implausible(
            database.settings,
            "--due",
            due_at,
            "the order would have no due date. Nothing was recorded. Give the instant by which it must be gone, or no --due.",
        )
        scope = hold_scope.read(database, account, conversation)
        if not unknown:
            _refuse_unknown(scope, "recorded")
            _refuse_unrelated(scope)
        if not yes and account is not None:
            gone = f"must be gone by {rfc3339(due_at)}" if due_at else "is no longer trained on"
            _ask(f"The order {_covers(scope.both)}: all of it {gone}.", "recorded")
        ids = (scope.account_id, scope.conversation_id)
        order = protections.add_order(database, reference, *ids, context.CLOCK.now(), due_at)
    with console.afterwards():
        _print_placed(order, scope.both, output=output)
        if due_at is None:
            console.warn(
                "it has no due date: what it covers is no longer trained on, but NOTHING will be erased by it. To erase it, "
                "add the order with --due."
            )


@order_app.command("withdraw")
def order_withdraw(
    reference: Annotated[str | None, typer.Argument(help="Withdraw all orders of this reference.")] = None,
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    order_id: Annotated[int | None, typer.Option("--id", help="Withdraw this one order.")] = None,
) -> None:
    """Withdraw erasure orders. They make nothing due any more; what they cover stays out of training.

    Once this returns, no purge is due because of them. What was purged before stays purged.

    Example: sweeper order withdraw DSR-118
    """
    from sweeper.postgres import protections

    if (reference is None) == (order_id is None):
        raise ConfigurationError("order withdraw: name a reference or --id. Nothing was withdrawn.")
    _check_texts({"order withdraw: the reference": reference})
    with context.migrated(config) as database:
        withdrawn = protections.withdraw_orders(database, reference, order_id, context.CLOCK.now())
    if not withdrawn:
        raise SweeperError(
            f"no order of this store that is not withdrawn yet is {reference or order_id}. Nothing was withdrawn. See "
            "`sweeper order list`."
        )
    with console.afterwards():
        console.print_rows(withdrawn, output=output, now=context.CLOCK.now())
        if not output.is_data:
            console.note(
                "They erase nothing more. What was purged under them stays purged, and what they cover stays out of training."
            )


@order_app.command("list")
def order_list(config: Config = None, output: Output = OutputFormat.TABLE, _json: AsJson = False) -> None:
    """List erasure orders, newest first.

    Example: sweeper order list --json
    """
    from sweeper.postgres import protections, unmatched

    with context.migrated(config) as database:
        orders = protections.list_orders(database)
        found, unknown = unmatched.attempt_orders(database, purged=False), "unknown_id"
        if found is None:  # the role of an officer may not read the tombstones
            found, unknown = unmatched.attempt_orders(database, purged=True), "unknown_id_or_purged"
    _mark(orders, None if found is None else dict(zip((unknown, "other_spelling"), found, strict=True)))
    console.print_rows(orders, output=output, none="no erasure order for this store", now=context.CLOCK.now())


def _mark(rows: Sequence[dict[str, Any]], unmatched: Mapping[str, Sequence[int]] | None) -> None:
    """Set `unmatched` of each row: why the hold or order matches nothing, or None. Warn if this role may not look."""
    if unmatched is None:
        console.warn(
            "could not look for holds and orders that match nothing: this role may not read the store's ids (see roles.sql)."
        )
        return
    reasons = {id_: what for what, ids in unmatched.items() for id_ in ids}
    for row in rows:
        row["unmatched"] = reasons.get(row["id"])


def _check_texts(texts: Mapping[str, str | None]) -> None:
    for what, text in texts.items():
        if text is not None:
            context.text_argument(what, text)


def _refuse_unknown(scope: "HoldScope", done: str) -> None:
    """Refuse an id that the store does not know: a mistyped id would protect or erase nothing."""
    if scope.unknown:
        raise ConfigurationError(
            f"the store knows no {' and no '.join(scope.unknown)}. Nothing was {done}. Fix the id, or give --unknown if the "
            "store will know it later."
        )


def _refuse_unrelated(scope: "HoldScope") -> None:
    """Refuse an order that names a conversation and an account to which it does not belong."""
    if scope.account_id is not None and scope.conversation_id is not None and not scope.both.conversations:
        raise ConfigurationError(
            f"conversation {scope.conversation_id} does not belong to account {scope.account_id}, and an order that names both "
            "covers only a conversation of that account. Nothing was recorded. Name one of them, or give --unknown."
        )


def _print_placed(row: dict[str, Any], reach: "Reach | None", *, output: OutputFormat) -> None:
    """Print what was placed and what it covers now (`reach`; None: all)."""
    if output.is_data:
        conversations, feedback = reach or (None, None)
        console.print_data({**row, "covers": conversations, "covers_feedback": feedback}, output)
        return
    console.print_rows([row], now=context.CLOCK.now())
    console.say(_covers(reach))


def _covers(reach: "Reach | None") -> str:
    return "covers everything" if reach is None else f"covers {reach}"
