"""Compares the sweeper's own tables with the events, and reports each difference as a fault.

Invariant: the events are trusted, since the tree covers them; the rows are not. A fault quotes only ids, instants, counts and
words of the sweeper's own.
"""

import re
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Row

from sweeper.evidence import ledger, state
from sweeper.evidence import note as notes
from sweeper.evidence.note import NoteError
from sweeper.evidence.state import Difference
from sweeper.evidence.walk import LedgerFault, LedgerFaultKind
from sweeper.settings import Settings

QUOTED_COLUMNS = frozenset(
    (
        *("id", "store", "kind", "outcome", "state", "policy_digest", "token", "backfill_id", "run_id", "eligible"),
        *("plan_changes", "consent_events", "account_id", "conversation_id", "granted"),
    )
)
"""Columns whose values a fault quotes, beside instants: never a matter, a reason or a reference, which people write."""
KINDS = {
    "missing": LedgerFaultKind.MISSING,
    "untold": LedgerFaultKind.UNTOLD,
    "dropped": LedgerFaultKind.UNTOLD,
    "changed": LedgerFaultKind.CHANGED,
}
DEFAULT_ORIGIN = re.compile(r"sweeper/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
"""The default origin of a log, which contains the identity of its database."""


def faults(connection: Connection, settings: Settings) -> Iterator[LedgerFault]:
    """Yield every difference between the tables and the events; `connection` must see one snapshot."""
    yield from _identity_faults(connection, settings)
    for table in state.TABLES:
        for difference in state.differences(connection, table):
            yield _row_fault(table, difference)
        if table == "runs":
            yield from map(_orphans_fault, state.orphans(connection))


def _identity_faults(connection: Connection, settings: Settings) -> Iterator[LedgerFault]:
    here = state.identity_rows(connection)
    if len(here) != 1:
        yield _identity_fault(f"sweeper.identity has {len(here)} rows instead of one")
        return
    for identity, event_id in state.identities(connection).items():
        if identity != here[0]:
            text = f"sweeper.identity is {here[0]}, event {event_id} (run_opened) says {identity}: it was altered"
            yield _identity_fault(text)
    named = _identity_in_origin(connection, settings)
    if named not in (None, here[0]):
        text = f"sweeper.identity is {here[0]}, the newest checkpoint is of the log sweeper/{named}: it was altered"
        yield _identity_fault(text)


def _identity_in_origin(connection: Connection, settings: Settings) -> str | None:
    """The identity in the origin of the newest checkpoint; None if the settings name the log."""
    last = ledger.last(connection)
    try:
        origin = notes.parse(last.note).tree.origin if last else ""
    except NoteError:  # verify_tree reports that one
        return None
    found = DEFAULT_ORIGIN.fullmatch(origin)
    return found[1] if found and origin != settings.evidence.origin else None


def _identity_fault(text: str) -> LedgerFault:
    return LedgerFault(LedgerFaultKind.IDENTITY, text, "identity", column="id")


def _orphans_fault(found: Row[Any]) -> LedgerFault:
    text = (
        f"sweeper.runs {found.run_id} is missing: {found.tombstones} tombstones name it, the first is {found.first_id}"
    )
    return LedgerFault(LedgerFaultKind.MISSING, text, "runs", found.run_id)


def _row_fault(table: str, found: Difference) -> LedgerFault:
    text = f"sweeper.{table} {found.id} {_describe(found)}"
    return LedgerFault(KINDS[found.how], text, table, _number(found.id), column=found.name)


def _describe(found: Difference) -> str:
    if found.how == "missing":
        return f"is missing: event {found.event_id} records it, and no event records that it was deleted"
    if found.how == "untold":
        return "exists, and no event records that it was added: the row or its event was altered"
    if found.how == "dropped":
        return f"exists, although event {found.event_id} records that it was deleted"
    name = found.name or ""
    if name in QUOTED_COLUMNS or state.is_instant(name):
        values = f"is {_value(found.here)}, the events (up to {found.event_id}) say {_value(found.recorded)}"
    else:
        values = f"is not what the events (up to {found.event_id}) say"
    return f"was changed without an event: {name} {values}"


def _value(text: str | None) -> str:
    return "null" if text is None else text[:100]


def _number(id_: str) -> int | str:
    return int(id_) if re.fullmatch(r"-?[0-9]+", id_) else id_
