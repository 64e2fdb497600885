"""After a real dump and a real restore, what the ledger says was purged is purged again, and nothing else."""

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sweeper import embedded
from sweeper.policy.instant import parse
from tests.acceptance.commands import Done, in_process
from tests.facts import World
from tests.store import stores
from tests.store.stores import Store

OLD = "2026-01-02T00:00:00Z"
BEFORE = ("c1", "c2")
"""Purged before the dump: not in it."""
AFTER = ("c3", "c4", "c5", "ordered")
"""Purged after the dump: it brings them back."""
SETTINGS = '[guards]\nhistory = false\n[policy]\nfile = "{policy}"\n'


def world() -> World:
    """Old conversations, one that only an order makes due, one that is young, one under a hold, feedback that is due."""
    young = (datetime.now(UTC) - timedelta(days=2)).isoformat()
    due = [_chat(name, OLD) for name in ("c1", "c2", "c3", "c4", "c5", "held")]
    return {
        "accounts": [{"id": "a1", "plans": [{"effective_at": "-infinity", "plan": "free"}], "consent": []}],
        "conversations": [*due, _chat("ordered", young), _chat("young", young)],
        "holds": [{"conversation": "held", "placed_at": OLD}],
        "orders": [],
        "feedback": [{"id": "f1", "account": "a1", "kind": "thumbs", "submitted_at": "2018-01-01T00:00:00Z"}],
    }


def _chat(name: str, last: str) -> World:
    message = {"id": f"{name}m", "author": "user", "created_at": last}
    return {"id": name, "account": "a1", "created_at": last, "last_activity_at": last, "messages": [message]}


@dataclass(frozen=True)
class Site:
    """A store that has purged on after a dump, its exported ledger, and the store that the dump restores."""

    was: Store
    restored: Store
    folder: Path

    @property
    def ledger(self) -> Path:
        """The exported ledger."""
        return self.folder / "ledger.jsonl"

    def run(self, store: Store, *words: str) -> Done:
        """A command on a store, with the key that signs."""
        config, key = str(self.folder / "sweeper.toml"), str(self.folder / "signing.pem")
        return in_process(store, *words, SWEEPER_CONFIG=config, SWEEPER_SIGNING_KEY_FILE=key)

    def reapply(self, *words: str) -> Done:
        """`reapply` on the restored store."""
        return self.run(self.restored, "reapply", "--ledger", str(self.ledger), "--json", *words)

    def names(self, *names: str) -> set[str | None]:
        """Short ids as the store writes them."""
        return {self.restored.id(name) for name in names}


EARLIER = """
    CREATE FUNCTION store.earlier() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN NEW.details = NEW.details - 'identity'; RETURN NEW; END $$;
    CREATE TRIGGER earlier BEFORE INSERT ON sweeper.events FOR EACH ROW EXECUTE FUNCTION store.earlier();
"""
"""What an earlier version wrote: runs that do not tell in which database they were."""


@pytest.fixture
def site(server: embedded.Server, store: Store, tmp_path: Path) -> Iterator[Site]:
    """Two purged, dumped, an order and the rest purged, exported, restored."""
    with _restored(server, store, tmp_path) as found:
        yield found


@pytest.fixture
def old_site(server: embedded.Server, store: Store, tmp_path: Path) -> Iterator[Site]:
    """The same by an earlier version."""
    store.execute(EARLIER)
    with _restored(server, store, tmp_path) as found:
        for each in (found.was, found.restored):
            each.execute("DROP TRIGGER earlier ON sweeper.events")
        yield found


