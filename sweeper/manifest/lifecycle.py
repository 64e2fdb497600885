"""The life of a manifest: frozen, started, completed; and what has to be dropped from each.

The law of this file: no manifest is frozen or started after a purge without naming what that purged; a transition waits for
the batch at work, as a legal hold does. What a training run may have seen is never changed, only added to.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from sweeper.clock import Clock
from sweeper.errors import ConfigurationError, SweeperError
from sweeper.manifest import build as building
from sweeper.manifest import description as descriptions
from sweeper.manifest import parquet, recheck
from sweeper.manifest.description import DamagedError, Description
from sweeper.manifest.pseudonym import Pseudonym
from sweeper.manifest.recheck import RecheckSnapshot
from sweeper.policy.instant import rfc3339
from sweeper.postgres import fence, manifests, store_counts
from sweeper.postgres.database import Database
from sweeper.postgres.manifests import ManifestRow, ManifestState, RevokedRow
from sweeper.runs.job import Job

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
        with recheck.look(job, fenced=True) as look:
            revoked = _write_lost(folder, "revoked-freeze", look.lost(folder, description))
        building.settle(folder, target, private=with_text)
        with manifests.transition(job.database) as connection:
            recorded = _recorded(job, target, description)
            added = manifests.add(connection, recorded)
            _record(connection, folder, "revoked-freeze", description.id, look.now, "freeze")
            revoked += _fence(job, connection, folder, description, look, "freeze")
            kind, columns = ("frozen", _columns(recorded)) if added else ("copied", {})
            manifests.tell(connection, kind, description.id, recorded["directory"], _revoked_files(folder), columns)
            building.put_in_place(folder, target.absolute())
    return Frozen(target.absolute(), description, revoked, added)


def start(job: Job, manifest_id: str) -> tuple[Description, Counter[str]]:
    """Let a training run begin: every row is checked again, what left is written beside the untouched original.

    Raises:
        StateError: there is no such manifest, or it is started already.
        DamagedError: its directory is gone or was changed.
    """
    known = _known(job.database, manifest_id, "frozen")
    folder = Path(known["directory"])
    description = intact(job.database, folder, manifest_id)
    with recheck.look(job, fenced=True) as look, _aside(folder) as new:
        revoked = _write_lost(new, "revoked-start", look.lost(folder, description))
        with manifests.transition(job.database) as connection:
            at = _move(job.database, job.clock, connection, manifest_id, "frozen", "started")
            _record(connection, new, "revoked-start", manifest_id, look.now, "start")
            revoked += _fence(job, connection, new, description, look, "start", folder)
            files = _revoked_files(new)
            manifests.tell(connection, "started", manifest_id, known["directory"], files, {"started_at": at})
            _put_beside(new, folder)
    return description, revoked


def complete(database: Database, clock: Clock, manifest_id: str) -> None:
    """Note that a training run has ended.

    Raises:
        StateError: there is no such manifest, or it is not started.
    """
    known = _known(database, manifest_id, "started")
    with database.transaction() as connection:
        at = _move(database, clock, connection, manifest_id, "started", "completed")
        manifests.tell(connection, "completed", manifest_id, known["directory"], {}, {"completed_at": at})


def listed(database: Database) -> list[dict[str, Any]]:
    """All manifests of the store, oldest first."""
    with database.transaction() as connection:
        return manifests.get(connection, database.settings.store.schema_name)


def recall(job: Job, out: Path | None, *, everything: bool = False) -> Iterator[Recalled]:
    """For every manifest ever frozen, what has left it since the last recall, or (`everything`) ever.

    Written to `out`, and then recorded as recalled; without `out` nothing is recorded: nobody was handed the rows.
    A manifest whose directory is gone or damaged is named, and the others are recalled all the same.
    """
    found = listed(job.database)
    with recheck.look(job) as look:
        for known in found:
            said = Recalled(known["id"], known["directory"], known["state"])
            try:
                description = intact(job.database, Path(said.directory), said.manifest_id)
                yield _recall_one(job, look, said, description, out, everything=everything)
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
    faults = tuple(_faults(job.database, folder, description))
    if faults:
        return Verified(description, faults, Counter(), 0)
    left: Counter[str] = Counter()
    with recheck.look(job) as look:
        for page in look.lost(folder, description):
            left.update(row.reason for row in page)
    with job.database.transaction() as connection:
        named = manifests.revoked(connection, description.id)
    return Verified(description, (), left, min(named, left.total()))


def intact(database: Database, folder: Path, manifest_id: str) -> Description:
    """The description of a manifest whose files are all as they were.

    Raises:
        DamagedError: they are not, or it is another manifest.
    """
    description = descriptions.read(folder)
    faults = list(_faults(database, folder, description))
    if description.id != manifest_id:
        faults.append(f"it holds manifest {description.id}, not {manifest_id}")
    if faults:
        raise DamagedError(
            f"{folder}: {'; '.join(faults)}. Nothing was done with the manifest. Restore the directory from a copy."
        )
    return description


def _faults(database: Database, folder: Path, description: Description) -> Iterator[str]:
    """What differs between the files and what the manifest, and the database, say of them."""
    named = {file.name: file.sha256 for file in description.files}
    yield from _changed(folder, named)
    yield from (
        f"{path.name} is not of the manifest" for path in sorted(folder.glob("part-*")) if path.name not in named
    )
    if sum(file.rows for file in description.files) != description.eligible:
        yield f"{description.eligible} rows are said to be eligible, the files hold {sum(f.rows for f in description.files)}"
    with database.transaction() as connection:
        records = manifests.records(connection, description.id)
        store = store_counts.identity(connection, database.settings.store.schema_name)
    if description.store != store:
        yield f"it is of store {description.store}, this is {store}"
    elif not records:
        yield "it was never recorded as frozen here"
    here = [record for record in records if record["directory"] == str(folder.absolute())]
    yield from _changed(folder, {name: digest for record in here for name, digest in record["revoked"].items()})
    if not here:
        yield from _strange(folder, {digest for record in records for digest in record["revoked"].values()})


def _strange(folder: Path, hashes: Set[str]) -> Iterator[str]:
    """In a copy, made at some time: the files of what left that were never recorded like this anywhere."""
    for path in sorted(folder.glob("revoked-*.parquet")):
        if parquet.digest(path) not in hashes:
            yield f"{path.name} was changed"


def _changed(folder: Path, named: Mapping[str, str]) -> Iterator[str]:
    """The files that are missing or have another hash."""
    for name, digest in named.items():
        try:
            found = parquet.digest(folder / name)
        except FileNotFoundError:
            yield f"{name} is missing"
        except OSError as error:
            yield f"{name} cannot be read ({error.strerror})"
        else:
            if found != digest:
                yield f"{name} was changed"


def _revoked_files(folder: Path) -> dict[str, str]:
    """The files that name what left a manifest, with their hashes."""
    return {path.name: parquet.digest(path) for path in sorted(folder.glob("revoked-*.parquet"))}


def _put_beside(new: Path, folder: Path) -> None:
    """Put the files of a start beside the manifest, in place of what an attempt left that did not come to its end."""
    with building.disk_errors(folder):
        for path in folder.glob("revoked-start-*.parquet"):
            path.unlink()
        for path in sorted(new.iterdir()):
            path.rename(folder / path.name)
        building.sync(folder)


def _write_lost(folder: Path, prefix: str, pages: Iterable[Sequence[RevokedRow]]) -> Counter[str]:
    """Write rows that left a manifest; returns how many by reason."""
    reasons: Counter[str] = Counter()

    def counted() -> Iterator[Sequence[RevokedRow]]:
        for page in pages:
            reasons.update(row.reason for row in page)
            yield page

    with building.disk_errors(folder):
        for part in parquet.write(folder, prefix, parquet.schema(parquet.REVOKED), parquet.lost(counted())):
            building.sync(folder / part.name)
    return reasons


def _fence(
    job: Job,
    connection: Connection,
    folder: Path,
    description: Description,
    look: RecheckSnapshot,
    what: ManifestRow,
    rows: Path | None = None,
) -> Counter[str]:
    """Keep purges out, write and record what was purged since the look; returns how many rows of it there are."""
    fence.take_exclusively(connection)
    purged = manifests.purged_since(connection, job.contract.schema, look.last_tombstone)
    lost = list(recheck.of_purged(rows or folder, description, purged))
    if not lost:
        return Counter()
    manifests.revoke(connection, description.id, lost, look.now, what)
    return _write_lost(folder, f"revoked-{what}-purged", [lost])


def _record(
    connection: Connection, folder: Path, prefix: str, manifest_id: str, now: datetime, found_by: ManifestRow
) -> None:
    for page in parquet.read_lost(sorted(folder.glob(f"{prefix}-*.parquet")), RECORDED_AT_ONCE):
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


def _columns(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a frozen manifest that its event records beside id and directory."""
    told = {name: recorded[name] for name in ("store", "as_of", "policy_digest", "eligible")}
    return {**told, "frozen_at": recorded["now"]}


