"""The image's recipe: linted, pinned, unprivileged, and without anything that the program does not need."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy import trees
from tests.deploy.trees import OVERLAYS, ROOT

FOLDER = ROOT / "deploy" / "docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
SCRIPT = FOLDER / "build-offline.sh"
HADOLINT = Path(sys.prefix) / "bin" / "hadolint"


def lint(text: str, folder: Path) -> set[str]:
    """The rules that hadolint says a Dockerfile breaks; no settings and no ignore of any file count."""
    (folder / "Dockerfile").write_text(text)
    done = subprocess.run(
        [HADOLINT, "--disable-ignore-pragma", "--no-color", "--failure-threshold", "style", "Dockerfile"],
        cwd=folder,
        env={"HOME": str(folder), "PATH": os.defpath, "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
    )
    found = set(re.findall(r"\b(DL\d+|SC\d+)\b", done.stdout))
    assert (done.returncode != 0) == bool(found), done.stdout + done.stderr
    return found


def instructions(name: str, text: str = DOCKERFILE) -> list[str]:
    """What follows each instruction of a name, continued lines put together."""
    whole = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", "")
    return re.findall(rf"^{name} +(.*)$", whole, re.MULTILINE)


def is_pinned(text: str) -> bool:
    """Whether every stage builds on the one image that BASE names by tag and digest; hadolint does not look behind a name."""
    bases = [argument for argument in instructions("ARG", text) if argument.startswith("BASE")]
    stages = [stage.split()[0] for stage in instructions("FROM", text)]
    pin = r"BASE=[a-z]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}"
    return stages == ["${BASE}", "${BASE}"] and len(bases) == 1 and re.fullmatch(pin, bases[0]) is not None


def test_lint(tmp_path: Path) -> None:
    """The linter has nothing to say, and nothing is kept from it."""
    assert lint(DOCKERFILE, tmp_path) == set()
    assert "hadolint" not in DOCKERFILE


@pytest.mark.parametrize(
    ("line", "instead", "rule"),
    [
        ("FROM ${BASE} AS build", "FROM python AS build", "DL3006"),
        ("FROM ${BASE} AS build", "FROM python:latest AS build", "DL3007"),
        ("USER 10001:10001", "USER root", "DL3002"),
        ('ENTRYPOINT ["sweeper"]', "ENTRYPOINT sweeper", "DL3025"),
        ("WORKDIR /source", "WORKDIR source", "DL3000"),
        ("WORKDIR /source", "RUN cd /source", "DL3003"),
        ("RUN python3 -m venv", "RUN sudo python3 -m venv", "DL3004"),
        ("RUN python3 -m venv", "RUN python3 $PWD/a -m venv", "SC2086"),
        ('CMD ["--help"]', 'CMD ["--help"]\nENTRYPOINT ["sweeper"]', "DL4004"),
    ],
)
def test_lint_can_fail(line: str, instead: str, rule: str, tmp_path: Path) -> None:
    """The linter names the rule that a worse Dockerfile breaks."""
    assert line in DOCKERFILE
    assert rule in lint(DOCKERFILE.replace(line, instead), tmp_path)


def test_base_is_pinned() -> None:
    """Both stages build on one image by its digest, which must be filled in: the zeros exist nowhere."""
    assert is_pinned(DOCKERFILE)
    assert f"@sha256:{'0' * 64}\n" in DOCKERFILE


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("@sha256:" + "0" * 64, ""),
        ("@sha256:" + "0" * 64, "@sha256:" + "0" * 63),
        (":3.11-slim-bookworm", ""),
        ("FROM ${BASE}\n", "FROM python:3.11-slim-bookworm\n"),
        ("FROM ${BASE} AS build", "FROM python:3.11-slim-bookworm AS build"),
        ("ARG LOCK", "ARG BASE=python:3.11\nARG LOCK"),
    ],
)
def test_open_base_is_seen(line: str, instead: str) -> None:
    """A base without its tag or digest, or a stage on another image, is told."""
    assert line in DOCKERFILE
    assert not is_pinned(DOCKERFILE.replace(line, instead))


def test_image_runs_as_the_manifests_say() -> None:
    """The user's number, the program and the place of the settings are those that Kubernetes is told."""
    (user,) = instructions("USER")
    spec = next(spec for each in trees.read(OVERLAYS / "daily") if (spec := trees.pod_template(each).get("spec")))
    assert user == f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}"
    assert instructions("ENTRYPOINT") == ['["sweeper"]']
    (settings,) = re.findall(r"SWEEPER_CONFIG=(\S+)", DOCKERFILE)
    assert {"name": "SWEEPER_CONFIG", "value": settings} in spec["containers"][0]["env"]