@contextmanager
def _restored(server: embedded.Server, store: Store, tmp_path: Path) -> Iterator[Site]:
    _configure(tmp_path)
    store.load(world())
    restored = Store(server.url("restored"), "uuid")
    found = Site(store, restored, tmp_path)
    for name in AFTER[:-1]:  # they become due only after the first run
        store.execute("UPDATE conversations SET last_activity_at = now() WHERE id = %s", store.id(name))
    store.execute("UPDATE feedback SET submitted_at = now()")
    assert found.run(store, "run").code == 0
    assert store.execute("SELECT count(*) FROM sweeper.tombstones") == [(len(BEFORE),)]
    store.execute("UPDATE feedback SET submitted_at = '2018-01-01Z'")
    for name in AFTER[:-1]:
        store.execute("UPDATE conversations SET last_activity_at = %s WHERE id = %s", OLD, store.id(name))
    _restore(server, store, "restored")
    store.execute(
        "INSERT INTO sweeper.erasure_orders (reference, conversation_id, recorded_at, due_at) VALUES ('DSR-1', %s, %s, %s)",
        store.id("ordered"),
        datetime.now(UTC),
        datetime.now(UTC),
    )
    assert found.run(store, "run").code == 0
    assert found.run(store, "audit", "export", str(found.ledger)).code == 0
    yield found
    restored.close()
    stores.drop(server, "restored")


def _configure(folder: Path, more: str = "") -> None:
    """Settings and a signing key in a folder."""
    (folder / "sweeper.toml").write_text(SETTINGS.format(policy=stores.POLICY) + more)
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", folder / "signing.pem"], check=True)


def _restore(server: embedded.Server, store: Store, name: str) -> None:
    """A dump of the store's database, restored into a new one."""
    with stores.administered(server) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    dump = subprocess.run([server.programs / "pg_dump", "-Fc", store.libpq], check=True, capture_output=True)
    command = [str(server.programs / "pg_restore"), "--exit-on-error", "-d", Store(server.url(name), "uuid").libpq]
    subprocess.run(command, check=True, input=dump.stdout)


def test_purged_again(site: Site) -> None:
    """What came back is purged again under its old rule, each with one tombstone; what never went stays; twice is once."""
    before = site.restored.left()
    assert before == site.names(*AFTER, "held", "young")
    preview = json.loads(site.reapply("--dry-run").out)
    assert (preview["back"], preview["would_purge"], preview["feedback_would_purge"]) == (len(AFTER) + 1, len(AFTER), 1)
    assert site.restored.left() == before
    done = site.reapply()
    found = json.loads(done.out)
    assert done.code == 0, done.err
    assert (found["in_ledger"], found["back"]) == (len(BEFORE) + len(AFTER) + 1, len(AFTER) + 1)
    assert (found["purged"], found["feedback_purged"]) == (len(AFTER), 1)
    assert site.restored.execute("SELECT count(*) FROM feedback") == [(0,)]
    ((newest,),) = site.was.execute("SELECT max(purged_at) FROM sweeper.tombstones")
    assert parse(found["newest_purge"]) == parse(preview["newest_purge"]) == newest
    assert found["lost_orders"] == [f"DSR-1 on conversation {site.was.id('ordered')}"]
    assert site.restored.left() == site.names("held", "young")
    told = "SELECT record, record_id, rule, due_at FROM sweeper.tombstones ORDER BY 1, 2"
    assert site.restored.execute(told) == site.was.execute(told)
    assert site.restored.execute(
        "SELECT DISTINCT approved FROM sweeper.tombstones WHERE run_id = (SELECT max(run_id) FROM sweeper.tombstones)"
    ) == [(True,)]  # the night after is not refused for them
    again = json.loads(site.reapply().out)
    assert (again["back"], again["purged"]) == (0, 0)
    assert site.run(site.restored, "audit", "verify").code == 0
    assert site.run(site.restored, "run").code == 0
    assert site.restored.left() == site.names("held", "young")


def test_taken_up_again(site: Site) -> None:
    """A conversation that its owner took up after the restore, and an id that now is another's, are kept and counted."""
    site.restored.execute("UPDATE conversations SET last_activity_at = now() WHERE id = %s", site.was.id("c3"))
    site.restored.execute("INSERT INTO accounts VALUES (%s, now())", site.was.id("a2"))
    site.restored.execute(
        "UPDATE conversations SET account_id = %s WHERE id = %s", site.was.id("a2"), site.was.id("c4")
    )
    found = json.loads(site.reapply().out)
    assert (found["back"], found["purged"], found["spared_by_reason"]) == (5, 2, {"changed": 2})
    assert site.restored.left() == site.names("c3", "c4", "held", "young")


