"""The rows of a manifest and of its revocations as Parquet: schemas, a writer that cuts parts and row groups, a reader.

The law of this file: what is written follows from the rows alone, whatever batches they came in.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from sweeper.manifest.description import DamagedError
from sweeper.postgres.manifests import RevokedRow

ROWS_PER_GROUP = 32_768
ROWS_PER_GROUP_WITH_TEXT = 4_096
GROUPS_PER_PART = 32
INSTANT = pa.timestamp("us", tz="UTC")
VARIED = ("message_id", "created_at", "text")
"""Columns whose values hardly repeat: a dictionary of them costs time and memory, and makes files larger."""


class Column(NamedTuple):
    """One column of a manifest."""

    name: str
    type: Any
    meaning: str
    nullable: bool = False


COLUMNS = (
    Column("message_id", pa.string(), "The message's id in the store."),
    Column("conversation_id", pa.string(), "The id of its conversation."),
    Column("subject", pa.string(), "Keyed pseudonym of the account (HMAC-SHA-256)."),
    Column("created_at", INSTANT, "When the message was written (UTC)."),
    Column("author", pa.string(), "Who wrote it: user or assistant.", nullable=True),
    Column("kind", pa.string(), "Chat or coding session.", nullable=True),
    Column("plan", pa.string(), "The plan in force when it was written.", nullable=True),
    Column("platform", pa.string(), "Where the conversation took place.", nullable=True),
    Column("consent_event_id", pa.int64(), "The grant that opened the time of consent."),
    Column("expires_at", INSTANT, "By when whoever holds the row must drop it (UTC); null: never.", nullable=True),
)
TEXT = Column(
    "text",
    pa.string(),
    "The message's text, filtered; null where it did not pass the filter or has none.",
    nullable=True,
)
REVOKED = (
    Column("message_id", pa.string(), "A message that may not be trained on any more."),
    Column("conversation_id", pa.string(), "The id of its conversation."),
    Column("reason", pa.string(), "Why."),
    Column("since", INSTANT, "Since when (UTC), as far as the store says; else when it was found."),
)


class ManifestPart(NamedTuple):
    """One file of a manifest."""

    name: str
    rows: int
    bytes: int
    sha256: str


def schema(columns: Iterable[Column]) -> Any:
    """The Arrow schema of some columns."""
    return pa.schema([pa.field(c.name, c.type, c.nullable, {"description": c.meaning}) for c in columns])


def columns(*, with_text: bool) -> tuple[Column, ...]:
    """The columns of a manifest."""
    return (*COLUMNS, TEXT) if with_text else COLUMNS


def write(folder: Path, prefix: str, wanted: Any, batches: Iterable[Any]) -> Iterator[ManifestPart]:
    """Write record batches as `prefix-00000.parquet`, …; yields each file once it is whole. No rows: one empty file."""
    size = ROWS_PER_GROUP_WITH_TEXT if TEXT.name in wanted.names else ROWS_PER_GROUP
    number, groups = 0, _regrouped(batches, wanted, size)
    repeated = [name for name in wanted.names if name not in VARIED]
    group: Any = next(groups, None)
    while group is not None or number == 0:
        path = folder / f"{prefix}-{number:05}.parquet"
        rows = 0
        with pq.ParquetWriter(
            path, wanted, compression="zstd", use_dictionary=repeated, write_page_checksum=True
        ) as writer:
            while group is not None and rows < GROUPS_PER_PART * size:
                writer.write_table(group, row_group_size=size)
                rows += group.num_rows
                group = next(groups, None)
        yield part_of(path, rows)
        number += 1


def lost(pages: Iterable[Sequence[RevokedRow]]) -> Iterator[Any]:
    """Rows that left a manifest, as record batches."""
    for page in pages:
        if page:
            yield pa.RecordBatch.from_pylist([vars(row) for row in page], schema(REVOKED))


def read_lost(paths: Iterable[Path], rows: int) -> Iterator[list[RevokedRow]]:
    """What was written of rows that left a manifest, page by page."""
    for page in pages(paths, [column.name for column in REVOKED], rows):
        yield [RevokedRow(**row) for row in page.to_pylist()]


def part_of(path: Path, rows: int) -> ManifestPart:
    """A file as it is on disk."""
    return ManifestPart(path.name, rows, path.stat().st_size, digest(path))


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    found = sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    return found.hexdigest()


def pages(paths: Iterable[Path], names: list[str], rows: int) -> Iterator[Any]:
    """The named columns of some files, as tables of at most so many rows."""
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=rows, columns=names):
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise DamagedError(
                f"{path}: cannot be read ({str(error).splitlines()[0]}). Nothing more was done. Restore it from a copy."
            ) from None


def holding(paths: Iterable[Path], name: str, values: list[str], rows: int) -> Iterator[Any]:
    """The rows of some files whose column holds one of the values, as tables; found by Arrow, not row by row."""
    import pyarrow.compute as pc

    wanted = pa.array(values, pa.string())
    for page in pages(paths, ["message_id", name], rows):
        yield page.filter(pc.is_in(page.column(name), value_set=wanted))


def csv(paths: Iterable[Path], names: list[str], rows: int) -> Iterator[Any]:
    """The named columns of some files as CSV that COPY reads, page by page: what is not quoted is NULL."""
    from pyarrow.csv import WriteOptions, write_csv

    options = WriteOptions(include_header=False, quoting_style="all_valid")
    for page in pages(paths, names, rows):
        sink = pa.BufferOutputStream()
        write_csv(page, sink, options)
        yield sink.getvalue()


def _regrouped(batches: Iterable[Any], wanted: Any, size: int) -> Iterator[Any]:
    """Tables of exactly one row group, the last one smaller."""
    kept: list[Any] = []
    count = 0
    for batch in batches:
        kept.append(pa.Table.from_batches([batch]).cast(wanted))
        count += batch.num_rows
        while count >= size:
            joined = pa.concat_tables(kept)
            yield joined.slice(0, size).combine_chunks()
            kept, count = [joined.slice(size)], count - size
    if count:
        yield pa.concat_tables(kept).combine_chunks()
