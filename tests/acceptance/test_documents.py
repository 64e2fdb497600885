"""Every command, statement, setting and snippet that the README and the pages of docs/ show is tried here.

A page's `console` commands are typed as they are printed, one after the other, each page in a directory of its own and on a store
with the conversations of the demo. What cannot be typed here (make, pip, kubectl, …) is named in ELSEWHERE; any other command
that is not the program's fails the test.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import yaml
from psycopg.sql import Identifier

from docs import generate
from sweeper import embedded
from sweeper.daemon.job_metrics import JobMetrics
from sweeper.daemon.jobs import JobOutcome
from sweeper.demo import world as worlds
from sweeper.policy import schema as policies
from sweeper.policy.anomaly import Anomaly
from sweeper.policy.decide import Doubt
from sweeper.policy.evaluate import Outcome, Spared
from sweeper.policy.training import Exclusion
from sweeper.postgres.load_probe import Pressure
from sweeper.report import metrics
from sweeper.runs.throttle import StopReason
from sweeper.settings import Settings
from sweeper.uri import KeptObject
from tests import processes
from tests.acceptance.commands import Command, in_process
from tests.deploy import commands as parser
from tests.manifest import made
from tests.store import stores
from tests.store.stores import Store

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md")), ROOT / "deploy" / "README.md")
}
README, TABLES, MANIFESTS = (PAGES[name] for name in ("README.md", "docs/tables.md", "docs/manifests.md"))
ELSEWHERE = ("make ", ". ", "uv ", "pip ", "pipx ", "kubectl ", "journalctl ", "systemctl ", "sweeper serve")
"""What these commands begin with is not typed here: the tests below, those of deploy/ or nobody tries them."""
SHELL = ("openssl ", "(umask ", "cp ")
"""What a shell does for the commands that follow."""
DEMO = "make demo KEEP="
"""What leaves a store that the demo has swept."""
DATABASE = "export SWEEPER_DATABASE_URL="
"""What a reader tells of the database, here that of the test."""


def blocks(language: str, text: str) -> list[str]:
    """The code blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def commands(text: str) -> list[str]:
    """The commands that a page tells to type."""
    return [
        line.removeprefix("$ ")
        for block in blocks("console", text)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


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


class Reader:
    """Types the commands of a page, in this process, and fails the test where one does not end with exit code 0."""

    def __init__(self, sweeper: Command, folder: Path) -> None:
        self.sweeper, self.folder = sweeper, folder
        self.variables: dict[str, str] = {}

    def type(self, command: str) -> None:
        """Type one command as the page shows it."""
        if command.startswith(DEMO):
            assert self.sweeper("run").code == 0
        if command.startswith((*ELSEWHERE, DATABASE)):
            return
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self.variables[name] = value
            return
        if command.startswith(SHELL):
            done = run(command, {}, self.folder)
            assert done.returncode == 0, done.stderr
            return
        program, *words = shlex.split(command)
        assert program == "sweeper", f"{command}: neither the program's nor named in ELSEWHERE"
        self._use(words)

    def _use(self, words: list[str]) -> None:
        words, file = (words[:-2], words[-1]) if ">" in words else (words, None)
        done = self.sweeper(*words, **self.variables)
        assert done.code == 0, (words, done.out, done.err)
        if file:
            (self.folder / file).write_text(done.out)


OLD = "2024-05-05T00:00:00Z"


@pytest.fixture
def overdue(store: Store) -> Store:
    """A store with conversations that are long overdue."""
    account = {
        "id": "a1",
        "plans": [{"effective_at": "-infinity", "plan": "free"}],
        "consent": [{"recorded_at": "2025-09-01T00:00:00Z", "granted": False}],
    }
    old = {"account": "a1", "created_at": OLD, "last_activity_at": OLD, "messages": []}
    chats = [{**old, "id": f"c{number}"} for number in range(4)]
    store.load({"accounts": [account], "conversations": chats, "holds": [], "orders": []})
    return store


@pytest.fixture(scope="module")
def demo(
    server: embedded.Server, templates: stores.Templates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The name of a database with the demo's world, before its sweep."""
    store = stores.copy(server, templates["uuid"], "demo", "uuid")
    world = worlds.build(1, datetime.now(UTC), tmp_path_factory.mktemp("objects"))
    with store.connect() as connection, connection.transaction():
        for relation, columns in worlds.COLUMNS.items():
            worlds.copy(connection, Identifier("store", relation), columns, getattr(world, relation))
    store.close()
    yield "demo"
    stores.drop(server, "demo")


@pytest.fixture
def demonstrated(server: embedded.Server, demo: str) -> Iterator[Store]:
    """A copy of that database for one page."""
    name = f"{demo}_of_a_page"
    store = stores.copy(server, demo, name, "uuid")
    yield store
    store.close()
    stores.drop(server, name)


SHOWN = {page: commands(text) for page, text in PAGES.items() if text is not MANIFESTS}
KEPT, PURGED = "0015fcfe-b44c-5c99-afa9-7f30a196cac5", "039b45ef-67a4-5d95-920d-32ebed8cf6e7"
"""The conversations of the demo that the pages and the help name."""
ACCOUNT = "06164d11-6113-5000-b6a7-99f977e937e4"
PURGES = re.compile(rf"{re.escape(DEMO)}|sweeper run\b(?!.*--dry-run)")


@pytest.mark.parametrize("page", [page for page, shown in SHOWN.items() if "$ sweeper" in PAGES[page]])
def test_page(page: str, demonstrated: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of a page, typed as printed from its beginning to its end, do what they are shown for."""
    monkeypatch.chdir(tmp_path)
    reader = Reader(partial(in_process, demonstrated), tmp_path)
    for command in SHOWN[page]:
        reader.type(command)
    left = demonstrated.left()
    assert demonstrated.execute("SELECT account_id::text FROM conversations WHERE id = %s", KEPT) == [(ACCOUNT,)]
    assert (PURGED in left) != any(PURGES.match(command) for command in SHOWN[page])


def test_ids_are_of_the_demo() -> None:
    """No page and no help names a record that the demo does not have."""
    texts = [*PAGES.values(), *(path.read_text() for path in (ROOT / "sweeper" / "cli").glob("*.py"))]
    named = {found for text in texts for found in re.findall(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", text)}
    assert named == {KEPT, PURGED, ACCOUNT}


def test_pages_show_what_matters() -> None:
    """The README and the pages show the daily work, so the tests above are not empty."""
    shown = {" ".join(command.split()[:3]) for text in PAGES.values() for command in commands(text)}
    for command in ("init", "migrate", "check", "run --dry-run", "status", "serve", "hold place", "audit verify"):
        assert any(each.startswith(f"sweeper {command}") for each in shown), command
    assert [command for command in commands(README) if command.startswith("make")] == [
        "make demo KEEP=/tmp/sweeper-demo",
        "make test",
    ]
    assert len(README.splitlines()) <= 130


def test_serve(overdue: Store, tmp_path: Path) -> None:
    """The daemon makes up for the night that was missed and ends in order when asked to."""
    overdue.execute(
        "INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, started_at, finished_at, outcome) "
        "SELECT 'store', at, '', %s, 0, at, at, 'completed' FROM (SELECT now() - interval '3 days') AS last (at)",
        stores.DIGEST,
    )
    (serve,) = (command for command in commands(PAGES["docs/running.md"]) if command.startswith("sweeper serve"))
    (tmp_path / "sweeper.toml").write_text(f'[policy]\nfile = "{stores.POLICY}"\n[serve]\nlisten = "127.0.0.1:0"\n')
    environment = {"SWEEPER_DATABASE_URL": overdue.url, "SWEEPER_CONFIG": str(tmp_path / "sweeper.toml")}
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    variables = {**os.environ, "PATH": path, **environment}
    with processes.started([*serve.split(), "--json"], cwd=tmp_path, env=variables, stderr=None) as process:
        assert process.stdout is not None
        jobs = map(json.loads, process.stdout)  # a line per finished job; none comes once the daemon has ended
        assert next(job for job in jobs if job["job"] == "sweep")["outcome"] == "completed"
        assert not overdue.left()
        process.terminate()
        assert process.wait() == 0


@pytest.mark.parametrize("page", PAGES)
def test_named_files_exist(page: str) -> None:
    """Every file that a page links to, names or installs exists, and so does each function in the module it is said to be in."""
    text = PAGES[page]
    folder = (ROOT / page).parent
    links = [target.partition("#")[0] for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text)]
    assert [target for target in links if target and not (folder / target).exists()] == []
    named = re.findall(r"(?<![\w/.-])((?:config|deploy|docs|sweeper|tests)/[\w./-]*\w)", text)
    named += [
        name for name in re.findall(r"`((?:\w+/)*\w+\.(?:py|sql))`", text) if name not in ("roles.sql", "store.sql")
    ]
    roots = (ROOT, folder, ROOT / "sweeper", ROOT / "sweeper" / "postgres")
    created = {"config/sweeper.toml"}  # also what `sweeper init` writes in the reader's directory
    assert [name for name in named if name not in created and not any((root / name).exists() for root in roots)] == []
    for name, module in re.findall(r"`(\w+)` in\s+`(sweeper/[\w/]+\.py)`", text):
        assert re.search(rf"^(?:def|class) {name}\b|^{name}\b.* = ", (ROOT / module).read_text(), re.MULTILINE), (
            name,
            module,
        )


def test_everything_is_explained() -> None:
    """Each guard, alert and variable is in the page where somebody would look for it; nothing else is."""
    night, settings = PAGES["docs/bad-night.md"], PAGES["docs/settings.md"]
    sources = "".join(path.read_text() for path in (ROOT / "sweeper").rglob("*.py"))
    guards = set(re.findall(r"RefusedError\(\s*\"(\w+)\"", sources))
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \|", night.partition("## By refusal")[2].partition("\n## ")[0], re.MULTILINE
    )
    assert guards == {name for row in rows for name in re.findall(r"\w+", row)}
    alerts = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yml").read_text())["groups"]
    assert {rule["alert"] for group in alerts for rule in group["rules"]} == set(
        re.findall(r"^\| `(Sweeper\w+)`", night, re.MULTILINE)
    )
    assert set(parser.known_names()) == set(re.findall(r"`(SWEEPER_\w+)` \|", settings)) | {"SWEEPER_CONFIG"}


def _kinds() -> Iterator[tuple[str, str]]:
    """Every reason code of the program, with the kind under which the page lists it."""
    kinds: dict[str, Iterable[str]] = {
        "outcome": Outcome,
        "skipped": Spared,
        "anomaly": Anomaly,
        "in doubt": Doubt,
        "left out": Exclusion,
        "ended": {*metrics.OUTCOMES, *JobOutcome},
        "stopped": StopReason,
        "waits": Pressure,
        "object": KeptObject,
    }
    for kind, codes in kinds.items():
        yield from ((kind, str(code)) for code in codes)


def test_codes_and_metrics_are_explained() -> None:
    """The page on codes has a row for each reason code and each metric, with what to do; it has no other."""
    page = PAGES["docs/codes.md"]
    rows = re.findall(r"^\| ([\w ]+) \| `(\w+)` \| \S.*\. \| \S.*\. \|$", page, re.MULTILINE)
    assert sorted(rows) == sorted(_kinds())
    described = JobMetrics().text({}).decode()
    names = [row.name for row in metrics.TABLE]
    names += [name.removesuffix("_total") for name in re.findall(r"^# HELP (\w+)", described, re.MULTILINE)]
    assert sorted(re.findall(r"^\| `(sweeper_\w+)` \| \S.*\. \| \S.*\. \|$", page, re.MULTILINE)) == sorted(names)


def test_reference_is_complete() -> None:
    """Every key, option and command of the generated reference has a description, and its examples are accepted."""
    for name, generated in generate.GENERATED.items():
        text = "\n".join(generated())
        assert re.findall(r"^\|.*\|  \|$", text, re.MULTILINE) == [], name
        examples = re.findall(r"^\$ sweeper (.+)$", text, re.MULTILINE)
        assert (len(examples) > 25) == (name == "commands")
        assert [(line, why) for line in examples if (why := parser.refusal(shlex.split(line)))] == []
    filled = generate.on_page_markdown("<!-- generated: settings -->\n")
    assert "| `lock_timeout_ms` | whole number, 1 to 60000 | `200` |" in filled
    assert "## [[purge.children]]" in filled


def test_policy_example() -> None:
    """The rules that the page on the policy file writes can be added to the shipped policy, and the settings are accepted."""
    rule, redacting, settings = blocks("toml", PAGES["docs/policy.md"])
    policy = policies.parse(Path(stores.POLICY).read_text() + rule + redacting)
    assert policy.columns("account") == ("history_enabled", "retention_days")
    assert policy.redacting is not None
    assert Settings.model_validate(tomllib.loads(settings)).purge.redact
    shipped = policies.parse(Path(stores.POLICY).read_text())
    rows = set(
        re.findall(r"^\| `(\w+)`(?: \(floor\))? \|", PAGES["docs/policy.md"].partition("## Writing")[0], re.MULTILINE)
    )
    assert rows == {*shipped.by_name, *(floor.name for floor in shipped.floors), "erasure_order"}


def test_kept_where_the_name_says() -> None:
    """`make demo KEEP=DIR` hands over the directory as it is written, spaces and quotes included."""
    made = f"make --no-print-directory -n -o {shlex.quote(sys.prefix)}/.installed demo VENV={shlex.quote(sys.prefix)}"
    planned = run(f'{made} KEEP="a b\'c"', {})
    assert shlex.split(planned.stdout)[1:] == ["demo", "--keep", "a b'c"]


def test_activated(tmp_path: Path) -> None:
    """What the README says after `make demo` puts `sweeper` on the path."""
    command = next(command for command in commands(README) if command.startswith(". "))
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
    for command in commands(PAGES["docs/quick-start.md"]):
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
        example = TABLES.partition("## What is deleted")[0]
        for script in (FOREIGN, *blocks("sql", example), ROWS):
            with store.connect() as connection:
                connection.execute(script)
        (tmp_path / "sweeper.toml").write_text("".join(blocks("toml", example)))
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
        store.close()
        stores.drop(server, name)


def test_manifests(store: Store, sweeper: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands for manifests do what is said of them, and each snippet reads what may be used after a withdrawal."""
    monkeypatch.chdir(tmp_path)
    world = made.world()
    store.load(world)
    store.grant_text()
    store.execute("UPDATE conversations SET created_at = now() - interval '2 days', last_activity_at = now()")
    store.execute("UPDATE messages SET created_at = now() - interval '1 day'")
    reader, folder, done = Reader(sweeper, tmp_path), tmp_path / "manifest-2026-11", {}
    for command in commands(MANIFESTS):
        if not command.startswith("sweeper"):
            reader.type(command)
            continue
        _, group, verb, *words = shlex.split(command)
        done[verb] = sweeper(group, verb, *words, **reader.variables)
        if verb == "build":
            done["verify when built"] = sweeper(group, "verify", *words, **reader.variables)
            made.withdraw(store, "a2", datetime.now(UTC).isoformat())
    wanted = {"build": 0, "verify when built": 0, "show": 0, "start": 0, "export": 0, "complete": 0, "list": 0}
    wanted |= {"verify": 1, "recall": 0}
    assert {verb: each.code for verb, each in done.items()} == wanted, done
    shape, (shown,) = re.compile(r"\w*\d\w*"), blocks("text", MANIFESTS)
    assert shape.sub("N", done["start"].out).split() == shape.sub("N", shown).split()
    (tmp_path / "other.key").write_text("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")
    verify = ("manifest", "verify", folder.name)
    assert sweeper(*verify, **reader.variables | {"SWEEPER_PSEUDONYM_KEY_FILE": "other.key"}).code == 2
    usable = made.of(store, world) - made.of(store, world, "a2c1", "a2c2")
    for ids in _read_by_snippets(tmp_path):
        assert (set(ids), len(ids)) == (usable, 16)
    folder.rename(tmp_path / "elsewhere")
    assert sweeper("manifest", "recall", **reader.variables).code == 1


IDS = (
    'usable["message_id"].to_pylist()',
    '[row[0] for row in usable.select("message_id").fetchall()]',
    '[row["message_id"] for row in usable]',
    'usable["message_id"].to_list()',
    'usable["message_id"].to_list()',
    'joined.filter(pl.col("content") == "secret words")["message_id"].to_list()',
)
"""How to get the ids from what each snippet makes."""


def _read_by_snippets(folder: Path) -> list[list[str]]:
    """Run the page's snippets where the manifest is, without a net; returns the ids that each reads."""
    snippets = blocks("python", MANIFESTS)
    program = "".join(f"{text}\nprint(json.dumps({ids}))\n" for text, ids in zip(snippets, IDS, strict=True))
    done = subprocess.run(
        [sys.executable, "-c", f"import json\n{program}"],
        cwd=folder,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hf")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


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