def test_held_now(site: Site) -> None:
    """A hold of today protects what is back, whatever the ledger says."""
    site.restored.execute(
        "INSERT INTO sweeper.legal_holds (matter, conversation_id) VALUES ('new', %s)", site.was.id("c5")
    )
    found = json.loads(site.reapply().out)
    assert (found["purged"], found["held"]) == (3, 1)
    assert site.names("c5") <= site.restored.left()


def test_lost_holds_refuse(site: Site) -> None:
    """A hold that the ledger knows and the restored database has lost stops everything until it is placed again."""
    hold = ("hold", "place", "CASE-9", "--conversation", str(site.was.id("young")))
    assert site.run(site.was, *hold).code == 0
    assert site.run(site.was, "audit", "checkpoint").code == 0
    assert site.run(site.was, "audit", "export", str(site.ledger)).code == 0
    before = site.restored.left()
    done = site.reapply()
    assert done.code == 3
    assert "CASE-9 on conversation" in done.err
    assert json.loads(site.reapply("--dry-run").out)["would_refuse"] == ["holds"]
    assert site.restored.left() == before
    assert site.run(site.restored, *hold).code == 0
    assert json.loads(site.reapply().out)["purged"] == len(AFTER)


def test_lost_withdrawals_refuse(site: Site) -> None:
    """An order that was withdrawn and that the backup brought back in force stops everything until it is withdrawn again."""
    order = ("order", "add", "DSR-2", "--conversation", str(site.was.id("young")), "--due", "2020-01-01T00:00:00Z")
    for database in (site.was, site.restored):
        assert site.run(database, *order).code == 0
    withdraw = ("order", "withdraw", "DSR-2")
    assert site.run(site.was, *withdraw).code == 0
    assert site.run(site.was, "audit", "checkpoint").code == 0
    assert site.run(site.was, "audit", "export", str(site.ledger)).code == 0
    done = site.reapply()
    assert (done.code, "DSR-2 on conversation" in done.err, "order withdraw" in done.err) == (3, True, True)
    preview = json.loads(site.reapply("--dry-run").out)
    assert (preview["would_refuse"], len(preview["lost_withdrawals"])) == (["withdrawals"], 1)
    assert site.run(site.restored, *withdraw).code == 0
    assert json.loads(site.reapply().out)["purged"] == len(AFTER)
    assert site.run(site.restored, "run").code == 0
    assert site.names("young") <= site.restored.left()


def test_lost_choices_refuse(site: Site) -> None:
    """Plans and consent that the backup does not have stop everything until they are recorded again, in order."""
    account = str(site.was.id("a1"))
    consent = ["consent", "record", account, "--purpose", "it's own", "--unknown"]
    plan = ["plan", "record", "--unknown", "--", account]
    kept = ([*plan[:2], account, "free", "--effective=-infinity"], [*consent, "--granted"])
    lost = (
        [*consent, "--withdrawn"],
        [*plan, "-x y"],
        [*consent, "--granted"],
        [*plan, "max"],
        [*consent, "--withdrawn"],
    )
    for words in (*kept, *lost):
        assert site.run(site.was, *words).code == 0
    with site.restored.connect() as connection:  # what the backup has
        connection.execute("SET session_replication_role = replica")
        for table in ("plan_changes", "consent_events"):
            ((row,),) = site.was.execute(f"SELECT t::text FROM sweeper.{table} t WHERE id = 1")
            connection.execute(
                f"INSERT INTO sweeper.{table} OVERRIDING SYSTEM VALUE SELECT (%s::sweeper.{table}).*", [row]
            )
            connection.execute(f"ALTER TABLE sweeper.{table} ALTER id RESTART WITH 2")
    _export(site)
    before = site.restored.left()
    preview = json.loads(site.reapply("--dry-run").out)
    assert preview["would_refuse"] == ["choices"]
    done = site.reapply()
    assert (done.code, json.loads(done.out)["guard"], preview["lost_choices"][0] in done.err) == (3, "choices", True)
    assert len(preview["lost_choices"]) == len(lost)
    while lost_choices := json.loads(site.reapply("--dry-run").out)["lost_choices"]:
        command = lost_choices[0]  # the others stay lost
        preview["lost_choices"].remove(command)
        assert sorted(preview["lost_choices"]) == sorted(lost_choices[1:])
        assert site.run(site.restored, *shlex.split(command)[1:]).code == 0
    assert site.restored.left() == before
    assert json.loads(site.reapply().out)["purged"] == len(AFTER)
    columns = "SELECT account_id, purpose, granted, effective_at FROM sweeper.consent_events ORDER BY id"
    assert site.restored.execute(columns) == site.was.execute(columns)
    columns = "SELECT account_id, plan, effective_at::text FROM sweeper.plan_changes ORDER BY id"
    assert site.restored.execute(columns) == site.was.execute(columns)


