"""Exports: only what may be trained on at that moment, only filtered text, and every skipped message counted."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import ConfigurationError, SweeperError
from sweeper.manifest import build, export, lifecycle, parquet, recheck
from sweeper.manifest.description import describe
from sweeper.manifest.lifecycle import FrozenManifest, StateError
from sweeper.policy.schema import Policy
from tests.acceptance.commands import Command
from tests.manifest import made
from tests.manifest.made import LATER
from tests.store.stores import ID_TYPES, Store, frozen

Exported = tuple[list[dict[str, Any]], dict[str, int]]
WORLD = made.world(accounts=3, conversations=2, messages=4)


@pytest.fixture
def manifest(store: Store, policy: Policy, tmp_path: Path) -> FrozenManifest:
    """A frozen manifest of six conversations of four messages each, whose texts name their message."""
    store.load(WORLD)
    store.grant_text()
    store.execute("UPDATE messages SET body = 'text of ' || id")
    return made.freeze(store, policy, tmp_path / "m")


def exported(store: Store, policy: Policy, manifest: FrozenManifest, now: str = LATER) -> Exported:
    """Export a manifest with the clock at `now`; return the conversations and the numbers of skipped messages."""
    with export.open_export(store.job(policy, now, frozen(now)), manifest.description.id, "chat-jsonl") as begun:
        found = list(begun.conversations())
    assert begun.written == len(found)
    assert begun.messages == sum(len(one["messages"]) for one in found)
    assert begun.messages + begun.skipped.total() == manifest.description.eligible
    return found, dict(begun.skipped)


def ids(found: list[dict[str, Any]]) -> set[str]:
    """Return the ids of all exported messages."""
    return {id_ for one in found for id_ in one["message_ids"]}


@pytest.mark.parametrize("store", ID_TYPES, indirect=True)
def test_conversations(store: Store, policy: Policy, manifest: FrozenManifest) -> None:
    """Each conversation is one object with its messages in the manifest's order, and with what the manifest says of them."""
    found, skipped = exported(store, policy, manifest)
    rows = made.rows(manifest.folder)
    assert skipped == {}
    assert [id_ for one in found for id_ in one["message_ids"]] == [row["message_id"] for row in rows]
    first = found[0]
    assert first["messages"] == [{"role": row["author"], "content": f"text of {row['message_id']}"} for row in rows[:4]]
    assert (first["conversation_id"], first["turns"]) == (rows[0]["conversation_id"], [0, 1, 2, 3])
    assert first["split"] == rows[0]["split"]
    assert first["expires_at"] == min(row["expires_at"] for row in rows[:4]).isoformat().replace("+00:00", "Z")


CHANGES: dict[str, tuple[Callable[[Store], object], str, tuple[str, ...]]] = {
    "deleted": (lambda store: made.delete(store, "a1c1", LATER), "deleted", ("a1c1",)),
    "deleted tomorrow": (lambda store: made.delete(store, "a1c1", "2026-07-09T00:00:00Z"), "deleted", ("a1c1",)),
    "opted out": (lambda store: made.withdraw(store, "a2", LATER), "no_consent", ("a2c1", "a2c2")),
    "purged": (lambda store: _remove(store, "a3c2"), "gone", ("a3c2",)),
}


def _remove(store: Store, chat: str) -> None:
    store.execute("DELETE FROM messages WHERE conversation_id = %s", store.id(chat))
    store.execute("DELETE FROM conversations WHERE id = %s", store.id(chat))


@pytest.mark.parametrize("change", CHANGES)
def test_left_since_the_build(store: Store, policy: Policy, manifest: FrozenManifest, change: str) -> None:
    """What was deleted, opted out or purged after the build is not exported, and is counted by reason."""
    act, reason, chats = CHANGES[change]
    act(store)
    found, skipped = exported(store, policy, manifest)
    assert ids(found) == made.of(store, WORLD) - made.of(store, WORLD, *chats)
    assert skipped == {reason: 4 * len(chats)}
    with recheck.open_recheck(store.job(policy, LATER, frozen(LATER))) as snapshot:
        rows = list(snapshot.text_rows(manifest.folder, manifest.description))
    assert {row.body is None for row in rows if row.reason} == {True}, "the text of what is skipped is not even read"


