"""The life cycle of manifests (frozen, started, completed, retired), their verification, and the recall of rows that left them.

Invariant: when a manifest is frozen or started, its revocations name all rows purged by then; therefore a transition waits for
the open batch, as the placement of a hold does. Files that a training run may have read never change; files are only added.
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
from sweeper.log import Told, untold
from sweeper.manifest import build as building
from sweeper.manifest import description as descriptions
from sweeper.manifest import parquet, recheck
from sweeper.manifest.description import DamagedError, Description
from sweeper.manifest.pseudonym import Pseudonym
from sweeper.manifest.recheck import RecheckSnapshot
from sweeper.policy.instant import rfc3339
from sweeper.postgres import fence, manifests, store_counts
from sweeper.postgres.database import Database
from sweeper.postgres.manifests import ManifestRow, ManifestState, PlaceRecord, RevokedRow
from sweeper.runs.job import Job

ROWS_PER_STATEMENT = 5_000


class StateError(SweeperError):
    """The manifest does not exist or is in another state than required; nothing was changed."""

    exit_code = 2


@dataclass(frozen=True)
class FrozenManifest:
    """A frozen manifest, with the number of revoked rows by reason."""

    folder: Path
    description: Description
    revoked: Counter[str]
    added: bool
    """False if the same manifest was frozen before and this is another copy."""
    replaced: tuple[str, ...] = ()
    """Ids of the manifests that were in this directory before and never started; they are retired now."""
    displaced: tuple[str, ...] = ()
    """Ids of the started or completed manifests that were in this directory before."""


@dataclass(frozen=True)
class RecallResult:
    """The result of a recall for one manifest, with the number of rows to drop by reason and the files that list them."""

    manifest_id: str
    directory: str
    state: str
    reasons: Counter[str] = field(default_factory=Counter)
    files: tuple[str, ...] = ()
    missing: str | None = None
    """Why the manifest could not be checked."""


@dataclass(frozen=True)
class Verification:
    """The result of a verification: faults of the files, and the number of rows that may no longer be trained on, by reason."""

    description: Description
    faults: tuple[str, ...]
    ineligible: Counter[str]
    revoked: int
    """Number of the ineligible rows that the directory's revocation files name."""
    retired_at: datetime | None = None


def freeze(
    job: Job, target: Path, pseudonym: Pseudonym, *, with_text: bool = False, told: Told = untold
) -> FrozenManifest:
    """Build a manifest as of the job's as-of in a new directory, and freeze it; `told` is told how far that is.

    Raises:
        ConfigurationError: the directory, the key, the policy or the packages cannot be used.
        SweeperError: database or disk failed; nothing appears at the target.
    """
    with building.build_directory(target) as folder:
        description = building.build(job, folder, pseudonym, with_text=with_text, told=told)
        with recheck.open_recheck(job, fenced=True, told=told) as snapshot:
            revoked = _write_revocations(folder, "revoked-freeze", snapshot.revoked_rows(folder, description))
        building.sync_directory(folder, target, private=with_text)
        with manifests.transition(job.database) as connection:
            row = _manifest_row(job, target, description)
            added = manifests.add(connection, row)
            earlier = [] if not added else _in_directory(connection, row)
            for manifest in earlier:
                if manifest["state"] == "frozen":
                    _retire(connection, job.contract.schema, manifest, {"replaced_by": description.id})
            _record_revocations(connection, folder, "revoked-freeze", description.id, snapshot.now, "freeze")
            revoked += _revoke_purged(job, connection, folder, description, snapshot, "freeze")
            kind, columns = ("frozen", _event_columns(row)) if added else (_kind_of_copy(connection, row), {})
            manifests.record_change(connection, kind, description.id, row["directory"], _revoked_files(folder), columns)
            building.publish(folder, target.absolute())
    replaced = tuple(manifest["id"] for manifest in earlier if manifest["state"] == "frozen")
    displaced = tuple(manifest["id"] for manifest in earlier if manifest["state"] != "frozen")
    return FrozenManifest(target.absolute(), description, revoked, added, replaced, displaced)


