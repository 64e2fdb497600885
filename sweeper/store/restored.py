"""What a database still knows of its holds and orders, to be held against what an exported ledger knows."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from sweeper.policy.instant import StoredTimestamp
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement

Known = dict[str, Counter[tuple[Any, ...]]]
"""By kind (`hold`, `order`): how many there are of each name, account and conversation; of the holds, those in force."""


def known_protections(database: Database, stands: Callable[[StoredTimestamp], bool]) -> Known:
    """The holds in force, and all orders; `stands` says of a hold's release whether it is in force all the same."""
    known: Known = {"hold": Counter(), "order": Counter()}
    for row in database.fetched(statement("known_protections"), {}):
        if stands(row.released_at):
            known[row.kind][(row.name, row.account_id, row.conversation_id)] += 1
    return known
