"""The night on which a program was installed and nothing written for it: no command may look as if it had worked."""

from pathlib import Path

import pytest

from tests.acceptance.commands import Command

NEEDING = (
    "status",
    "status --json",
    "run",
    "run --dry-run",
    "report",
    "check",
    "explain --all",
    "explain 0015fcfe-b44c-5c99-afa9-7f30a196cac5",
    "backfill --since 2020-01-01T00:00:00Z --until 2021-01-01T00:00:00Z --dry-run",
    "reapply --ledger ledger.jsonl --key sweeper.pub",
    "serve --listen 127.0.0.1:0",
    "manifest recall",
)
"""The commands that decide by the policy."""
FREE = ("pause --reason r", "resume", "hold list", "order list", "audit checkpoint", "audit verify")
"""Commands that need no policy: they work while it is missing or broken."""


@pytest.mark.parametrize("command", [*NEEDING, *FREE])
def test_without_files(command: str, sweeper: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever needs the policy exits with 2 and names the command that writes one; after that command it goes on."""
    monkeypatch.chdir(tmp_path)
    words = command.split()
    done = sweeper(*words, SWEEPER_POLICY_FILE="")
    if command in FREE:
        assert done.code == 0, done.err
        return
    assert done.code == 2
    assert f"policy {tmp_path / 'config' / 'policy.toml'}: cannot be read" in done.err
    assert "`sweeper init`" in done.err
    assert "Nothing is wrong" not in done.out
    assert "checkout" not in done.err
    if words[0] == "status":
        assert sweeper("init").code == 0
        assert sweeper(*words, SWEEPER_POLICY_FILE="").code == 0


def test_settings_that_are_not_there(sweeper: Command, tmp_path: Path) -> None:
    """A settings file that was named and is missing is an error of every command, with the command that writes one."""
    for words in (("status",), ("hold", "list"), ("run",), ("serve",)):
        done = sweeper(*words, "--config", str(tmp_path / "sweeper.toml"))
        assert (done.code, done.out) == (2, "")
        assert f"settings {tmp_path / 'sweeper.toml'}: cannot be read" in done.err
        assert "`sweeper init`" in done.err
