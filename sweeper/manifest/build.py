"""Builds a manifest: one snapshot streams into Parquet beside the place where it will stand, then it is frozen.

The law of this file: a directory appears whole or not at all; the same store, as-of, policy and key give the same bytes.
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
    described,
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
class Filtering:
    """What a filter has met so far."""

    filter: "Filter"
    found: Counter[str] = field(default_factory=Counter)
    not_passed: int = 0

    def said(self) -> FilterNote:
        """As the manifest says it."""
        return FilterNote(
            name=self.filter.name,
            version=self.filter.version,
            found=dict(sorted(self.found.items())),
            not_passed=self.not_passed,
        )


def build(job: Job, folder: Path, pseudonym: Pseudonym, *, with_text: bool = False) -> Description:
    """Write all files of a manifest into an empty directory.

    Raises:
        ConfigurationError: the policy trains on nothing, or packages are missing.
        DatabaseError: the database failed.
        SweeperError: the disk failed.
    """
    filtering = _filtering(job) if with_text else None
    with snapshot.taken(job, with_text=with_text) as taken, disk_errors(folder):
        counts = taken.counts()
        files = _write(folder, taken.rows(with_text=with_text), pseudonym, filtering, with_text=with_text)
    eligible = counts.pop(snapshot.ELIGIBLE, 0)
    if sum(file.rows for file in files) != eligible:
        raise SweeperError(
            f"manifest: {eligible} messages were counted as eligible, {sum(file.rows for file in files)} were written. "
            "No manifest was made. This is a fault of the program: report it."
        )
    description = _described(job, eligible, counts, files, pseudonym, filtering, with_text=with_text)
    with disk_errors(folder):
        description.write(folder)
        croissant.write(folder, description, _revoked_fields())
    return description


def _filtering(job: Job) -> Filtering | None:
    """The filter that the policy asks for; None where it lets text leave as it was written."""
    from sweeper.redact.filter import Filter  # needed for text only

    return Filtering(Filter()) if job.policy.training is None or job.policy.training.text == "filtered" else None


def _write(
    folder: Path, batches: Iterable[Any], pseudonym: Pseudonym, filtering: Filtering | None, *, with_text: bool
) -> list[ManifestFile]:
    import pyarrow as pa  # slow to import, as the next

    from sweeper.manifest import parquet

    pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps 40 MB more of what was freed
    columns = parquet.columns(with_text=with_text)
    rows = _pseudonymous(batches, pseudonym)
    if filtering is not None:
        rows = _filtered(rows, filtering)
    named = (batch.select([column.name for column in columns]) for batch in rows)
    return [ManifestFile(**part._asdict()) for part in parquet.write(folder, "part", parquet.schema(columns), named)]


def _pseudonymous(batches: Iterable[Any], pseudonym: Pseudonym) -> Iterator[Any]:
    """The batches with the account replaced by its pseudonym."""
    import pyarrow as pa

    for batch in batches:
        accounts = batch.column("account_id").dictionary_encode()
        subjects = pa.array([pseudonym.of(account) for account in accounts.dictionary.to_pylist()], pa.string())
        yield batch.append_column("subject", subjects.take(accounts.indices))


def _filtered(batches: Iterable[Any], filtering: Filtering) -> Iterator[Any]:
    """The batches with their text filtered, by one set of workers for all; what does not pass is not written."""
    import pyarrow as pa

    waiting: deque[Any] = deque()

    def texts() -> Iterator[str | None]:
        for batch in batches:
            if batch.num_rows:
                waiting.append(batch)
                yield from batch.column("text").to_pylist()

    from sweeper.redact import pool  # multiprocessing is slow to import

    answers = pool.apply_all(filtering.filter, texts())
    for first in answers:
        batch = waiting.popleft()
        filtered: list[str | None] = []
        for after in (first, *islice(answers, batch.num_rows - 1)):
            filtering.found.update({kind.value: count for kind, count in after.found.items()})
            filtering.not_passed += not after.passed
            filtered.append(after.text)
        column = batch.schema.get_field_index("text")
        yield batch.set_column(column, "text", pa.array(filtered, pa.string()))


def _described(
    job: Job,
    eligible: int,
    counts: Mapping[str, int],
    files: list[ManifestFile],
    pseudonym: Pseudonym,
    filtering: Filtering | None,
    *,
    with_text: bool,
) -> Description:
    from sweeper.manifest import parquet

    training = job.policy.training
    return described(
        store=job.database.within(lambda connection: store_counts.identity(connection, job.contract.schema)),
        as_of=rfc3339(job.as_of),
        policy=PolicyNote(
            name=job.policy.name, digest=job.policy.digest, resumed=training.resumed if training else "from_opt_in"
        ),
        eligible=eligible,
        excluded={reason.value: counts.get(reason.value, 0) for reason in Exclusion},
        order=ORDER,
        schema_=_fields(parquet.columns(with_text=with_text)),
        files=files,
        subject=PseudonymNote(algorithm=ALGORITHM, mark=pseudonym.mark),
        filter=filtering.said() if filtering else None,
        tool={"name": "sweeper", "version": version("sweeper")},
    )


def _fields(columns: "Iterable[Column]") -> list[ManifestField]:
    return [ManifestField(name=c.name, type=str(c.type), nullable=c.nullable, description=c.meaning) for c in columns]


def _revoked_fields() -> list[ManifestField]:
    from sweeper.manifest import parquet

    return _fields(parquet.REVOKED)


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """An empty directory beside the target, gone afterwards unless it was renamed; what killed builds left goes first.

    Raises:
        ConfigurationError: the target exists and is not an empty directory, or nothing can be made beside it.
    """
    target = target.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigurationError(
            f"{target} exists and is not an empty directory: no manifest was built. Name a new directory; or, where it holds a "
            "manifest that `sweeper manifest list` does not know, a build was cut off: remove the directory first."
        )
    prefix = f".{target.name}.building-"
    try:
        _sweep_stale(target.parent, prefix)
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


def settle(folder: Path, target: Path, *, private: bool) -> None:
    """Bring all files of a directory to the disk, so that putting it in place later takes no time.

    It gets the mode that the target has or would get; a `private` one is for its owner alone, and so are its files.
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


def put_in_place(folder: Path, target: Path) -> None:
    """Make a directory that is settled appear at its target."""
    with disk_errors(target):
        for path in folder.glob("revoked-*"):
            sync(path)  # one more may have come since
        folder.rename(target)
        sync(target.parent)


def sync(path: Path) -> None:
    """Bring a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep_stale(parent: Path, prefix: str) -> None:
    """Remove what killed builds of the same target left: directories that no process has locked."""
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
    """Whatever the disk refuses, in words.

    Raises:
        SweeperError: it refused something.
    """
    try:
        yield
    except OSError as error:
        raise SweeperError(
            f"{path}: could not be written ({error.strerror or error}). Nothing was recorded. "
            "Make room, or name another directory, and try again."
        ) from None