def test_another_ledger(site: Site, store: Store) -> None:
    """The ledger of another database deletes nothing."""
    site.restored.execute("UPDATE sweeper.identity SET id = gen_random_uuid()")
    before = site.restored.left()
    done = site.reapply()
    assert done.code == 3
    assert "is the ledger of sweeper/" in done.err
    assert site.restored.left() == before


def test_nothing_vouches(site: Site) -> None:
    """Without a key, or with a changed file, nothing is purged; a signature may be done without only by saying so."""
    words = ("reapply", "--ledger", str(site.ledger))
    config = str(site.folder / "sweeper.toml")
    before = site.restored.left()
    assert in_process(site.restored, *words, SWEEPER_CONFIG=config).code == 3
    text = site.ledger.read_text()
    site.ledger.write_text(text.replace('"standard"', '"deleted"', 1))
    assert site.reapply().code == 1
    assert in_process(site.restored, *words, "--accept-unsigned", SWEEPER_CONFIG=config).code == 1
    assert site.restored.left() == before
    site.ledger.write_text(text)
    assert in_process(site.restored, *words, "--accept-unsigned", SWEEPER_CONFIG=config).code == 0
    assert site.restored.left() == site.names("held", "young")


def test_holds_that_end(site: Site) -> None:
    """Holds of ledger and database are in force or not by one rule, whatever time zone their end was written in."""
    ends = {"Asia/Tokyo": "- interval '30 minutes'", "America/New_York": "+ interval '30 minutes'"}
    for zone, end in ends.items():
        with site.was.connect() as connection:
            connection.execute("SELECT set_config('TimeZone', %s, false)", (zone,))
            placed = "INSERT INTO sweeper.legal_holds (matter, conversation_id) VALUES (%s, %s)"
            connection.execute(placed, (zone, site.was.id("c3")))
            connection.execute(f"UPDATE sweeper.legal_holds SET released_at = now() {end} WHERE matter = '{zone}'")
    _export(site)
    assert json.loads(site.reapply("--dry-run").out)["lost_holds"] == [
        f"America/New_York on conversation {site.was.id('c3')}"
    ]
    site.restored.execute(
        "INSERT INTO sweeper.legal_holds (matter, conversation_id, released_at) VALUES ('America/New_York', %s, %s)",
        site.was.id("c3"),
        datetime.now(UTC) + timedelta(minutes=30),
    )
    found = json.loads(site.reapply().out)
    assert (found["lost_holds"], found["purged"], found["held"]) == ([], len(AFTER) - 1, 1)


@pytest.mark.parametrize("details", ['{"now": 7}', '{"now": {"id": 7}, "was": 7}', '"now"', '{"was": [7]}'])
def test_events_that_tell_nothing(details: str, site: Site) -> None:
    """An event that no trigger wrote neither ends a hold nor stops the program with a traceback."""
    for kind in ("hold_changed", "hold_dropped", "order_added", "plan_added", "consent_added"):
        site.was.execute("INSERT INTO sweeper.events (kind, details) VALUES (%s, %s)", kind, details)
    _export(site)
    done = site.reapply("--dry-run")
    assert (done.code, "Traceback" in done.err) == (0, False)


def _export(site: Site) -> None:
    """The ledger again, up to now."""
    assert site.run(site.was, "audit", "checkpoint").code == 0
    assert site.run(site.was, "audit", "export", str(site.ledger)).code == 0


