"""The life of a manifest: frozen, started, completed; and what has to be dropped from each.

The law of this file: no manifest is frozen or started after a purge without naming what that purged; a transition waits for
the batch at work, as a legal hold does. What a training run may have seen is never changed, only added to.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from sweeper.core.instant import rfc3339
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.job import Job
from sweeper.manifest import build as building
from sweeper.manifest import description as descriptions
from sweeper.manifest import recheck, table
from sweeper.manifest.description import DamagedError, Description
from sweeper.manifest.pseudonym import Pseudonym
from sweeper.manifest.recheck import Look
from sweeper.store import manifests
from sweeper.store.manifests import Found, Lost, State

RECORDED_AT_ONCE = 5_000


class StateError(SweeperError):
    """The manifest is not in the state that this needs; nothing was changed."""

    exit_code = 2


@dataclass(frozen=True)
class Frozen:
    """A manifest that was built and frozen."""

    folder: Path
    description: Description
    revoked: Counter[str]
    added: bool
    """False where the same manifest had been built before; this is another copy of it."""


@dataclass(frozen=True)
class Recalled:
    """What a recall found of one manifest."""

    manifest_id: str
    directory: str
    state: str
    reasons: Counter[str] = field(default_factory=Counter)
    files: tuple[str, ...] = ()
    missing: str | None = None
    """Why it could not be looked through."""


@dataclass(frozen=True)
class Verified:
    """What a verification found: faults of the files, and rows that may not be trained on now, by reason."""

    description: Description
    faults: tuple[str, ...]
    left: Counter[str]
    revoked: int
    """How many of those that left are named in the directory's own revocations."""


def freeze(job: Job, target: Path, pseudonym: Pseudonym, *, with_text: bool = False) -> Frozen:
    """Build a manifest at the job's as-of into a new directory, and freeze it.

    Raises:
        ConfigurationError: the directory, the key, the policy or the packages cannot be used.
        SweeperError: database or disk failed; nothing appears at the target.
    """
    with building.beside(target) as folder:
        description = building.build(job, folder, pseudonym, with_text=with_text)
        with recheck.look(job) as look:
            revoked = _write_lost(folder, "revoked-freeze", look.lost(folder, description))
        building.settle(folder, target)
        with _transition(job) as connection:
            revoked += _fence(job, connection, folder, description, look.last_tombstone, "freeze")
            added = manifests.add(connection, _recorded(job, target, description))
            _record(connection, folder, "revoked-freeze", description.id, job.clock.now(), "freeze")
            building.put_in_place(folder, target.absolute())
    return Frozen(target.absolute(), description, revoked, added)


def start(job: Job, manifest_id: str) -> tuple[Description, Counter[str]]:
    """Let a training run begin: every row is checked again, what left is written beside the untouched original.

    Raises:
        StateError: there is no such manifest, or it is started already.
        DamagedError: its directory is gone or was changed.
    """
    known = _known(job, manifest_id, "frozen")
    folder = Path(known["directory"])
    description = intact(folder, manifest_id)
    for path in folder.glob("revoked-start-*.parquet"):
        path.unlink()  # of an attempt that did not come to its end: the manifest is still frozen
    with recheck.look(job) as look, _aside(folder) as new:
        revoked = _write_lost(new, "revoked-start", look.lost(folder, description))
        with _transition(job) as connection:
            revoked += _fence(job, connection, new, description, look.last_tombstone, "start", folder)
            _record(connection, new, "revoked-start", manifest_id, job.clock.now(), "start")
            for path in sorted(new.iterdir()):
                path.rename(folder / path.name)
            _move(job, connection, manifest_id, "frozen", "started")
    return description, revoked


def complete(job: Job, manifest_id: str) -> None:
    """Note that a training run has ended.

    Raises:
        StateError: there is no such manifest, or it is not started.
    """
    _known(job, manifest_id, "started")
    with job.database.transaction() as connection:
        _move(job, connection, manifest_id, "started", "completed")