def test_nothing_of_the_build_is_left() -> None:
    """The second stage has the virtual environment and the settings, and runs nothing while it is made."""
    _, second = DOCKERFILE.split("\nFROM ${BASE}\n")
    assert re.findall(r"^COPY (.*)$", second, re.MULTILINE) == [
        "--from=build /opt/sweeper /opt/sweeper",
        "config/policy.toml config/sweeper.toml /etc/sweeper/",
    ]
    assert "\nRUN" not in second


LOCK = ROOT / "requirements.lock"
LOCKS = sorted(FOLDER.glob("*.lock"))


def pinned(lock: Path) -> dict[str, str]:
    """What a lock says of each package: the version, the condition and the hashes, by the first two."""
    entries = re.split(r"\n(?=\S)", lock.read_text().strip())
    return {re.split(r" ;| \\", entry)[0]: entry for entry in entries}


@pytest.mark.parametrize("lock", [LOCK, *LOCKS], ids=lambda lock: str(lock.relative_to(ROOT)))
def test_every_package_has_a_hash(lock: Path) -> None:
    """A lock names one version of each package with SHA-256 hashes, and no place to take it from."""
    for name, entry in pinned(lock).items():
        head, *hashes = re.split(r" \\\n    ", entry)
        assert re.fullmatch(r"[a-z0-9.-]+==[\w.]+", name), name
        assert hashes, name
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), name
        assert "://" not in head


def test_locks_of_the_image_are_parts_of_the_lock() -> None:
    """What the tests ran with is what the image gets: the same versions and the same hashes, and nothing for tests only."""
    whole = {name: set(re.findall(r"sha256:\S+", entry)) for name, entry in pinned(LOCK).items()}
    names = {lock.stem: set(pinned(lock)) for lock in LOCKS}
    assert set(names) == {"build", "plain", "manifest"}
    for lock in LOCKS:
        assert {n: set(re.findall(r"sha256:\S+", e)) for n, e in pinned(lock).items()}.items() <= whole.items()
    assert names["plain"] < names["manifest"]
    assert not [name for name in names["manifest"] if re.match("pytest|mypy|ruff|hatchling|duckdb|hypothesis", name)]


def test_what_is_installed_has_hashes() -> None:
    """Every step of the image that may ask an index for packages demands hashes; what has none is the program itself."""
    (run,) = instructions("RUN")
    steps = [step.split() for step in run.split("&&") if re.search(r" pip .*\b(install|wheel|download)\b", step)]
    assert len(steps) == 4
    for step in steps:
        assert "--require-hashes" in step or {"--no-deps"} < set(step) & {
            "--no-deps",
            "--no-index",
            "--no-build-isolation",
        }
    assert [step[-1] for step in steps] == ["build.lock", ".", '"${LOCK}.lock"', "/built/*.whl"]
    assert "LOCK=plain" in instructions("ARG")


def test_make_installs_by_hashes() -> None:
    """The two steps of `make` take nothing from an index without a hash either."""
    steps = [line for line in (ROOT / "Makefile").read_text().splitlines() if " pip install " in line]
    assert len(steps) == 2
    assert "--require-hashes -r requirements.lock" in steps[0]
    assert "--no-deps --no-build-isolation -e ." in steps[1]


def test_context_has_what_is_copied_and_no_more() -> None:
    """Every source of the build lies in the context, which begins with nothing."""
    _, everything, *kept = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    assert everything == "*"
    copied = {word.removeprefix("./").split("/")[0] for copy in instructions("COPY") for word in copy.split()[:-1]}
    copied -= {"--from=build", ""}
    assert {name.removeprefix("!").split("/")[0] for name in kept if name.startswith("!")} == copied
    assert "!deploy/docker/*.lock" in kept
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("file", [file.name for file in sorted(FOLDER.iterdir())])
def test_no_registry_is_named(file: str) -> None:
    """Where images and packages come from is for whoever builds: no host stands in these files."""
    assert re.findall(r"https?://|\b[\w-]+\.(?:io|com|org|net|dev)\b", (FOLDER / file).read_text()) == []


def test_script_is_shell() -> None:
    """The script that builds without an engine can be run, and bash can read it."""
    assert os.access(SCRIPT, os.X_OK)
    assert subprocess.run(["bash", "-n", SCRIPT], capture_output=True).returncode == 0