def test_another_schema(site: Site) -> None:
    """A ledger that knows only stores of other names is refused: nothing of it would be looked for."""
    site.restored.execute("ALTER SCHEMA store RENAME TO anew")
    config = site.folder / "sweeper.toml"
    config.write_text(config.read_text() + '[store]\nschema = "anew"\n')
    for words in (["--dry-run"], []):
        done = site.reapply(*words)
        assert (done.code, "has runs of: store. It has no run of this store, anew." in done.err) == (3, True)


def test_hidden_by_a_view(site: Site) -> None:
    """A row that is back in the table and that the relation does not show is counted, and the work is not called done."""
    site.restored.execute("ALTER TABLE conversations RENAME TO chats")
    site.restored.execute(
        f"CREATE VIEW store.conversations AS SELECT * FROM store.chats WHERE id <> '{site.was.id('c3')}'"
    )
    config = site.folder / "sweeper.toml"
    config.write_text(config.read_text() + '[purge]\ntable = "store.chats"\n')
    for words in (["--dry-run"], []):
        done = site.reapply(*words)
        found = json.loads(done.out)
        told = {
            "back": len(AFTER) + 1,
            "spared_by_reason": {"not_in_relation": 1},
            "by_rule": {"erasure_order": 1, "standard": 2},
        }
        assert (done.code, {key: found[key] for key in told}) == (1, told)


def test_tombstones_that_no_run_wrote(site: Site) -> None:
    """A tombstone whose instants or id cannot be read purges nothing, is counted, and keeps no other from its work."""
    for id_, due_at in ((site.was.id("young"), "infinity"), ("no uuid", "2026-01-01Z")):
        site.was.execute(
            "INSERT INTO sweeper.tombstones (record, record_id, account_id, rule, due_at, as_of, run_id, policy_digest, "
            "children, approved, purged_at) "
            "SELECT 'conversation', %s, %s, 'standard', %s, now(), max(id), 'p', '{}', false, now() FROM sweeper.runs",
            id_,
            site.was.id("a1"),
            due_at,
        )
    _export(site)
    found = json.loads(site.reapply().out)
    assert (found["purged"], found["unclassified_by_reason"]) == (len(AFTER), {"unreadable_tombstone": 2})
    assert site.names("young") <= site.restored.left()


# Ledgers of other databases, and of earlier versions


@pytest.fixture
def twins(server: embedded.Server, templates: dict[str, str], tmp_path: Path) -> Iterator[Site]:
    """Two stores whose ids coincide, under one name of their logs and one key: what one has purged is live in the other."""
    _configure(tmp_path, '[evidence]\norigin = "corp/log"\n')
    one, other = (stores.copy(server, templates["bigint"], name, "bigint") for name in ("twin_one", "twin_other"))
    consent = [{"recorded_at": "2025-09-01T00:00:00Z", "granted": True}]
    live = world()
    one.load({**live, "holds": []})
    other.load({**live, "holds": [], "accounts": [{**live["accounts"][0], "consent": consent}], "feedback": []})
    yield Site(one, other, tmp_path)
    for each, name in ((one, "twin_one"), (other, "twin_other")):
        each.close()
        stores.drop(server, name)


def _purge_one(twins: Site, *, identity: bool = True, earlier: bool = False) -> None:
    """Give the other store an identity of its own or not, purge the one, and export its ledger."""
    if identity:
        twins.restored.execute("UPDATE sweeper.identity SET id = gen_random_uuid()")
    if earlier:
        twins.was.execute(EARLIER)
    assert twins.run(twins.was, "run").code == 0
    assert len(twins.was.left()) == 2
    assert twins.run(twins.was, "audit", "export", str(twins.ledger)).code == 0


def _refused(twins: Site, *words: str) -> str:
    """What `reapply` says that refuses, as a preview and as a run; nothing is purged."""
    before = twins.restored.left()
    assert len(before) == 8
    done = [twins.reapply(*words, *more) for more in (["--dry-run"], [])]
    assert [each.code for each in done] == [3, 3], done
    assert "Nothing was purged" in done[0].err
    assert done[0].err == done[1].err
    assert twins.restored.left() == before
    assert twins.restored.execute("SELECT count(*) FROM sweeper.tombstones") == [(0,)]
    return done[1].err


