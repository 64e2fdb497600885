"""Rows of a manifest, on their way to files and back."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from sweeper.manifest import parquet as table


def test_csv_tells_null_from_empty_and_quotes_the_rest(tmp_path: Path) -> None:
    """Any id reaches COPY as it is, and no instant is an unquoted nothing: NULL."""
    rows = pa.table(
        {
            "message_id": ['a"b', "", "\\.", "x,\ny"],
            "expires_at": pa.array([None, datetime(2027, 1, 1, tzinfo=UTC), None, None], table.INSTANT),
        }
    )
    pq.write_table(rows, tmp_path / "rows.parquet")

    pages = [bytes(page) for page in table.to_csv([tmp_path / "rows.parquet"], ["message_id", "expires_at"], 3)]

    assert pages == [b'"a""b",\n"","2027-01-01 00:00:00.000000Z"\n"\\.",\n', b'"x,\ny",\n']


def test_files_do_not_depend_on_the_batches_that_rows_came_in(tmp_path: Path) -> None:
    """The same rows in other batches are the same bytes."""
    count = 2 * table.ROWS_PER_GROUP + 1
    schema = table.schema(table.REVOKED)
    ids = pa.array([f"message {n}" for n in range(count)])
    since = pa.array([None] * count, table.INSTANT).fill_null(datetime(2027, 1, 1, tzinfo=UTC))
    rows = pa.table([ids, ids, ids, since], schema=schema)
    found = set()
    for size in (1_000, 30_000, count):
        folder = tmp_path / str(size)
        folder.mkdir()
        batches = rows.combine_chunks().to_batches(max_chunksize=size)
        found.add(tuple(part.sha256 for part in table.write(folder, "part", schema, batches)))

    assert len(found) == 1