def _in_directory(connection: Connection, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the other manifests in use that were recorded in the directory of a new one; their files are gone."""
    return [
        manifest
        for manifest in manifests.get(connection, row["store"])
        if manifest["directory"] == row["directory"] and manifest["id"] != row["id"] and manifest["retired_at"] is None
    ]


def _kind_of_copy(connection: Connection, row: Mapping[str, Any]) -> str:
    """Return `relocated` if the directory of the manifest that was built again is gone, else `copied`."""
    known = manifests.get(connection, row["store"], row["id"])
    return "copied" if known and (Path(known[0]["directory"]) / descriptions.NAME).exists() else "relocated"


def start(job: Job, manifest_id: str, told: Told = untold) -> tuple[Description, Counter[str]]:
    """Record the start of a training run, after checking every row again and writing the revoked rows beside the original.

    Raises:
        StateError: the manifest does not exist or was started before.
        DamagedError: its directory is missing or was changed.
    """
    manifest = _require_state(job.database, manifest_id, "frozen")
    folder = Path(manifest["directory"])
    description = read_intact(job.database, folder, manifest_id)
    with recheck.open_recheck(job, fenced=True, told=told) as snapshot, _temporary_directory(folder) as new:
        revoked = _write_revocations(new, "revoked-start", snapshot.revoked_rows(folder, description))
        with manifests.transition(job.database) as connection:
            at = _transition(job.database, job.clock, connection, manifest, "started")
            _record_revocations(connection, new, "revoked-start", manifest_id, snapshot.now, "start")
            revoked += _revoke_purged(job, connection, new, description, snapshot, "start", folder)
            files = _revoked_files(new)
            manifests.record_change(
                connection, "started", manifest_id, manifest["directory"], files, {"started_at": at}
            )
            _move_files(new, folder)
    return description, revoked


def complete(database: Database, clock: Clock, manifest_id: str) -> None:
    """Record the end of a training run.

    Raises:
        StateError: the manifest does not exist or is not started.
    """
    manifest = _require_state(database, manifest_id, "started")
    with database.transaction() as connection:
        at = _transition(database, clock, connection, manifest, "completed")
        manifests.record_change(connection, "completed", manifest_id, manifest["directory"], {}, {"completed_at": at})


def retire(database: Database, manifest_id: str) -> dict[str, Any]:
    """Record that a manifest is not used any more: it is not started, completed or recalled from now on. Return its row.

    Raises:
        StateError: the manifest does not exist or is retired.
    """
    manifest = find_in_use(database, manifest_id)
    store = database.settings.store.schema_name
    with database.transaction() as connection:
        _retire(connection, store, manifest, {})
        return manifests.get(connection, store, manifest_id)[0]


def relocate(database: Database, manifest_id: str, folder: Path) -> dict[str, Any]:
    """Record that a manifest's directory was moved, after checking that all its files are there unchanged. Return its row.

    Raises:
        StateError: the manifest does not exist or is retired.
        DamagedError: a file is missing or was changed.
    """
    manifest, store = find_in_use(database, manifest_id), database.settings.store.schema_name
    read_intact(database, folder, manifest_id)
    with database.transaction() as connection:
        revoked = _revocations_in(manifests.records(connection, manifest_id), manifest["directory"]) or {}
    if faults := list(_changed(folder, revoked)):
        raise _damaged(folder, faults)
    with database.transaction() as connection:
        _lock_unchanged(connection, store, manifest)
        moved_from = {"from": manifest["directory"]}
        manifests.record_change(connection, "relocated", manifest_id, str(folder.absolute()), revoked, moved_from)
        return manifests.get(connection, store, manifest_id)[0]


def _retire(connection: Connection, store: str, manifest: Mapping[str, Any], details: Mapping[str, Any]) -> None:
    _lock_unchanged(connection, store, manifest)
    manifests.record_change(connection, "retired", manifest["id"], manifest["directory"], {}, details)


def _lock_unchanged(connection: Connection, store: str, manifest: Mapping[str, Any]) -> None:
    """Lock a manifest that is still as it was read.

    Raises:
        StateError: another command has changed it.
    """
    manifests.lock(connection, manifest["id"])
    now = manifests.get(connection, store, manifest["id"])[0]
    if any(now[name] != manifest[name] for name in ("state", "directory", "retired_at")):
        raise StateError(
            f"manifest {manifest['id']} was changed by another command at the same time. Nothing was changed here. See "
            "`sweeper manifest list`."
        )


def list_manifests(database: Database) -> list[dict[str, Any]]:
    """Return all manifests of the store, oldest first."""
    with database.transaction() as connection:
        return manifests.get(connection, database.settings.store.schema_name)


def find(database: Database, manifest_id: str) -> dict[str, Any]:
    """Return one manifest of the store.

    Raises:
        StateError: the manifest does not exist.
    """
    store = database.settings.store.schema_name
    with database.transaction() as connection:
        found = manifests.get(connection, store, manifest_id)
    if not found:
        raise StateError(
            f"there is no manifest {manifest_id} of store {store}. Nothing was changed. See `sweeper manifest list`."
        )
    return found[0]


def find_in_use(database: Database, manifest_id: str) -> dict[str, Any]:
    """Return one manifest of the store that is not retired.

    Raises:
        StateError: the manifest does not exist or is retired.
    """
    found = find(database, manifest_id)
    if found["retired_at"] is not None:
        raise StateError(
            f"manifest {manifest_id} was retired on {rfc3339(found['retired_at'])}. Nothing was changed. Build a new one."
        )
    return found


def recall(job: Job, out: Path | None, *, everything: bool = False, told: Told = untold) -> Iterator[RecallResult]:
    """Yield for every manifest in use the rows that were revoked since its last recall, or all of them if `everything`.

    The rows are written to files in `out` and then recorded as recalled; without `out` nothing is recorded. A manifest whose
    directory is missing or damaged gets a result that says so, and the recall continues.
    """
    found = [manifest for manifest in list_manifests(job.database) if manifest["retired_at"] is None]
    with recheck.open_recheck(job, told=told) as snapshot:
        for manifest in found:
            result = RecallResult(manifest["id"], manifest["directory"], manifest["state"])
            try:
                description = read_intact(job.database, Path(result.directory), result.manifest_id)
                yield _recall(job, snapshot, result, description, out, everything=everything)
            except DamagedError as error:
                yield replace(result, missing=str(error))


def verify(job: Job, folder: Path, pseudonym: Pseudonym | None, told: Told = untold) -> Verification:
    """Check the files of a manifest and the eligibility of its rows now.

    Raises:
        DamagedError: `manifest.json` is missing, invalid or changed.
        ConfigurationError: the given key is not the manifest's.
    """
    description = descriptions.read(folder)
    if pseudonym is not None and pseudonym.mark != description.subject.mark:
        raise ConfigurationError(
            f"{folder}: the manifest was built under another key for pseudonyms (mark {description.subject.mark}) than this "
            f"one ({pseudonym.mark}). Nothing was verified. Name the right key, or none."
        )
    faults = tuple(_faults(job.database, folder, description))
    if faults:
        return Verification(description, faults, Counter(), 0)
    with job.database.transaction() as connection:
        retired = [row["retired_at"] for row in manifests.get(connection, job.contract.schema, description.id)]
    ineligible: Counter[str] = Counter()
    with recheck.open_recheck(job, told=told) as snapshot:
        for page in snapshot.revoked_rows(folder, description):
            ineligible.update(row.reason for row in page)
    with job.database.transaction() as connection:
        named = manifests.revoked(connection, description.id)
    return Verification(description, (), ineligible, min(named, ineligible.total()), *retired)


def read_intact(database: Database, folder: Path, manifest_id: str) -> Description:
    """Read the description of a manifest whose files are unchanged.

    Raises:
        DamagedError: a file was changed, or the directory contains another manifest.
    """
    description = descriptions.read(folder)
    faults = list(_faults(database, folder, description))
    if description.id != manifest_id:
        faults.append(f"it holds manifest {description.id}, not {manifest_id}")
    if faults:
        raise _damaged(folder, faults)
    return description


def _damaged(folder: Path, faults: Sequence[str]) -> DamagedError:
    return DamagedError(
        f"{folder}: {'; '.join(faults)}. Nothing was done with the manifest. Restore the directory from a copy."
    )


def _faults(database: Database, folder: Path, description: Description) -> Iterator[str]:
    """Yield the differences between the files and what manifest and database say about them."""
    named = {file.name: file.sha256 for file in description.files}
    yield from _changed(folder, named)
    yield from (
        f"{path.name} is not of the manifest" for path in sorted(folder.glob("part-*")) if path.name not in named
    )
    if sum(file.rows for file in description.files) != description.eligible:
        yield f"{description.eligible} rows should be eligible, the files hold {sum(f.rows for f in description.files)}"
    with database.transaction() as connection:
        records = manifests.records(connection, description.id)
        store = store_counts.identity(connection, database.settings.store.schema_name)
    if description.store != store:
        yield f"it is of store {description.store}, this is {store}"
    elif not records:
        yield "no event of this database records it as frozen"
    here = _revocations_in(records, str(folder.absolute()))
    yield from _changed(folder, here or {})
    if here is None:
        yield from _unknown_revocations(folder, {digest for record in records for digest in record.revoked.values()})


def _revocations_in(records: Iterable[PlaceRecord], directory: str) -> Mapping[str, str] | None:
    """Return the revocation files that were last recorded for a directory, with their hashes; None if none was."""
    found: Mapping[str, str] | None = None
    for record in records:
        if record.directory == directory:
            found = {**(found or {}), **record.revoked} if record.adds else record.revoked
    return found


def _unknown_revocations(folder: Path, hashes: Set[str]) -> Iterator[str]:
    """Yield the revocation files of a copy that were never recorded with this content for any directory."""
    for path in sorted(folder.glob("revoked-*.parquet")):
        if parquet.digest(path) not in hashes:
            yield f"{path.name} was changed"


def _changed(folder: Path, named: Mapping[str, str]) -> Iterator[str]:
    """Yield the files that are missing or have another hash."""
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
    """Return the revocation files with their hashes."""
    return {path.name: parquet.digest(path) for path in sorted(folder.glob("revoked-*.parquet"))}


def _move_files(new: Path, folder: Path) -> None:
    """Move the revocation files of a start beside the manifest, and remove those of an earlier start that failed."""
    with building.disk_errors(folder):
        for path in folder.glob("revoked-start-*.parquet"):
            path.unlink()
        for path in sorted(new.iterdir()):
            path.rename(folder / path.name)
        building.sync(folder)


def _write_revocations(folder: Path, prefix: str, pages: Iterable[Sequence[RevokedRow]]) -> Counter[str]:
    """Write revoked rows and return their number by reason."""
    reasons: Counter[str] = Counter()

    def counted() -> Iterator[Sequence[RevokedRow]]:
        for page in pages:
            reasons.update(row.reason for row in page)
            yield page

    with building.disk_errors(folder):
        for part in parquet.write(
            folder, prefix, parquet.schema(parquet.REVOKED), parquet.revocation_batches(counted())
        ):
            building.sync(folder / part.name)
    return reasons


def _revoke_purged(
    job: Job,
    connection: Connection,
    folder: Path,
    description: Description,
    snapshot: RecheckSnapshot,
    found_by: ManifestRow,
    rows: Path | None = None,
) -> Counter[str]:
    """Lock out purges, then write and record the rows purged since the snapshot; return their number by reason."""
    fence.take_exclusively(connection)
    purged = manifests.purged_since(connection, job.contract.schema, snapshot.last_tombstone)
    revoked_rows = list(recheck.rows_of_purged(rows or folder, description, purged))
    if not revoked_rows:
        return Counter()
    manifests.revoke(connection, description.id, revoked_rows, snapshot.now, found_by)
    return _write_revocations(folder, f"revoked-{found_by}-purged", [revoked_rows])


def _record_revocations(
    connection: Connection, folder: Path, prefix: str, manifest_id: str, now: datetime, found_by: ManifestRow
) -> None:
    for page in parquet.read_revocations(sorted(folder.glob(f"{prefix}-*.parquet")), ROWS_PER_STATEMENT):
        manifests.revoke(connection, manifest_id, page, now, found_by)


def _manifest_row(job: Job, target: Path, description: Description) -> dict[str, Any]:
    return {
        "id": description.id,
        "store": job.contract.schema,
        "directory": str(target.absolute()),
        "as_of": description.instant,
        "policy_digest": description.policy.digest,
        "eligible": description.eligible,
        "now": job.clock.now(),
    }


def _event_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a frozen manifest that its event records in addition to id and directory."""
    values = {name: row[name] for name in ("store", "as_of", "policy_digest", "eligible")}
    return {**values, "frozen_at": row["now"]}


def _require_state(database: Database, manifest_id: str, state: ManifestState) -> dict[str, Any]:
    found = find_in_use(database, manifest_id)
    if found["state"] != state:
        raise StateError(
            f"manifest {manifest_id} is {found['state']}, not {state}. Nothing was changed. See `sweeper manifest list`."
        )
    return found


def _transition(
    database: Database,
    clock: Clock,
    connection: Connection,
    manifest: Mapping[str, Any],
    after: ManifestState,
) -> datetime:
    """Move a manifest to its next state and return the time."""
    store, now = database.settings.store.schema_name, clock.now()
    _lock_unchanged(connection, store, manifest)
    manifests.move(connection, store, manifest["id"], manifest["state"], after, now)
    return now


def _recall(
    job: Job,
    snapshot: RecheckSnapshot,
    result: RecallResult,
    description: Description,
    out: Path | None,
    *,
    everything: bool,
) -> RecallResult:
    with tempfile.TemporaryDirectory(prefix="sweeper-recall-") as spool:
        prefix = f"recall-{result.manifest_id}-{snapshot.now:%Y%m%dT%H%M%S%f}"
        reasons = _write_revocations(
            Path(spool), prefix, snapshot.revoked_rows(Path(result.directory), description, only_new=not everything)
        )
        if out is None:
            return replace(result, reasons=reasons)
        files = _copy_files(Path(spool), out) if reasons else ()
        with job.database.transaction() as connection:
            _record_revocations(connection, Path(spool), prefix, result.manifest_id, snapshot.now, "recall")
            manifests.recalled(connection, job.contract.schema, result.manifest_id, snapshot.now, reasons)
    return replace(result, reasons=reasons, files=files)


def _copy_files(spool: Path, out: Path) -> tuple[str, ...]:
    """Copy the files of a recall to `out`, each completely or not at all."""
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
def _temporary_directory(folder: Path) -> Iterator[Path]:
    """Yield a temporary directory inside another one, from which the files are moved when all are written."""
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