def test_a_ledger_of_another_database(twins: Site) -> None:
    """Under one name and one key the ledger of another database is refused, whatever is given with it."""
    _purge_one(twins)
    ((identity,), (own,)) = (
        each.execute("SELECT id::text FROM sweeper.identity")[0] for each in (twins.was, twins.restored)
    )
    said = _refused(twins)
    assert f"has run 1 of the database {identity}. This is the database {own}" in said
    assert "--accept-ledger" not in said
    assert _refused(twins, "--accept-ledger", "0" * 16) == said
    assert _refused(twins, "--accept-ledger", own) == said


def test_an_old_ledger_of_another_database(twins: Site) -> None:
    """An old ledger that goes on from nothing this database has is another's, and no confirmation lets it in."""
    assert twins.run(twins.restored, "run").code == 0
    _purge_one(twins, earlier=True)
    said = _refused(twins)
    assert "continues none of the 1 checkpoints of this database: it belongs to another database" in said
    assert "--accept-ledger" not in said
    assert _refused(twins, "--accept-ledger", "0" * 16) == said


def test_an_old_ledger_for_a_database_without_a_log(twins: Site) -> None:
    """Where nothing tells whose an old ledger is, it is refused, and the digest of one store lets it into no other."""
    _purge_one(twins, earlier=True)
    said = _refused(twins)
    digest = re.findall(r"--accept-ledger ([0-9a-f]{16}),", said)
    assert "this database has no checkpoint to compare with" in said
    twins.restored.execute("UPDATE sweeper.identity SET id = gen_random_uuid()")
    other = _refused(twins, "--accept-ledger", *digest)
    assert f"'{digest[0]}' is not the digest of this ledger for this store" in other
    assert re.findall(r"--accept-ledger ([0-9a-f]{16}),", other) != digest


def test_a_database_made_from_the_same_template(twins: Site) -> None:
    """Databases that were copied from one have one identity; the logs that they have since keep them apart."""
    assert twins.run(twins.restored, "run").code == 0
    _purge_one(twins, identity=False)
    assert "names this database's identity, which a copy of the database has as well; it continues none" in _refused(
        twins
    )


def test_an_old_ledger_is_confirmed(old_site: Site) -> None:
    """A ledger of an earlier version is refused until a person confirms it; the event names what was confirmed."""
    before = old_site.restored.left()
    done = [old_site.reapply(*words) for words in ((), ("--dry-run",), ("--accept-ledger", "0" * 16))]
    assert [each.code for each in done] == [3, 3, 3]
    assert "checkpoint of 6 leaves, which supports it" in done[0].err
    assert "'0000000000000000' is not the digest" in done[2].err
    assert old_site.restored.left() == before
    (digest,) = re.findall(r"--accept-ledger ([0-9a-f]{16}),", done[0].err)
    preview = json.loads(old_site.reapply("--accept-ledger", digest, "--dry-run").out)
    assert (preview["would_purge"], preview["identity"], preview["confirmed"]) == (len(AFTER), None, digest)
    assert old_site.restored.left() == before
    found = json.loads(old_site.reapply("--accept-ledger", digest).out)
    assert (found["purged"], found["confirmed"]) == (len(AFTER), digest)
    event = "SELECT details ->> 'confirmed' FROM sweeper.events WHERE kind = 'reapply'"
    assert old_site.restored.execute(event) == [(digest,)]
    old_site.was.execute("INSERT INTO sweeper.events (kind) VALUES ('x')")
    _export(old_site)  # the same log, longer: a digest is of one ledger
    assert old_site.reapply("--accept-ledger", digest).code == 3


