"""`explain`: one conversation in plain words, all about one account, or every conversation in one line with totals."""

from contextlib import ExitStack
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.account import explain_account, explain_other
from sweeper.cli.context import AsJson, AsOf, Config, Output
from sweeper.console import OutputFormat
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.policy.instant import rfc3339

if TYPE_CHECKING:
    from sweeper.policy.counts import RecordCounts
    from sweeper.policy.explain import Explanation
    from sweeper.policy.facts import Facts, Message
    from sweeper.postgres.whole_store import StoredVerdict
    from sweeper.runs.job import Job


class WhatIf(StrEnum):
    """An action of a user that --what-if supposes at as-of."""

    OPT_OUT = "opt-out"
    DELETE = "delete"


def explain(
    conversation_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Id of a conversation; or of an account.")
    ] = None,
    config: Config = None,
    output: Output = OutputFormat.TABLE,
    _json: AsJson = False,
    as_of: AsOf = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Explain every conversation in one line each, and print totals.")
    ] = False,
    account: Annotated[
        str | None, typer.Option("--account", help="Say what is stored of this account and what was purged.")
    ] = None,
    what_if: Annotated[
        WhatIf | None, typer.Option("--what-if", help="Suppose that the user does this at as-of.")
    ] = None,
) -> None:
    """Explain why a conversation stays or goes, or sum up an account.

    Of a conversation: facts, rule, due date, what would change it, and which messages may be trained on.

    Example: sweeper explain 0015fcfe-b44c-5c99-afa9-7f30a196cac5 --what-if opt-out
    """
    if [conversation_id is None, account is None, not everything].count(False) != 1:
        raise ConfigurationError("explain takes either one ID or --all, or --account. Nothing was read.")
    if conversation_id is None and what_if is not None:
        raise ConfigurationError(
            "explain: --what-if works with one ID of a conversation, not with --account or --all. Nothing was read."
        )
    with context.prepared(config, context.instant("--as-of", as_of)) as job:
        if account is not None:
            explain_account(job, context.text_argument("--account", account), output=output)
        elif conversation_id is None:
            _explain_all(job, output=output)
        else:
            _explain_one(job, conversation_id, what_if, output=output)


def _explain_one(job: "Job", conversation_id: str, what_if: WhatIf | None, *, output: OutputFormat) -> None:
    from sweeper.postgres import lookup

    text = context.text_argument("conversation", conversation_id)
    id_ = lookup.id_or_none(job.database, job.contract.type("conversations"), text)
    facts, messages = _read(job, id_) if id_ is not None else (None, [])
    if facts is None:
        _explain_absent(job, id_ or text, what_if, output=output)
        return
    explanation = _explanation(job, facts, messages, what_if)
    if job.contract.redacted:
        explanation = replace(explanation, has_content=_has_content(job, facts.conversation.id))
    if output.is_data:
        console.print_data(explanation, output)
    else:
        console.say(*explanation.as_lines())


def _read(job: "Job", id_: str) -> tuple["Facts | None", list["Message"]]:
    with job.database.transaction() as connection:
        facts = job.reader.conversations(connection, [id_], every=True).get(id_)
        return facts, job.reader.messages(connection, id_) if facts else []


def _has_content(job: "Job", id_: str) -> bool:
    from sweeper.postgres import redaction

    return job.database.within(lambda connection: bool(redaction.with_content(connection, job.contract, [id_])))


def _explanation(job: "Job", facts: "Facts", messages: list["Message"], what_if: WhatIf | None) -> "Explanation":
    from sweeper.policy import explain as explanations
    from sweeper.policy.decide import exists

    if not exists(facts.conversation, job.policy, job.as_of):
        raise SweeperError(
            f"conversation {facts.conversation.id} was created after as-of {rfc3339(job.as_of)}: it did not exist then. "
            "Nothing to explain. Give a later --as-of."
        )
    supposed = explanations.suppose(facts, job.policy, job.as_of, what_if.value) if what_if else facts
    schema, supposing = job.contract.schema, what_if.value if what_if else None
    return explanations.Explanation(supposed, job.policy, job.as_of, messages, supposing, schema)


def _explain_absent(job: "Job", id_: str, what_if: WhatIf | None, *, output: OutputFormat) -> None:
    """Print what the tombstone records of a purged conversation, or what else the id names."""
    from sweeper.policy import explain as explanations
    from sweeper.postgres import evidence

    with job.database.transaction() as connection:
        tombstone = evidence.tombstone_of(connection, job.settings.store.schema_name, id_)
    if tombstone is None:
        explain_other(job, id_, supposed=what_if is not None, output=output)
    elif output.is_data:
        console.print_data(explanations.purged_json(id_, tombstone), output)
    else:
        console.say(explanations.purged_text(id_, tombstone, job.clock.now()))


def _explain_all(job: "Job", *, output: OutputFormat) -> None:
    from sweeper import log
    from sweeper.cli import progress
    from sweeper.runs.scan import verdicts

    printer = console.RowPrinter(output)
    with ExitStack() as stack:
        with progress.steps() as step:
            found = stack.enter_context(verdicts(job, step))
            counts, anomalies = found.counts("conversation"), found.anomalies("conversation")
        for record in found.every("conversation"):
            if output.is_data:
                printer.print(record)
            else:
                console.say(_line(record))
    if output.is_data:
        log.get().info("totals", **_totals_json(counts))
    else:
        _print_totals(counts)
    if anomalies:
        log.get().warning("anomalies", **anomalies)


def _line(record: "StoredVerdict") -> str:
    """Return one conversation as a line: id, what a run would do, rule, due date."""
    shown = "held" if record.held else {"purge": "purge", "spared": "spare"}.get(record.outcome, "keep")
    due = rfc3339(record.due) if record.due else "no due date"
    return f"{record.id}  {shown:<5}  {record.rule or 'no rule':<17}  {due}"


def _totals(counts: "RecordCounts") -> "list[tuple[str, dict[str, int]]]":
    """Return by rule how many conversations a run would purge, find held, skip and keep."""
    from sweeper.policy.evaluate import Outcome

    return [
        (
            rule,
            {
                "purge": outcomes[Outcome.PURGE],
                "held": counts.held[rule],
                "spare": outcomes[Outcome.SPARED],
                "keep": counts.kept(rule),
            },
        )
        for rule, outcomes in sorted(counts.by_rule.items())
    ]


def _totals_json(counts: "RecordCounts") -> "dict[str, Any]":
    return {
        "conversations": counts.total,
        "by_rule": {
            rule: {what: number for what, number in found.items() if number} for rule, found in _totals(counts)
        },
        "unclassified_by_reason": dict(counts.unclassified.most_common()),
    }


def _print_totals(counts: "RecordCounts") -> None:
    console.say("")
    rows = [(rule, *found.values()) for rule, found in _totals(counts)]
    rows.append(
        ("all", *(sum(column) for column in list(zip(*rows, strict=True))[1:])) if rows else ("all", 0, 0, 0, 0)
    )
    console.print_table(("rule", "purge", "held", "spare", "keep"), rows)
    for reason, count in counts.unclassified.most_common():
        console.say(f"unclassified ({reason}): {count:,}")
