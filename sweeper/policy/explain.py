"""Explain a verdict in plain words: its facts, rule and due date, what would change it, and what may be trained on.

Invariant: this module decides nothing; every value it prints comes from the verdict, the facts or the policy.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sweeper.policy.anomaly import Anomaly, anomalies
from sweeper.policy.conditions import is_deleted
from sweeper.policy.decide import (
    ERASURE_ORDER,
    UNCLASSIFIED,
    Doubt,
    RuleMatch,
    Verdict,
    covering,
    decide,
    due_orders,
    open_case,
)
from sweeper.policy.evaluate import Outcome, Proposal, Spared, evaluate_stored, is_later, protected_facts
from sweeper.policy.facts import ConsentEvent, Facts, Message
from sweeper.policy.history import EpochState, History, View, history
from sweeper.policy.instant import OutOfRange, StoredTimestamp, rfc3339
from sweeper.policy.redaction import decide_redaction, evaluate_redaction
from sweeper.policy.remedies import DOUBTED, SKIPPED, mend, mend_last_activity
from sweeper.policy.schema import ColumnPeriod, Policy
from sweeper.policy.times import relative
from sweeper.policy.training import Exclusion, exclusions
from sweeper.policy.words import ANCHORS

WHAT_IFS = ("opt-out", "delete")
MESSAGES_SHOWN = 12

EXCLUSIONS = {
    Exclusion.UNCLASSIFIED: "there is doubt about the conversation's or the message's own data",
    Exclusion.DELETED: "the conversation was deleted; the exclusion stays even if it was restored",
    Exclusion.ACCOUNT_CLOSED: "the account is closed",
    Exclusion.ERASURE_ORDER: "an erasure order covers the conversation",
    Exclusion.ZERO_RETENTION: "the conversation is zero-retention",
    Exclusion.INCOGNITO: "the conversation is incognito",
    Exclusion.FLAGGED: "safety review flagged the conversation",
    Exclusion.EXPIRED: "the conversation is past its due date",
    Exclusion.REDACTED: "the content of the conversation was redacted, or is past its due date for that",
    Exclusion.PLATFORM: "the conversation took place on a platform that is not trained on",
    Exclusion.PLAN: "the plan, now or when the message was written, belongs to no purpose that allows training",
    Exclusion.NO_CONSENT: "no consent is in force",
    Exclusion.BEFORE_CONSENT: "it was written outside the consent that is in force",
    Exclusion.TOO_OLD: "it is older than the policy allows for training",
}
ANOMALIES = {
    Anomaly.STALE_LAST_ACTIVITY: "a user message is newer than last_activity_at says; that message counts as the last activity",
    Anomaly.ZERO_RETENTION_STORED: "a zero-retention conversation is stored: an incident",
    Anomaly.UNDECIDED: "the user wrote after the deadline for choosing and has never chosen",
    Anomaly.LAST_ACTIVITY_AHEAD: "its last activity is after as-of",
}


@dataclass(frozen=True)
class Explanation:
    """The explanation of one conversation at one as-of, possibly under a supposition (`supposing`, one of `WHAT_IFS`).

    `schema` is the schema of the store, for the statements that mend it.
    """

    facts: Facts
    policy: Policy
    as_of: datetime
    messages: Sequence[Message]
    supposing: str | None = None
    schema: str = "store"
    has_content: bool = True
    """False if nothing is left in the columns that a redaction empties."""

    @property
    def redaction(self) -> Verdict | None:
        """The verdict on its content; None if no rule redacts."""
        return decide_redaction(self.facts, self.policy, self.as_of)

    @property
    def redact(self) -> bool:
        """True if a run would redact it."""
        c = self.facts.conversation
        proposal = Proposal(c.account_id, c.id, c.last_activity_at, c.deleted_at)
        evaluation = evaluate_redaction(self.facts, proposal, self.policy, self.as_of)
        return self.has_content and evaluation.outcome is Outcome.PURGE

    @property
    def verdict(self) -> Verdict:
        """The verdict that is explained."""
        return decide(self.facts, self.policy, self.as_of)

    @property
    def spared(self) -> Spared | None:
        """Why a run would skip it although it is due by the row as stored; None if it would not."""
        return evaluate_stored(self.facts, self.policy, self.as_of).spared

    @property
    def is_stale(self) -> bool:
        """True if a user message is newer than `last_activity_at`."""
        return is_later(self.facts.latest_user_message_at, self.facts.conversation.last_activity_at)

    @property
    def true_verdict(self) -> Verdict:
        """The verdict that counts whatever protects it: its newest user message, and holds and flags after as-of."""
        return decide(protected_facts(self.facts, self.as_of), self.policy, self.as_of)

    @property
    def mending(self) -> list[str]:
        """What mends the data because of which it is skipped, stale or in doubt; empty if nothing is wrong with them."""
        found = [mend(DOUBTED[doubt], self.schema) for doubt in self.verdict.doubts]
        if self.is_stale:
            found.append(mend_last_activity(self.schema, self.facts.conversation.id))
        elif self.spared is not None:
            found.append(mend(SKIPPED[self.spared], self.schema))
        return found

    def trained_on(self) -> dict[str, Exclusion | None]:
        """Return for each message id the reason why it may not be trained on; None if it may."""
        found = exclusions(self.facts, self.messages, self.policy, self.as_of)
        return {message.id: reason for message, reason in found}

    def eligible(self) -> int:
        """Return how many messages may be trained on."""
        return sum(reason is None for reason in self.trained_on().values())

    def as_json(self) -> dict[str, Any]:
        """Return the explanation for --json; `messages` maps each id to `eligible` or the reason against it."""
        verdict = self.verdict
        return {
            **line(self.facts, verdict),
            "as_of": self.as_of,
            "policy": self.policy.digest,
            "supposing": self.supposing,
            "spared": self.spared,
            "true_rule": self.true_verdict.rule,
            "true_due_at": self.true_verdict.due,
            "mend": self.mending,
            "doubts": verdict.doubts,
            "rules": [_ruling_json(ruling) for ruling in verdict.rulings],
            "moved_by": [_ruling_json(ruling) for ruling in verdict.moves],
            "holds": [hold.matter for hold in verdict.holds],
            "plans": sorted(plan or "" for plan in verdict.plans),
            "anomalies": anomalies(self.facts, self.policy, self.as_of),
            "redaction": self._redaction_json(),
            "messages": {id_: reason or "eligible" for id_, reason in self.trained_on().items()},
            "purged": None,
        }

    def _redaction_json(self) -> dict[str, Any] | None:
        found, at = self.redaction, self.facts.redacted_at
        if found is None:
            return {"redacted_at": at} if at is not None else None
        content = {"redact": self.redact, "has_content": self.has_content, "redacted_at": at}
        return {"rule": found.rule, "due_at": found.due, "held": found.held, **content}

    def as_lines(self) -> list[str]:
        """Return the explanation as lines of text; an id or a matter may contain any character, even a line break."""
        verdict = self.verdict
        parts = [
            [f"Conversation {self.facts.conversation.id}, at {rfc3339(self.as_of)}", *self._supposition()],
            [_outcome(verdict, self.spared), *self._truth(verdict)],
            ["Why", *_indented(_why(self.facts, self.policy, verdict))],
            *([["What happens to its content", *_indented(content)]] if (content := list(self._content())) else []),
            *([["How to mend it", *_indented(self.mending)]] if self.mending else []),
            ["Facts", *_indented(_facts(self.facts, self.policy, self.as_of, verdict))],
            ["What would change it", *_indented(self._changes(verdict))],
            ["May it be trained on?", *_indented(self._training())],
        ]
        return [line for part in parts for line in ("", *part)][1:]

    def _content(self) -> Iterator[str]:
        """When its content is redacted, or was."""
        found, at = self.redaction, self.facts.redacted_at
        if at is not None:
            yield f"It was REDACTED on {shown(at)}: what a user wrote before that is gone, and none of it is trained on."
        if found is None:
            return
        if not self.has_content:
            yield "There is no content left to redact."
        elif self.redact:
            yield f"TO BE REDACTED: {_due(found)}."
        elif self.verdict.expired:
            yield "It is not redacted, because the conversation is due for purge."
        elif found.expired:
            yield f"It is not redacted: {_due(found)}{f', and it is held ({_holds(found)})' if found.held else ''}."
        else:
            yield f"Its content stays: {_due(found)}."
        for ruling in sorted(found.rulings, key=lambda r: (r.due is None, r.due)):
            yield f"Rule {ruling.rule}: {self.policy.by_name[ruling.rule].because}."
            yield f"  {_computation(ruling)}"

    def _supposition(self) -> list[str]:
        return [f"Supposing {SUPPOSED[self.supposing]}."] if self.supposing else []

    def _truth(self, verdict: Verdict) -> Iterator[str]:
        """The true due date, where the row as stored tells another or none."""
        true = self.true_verdict
        if true.doubts:
            yield from self._supposed_plans(true)
        elif (true.rule, true.due, true.held) != (verdict.rule, verdict.due, verdict.held):
            counted = "what was recorded after as-of"
            if self.is_stale:
                counted = f"its newest user message, of {shown(self.facts.latest_user_message_at)}"
            held = f", and held ({_holds(true)})" if true.held else ""
            yield f"Its true due date counts {counted}: {_due(true)}{held}."

    def _supposed_plans(self, true: Verdict) -> Iterator[str]:
        """The due date under each plan that an unknown one may stand for; nothing if there is another doubt."""
        if true.doubts != (Doubt.UNKNOWN_PLAN,):
            return
        plans: dict[str, list[str]] = {}
        for plan in sorted(self.policy.known_plans):
            supposed = _with_plan(protected_facts(self.facts, self.as_of), self.policy, plan)
            found = decide(supposed, self.policy, self.as_of)
            plans.setdefault(_due(found), []).append(plan)
        for due, names in plans.items():
            yield f"If its unknown plan were {' or '.join(names)}: {due}."

    def _changes(self, verdict: Verdict) -> Iterator[str]:
        """How each of `WHAT_IFS` and releasing its holds would change the outcome."""
        for name in WHAT_IFS:
            if name == "delete" or self.policy.purposes:
                yield f"{CHANGES[name]}: {self._change(verdict, name)}."
        if verdict.holds:
            yield f"Releasing {_holds(verdict)}: " + (
                "it would be purged." if verdict.expired else "no change until its due date."
            )

    def _change(self, verdict: Verdict, name: str) -> str:
        supposed = suppose(self.facts, self.policy, self.as_of, name)
        changed = decide(supposed, self.policy, self.as_of)
        same = (changed.rule, changed.due) == (verdict.rule, verdict.due)
        changes = [] if same else [_would(changed, evaluate_stored(supposed, self.policy, self.as_of).spared)]
        fewer = replace(self, facts=supposed).eligible()
        if fewer != self.eligible():
            changes.append(f"{fewer} of its messages could be trained on instead of {self.eligible()}")
        return "; ".join(changes) or "no change"

    def _training(self) -> Iterator[str]:
        found = self.trained_on()
        if not found:
            yield "It has no messages."
            return
        yield f"{self.eligible()} of {len(found)} messages may be trained on."
        for exclusion, count in Counter(r for r in found.values() if r is not None).most_common():
            yield f"{count} may not ({exclusion.value}): {EXCLUSIONS[exclusion]}."
        written = {message.id: message for message in self.messages}
        for id_ in list(found)[:MESSAGES_SHOWN]:
            message = written[id_]
            status = reason.value if (reason := found[id_]) else "eligible"
            yield f"  {id_}  {shown(message.created_at):<27} {message.author or 'unknown author':<9}  {status}"
        if len(found) > MESSAGES_SHOWN:
            yield f"  … and {len(found) - MESSAGES_SHOWN} more; --json lists all."


SUPPOSED = {"opt-out": "the account withdraws its consent now", "delete": "the user deletes it now"}
CHANGES = {"opt-out": "If the account withdrew its consent now", "delete": "If the user deleted it now"}


def line(facts: Facts, verdict: Verdict) -> dict[str, Any]:
    """Return one conversation as a line of `explain --all --json`."""
    return {
        "conversation_id": facts.conversation.id,
        "rule": verdict.rule,
        "due_at": verdict.due,
        "held": verdict.held,
        "purge": verdict.purge,
    }


def purged_json(id_: str, tombstone: Mapping[str, Any]) -> dict[str, Any]:
    """Return a purged conversation for --json, from its tombstone, with the fields of `line`."""
    return {
        "conversation_id": id_,
        "rule": tombstone["rule"],
        "due_at": tombstone["due_at"],
        "held": False,
        "purge": False,
        "purged": {
            "at": tombstone["purged_at"],
            "run": tombstone["run_id"],
            "as_of": tombstone["as_of"],
        },
    }


def purged_text(id_: str, tombstone: Mapping[str, Any], now: datetime) -> str:
    """Return a purged conversation as a sentence, from its tombstone."""
    at = tombstone["purged_at"]
    return (
        f"Conversation {id_} was PURGED on {rfc3339(at)}, {relative(at, now)}, by run {tombstone['run_id']}: "
        f"rule {tombstone['rule']}, due {rfc3339(tombstone['due_at'])}, as-of {rfc3339(tombstone['as_of'])}."
    )


def suppose(facts: Facts, policy: Policy, as_of: datetime, what: str) -> Facts:
    """Return the facts as if the user did `what` (one of `WHAT_IFS`) at as-of."""
    if what == "delete":
        if is_deleted(facts.conversation, as_of):
            return facts  # deleting again changes nothing
        return replace(facts, conversation=replace(facts.conversation, deleted_at=as_of, restored_at=None))
    account = facts.account
    if account is None:
        return facts
    last = max((event.id or 0 for event in account.consent_events), default=0)
    withdrawals = [
        ConsentEvent(last + number, purpose, granted=False, recorded_at=as_of, effective_at=None)
        for number, purpose in enumerate(policy.purposes, 1)
        if any(
            event.purpose == purpose for event in account.consent_events
        )  # an account that never chose has nothing to withdraw
    ]
    return replace(facts, account=replace(account, consent_events=(*account.consent_events, *withdrawals)))


def shown(stored: StoredTimestamp) -> str:
    """Format a stored timestamp; `not set` for None."""
    if stored is None:
        return "not set"
    return stored.value if isinstance(stored, OutOfRange) else rfc3339(stored)


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {text}" for text in lines)


def _outcome(verdict: Verdict, spared: Spared | None) -> str:
    if spared is not None:
        return f"DUE, BUT KEPT: {_due(verdict)}. A run would skip it: {SKIPPED[spared].cause}."
    if verdict.purge:
        return f"TO BE PURGED: {_due(verdict)}."
    if verdict.expired:
        return f"KEPT UNDER LEGAL HOLD ({_holds(verdict)}): {_due(verdict)}."
    if verdict.rule == UNCLASSIFIED:
        return (
            "KEPT, because there is doubt about its data (unclassified). It is not trained on, and runs keep it until that is "
            "mended."
        )
    held = f" It is under legal hold ({_holds(verdict)})." if verdict.held else ""
    return f"KEPT: {_due(verdict)}.{held}"


def _due(verdict: Verdict) -> str:
    if verdict.rule is None:
        return "no rule applies, so it has no due date"
    if verdict.due is None:
        return f"it is never due ({verdict.rule})"
    tense = "was" if verdict.expired else "is"
    return f"it {tense} due at {rfc3339(verdict.due)}, {relative(verdict.due, verdict.as_of)} ({verdict.rule})"


def _would(verdict: Verdict, spared: Spared | None) -> str:
    """Return what would happen to it under a supposition."""
    if not verdict.expired:
        return _due(verdict)
    if verdict.held:
        return f"it would be due at once ({verdict.rule}) and kept as long as it is held"
    if spared is not None:
        return f"it would be due at once ({verdict.rule}), and a run would skip it: {SKIPPED[spared].cause}"
    return f"it would be purged by the next run ({verdict.rule})"


def _holds(verdict: Verdict) -> str:
    return ", ".join(f"matter {hold.matter!r}" for hold in verdict.holds)


def _why(facts: Facts, policy: Policy, verdict: Verdict) -> Iterator[str]:
    for doubt in verdict.doubts:
        yield f"Doubt ({doubt.value}): {_doubt(doubt, facts, policy, verdict.as_of)}."
    if verdict.doubts:
        yield "If there is doubt, only rules that need no plan and erasure orders apply."
    first = True
    for ruling in sorted(verdict.rulings, key=lambda r: (r.due is None, r.due)):
        lead = "Rule" if first else "Also applies:"
        yield f"{lead} {ruling.rule}: {policy.by_name[ruling.rule].because}."
        yield f"  {_computation(ruling)}"
        first = False
    if not verdict.rulings and not verdict.doubts:
        yield "No rule of the policy applies."
    reasons = {floor.name: floor.because for floor in policy.floors}
    for move in verdict.moves:
        if move.rule == ERASURE_ORDER:
            yield f"Then {ERASURE_ORDER}: an erasure order sets the due date to {shown(move.due)}."
        else:
            yield f"Then {move.rule}: {reasons[move.rule]}, so the due date is at least"
            yield f"  {_computation(move)}"
    yield from _idle_orders(facts, policy, verdict)


def _idle_orders(facts: Facts, policy: Policy, verdict: Verdict) -> Iterator[str]:
    """The erasure orders that cover it and do not change its due date."""
    moved = any(move.rule == ERASURE_ORDER for move in verdict.moves)
    if not moved and any(due_orders(facts, policy, verdict.as_of)):
        yield "An erasure order covers it, but its date is not earlier."
    for order in covering(facts, policy, verdict.as_of):
        if not (isinstance(order.due_at, datetime) and policy.plausible.holds(order.due_at)):
            yield (
                f"Erasure order {order.reference!r} covers it and has no due date (it names none, or was withdrawn): it only "
                "excludes it from training."
            )


def _doubt(doubt: Doubt, facts: Facts, policy: Policy, as_of: datetime) -> str:
    """Return the doubt in words; if a value is wrong, with that value and where to fix it."""
    details = {
        Doubt.UNKNOWN_PLAN: lambda: _unknown_plans(facts, policy, as_of),
        Doubt.PERIOD: lambda: _unusable_periods(facts, policy),
    }
    found = "; ".join(details[doubt]()) if doubt in details else ""
    return DOUBTED[doubt].cause + (f": {found}" if found else "")


def _with_plan(facts: Facts, policy: Policy, plan: str) -> Facts:
    """Return the facts with `plan` in the place of each plan that the policy does not know."""
    if facts.account is None:
        return facts
    changes = (c if c.plan in policy.known_plans else replace(c, plan=plan) for c in facts.account.plan_changes)
    return replace(facts, account=replace(facts.account, plan_changes=tuple(changes)))


def _unknown_plans(facts: Facts, policy: Policy, as_of: datetime) -> Iterator[str]:
    case = open_case(facts, policy, as_of)
    created = case.trusted(facts.conversation.created_at)
    if case.known is None or created is None:
        return
    found = case.known.timeline.between(created, max(created, as_of)) - policy.known_plans
    for plan in sorted(found, key=lambda plan: plan or ""):
        if plan is None:
            yield "a plan without a name; fix plan_changes"
        else:
            yield f"plan {plan!r} is in no class of [plans]; add it there or fix plan_changes"


def _unusable_periods(facts: Facts, policy: Policy) -> Iterator[str]:
    sources = {t.period.column: t.period for r in policy.rules for t in r.due if isinstance(t.period, ColumnPeriod)}
    for column, source in sources.items():
        value = _extra_columns(facts, source.relation).get(source.name)
        if not source.is_usable(value):
            yield f"{column} is {value!r}; a whole number of {source.unit}s is needed, or none"


def _extra_columns(facts: Facts, relation: str) -> Mapping[str, object]:
    """Return the additional columns of the conversation or of its account."""
    if relation == "conversation":
        return facts.conversation.columns
    return facts.account.columns if facts.account else {}


def _computation(ruling: RuleMatch) -> str:
    if ruling.anchor is None or ruling.since is None:
        return shown(ruling.due)
    due = rfc3339(ruling.due) if ruling.due else "never"
    return f"{ANCHORS[ruling.anchor]} {rfc3339(ruling.since)} + {ruling.period} = {due}"


def _facts(facts: Facts, policy: Policy, as_of: datetime, verdict: Verdict) -> Iterator[str]:
    c = facts.conversation
    yield f"created {shown(c.created_at)}, last activity {shown(c.last_activity_at)}"
    yield (
        f"kind {c.kind or 'not set'}, platform {c.platform or 'not set'}, incognito {_yes_no(c.incognito)}, "
        f"zero-retention {_yes_no(c.zero_retention)}"
    )
    yield from _extra_facts(facts, policy)
    for what, instant in (("deleted", c.deleted_at), ("restored", c.restored_at), ("flagged", c.flagged_at)):
        if instant is not None:
            yield f"{what} {shown(instant)}"
    if facts.account is None:
        yield f"account {c.account_id}: does not exist"
    else:
        closed = f", closed {shown(facts.account.closed_at)}" if facts.account.closed_at is not None else ""
        yield f"account {facts.account.id}{closed}"
        yield from _histories(history(facts.account, policy, as_of), policy, verdict)
    yield from (f"legal hold of matter {hold.matter!r}, placed {shown(hold.placed_at)}" for hold in verdict.holds)
    for order in facts.orders:
        yield f"erasure order {order.reference!r}, recorded {shown(order.recorded_at)}, due {shown(order.due_at)}"
    for anomaly in anomalies(facts, policy, as_of):
        yield f"note ({anomaly.value}): {ANOMALIES[anomaly]}"


def _extra_facts(facts: Facts, policy: Policy) -> Iterator[str]:
    """The additional columns that the policy reads."""
    for name in policy.columns("conversation"):
        yield f"conversation.{name}: {_shown_value(facts.conversation.columns.get(name))}"
    for name in policy.columns("account") if facts.account else ():
        yield f"account.{name}: {_shown_value(_extra_columns(facts, 'account').get(name))}"


def _shown_value(value: object) -> str:
    return _yes_no(value) if value is None or isinstance(value, bool) else str(value)


def _histories(known: History, policy: Policy, verdict: Verdict) -> Iterator[str]:
    if policy.uses_plans:
        plans = ", ".join(sorted(plan or "without a name" for plan in verdict.plans)) or "none"
        yield f"plans in force during the conversation: {plans}"
    for purpose in policy.purposes:
        epochs = known.epochs(purpose, View.RETENTION)
        if epochs:
            yield f"consent to {purpose}: " + "; ".join(_epoch(epoch) for epoch in epochs)
        else:
            yield f"consent to {purpose}: " + ("never in force" if known.has_chosen(purpose) else "never chosen")


def _epoch(epoch: EpochState) -> str:
    if epoch.closed is None:
        return f"since {rfc3339(epoch.opened)}"
    return f"from {rfc3339(epoch.opened)} to {rfc3339(epoch.closed)} ({epoch.ended_by})"


def _yes_no(value: bool | None) -> str:  # noqa: FBT001 — the value shown, not a switch
    return "not set" if value is None else "yes" if value else "no"


def _ruling_json(ruling: RuleMatch) -> dict[str, Any]:
    return {
        "rule": ruling.rule,
        "due_at": ruling.due,
        "anchor": ruling.anchor,
        "since": ruling.since,
        "period": str(ruling.period) if ruling.period else None,
    }
