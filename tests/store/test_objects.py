"""Objects behind attachments go after the commit, once, never one that is still named; what fails is tried again."""

import os
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import cycle, product
from pathlib import Path
from threading import Barrier, Event
from typing import Any
from uuid import uuid4

import fsspec
import pytest
from sqlalchemy import Connection
from structlog.testing import capture_logs

from sweeper.errors import LeaseLostError
from sweeper.objects import local_files, removal, threads
from sweeper.policy.instant import rfc3339
from sweeper.policy.schema import Policy
from sweeper.postgres import evidence
from sweeper.postgres import lease as leases
from sweeper.postgres.statement import statement
from sweeper.runs.result import Result
from sweeper.runs.sweep import sweep
from sweeper.runs.throttle import ProgressListener, StopReason
from sweeper.uri import NON_CANONICAL
from tests.facts import instant
from tests.processes import until
from tests.store import test_races
from tests.store.stores import Store, frozen
from tests.store.test_races import AS_OF, GUARDS, Killed, fill, once_before, void


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


@pytest.fixture(autouse=True)
def listed(tmp_path: Path) -> None:
    """Objects may be removed below these places, unless a test lists others."""
    LISTED[:] = [f"file://{tmp_path}/", "memory://bucket/", "stubborn://yes/", "stubborn://no/"]


LISTED: list[str] = []


def swept(
    store: Store,
    policy: Policy,
    watch: ProgressListener | None = None,
    further_reason: Callable[[], str] = lambda: "",
    **sections: Any,
) -> Result:
    """One sweep with the prefixes of the tests, which removes one object after the other unless a test says otherwise."""
    sections["objects"] = {"prefixes": LISTED, "parallel": 1, **sections.get("objects", {})}
    return test_races.swept(store, policy, watch, further_reason, **sections)


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
    local_files = [tmp_path / name for name in ("plain.png", "with blank.png", "ümlaut%20#?.png", "kept.png")]
    for file in local_files:
        file.write_text("x")
    memory.pipe_file("/bucket/one", b"x")
    attach(store, ids[0], f"file://{local_files[0]}", f"file://{local_files[1]}", "memory://bucket/one", None)
    attach(store, ids[1], f"file://{local_files[2]}")
    attach(store, ids[2], f"file://{local_files[3]}")
    result = swept(store, policy).as_json()
    assert (result["purged"], result["objects_pending"]) == (2, 0)
    assert [file.exists() for file in local_files] == [False, False, False, True]
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
    (tmp_path / "folder").mkdir()
    attach(store, id_, f"file://{tmp_path}/gone", "memory://bucket/gone", f"file://{tmp_path}/folder/gone")
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
    local_files = [tmp_path / id_ for id_ in ids]
    for id_, file in zip(ids, local_files, strict=True):
        file.write_text("x")
        attach(store, id_, f"file://{file}")
    store.execute(f"ALTER TABLE sweeper.tombstones ADD CHECK (record_id <> '{ids[0]}')")
    assert swept(store, policy).as_json()["failed"] == 1
    assert [file.exists() for file in local_files] == [True, False]
    assert list(state(store)) == [f"file://{local_files[1]}"]


def test_failing_removal_stays_pending(store: Store, policy: Policy, tmp_path: Path, stubborn: type[Stubborn]) -> None:
    """What cannot be removed stays pending under the kind of its error, disturbs nothing else, and is tried by every run."""
    (id_,) = fill(store, 1)
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.write_text("x")
    folder.mkdir()
    bad = [f"file://{folder}", "stubborn://no/1"]
    attach(store, id_, *bad, f"file://{file}")
    result = swept(store, policy).as_json()
    assert (result["outcome"], result["purged"], result["objects_pending"]) == ("completed", 1, 2)
    assert not file.exists()
    found = state(store)
    assert [(found[uri][0], found[uri][1]) for uri in bad] == [(None, 1)] * 2
    assert found["stubborn://no/1"] == (None, 1, "PermissionError")
    assert all(found[uri][2] and "/" not in str(found[uri][2]) for uri in bad)
    folder.rmdir()
    assert swept(store, policy).as_json()["objects_pending"] == 1
    found = state(store)
    assert found[f"file://{folder}"] == ("absent", 2, None)
    assert found["stubborn://no/1"] == (None, 2, "PermissionError")


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
        patched.setattr(removal, "remove_pending", die)
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

    once_before(monkeypatch, evidence, "insert_tombstones", die)
    with pytest.raises(Killed):
        swept(store, policy, lease={"seconds": 1})
    assert (state(store), file.exists()) == ({}, True)


