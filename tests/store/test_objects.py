"""Objects behind attachments go after the commit, once, never one that is still named; what fails is tried again."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from sqlalchemy import Connection

from sweeper.core.policy import Policy
from sweeper.errors import LeaseLostError
from sweeper.steering import Stop, Watch
from sweeper.store import evidence, objects
from sweeper.store import lease as leases
from tests.store.stores import Store
from tests.store.test_races import AS_OF, Killed, fill, once_before, swept


@pytest.fixture
def memory() -> Iterator[Any]:
    """The file system behind memory://, emptied afterwards."""
    filesystem = fsspec.filesystem("memory")
    yield filesystem
    filesystem.store.clear()


class Stubborn(fsspec.AbstractFileSystem):  # type: ignore[misc]  # fsspec ships no types
    """A file system that refuses what is named no/…, and tells others of each removal."""

    protocol = "stubborn"
    cachable = False
    removed: list[str] = []  # noqa: RUF012 — one list for all, emptied by each test
    told: list[Any] = []  # noqa: RUF012 — likewise

    def rm_file(self, path: str) -> None:
        """Refuse, or remember the path and call whoever wants to know."""
        if path.startswith("no/"):
            raise PermissionError(path)
        self.removed.append(path)
        for told in self.told:
            told(path)


@pytest.fixture
def stubborn() -> Iterator[type[Stubborn]]:
    """The file system behind stubborn://."""
    fsspec.register_implementation("stubborn", Stubborn, clobber=True)
    yield Stubborn
    Stubborn.removed.clear()
    Stubborn.told.clear()


def attach(store: Store, conversation: str, *uris: str | None) -> None:
    """Give a conversation attachments."""
    for uri in uris:
        store.execute("INSERT INTO attachments VALUES (%s, %s, %s)", uuid4(), conversation, uri)


def state(store: Store) -> dict[str, tuple[str | None, int, str | None]]:
    """Outcome, attempts and last error by URI; of several entries of one URI, the newest."""
    rows = store.execute("SELECT uri, outcome, attempts, last_error FROM sweeper.object_purges ORDER BY id")
    return {uri: (outcome, attempts, error) for uri, outcome, attempts, error in rows}


def keep(store: Store, conversation: str) -> None:
    """Make a conversation young."""
    store.execute("UPDATE conversations SET last_activity_at = '2026-06-30Z' WHERE id = %s", conversation)


def test_objects_go_with_their_conversations(store: Store, policy: Policy, tmp_path: Path, memory: Any) -> None:
    """Files and memory objects of purged conversations are removed, with odd names too; those of kept ones stay."""
    ids = fill(store, 3)
    keep(store, ids[2])
    files = [tmp_path / name for name in ("plain.png", "with blank.png", "ümlaut%20#?.png", "kept.png")]
    for file in files:
        file.write_text("x")
    memory.pipe_file("/bucket/one", b"x")
    attach(store, ids[0], f"file://{files[0]}", f"file://{files[1]}", "memory://bucket/one", None)
    attach(store, ids[1], f"file://{files[2]}")
    attach(store, ids[2], f"file://{files[3]}")
    result = swept(store, policy).as_json()
    assert (result["purged"], result["objects_pending"]) == (2, 0)
    assert [file.exists() for file in files] == [False, False, False, True]
    assert not memory.exists("/bucket/one")
    assert {outcome for outcome, _, _ in state(store).values()} == {"removed"}


def test_objects_are_removed_after_the_commit(store: Store, policy: Policy, stubborn: type[Stubborn]) -> None:
    """When an object is removed, its conversation is already gone for every other connection."""
    ids = fill(store, 2)
    attach(store, ids[0], "stubborn://yes/1")
    seen: list[set[str]] = []
    stubborn.told.append(lambda _: seen.append(store.left()))
    swept(store, policy)
    assert (stubborn.removed, seen) == (["yes/1"], [set()])


