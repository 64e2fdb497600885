"""The alert rules ask only for what the program exports, and say what to do; broken copies show that each check can fail."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from sweeper.report.metrics import TABLE
from sweeper.report.overdue import PATIENCE
from sweeper.runs.record_kind import KINDS
from tests.deploy.exported import exported
from tests.deploy.promql import asked, faults
from tests.store.stores import ROOT

FILE = ROOT / "deploy" / "prometheus" / "alerts.yml"
WANTED = {
    "SweeperNotRun",
    "SweeperNothingPurgedWhileOverdue",
    "SweeperOverdue",
    "SweeperRefused",
    "SweeperFailed",
    "SweeperSkipsMoreThanItPurges",
    "SweeperSkips",
    "SweeperInDoubt",
    "SweeperManifestGone",
    "SweeperGuardOff",
    "SweeperIndexMissing",
    "SweeperPausedTooLong",
    "SweeperCopyBehind",
    "SweeperZeroRetentionIncident",
    "SweeperUndecidedAfterDeadline",
    "SweeperUnclassifiedRising",
    "SweeperEvidenceUncovered",
    "SweeperNumbersStale",
    "SweeperDown",
}


def rules(text: str | None = None) -> list[dict[str, Any]]:
    """The rules of a file's text."""
    found = yaml.safe_load(text or FILE.read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def all_faults(text: str | None = None) -> list[str]:
    """Everything that is wrong with the rules of a file's text."""
    return [f"{rule['alert']}: {fault}" for rule in rules(text) for fault in _faults(rule)]


def _faults(rule: dict[str, Any]) -> Iterator[str]:
    yield from faults(rule["expr"], exported())
    if rule.get("labels", {}).get("severity") not in ("warning", "critical"):
        yield "no severity"
    said = rule.get("annotations", {})
    if not {"summary", "description"} <= set(said):
        yield "no summary or description"
    if not re.search(r"`sweeper \w+", said.get("description", "")):
        yield "no command to type"
    for label in re.findall(r"\$labels\.(\w+)", " ".join(said.values())):
        if label not in asked(rule["expr"]).grouped:
            yield f"says {label}, which its expression does not keep"


def test_everything_is_exported_by_somebody() -> None:
    """The text that the rules are checked against has every row of the table of metrics."""
    assert set(exported()) == {name for row in TABLE for name in row.names}


def test_rules_hold() -> None:
    """Every rule asks for series, labels and values that exist, has a severity, and names a command."""
    assert all_faults() == []
    assert {rule["alert"] for rule in rules()} >= WANTED


@pytest.mark.parametrize(
    ("there", "instead", "fault"),
    [
        ("min by (store) (sweeper_paused)", "min by (store) (sweeper_pause)", "sweeper_pause is not exported"),
        ('{record="feedback"}', '{record="survey"}', "sweeper_purged_lately never has record=survey"),
        ('{outcome="refused"}', '{state="refused"}', "sweeper_last_run_outcome has no label state"),
        ("(store, rule) (sweeper_oldest_overdue_seconds", "(store, guard) (sweeper_oldest_overdue_seconds", "grouped by guard"),
        ("increase(sweeper_failed_total", "increase(sweeper_failed", "sweeper_failed is not exported"),
        ("$labels.rule", "$labels.reason", "says reason"),
        ("severity: warning", "severity: loud", "no severity"),
        ("`sweeper report` counts them anew", "A report counts them anew", "no command"),
        ("summary:", "title:", "no summary"),
    ],
)  # fmt: skip
def test_broken_rules_are_found(there: str, instead: str, fault: str) -> None:
    """A copy with one thing wrong has that fault."""
    text = FILE.read_text()
    assert there in text
    assert any(fault in told for told in all_faults(text.replace(there, instead)))


def test_unknown_language_is_refused() -> None:
    """An expression with a word or sign that the checker does not know is not passed over."""
    with pytest.raises(ValueError, match="nothing known at"):
        asked("sweeper_up @ 17 ? 3")
    assert faults("quantile(0.9, sweeper_up)", exported()) == ["quantile is not exported"]


def test_every_kind_alarms() -> None:
    """The alert that nothing is purged looks at each kind of record, as the alarms of `report` do."""
    (rule,) = (rule for rule in rules() if rule["alert"] == "SweeperNothingPurgedWhileOverdue")
    assert set(re.findall(r'record="(\w+)"', rule["expr"])) == set(KINDS)


def test_patience_is_the_same_everywhere() -> None:
    """The alert, the exit code of `report` and the words in both speak of the same 26 hours."""
    seconds = str(int(PATIENCE.total_seconds()))
    by_name = {rule["alert"]: rule for rule in rules()}
    for name in (
        "SweeperNothingPurgedWhileOverdue",
        "SweeperNotRun",
        "SweeperNumbersStale",
        "SweeperEvidenceUncovered",
        "SweeperCopyBehind",
    ):
        assert set(re.findall(r"> (\d+)", by_name[name]["expr"])) - {"0"} == {seconds}
        assert "26 hours" in " ".join(by_name[name]["annotations"].values())
    assert PATIENCE.total_seconds() == 26 * 3_600
