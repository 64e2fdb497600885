"""`sweeper audit` as its users meet it: the operator, the auditor without a database, and who was promised a deletion."""

import base64
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import ConfigurationError
from sweeper.evidence import export, keys
from sweeper.evidence.export import ExportError
from sweeper.evidence.leaf import Leaf
from sweeper.evidence.merkle import leaf_hash
from sweeper.policy.schema import Policy
from tests.acceptance.commands import Command, in_process, process
from tests.core.test_note import PEM, PKCS8, PLAIN, SIGNER
from tests.store.stores import Store
from tests.store.test_races import fill, swept

LINE = SIGNER.verifier.line
KEY = SIGNER.private.private_bytes(PEM, PKCS8, PLAIN).decode()


@pytest.fixture
def sweeper(store: Store) -> Command:
    """A command on the test's store, without a signing key."""
    return partial(in_process, store, SWEEPER_SIGNING_KEY="", SWEEPER_SIGNING_KEY_FILE="")


@pytest.fixture
def signing_sweeper(sweeper: Command, tmp_path: Path) -> Command:
    """The same with a signing key in a file."""
    (tmp_path / "signing.pem").write_text(KEY)
    return partial(sweeper, SWEEPER_SIGNING_KEY_FILE=str(tmp_path / "signing.pem"))


@pytest.fixture
def purged(store: Store, policy: Policy) -> list[str]:
    """The ids of 300 conversations that a run has purged."""
    ids = fill(store, 300)
    swept(store, policy)
    return ids


def test_unsigned_is_said(sweeper: Command, purged: list[str], tmp_path: Path) -> None:
    """Without a key everything works but receipts, and each command says that nothing is signed."""
    assert sweeper("audit", "checkpoint", "--json").code == 0
    for words in (["checkpoint"], ["verify"], ["export", str(tmp_path / "l.jsonl")]):
        done = sweeper("audit", *words)
        assert (done.code, "UNSIGNED" in done.err) == (0, True)
    proven = sweeper("audit", "prove", purged[0])
    assert (proven.code, proven.out) == (1, "")
    assert "there is no signed checkpoint. No receipt was written." in proven.err
    keyless = sweeper("audit", "key")
    assert (keyless.code, "openssl genpkey" in keyless.err) == (2, True)


def test_checkpoint(signing_sweeper: Command, purged: list[str], tmp_path: Path) -> None:
    """A checkpoint is taken once, printed, and written to be kept elsewhere; a second one says that nothing is new."""
    first = json.loads(signing_sweeper("audit", "checkpoint", "--json", "--out", str(tmp_path / "cp.txt")).out)
    assert (first["new"], first["size"]) == (True, 303)
    assert (tmp_path / "cp.txt").read_text() == first["note"]
    assert json.loads(signing_sweeper("audit", "checkpoint", "--json").out) == {**first, "new": False}
    assert "303 leaves; no evidence is newer" in signing_sweeper("audit", "checkpoint").out


def test_no_evidence(sweeper: Command, tmp_path: Path) -> None:
    """Where nothing has happened there is nothing to check, nothing to export and nothing wrong."""
    assert "no evidence yet" in sweeper("audit", "checkpoint").out
    assert sweeper("audit", "verify").code == 0
    exported = sweeper("audit", "export", str(tmp_path / "l.jsonl"))
    assert (exported.code, list(tmp_path.iterdir())) == (1, [])


def test_broken_key_stops_before_anything(sweeper: Command, store: Store, purged: list[str], tmp_path: Path) -> None:
    """A key that is named and unusable is a configuration error, and nothing is numbered."""
    (tmp_path / "signing.pem").write_text("no key")
    store.execute("INSERT INTO sweeper.events (kind) VALUES ('new')")
    before = store.execute("SELECT * FROM sweeper.leaves")
    for variables in ({"SWEEPER_SIGNING_KEY_FILE": str(tmp_path / "signing.pem")}, {"SWEEPER_SIGNING_KEY": "no key"}):
        done = sweeper("audit", "checkpoint", **variables)
        assert (done.code, "is no private key in PEM" in done.err) == (2, True)
    assert store.execute("SELECT * FROM sweeper.leaves") == before


