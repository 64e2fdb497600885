"""Records plans and consent in the sweeper's own tables, for stores that keep none. A trigger adds an event for each row.

Invariant: rows are only added, and the server says when each was recorded.
"""

import json
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy.exc import DBAPIError, IntegrityError

from sweeper.encoding import to_json
from sweeper.errors import ConfigurationError
from sweeper.policy.instant import OutOfRange
from sweeper.postgres import contract as contracts
from sweeper.postgres import database as databases
from sweeper.postgres import protections
from sweeper.postgres.database import Database
from sweeper.postgres.statement import statement

ChoiceKind = Literal["plan", "consent"]
RELATIONS: dict[ChoiceKind, str] = {"plan": "plan_changes", "consent": "consent_events"}
"""The relation of the store, and the table of schema sweeper, that holds each kind."""
Effective = datetime | OutOfRange | None


@dataclass(frozen=True)
class Choice:
    """A plan change (`granted` is None), or a grant or a withdrawal of a purpose. `name`: the plan or the purpose."""

    account_id: str
    name: str
    granted: bool | None
    effective_at: Effective = None
    recorded_at: datetime | None = None

    @property
    def kind(self) -> ChoiceKind:
        """What was chosen."""
        return "plan" if self.granted is None else "consent"

    @property
    def command(self) -> str:
        """The command that records it again."""
        options = [f"--effective={to_json(self.effective_at)}", "--unknown"]
        if self.granted is None:
            return shlex.join(["sweeper", "plan", "record", *options, "--", self.account_id, self.name])
        options += [f"--purpose={self.name}", "--granted" if self.granted else "--withdrawn"]
        return shlex.join(["sweeper", "consent", "record", *options, "--", self.account_id])

    def is_repeated_by(self, row: Mapping[str, Any]) -> bool:
        """True if a row says the same; of consent the instant may differ, since none is back-dated."""
        if self.granted is None:
            return (row["plan"], row["effective_at"]) == (self.name, self.effective_at)
        return (row["purpose"], row["granted"]) == (self.name, self.granted)


def record(database: Database, choice: Choice) -> dict[str, Any]:
    """Record a choice and return its row.

    Raises:
        ConfigurationError: the table refuses a value.
    """
    values = {
        "account_id": choice.account_id,
        "plan": choice.name,
        "purpose": choice.name,
        "granted": choice.granted,
        "effective_at": to_json(choice.effective_at),
    }
    try:
        with database.transaction() as connection:
            row = connection.execute(statement(f"record_{choice.kind}"), values).one()
    except IntegrityError as error:
        raise ConfigurationError(
            f"the database refuses it: {databases.reason(error)}. Nothing was recorded. Give other values."
        ) from None
    return dict(row._mapping)


def recorded(database: Database, kind: ChoiceKind, account_id: str) -> list[dict[str, Any]]:
    """Return what was recorded of an account, the newest first."""
    rows = database.fetched(statement(f"recorded_{kind}"), {"account_id": account_id})
    return [dict(row._mapping) for row in rows]


def account(database: Database, value: str) -> tuple[str, bool]:
    """Return an account's id as the store writes it, and whether the store has the account.

    Raises:
        ConfigurationError: the id is not of the store's type, or the relation is missing.
    """
    type_ = _types(database, "accounts").get("id")
    if type_ is None:
        raise ConfigurationError(
            f"{database.settings.store.schema_name}.accounts with its column id is missing. Nothing was recorded. "
            "See `sweeper check`."
        )
    id_ = protections.canonical(database, type_, value, "account") or value
    known: bool = database.fetched(statement("account_is_known", account=type_), {"account_id": id_})[0].is_known
    return id_, known


def is_shown(database: Database, kind: ChoiceKind, id_: int) -> bool | None:
    """Return whether the store's relation shows a recorded choice, so that it has an effect; None if that cannot be seen."""
    try:
        type_ = _types(database, RELATIONS[kind]).get("account_id", "text")
        sql = statement(f"is_shown_{kind}", account=type_)
        shown: bool = database.fetched(sql, {"id": id_})[0].is_shown
    except DBAPIError:
        return None
    return shown


def _types(database: Database, relation: str) -> dict[str, str]:
    with database.transaction() as connection:
        types, _ = contracts.relations(connection, database.settings.store.schema_name)
    return types.get(relation, {})


def lost(database: Database, choices: Sequence[Choice]) -> list[Choice]:
    """Return those of some choices that this database does not have."""
    listed = [{"number": number, **to_json(choice)} for number, choice in enumerate(choices)]
    return [choices[row.number] for row in database.fetched(statement("lost_choices"), {"choices": json.dumps(listed)})]


def not_repeated(database: Database, lost: Sequence[Choice]) -> list[Choice]:
    """Return those of the lost choices, given in their order, that were not recorded again in that order.

    The order matters: of a grant and a withdrawal, the later one counts.
    """
    histories: dict[tuple[str, str | None], list[Choice]] = defaultdict(list)
    for choice in lost:
        histories[choice.account_id, None if choice.kind == "plan" else choice.name].append(choice)
    for (account_id, _), left in histories.items():
        first = left[0]
        for row in reversed(recorded(database, first.kind, account_id)):
            if left and row["recorded_at"] >= first.recorded_at and left[0].is_repeated_by(row):
                del left[0]
    return [choice for left in histories.values() for choice in left]
