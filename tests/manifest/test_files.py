"""The files of a manifest: reproducible bytes, every eligible message once, in order, and no private data."""

import json
import random
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sweeper import embedded
from sweeper.manifest import lifecycle, parquet, snapshot
from sweeper.policy.schema import Policy
from tests.core.test_cases import CASES
from tests.facts import World, instant, is_universal, together
from tests.manifest import made
from tests.store import stores
from tests.store.stores import Store


def contents(folder: Path) -> dict[str, bytes]:
    """Return the bytes of the files of a directory."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def described(folder: Path) -> dict[str, Any]:
    """Return the content of `manifest.json`."""
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use row groups of three rows and parts of two row groups."""
    for name in ("ROWS_PER_GROUP", "ROWS_PER_GROUP_WITH_TEXT"):
        monkeypatch.setattr(parquet, name, 3)
    monkeypatch.setattr(parquet, "GROUPS_PER_PART", 2)


# Reproducible bytes


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("with_text", [False, True])
def test_same_input_same_bytes(
    store: Store, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, with_text: bool
) -> None:
    """The bytes depend on store, as-of, policy and key only, not on the driver's batches or the physical order of rows."""
    store.load(made.world())
    made.built(store, policy, tmp_path / "first", with_text=with_text)
    expected = contents(tmp_path / "first")
    assert len(expected) == 4 + 2
    monkeypatch.setattr(snapshot, "BATCH_BYTES", 1)
    made.built(store, policy, tmp_path / "other batches", with_text=with_text)
    assert contents(tmp_path / "other batches") == expected
    for relation in ("messages", "conversations", "consent_events", "accounts"):
        store.execute(f"UPDATE {relation} SET id = id WHERE id::text > '5'")
        store.execute(f"UPDATE {relation} SET id = id WHERE id::text < 'a'")
    made.built(store, policy, tmp_path / "elsewhere", with_text=with_text)
    assert contents(tmp_path / "elsewhere") == expected


