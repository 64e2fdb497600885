"""Writes and reads the Parquet files of manifests and revocations.

Invariant: the written bytes depend on the rows only, not on the batches in which they arrive.
"""

from collections.abc import Iterable, Iterator, Sequence
from hashlib import file_digest
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
"""Columns whose values rarely repeat; a dictionary of them would cost time and memory, and make files larger."""


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
    Column("turn", pa.int64(), "Its position among all messages of its conversation by time, from 0."),
    Column("split", pa.string(), "What the account's rows are for: train, validation or test."),
)
TEXT = Column(
    "text",
    pa.string(),
    "The message's text, filtered; null where it did not pass the filter or has none.",
    nullable=True,
)
WITH_TEXT = (
    TEXT,
    Column("language", pa.string(), "The text's language (ISO 639); null where it is in doubt.", nullable=True),
    Column("characters", pa.int64(), "The text's length in Unicode characters.", nullable=True),
    Column("words", pa.int64(), "The text's words: what stands between white space.", nullable=True),
)
REVOKED = (
    Column("message_id", pa.string(), "A message that may not be trained on any more."),
    Column("conversation_id", pa.string(), "The id of its conversation."),
    Column("reason", pa.string(), "Why."),
    Column("since", INSTANT, "Since when (UTC), as far as the store says; else when it was found."),
)


class ManifestPart(NamedTuple):
    """A written file."""

    name: str
    rows: int
    bytes: int
    sha256: str


def schema(columns: Iterable[Column]) -> Any:
    """Return the Arrow schema of some columns."""
    return pa.schema([pa.field(c.name, c.type, c.nullable, {"description": c.meaning}) for c in columns])


def columns(*, with_text: bool) -> tuple[Column, ...]:
    """Return the columns of a manifest."""
    return (*COLUMNS, *WITH_TEXT) if with_text else COLUMNS


def write(folder: Path, prefix: str, target_schema: Any, batches: Iterable[Any]) -> Iterator[ManifestPart]:
    """Write record batches as `prefix-00000.parquet`, …, and yield each finished file. Without rows one empty file is written."""
    size = ROWS_PER_GROUP_WITH_TEXT if TEXT.name in target_schema.names else ROWS_PER_GROUP
    number, groups = 0, _regroup(batches, target_schema, size)
    repeated = [name for name in target_schema.names if name not in VARIED]
    group: Any = next(groups, None)
    while group is not None or number == 0:
        path = folder / f"{prefix}-{number:05}.parquet"
        rows = 0
        with pq.ParquetWriter(
            path, target_schema, compression="zstd", use_dictionary=repeated, write_page_checksum=True
        ) as writer:
            while group is not None and rows < GROUPS_PER_PART * size:
                writer.write_table(group, row_group_size=size)
                rows += group.num_rows
                group = next(groups, None)
        yield ManifestPart(path.name, rows, path.stat().st_size, digest(path))
        number += 1


def revocation_batches(pages: Iterable[Sequence[RevokedRow]]) -> Iterator[Any]:
    """Yield pages of revoked rows as record batches."""
    for page in pages:
        if page:
            yield pa.RecordBatch.from_pylist([vars(row) for row in page], schema(REVOKED))


def read_revocations(paths: Iterable[Path], rows: int) -> Iterator[list[RevokedRow]]:
    """Yield the rows of revocation files, at most `rows` at a time."""
    for page in pages(paths, [column.name for column in REVOKED], rows):
        yield [RevokedRow(**row) for row in page.to_pylist()]


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def pages(paths: Iterable[Path], names: list[str], rows: int) -> Iterator[Any]:
    """Yield the named columns of some files as tables of at most `rows` rows.

    Raises:
        DamagedError: a file cannot be read.
    """
    for path in paths:
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=rows, columns=names):
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError) as error:
            raise DamagedError(
                f"{path}: cannot be read ({str(error).splitlines()[0]}). Nothing more was done. Restore it from a copy."
            ) from None


def rows_with(paths: Iterable[Path], name: str, values: list[str], rows: int) -> Iterator[Any]:
    """Yield tables of the rows whose column `name` has one of the values."""
    import pyarrow.compute as pc

    value_set = pa.array(values, pa.string())
    for page in pages(paths, ["message_id", name], rows):
        yield page.filter(pc.is_in(page.column(name), value_set=value_set))


def values_where(page: Any, name: str, value: str, wanted: str) -> list[str]:
    """Return the values of the column `wanted` in the rows of a table whose column `name` has that value."""
    import pyarrow.compute as pc

    found: list[str] = page.filter(pc.equal(page.column(name), value)).column(wanted).to_pylist()
    return found


def to_csv(paths: Iterable[Path], names: list[str], rows: int) -> Iterator[Any]:
    """Yield the named columns of some files as CSV for COPY, at most `rows` rows at a time; unquoted values are NULL."""
    from pyarrow.csv import WriteOptions, write_csv

    options = WriteOptions(include_header=False, quoting_style="all_valid")
    for page in pages(paths, names, rows):
        sink = pa.BufferOutputStream()
        write_csv(page, sink, options)
        yield sink.getvalue()


def _regroup(batches: Iterable[Any], target_schema: Any, size: int) -> Iterator[Any]:
    """Yield tables of `size` rows each, and a smaller last one."""
    tables: list[Any] = []
    count = 0
    for batch in batches:
        tables.append(pa.Table.from_batches([batch]).cast(target_schema))
        count += batch.num_rows
        while count >= size:
            joined = pa.concat_tables(tables)
            yield joined.slice(0, size).combine_chunks()
            tables, count = [joined.slice(size)], count - size
    if count:
        yield pa.concat_tables(tables).combine_chunks()