def test_verify(signing_sweeper: Command, sweeper: Command, store: Store, purged: list[str], tmp_path: Path) -> None:
    """Verification says what it checked and what is not covered; a changed row is named and exits 1."""
    key, kept = str(tmp_path / "sweeper.pub"), str(tmp_path / "cp.txt")
    store.execute("INSERT INTO sweeper.events (kind) VALUES ('new')")
    assert "Not covered yet, until the next checkpoint: 0 tombstones, 1 events." in sweeper("audit", "verify").out
    signing_sweeper("audit", "checkpoint", "--out", kept)
    (tmp_path / "sweeper.pub").write_text(signing_sweeper("audit", "key").out)
    good = sweeper("audit", "verify", "--checkpoint", kept, "--key", key)
    assert (good.code, good.err) == (0, "")
    assert "304 of 304 leaves verified; checkpoints: 1 unsigned, 1 verified." in good.out
    assert "signatures were NOT checked" in sweeper("audit", "verify").err
    with store.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE sweeper.tombstones SET due_at = due_at - interval '1 day' WHERE id = 7")
    for bad in (sweeper("audit", "verify"), sweeper("audit", "verify", "--checkpoint", kept, "--key", key)):
        assert (bad.code, "FAULT, changed: sweeper.tombstones 7 (leaf 6)" in bad.out) == (1, True)
    told = json.loads(sweeper("audit", "verify", "--json").out)
    assert (told["fits"], told["fault"]["source"], told["fault"]["id"]) == (False, "tombstones", 7)


def test_verify_writes_nothing(sweeper: Command, store: Store, purged: list[str]) -> None:
    """An auditor who may only read can verify."""
    sweeper("audit", "checkpoint")
    url = f"{store.url}&options=-c%20default_transaction_read_only%3Don"
    assert "Everything fits" in sweeper("audit", "verify", SWEEPER_DATABASE_URL=url).out


@pytest.mark.parametrize("content", ["", "nothing", "a\n1\n"])
def test_checkpoint_files_that_are_none(content: str, sweeper: Command, tmp_path: Path) -> None:
    """What is given as a checkpoint and is none is a usage error, as is a file that is not there, or a key."""
    (tmp_path / "cp.txt").write_text(content)
    for words in (
        ["--checkpoint", str(tmp_path / "cp.txt")],
        ["--checkpoint", str(tmp_path / "nowhere")],
        ["--key", str(tmp_path / "cp.txt")],
    ):
        done = sweeper("audit", "verify", *words)
        assert (done.code, done.out) == (2, "")


# Receipts


@pytest.fixture
def receipt(signing_sweeper: Command, purged: list[str], tmp_path: Path) -> tuple[Path, str]:
    """The receipt of one purge, and the log's public key."""
    signing_sweeper("audit", "checkpoint")
    file = tmp_path / "receipt.json"
    done = signing_sweeper("audit", "prove", purged[41], "--out", str(file))
    assert done.code == 0
    return file, signing_sweeper("audit", "key").out.strip()


def offline(tmp_path: Path) -> Command:
    """A command as a process in another directory, without settings or database."""
    (tmp_path / "elsewhere").mkdir()
    path = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
    return partial(process, None, cwd=tmp_path / "elsewhere", PYTHONPATH=path, SWEEPER_DATABASE_URL="")


def test_receipt_is_checked_offline(receipt: tuple[Path, str], purged: list[str], tmp_path: Path) -> None:
    """A receipt is checked as a process in another directory without settings or database, and says what it proves."""
    file, key = receipt
    away = offline(tmp_path)
    done = away("audit", "check-receipt", str(file), "--key", key)
    assert (done.code, done.err) == (0, "")
    assert f"The conversation {purged[41]} was purged at 2026-07-01T00:00:00Z by run 1: rule standard" in done.out
    assert "due 2026-03-03T00:00:00Z" in done.out
    assert "signed when it had 303 leaves" in done.out
    other = keys.Verifier(b"\0" * 32, key.split("+")[0]).line(key.split("+")[0])
    refused = away("audit", "check-receipt", str(file), "--key", other)
    assert (refused.code, refused.out) == (1, "")
    assert "not signed by the key that was given" in refused.err