def test_undeletable_objects_do_not_starve_newer_ones(
    store: Store, policy: Policy, stubborn: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where more objects fail for ever than a run tries, newer ones are still removed within a few runs."""
    monkeypatch.setattr(removal, "PAGE", 1)
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
    monkeypatch.setattr(removal, "PAGE", 1)
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
    monkeypatch.setattr(threads, "HANGS_SECONDS", 0.2)
    (chat,) = fill(store, 1)
    attach(store, chat, "stubborn://yes/a", "stubborn://yes/b")
    try:
        assert swept(store, policy).objects_pending == 2
    finally:
        let_go.set()
    assert store.execute("SELECT outcome FROM sweeper.runs") == [("completed",)]
    assert store.execute("SELECT attempts, last_error FROM sweeper.object_purges ORDER BY attempts DESC") == [
        (1, "hangs"),
        (0, None),
    ]


def test_asked_to_stop_while_a_file_system_hangs(store: Store, policy: Policy, stubborn: type[Stubborn]) -> None:
    """Who is asked to stop does not wait for a file system; the object is tried again, and what went is recorded."""
    let_go, asked = Event(), Event()

    def hang(path: str) -> None:
        if path == "yes/a":
            asked.set()
            let_go.wait(20.0)

    stubborn.told.append(hang)
    (chat,) = fill(store, 1)
    attach(store, chat, "stubborn://yes/a", "stubborn://yes/b")
    try:
        reason = lambda: StopReason.SIGNAL if asked.is_set() else ""  # noqa: E731
        result = swept(store, policy, further_reason=reason, objects={"parallel": 2})
    finally:
        let_go.set()
    assert (result.outcome, result.throttle.stopped, result.objects_pending) == ("stopped", "signal", 1)
    assert state(store) == {"stubborn://yes/a": (None, 0, None), "stubborn://yes/b": ("removed", 1, None)}


def test_replaced_run_removes_no_more_objects(
    store: Store, policy: Policy, stubborn: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was replaced while it removed objects stops and does not report itself as completed."""
    monkeypatch.setattr(removal, "PAGE", 1)
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
    memory.pipe_file("/bucket/one", b"x")
    (id_,) = fill(store, 1)
    attach(store, id_, "memory://bucket/one")
    swept(store, policy)
    assert store.execute("SELECT done_at = %s::timestamptz FROM sweeper.object_purges", AS_OF) == [(True,)]


# Which objects may be removed


def test_no_prefixes(store: Store, policy: Policy, tmp_path: Path, stubborn: type[Stubborn]) -> None:
    """Where no place is listed no object is touched or tried; that is said and counted, and they go once a place is listed."""
    (id_,) = fill(store, 1)
    (tmp_path / "a").write_text("x")
    attach(store, id_, f"file://{tmp_path}/a", "stubborn://yes/1", None)
    with capture_logs() as logs:
        result = swept(store, policy, objects={"prefixes": []}).as_json()
    assert (result["purged"], result["objects_pending"], result["objects_kept"]) == (1, 2, {"no_prefixes": 2})
    [said] = [line for line in logs if "[objects] prefixes is empty" in line["event"]]
    assert (said["log_level"], said["pending"]) == ("warning", 2)
    assert ((tmp_path / "a").exists(), stubborn.removed) == (True, [])
    assert set(state(store).values()) == {(None, 0, None)}
    assert swept(store, policy).as_json()["objects_pending"] == 0
    assert ((tmp_path / "a").exists(), stubborn.removed) == (False, ["yes/1"])


def test_no_prefixes_and_no_objects(store: Store, policy: Policy) -> None:
    """Where no object waits, nothing is said of them."""
    fill(store, 1)
    with capture_logs() as logs:
        assert swept(store, policy, objects={"prefixes": []}).as_json()["objects_kept"] == {}
    assert not [line for line in logs if "object" in line["event"]]


REFUSED = {
    "file://{out}/key.pem": "outside_prefixes",
    "file://{inside}-2/key.pem": "outside_prefixes",
    "file://{inside}/../out/key.pem": "climbs",
    "file://{inside}/%2e%2e/out/key.pem": "encoded",
    "file://{inside}/%252e%252e/out/key.pem": "encoded",
    "file://{inside}/..%2fout/key.pem": "encoded",
    "file://{inside}/..\\out/key.pem": "backslash",
    "simplecache::file://{out}/key.pem": "chained",
    "simplecache::file://{inside}/a": "chained",
    "{inside}/a": "no_scheme",
    "file:{inside}/a": "no_scheme",
    "file://{inside}/folder": "folder",
    "file://{inside}/folder/": "folder",
    "file://{inside}/link/key.pem": "link",
    "file://{inside}/link": "link",
    "file://{inside}/pem": "link",
    "file://{inside}/near/a": "link",
    "unheard-of://x/y": "outside_prefixes",
}


def test_what_is_refused(store: Store, policy: Policy, tmp_path: Path) -> None:
    """An object elsewhere, or one that a chain, a `..`, a percent sign or a link may lead elsewhere, stays with the reason."""
    (id_,) = fill(store, 1)
    places = {name: tmp_path / name for name in ("inside", "inside-2", "out")}
    for place in (*places.values(), places["inside"] / "folder"):
        place.mkdir()
        (place / "key.pem").write_text("x")
        (place / "a").write_text("x")
    for name, target in (("link", "../out"), ("pem", "../out/key.pem"), ("near", "folder")):
        (places["inside"] / name).symlink_to(target)
    before = sorted(tmp_path.rglob("*"))
    uris = {uri.format(**places): reason for uri, reason in REFUSED.items()}
    attach(store, id_, *uris, f"local://{places['inside']}//./a")
    result = swept(store, policy, objects={"prefixes": [f"file://{places['inside']}"]}).as_json()
    assert (result["outcome"], result["objects_pending"]) == ("completed", len(REFUSED))
    assert sorted(tmp_path.rglob("*")) == [path for path in before if path != places["inside"] / "a"]
    found = state(store)
    assert {uri: found[uri] for uri in uris} == {uri: (None, 1, reason) for uri, reason in uris.items()}
    assert result["objects_kept"] == Counter(REFUSED.values())


def test_no_connection_to_what_is_not_listed(store: Store, policy: Policy) -> None:
    """A URI makes the job connect to no host that is not listed."""
    (id_,) = fill(store, 1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        port = listening.getsockname()[1]
        attach(store, id_, *(f"{scheme}://127.0.0.1:{port}/a" for scheme in ("ftp", "http", "sftp", "webhdfs")))
        assert swept(store, policy).as_json()["objects_kept"] == {"outside_prefixes": 4}
        with pytest.raises(BlockingIOError):
            listening.accept()


def test_link_swapped_in_meanwhile(
    store: Store, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that becomes a link while the way to the file is walked is not followed."""
    (id_,) = fill(store, 1)
    inside, out = tmp_path / "inside", tmp_path / "out"
    for place in (inside / "a" / "b", out / "b"):
        place.mkdir(parents=True)
        (place / "key.pem").write_text("x")
    attach(store, id_, f"file://{inside}/a/b/key.pem")
    walk = local_files._open_folder

    def swapping(name: str, directory: int) -> int:
        if name == "a":
            (inside / "a").rename(tmp_path / "away")
            (inside / "a").symlink_to(out)
        return walk(name, directory)

    monkeypatch.setattr(local_files, "_open_folder", swapping)
    assert swept(store, policy, objects={"prefixes": [f"file://{inside}"]}).as_json()["objects_kept"] == {"link": 1}
    assert ((out / "b" / "key.pem").exists(), (tmp_path / "away" / "b" / "key.pem").exists()) == (True, True)


def test_directory_that_is_not_mounted(store: Store, policy: Policy, tmp_path: Path) -> None:
    """Where the directory of a prefix is missing, its files are not taken for gone."""
    (id_,) = fill(store, 1)
    attach(store, id_, f"file://{tmp_path}/volume/a")
    prefixes = [f"file://{tmp_path}/volume"]
    result = swept(store, policy, objects={"prefixes": prefixes}).as_json()
    assert result["objects_kept"] == {"prefix_directory_missing": 1}
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume" / "a").write_text("x")
    assert swept(store, policy, objects={"prefixes": prefixes}).as_json()["objects_pending"] == 0
    assert not (tmp_path / "volume" / "a").exists()


def test_directory_that_is_gone_for_a_moment(store: Store, policy: Policy, tmp_path: Path) -> None:
    """Where a directory below the prefix is missing, its files are not taken for gone either."""
    (id_,) = fill(store, 1)
    file = tmp_path / "volume" / "folder" / "a"
    attach(store, id_, f"file://{file}")
    for _ in range(2):
        assert swept(store, policy).as_json()["objects_kept"] == {"parent_directory_missing": 1}
    assert state(store) == {f"file://{file}": (None, 2, "parent_directory_missing")}
    file.parent.mkdir(parents=True)
    file.write_text("x")
    assert swept(store, policy).as_json()["objects_pending"] == 0
    assert not file.exists()


def test_link_that_is_gone_before_it_is_looked_at(
    store: Store, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory that is a link for a moment, and missing in the next, does not make its files count as gone."""
    (id_,) = fill(store, 1)
    folder, away = tmp_path / "folder", tmp_path / "away"
    away.mkdir()
    folder.symlink_to(away)
    attach(store, id_, f"file://{folder}/a")
    stat = os.stat

    def unlinking(path: Any, **named: Any) -> os.stat_result:
        if path == "folder":
            folder.unlink()
        return stat(path, **named)

    monkeypatch.setattr(os, "stat", unlinking)
    assert swept(store, policy).as_json()["objects_kept"] == {"parent_directory_missing": 1}


def test_prefix_reached_by_a_link(store: Store, policy: Policy, tmp_path: Path) -> None:
    """A listed directory may be a link; a live attachment that names the file by the other way keeps it."""
    ids = fill(store, 2)
    keep(store, ids[1])
    real, link = tmp_path / "real", tmp_path / "link"
    real.mkdir()
    link.symlink_to(real)
    for name in ("a", "b", "c"):
        (real / name).write_text("x")
    attach(store, ids[0], f"file://{link}/a", f"file://{link}/b", f"file://{real}/c")
    attach(store, ids[1], f"file://{real}/b", f"file://{link}/c")
    result = swept(store, policy, objects={"prefixes": [f"file://{link}", f"file://{real}"]}).as_json()
    assert result["objects_pending"] == 0
    assert sorted(path.name for path in real.iterdir()) == ["b", "c"]


# Objects that a live attachment names


LIVE = {
    "file://{0}//a pic{1}": "shared",
    "FILE://{0}/./a pic{1}": "shared",
    "local://{0}/a pic{1}": "shared",
    "file://{0}/x/../a pic{1}": None,
    "file://{0}/a %70ic{1}": None,
    "file://{0}/a%20pic{1}": None,
    "{0}/a pic{1}": None,
    "a pic{1}": None,
    "simplecache::file://{0}/a pic{1}": None,
    "file://{0}/a pi c{1}": "removed",
    "file://{0}/other{1}": "removed",
}
"""The outcome for an object while a live attachment has this URI; None: it is kept in doubt."""


def test_live_attachment_in_another_spelling(store: Store, policy: Policy, tmp_path: Path) -> None:
    """A file that a live attachment names in another spelling stays; one that it may name stays pending meanwhile."""
    ids = fill(store, 2)
    keep(store, ids[1])
    pictures = [tmp_path / f"a pic{number}" for number in range(len(LIVE))]
    for number, (file, live) in enumerate(zip(pictures, LIVE, strict=True)):
        file.write_text("x")
        attach(store, ids[0], f"file://{file}")
        attach(store, ids[1], live.format(tmp_path, number))
    outcomes = list(LIVE.values())
    assert swept(store, policy).as_json()["objects_kept"] == {"in_doubt": outcomes.count(None)}
    assert [state(store)[f"file://{file}"][0] for file in pictures] == outcomes
    assert [file.exists() for file in pictures] == [outcome != "removed" for outcome in outcomes]
    store.execute("DELETE FROM attachments")
    assert swept(store, policy).objects_pending == 0
    assert [file.exists() for file in pictures] == [outcome == "shared" for outcome in outcomes]


def test_keys_of_object_stores_are_exact(store: Store, policy: Policy, memory: Any) -> None:
    """In an object store `a//b` and `a/b` are two objects; one is removed while the other is named."""
    ids = fill(store, 2)
    keep(store, ids[1])
    for path in ("/bucket/a/b", "/bucket/a//b"):
        memory.pipe_file(path, b"x")
    attach(store, ids[0], "memory://bucket/a/b")
    attach(store, ids[1], "memory://bucket/a//b")
    assert swept(store, policy).as_json()["objects_pending"] == 0
    assert list(memory.store) == ["/bucket/a//b"]


def test_odd_uris_are_the_same_for_the_server(store: Store) -> None:
    """PostgreSQL finds the same URIs odd as Python does, which says what a plain one is."""
    (id_,) = fill(store, 1)
    pieces = ("file://", "s3://", "FILE://", "//", "..", "::", *"/a.\\\n\x7fü", "%2e", "%41", "%20", "%c2%85")
    uris = ["".join(parts) for length in (1, 2, 3) for parts in product(pieces, repeat=length)]
    uris += [f"s3://b/{first}/{uri}" for uri, first in zip(uris, cycle("abc"), strict=False)]
    attach_all(store, id_, uris)
    with store.database().transaction() as connection:
        found = connection.execute(statement("objects_non_canonical", pattern=NON_CANONICAL)).scalars().all()
    assert sorted(found) == sorted(uri for uri in uris if re.search(NON_CANONICAL, uri))
    assert 0 < len(found) < len(uris)


def attach_all(store: Store, conversation: str, uris: Sequence[str]) -> None:
    """Give a conversation many attachments in one transaction."""
    with store.connect() as connection, connection.transaction(), connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO attachments VALUES (gen_random_uuid(), %s, %s)", [(conversation, uri) for uri in uris]
        )


def test_named_again_between_a_page_and_its_removal(store: Store, policy: Policy, stubborn: type[Stubborn]) -> None:
    """An object that is attached anew while the first of its page is removed stays, without any grace."""
    ids = fill(store, 2)
    keep(store, ids[1])
    attach(store, ids[0], *(f"stubborn://yes/{number}" for number in range(20)))

    def again(path: str) -> None:
        if len(stubborn.removed) == 1:
            attach(store, ids[1], *(f"stubborn://yes/{number}" for number in range(20) if path != f"yes/{number}"))

    stubborn.told.append(again)
    assert swept(store, policy).as_json()["objects_pending"] == 0
    assert len(stubborn.removed) == 1
    assert Counter(outcome for outcome, _, _ in state(store).values()) == {"removed": 1, "shared": 19}


def test_many_are_named_again_while_they_are_removed(
    store: Store, policy: Policy, stubborn: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """None goes whose attachment had committed when its removal was asked for; every other one that goes leaves an event."""
    ids = fill(store, 2)
    keep(store, ids[1])
    uris = [f"stubborn://yes/{number}" for number in range(300)]
    attach_all(store, ids[0], uris)
    committed: dict[str, float] = {}
    asked: dict[str, float] = {}
    ahead, done = Event(), Event()

    def again() -> None:
        with store.connect() as connection:
            for uri in uris[::-2]:
                connection.execute("INSERT INTO attachments VALUES (gen_random_uuid(), %s, %s)", [ids[1], uri])
                committed[uri] = time.monotonic()
                if len(committed) == 20:
                    ahead.set()
        done.set()

    settle = removal._Removal._claim_and_settle

    def timed(self: Any, connection: Connection, group: Sequence[Any], remover: Any) -> Any:
        asked.update({each.found.uri.text: time.monotonic() for each in group})
        return settle(self, connection, group, remover)

    monkeypatch.setattr(removal._Removal, "_claim_and_settle", timed)
    stubborn.told.append(lambda _: ahead.wait(20.0))
    with ThreadPoolExecutor() as pool:
        stubborn.told.append(lambda _: None if committed else void(pool.submit(again)))
        stubborn.told.reverse()
        swept(store, policy)
        assert done.wait(20.0)
    removed = {f"stubborn://{path}" for path in stubborn.removed}
    assert not [uri for uri in removed & committed.keys() if committed[uri] < asked[uri]]
    assert {uri for uri, found in state(store).items() if found[0] == "shared"} == set(uris) - removed
    assert len(set(uris) - removed) >= 20


def test_removed_while_it_is_named(store: Store, policy: Policy, stubborn: type[Stubborn]) -> None:
    """An object that is attached anew in the very moment of its removal leaves an event and a warning, without its URI."""
    ids = fill(store, 2)
    keep(store, ids[1])
    attach(store, ids[0], "stubborn://yes/secret")
    stubborn.told.append(lambda _: attach(store, ids[1], "stubborn://yes/secret"))
    with capture_logs() as logs:
        swept(store, policy)
    [(number, details)] = store.execute(
        "SELECT o.id, e.details FROM sweeper.events e, sweeper.object_purges o WHERE e.kind = 'object_removed_while_named'"
    )
    assert details == {"object": number}
    [said] = [line for line in logs if "while an attachment came to name it" in line["event"]]
    assert (said["log_level"], said["object"]) == ("warning", number)
    assert "secret" not in str(logs)


def told_of(store: Store) -> set[str]:
    """The URIs of the objects that events say were removed while they were named."""
    rows = store.execute(
        "SELECT o.uri FROM sweeper.events e JOIN sweeper.object_purges o ON o.id = CAST(e.details ->> 'object' AS bigint) "
        "WHERE e.kind = 'object_removed_while_named'"
    )
    found = [uri for (uri,) in rows]
    assert len(found) == len(set(found))
    return set(found)


def stale(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Let a search for odd URIs be stale after so long, whatever it took."""
    monkeypatch.setattr(removal, "STALE_SECONDS", seconds)
    monkeypatch.setattr(removal, "STALE_TIMES", 0)


ODDLY = {"STUBBORN://yes/{0}": "shared", "stubborn://yes/./{0}": None, "yes/{0}": None}
"""Odd spellings of an object, and its outcome if one comes before its removal; None: it is kept in doubt."""


def test_named_oddly_between_a_page_and_its_removal(
    store: Store, policy: Policy, stubborn: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects that are attached anew in an odd spelling while the first of their page is removed stay."""
    stale(monkeypatch, 0.0)
    ids = fill(store, 2)
    keep(store, ids[1])
    uris = [f"stubborn://yes/{number}" for number in range(12)]
    attach(store, ids[0], *uris)

    def again(_: str) -> None:
        if len(stubborn.removed) == 1:
            written = zip(cycle(ODDLY), range(12), strict=False)
            attach_all(store, ids[1], [odd.format(number) for odd, number in written])

    stubborn.told.append(again)
    swept(store, policy)
    [first] = [f"stubborn://{path}" for path in stubborn.removed]
    outcomes = dict(zip(uris, cycle(ODDLY.values()), strict=False))
    found = state(store)
    assert {uri: found[uri][0] for uri in uris} == {**outcomes, first: "removed"}
    assert told_of(store) == {first}


@pytest.mark.parametrize(("reason", "left"), [("", 0), (StopReason.SIGNAL, 4)])
def test_removed_while_it_is_named_oddly(
    store: Store, policy: Policy, stubborn: type[Stubborn], monkeypatch: pytest.MonkeyPatch, reason: str, left: int
) -> None:
    """Objects attached anew in an odd spelling since the last search leave an event and a warning each, stopped or not."""
    stale(monkeypatch, 3600.0)
    monkeypatch.setattr(removal, "PAGE", 6)
    ids = fill(store, 2)
    keep(store, ids[1])
    attach(store, ids[0], *(f"stubborn://yes/{number}" for number in range(9)))
    again = (f"STUBBORN://{path}" for path in stubborn.removed)
    stubborn.told.append(lambda _: attach_all(store, ids[1], list(again)) if len(stubborn.removed) == 5 else None)
    stop = lambda: reason if len(stubborn.removed) == 5 else ""  # noqa: E731
    with capture_logs() as logs:
        assert swept(store, policy, further_reason=stop).objects_pending == left
    assert told_of(store) == {f"stubborn://{path}" for path in stubborn.removed[:5]}
    said = [line["log_level"] for line in logs if "while an attachment came to name it" in line["event"]]
    assert said == ["warning"] * 5


def test_search_is_repeated_by_what_it_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search for odd URIs is stale after ten times what it took, and no sooner than after some milliseconds."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    page = removal._Page([])
    assert page.is_stale()
    for cost, lasts in ((0.0001, 0.005), (2.0, 20.0)):

        def searched(cost: float = cost) -> Iterator[str]:
            now[0] += cost
            yield from ()

        began = now[0]
        page.compare(searched())
        for share, is_stale in ((0.99, False), (1.01, True)):
            now[0] = began + lasts * share
            assert page.is_stale() is is_stale


def test_object_that_another_process_has(store: Store, policy: Policy, stubborn: type[Stubborn]) -> None:
    """An object that another process has claimed is left to it."""
    (id_,) = fill(store, 1)
    attach(store, id_, "stubborn://yes/1", "stubborn://yes/2")
    swept(store, policy, objects={"prefixes": []})
    with store.connect() as other, other.transaction():
        other.execute("SELECT FROM sweeper.object_purges WHERE uri = 'stubborn://yes/1' FOR UPDATE")
        assert swept(store, policy).as_json()["objects_pending"] == 1
    assert stubborn.removed == ["yes/2"]
    assert swept(store, policy).as_json()["objects_pending"] == 0


def test_transaction_that_fails_after_the_removal(store: Store, policy: Policy, stubborn: type[Stubborn]) -> None:
    """Where the connection breaks after an object went, what became of it is recorded all the same, and once."""
    (id_,) = fill(store, 1)
    attach(store, id_, "stubborn://yes/1")

    def cut(_: str) -> None:
        store.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
            "AND state = 'idle in transaction' AND usename = 'sweeper'"
        )

    stubborn.told.append(cut)
    assert swept(store, policy).as_json()["objects_pending"] == 0
    assert stubborn.removed == ["yes/1"]
    assert state(store) == {"stubborn://yes/1": ("removed", 1, None)}


def test_grace(store: Store, policy: Policy, stubborn: type[Stubborn]) -> None:
    """An object goes no sooner than so long after the run that purged its attachment ended."""
    (id_,) = fill(store, 1)
    attach(store, id_, "stubborn://yes/1")
    ended = instant(AS_OF) + timedelta(seconds=10)
    late, sections = frozen(rfc3339(ended)), {"guards": GUARDS, "objects": {"prefixes": LISTED, "grace_seconds": 60.0}}
    assert sweep(store.job(policy, AS_OF, late, **sections)).objects_pending == 1
    store.execute("UPDATE sweeper.runs SET started_at = started_at - interval '1 hour'")  # a long one
    for seconds, left in ((59.999999, 1), (60, 0)):
        clock = frozen(rfc3339(ended + timedelta(seconds=seconds)))
        assert (sweep(store.job(policy, AS_OF, clock, **sections)).objects_pending, len(stubborn.removed)) == (
            left,
            1 - left,
        )


def test_attachments_that_cannot_be_searched_in_time(store: Store, policy: Policy, stubborn: type[Stubborn]) -> None:
    """Where the search for odd URIs takes too long nothing is removed, the remedy is said, and the run completes."""
    ids = fill(store, 2)
    keep(store, ids[1])
    attach(store, ids[0], "stubborn://yes/1")
    attach(store, ids[1], "stubborn://yes/2")
    swept(store, policy, objects={"prefixes": []})
    store.execute("ALTER TABLE attachments RENAME TO files")
    store.execute(
        "CREATE FUNCTION slow(uri text) RETURNS text LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN uri; END'"
    )
    store.execute("CREATE VIEW attachments AS SELECT id, conversation_id, slow(uri) AS uri FROM files")
    with capture_logs() as logs:
        removed = removal.remove_pending(
            store.database(
                store.settings(objects={"prefixes": LISTED}, database={"url": store.url, "statement_timeout_ms": 200})
            ),
            store.execute("SELECT max(id) FROM sweeper.runs")[0][0] + 1,
            instant(AS_OF),
            lambda: None,
        )
    assert removed == 1
    assert [line["log_level"] for line in logs if "sweeper check" in line["event"]] == ["error"]
    assert stubborn.removed == []


def test_only_the_place_that_hangs_is_left_out(
    store: Store, policy: Policy, stubborn: type[Stubborn], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where one place hangs its objects wait, the others go, and no later run waits for it while it still hangs."""
    let_go = Event()
    stubborn.told.append(lambda path: let_go.wait(20.0) if path.startswith("yes/") else None)
    monkeypatch.setattr(threads, "HANGS_SECONDS", 0.2)
    (chat,) = fill(store, 1)
    yes, elsewhere = [f"stubborn://yes/{n}" for n in range(3)], [f"stubborn://elsewhere/{n}" for n in range(3)]
    attach(store, chat, *(uri for pair in zip(yes, elsewhere, strict=True) for uri in pair))
    sections: dict[str, Any] = {"objects": {"prefixes": ["stubborn://yes", "stubborn://elsewhere"], "per_run": 4}}
    before = threading.active_count()
    try:
        first = swept(store, policy, **sections)
        assert (first.objects_pending, first.objects_kept) == (3, {"hangs": 3})
        found = state(store)
        assert [found[uri] for uri in yes] == [(None, 1, "hangs"), (None, 0, None), (None, 0, None)]
        assert [found[uri][0] for uri in elsewhere] == ["removed"] * 3
        assert swept(store, policy, **sections).objects_kept == {"hangs": 3}
        assert state(store) == found
        assert threading.active_count() == before + 1
    finally:
        let_go.set()
    until(lambda: threading.active_count() == before)
    assert swept(store, policy, **sections).objects_pending == 0


def test_who_answers_late_removes_nothing(
    store: Store, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that comes round after it was given up removes nothing that may have been attached anew since."""
    let_go, walk, before = Event(), local_files._open_folder, threading.active_count()

    def hang(name: str, directory: int) -> int:
        let_go.wait(20.0)
        return walk(name, directory)

    monkeypatch.setattr(local_files, "_open_folder", hang)
    monkeypatch.setattr(threads, "HANGS_SECONDS", 0.2)
    (chat,) = fill(store, 1)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a").write_text("x")
    attach(store, chat, f"file://{tmp_path}/folder/a")
    try:
        assert swept(store, policy).objects_kept == {"hangs": 1}
    finally:
        let_go.set()
    until(lambda: threading.active_count() == before)
    assert (tmp_path / "folder" / "a").exists()


def test_several_at_a_time(store: Store, policy: Policy, stubborn: type[Stubborn]) -> None:
    """Where no request removes many, so many objects as the settings say go together, and a failure is that object's own."""
    due, _ = fill(store, 2)
    attach_all(store, due, [f"stubborn://yes/{number}" for number in range(6)])
    together = Barrier(3)

    def wait(path: str) -> None:
        together.wait(20.0)
        if path == "yes/4":
            stubborn.removed.remove(path)
            raise PermissionError(path)

    stubborn.told.append(wait)
    result = swept(store, policy, objects={"parallel": 3}).as_json()
    assert result["objects_kept"] == {"PermissionError": 1}
    found = {uri.removeprefix("stubborn://"): outcome for uri, (outcome, _, _) in state(store).items()}
    assert {path for path, outcome in found.items() if outcome == "removed"} == set(stubborn.removed)
    assert (len(stubborn.removed), found["yes/4"]) == (5, None)