def test_revoked_once(store: Store, policy: Policy, manifest: FrozenManifest) -> None:
    """What was ever revoked is not exported, even if nothing bars it any more; nor is a row past its own date."""
    store.execute("UPDATE conversations SET flagged_at = %s WHERE id = %s", LATER, store.id("a1c1"))
    lifecycle.start(store.job(policy, LATER, frozen(LATER)), manifest.description.id)
    store.execute("UPDATE conversations SET flagged_at = NULL")
    found, skipped = exported(store, policy, manifest)
    assert ids(found) == made.of(store, WORLD) - made.of(store, WORLD, "a1c1")
    assert skipped == {"revoked": 4}
    assert exported(store, made.forever(policy), manifest, "2032-01-01T00:00:00Z") == ([], {"expired": 24})


def test_text(store: Store, policy: Policy, manifest: FrozenManifest) -> None:
    """Text is filtered whatever the policy says; what did not pass, has no text or has another author is skipped."""
    bodies = {"a1c1m0": "ask jane.doe@example.com", "a1c1m1": "", "a1c1m2": None, "a1c1m3": "x" * 1_000_001}
    for name, body in bodies.items():
        store.execute("UPDATE messages SET body = %s WHERE id = %s", body, store.id(name))
    store.execute("UPDATE messages SET author = 'tool' WHERE conversation_id = %s", store.id("a1c2"))
    for under in (policy, made.as_written(policy)):
        found, skipped = exported(store, under, manifest)
        assert skipped == {"no_text": 2, "not_passed": 1, "author": 4}
        by_id = {one["conversation_id"]: one for one in found}
        assert by_id[str(store.id("a1c1"))]["messages"] == [{"role": "user", "content": "ask [EMAIL]"}]
        assert "jane" not in json.dumps(found)