def test_every_flipped_character_fails(receipt: tuple[Path, str], sweeper: Command) -> None:
    """A receipt in which one character is another proves nothing, wherever it is."""
    from sweeper.evidence import receipt as receipts

    file, key = receipt
    text, verifier = file.read_text(), keys.verifier(key)
    receipts.check(text, verifier)
    for at, character in enumerate(text):
        changed = text[:at] + chr(ord(character) ^ 1) + text[at + 1 :]
        with pytest.raises(receipts.ReceiptError, match="proves nothing"):
            receipts.check(changed, verifier)
    file.write_text(text.replace('"standard"', '"standarc"'))
    done = sweeper("audit", "check-receipt", str(file), "--key", key)
    assert (done.code, "its leaf is not in the tree of its checkpoint" in done.err) == (1, True)


def test_receipts_of_others_making(receipt: tuple[Path, str]) -> None:
    """A receipt put together from true parts of other receipts, or with more in it, proves nothing."""
    from sweeper.evidence import receipt as receipts

    file, key = receipt
    told, verifier = json.loads(file.read_text()), keys.verifier(key)
    unsigned = told["checkpoint"].split("\n\n")[0] + "\n"
    zero = base64.b64encode(bytes(32)).decode()
    changes: tuple[Any, ...] = (
        {**told, "index": told["index"] + 1},
        {**told, "index": -1},
        {**told, "index": True},
        {**told, "size": told["size"] + 1},
        {**told, "proof": told["proof"][:-1]},
        {**told, "proof": [*told["proof"], zero]},
        {**told, "proof": told["proof"][::-1]},
        {**told, "checkpoint": unsigned},
        {**told, "more": 1},
        {**told, "leaf": {**told["leaf"], "more": 1}},
        {**told, "leaf": {**told["leaf"], "source": "events"}},
        {**told, "leaf": []},
        {},
        [],
    )
    for changed in changes:
        with pytest.raises(receipts.ReceiptError, match="proves nothing"):
            receipts.check(json.dumps(changed), verifier)
    assert receipts.check(json.dumps(told), verifier).index == told["index"]


def test_what_has_no_receipt(signing_sweeper: Command, store: Store, policy: Policy, purged: list[str]) -> None:
    """A purge that no checkpoint covers yet has no receipt, nor has a conversation that was never purged; both say what to do."""
    signing_sweeper("audit", "checkpoint")
    fresh = "c0ffee00-0000-4000-8000-999999999999"
    store.execute(
        "INSERT INTO conversations (id, account_id, kind, platform, incognito, zero_retention, created_at, last_activity_at) "
        "SELECT %s, id, 'chat', 'first_party', false, false, '2026-01-01Z', '2026-02-01Z' FROM accounts",
        fresh,
    )
    never = signing_sweeper("audit", "prove", fresh)
    assert (never.code, "there is no tombstone" in never.err) == (1, True)
    swept(store, policy)
    early = signing_sweeper("audit", "prove", fresh)
    assert (early.code, "does not cover the purge" in early.err, "sweeper audit checkpoint" in early.err) == (
        1,
        True,
        True,
    )
    signing_sweeper("audit", "checkpoint")
    assert json.loads(signing_sweeper("audit", "prove", fresh.upper()).out)["leaf"]["record_id"] == fresh
    assert signing_sweeper("audit", "prove", "no-id").code == 2


def test_purged_twice(signing_sweeper: Command, store: Store, policy: Policy, purged: list[str]) -> None:
    """Of a conversation that was restored and purged again, the receipt is of the newest purge that is covered."""
    store.execute(
        "INSERT INTO conversations (id, account_id, kind, platform, incognito, zero_retention, created_at, last_activity_at) "
        "SELECT %s, id, 'chat', 'first_party', false, false, '2026-01-01Z', '2026-02-01Z' FROM accounts",
        purged[0],
    )
    signing_sweeper("audit", "checkpoint")
    swept(store, policy)
    once = signing_sweeper("audit", "prove", purged[0])
    signing_sweeper("audit", "checkpoint")
    twice = signing_sweeper("audit", "prove", purged[0])
    assert [json.loads(done.out)["leaf"]["run_id"] for done in (once, twice)] == [1, 2]
    assert "purged 2 times; the receipt is of the newest purge that a checkpoint covers" in twice.err


