"""A short soak: killed sweepers and a killed server under a writing application leave what the model of the policy says."""

from pathlib import Path

from benchmarks.soak.chaos import Plan, soak


def test_soak(tmp_path: Path) -> None:
    """After two killed sweepers and an immediate stop of the server everything adds up, and the ledger verifies."""
    report = soak(Plan(seed=7, conversations=250, kills=2, stops=1), tmp_path)
    assert report.faults == []
    assert report.purged > 0
    assert sum(report.actions.values()) > 0
    assert report.runs["completed"] >= 2