def test_absent_object_is_done(store: Store, policy: Policy, tmp_path: Path, memory: Any) -> None:
    """An object that is not there any more counts as done."""
    assert memory.store == {}
    (id_,) = fill(store, 1)
    attach(store, id_, f"file://{tmp_path}/gone", "memory://gone", f"file://{tmp_path}/no/such/folder/gone")
    assert swept(store, policy).as_json()["objects_pending"] == 0
    assert {outcome for outcome, _, _ in state(store).values()} == {"absent"}


def test_object_that_a_kept_attachment_names_is_left(store: Store, policy: Policy, tmp_path: Path) -> None:
    """An object shared with a kept conversation stays, and goes when that one is purged."""
    ids = fill(store, 2)
    keep(store, ids[1])
    file = tmp_path / "shared.png"
    file.write_text("x")
    for id_ in ids:
        attach(store, id_, f"file://{file}")
    assert swept(store, policy).as_json()["objects_pending"] == 0
    assert file.exists()
    assert state(store) == {f"file://{file}": ("shared", 1, None)}
    store.execute("UPDATE conversations SET last_activity_at = '2026-02-01Z'")
    assert swept(store, policy).as_json()["purged"] == 1
    assert not file.exists()
    assert state(store) == {f"file://{file}": ("removed", 1, None)}


def test_object_of_two_purged_conversations_is_removed(store: Store, policy: Policy, tmp_path: Path) -> None:
    """An object that only purged conversations named is removed, also where they went in different batches."""
    ids = fill(store, 2)
    file = tmp_path / "both.png"
    file.write_text("x")
    for id_ in ids:
        attach(store, id_, f"file://{file}")
    assert swept(store, policy, purge={"batch": 1}).as_json()["objects_pending"] == 0
    assert not file.exists()
    assert sorted(store.execute("SELECT outcome FROM sweeper.object_purges")) == [("absent",), ("removed",)]


def test_object_of_a_spared_conversation_stays(store: Store, policy: Policy, tmp_path: Path) -> None:
    """A batch that is undone leaves no object to be removed."""
    ids = fill(store, 2)
    files = [tmp_path / id_ for id_ in ids]
    for id_, file in zip(ids, files, strict=True):
        file.write_text("x")
        attach(store, id_, f"file://{file}")
    store.execute(f"ALTER TABLE sweeper.tombstones ADD CHECK (record_id <> '{ids[0]}')")
    assert swept(store, policy).as_json()["failed"] == 1
    assert [file.exists() for file in files] == [True, False]
    assert list(state(store)) == [f"file://{files[1]}"]


def test_failing_removal_stays_pending(store: Store, policy: Policy, tmp_path: Path, stubborn: type[Stubborn]) -> None:
    """What cannot be removed stays pending under the kind of its error, disturbs nothing else, and is tried by every run."""
    (id_,) = fill(store, 1)
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("x")
    folder.mkdir()
    bad = ["unheard-of://x/y", f"file://{folder}", "stubborn://no/1", "file:///proc/version"]
    attach(store, id_, *bad, f"file://{file}")
    result = swept(store, policy).as_json()
    assert (result["outcome"], result["purged"], result["objects_pending"]) == ("completed", 1, 4)
    assert not file.exists()
    found = state(store)
    assert [(found[uri][0], found[uri][1]) for uri in bad] == [(None, 1)] * 4
    assert found["stubborn://no/1"] == (None, 1, "PermissionError")
    assert found["unheard-of://x/y"][2] == "ValueError"
    assert all(found[uri][2] and "/" not in str(found[uri][2]) for uri in bad)
    folder.rmdir()
    assert swept(store, policy).as_json()["objects_pending"] == 3
    found = state(store)
    assert found[f"file://{folder}"] == ("absent", 2, None)
    assert found["stubborn://no/1"] == (None, 2, "PermissionError")


