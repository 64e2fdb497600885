"""Reads the facts of a batch: a few statements for all its rows, each asking by key.

The law of this file: what cannot be read is not left out. A look-up that fails fails the batch; nothing reads as "none".
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, TextClause

from sweeper.core.feedback import FeedbackFacts
from sweeper.core.instant import Stored
from sweeper.core.model import Account, ConsentEvent, Conversation, Facts, Feedback, Hold, Message, Order, PlanChange
from sweeper.core.policy import Policy
from sweeper.store.contract import Contract
from sweeper.store.statement import array, statement

Names = Sequence[tuple[str | None, str | None]]


@dataclass(frozen=True)
class Reader:
    """Reads facts from one store for one policy."""

    contract: Contract
    policy: Policy

    def conversations(self, connection: Connection, ids: Sequence[str]) -> dict[str, Facts]:
        """The facts of the conversations that are still there, by id."""
        rows = connection.execute(self._statement("facts_conversations", "conversation"), {"ids": array(ids)}).all()
        accounts = self.accounts(connection, {row.account_id for row in rows if row.account_id is not None})
        times = Counter(row.id for row in rows)
        names = [(row.account_id, row.id) for row in rows]
        holds = _Holds.read(connection, self._asked(names))
        orders = _Orders(connection.execute(statement("facts_orders"), self._asked(names)))
        messages = self._message_counts(connection, [row.id for row in rows])
        return {
            row.id: Facts(
                Conversation(*row),
                next(iter(found := accounts.get(row.account_id, ())), None),
                holds.of(row.account_id, row.id),
                orders(row.account_id, row.id),
                *messages.get(row.id, (None, 0, None)),
                repeated=times[row.id] > 1 or len(found) > 1,
            )
            for row in rows
        }

    def accounts(self, connection: Connection, ids: Iterable[str]) -> dict[str, list[Account]]:
        """The accounts with their whole histories, by id; several where a view shows one more than once."""
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
        """The facts of the feedback rows that are still there, by id."""
        rows = connection.execute(self._statement("facts_feedback"), {"ids": array(ids)}).all()
        names = [(row.account_id, row.conversation_id) for row in rows]
        times = Counter(row.id for row in rows)
        holds = _Holds.read(connection, self._asked(names))
        orders = _Orders(connection.execute(statement("facts_orders"), self._asked(names)))
        return {
            row.id: FeedbackFacts(
                Feedback(
                    row.id, row.account_id, row.conversation_id, row.kind, row.submitted_at, bool(row.has_transcript)
                ),
                holds.of(row.account_id, row.conversation_id),
                orders(row.account_id, row.conversation_id),
                repeated=times[row.id] > 1,
            )
            for row in rows
        }

    def messages(self, connection: Connection, conversation_id: str) -> list[Message]:
        """The messages of one conversation, without their text, oldest first."""
        rows = connection.execute(self._statement("messages"), {"id": conversation_id})
        return [Message(row.id, row.author, row.created_at) for row in rows]

    def _message_counts(self, connection: Connection, ids: Sequence[str]) -> Mapping[str, tuple[Stored, int, Stored]]:
        asked = {"ids": array(ids), "deadline": self.policy.deadline}
        rows = connection.execute(self._statement("facts_messages"), asked)
        return {id_: (latest, count, late) for id_, count, latest, late in rows}

    def _asked(self, names: Names) -> dict[str, str | list[str]]:
        return {
            "accounts": array(sorted({account for account, _ in names if account is not None})),
            "conversations": array(sorted({conversation for _, conversation in names if conversation is not None})),
            "store": self.contract.schema,
        }

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


@dataclass(frozen=True)
class _Holds:
    """Holds by the record they reach; how their ids were spelt was settled by the statement."""

    everything: tuple[Hold, ...]
    by_account: Mapping[str, list[Hold]]
    by_conversation: Mapping[str, list[Hold]]

    @classmethod
    def read(cls, connection: Connection, asked: Mapping[str, str | list[str]]) -> "_Holds":
        everything: list[Hold] = []
        by_account: dict[str, list[Hold]] = defaultdict(list)
        by_conversation: dict[str, list[Hold]] = defaultdict(list)
        for row in connection.execute(statement("facts_holds"), asked):
            hold = Hold(row.matter, row.account_id, row.conversation_id, row.placed_at, row.released_at)
            if hold.account_id is not None:
                by_account[hold.account_id].append(hold)
            elif hold.conversation_id is not None:
                by_conversation[hold.conversation_id].append(hold)
            else:
                everything.append(hold)
        return cls(tuple(everything), by_account, by_conversation)

    def of(self, account_id: str | None, conversation_id: str | None) -> tuple[Hold, ...]:
        """The holds that reach the record."""
        of_account = self.by_account.get(account_id, ()) if account_id is not None else ()
        of_conversation = self.by_conversation.get(conversation_id, ()) if conversation_id is not None else ()
        return (*self.everything, *of_account, *of_conversation)


class _Orders:
    """Orders by what they name, exactly as spelt: a doubtful spelling erases nothing."""

    def __init__(self, rows: Iterable[Row[Any]]) -> None:
        self._by_account: dict[str, list[Order]] = defaultdict(list)
        self._by_conversation: dict[str, list[Order]] = defaultdict(list)
        for row in rows:
            order = Order(row.reference, row.account_id, row.conversation_id, row.recorded_at, row.due_at)
            if order.conversation_id is not None:
                self._by_conversation[order.conversation_id].append(order)
            elif order.account_id is not None:
                self._by_account[order.account_id].append(order)

    def __call__(self, account_id: str | None, conversation_id: str | None) -> tuple[Order, ...]:
        of_account = self._by_account.get(account_id, []) if account_id is not None else []
        of_conversation = self._by_conversation.get(conversation_id, []) if conversation_id is not None else []
        return (*of_account, *(order for order in of_conversation if order.names(account_id, conversation_id)))
