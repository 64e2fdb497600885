"""Builds a manifest: streams one snapshot of the store into Parquet files in a temporary directory beside the target.

Invariant: the target directory appears complete or not at all. The same store, as-of, policy, key and shares of the splits give
the same bytes.
"""

import fcntl
import os
import shutil
import stat
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import ConfigurationError, SweeperError
from sweeper.log import Told, untold
from sweeper.manifest import croissant, snapshot, texts
from sweeper.manifest.description import (
    Description,
    ManifestField,
    ManifestFile,
    PolicyNote,
    PseudonymNote,
    SplitNote,
    describe,
)
from sweeper.manifest.pseudonym import Pseudonym
from sweeper.manifest.split import SALT, Split, Splitter
from sweeper.manifest.texts import FilterStats
from sweeper.policy.instant import rfc3339
from sweeper.policy.training import Exclusion
from sweeper.postgres import store_counts
from sweeper.runs.job import Job

if TYPE_CHECKING:
    from sweeper.manifest.parquet import Column

ALGORITHM = "HMAC-SHA-256"
ORDER = ("conversation_id", "created_at", "message_id")


def build(job: Job, folder: Path, pseudonym: Pseudonym, *, with_text: bool = False, told: Told = untold) -> Description:
    """Write all files of a manifest into an empty directory; `told` is told how many messages were written.

    Raises:
        ConfigurationError: the policy allows no training, or packages are missing.
        DatabaseError: the database failed.
        SweeperError: the disk failed.
    """
    stats = texts.filter_stats(job.policy) if with_text else None
    subjects = Subjects(pseudonym, Splitter.of_settings(job.settings.manifest))
    with snapshot.open_snapshot(job, with_text=with_text) as opened, disk_errors(folder):
        counts = opened.counts()
        rows = _told(opened.rows(with_text=with_text), counts.get(snapshot.ELIGIBLE, 0), told)
        files = _write(folder, rows, subjects, stats, with_text=with_text)
    eligible = counts.pop(snapshot.ELIGIBLE, 0)
    if sum(file.rows for file in files) != eligible:
        raise SweeperError(
            f"manifest: {eligible} messages were counted as eligible, {sum(file.rows for file in files)} were written. "
            "No manifest was made. This is a fault of the program: report it."
        )
    description = _describe(job, eligible, counts, files, subjects, stats, with_text=with_text)
    with disk_errors(folder):
        description.write(folder)
        croissant.write(folder, description, _revoked_fields())
    return description


def _told(batches: Iterable[Any], eligible: int, told: Told) -> Iterator[Any]:
    """Yield the batches, and tell when each was worked on."""
    done = 0
    for batch in batches:
        yield batch
        done += batch.num_rows
        told(done, eligible)


def _write(
    folder: Path,
    batches: Iterable[Any],
    subjects: "Subjects",
    stats: FilterStats | None,
    *,
    with_text: bool,
) -> list[ManifestFile]:
    import pyarrow as pa  # slow to import, like the next module

    from sweeper.manifest import parquet

    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own pool keeps 40 MB of freed memory
    columns = parquet.columns(with_text=with_text)
    rows = subjects.replace_accounts(batches)
    if with_text:
        rows = texts.described(rows, stats)
    selected = (batch.select([column.name for column in columns]) for batch in rows)
    return [ManifestFile(**part._asdict()) for part in parquet.write(folder, "part", parquet.schema(columns), selected)]


@dataclass
class Subjects:
    """Replaces accounts by pseudonyms and splits, and counts the messages in each split."""

    pseudonym: Pseudonym
    splitter: Splitter
    messages: Counter[str] = field(default_factory=Counter)

    def replace_accounts(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Yield the batches with the columns `subject`, the pseudonym of the account, and `split`."""
        import pyarrow as pa

        for batch in batches:
            accounts = batch.column("account_id").dictionary_encode()
            ids = accounts.dictionary.to_pylist()
            for name, of in (("subject", self.pseudonym.of), ("split", self.splitter.of)):
                column = pa.array(map(of, ids), pa.string()).take(accounts.indices)
                batch = batch.append_column(name, column)
            self.messages.update(
                {one["values"]: one["counts"] for one in batch.column("split").value_counts().to_pylist()}
            )
            yield batch

    def note(self) -> SplitNote:
        """Return the splits as the manifest records them."""
        return SplitNote(
            salt=SALT, shares=self.splitter.shares, messages={split.value: self.messages[split] for split in Split}
        )


def _describe(
    job: Job,
    eligible: int,
    counts: Mapping[str, int],
    files: list[ManifestFile],
    subjects: Subjects,
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
        subject=PseudonymNote(algorithm=ALGORITHM, mark=subjects.pseudonym.mark),
        filter=stats.note() if stats else None,
        tool={"name": "sweeper", "version": version("sweeper")},
        split=subjects.note(),
        language=texts.language_note() if with_text else None,
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
