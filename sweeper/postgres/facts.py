"""Reads the facts of a batch with a few statements for all its rows, each by key.

Invariant: a look-up that fails fails the batch; a failure never reads as "none".
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection, Row, TextClause, text

from sweeper.policy.facts import Account, ConsentEvent, Conversation, Facts, Feedback, Hold, Message, Order, PlanChange
from sweeper.policy.feedback import FeedbackFacts
from sweeper.policy.instant import StoredTimestamp
from sweeper.policy.schema import Policy
from sweeper.postgres.contract import Contract
from sweeper.postgres.statement import array, filled, spelling, statement

Named = Sequence[tuple[str | None, str | None, StoredTimestamp]]
"""For each record of a batch its account, its conversation and when it was created."""


@dataclass(frozen=True)
class FactsReader:
    """Reads facts from one store for one policy and as-of (UTC).

    Of many holds and orders for one record it reads only those that decide, so that their number does not slow a batch down;
    with `every` it reads all, for an explanation.
    """

    contract: Contract
    policy: Policy
    as_of: datetime

    def conversations(self, connection: Connection, ids: Sequence[str], *, every: bool = False) -> dict[str, Facts]:
        """Return the facts of those conversations that still exist, by id."""
        rows = connection.execute(self._statement("facts_conversations", "conversation"), {"ids": array(ids)}).all()
        messages = self._message_counts(connection, [row.id for row in rows])
        found = [Facts(Conversation(*row), None, (), (), *messages.get(row.id, (None, 0, None))) for row in rows]
        if every:
            found = list(self._redacted(connection, found))
        times = Counter(row.id for row in rows)
        around = self._around(connection, found, every=every)
        return {facts.conversation.id: _repeated(facts, times) for facts in around}

    def _redacted(self, connection: Connection, known: Sequence[Facts]) -> Iterator[Facts]:
        """Yield the same conversations with the time of their last redaction."""
        asked = {"ids": array(facts.conversation.id for facts in known), "store": self.contract.schema}
        at = {row.id: row.redacted_at for row in connection.execute(statement("facts_redacted"), asked)}
        return (replace(facts, redacted_at=at.get(facts.conversation.id)) for facts in known)

    def anew(self, connection: Connection, known: Sequence[Facts], *, held: bool) -> list[Facts]:
        """Return the same conversations with their accounts, histories, holds and orders read again.

        Orders are read again only if one covered any of the conversations before, since a newer order protects nothing. Holds are
        read again only with `held`, where no fence excludes new ones.
        """
        ordered = any(facts.orders for facts in known)
        return list(self._around(connection, known, every=False, ordered=ordered, held=held))

    def messages_changed(self, connection: Connection, known: Sequence[Facts]) -> bool:
        """Return True if the number of messages or the user's latest message has changed in any of the conversations."""
        now = self._message_counts(connection, [facts.conversation.id for facts in known])
        nothing = (None, 0, None)
        return any(
            now.get(facts.conversation.id, nothing)
            != (facts.latest_user_message_at, facts.messages, facts.late_user_message_at)
            for facts in known
        )

    def _around(
        self, connection: Connection, known: Sequence[Facts], *, every: bool, ordered: bool = True, held: bool = True
    ) -> Iterator[Facts]:
        rows = [facts.conversation for facts in known]
        accounts = self.accounts(connection, {row.account_id for row in rows if row.account_id is not None})
        named = [(row.account_id, row.id, row.created_at) for row in rows]
        protections = self._protections(connection, named, "conversations", every=every, ordered=ordered, held=held)
        for facts, (holds, orders) in zip(known, protections, strict=True):
            of_account = accounts.get(facts.conversation.account_id or "", ())
            yield replace(
                facts,
                account=next(iter(of_account), None),
                holds=holds if held else facts.holds,
                orders=orders,
                repeated=facts.repeated or len(of_account) > 1,
            )

    def accounts(self, connection: Connection, ids: Iterable[str]) -> dict[str, list[Account]]:
        """Return the accounts with their whole histories, by id; more than one per id if a view repeats it."""
        asked = {"ids": array(sorted(ids))}
        plans: dict[str, list[PlanChange]] = defaultdict(list)
        for account_id, *change in connection.execute(self._statement("facts_plan_changes"), asked):
            plans[account_id].append(PlanChange(*change))
        consent: dict[str, list[ConsentEvent]] = defaultdict(list)
        for account_id, *consent_event in connection.execute(self._statement("facts_consent_events"), asked):
            consent[account_id].append(ConsentEvent(*consent_event))
        found: dict[str, list[Account]] = defaultdict(list)
        for id_, created_at, closed_at, columns in connection.execute(
            self._statement("facts_accounts", "account"), asked
        ):
            found[id_].append(Account(id_, created_at, closed_at, tuple(plans[id_]), tuple(consent[id_]), columns))
        return found

    def feedback(self, connection: Connection, ids: Sequence[str]) -> dict[str, FeedbackFacts]:
        """Return the facts of those feedback rows that still exist, by id."""
        rows = connection.execute(self._statement("facts_feedback"), {"ids": array(ids)}).all()
        times = Counter(row.id for row in rows)
        found = [
            FeedbackFacts(
                Feedback(
                    row.id, row.account_id, row.conversation_id, row.kind, row.submitted_at, bool(row.has_transcript)
                ),
                repeated=times[row.id] > 1,
            )
            for row in rows
        ]
        return {facts.feedback.id: facts for facts in self.feedback_anew(connection, found)}

    def feedback_anew(self, connection: Connection, known: Sequence[FeedbackFacts]) -> list[FeedbackFacts]:
        """Return the same feedback rows with holds and orders read again."""
        named = [(f.feedback.account_id, f.feedback.conversation_id, f.feedback.submitted_at) for f in known]
        protections = self._protections(connection, named, "feedback", every=False)
        return [
            replace(facts, holds=holds, orders=orders)
            for facts, (holds, orders) in zip(known, protections, strict=True)
        ]

    def _protections(
        self,
        connection: Connection,
        named: Named,
        relation: str,
        *,
        every: bool,
        ordered: bool = True,
        held: bool = True,
    ) -> Iterator[tuple[tuple[Hold, ...], tuple[Order, ...]]]:
        """Yield the holds and the orders of each record, in the order of the records."""
        account, conversation = self._id_types(relation)
        asked = {**self._asked(named), "most": None if every else 1}
        holds = _Holds.read(connection.execute(_hold_statement(account, conversation), asked) if held else ())
        if every:
            orders = self._every_order(connection, named, relation)
        else:
            orders = self._order_dues(connection, named) if ordered else {}
        for number, (account_id, conversation_id, _) in enumerate(named):
            yield holds.of(account_id, conversation_id), orders.get(number, ())

    def _order_dues(self, connection: Connection, named: Named) -> dict[int, tuple[Order, ...]]:
        """Return, by a record's position, one order that stands for all that cover it, with their earliest due date."""
        return {
            number: (Order("", named[number][0], named[number][1], None, due_at),)
            for number, due_at in connection.execute(statement("facts_order_dues"), self._asked(named))
        }

    def _every_order(self, connection: Connection, named: Named, relation: str) -> dict[int, tuple[Order, ...]]:
        """Return, by a record's position, all orders that may mean it."""
        account, conversation = self._id_types(relation)
        sql = statement(
            "facts_orders",
            account_spelling=spelling("a.id", account),
            owner_spelling=spelling("r.account_id", account),
            conversation_spelling=spelling("r.conversation_id", conversation),
        )
        found: dict[tuple[str | None, str | None], list[Order]] = defaultdict(list)
        for row in connection.execute(sql, self._asked(named)):
            order = Order(row.reference, row.account_id, row.conversation_id, row.recorded_at, row.due_at)
            named_by = order.account_id if order.conversation_id is None else None
            found[named_by, order.conversation_id].append(order)
        return {
            number: (*found.get((account_id, None), ()), *found.get((None, conversation_id), ()))
            for number, (account_id, conversation_id, _) in enumerate(named)
        }

    def messages(self, connection: Connection, conversation_id: str) -> list[Message]:
        """Return the messages of one conversation without their text, oldest first."""
        rows = connection.execute(self._statement("messages"), {"id": conversation_id})
        return [Message(row.id, row.author, row.created_at) for row in rows]

    def _message_counts(
        self, connection: Connection, ids: Sequence[str]
    ) -> Mapping[str, tuple[StoredTimestamp, int, StoredTimestamp]]:
        asked = {"ids": array(ids), "deadline": self.policy.deadline}
        rows = connection.execute(self._statement("facts_messages"), asked)
        return {id_: (latest, count, late) for id_, count, latest, late in rows}

    def _asked(self, named: Named) -> dict[str, Any]:
        return {
            "accounts": array(sorted({account for account, _, _ in named if account is not None})),
            "owners": array(account for account, _, _ in named),
            "conversations": array(conversation for _, conversation, _ in named),
            "since": array(self._since(instant) for _, _, instant in named),
            "as_of": self.as_of,
            "plausible_from": self.policy.plausible.since,
            "plausible_before": self.policy.plausible.before,
            "store": self.contract.schema,
        }

    def _since(self, instant: StoredTimestamp) -> str | None:
        """Return when a record was created if that is plausible; otherwise None, and only an order without a date covers it."""
        return instant.isoformat() if isinstance(instant, datetime) and self.policy.plausible.holds(instant) else None

    def _id_types(self, relation: str) -> tuple[str, str]:
        """Return the types of a relation's account ids and conversation ids."""
        conversation = "id" if relation == "conversations" else "conversation_id"
        return self.contract.type(relation, "account_id"), self.contract.type(relation, conversation)

    def _statement(self, name: str, further: str | None = None) -> TextClause:
        names = {
            "account": self.contract.type("accounts"),
            "conversation": self.contract.type("conversations"),
            "feedback": self.contract.type("feedback"),
        }
        if further == "account":
            names["columns"] = _as_json("a", self.policy.columns("account"))
        elif further == "conversation":
            names["columns"] = _as_json("c", self.policy.columns("conversation"))
        return statement(name, **names)


