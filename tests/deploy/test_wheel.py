"""The wheel works by itself: it is built and installed here, and used from a directory that has no checkout beside it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path
from sysconfig import get_path

import pytest

from sweeper import applications
from sweeper.embedded import _HOMES
from sweeper.files import SHIPPED, shipped
from tests.store.stores import ROOT, Store


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it, and its `sweeper`; what the wheel needs is found in this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # a directory that a .pth names has no .pth of its own read: the checkout installed in it is not seen
    (packages / "needed.pth").write_text(f"{get_path('purelib')}\n{get_path('platlib')}\n")
    return folder / "venv" / "bin" / "sweeper"


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty directory that the server's account may enter; pytest's own is closed to it."""
    path = Path(tempfile.mkdtemp(dir=_HOMES))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def use(program: Path, *words: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command of the installed program, which finds nothing of this checkout in its environment."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("SWEEPER_", "PYTHON"))}
    return subprocess.run(
        [str(program), *words], cwd=cwd, env={**environment, **variables}, capture_output=True, text=True
    )


def test_from_nothing_to_a_run(installed: Path, folder: Path, store: Store) -> None:
    """`init` writes what the wheel carries, unchanged, and with it `check` and `run` work."""
    python = installed.with_name("python")
    where = subprocess.run([python, "-c", "import sweeper; print(sweeper.__file__)"], cwd=folder, capture_output=True)
    assert str(installed.parents[1]) in where.stdout.decode()
    assert use(installed, "--version", cwd=folder).stdout.startswith("sweeper ")
    assert "Exit codes:" in use(installed, "--help", cwd=folder).stdout
    listed = {each["name"] for each in json.loads(use(installed, "init", "--list", "--json", cwd=folder).stdout)}
    assert listed == set(applications.names())
    database = {"SWEEPER_DATABASE_URL": store.url}
    for command in ("run", "status"):
        without = use(installed, command, cwd=folder, **database)
        assert (without.returncode, "`sweeper init`" in without.stderr) == (2, True)
        assert "checkout" not in without.stdout + without.stderr
    assert use(installed, "init", cwd=folder, **database).returncode == 0
    written = {path.name: path.read_bytes() for path in (folder / "config").iterdir()}
    assert written == {name: (ROOT / path).read_bytes() for name, path in SHIPPED.items()}
    for command in ("check", "run", "status"):
        done = use(installed, command, cwd=folder, **database)
        assert done.returncode == 0, done.stdout + done.stderr


def test_init_replaces_nothing(installed: Path, folder: Path) -> None:
    """Where one of its files exists, `init` writes none."""
    (folder / "config").mkdir()
    (folder / "config" / "policy.toml").write_text("mine")
    assert use(installed, "init", cwd=folder).returncode == 2
    assert [path.name for path in (folder / "config").iterdir()] == ["policy.toml"]
    assert (folder / "config" / "policy.toml").read_text() == "mine"


def test_demo(installed: Path, folder: Path) -> None:
    """The demo uses policy and templates of the wheel, purges and keeps by every rule, and a second sweep finds nothing."""
    done = use(installed, "demo", cwd=folder, TMPDIR=str(folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert [page.stat().st_size > 30_000 for page in folder.glob("sweeper-report-*/report.html")] == [True]
    assert "Run 2 completed: 0 conversations and 0 feedback rows purged" in done.stdout
    counts = {}
    for line in done.stdout.splitlines():
        if (found := re.fullmatch(r"(\w+) +([\d,]+) +([\d,]+)", line)) is not None:
            counts[found[1]] = int(found[2].replace(",", "")) + int(found[3].replace(",", ""))
    assert set(counts) >= {"zero_retention", "partner", "training_allowed", "flagged", "erasure_order", "unclassified"}
    assert sum(counts.values()) == 7168
    assert all(counts.values())
    assert f"{258145:,} messages" in done.stdout
    withdrawn = re.search(r"names (\d+) of its messages", " ".join(done.stdout.split()))
    assert withdrawn is not None
    assert f" rows. {withdrawn[1]} may not be trained on any more; 0 of those" in done.stdout
    assert f": {withdrawn[1]} rows to drop since the last recall." in done.stdout


def test_from_a_checkout() -> None:
    """A checkout that is installed as such uses the files of its repository."""
    assert {name: shipped(name) for name in SHIPPED} == {name: ROOT / path for name, path in SHIPPED.items()}
