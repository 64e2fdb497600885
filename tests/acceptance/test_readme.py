"""Every command, statement and setting that the README shows is run here."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sweeper import embedded
from sweeper.policy import schema as policies
from tests.acceptance.commands import environment as of_who_runs
from tests.manifest import made
from tests.processes import started, until
from tests.store import stores
from tests.store.stores import Store

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BIN = Path(sys.executable).parent


def blocks(language: str, text: str = README) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str = README) -> list[str]:
    """The commands that the README tells to type."""
    return [
        line.removeprefix("$ ")
        for block in blocks("console", text)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def section(title: str) -> str:
    """One section of the README."""
    return README.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def run(command: str, environment: dict[str, str], cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """A command as a reader would type it, with the sweeper of this environment on the path."""
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def shown(
    tmp_path_factory: pytest.TempPathFactory, server: embedded.Server, templates: dict[str, str]
) -> Iterator[Store]:
    """A store in which the conversation that the README names is due under a made-up world."""
    store = stores.copy(server, templates["uuid"], "readme", "uuid")
    named = re.search(r"explain ([0-9a-f-]{36})", README)
    assert named is not None
    account = stores.identifier("uuid", "a1")
    store.execute("INSERT INTO accounts VALUES (%s, '2020-01-01Z')", account)
    store.execute(
        "INSERT INTO plan_changes (account_id, effective_at, plan) VALUES (%s, '2020-01-01Z', 'pro')", account
    )
    store.execute(
        "INSERT INTO consent_events (account_id, purpose, granted, recorded_at) "
        "VALUES (%s, 'model_improvement', true, '2025-09-01Z')",
        account,
    )
    store.execute(
        "INSERT INTO conversations VALUES (%s, %s, 'chat', 'first_party', false, false, '2026-10-26Z', '2026-10-26Z')",
        named[1],
        account,
    )
    yield store
    store.close()
    stores.drop(server, "readme")


MANIFESTS = section("Training manifests")
OPERATION, BACKFILL, EVIDENCE = map(section, ("Leave it alone", "Years of it at once", "Evidence"))
APART = [c for text in (MANIFESTS, OPERATION, BACKFILL, EVIDENCE) for c in commands(text)]
"""What has tests of its own, in an order of its own."""
SWEEPER = [c for c in commands() if c.startswith("sweeper ") and c not in APART]
OTHER = [c for c in commands() if not c.startswith("sweeper ") and c not in APART]


def test_readme_shows_commands() -> None:
    """The README shows the commands of the daily work; none of them is overlooked below."""
    assert len(SWEEPER) >= 10
    assert [command.split()[0] for command in OTHER] == ["make", ".", "make", "uv", "uv", "uv", "export"]


@pytest.mark.parametrize("command", SWEEPER)
def test_sweeper_commands(command: str, shown: Store) -> None:
    """Each of the sweeper's commands does what it is shown for: it ends with exit code 0."""
    environment = of_who_runs(shown, *command.split()[1:])
    if "hold release" in command:
        run(SWEEPER[[c.startswith("sweeper hold place") for c in SWEEPER].index(True)], environment)
    done = run(command, environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.fixture
def overdue(store: Store, tmp_path: Path) -> dict[str, str]:
    """The environment of a store in which the conversation that the README names, and three others, are long overdue."""
    named = re.search(r"explain ([0-9a-f-]{36})", README)
    assert named is not None
    account = {"id": "a1", "plans": [{"effective_at": "-infinity", "plan": "free"}], "consent": []}
    old = {"account": "a1", "created_at": OLD, "last_activity_at": OLD, "messages": []}
    chats = [{**old, "id": f"c{number}"} for number in range(4)]
    store.load({"accounts": [account], "conversations": chats, "holds": [], "orders": []})
    store.execute("UPDATE conversations SET id = %s WHERE id = %s", named[1], store.id("c0"))
    (tmp_path / "sweeper.toml").write_text(
        f'[guards]\nhistory = false\n[policy]\nfile = "{stores.POLICY}"\n[serve]\nlisten = "127.0.0.1:0"\n'
    )
    return {"SWEEPER_DATABASE_URL": store.url, "SWEEPER_CONFIG": str(tmp_path / "sweeper.toml")}


OLD = "2024-05-05T00:00:00Z"


def test_operation(overdue: dict[str, str], store: Store, tmp_path: Path) -> None:
    """The daemon makes up for the night that was missed and ends in order when asked to; the other commands end well."""
    store.execute(
        "INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, started_at, finished_at, outcome) "
        "SELECT 'store', at, '', '', 0, at, at, 'completed' FROM (SELECT now() - interval '3 days') AS last (at)"
    )
    serve, *others = commands(OPERATION)
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    daemon = started(serve.split(), cwd=tmp_path, env={**os.environ, "PATH": path, **overdue}, stdout=None, stderr=None)
    with daemon as process:
        until(lambda: not store.left(), process)
        process.terminate()
        assert process.wait() == 0
    for command in others:
        done = run(command, overdue, tmp_path)
        assert done.returncode == 0, (command, done.stderr)
    assert "sweeper_up" in (tmp_path / "sweeper.prom").read_text()


def test_budget(overdue: dict[str, str], store: Store, tmp_path: Path) -> None:
    """The options that bound a run are taken as the README writes them."""
    (command,) = re.findall(r"`(run --max-runtime .*?)`", OPERATION)
    assert run(f"sweeper {command}", overdue, tmp_path).returncode == 0
    assert store.left() == set()


def test_backfill(overdue: dict[str, str], store: Store, tmp_path: Path) -> None:
    """The plan is previewed, and purged under its digest; the hours of the night are left out here."""
    preview, work = commands(BACKFILL)
    done = run(f"{preview} --json", overdue, tmp_path)
    assert json.loads(done.stdout)["would_purge"] == 4
    command = work.replace("DIGEST", json.loads(done.stdout)["digest"]).replace(" --between 01:00-05:00", "")
    assert run(command, overdue, tmp_path).returncode == 0
    assert store.left() == set()


def test_evidence(overdue: dict[str, str], store: Store, tmp_path: Path) -> None:
    """Key, checkpoint, verification, receipt, export and reapplication follow one another as they are shown."""
    environment = dict(overdue)
    for command in commands(EVIDENCE):
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            environment[name] = value
            assert run("sweeper run", environment, tmp_path).returncode == 0
            continue
        done = run(command, environment, tmp_path)
        assert done.returncode == 0, (command, done.stderr)
    checked = next(c for c in commands(EVIDENCE) if "check-receipt" in c)
    (tmp_path / "receipt.json").write_text((tmp_path / "receipt.json").read_text().replace("standard", "deleted"))
    assert run(checked, {}, tmp_path).returncode == 1


def test_make_demo(tmp_path: Path) -> None:
    """`make demo` ends well, purges and keeps by every rule, and a second sweep finds nothing."""
    done = run(f"make -o {shlex.quote(sys.prefix)}/.installed demo VENV={shlex.quote(sys.prefix)}", {})
    assert done.returncode == 0, done.stderr
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


def test_kept_where_the_name_says() -> None:
    """`make demo KEEP=DIR` hands over the directory as it is written, spaces and quotes included."""
    made = f"make --no-print-directory -n -o {shlex.quote(sys.prefix)}/.installed demo VENV={shlex.quote(sys.prefix)}"
    planned = run(f'{made} KEEP="a b\'c"', {})
    assert shlex.split(planned.stdout)[1:] == ["demo", "--keep", "a b'c"]


def test_activated(tmp_path: Path) -> None:
    """What the README says after `make demo` puts `sweeper` on the path."""
    command = next(command for command in OTHER if command.startswith(". "))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    done = subprocess.run(
        ["bash", "-c", f"{command} && command -v sweeper"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
    )
    assert done.returncode == 0


def test_make_test_is_what_ci_runs() -> None:
    """`make test` runs the suite, and the continuous integration calls just that."""
    planned = run(f"make -n -o {shlex.quote(sys.prefix)}/.installed test VENV={shlex.quote(sys.prefix)}", {})
    assert "-m pytest" in planned.stdout
    assert "make test\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.system
def test_uv_way(tmp_path: Path) -> None:
    """The uv commands install into an environment of their own and run from it; the suite itself is only collected."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "tools"], check=True)
    subprocess.run([tmp_path / "tools" / "bin" / "pip", "install", "-q", "uv"], check=True)
    subprocess.run(["git", "clone", "-q", ROOT, tmp_path / "clone"], check=True)
    path = f"{tmp_path / 'tools' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for command in OTHER:
        if command.startswith("uv "):
            shortened = command + " --collect-only" if "pytest" in command else command
            subprocess.run(
                ["bash", "-c", shortened], cwd=tmp_path / "clone", env={**os.environ, "PATH": path}, check=True
            )


def test_foreign_tables(server: embedded.Server, tmp_path: Path) -> None:
    """The worked example: epoch seconds, a boolean soft delete, text ids and an undeclared child, swept through the views."""
    name = "foreign_tables"
    store = Store(server.url(name), "text")
    with stores.administered(server) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    try:
        for script in (FOREIGN, *blocks("sql"), ROWS):
            with store.connect() as connection:
                connection.execute(script)
        (tmp_path / "sweeper.toml").write_text("".join(blocks("toml")))
        environment = {
            "SWEEPER_DATABASE_URL": store.url,
            "SWEEPER_CONFIG": str(tmp_path / "sweeper.toml"),
            "SWEEPER_POLICY_FILE": stores.POLICY,
        }
        assert run("sweeper migrate", environment).returncode == 0
        done = run("sweeper run --json", environment)
        assert done.returncode == 0, done.stderr
        assert store.execute("SELECT id FROM chat.threads ORDER BY id") == [("kept",)]
        assert store.execute("SELECT rule, count(*) FROM sweeper.tombstones GROUP BY rule ORDER BY rule") == [
            ("deleted", 1),
            ("standard", 1),
        ]
        for child in ("posts", "files", "summaries"):
            assert store.execute(f"SELECT thread FROM chat.{child}") == [("kept",)]
    finally:
        stores.drop(server, name)


@dataclass(frozen=True)
class Life:
    """What became of the README's commands for manifests, in a directory of their own."""

    folder: Path
    environment: dict[str, str]
    left: set[str]
    done: dict[str, subprocess.CompletedProcess[str]] = field(default_factory=dict)

    def run(self, command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command in the directory, with the id of the manifest that was built here in place of the one shown."""
        path = self.folder / "manifest-2026-11" / "manifest.json"
        if path.exists():
            command = re.sub(r"\b[0-9a-f]{32}\b", json.loads(path.read_text())["id"], command)
        return run(command, {**self.environment, **variables}, self.folder)


@pytest.fixture(scope="module")
def life(
    tmp_path_factory: pytest.TempPathFactory, server: embedded.Server, templates: dict[str, str]
) -> Iterator[Life]:
    """The commands in turn, on a store of its own in which one account withdraws once the manifest is built."""
    store = stores.copy(server, templates["uuid"], "readme_manifests", "uuid")
    world = made.world()
    store.load(world)
    store.execute("UPDATE conversations SET created_at = now() - interval '2 days', last_activity_at = now()")
    store.execute("UPDATE messages SET created_at = now() - interval '1 day'")
    environment = {"SWEEPER_DATABASE_URL": store.url, "SWEEPER_POLICY_FILE": stores.POLICY}
    left = made.of(store, world) - made.of(store, world, "a2c1", "a2c2")
    found = Life(tmp_path_factory.mktemp("life"), environment, left)
    for command in commands(MANIFESTS):
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            environment[name] = value
            continue
        found.done[command.split()[2]] = found.run(command)
        if command.startswith("sweeper manifest build"):
            found.done["verify when built"] = found.run(command.replace("build", "verify"))
            made.withdraw(store, "a2", datetime.now(UTC).isoformat())
    yield found
    store.close()
    stores.drop(server, "readme_manifests")


def test_manifest_commands(life: Life) -> None:
    """The manifest's commands do what is said of them, with the exit codes that are said."""
    codes = {command: done.returncode for command, done in life.done.items()}
    assert codes.pop(next(iter(codes))) == 0  # the key
    wanted = {"build": 0, "verify when built": 0, "start": 0, "complete": 0, "list": 0, "verify": 1, "recall": 0}
    assert codes == wanted, {command: done.stderr for command, done in life.done.items()}
    shape = re.compile(r"\w*\d\w*")
    assert shape.sub("N", life.done["start"].stdout).split() == shape.sub("N", STARTED).split()
    (life.folder / "other.key").write_text("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
    verify = next(command for command in commands(MANIFESTS) if " verify " in command)
    assert life.run(verify, SWEEPER_PSEUDONYM_KEY_FILE="other.key").returncode == 2


@pytest.mark.parametrize("number", range(3), ids=["pyarrow", "duckdb", "datasets"])
def test_snippets(life: Life, number: int) -> None:
    """Each snippet reads what may be used, run where the manifest is, without a net."""
    snippets = blocks("python", MANIFESTS)
    assert len(snippets) == len(IDS)
    done = subprocess.run(
        [sys.executable, "-c", f"{snippets[number]}\nimport json\nprint(json.dumps({IDS[number]}))"],
        cwd=life.folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(life.folder / "hf")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    ids = json.loads(done.stdout)
    assert (set(ids), len(ids)) == (life.left, 16)


def test_recall_without_the_directory(life: Life) -> None:
    """Recall exits with 1 where a manifest's directory is gone."""
    (life.folder / "manifest-2026-11").rename(life.folder / "elsewhere")
    try:
        assert life.run("sweeper manifest recall").returncode == 1
    finally:
        (life.folder / "elsewhere").rename(life.folder / "manifest-2026-11")


(STARTED,) = blocks("text", MANIFESTS)
IDS = (
    'usable["message_id"].to_pylist()',
    '[row[0] for row in usable.select("message_id").fetchall()]',
    '[row["message_id"] for row in usable]',
)
"""How the ids are had from what each snippet calls usable."""


def test_what_is_said_of_manifests(store: Store, tmp_path: Path) -> None:
    """The extras exist, the line for the policy is one that it takes, and text leaves as it is said to."""
    (extras,) = re.findall(r"pip install '\.\[([\w,]+)\]'", MANIFESTS)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.split(",")) <= set(known)
    (line,) = re.findall(r"`(resumed = .*?)`", MANIFESTS)
    shipped = Path(stores.POLICY).read_text()
    assert shipped.count('resumed = "from_opt_in"') == 1
    policy = policies.parse(shipped.replace('resumed = "from_opt_in"', line))
    assert policy.training is not None
    assert policy.training.resumed == "entire"
    store.load(made.world(accounts=1, conversations=1, messages=1))
    store.execute("UPDATE messages SET body = 'jane@example.com'")
    (placeholder,) = re.findall(r"\(`(\[\w+\])`\)", MANIFESTS)
    made.built(store, policy, tmp_path / "m", with_text=True)
    assert [row["text"] for row in made.rows(tmp_path / "m")] == [placeholder]


FOREIGN = """
CREATE SCHEMA chat;
CREATE TABLE chat.people (id text PRIMARY KEY, joined bigint, left_at bigint);
CREATE TABLE chat.subscriptions (id bigint PRIMARY KEY, person text, since bigint, plan text);
CREATE TABLE chat.choices (id bigint PRIMARY KEY, person text, agreed boolean, at bigint);
CREATE TABLE chat.threads (id text PRIMARY KEY, person text, temporary boolean, begun bigint, user_wrote bigint,
                           is_deleted boolean, updated bigint);
CREATE TABLE chat.posts (id text PRIMARY KEY, thread text REFERENCES chat.threads ON DELETE CASCADE, by_user boolean,
                         at bigint, words text);
CREATE TABLE chat.files (id text PRIMARY KEY, thread text REFERENCES chat.threads, location text);
CREATE TABLE chat.summaries (thread text, words text);
"""
ROWS = """
INSERT INTO chat.people VALUES ('p', 1577836800, NULL);
INSERT INTO chat.subscriptions VALUES (1, 'p', 1577836800, 'pro');
INSERT INTO chat.choices VALUES (1, 'p', true, 1756728000), (2, 'p', false, 1761998400), (3, 'p', true, 1764590400);
INSERT INTO chat.threads VALUES ('old', 'p', false, 1600000000, 1600000000, false, 1600000000),
                                ('deleted', 'p', false, 1767225600, 1767225600, true, 1767225700),
                                ('kept', 'p', false, 1767225600, 1767225600, false, 1767225600);
INSERT INTO chat.posts SELECT 'post of ' || id, id, true, begun, 'words' FROM chat.threads;
INSERT INTO chat.files SELECT 'file of ' || id, id, NULL FROM chat.threads;
INSERT INTO chat.summaries SELECT id, 'words' FROM chat.threads;
"""
