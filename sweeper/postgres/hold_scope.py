"""The scope of a hold or an order: which records the account or conversation that it names covers.

Invariant: it asks for the types of the ids and nothing more, so that no other fault of the store keeps a hold out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sweeper.errors import ConfigurationError
from sweeper.postgres import contract as contracts
from sweeper.postgres import protections
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement


@dataclass(frozen=True)
class HoldScope:
    """The ids as the store writes them, the unknown ones, and the number of conversations that they cover."""

    account_id: str | None
    conversation_id: str | None
    unknown: tuple[str, ...]
    of_account: int
    of_conversation: int
    of_both: int

    @property
    def either(self) -> int:
        """The number of conversations that a hold on these ids covers."""
        return self.of_account + self.of_conversation - self.of_both

    @property
    def both(self) -> int:
        """The number of conversations that an order on these ids covers; if both are named, of both."""
        named = self.account_id is not None and self.conversation_id is not None
        return self.of_both if named else self.of_account + self.of_conversation


def read(database: Database, account: str | None, conversation: str | None) -> HoldScope:
    """Return the scope of the ids.

    Raises:
        ConfigurationError: an id cannot be one, or the store has no such relation.
    """
    with database.transaction() as connection:
        types, _ = contracts.relations(connection, database.settings.store.schema_name)
    account_type = _type(types, "accounts", database)
    conversation_type = _type(types, "conversations", database)
    account_id = protections.canonical(database, account_type, account, "--account")
    conversation_id = protections.canonical(database, conversation_type, conversation, "--conversation")
    asked = {"account": account_id, "conversation": conversation_id}
    owner = types["conversations"].get("account_id", account_type)
    sql = statement("hold_scope", account=account_type, conversation=conversation_type, owner=owner)
    row = database.fetched(sql, asked)[0]
    known = (("account", account_id, row.account_known), ("conversation", conversation_id, row.of_conversation))
    unknown = tuple(f"{what} {id_}" for what, id_, found in known if id_ is not None and not found)
    return HoldScope(account_id, conversation_id, unknown, row.of_account, row.of_conversation, row.of_both)


def _type(types: Mapping[str, Mapping[str, str]], relation: str, database: Database) -> str:
    found = types.get(relation, {}).get("id")
    if found is None:
        raise ConfigurationError(
            f"{database.settings.store.schema_name}.{relation} with its column id is missing. Nothing was recorded. "
            "See `sweeper check`."
        )
    return found