def test_batch_size_is_respected(store: Store, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver returns smaller batches for a smaller batch size, which the test above relies on."""
    store.load(made.world())
    sizes = []
    for size in (snapshot.BATCH_BYTES, 1):
        monkeypatch.setattr(snapshot, "BATCH_BYTES", size)
        with snapshot.open_snapshot(store.job(policy, made.AS_OF)) as opened:
            sizes.append([batch.num_rows for batch in opened.rows(with_text=False)])
    assert sizes[0] == [24]
    assert len(sizes[1]) > 1
    assert sum(sizes[1]) == 24


def test_another_key(store: Store, policy: Policy, tmp_path: Path) -> None:
    """Another key changes the subjects and the values derived from them, and nothing else."""
    store.load(made.world())
    found, subjects = [], []
    for name, key in (("one", made.KEY), ("other", made.OTHER_KEY)):
        description = made.built(store, policy, tmp_path / name, key=key)
        rows = made.rows(tmp_path / name)
        subjects.append({row.pop("subject") for row in rows})
        described = "".join((tmp_path / name / file).read_text() for file in ("manifest.json", "croissant.json"))
        (part,) = description.files
        for known in (description.id, description.subject.mark, part.sha256):
            assert known in described
            described = described.replace(known, "")
        described = described.replace(f'"bytes": {part.bytes}', "").replace(f'"{part.bytes} B"', "")
        found.append((rows, described, description.id, description.subject.mark, part.sha256))
    one, other = found
    assert one[:2] == other[:2]
    assert all(before != after for before, after in zip(one[2:], other[2:], strict=True))
    assert [len(both) for both in (*subjects, subjects[0] | subjects[1])] == [3, 3, 6]


def test_another_as_of(store: Store, policy: Policy, tmp_path: Path) -> None:
    """The id depends on the as-of, even if the rows are the same."""
    store.load(made.world())
    first = made.built(store, policy, tmp_path / "one")
    second = made.built(store, policy, tmp_path / "other", as_of=made.LATER)
    assert made.rows(tmp_path / "one") == made.rows(tmp_path / "other")
    assert first.id != second.id
    assert first.id == first.derived_id


# Row groups and order


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("messages", [1, 2, 3, 4, 5])
def test_row_groups(store: Store, policy: Policy, tmp_path: Path, messages: int) -> None:
    """All row groups and parts are full, except for the last ones."""
    store.load(made.world(accounts=1, conversations=3, messages=messages))
    description = made.built(store, policy, tmp_path / "m")
    groups = []
    for path in sorted((tmp_path / "m").glob("part-*")):
        metadata = pq.read_metadata(path)
        groups.append([metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)])
        assert metadata.row_group(0).column(0).compression == "ZSTD"
    rows = 3 * messages
    flat = [size for part in groups for size in part]
    assert flat == [3] * (rows // 3) + [rest for rest in [rows % 3] if rest]
    assert all(len(part) == 2 for part in groups[:-1])
    assert [file.rows for file in description.files] == [sum(part) for part in groups]


def test_the_size_of_row_groups(store: Store, policy: Policy, tmp_path: Path) -> None:
    """By default a row group has ROWS_PER_GROUP rows."""
    store.load(made.world(accounts=1, conversations=1, messages=1))
    store.execute(
        "INSERT INTO messages SELECT gen_random_uuid(), conversation_id, author, created_at, body "
        f"FROM messages, generate_series(1, {parquet.ROWS_PER_GROUP})"
    )
    made.built(store, policy, tmp_path / "m")
    metadata = pq.read_metadata(tmp_path / "m" / "part-00000.parquet")
    sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert sizes == [parquet.ROWS_PER_GROUP, 1]


NAMES = ["a", "B", "b", "Z", "é", "z", "10", "9", "100", "_", " a", "日"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("store", stores.ID_TYPES, indirect=True)
def test_total_order(store: Store, policy: Policy, tmp_path: Path) -> None:
    """Rows are ordered by conversation, time and message, with ids in their natural order, independent of any locale."""
    world = made.world(accounts=1, conversations=0)
    chats = [
        {
            "id": name,
            "account": "a1",
            "created_at": "2026-01-01T00:00:00Z",
            "last_activity_at": "2026-02-01T00:00:00Z",
            "messages": [
                {"id": f"{turn}{name}", "created_at": f"2026-01-0{1 + turn % 2}T00:00:00Z"} for turn in range(9, 2, -1)
            ],
        }
        for name in NAMES
    ]
    random.Random(1).shuffle(chats)  # noqa: S311 — a seeded order, nothing secret
    store.load({**world, "conversations": chats})
    description = made.built(store, policy, tmp_path / "m")
    rows = made.rows(tmp_path / "m")
    in_order = int if store.id_type == "bigint" else str.encode
    keys = [(in_order(row["conversation_id"]), row["created_at"], in_order(row["message_id"])) for row in rows]
    assert keys == sorted(keys)
    assert len(set(keys)) == description.eligible == len(NAMES) * 7
    assert tuple(description.order) == ("conversation_id", "created_at", "message_id")


# Content


@pytest.fixture(scope="module")
def emptied(server: embedded.Server, templates: dict[str, str]) -> Iterator[Store]:
    """A store that is emptied before each world."""
    store = stores.copy(server, templates["uuid"], "manifest_cases", "uuid")
    store.execute("ALTER TABLE conversations ALTER account_id DROP NOT NULL")  # some cases know no account
    yield store
    store.close()
    stores.drop(server, "manifest_cases")


APART = [[case] for case in CASES if is_universal(case)]
BESIDE = sorted((case for case in CASES if not is_universal(case)), key=lambda case: instant(case["as_of"]))
GROUPS = [*APART, *(list(group) for _, group in groupby(BESIDE, key=lambda case: case["as_of"]))]


@pytest.mark.parametrize("cases", GROUPS, ids=lambda cases: f"{len(cases)} at {cases[0]['as_of']}")
def test_cases(cases: list[World], emptied: Store, policy: Policy, tmp_path: Path) -> None:
    """For the worked cases the manifest contains the eligible messages and counts the others by the expected reason."""
    case = together(cases)
    emptied.wipe()
    emptied.load(case)
    description = made.built(emptied, policy, tmp_path / "m", as_of=case["as_of"])
    expected: dict[str, str] = case["expect"]["messages"]
    eligible = {emptied.id(name) for name, reason in expected.items() if reason == "eligible"}
    rows = made.rows(tmp_path / "m")
    assert {row["message_id"] for row in rows} == eligible
    assert len(rows) == description.eligible == len(eligible)
    assert Counter(description.excluded) == Counter(reason for reason in expected.values() if reason != "eligible")
    assert description.eligible + sum(description.excluded.values()) == len(expected)


def test_counts_add_up(store: Store, policy: Policy, tmp_path: Path) -> None:
    """Eligible and excluded messages add up to all messages that existed at the as-of."""
    store.load(made.world(accounts=4))
    made.withdraw(store, "a1", "2026-06-15T00:00:00Z")
    made.delete(store, "a2c1", "2026-06-01T00:00:00Z")
    store.execute("UPDATE conversations SET platform = 'bedrock' WHERE id = %s", store.id("a3c1"))
    store.execute("UPDATE messages SET created_at = '2025-08-31Z' WHERE id = %s", store.id("a4c1m0"))
    store.execute("UPDATE messages SET created_at = NULL WHERE id = %s", store.id("a4c1m1"))
    store.execute("UPDATE messages SET created_at = '2026-07-01T00:00:00.000001Z' WHERE id = %s", store.id("a4c1m2"))
    description = made.built(store, policy, tmp_path / "m")
    counted = Counter(description.excluded)
    assert +counted == {
        "no_consent": 8,
        "deleted": 4,
        "platform": 4,
        "before_consent": 1,
        "unclassified": 1,
    }
    existed = store.execute("SELECT count(*) FROM messages WHERE COALESCE(created_at <= %s, true)", made.AS_OF)[0][0]
    assert description.eligible + counted.total() == existed == 31
    manifest = described(tmp_path / "m")
    assert manifest["eligible"] == len(made.rows(tmp_path / "m")) == 13
    assert set(manifest["excluded"]) == set(description.excluded)
    assert manifest["excluded"]["expired"] == 0


def test_columns_of_a_row(store: Store, policy: Policy, tmp_path: Path) -> None:
    """A row has the pseudonym of its account, the grant that began the consent epoch, and the plan in force."""
    store.load(made.world(accounts=2, conversations=1, messages=1))
    store.execute(
        "INSERT INTO plan_changes (account_id, effective_at, plan) VALUES (%s, '2026-03-01Z', 'max')", store.id("a1")
    )
    grants = dict(store.execute("SELECT account_id::text, id FROM consent_events"))
    made.built(store, policy, tmp_path / "m")
    rows = {row["conversation_id"]: row for row in made.rows(tmp_path / "m")}
    for owner in ("a1", "a2"):
        row = rows[str(store.id(f"{owner}c1"))]
        account = str(store.id(owner))
        assert row["subject"] == made.KEY.of(account)
        assert row["consent_event_id"] == grants[account]
        assert (row["plan"], row["kind"], row["platform"], row["author"]) == ("pro", "coding", "first_party", "user")


def test_never_is_null(store: Store, policy: Policy, tmp_path: Path) -> None:
    """A maximum age beyond the calendar gives a null expiry, since readers cannot represent the year 11026."""
    store.load(made.world(accounts=1, messages=1))
    made.freeze(store, made.forever(policy, "9000 years"), tmp_path / "m")
    rows = {row["kind"]: row["expires_at"] for row in made.rows(tmp_path / "m")}
    assert rows == {"chat": None, "coding": instant("2027-02-01T00:00:00Z")}
    assert not lifecycle.verify(store.job(policy, made.AS_OF), tmp_path / "m", None).ineligible


def test_no_rows(store: Store, policy: Policy, tmp_path: Path) -> None:
    """Without eligible messages the manifest has one empty part, and counts all messages by reason."""
    store.load(made.world())
    for account in ("a1", "a2", "a3"):
        made.withdraw(store, account, "2026-06-01T00:00:00Z")
    description = made.built(store, policy, tmp_path / "m", with_text=True)
    assert (description.eligible, [file.rows for file in description.files]) == (0, [0])
    assert sum(description.excluded.values()) == 24
    part = pq.read_table(tmp_path / "m" / "part-00000.parquet")
    assert (part.num_rows, part.schema) == (0, parquet.schema(parquet.columns(with_text=True)))


# Private data


@pytest.mark.parametrize("store", ["uuid", "text"], indirect=True)
def test_nothing_private(store: Store, policy: Policy, tmp_path: Path) -> None:
    """No file contains account ids, texts or addresses, neither in columns nor in statistics or descriptions."""
    world = made.world()
    for account in world["accounts"]:
        account["id"] = f"owner-{account['id']}"
    for chat in world["conversations"]:
        chat["account"] = f"owner-{chat['account']}"
    store.load(world)
    store.execute("UPDATE messages SET body = 'secret words of jane.doe@example.com'")
    made.freeze(store, policy, tmp_path / "m")
    private = {
        *(str(store.id(account["id"])) for account in world["accounts"]),
        "secret",
        "jane.doe",
        "example.com",
        "@e",
    }
    private.add(made.KEY.key.decode())
    raw = b"\n".join(contents(tmp_path / "m").values())
    decoded = "\n".join(str(value) for row in made.rows(tmp_path / "m") for value in row.values())
    for word in private:
        assert word.encode() not in raw
        assert word not in decoded
    assert "text" not in pq.read_schema(tmp_path / "m" / "part-00000.parquet").names


def test_text_is_filtered(store: Store, policy: Policy, tmp_path: Path) -> None:
    """With text, addresses are replaced and counted; a message without text has a null."""
    store.load(made.world(accounts=1, conversations=1, messages=3))
    store.execute("UPDATE messages SET body = NULL WHERE id = %s", store.id("a1c1m0"))
    store.execute("UPDATE messages SET body = 'ask jane.doe@example.com' WHERE id = %s", store.id("a1c1m1"))
    made.built(store, policy, tmp_path / "m", with_text=True)
    texts = {row["message_id"]: row["text"] for row in made.rows(tmp_path / "m")}
    assert texts == {
        store.id("a1c1m0"): None,
        store.id("a1c1m1"): "ask [EMAIL]",
        store.id("a1c1m2"): "secret words",
    }
    assert [(row["characters"], row["words"], row["language"]) for row in made.rows(tmp_path / "m")] == [
        (None, None, None) if text is None else (len(text), len(text.split()), None) for text in texts.values()
    ]
    filtered = described(tmp_path / "m")["filter"]
    assert (filtered["found"], filtered["not_passed"]) == ({"email": 1}, 0)
    made.built(store, made.as_written(policy), tmp_path / "as written", with_text=True)
    assert "ask jane.doe@example.com" in {row["text"] for row in made.rows(tmp_path / "as written")}
    assert described(tmp_path / "as written")["filter"] is None


TEXTS = {
    "a1c1m0": ("What is the weather like today?", "en", 6),
    "a1c1m1": ("Wie wird das Wetter heute?", "de", 5),
    "a1c1m2": ("今日は天気がいいですね", "ja", 1),
    "a1c1m3": ("12345\u00a067 []\n", None, 3),
}


@pytest.mark.parametrize("text", ["filtered", "as_written"])
def test_language_and_length(store: Store, policy: Policy, tmp_path: Path, text: str) -> None:
    """With text, rows have its language, or none in doubt, its characters and words; the manifest says what detected it."""
    store.load(made.world(accounts=1, conversations=1))
    for name, (body, _, _) in TEXTS.items():
        store.execute("UPDATE messages SET body = %s WHERE id = %s", body, store.id(name))
    scope = policy if text == "filtered" else made.as_written(policy)
    description = made.built(store, scope, tmp_path / "m", with_text=True)
    found = {row["message_id"]: (row["text"], row["language"], row["words"]) for row in made.rows(tmp_path / "m")}
    assert found == {store.id(name): expected for name, expected in TEXTS.items()}
    assert all(row["characters"] == len(row["text"]) for row in made.rows(tmp_path / "m"))
    assert description.language is not None
    assert description.language.name == "py3langid"