def test_rows_arrive_in_pages(
    store: Store, policy: Policy, manifest: FrozenManifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are fetched a page at a time, so that memory does not grow with the manifest."""
    sizes = []
    pages = recheck.RecheckSnapshot._pages

    def counted(self: recheck.RecheckSnapshot, sql: str, rows: int) -> Iterator[Sequence[Any]]:
        for page in pages(self, sql, rows):
            sizes.append(len(page))
            yield page

    monkeypatch.setattr(recheck, "TEXTS_PER_PAGE", 5)
    monkeypatch.setattr(recheck.RecheckSnapshot, "_pages", counted)
    assert exported(store, policy, manifest)[1] == {}
    assert sizes == [5, 5, 5, 5, 4]


def test_recorded_before_text_leaves(store: Store, policy: Policy, manifest: FrozenManifest) -> None:
    """An export is recorded when it begins, and the evidence is intact; an export that is refused is not recorded."""
    job = store.job(policy, LATER, frozen(LATER))
    with pytest.raises(StateError, match="there is no manifest nowhere"), export.open_export(job, "nowhere", "x"):
        pass
    with export.open_export(job, manifest.description.id, "chat-jsonl"):
        pass
    (recorded,) = store.execute("SELECT details FROM sweeper.events WHERE kind = 'manifest_exported'")[0]
    assert (recorded["manifest"], recorded["format"], recorded["exported_at"]) == (
        manifest.description.id,
        "chat-jsonl",
        LATER,
    )


def test_changed_files(store: Store, policy: Policy, manifest: FrozenManifest) -> None:
    """Nothing is exported from a manifest whose files were changed."""
    (manifest.folder / "part-00000.parquet").write_bytes(b"")
    with pytest.raises(SweeperError, match=r"part-00000\.parquet was changed"):
        exported(store, policy, manifest)


@pytest.mark.parametrize("store", ["uuid"], indirect=True)
def test_encoded_bodies(store: Store, policy: Policy, manifest: FrozenManifest) -> None:
    """Bodies that are not text are refused, because the filter would find nothing in them."""
    store.execute("ALTER TABLE messages ALTER body TYPE jsonb USING to_jsonb(body)")
    with pytest.raises(ConfigurationError, match=r"messages.body is jsonb.*Nothing was exported"):
        exported(store, policy, manifest)


def test_a_manifest_of_an_earlier_version(
    store: Store, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest without turns and splits is still intact and can be exported, without them."""
    store.load(WORLD)
    store.grant_text()
    earlier = [column for column in parquet.COLUMNS if column.name not in recheck.POSITION]
    with monkeypatch.context() as patched:
        patched.setattr(parquet, "COLUMNS", earlier)
        patched.setattr(
            build,
            "describe",
            lambda split, language, **values: describe(**values),
        )
        manifest = made.freeze(store, policy, tmp_path / "m")
    assert "split" not in json.loads((manifest.folder / "manifest.json").read_text())
    found, _ = exported(store, policy, manifest)
    assert ids(found) == made.of(store, WORLD)
    assert {(one["split"], *one["turns"]) for one in found} == {(None,) * 5}


def test_commands(store: Store, sweeper: Command, policy: Policy, manifest: FrozenManifest, tmp_path: Path) -> None:
    """`export` writes the same conversations to a file and to stdout, and says elsewhere only how many."""
    made.withdraw(store, "a1", "2026-07-02T00:00:00Z")
    words = ("manifest", "export", manifest.description.id)
    printed, file = sweeper(*words, "--format", "chat-jsonl"), tmp_path / "chats.jsonl"
    written = sweeper(*words, "--out", str(file), "--json")
    assert (printed.code, written.code) == (0, 0), (printed.err, written.err)
    assert file.read_text() == printed.out
    assert file.stat().st_mode & 0o077 == 0
    lines = list(map(json.loads, printed.out.splitlines()))
    assert ids(lines) == made.of(store, WORLD) - made.of(store, WORLD, "a1c1", "a1c2")
    assert "16 messages in 4 conversations exported" in printed.err
    assert "Messages skipped: 8 expired." in printed.err
    counts = json.loads(written.out)
    assert (counts["messages"], counts["skipped"], counts["out"]) == (16, {"expired": 8}, str(file))
    assert "text of" not in printed.err + written.out + written.err
    assert sweeper(*words, "--json").code == 2
    assert sweeper(*words, "--format", "parquet").code == 2
    assert sweeper("manifest", "export", "nowhere").code == 2


def test_show(store: Store, sweeper: Command, policy: Policy, tmp_path: Path) -> None:
    """`show` prints what a manifest is and where; if its directory is gone, what the database knows, with exit code 1."""
    store.load(WORLD)
    folder = tmp_path / "m"
    manifest = made.freeze(store, policy, folder, with_text=True)
    words = ("manifest", "show", manifest.description.id)
    shown = sweeper(*words)
    assert shown.code == 0
    facts = (
        "frozen",
        made.AS_OF,
        str(folder),
        policy.digest,
        "part-00000.parquet",
        "24 rows",
        "train, 90 %",
        "py3langid",
    )
    assert [fact for fact in facts if fact not in shown.out] == []
    as_json = json.loads(sweeper(*words, "--json").out)
    assert sum(as_json["split"]["messages"].values()) == 24
    assert (as_json["state"], as_json["directory"], as_json["missing"]) == ("frozen", str(folder), None)
    folder.rename(tmp_path / "elsewhere")
    gone = sweeper(*words)
    assert (gone.code, str(folder) in gone.out, "cannot be read" in gone.err) == (1, True, True)
    assert sweeper("manifest", "show", "nowhere").code == 2
