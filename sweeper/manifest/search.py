"""Counts the messages of one account in the files of all manifests, by its pseudonym.

Invariant: a manifest that was not read is returned with the reason, never as one without messages of the account.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sweeper.manifest import description as descriptions
from sweeper.manifest import lifecycle, parquet
from sweeper.manifest.description import DamagedError
from sweeper.manifest.pseudonym import Pseudonym
from sweeper.postgres import manifests
from sweeper.postgres.database import Database

ROWS = 65_536
"""Rows of a file that are in memory at a time."""


@dataclass(frozen=True)
class FoundRows:
    """The messages of an account in one manifest. `messages` is None if it was not read, and `not_read` says why."""

    manifest: str
    state: str
    as_of: datetime
    frozen_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    retired_at: datetime | None
    recalled_at: datetime | None
    messages: int | None = None
    revoked: Counter[str] = field(default_factory=Counter)
    """How many of them are recorded as having left it, by who found that: freeze, start or recall."""
    rows: int = 0
    """How many rows were read."""
    not_read: str | None = None


def search(
    database: Database, pseudonym: Pseudonym, account_id: str, seen: Callable[[float], None] = lambda _: None
) -> Iterator[FoundRows]:
    """Yield every manifest of the store, retired ones too, with the messages of an account in it.

    Each manifest's files are first compared with their recorded hashes. `seen` is called with the share of all rows that is done.
    """
    found = lifecycle.list_manifests(database)
    total, done = max(sum(manifest["eligible"] for manifest in found), 1), 0
    for manifest in found:
        seen(done / total)
        done += manifest["eligible"]
        try:
            yield _searched(database, manifest, pseudonym, account_id)
        except DamagedError as error:
            yield _found(manifest, not_read=str(error))


def _searched(database: Database, manifest: dict[str, Any], pseudonym: Pseudonym, account_id: str) -> FoundRows:
    folder = Path(manifest["directory"])
    mark = descriptions.read_of(folder, manifest["id"]).subject.mark
    if mark != pseudonym.mark:
        return _found(manifest, not_read=f"it was built under another key for pseudonyms (mark {mark})")
    description = lifecycle.read_intact(database, folder, manifest["id"])
    paths = [folder / file.name for file in description.files]
    revoked: Counter[str] = Counter()
    rows, messages, subject = 0, 0, pseudonym.of(account_id)
    for page in parquet.pages(paths, ["message_id", "subject"], ROWS):
        ids = parquet.values_where(page, "subject", subject, "message_id")
        messages += len(ids)
        if ids:
            with database.transaction() as connection:
                revoked += manifests.revoked_of(connection, description.id, ids)
        rows += page.num_rows
    return _found(manifest, messages=messages, revoked=revoked, rows=rows)


def _found(manifest: dict[str, Any], **values: Any) -> FoundRows:
    names = ("state", "as_of", "frozen_at", "started_at", "completed_at", "retired_at", "recalled_at")
    return FoundRows(manifest["id"], *(manifest[name] for name in names), **values)
