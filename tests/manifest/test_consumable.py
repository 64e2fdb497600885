"""Common Parquet readers all return the same rows of a manifest: all except the revoked ones."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest

from sweeper.manifest import lifecycle, parquet
from sweeper.policy.schema import Policy
from tests.manifest import made
from tests.manifest.made import AS_OF, LATER
from tests.store.stores import Store

Rows = list[dict[str, Any]]


def by_pyarrow(folder: Path, _: Path) -> Rows:
    """Read a dataset with a filter."""
    revoked = ds.dataset(_files(folder, "revoked")).to_table()["message_id"].combine_chunks()
    found = ds.dataset(_files(folder, "part")).to_table(filter=~ds.field("message_id").isin(revoked))
    rows: Rows = found.to_pylist()
    return rows


def by_pyarrow_join(folder: Path, _: Path) -> Rows:
    """Read tables and join them."""
    parts, revoked = (ds.dataset(_files(folder, prefix)).to_table() for prefix in ("part", "revoked"))
    rows: Rows = parts.join(revoked, "message_id", join_type="left anti").to_pylist()
    return rows


def by_duckdb(folder: Path, _: Path) -> Rows:
    """Read with SQL."""
    import duckdb

    with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
        found = connection.sql(
            f"FROM '{folder}/part-*.parquet' ANTI JOIN '{folder}/revoked-*.parquet' USING (message_id)"
        )
        rows: Rows = found.to_arrow_table().to_pylist()
    return rows


def by_datasets(folder: Path, cache: Path) -> Rows:
    """Read a stream."""
    from datasets import load_dataset

    def stream(prefix: str) -> Any:
        files = f"{folder}/{prefix}-*.parquet"
        return load_dataset("parquet", data_files=files, split="train", streaming=True, cache_dir=str(cache))

    revoked = {row["message_id"] for row in stream("revoked")}
    return list(stream("part").filter(lambda id_: id_ not in revoked, input_columns="message_id"))


READERS: tuple[Callable[[Path, Path], Rows], ...] = (by_pyarrow, by_pyarrow_join, by_duckdb, by_datasets)


def _files(folder: Path, prefix: str) -> list[str]:
    return sorted(map(str, folder.glob(f"{prefix}-*.parquet")))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], Rows]:
    """A function that returns a directory's rows ordered by id, after checking that all readers agree. Works offline."""
    for name, value in {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}.items():
        monkeypatch.setenv(name, value)

    def reading(folder: Path) -> Rows:
        found = [sorted(reader(folder, tmp_path / "cache"), key=lambda row: row["message_id"]) for reader in READERS]
        for reader, rows in zip(READERS, found, strict=True):
            assert rows == found[0], reader
        return found[0]

    return reading


@pytest.mark.parametrize("with_text", [False, True])
def test_revoked_rows_are_dropped(
    store: Store,
    policy: Policy,
    tmp_path: Path,
    read: Callable[[Path], Rows],
    monkeypatch: pytest.MonkeyPatch,
    *,
    with_text: bool,
) -> None:
    """Every reader drops exactly the messages that were revoked when the manifest was frozen or started."""
    for name in ("ROWS_PER_GROUP", "ROWS_PER_GROUP_WITH_TEXT"):
        monkeypatch.setattr(parquet, name, 3)
    monkeypatch.setattr(parquet, "GROUPS_PER_PART", 2)
    world = made.world()
    store.load(world)
    folder = tmp_path / "manifest"
    made.delete(store, "a1c1", "2026-07-02T00:00:00Z")
    frozen = made.freeze(store, policy, folder, now="2026-07-02T00:00:00Z", with_text=with_text)
    remaining = made.of(store, world) - made.of(store, world, "a1c1")
    assert frozen.revoked == {"deleted": 4}
    assert {row["message_id"] for row in read(folder)} == remaining
    made.withdraw(store, "a2", LATER)
    lifecycle.start(store.job(policy, LATER), frozen.description.id)
    remaining -= made.of(store, world, "a2c1", "a2c2")
    rows = read(folder)
    assert {row["message_id"] for row in rows} == remaining
    assert len(rows) == len(remaining) == 12
    assert {row.get("text") for row in rows} == ({"secret words"} if with_text else {None})


@pytest.mark.parametrize("store", ["uuid", "text", "bigint"], indirect=True)
def test_nothing_revoked(store: Store, policy: Policy, tmp_path: Path, read: Callable[[Path], Rows]) -> None:
    """Without revocations every reader returns every message; ids of any type are strings."""
    world = made.world()
    store.load(world)
    made.freeze(store, policy, tmp_path / "manifest")
    rows = read(tmp_path / "manifest")
    assert [row["message_id"] for row in rows] == sorted(made.of(store, world))
    assert {row["conversation_id"] for row in rows} == {
        store.id(conversation["id"]) for conversation in world["conversations"]
    }


def test_instants_and_nulls(store: Store, policy: Policy, tmp_path: Path, read: Callable[[Path], Rows]) -> None:
    """Timestamps are in UTC with microseconds; a row that never expires has a null expires_at."""
    store.load(made.world(accounts=1, messages=1))
    made.freeze(store, made.forever(policy), tmp_path / "manifest")
    rows = {row["kind"]: row for row in read(tmp_path / "manifest")}
    assert {row["created_at"] for row in rows.values()} == {datetime(2026, 1, 1, 0, 0, 0, 1, UTC)}
    assert rows["coding"]["expires_at"] == datetime(2027, 2, 1, tzinfo=UTC)
    assert rows["coding"]["expires_at"].utcoffset().total_seconds() == 0
    assert rows["chat"]["expires_at"] is None


def test_all_revoked(store: Store, policy: Policy, tmp_path: Path, read: Callable[[Path], Rows]) -> None:
    """If all rows are revoked, every reader returns none."""
    store.load(made.world(accounts=1))
    frozen = made.freeze(store, policy, tmp_path / "manifest")
    made.withdraw(store, "a1", AS_OF)
    lifecycle.start(store.job(policy, LATER), frozen.description.id)
    assert read(tmp_path / "manifest") == []


def test_no_rows(store: Store, policy: Policy, tmp_path: Path, read: Callable[[Path], Rows]) -> None:
    """An empty manifest can be read."""
    made.freeze(store, policy, tmp_path / "manifest")
    assert read(tmp_path / "manifest") == []
