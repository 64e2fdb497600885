"""Writing rows to Parquet files and reading them as CSV."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sweeper.manifest import parquet


def test_csv_quotes_all_values_but_null(tmp_path: Path) -> None:
    """COPY gets every id unchanged, and NULL for a missing timestamp."""
    rows = pa.table(
        {
            "message_id": ['a"b', "", "\\.", "x,\ny"],
            "expires_at": pa.array([None, datetime(2027, 1, 1, tzinfo=UTC), None, None], parquet.INSTANT),
        }
    )
    pq.write_table(rows, tmp_path / "rows.parquet")

    pages = [bytes(page) for page in parquet.to_csv([tmp_path / "rows.parquet"], ["message_id", "expires_at"], 3)]

    assert pages == [b'"a""b",\n"","2027-01-01 00:00:00.000000Z"\n"\\.",\n', b'"x,\ny",\n']


def test_files_do_not_depend_on_batches(tmp_path: Path) -> None:
    """The same rows in other batches give the same bytes."""
    count = 2 * parquet.ROWS_PER_GROUP + 1
    schema = parquet.schema(parquet.REVOKED)
    ids = pa.array([f"message {n}" for n in range(count)])
    since = pa.array([None] * count, parquet.INSTANT).fill_null(datetime(2027, 1, 1, tzinfo=UTC))
    rows = pa.table([ids, ids, ids, since], schema=schema)
    found = set()
    for size in (1_000, 30_000, count):
        folder = tmp_path / str(size)
        folder.mkdir()
        batches = rows.combine_chunks().to_batches(max_chunksize=size)
        found.add(tuple(part.sha256 for part in parquet.write(folder, "part", schema, batches)))

    assert len(found) == 1