def _known(database: Database, manifest_id: str, state: ManifestState) -> dict[str, Any]:
    with database.transaction() as connection:
        found = manifests.get(connection, database.settings.store.schema_name, manifest_id)
    if not found:
        raise StateError(f"there is no manifest {manifest_id}. Nothing was changed. See `sweeper manifest list`.")
    if found[0]["state"] != state:
        raise StateError(
            f"manifest {manifest_id} is {found[0]['state']}, not {state}. Nothing was changed. See `sweeper manifest list`."
        )
    return found[0]


def _move(
    database: Database,
    clock: Clock,
    connection: Connection,
    manifest_id: str,
    before: ManifestState,
    after: ManifestState,
) -> datetime:
    """Move a manifest to its next state; returns the instant."""
    store, now = database.settings.store.schema_name, clock.now()
    if not manifests.move(connection, store, manifest_id, before, after, now):
        raise StateError(
            f"manifest {manifest_id} is not {before} any more. Nothing was changed. See `sweeper manifest list`."
        )
    return now


def _recall_one(
    job: Job, look: RecheckSnapshot, said: Recalled, description: Description, out: Path | None, *, everything: bool
) -> Recalled:
    with tempfile.TemporaryDirectory(prefix="sweeper-recall-") as spool:
        prefix = f"recall-{said.manifest_id}-{look.now:%Y%m%dT%H%M%S%f}"
        reasons = _write_lost(
            Path(spool), prefix, look.lost(Path(said.directory), description, only_new=not everything)
        )
        if out is None:
            return replace(said, reasons=reasons)
        files = _hand_over(Path(spool), out) if reasons else ()
        with job.database.transaction() as connection:
            _record(connection, Path(spool), prefix, said.manifest_id, look.now, "recall")
            manifests.recalled(connection, job.contract.schema, said.manifest_id, look.now, reasons)
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
            f"{out}: could not be written ({error.strerror}). Nothing of this manifest was recorded as recalled. "
            "Make room, and recall again."
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
