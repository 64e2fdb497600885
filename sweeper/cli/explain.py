"""`explain`: one conversation in plain words, or all of them in a line each, with totals."""

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sweeper import console
from sweeper.cli import context
from sweeper.cli.context import AsJson, AsOf, Config
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.policy.instant import rfc3339

if TYPE_CHECKING:
    from sweeper.policy.explain import Explanation
    from sweeper.policy.facts import Facts, Message
    from sweeper.runs.job import Job
    from sweeper.runs.scan import StoredVerdict


class WhatIf(StrEnum):
    """What a user could do at as-of."""

    OPT_OUT = "opt-out"
    DELETE = "delete"


def explain(
    conversation_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of the conversation.")] = None,
    config: Config = None,
    as_json: AsJson = False,
    as_of: AsOf = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Explain every conversation in one line each, and print totals.")
    ] = False,
    what_if: Annotated[
        WhatIf | None, typer.Option("--what-if", help="Suppose that the user does this at as-of.")
    ] = None,
) -> None:
    """Explain why a conversation is kept or purged: facts, rule, due date, what would change it, what may be trained on.

    Example: sweeper explain 5f0c1a52-8f0f-5a58-9d3e-6f3c6b7a1a11 --what-if opt-out
    """
    if (conversation_id is None) == (not everything):
        raise ConfigurationError("explain takes either one ID or --all. Nothing was read.")
    if everything and what_if is not None:
        raise ConfigurationError("explain: --what-if supposes something of one ID, not of --all. Nothing was read.")
    with context.prepared(config, context.instant("--as-of", as_of)) as job:
        if conversation_id is None:
            _explain_all(job, as_json=as_json)
        else:
            _explain_one(job, conversation_id, what_if, as_json=as_json)


def _explain_one(job: "Job", conversation_id: str, what_if: WhatIf | None, *, as_json: bool) -> None:
    id_ = context.known_id(job.database, job.contract.type("conversations"), conversation_id, "conversation") or ""
    facts, messages = _read(job, id_)
    if facts is None:
        _explain_purged(job, id_, as_json=as_json)
        return
    explanation = _explanation(job, facts, messages, what_if)
    if as_json:
        console.print_json(explanation.as_json())
    else:
        console.say(*explanation.as_lines())


def _read(job: "Job", id_: str) -> tuple["Facts | None", list["Message"]]:
    with job.database.transaction() as connection:
        facts = job.reader.conversations(connection, [id_], every=True).get(id_)
        return facts, job.reader.messages(connection, id_) if facts else []


def _explanation(job: "Job", facts: "Facts", messages: list["Message"], what_if: WhatIf | None) -> "Explanation":
    from sweeper.policy import explain as explanations
    from sweeper.policy.decide import exists

    if not exists(facts.conversation, job.policy, job.as_of):
        raise SweeperError(
            f"conversation {facts.conversation.id} begins after as-of {rfc3339(job.as_of)}: it does not exist there yet. "
            "Nothing to explain. Give a later --as-of."
        )
    if what_if is None:
        return explanations.Explanation(facts, job.policy, job.as_of, messages)
    supposed = explanations.suppose(facts, job.policy, job.as_of, what_if.value)
    return explanations.Explanation(supposed, job.policy, job.as_of, messages, what_if.value)


def _explain_purged(job: "Job", id_: str, *, as_json: bool) -> None:
    """What the tombstone says of a conversation that is not there."""
    from sweeper.policy import explain as explanations
    from sweeper.postgres import evidence

    with job.database.transaction() as connection:
        stone = evidence.tombstone_of(connection, job.settings.store.schema_name, id_)
    if stone is None:
        raise SweeperError(
            f"there is no conversation {id_}, and no tombstone names it: it was never here, or something else deleted it. "
            "Nothing to explain."
        )
    if as_json:
        console.print_json(explanations.purged_json(id_, stone))
    else:
        console.say(explanations.purged_text(id_, stone))


class ExplainState(StrEnum):
    """What a run would make of a conversation."""

    PURGE = "purge"
    HELD = "held"
    SPARE = "spare"
    KEEP = "keep"


@dataclass
class ExplainTotals:
    """All conversations counted by rule and by what a run would make of them, the doubtful ones by their first doubt."""

    states: dict[str, Counter[ExplainState]] = field(default_factory=dict)
    unclassified: Counter[str] = field(default_factory=Counter)
    anomalies: Counter[str] = field(default_factory=Counter)

    def count(self, explained: "StoredVerdict", state: ExplainState) -> None:
        """Count one conversation."""
        rule = explained.verdict.rule or "no rule"
        self.states.setdefault(rule, Counter())[state] += 1
        if explained.verdict.rule == "unclassified":
            self.unclassified[explained.verdict.doubts[0].value] += 1
        self.anomalies.update(anomaly.value for anomaly in explained.anomalies)

    def count_ahead(self, count: int) -> None:
        """Count conversations that do not exist yet at as-of."""
        from sweeper.policy.anomaly import Anomaly

        if count:
            self.anomalies[Anomaly.CREATED_AHEAD.value] += count

    def as_json(self) -> dict[str, Any]:
        """The totals for the log."""
        return {
            "conversations": sum(found.total() for found in self.states.values()),
            "by_rule": {rule: dict(found) for rule, found in sorted(self.states.items())},
            "unclassified_by_reason": dict(self.unclassified.most_common()),
        }

    def print(self) -> None:
        """The totals for a person, one line a rule and one a reason to be in doubt."""
        console.say("")
        rows = [(rule, *(found[state] for state in ExplainState)) for rule, found in sorted(self.states.items())]
        everything: Counter[ExplainState] = sum(self.states.values(), Counter())
        rows.append(("all", *(everything[state] for state in ExplainState)))
        console.print_table(("rule", *ExplainState), rows)
        for reason, count in self.unclassified.most_common():
            console.say(f"unclassified ({reason}): {count}")


def _explain_all(job: "Job", *, as_json: bool) -> None:
    from sweeper import log
    from sweeper.policy import explain as explanations
    from sweeper.runs.scan import everything

    totals = ExplainTotals()
    for explained in everything(job, totals.count_ahead):
        state = _state(job, explained)
        totals.count(explained, state)
        line = explanations.line(explained.facts, explained.verdict)
        if as_json:
            console.print_json(line)
        else:
            console.say(
                f"{line['conversation_id']}  {state.value:<5}  {line['rule'] or 'no rule':<17}  {line['due_at'] or 'no due'}"
            )
    if as_json:
        log.get().info("totals", **totals.as_json())
    else:
        totals.print()
    if totals.anomalies:
        log.get().warning("anomalies", **totals.anomalies)


def _state(job: "Job", explained: "StoredVerdict") -> ExplainState:
    from sweeper.policy.explain import would_spare

    verdict = explained.verdict
    if verdict.purge:
        return ExplainState.SPARE if would_spare(explained.facts, job.policy, job.as_of) else ExplainState.PURGE
    return ExplainState.HELD if verdict.held else ExplainState.KEEP