def listed(job: Job) -> list[dict[str, Any]]:
    """All manifests of the store, oldest first."""
    with job.database.transaction() as connection:
        return manifests.get(connection, job.contract.schema)


def recall(job: Job, out: Path | None) -> Iterator[Recalled]:
    """For every manifest ever frozen, what has left it since the last recall; written to `out` if that is given.

    A manifest whose directory is gone or damaged is named, and the others are recalled all the same.
    """
    found = listed(job)
    with recheck.look(job) as look:
        for known in found:
            said = Recalled(known["id"], known["directory"], known["state"])
            try:
                yield _recall_one(job, look, said, intact(Path(said.directory), said.manifest_id), out)
            except DamagedError as error:
                yield replace(said, missing=str(error))


def verify(job: Job, folder: Path, pseudonym: Pseudonym | None) -> Verified:
    """Whether a directory still holds what its manifest says, and which rows may not be trained on now.

    Raises:
        DamagedError: `manifest.json` itself cannot be believed.
        ConfigurationError: a key is given, and it is another than that of the manifest.
    """
    description = descriptions.read(folder)
    if pseudonym is not None and pseudonym.mark != description.subject.mark:
        raise ConfigurationError(
            f"{folder}: the manifest was built under another key for pseudonyms (mark {description.subject.mark}) than this "
            f"one ({pseudonym.mark}). Nothing was verified. Name the right key, or none."
        )
    faults = tuple(_faults(folder, description))
    if faults:
        return Verified(description, faults, Counter(), 0)
    revoked = {
        row.message_id
        for page in table.read_lost(sorted(folder.glob("revoked-*.parquet")), recheck.PAGE)
        for row in page
    }
    left: Counter[str] = Counter()
    named = 0
    with recheck.look(job) as look:
        for page in look.lost(folder, description):
            left.update(row.reason for row in page)
            named += sum(row.message_id in revoked for row in page)
    return Verified(description, (), left, named)


def intact(folder: Path, manifest_id: str) -> Description:
    """The description of a manifest whose files are all as they were.

    Raises:
        DamagedError: they are not, or it is another manifest.
    """
    description = descriptions.read(folder)
    faults = list(_faults(folder, description))
    if description.id != manifest_id:
        faults.append(f"it holds manifest {description.id}, not {manifest_id}")
    if faults:
        raise DamagedError(
            f"{folder}: {'; '.join(faults)}. Nothing was done with the manifest. Restore the directory from a copy."
        )
    return description


def _faults(folder: Path, description: Description) -> Iterator[str]:
    """What differs between the files and what the manifest says of them."""
    for file in description.files:
        path = folder / file.name
        if not path.is_file():
            yield f"{file.name} is missing"
        elif (path.stat().st_size, table.digest(path)) != (file.bytes, file.sha256):
            yield f"{file.name} was changed"
    named = {file.name for file in description.files}
    yield from (
        f"{path.name} is not of the manifest" for path in sorted(folder.glob("part-*")) if path.name not in named
    )
    if sum(file.rows for file in description.files) != description.eligible:
        yield f"{description.eligible} rows are said to be eligible, the files hold {sum(f.rows for f in description.files)}"


def _write_lost(folder: Path, prefix: str, pages: Iterable[Sequence[Lost]]) -> Counter[str]:
    """Write rows that left a manifest; returns how many by reason."""
    reasons: Counter[str] = Counter()

    def counted() -> Iterator[Sequence[Lost]]:
        for page in pages:
            reasons.update(row.reason for row in page)
            yield page

    for _ in table.write(folder, prefix, table.schema(table.REVOKED), table.lost(counted())):
        pass  # each file is whole when it is named
    return reasons


@contextmanager
def _transition(job: Job) -> Iterator[Connection]:
    """A transaction that waits for the batch at work, and has a minute for what it then does."""
    with job.database.transaction(
        lock_timeout_ms=manifests.FENCE_WAIT_MS, statement_timeout_ms=manifests.TRANSITION_MS
    ) as connection:
        yield connection