def test_altered_evidence_has_no_receipt(signing_sweeper: Command, store: Store, purged: list[str]) -> None:
    """Where row or tree were altered no receipt is written that would not check."""
    signing_sweeper("audit", "checkpoint")
    with store.connect() as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute("UPDATE sweeper.tombstones SET rule = 'x' WHERE id = 1")
    done = signing_sweeper("audit", "prove", purged[0])
    assert (done.code, done.out) == (1, "")
    assert "one of them was altered. No receipt was written. Run `sweeper audit verify`." in done.err


# Exports


@pytest.fixture
def ledger(signing_sweeper: Command, purged: list[str], tmp_path: Path) -> Path:
    """An exported ledger."""
    signing_sweeper("audit", "checkpoint")
    done = signing_sweeper("audit", "export", str(tmp_path / "ledger.jsonl"))
    assert (done.code, done.err) == (0, "")
    return tmp_path / "ledger.jsonl"


def test_export_holds_everything(ledger: Path, store: Store, purged: list[str]) -> None:
    """The reader gives every leaf in order, checked against the signed checkpoint; the file is its owner's alone."""
    read = export.read(ledger, SIGNER.verifier)
    leaves = list(read.leaves())
    assert (read.tree.size, read.signed, len(leaves)) == (303, True, 303)
    assert sorted(leaf["record_id"] for leaf in leaves if leaf["source"] == "tombstones") == purged
    assert [leaf["kind"] for leaf in leaves if leaf["source"] == "events"] == [
        "run_opened",
        "policy_recorded",
        "run_closed",
    ]
    assert ledger.stat().st_mode & 0o777 == 0o600
    assert list(ledger.parent.glob(".*")) == []


def test_export_is_checked_offline(ledger: Path, tmp_path: Path) -> None:
    """An auditor with the file and the public key alone learns that it fits, or the first line that does not."""
    away = offline(tmp_path)
    words = ("audit", "check-export", str(ledger), "--key", LINE(export.read(ledger, None).tree.origin))
    done = away(*words)
    assert (done.code, "Everything fits: 303 leaves" in done.out) == (0, True)
    assert "300 tombstones and 3 events" in done.out
    told = json.loads(away(*words, "--json").out)
    assert (told["size"], told["tombstones"], told["events"]) == (303, 300, 3)
    ledger.write_bytes(ledger.read_bytes().replace(b"standard", b"standarc", 1))
    done = away(*words)
    assert (done.code, done.out, "line 3: the leaf is not what it was" in done.err) == (1, "", True)


def refused(path: Path) -> str:
    """Why a file is no ledger."""
    with pytest.raises(ExportError) as caught:
        export.read(path, SIGNER.verifier)
    assert "Nothing was taken from it" in str(caught.value)
    return str(caught.value)


def test_altered_export_is_named_by_line(ledger: Path) -> None:
    """Whatever line is altered, left out, doubled or added, the first that does not fit is named."""
    lines = ledger.read_bytes().splitlines(keepends=True)
    assert len(lines) == 306
    changes: dict[str, tuple[list[bytes], str]] = {
        "leaf": (
            [*lines[:9], lines[9].replace(b"standard", b"standarc"), *lines[10:]],
            "line 10: the leaf is not what it was",
        ),
        "later": ([*lines[:300], lines[300].replace(b"standard", b"x"), *lines[301:]], "line 301: the leaf is not"),
        "swapped": ([*lines[:5], lines[6], lines[5], *lines[7:]], "line 6: the leaf is not what it was"),
        "left out": ([*lines[:5], *lines[6:]], "line 6: the leaf is not what it was"),
        "cut off": (lines[:-1], "line 306: the file ends too early"),
        "cut in a line": ([*lines[:-1], lines[-1][:-1]], "line 306: the line is cut off"),
        "more": ([*lines, lines[-1]], "line 307: there is more than the checkpoint covers"),
        "no hashes": ([lines[0], *lines[2:]], "line 2: the hashes of the next leaves are expected here"),
        "no JSON": ([*lines[:9], b"{\n", *lines[10:]], "line 10: this is no JSON"),
        "no object": ([b"[]\n", *lines[1:]], "line 1: this is no JSON object"),
        "no checkpoint": (lines[1:], "line 1: this is no exported ledger"),
        "empty": ([], "line 1: the file ends too early"),
        "signature": ([lines[0].replace(b"\\n303\\n", b"\\n302\\n"), *lines[1:]], "line 1: the signature of"),
    }
    for name, (altered, said) in changes.items():
        ledger.write_bytes(b"".join(altered))
        assert said in refused(ledger), name