def test_only_allowed_places_are_touched(store: Store, policy: Policy, tmp_path: Path) -> None:
    """With [objects] prefixes an object elsewhere, or one that climbs out with `..`, is left and stays pending."""
    (id_,) = fill(store, 1)
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "a").write_text("x")
    (outside / "b").write_text("x")
    (outside / "c").write_text("x")
    uris = [
        f"file://{inside}/a",
        f"file://{outside}/b",
        f"file://{inside}/../out/c",
        f"{outside}/b",
        f"local://{outside}/b",
        f"simplecache::file://{outside}/b",
    ]
    attach(store, id_, *uris)
    result = swept(store, policy, objects={"prefixes": [f"file://{inside}/"]}).as_json()
    assert result["objects_pending"] == 5
    found = state(store)
    assert found[uris[0]] == ("removed", 1, None)
    assert all(found[uri] == (None, 1, "OutsideError") for uri in uris[1:])
    assert not (inside / "a").exists()
    assert (outside / "b").exists()
    assert (outside / "c").exists()


@pytest.mark.parametrize("uri", ["file://{}/in/../b", "{}/in/../b", "file://{}/in/%2e%2e/b", "file://{}/in/..\\b"])
def test_climbing_is_refused_without_prefixes_too(store: Store, policy: Policy, tmp_path: Path, uri: str) -> None:
    """A URI with `..` removes nothing above it, whatever is allowed."""
    (id_,) = fill(store, 1)
    (tmp_path / "in").mkdir()
    (tmp_path / "b").write_text("x")
    attach(store, id_, uri.format(tmp_path))
    swept(store, policy)
    assert (tmp_path / "b").exists()


