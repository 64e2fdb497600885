"""What `explain` says of an id that is not a conversation's: all about an account, or what else the id names."""

from typing import TYPE_CHECKING, Any

from sweeper import console
from sweeper.cli import context
from sweeper.console import OutputFormat
from sweeper.encoding import to_json
from sweeper.errors import SweeperError
from sweeper.policy.instant import rfc3339

if TYPE_CHECKING:
    from sweeper.policy.facts import Facts
    from sweeper.postgres.lookup import StoredAccount
    from sweeper.runs.job import Job
    from sweeper.runs.scan import StoredRecord

MOST = 20
"""How many conversations of an account are listed."""


def explain_account(job: "Job", account_id: str, *, output: OutputFormat) -> None:
    """Print what is stored of an account, what of it was purged, and its first conversations.

    Raises:
        SweeperError: nothing of such an account is stored, and no tombstone of this store names it.
    """
    from sweeper.postgres import lookup

    found = lookup.account(job.database, job.contract, account_id, job.as_of)
    if not found.is_known:
        context.known_id(
            job.database, job.contract.type("accounts"), account_id, "account"
        )  # refuse what cannot be one
        raise SweeperError(
            _unknown(job, f"account {account_id}", "no row of the store and no tombstone of it names it")
        )
    _print(job, found, output=output)


def explain_other(job: "Job", id_: str, *, supposed: bool, output: OutputFormat) -> None:
    """Print all about the account with that id.

    Raises:
        SweeperError: it is no account; the error says what it is, or where it was looked for.
    """
    from sweeper.postgres import lookup

    found = lookup.account(job.database, job.contract, id_, job.as_of)
    if found.is_known and supposed:
        raise SweeperError(
            f"{id_} is an account, and --what-if works with a conversation. Ask `sweeper explain {id_}`."
        )
    if found.is_known:
        _print(job, found, output=output)
        return
    named = lookup.other(job.database, job.contract, id_)
    if named is None:
        context.known_id(
            job.database, job.contract.type("conversations"), id_, "conversation"
        )  # refuse what cannot be one
    raise SweeperError(
        named
        or _unknown(
            job,
            f"id {id_}",
            "no conversation, account, message, feedback row or manifest of it has this id, and no tombstone names it",
        )
    )


def _unknown(job: "Job", what: str, why: str) -> str:
    return (
        f"{what} is not known in store {job.contract.schema}: {why}. Whether it was ever stored cannot be told: "
        "what the application deletes leaves no tombstone, and a purged message leaves only that of its conversation. Nothing to "
        "explain. Check the id."
    )


def _print(job: "Job", found: "StoredAccount", *, output: OutputFormat) -> None:
    from sweeper.policy import explain as explanations
    from sweeper.runs import scan

    listed = list(scan.of_account(job, found.id, MOST))
    if output.is_data:
        lines = [explanations.line(record.facts, record.evaluation.verdict) for record in listed]
        console.print_data({**_as_json(found), "listed": lines}, output)
        return
    console.say(
        f"Account {found.id}: {'stored' if found.is_stored else 'it has no row in accounts'}.",
        f"  conversations: {found.conversations} stored; {_purged(found, 'conversation')}",
        f"  feedback rows: {found.feedback} stored; {_purged(found, 'feedback')}",
        f"  legal holds in force that name it: {found.holds} (`sweeper hold list`); erasure orders: {found.orders} "
        "(`sweeper order list`)",
    )
    if found.redacted:
        rules = ", ".join(f"{count} {rule}" for rule, count in found.redacted.items())
        console.say(f"  conversations whose content was redacted: {sum(found.redacted.values())} ({rules})")
    if found.last_purged_at is not None:
        console.say(f"  last purge: {rfc3339(found.last_purged_at)}")
    console.say(*map(line, listed))
    if found.conversations > len(listed):
        console.say(f"... {found.conversations - len(listed)} more: `sweeper explain --all` lists every conversation.")
    if listed:
        console.say("`sweeper explain ID` explains one of them.")


def line(record: "StoredRecord[Facts]") -> str:
    """Return one conversation as a line: id, what a run would do, rule, due date."""
    from sweeper.policy import explain as explanations

    told = to_json(explanations.line(record.facts, record.evaluation.verdict))
    shown = _shown(record)
    return f"{told['conversation_id']}  {shown:<5}  {told['rule'] or 'no rule':<17}  {told['due_at'] or 'no due date'}"


def _shown(record: "StoredRecord[Facts]") -> str:
    """Return in one word what a run would do with a conversation."""
    if record.evaluation.verdict.held:
        return "held"
    return {"purge": "purge", "spared": "spare"}.get(record.evaluation.outcome, "keep")


def _purged(found: "StoredAccount", record: str) -> str:
    by_rule = found.purged.get(record, {})
    rules = ", ".join(f"{count} {rule}" for rule, count in by_rule.items())
    return f"{sum(by_rule.values())} purged{f' ({rules})' if rules else ''}"


def _as_json(found: "StoredAccount") -> dict[str, Any]:
    return {
        "account_id": found.id,
        "stored": found.is_stored,
        "conversations": found.conversations,
        "feedback": found.feedback,
        "holds": found.holds,
        "orders": found.orders,
        "purged": {record: found.purged.get(record, {}) for record in ("conversation", "feedback")},
        "redacted": found.redacted,
        "last_purged_at": found.last_purged_at,
    }
