"""Exports the conversations of a manifest with filtered text, in the form in which chat models are trained.

Invariant: only text that may be trained on when the export begins is read, and only text that passed the filter is yielded.
Memory does not grow with the manifest, only with its longest conversation.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from itertools import groupby
from pathlib import Path
from typing import Any

from sweeper.manifest import lifecycle, recheck, snapshot
from sweeper.manifest.lifecycle import StateError
from sweeper.manifest.recheck import TextRow
from sweeper.policy.instant import rfc3339
from sweeper.postgres import manifests
from sweeper.redact import pool
from sweeper.redact.filter import Filter, Filtered
from sweeper.runs.job import Job

EXPORTABLE = ("frozen", "started", "completed")
ROLES = ("user", "assistant")


class Skip(StrEnum):
    """Why a message that may be trained on is not exported."""

    NO_TEXT = "no_text"
    NOT_PASSED = "not_passed"
    AUTHOR = "author"


@dataclass
class TextExport:
    """An export that has begun; `conversations` counts while it is read."""

    manifest_id: str
    format: str
    as_of: datetime
    filter: Filter
    rows: Iterable[TextRow]
    expected: int = 0
    written: int = 0
    messages: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def conversations(self) -> Iterator[dict[str, Any]]:
        """Yield each conversation that has text left, as one object."""
        for _, group in groupby(self._messages(), lambda message: message[0].conversation_id):
            conversation = list(group)
            self.written += 1
            self.messages += len(conversation)
            yield _as_chat(conversation)

    def to_dict(self) -> dict[str, Any]:
        """Return what was exported, for JSON output."""
        return {
            "id": self.manifest_id,
            "format": self.format,
            "as_of": rfc3339(self.as_of),
            "filter": {"name": self.filter.name, "version": self.filter.version},
            "conversations": self.written,
            "messages": self.messages,
            "skipped": dict(sorted(self.skipped.items())),
        }

    def _messages(self) -> Iterator[tuple[TextRow, str]]:
        """Yield the messages to export with their filtered text, and count the others."""
        pending: deque[TextRow] = deque()

        def texts() -> Iterator[str | None]:
            for row in self.rows:
                if row.reason is not None:
                    self.skipped[row.reason] += 1
                else:
                    pending.append(row)
                    yield row.body

        for result in pool.apply_all(self.filter, texts()):
            row = pending.popleft()
            skip = _skip(row, result)
            if skip is None and result.text:
                yield row, result.text
            else:
                self.skipped[skip or Skip.NO_TEXT] += 1


def _skip(row: TextRow, result: Filtered) -> Skip | None:
    if not result.passed:
        return Skip.NOT_PASSED
    return None if row.author in ROLES else Skip.AUTHOR


def _as_chat(conversation: list[tuple[TextRow, str]]) -> dict[str, Any]:
    """Return a conversation as chat trainers read it, with what names its messages in the manifest."""
    rows = [row for row, _ in conversation]
    expiries = [row.expires_at for row in rows if row.expires_at is not None]
    return {
        "messages": [{"role": row.author, "content": text} for row, text in conversation],
        "conversation_id": rows[0].conversation_id,
        "message_ids": [row.message_id for row in rows],
        "turns": [row.turn for row in rows],
        "split": rows[0].split,
        "expires_at": rfc3339(min(expiries)) if expiries else None,
    }


@contextmanager
def open_export(job: Job, manifest_id: str, format_: str) -> Iterator[TextExport]:
    """Begin an export and record it as an event, before any text leaves the store.

    Raises:
        StateError: the manifest does not exist or is in a state in which nothing may be trained on it.
        DamagedError: its directory is missing or was changed.
        ConfigurationError: the libraries of the extra `text` are not installed, or messages are not stored as text.
    """
    manifest = lifecycle.find_in_use(job.database, manifest_id)
    if manifest["state"] not in EXPORTABLE:
        raise StateError(
            f"manifest {manifest_id} is {manifest['state']}: nothing was exported. Build another manifest and export that."
        )
    snapshot.refuse_encoded(job, "Nothing was exported. Give the relation a body of type text.")
    chosen = Filter()
    folder = Path(manifest["directory"])
    description = lifecycle.read_intact(job.database, folder, manifest_id)
    with recheck.open_recheck(job) as checked:
        export = TextExport(
            manifest_id, format_, checked.now, chosen, checked.text_rows(folder, description), description.eligible
        )
        columns = {"format": format_, "exported_at": checked.now, "filter": f"{chosen.name} {chosen.version}"}
        with job.database.transaction() as connection:
            manifests.record_change(connection, "exported", manifest_id, manifest["directory"], {}, columns)
        yield export