def alter_with_its_hash(ledger: Path) -> None:
    """Change the first leaf of a file, and what the file says its hash is."""
    lines = ledger.read_bytes().splitlines()
    hashes = base64.b64decode(json.loads(lines[1])["hashes"])
    lines[2] = lines[2].replace(b"standard", b"standarc")
    changed = base64.b64encode(leaf_hash(lines[2]) + hashes[32:]).decode()
    lines[1] = json.dumps({"hashes": changed}).encode()
    ledger.write_bytes(b"\n".join(lines) + b"\n")


def test_export_altered_with_its_hashes(ledger: Path) -> None:
    """A leaf that was changed together with its hash does not lead to the root that was signed."""
    alter_with_its_hash(ledger)
    assert "line 306: its leaves have another root than its checkpoint of 303 leaves" in refused(ledger)


def test_export_that_changes_while_it_is_read(ledger: Path) -> None:
    """What changes after the check is not given out, even if it fits itself."""
    read = export.read(ledger, SIGNER.verifier)
    alter_with_its_hash(ledger)
    given: list[Leaf] = []
    with pytest.raises(ExportError, match="has changed since it was checked"):
        given.extend(read.leaves())
    assert given == []


def test_export_without_a_key(ledger: Path, signing_sweeper: Command) -> None:
    """Without a key the reader says that no signature was checked; a file that is not there is a usage error."""
    assert export.read(ledger, None).signed is False
    with pytest.raises(ConfigurationError, match="cannot be read"):
        export.read(ledger.parent / "nowhere", None)
    for place in (ledger.parent, ledger.parent / "no" / "where"):
        done = signing_sweeper("audit", "export", str(place))
        assert (done.code, "Nothing was written" in done.err) == (2, True)


def test_altered_evidence_is_not_exported(signing_sweeper: Command, store: Store, ledger: Path) -> None:
    """An export of rows that are not what was signed is not put in place of the one that is there."""
    before = ledger.read_bytes()
    for change in (
        "UPDATE sweeper.tombstones SET rule = 'x' WHERE id = 1",
        "DELETE FROM sweeper.tombstones WHERE id = 1",
    ):
        with store.connect() as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute(change)
        done = signing_sweeper("audit", "export", str(ledger))
        assert (done.code, "Run `sweeper audit verify`" in done.err) == (1, True)
    assert ledger.read_bytes() == before
    assert list(ledger.parent.glob(".ledger*")) == []


def test_key(sweeper: Command, store: Store) -> None:
    """The public key is printed under the log's name, as C2SP verifier keys are."""
    identity = store.execute("SELECT id::text FROM sweeper.identity")[0][0]
    told = json.loads(sweeper("audit", "key", "--json", SWEEPER_SIGNING_KEY=KEY).out)
    assert told["key"] == LINE(f"sweeper/{identity}")
    assert told["key"].split("+")[:2] == [told["name"], told["id"]]


def test_a_key_that_cannot_be_used(store: Store, tmp_path: Path) -> None:
    """Before the first night `check` and the preview say what the run would refuse: a signing key that is not there."""
    missing = str(tmp_path / "gone.pem")
    broken = partial(in_process, store, SWEEPER_SIGNING_KEY_FILE=missing)
    for words, code in ((("check",), 1), (("run", "--dry-run"), 2), (("run",), 2)):
        done = broken(*words)
        assert done.code == code, words
        assert missing in done.out + done.err
    assert store.execute("SELECT count(*) FROM sweeper.runs") == [(0,)]


def test_the_key_was_forgotten(sweeper: Command, signing_sweeper: Command) -> None:
    """A run without the key after runs with it says so in `status`, until the key is back."""
    told = "unsigned, though earlier ones are signed"
    assert signing_sweeper("run").code == 0
    assert told not in " ".join(sweeper("status").out.split())
    assert sweeper("run").code == 0
    assert told in " ".join(sweeper("status").out.split())
    assert signing_sweeper("run").code == 0
    assert told not in " ".join(sweeper("status").out.split())