def _fence(
    job: Job,
    connection: Connection,
    folder: Path,
    description: Description,
    last_tombstone: int,
    what: Found,
    rows: Path | None = None,
) -> Counter[str]:
    """Keep purges out, and write what was purged since the look; returns how many rows of it there are."""
    manifests.fence(connection)
    purged = manifests.purged_since(connection, job.contract.schema, last_tombstone)
    known = {
        row.message_id
        for page in table.read_lost(sorted(folder.glob(f"revoked-{what}-*.parquet")), recheck.PAGE)
        for row in page
    }
    lost = [row for row in recheck.of_purged(rows or folder, description, purged) if row.message_id not in known]
    return _write_lost(folder, f"revoked-{what}-purged", [lost]) if lost else Counter()


def _record(
    connection: Connection, folder: Path, prefix: str, manifest_id: str, now: datetime, found_by: Found
) -> None:
    for page in table.read_lost(sorted(folder.glob(f"{prefix}-*.parquet")), RECORDED_AT_ONCE):
        manifests.revoke(connection, manifest_id, page, now, found_by)


def _recorded(job: Job, target: Path, description: Description) -> dict[str, Any]:
    return {
        "id": description.id,
        "store": job.contract.schema,
        "directory": str(target.absolute()),
        "as_of": description.instant,
        "policy_digest": description.policy.digest,
        "eligible": description.eligible,
        "now": job.clock.now(),
    }


def _known(job: Job, manifest_id: str, state: State) -> dict[str, Any]:
    with job.database.transaction() as connection:
        found = manifests.get(connection, job.contract.schema, manifest_id)
    if not found:
        raise StateError(f"there is no manifest {manifest_id}. Nothing was changed. See `sweeper manifest list`.")
    if found[0]["state"] != state:
        raise StateError(
            f"manifest {manifest_id} is {found[0]['state']}, not {state}. Nothing was changed. See `sweeper manifest list`."
        )
    return found[0]


def _move(job: Job, connection: Connection, manifest_id: str, before: State, after: State) -> None:
    if not manifests.move(connection, job.contract.schema, manifest_id, before, after, job.clock.now()):
        raise StateError(
            f"manifest {manifest_id} is not {before} any more. Nothing was changed. See `sweeper manifest list`."
        )


def _recall_one(job: Job, look: Look, said: Recalled, description: Description, out: Path | None) -> Recalled:
    with tempfile.TemporaryDirectory(prefix="sweeper-recall-") as spool:
        prefix = f"recall-{said.manifest_id}-{look.now:%Y%m%dT%H%M%S%f}"
        reasons = _write_lost(Path(spool), prefix, look.lost(Path(said.directory), description, only_new=True))
        files = _hand_over(Path(spool), out) if out is not None and reasons else ()
        with job.database.transaction() as connection:
            _record(connection, Path(spool), prefix, said.manifest_id, look.now, "recall")
            manifests.recalled(connection, said.manifest_id, look.now)
    return replace(said, reasons=reasons, files=files)


def _hand_over(spool: Path, out: Path) -> tuple[str, ...]:
    """Put the files of a recall where they were asked for, each whole or not at all."""
    found = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for path in sorted(spool.iterdir()):
            part = out / f".{path.name}.part"
            shutil.copyfile(path, part)
            part.rename(out / path.name)
            found.append(str(out / path.name))
    except OSError as error:
        raise SweeperError(
            f"{out}: could not be written ({error.strerror}). Nothing was recorded as recalled. Make room, and recall again."
        ) from None
    return tuple(found)


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """A directory inside another for files that appear there all at once; gone afterwards."""
    try:
        new = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    except OSError as error:
        raise SweeperError(
            f"{folder}: cannot be written ({error.strerror}). The manifest was not started. Make it writable, and start again."
        ) from None
    try:
        yield new
    finally:
        shutil.rmtree(new, ignore_errors=True)


def line(known: dict[str, Any]) -> dict[str, Any]:
    """A manifest as `manifest list --json` prints it."""
    return {key: rfc3339(value) if isinstance(value, datetime) else value for key, value in known.items()}