def _as_json(alias: str, columns: Sequence[str]) -> str:
    """The further columns as one JSON object: numbers, truth values and text keep their kind, whatever the column's type."""
    if not columns:
        return "CAST('{}' AS jsonb)"
    return "jsonb_build_object(" + ", ".join(f"'{name}', {alias}.\"{name}\"" for name in columns) + ")"


def _repeated(facts: Facts, times: Mapping[str, int]) -> Facts:
    return replace(facts, repeated=True) if times[facts.conversation.id] > 1 else facts


@lru_cache(maxsize=16)
def _hold_statement(account: str, conversation: str) -> TextClause:
    """The holds that may reach the records of a batch whose ids are of these types."""
    branches = (
        (
            {"account": "a.id", "conversation": "NULL::text", "asked": "unnest(CAST(:accounts AS text[])) AS a (id)"},
            f"sweeper.spelling(h.account_id) = {spelling('a.id', account)}",
        ),
        (
            {
                "account": "NULL::text",
                "conversation": "c.id",
                "asked": "unnest(CAST(:conversations AS text[])) AS c (id)",
            },
            f"sweeper.spelling(h.conversation_id) = {spelling('c.id', conversation)}",
        ),
        (
            {"account": "NULL::text", "conversation": "NULL::text", "asked": "(SELECT) AS everything"},
            "h.account_id IS NULL AND h.conversation_id IS NULL",
        ),
    )
    return text("\nUNION ALL\n".join(filled("facts_holds", named=named, **names) for names, named in branches))