def test_an_old_log_that_went_on(old_site: Site) -> None:
    """A log whose later runs tell this database needs no confirmation, the purges of the earlier ones included."""
    assert old_site.run(old_site.was, "run").code == 0
    assert old_site.run(old_site.was, "audit", "export", str(old_site.ledger)).code == 0
    found = json.loads(old_site.reapply().out)
    ((identity,),) = old_site.restored.execute("SELECT id::text FROM sweeper.identity")
    assert (found["purged"], found["identity"], found["confirmed"]) == (len(AFTER), identity, None)
    assert old_site.restored.execute("SELECT details ->> 'identity' FROM sweeper.events WHERE kind = 'reapply'") == [
        (identity,)
    ]


# Copies of one database, and backups of it


def _let_in(twins: Site, said: str) -> None:
    """The digest that a refusal prints lets the ledger in, and a second time; nothing else does after it."""
    (digest,) = re.findall(r"--accept-ledger ([0-9a-f]{16}),", said)
    for _ in range(2):
        done = twins.reapply("--accept-ledger", digest)
        assert (done.code, json.loads(done.out)["confirmed"]) == (0, digest), done.err
        assert len(twins.restored.left()) == 2
    assert twins.reapply().code == 3


@pytest.mark.parametrize("earlier", [False, True])
def test_a_copy_without_a_log(earlier: bool, twins: Site) -> None:  # noqa: FBT001 — drawn
    """A database that has only its identity in common with a ledger is refused it until a person confirms."""
    _purge_one(twins, identity=False, earlier=earlier)
    said = _refused(twins)
    assert ("which a copy of the database has as well" in said) is not earlier
    assert "this database has no checkpoint to compare with" in said
    _let_in(twins, said)


OPENING = """
    INSERT INTO sweeper.events (kind, run_id, details)
    SELECT kind, 77, details FROM sweeper.events WHERE kind = 'run_opened' LIMIT 1
"""
"""What a run leaves that is killed at once: no checkpoint covers it."""


@pytest.mark.parametrize("is_covered", [True, False])
def test_a_copy_that_went_its_own_way(is_covered: bool, server: embedded.Server, twins: Site) -> None:  # noqa: FBT001 — drawn
    """Where both the copy and its original have gone on, an old checkpoint in common lets no ledger of the copy in."""
    assert twins.run(twins.restored, "run").code == 0
    _restore(server, twins.restored, "staging")
    staging = Store(server.url("staging"), "bigint")
    try:
        pair = Site(staging, twins.restored, twins.folder)
        staging.execute("UPDATE consent_events SET granted = false")
        _purge_one(pair, identity=False)
        if is_covered:
            assert pair.run(pair.restored, "run").code == 0
        else:
            pair.restored.execute(OPENING)
        said = _refused(pair)
        assert ("but not its newest one of" if is_covered else "does not have what was opened here as run 77:") in said
        _let_in(pair, said)
    finally:
        staging.close()
        stores.drop(server, "staging")


def test_begun_and_repeated(site: Site) -> None:
    """A reapplication that failed halfway is repeated without a question; the ledger of a day later is asked about."""
    site.restored.execute(
        "CREATE FUNCTION store.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'full'; END $$;"
        "CREATE TRIGGER fail BEFORE INSERT ON sweeper.tombstones FOR EACH ROW EXECUTE FUNCTION store.fail();"
    )
    assert site.reapply("--dry-run").code == 0
    assert site.reapply().code == 1
    assert site.names(*AFTER) <= site.restored.left()
    site.restored.execute("DROP TRIGGER fail ON sweeper.tombstones")
    done = site.reapply()
    assert (done.code, json.loads(done.out)["purged"]) == (0, len(AFTER)), done.err
    site.was.execute("INSERT INTO sweeper.events (kind) VALUES ('x')")
    _export(site)
    later = site.reapply()
    assert (later.code, "but not its newest one of" in later.err) == (3, True)


def test_a_backup_made_during_a_run(server: embedded.Server, site: Site) -> None:
    """A run that no checkpoint of the backup covers, but that the ledger tells of in the same words, raises no doubt."""
    site.was.execute(OPENING)
    _restore(server, site.was, "during")
    during = Store(server.url("during"), "uuid")
    try:
        _export(site)
        done = Site(site.was, during, site.folder).reapply()
        assert (done.code, json.loads(done.out)["confirmed"]) == (0, None), done.err
    finally:
        during.close()
        stores.drop(server, "during")
