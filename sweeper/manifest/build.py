"""Builds a manifest: streams one snapshot of the store into Parquet files in a temporary directory beside the target.

Invariant: the target directory appears complete or not at all. The same store, as-of, policy and key give the same bytes.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import ConfigurationError, SweeperError
from sweeper.manifest import croissant, snapshot
from sweeper.manifest.description import (
    Description,
    FilterNote,
    ManifestField,
    ManifestFile,
    PolicyNote,
    PseudonymNote,
    describe,
)
from sweeper.manifest.pseudonym import Pseudonym
from sweeper.policy.instant import rfc3339
from sweeper.policy.training import Exclusion
from sweeper.postgres import store_counts
from sweeper.runs.job import Job

if TYPE_CHECKING:
    from sweeper.manifest.parquet import Column
    from sweeper.redact.filter import Filter

ALGORITHM = "HMAC-SHA-256"
ORDER = ("conversation_id", "created_at", "message_id")


@dataclass
class FilterStats:
    """A filter, and what it has replaced and withheld so far."""

    filter: "Filter"
    found: Counter[str] = field(default_factory=Counter)
    not_passed: int = 0

    def note(self) -> FilterNote:
        """Return the statistics as the manifest records them."""
        return FilterNote(
            name=self.filter.name,
            version=self.filter.version,
            found=dict(sorted(self.found.items())),
            not_passed=self.not_passed,
        )


def build(job: Job, folder: Path, pseudonym: Pseudonym, *, with_text: bool = False) -> Description:
    """Write all files of a manifest into an empty directory.

    Raises:
        ConfigurationError: the policy allows no training, or packages are missing.
        DatabaseError: the database failed.
        SweeperError: the disk failed.
    """
    stats = _filter_stats(job) if with_text else None
    with snapshot.open_snapshot(job, with_text=with_text) as opened, disk_errors(folder):
        counts = opened.counts()
        files = _write(folder, opened.rows(with_text=with_text), pseudonym, stats, with_text=with_text)
    eligible = counts.pop(snapshot.ELIGIBLE, 0)
    if sum(file.rows for file in files) != eligible:
        raise SweeperError(
            f"manifest: {eligible} messages were counted as eligible, {sum(file.rows for file in files)} were written. "
            "No manifest was made. This is a fault of the program: report it."
        )
    description = _describe(job, eligible, counts, files, pseudonym, stats, with_text=with_text)
    with disk_errors(folder):
        description.write(folder)
        croissant.write(folder, description, _revoked_fields())
    return description


def _filter_stats(job: Job) -> FilterStats | None:
    """Return the filter that the policy requires; None if text is exported as written."""
    from sweeper.redact.filter import Filter  # only needed for text

    return FilterStats(Filter()) if job.policy.training is None or job.policy.training.text == "filtered" else None


def _write(
    folder: Path, batches: Iterable[Any], pseudonym: Pseudonym, stats: FilterStats | None, *, with_text: bool
) -> list[ManifestFile]:
    import pyarrow as pa  # slow to import, like the next module

    from sweeper.manifest import parquet

    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own pool keeps 40 MB of freed memory
    columns = parquet.columns(with_text=with_text)
    rows = _replace_accounts(batches, pseudonym)
    if stats is not None:
        rows = _filter_texts(rows, stats)
    selected = (batch.select([column.name for column in columns]) for batch in rows)
    return [ManifestFile(**part._asdict()) for part in parquet.write(folder, "part", parquet.schema(columns), selected)]


def _replace_accounts(batches: Iterable[Any], pseudonym: Pseudonym) -> Iterator[Any]:
    """Yield the batches with a column `subject`, the pseudonym of the account."""
    import pyarrow as pa

    for batch in batches:
        accounts = batch.column("account_id").dictionary_encode()
        subjects = pa.array([pseudonym.of(account) for account in accounts.dictionary.to_pylist()], pa.string())
        yield batch.append_column("subject", subjects.take(accounts.indices))


def _filter_texts(batches: Iterable[Any], stats: FilterStats) -> Iterator[Any]:
    """Yield the batches with filtered texts; withheld texts are null. One set of workers filters all batches."""
    import pyarrow as pa

    pending: deque[Any] = deque()

    def texts() -> Iterator[str | None]:
        for batch in batches:
            if batch.num_rows:
                pending.append(batch)
                yield from batch.column("text").to_pylist()

    from sweeper.redact import pool  # multiprocessing is slow to import

    results = pool.apply_all(stats.filter, texts())
    for first in results:
        batch = pending.popleft()
        filtered: list[str | None] = []
        for result in (first, *islice(results, batch.num_rows - 1)):
            stats.found.update({kind.value: count for kind, count in result.found.items()})
            stats.not_passed += not result.passed
            filtered.append(result.text)
        column = batch.schema.get_field_index("text")
        yield batch.set_column(column, "text", pa.array(filtered, pa.string()))


def _describe(
    job: Job,
    eligible: int,
    counts: Mapping[str, int],
    files: list[ManifestFile],
    pseudonym: Pseudonym,
    stats: FilterStats | None,
    *,
    with_text: bool,
) -> Description:
    from sweeper.manifest import parquet

    training = job.policy.training
    return describe(
        store=job.database.within(lambda connection: store_counts.identity(connection, job.contract.schema)),
        as_of=rfc3339(job.as_of),
        policy=PolicyNote(
            name=job.policy.name, digest=job.policy.digest, resumed=training.resumed if training else "from_opt_in"
        ),
        eligible=eligible,
        excluded={reason.value: counts.get(reason.value, 0) for reason in Exclusion},
        order=ORDER,
        schema=_fields(parquet.columns(with_text=with_text)),
        files=files,
        subject=PseudonymNote(algorithm=ALGORITHM, mark=pseudonym.mark),
        filter=stats.note() if stats else None,
        tool={"name": "sweeper", "version": version("sweeper")},
    )


def _fields(columns: "Iterable[Column]") -> list[ManifestField]:
    return [ManifestField(name=c.name, type=str(c.type), nullable=c.nullable, description=c.meaning) for c in columns]


def _revoked_fields() -> list[ManifestField]:
    from sweeper.manifest import parquet

    return _fields(parquet.REVOKED)


@contextmanager
def build_directory(target: Path) -> Iterator[Path]:
    """Yield an empty directory beside the target, which is removed afterwards unless it was renamed.

    Removes the directories of killed builds first.

    Raises:
        ConfigurationError: the target exists and is not an empty directory, or no directory can be created beside it.
    """
    target = target.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(
            f"{target} exists and is not an empty directory: no manifest was built. Name a new directory; or, where it holds a "
            "manifest that `sweeper manifest list` does not know, a build was cut off: remove the directory first."
        )
    prefix = f".{target.name}.building-"
    try:
        _remove_stale(target.parent, prefix)
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=target.parent))
    except OSError as error:
        raise ConfigurationError(
            f"{target}: nothing can be written beside it ({error.strerror}). No manifest was built. Name another directory."
        ) from None
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def sync_directory(folder: Path, target: Path, *, private: bool) -> None:
    """Flush a directory and its files to disk, so that `publish` is fast, and set its mode.

    The mode is the one that the target has or would get. A `private` directory and its files are for their owner only.
    """
    with disk_errors(target):
        folder.chmod(0o700 if private else _mode(target))
        for path in (*folder.iterdir(), folder):
            if private and path != folder:
                path.chmod(0o600)
            sync(path)


def _mode(target: Path) -> int:
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o777 & ~mask


def publish(folder: Path, target: Path) -> None:
    """Rename a synced directory to its target."""
    with disk_errors(target):
        for path in folder.glob("revoked-*"):
            sync(path)  # one may have been added since
        folder.rename(target)
        sync(target.parent)


def sync(path: Path) -> None:
    """Flush a file or a directory to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(parent: Path, prefix: str) -> None:
    """Remove the directories that killed builds of the same target left, which no process has locked."""
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Context manager that raises `SweeperError` if the disk fails."""
    try:
        yield
    except OSError as error:
        raise SweeperError(
            f"{path}: could not be written ({error.strerror or error}). Nothing was recorded. "
            "Make room, or name another directory, and try again."
        ) from None