@dataclass(frozen=True)
class _Holds:
    """Holds by the record they cover; the statement has already matched the spelling of their ids."""

    everything: tuple[Hold, ...]
    by_account: Mapping[str, list[Hold]]
    by_conversation: Mapping[str, list[Hold]]

    @classmethod
    def read(cls, rows: Iterable[Row[Any]]) -> "_Holds":
        everything: list[Hold] = []
        by_account: dict[str, list[Hold]] = defaultdict(list)
        by_conversation: dict[str, list[Hold]] = defaultdict(list)
        for row in rows:
            hold = Hold(row.matter, row.account_id, row.conversation_id, row.placed_at, row.released_at)
            if hold.account_id is not None:
                by_account[hold.account_id].append(hold)
            elif hold.conversation_id is not None:
                by_conversation[hold.conversation_id].append(hold)
            else:
                everything.append(hold)
        return cls(tuple(everything), by_account, by_conversation)

    def of(self, account_id: str | None, conversation_id: str | None) -> tuple[Hold, ...]:
        """Return the holds that cover the record."""
        of_account = self.by_account.get(account_id, ()) if account_id is not None else ()
        of_conversation = self.by_conversation.get(conversation_id, ()) if conversation_id is not None else ()
        return (*self.everything, *of_account, *of_conversation)
