"""`policy check`, `policy show` and the acceptance of a changed policy, as a person types them."""

import json
from pathlib import Path

import pytest

from sweeper.policy.schema import Policy
from tests.acceptance.commands import Command, in_process
from tests.acceptance.test_explain import DUE, EIGHTEEN
from tests.core.test_policy import SHIPPED
from tests.store.stores import POLICY, Store

SHORTER = SHIPPED.replace(
    'anchor = "consent_ended", period = "30 days"', 'anchor = "consent_ended", period = "29 days"'
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A policy with a shorter period."""
    (tmp_path / "new.toml").write_text(SHORTER)
    return tmp_path / "new.toml"


def test_check(file: Path, policy: Policy) -> None:
    """Without a database: the digest of a policy without faults, every fault of another at once, and exit code 2."""
    fine = in_process(None, "policy", "check", POLICY, "--json")
    assert (fine.code, json.loads(fine.out)) == (0, {"name": policy.name, "digest": policy.digest, "rules": 9})
    file.write_text(
        SHORTER.replace('period = "5 years"', 'period = "5 yaers"').replace("closed = true", "closd = true")
    )
    broken = in_process(None, "policy", "check", str(file))
    assert (broken.code, broken.out) == (2, "")
    for key in ("rules[2] (account_closed).when.closd", "due[0].anchor", "rules[7] (training_allowed).due[0].period"):
        assert key in broken.err
    missing = in_process(None, "policy", "check", str(file.with_name("none.toml")))
    assert (missing.code, "cannot be read" in missing.err) == (2, True)


def test_show(policy: Policy) -> None:
    """The rules in words, as tables and as JSON; by default those of the settings' policy."""
    shown = in_process(None, "policy", "show")
    assert shown.code == 0
    said = " ".join(shown.out.split())
    for text in (
        f"digest {policy.digest}",
        "one of its plans is commercial; partner",
        "zero_retention it is marked zero-retention (also if plan or",
        "the earliest of last activity + 5 years and",
        "flagged at least flag + 2 years",
        "consumer free, max and pro",
        "bug_report, submitted before 2025-10-17T00:00:00Z submission + 30 days",
        "text leaves the store only after sensitive data in it was replaced",
    ):
        assert text in said
    found = json.loads(in_process(None, "policy", "show", EIGHTEEN, "--json").out)
    assert found["rules"][1]["due"] == [
        "last activity + as many days as account.retention_days says (otherwise no due date)"
    ]
    assert found["rules"][0]["applies_when"] == ["account.history_enabled is false"]
    assert found["training"] == ["nothing may be trained on"]


def test_accept_policy(sweeper: Command, store: Store, file: Path) -> None:
    """A refused run names the digest that accepts; with it the run works, in `status` the refusal has its remedy until then."""
    store.load(DUE)
    at = ("--as-of", DUE["as_of"], "--accept-history")
    assert sweeper("run", *at).code == 0
    changed = {"SWEEPER_POLICY_FILE": str(file)}
    digest = json.loads(in_process(None, "policy", "check", str(file), "--json").out)["digest"]
    preview = sweeper("run", "--dry-run", *at, **changed)
    assert (preview.code, "A run would refuse (policy)" in preview.out) == (0, True)
    refused = sweeper("run", *at, "--json", **changed)
    found = json.loads(refused.out)
    assert (refused.code, found["guard"]) == (3, "policy")
    remedy = f"Look at `sweeper policy diff`; if it is right, run once with --accept-policy {digest[:12]}."
    assert found["remedy"] == remedy
    assert remedy in sweeper("status", **changed).out
    for wrong in (digest[:11], digest[:12].upper(), "30 days"):
        done = sweeper("run", *at, "--accept-policy", wrong, **changed)
        assert (done.code, "--accept-policy" in done.err) == (2, True)
    assert sweeper("run", *at, "--accept-policy", digest[:12], **changed).code == 0
    assert sweeper("run", *at, **changed).code == 0
