"""Bad input: one clear message that says what was not done and how to mend it, or a counted row; never a traceback."""

import base64
import hashlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sweeper.policy.decide import decide
from sweeper.policy.feedback import decide_feedback
from sweeper.policy.schema import Policy
from sweeper.policy.training import exclusions
from tests.acceptance.commands import Command
from tests.core.test_cases import CASES
from tests.facts import facts_of, feedback_of, messages_of
from tests.store.stores import POLICY, ROLES, Store

SETTINGS = {
    "not TOML": ("[store", "not TOML"),
    "unknown key": ("[store]\nscheme = 'x'", "store.scheme: unknown key"),
    "wrong type": ("[purge]\nbatch = 'many'", "purge.batch: must be a whole number"),
    "out of range": ("[guards]\nmax_share = 2", "guards.max_share: must be at most 1"),
    "truth for a number": ("[guards]\nmax_share = true", "guards.max_share: must be a number"),
    "text for a number": ("[purge]\nbatch = '300'", "purge.batch: must be a whole number"),
    "wait without end": ("[purge]\nlocked_wait_seconds = inf", "purge.locked_wait_seconds: must be a finite number"),
    "not a name": ("[store]\nschema = 'a;b'", "store.schema"),
    "section is no table": ("store = 1", "store: must be a table"),
    "no such policy": ("[policy]\nfile = 'nowhere.toml'", "nowhere.toml"),
    "no such child's key": ("[[purge.children]]\ntable = 'store.x'", "purge.children[0].key: is missing"),
    "no such table": ("[purge]\ntable = 'store.nothing'", "[purge] table"),
    "no such key": ("[purge]\nkey = 'nothing'", "no column nothing"),
    "no such child": ("[[purge.children]]\ntable = 'store.nothing'\nkey = 'id'", "[[purge.children]] table"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name: str, sweeper: Command, tmp_path: Path) -> None:
    """A settings file that cannot be used is named with the key, and nothing is done."""
    text, told = SETTINGS[name]
    (tmp_path / "s.toml").write_text(text)
    policy = {} if "policy" in text else {"SWEEPER_POLICY_FILE": POLICY}
    done = sweeper("run", "--config", str(tmp_path / "s.toml"), **({"SWEEPER_POLICY_FILE": ""} | policy))
    assert (done.code, done.out, "Traceback" in done.err) == (2, "", False)
    assert told in done.err
    assert "othing was" in done.err or "nothing was" in done.err


def test_every_fault_of_a_policy_at_once(sweeper: Command, tmp_path: Path) -> None:
    """All faults of a policy file are in one message, each with its key."""
    text = Path(POLICY).read_text()
    for right, wrong in (
        ('"30 days"', '"30 dys"'),
        ("stands_unclassified = true", "stands = 1"),
        ('["api"]', '["apis"]'),
    ):
        text = text.replace(right, wrong)
    text += '[[floors]]\nname = "partner"\nbecause = ""\nanchor = "flagged"\nperiod = "1 day"\n'
    (tmp_path / "p.toml").write_text(text)
    done = sweeper("run", SWEEPER_POLICY_FILE=str(tmp_path / "p.toml"))
    assert done.code == 2
    for key in (
        "rules[1] (deleted).due[0].period",
        "rules[0] (zero_retention).stands",
        "purposes.development_partner.plans[0]",
        "rules[5] (partner).when.all_plans[0]",
        "floors[1] (partner).name",
        "floors[1] (partner).because",
    ):
        assert key in done.err
    assert "nothing was decided or purged" in done.err


DATABASES = {
    "": ("no database", 2),
    "embedded:": ("no database of the demo", 2),
    "embedded:/nowhere": ("sweeper demo --keep DIR", 2),
    "not a url": ("is not a URL", 2),
    "mysql://u@h/d": ("Only PostgreSQL", 2),
    "postgresql://u@127.0.0.1:1/d": ("SWEEPER_DATABASE_URL", 1),
    "postgresql://u@h:port/d": ("is not a URL", 2),
}


@pytest.mark.parametrize("url", DATABASES)
@pytest.mark.parametrize("command", ["migrate", "run", "check", "explain --all"])
def test_databases(url: str, command: str, sweeper: Command, tmp_path: Path) -> None:
    """A database that is not named, cannot be read as one or does not answer is one message."""
    told, code = DATABASES[url]
    (tmp_path / "s.toml").write_text("[database]\noutage_seconds = 0\n")
    done = sweeper(*command.split(), SWEEPER_CONFIG=str(tmp_path / "s.toml"), SWEEPER_DATABASE_URL=url)
    assert (done.code, "Traceback" in done.err, done.out) == (code, False, "")
    assert told in done.err


def test_store_without_a_relation(sweeper: Command, store: Store) -> None:
    """Every relation, column and type that the contract misses is listed at once."""
    store.execute("DROP TABLE attachments")
    store.execute("ALTER TABLE conversations DROP flagged_at, ALTER deleted_at TYPE timestamp")
    done = sweeper("run")
    assert done.code == 2
    for told in (
        "relation store.attachments",
        "conversations.flagged_at is missing",
        "deleted_at is timestamp without",
    ):
        assert told in done.err


def test_not_migrated(sweeper: Command, store: Store) -> None:
    """Without the sweeper's own tables every command names the command that makes them."""
    store.execute("DROP SCHEMA sweeper CASCADE")
    for words in (["run"], ["explain", "--all"], ["hold", "list"], ["run", "--dry-run"]):
        done = sweeper(*words)
        assert (done.code, "sweeper migrate" in done.err) == (2, True)
    assert [sweeper("migrate").code, sweeper("migrate").code] == [0, 0]
    store.execute(ROLES)
    assert sweeper("run").code == 0


STATES = {
    "DELETE FROM sweeper.schema_version": "revision is not known",
    "DROP TABLE sweeper.schema_version": "revision is not known",
    "UPDATE sweeper.schema_version SET version_num = '9999'": "made by a newer program",
}


@pytest.mark.parametrize("state", STATES)
def test_tables_of_another_program(sweeper: Command, store: Store, state: str) -> None:
    """Tables of an unknown or a newer revision are left as they are, and the message says what to do."""
    store.execute(state)
    done = sweeper("migrate")
    assert (done.code, STATES[state] in done.err, "Traceback" in done.err) == (2, True, False)
    if "newer" in STATES[state]:
        assert "Upgrade the program" in sweeper("run").err


def test_migrated_already(sweeper: Command, store: Store) -> None:
    """A role that may only read the revision is told that nothing is to be migrated."""
    store.execute(
        "CREATE ROLE reader; GRANT USAGE ON SCHEMA sweeper TO reader; GRANT SELECT ON sweeper.schema_version TO reader"
    )
    try:
        name = store.execute("SELECT current_database()")[0][0]
        store.execute(f"ALTER ROLE reader IN DATABASE {name} SET statement_timeout = 0; ALTER ROLE reader LOGIN")
        done = sweeper("migrate", SWEEPER_DATABASE_URL=store.acting("reader").url)
        assert (done.code, "already at revision" in done.out) == (0, True)
    finally:
        store.execute("DROP OWNED BY reader; DROP ROLE reader")


WORDS = {
    "run --as-of yesterday": "--as-of 'yesterday'",
    "run --as-of 2026-01-01T00:00:00": "naive instant",
    "run --as-of 2026-01-01T00:00:00+99:00": "is not an instant",
    "run --as-of 9999-12-31T23:00:00-05:00": "after year 9999",
    "run --as-of 0001-01-01T00:00:00Z": "as-of 0001-01-01T00:00:00Z is not believed: plausible is from 2015-01-01T00:00:00Z",
    "run --dry-run --as-of 0001-01-01T00:00:00Z": "is not believed",
    "explain --all --as-of 0001-01-01T00:00:00Z": "is not believed",
    "explain x --as-of 2014-12-31T23:59:59Z": "is not believed",
    "report --as-of 0001-01-01T00:00:00Z": "is not believed",
    "run --approve nonsense": "--approve",
    "explain": "either one ID or --all",
    "explain x --all": "either one ID or --all",
    "explain not-a-uuid": "is not of type uuid",
    "hold place CASE": "--everything",
    "hold place CASE --everything --account x": "--everything",
    "hold place CASE --account x": "is not of type uuid",
    "hold release": "name a matter or --id",
    "order add DSR": "name --account, --conversation or both",
    "order add DSR --conversation x": "is not of type uuid",
    "order withdraw": "name a reference or --id",
    "consent record x": "Missing option '--purpose'",
    "consent record x --purpose model_improvement": "either --granted or --withdrawn",
    "consent record x --purpose model_improvement --granted --withdrawn": "either --granted or --withdrawn",
    "consent record x --purpose model_improvement --granted": "account 'x' is not of type uuid",
    "consent list x": "account 'x' is not of type uuid",
    "plan record x": "Missing argument",
    "plan record x free --effective yesterday": "--effective 'yesterday'",
    "plan record x free --effective 2014-12-31T23:59:59Z": "accepts instants from 2015-01-01T00:00:00Z",
    "explain --account x": "account 'x' is not of type uuid",
    "order add DSR --account 9c9a9d0e-6f4c-4f53-9d5e-0d6a3b2f1c11 --due soon": "--due 'soon'",
    "run --no-such-option": "No such option",
    "no-such-command": "No such command",
    "explain x --what-if fly": "--what-if",
    "run --config /nowhere.toml": "/nowhere.toml",
}


@pytest.mark.parametrize("words", WORDS)
def test_words(words: str, sweeper: Command) -> None:
    """What cannot be meant is a usage error that says what is wrong."""
    done = sweeper(*words.split())
    assert (done.code, done.out, "Traceback" in done.err) == (2, "", False)
    assert WORDS[words] in done.err


MONSTERS = {
    "nested arrays": ("a = " + "[" * 50_000, "nested more than 32 deep (at line 1)"),
    "two megabytes": ("# " * 1_000_000, "it has more than 1048576 bytes"),
    "no UTF-8": ("é", "it is not UTF-8"),
}


@pytest.mark.parametrize("name", MONSTERS)
@pytest.mark.parametrize("what", ["policy", "settings"])
def test_monstrous_files(what: str, name: str, sweeper: Command, tmp_path: Path) -> None:
    """A file that would take a parser's stack, or minutes, is named in one message, and nothing is done."""
    text, told = MONSTERS[name]
    file = tmp_path / "monster.toml"
    file.write_text(text, encoding="latin-1")
    options = ["--config", str(file)] if what == "settings" else []
    done = sweeper("run", *options, **({"SWEEPER_POLICY_FILE": str(file)} if what == "policy" else {}))
    assert (done.code, done.out, "Traceback" in done.err) == (2, "", False)
    assert told in done.err
    assert f"{what} {file}" in done.err


def token(told: bytes) -> str:
    """A digest with a right checksum, as anybody could make one."""
    body = base64.urlsafe_b64encode(told).decode().rstrip("=")
    return f"{body}.{hashlib.sha256(body.encode()).hexdigest()[:12]}"


TOKENS = {
    "nested": b"[" * 50_000,
    "a number of 10,000 digits": b'{"store": ' + b"9" * 10_000 + b"}",
    "an infinite count": b'{"store": "s", "policy": "p", "as_of": "2026-01-01T00:00:00Z", "issued_at": "2026-01-01T00:00:00Z", '
    b'"due": {"standard": Infinity}}',
    "a list": b"[1]",
    "lone surrogate": b'"\\ud800"',
}


@pytest.mark.parametrize("name", TOKENS)
def test_monstrous_digests(name: str, sweeper: Command) -> None:
    """A digest that decodes to what no dry run prints is no digest."""
    done = sweeper("run", "--approve", token(TOKENS[name]))
    assert (done.code, "this is no digest of a dry run" in done.err) == (2, True)


HANDED = {
    "audit check-receipt {file} --key {key}": (1, 2),
    "audit check-export {file} --key {key}": (1, 2),
    "audit verify --checkpoint {file}": (2,),
    "audit verify --key {file}": (2,),
    "reapply --ledger {file} --accept-unsigned --dry-run": (1, 2),
    "manifest verify {folder}": (1, 2),
}
CONTENTS = {
    "nested": b"[" * 100_000,
    "digits": b"9" * 100_000,
    "bytes": b"\xff" * 100,
    "lone surrogate": b'{"checkpoint": "\\ud800", "ledger": 1}\n',
    "nothing": b"",
    "an infinite number": b"1e999\n",
    "large": b"x" * (2 << 20),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("words", HANDED)
def test_monstrous_evidence(words: str, content: str, sweeper: Command, tmp_path: Path) -> None:
    """A receipt, a ledger, a checkpoint, a key and a manifest that are none end in one message each."""
    file, key = tmp_path / "manifest.json", tmp_path / "key"
    file.write_bytes(CONTENTS[content])
    key.write_text(PUBLIC_KEY)
    done = sweeper(*words.format(file=file, folder=tmp_path, key=key).split())
    assert (done.code in HANDED[words], done.out, "Traceback" in done.err) == (True, "", False), done
    assert len(done.err.splitlines()) == 1


PUBLIC_KEY = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAA6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=
-----END PUBLIC KEY-----
"""


@pytest.mark.parametrize("section", ["[policy]\nfile", "[evidence]\nsigning_key_file", "[schedule]\nexport_file"])
def test_names_that_no_file_has(section: str, sweeper: Command, tmp_path: Path) -> None:
    """A name with a NUL in it is a fault of the settings."""
    (tmp_path / "s.toml").write_text(f'{section} = "a\\u0000b"\n')
    done = sweeper("run", "--config", str(tmp_path / "s.toml"), SWEEPER_POLICY_FILE="")
    assert (done.code, "without a NUL" in done.err, "Traceback" in done.err) == (2, True, False)


def test_unknown_conversation(sweeper: Command) -> None:
    """An id that names nothing is said to name nothing."""
    done = sweeper("explain", "9c9a9d0e-6f4c-4f53-9d5e-0d6a3b2f1c11")
    assert (done.code, "no conversation, account, message" in done.err) == (1, True)


POISON: dict[str, dict[str, str | None]] = {
    "infinity": {"last_activity_at": "infinity"},
    "minus infinity": {"last_activity_at": "-infinity"},
    "year 10000": {"created_at": "10000-01-01T00:00:00Z"},
    "NULL": {"last_activity_at": None},
    "1970": {"created_at": "1970-01-01T00:00:00Z", "last_activity_at": "1970-01-01T00:00:00Z"},
    "unknown plan": {"account": "odd"},
    "unknown account": {"account": "nobody"},
    "NULL flag": {"incognito": None},
    "before Christ": {"deleted_at": "0044-03-15 00:00:00+00 BC"},
}


@pytest.mark.parametrize("name", POISON)
def test_poisoned_rows(name: str, sweeper: Command, store: Store) -> None:
    """A row that cannot be believed is kept and, where looked at, unclassified; the row beside it is purged all the same."""
    worked = next(case for case in CASES if case["name"] == "opt-out: thirty days later")
    good = worked["conversations"][0]
    odd = {"id": "odd", "plans": [{"effective_at": "2024-01-01T00:00:00Z", "plan": "platinum"}], "consent": []}
    store.load(
        {
            **worked,
            "accounts": [*worked["accounts"], odd],
            "conversations": [good, {**good, "id": "bad", "messages": [], **POISON[name]}],
        }
    )
    done = sweeper("run", "--json", "--as-of", worked["as_of"])
    assert (done.code, store.left()) == (0, {store.id("bad")})
    told = sweeper("explain", str(store.id("bad")), "--as-of", worked["as_of"])
    assert (told.code, "unclassified" in told.out) == (0, True)


def test_naive_instants(policy: Policy) -> None:
    """Naive instants are refused by every function that decides."""
    naive, case = datetime(2026, 1, 1), CASES[0]  # noqa: DTZ001 — what is to be refused
    facts = facts_of(case, "c1")
    feedback = feedback_of(
        {**case, "feedback": [{"id": "f", "kind": "thumbs", "submitted_at": "2026-01-01T00:00:00Z"}]}
    )
    with pytest.raises(ValueError, match="naive"):
        decide(facts, policy, naive)
    with pytest.raises(ValueError, match="naive"):
        list(exclusions(facts, messages_of(case, "c1"), policy, naive))
    with pytest.raises(ValueError, match="naive"):
        decide_feedback(feedback[0], policy, naive)
    assert decide(facts, policy, naive.replace(tzinfo=UTC)).as_of.tzinfo is UTC