def test_name_without_a_place_is_not_a_local_file(
    store: Store, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare file name in an attachment, as a browser uploads it, removes no file of this machine."""
    (id_,) = fill(store, 1)
    (tmp_path / "photo.png").write_text("x")
    monkeypatch.chdir(tmp_path)
    attach(store, id_, "photo.png")
    swept(store, policy)
    assert (tmp_path / "photo.png").exists()


def test_crash_between_commit_and_removal(
    store: Store, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed after the commit and before the removal leaves its objects to the next run."""
    (id_,) = fill(store, 1)
    file = tmp_path / "file"
    file.write_text("x")
    attach(store, id_, f"file://{file}")

    def die(*_: Any) -> int:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(objects, "remove_pending", die)
        with pytest.raises(Killed):
            swept(store, policy, lease={"seconds": 1})
    assert (store.left(), file.exists()) == (set(), True)
    result = swept(store, policy, lease={"seconds": 1}).as_json()
    assert (result["purged"], result["objects_pending"], file.exists()) == (0, 0, False)


def test_crash_between_removal_and_its_record(store: Store, policy: Policy, stubborn: type[Stubborn]) -> None:
    """A run killed after an object was removed and before that was recorded: the next one removes it again, without harm."""
    (id_,) = fill(store, 1)
    attach(store, id_, "stubborn://yes/1")

    def die(_: str) -> None:
        stubborn.told.clear()
        raise Killed

    stubborn.told.append(die)
    with pytest.raises(Killed):
        swept(store, policy, lease={"seconds": 1})
    assert swept(store, policy, lease={"seconds": 1}).as_json()["objects_pending"] == 0
    assert stubborn.removed == ["yes/1", "yes/1"]
    assert state(store) == {"stubborn://yes/1": ("removed", 1, None)}


def test_crash_within_a_batch_writes_down_no_object(
    store: Store, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run killed within a batch has written down none of its objects."""
    (id_,) = fill(store, 1)
    file = tmp_path / "file"
    file.write_text("x")
    attach(store, id_, f"file://{file}")

    def die(_: Connection) -> None:
        raise Killed

    once_before(monkeypatch, evidence, "bury", die)
    with pytest.raises(Killed):
        swept(store, policy, lease={"seconds": 1})
    assert (state(store), file.exists()) == ({}, True)


def test_undeletable_objects_do_not_starve_newer_ones(
    store: Store, policy: Policy, stubborn: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more objects fail for ever than a run tries, newer ones are still removed within a few runs."""
    monkeypatch.setattr(objects, "PAGE", 1)
    ids = fill(store, 2)
    attach(store, ids[0], "stubborn://no/1")
    attach(store, ids[1], "stubborn://yes/1")
    for _ in range(4):
        swept(store, policy, purge={"batch": 1}, objects={"per_run": 1})
    assert stubborn.removed == ["yes/1"]


def test_lease_is_renewed_while_objects_are_removed(
    store: Store, policy: Policy, stubborn: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Removing many objects keeps the lease alive, so that no other run takes over meanwhile."""
    monkeypatch.setattr(objects, "PAGE", 1)
    (id_,) = fill(store, 1)
    attach(store, id_, "stubborn://yes/1", "stubborn://yes/2", "stubborn://yes/3")
    ends: list[Any] = []
    stubborn.told.append(lambda _: ends.extend(store.execute("SELECT expires_at FROM sweeper.lease")))
    swept(store, policy)
    assert len(ends) == 3
    assert len(set(ends)) > 1


def test_hanging_file_system(
    store: Store, policy: Policy, stubborn: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One object that hangs is recorded as failed, the others wait for the next run, and this run comes to its end."""
    let_go = Event()
    stubborn.told.append(lambda _: let_go.wait(20.0))
    monkeypatch.setattr(objects, "HANGS_SECONDS", 0.2)
    (chat,) = fill(store, 1)
    attach(store, chat, "stubborn://a", "stubborn://b")
    try:
        assert swept(store, policy).objects_pending == 2
    finally:
        let_go.set()
    assert store.execute("SELECT outcome FROM sweeper.runs") == [("completed",)]
    assert store.execute("SELECT attempts, last_error FROM sweeper.object_purges ORDER BY attempts DESC") == [
        (1, "HangsError"),
        (0, None),
    ]


def test_asked_to_stop_while_a_file_system_hangs(store: Store, policy: Policy, stubborn: type[Stubborn]) -> None:
    """Who is asked to stop does not wait for a file system; the object is tried again."""
    let_go, asked = Event(), Event()

    def hang(_: str) -> None:
        asked.set()
        let_go.wait(20.0)

    stubborn.told.append(hang)
    (chat,) = fill(store, 1)
    attach(store, chat, "stubborn://a")
    try:
        result = swept(store, policy, watch=Watch(stopping=lambda: Stop.SIGNAL if asked.is_set() else ""))
    finally:
        let_go.set()
    assert (result.outcome, result.steering.stopped, result.objects_pending) == ("stopped", "signal", 1)


def test_replaced_run_removes_no_more_objects(
    store: Store, policy: Policy, stubborn: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was replaced while it removed objects stops and does not report itself as completed."""
    monkeypatch.setattr(objects, "PAGE", 1)
    (id_,) = fill(store, 1)
    attach(store, id_, *(f"stubborn://yes/{number}" for number in range(4)))
    database = store.database()

    def replace(_: str) -> None:
        if len(stubborn.removed) == 1:
            store.execute("UPDATE sweeper.lease SET expires_at = '-infinity'")
            leases.take(database)

    stubborn.told.append(replace)
    with pytest.raises(LeaseLostError):
        swept(store, policy)
    assert len(stubborn.removed) < 4


def test_uri_is_named_again_before_its_removal(store: Store, policy: Policy, tmp_path: Path) -> None:
    """An attachment that names a pending object anew, after a failed run, keeps it."""
    ids = fill(store, 2)
    keep(store, ids[1])
    folder = tmp_path / "object"
    folder.mkdir()
    attach(store, ids[0], f"file://{folder}")
    assert swept(store, policy).as_json()["objects_pending"] == 1
    folder.rmdir()
    folder.write_text("x")
    attach(store, ids[1], f"file://{folder}")
    assert swept(store, policy).as_json()["objects_pending"] == 0
    assert folder.exists()
    assert state(store)[f"file://{folder}"][0] == "shared"


def test_as_of_is_the_instant_of_removal(store: Store, policy: Policy, memory: Any) -> None:
    """When an object was removed is told by the clock of the run."""
    memory.pipe_file("/one", b"x")
    (id_,) = fill(store, 1)
    attach(store, id_, "memory://one")
    swept(store, policy)
    assert store.execute("SELECT done_at = %s::timestamptz FROM sweeper.object_purges", AS_OF) == [(True,)]
