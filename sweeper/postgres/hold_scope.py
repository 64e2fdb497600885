"""What a hold or an order for an account or a conversation covers in the store.

Invariant: this reads only the types of the ids, so that no other fault of the store prevents a hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy.exc import DBAPIError

from sweeper.errors import ConfigurationError
from sweeper.postgres import contract as contracts
from sweeper.postgres import protections
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement


@dataclass(frozen=True)
class HoldScope:
    """The ids as the store writes them, which of them are unknown, and how many conversations they name.

    `feedback`: how many feedback rows belong to the account, to the conversation, and to both; None if they could not be counted.
    """

    account_id: str | None
    conversation_id: str | None
    unknown: tuple[str, ...]
    of_account: int
    of_conversation: int
    of_both: int
    feedback: tuple[int, int, int] | None

    @property
    def either(self) -> "Reach":
        """What a hold on these ids covers."""
        counts = (self.of_account, self.of_conversation, self.of_both)
        return Reach(_either(*counts), _either(*self.feedback) if self.feedback else None)

    @property
    def both(self) -> "Reach":
        """What an order with these ids covers; if it names both, a record must match both."""
        if self.account_id is None or self.conversation_id is None:
            return self.either
        return Reach(self.of_both, self.feedback[2] if self.feedback else None)


class Reach(NamedTuple):
    """How many conversations and feedback rows a hold or an order covers; None: not known."""

    conversations: int
    feedback: int | None

    def __str__(self) -> str:
        feedback = "feedback not counted" if self.feedback is None else _counted(self.feedback, "feedback row")
        return f"{_counted(self.conversations, 'conversation')} now, and {feedback}"


COUNT_MS = 5_000
"""The longest that counting feedback may take: a hold does not wait for it."""


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _either(of_account: int, of_conversation: int, of_both: int) -> int:
    return of_account + of_conversation - of_both


def read(database: Database, account: str | None, conversation: str | None) -> HoldScope:
    """Return what the ids cover now.

    Raises:
        ConfigurationError: an id is not of the store's type, or the relation is missing.
    """
    with database.transaction() as connection:
        types, _ = contracts.relations(connection, database.settings.store.schema_name)
    account_type = _type(types, "accounts", database)
    conversation_type = _type(types, "conversations", database)
    account_id = protections.canonical(database, account_type, account, "--account")
    conversation_id = protections.canonical(database, conversation_type, conversation, "--conversation")
    parameters = {"account": account_id, "conversation": conversation_id}
    owner = types["conversations"].get("account_id", account_type)
    sql = statement("hold_scope", account=account_type, conversation=conversation_type, owner=owner)
    row = database.fetched(sql, parameters)[0]
    known = (("account", account_id, row.account_known), ("conversation", conversation_id, row.of_conversation))
    unknown = tuple(f"{what} {id_}" for what, id_, found in known if id_ is not None and not found)
    feedback = _feedback(database, types.get("feedback", {}), parameters)
    return HoldScope(account_id, conversation_id, unknown, row.of_account, row.of_conversation, row.of_both, feedback)


def _feedback(
    database: Database, types: Mapping[str, str], parameters: Mapping[str, str | None]
) -> tuple[int, int, int] | None:
    """Count the feedback rows; None if the relation is missing, unreadable or too large to count: that prevents no hold."""
    if not {"account_id", "conversation_id"} <= types.keys():
        return None
    sql = statement("hold_scope_feedback", account=types["account_id"], conversation=types["conversation_id"])
    try:
        with database.transaction(statement_timeout_ms=COUNT_MS) as connection:
            row = connection.execute(sql, parameters).one()
    except DBAPIError:
        return None
    return row.of_account, row.of_conversation, row.of_both


def _type(types: Mapping[str, Mapping[str, str]], relation: str, database: Database) -> str:
    type_ = types.get(relation, {}).get("id")
    if type_ is None:
        raise ConfigurationError(
            f"{database.settings.store.schema_name}.{relation} with its column id is missing. Nothing was recorded. "
            "See `sweeper check`."
        )
    return type_
