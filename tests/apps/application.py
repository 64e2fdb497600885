"""An application as its users have it: its own package in an environment of its own, its database, and the sweeper on it.

Invariant: nothing of an application's code is here. A driver in `drivers/` runs in the application's environment, makes the
schema, writes and reads rows through the application's own code, and prints JSON.
"""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

from sweeper import embedded
from tests.acceptance.commands import Done, in_process
from tests.store.stores import Store, administered

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
ENVIRONMENTS = ROOT / "build" / "apps"
VERSIONS = tomllib.loads((FOLDER / "versions.toml").read_text())


def environment(name: str) -> Path:
    """The Python of an application's environment, which is made when it is missing or its versions have changed."""
    home = ENVIRONMENTS / name
    wanted = json.dumps([VERSIONS["date"], VERSIONS[name]])
    made = home / "versions.json"
    if not made.is_file() or made.read_text() != wanted:
        _uv("venv", "--clear", "--python", sys.executable, home)
        for key, options in (("requirements", ()), ("alone", ("--no-deps",))):
            if requirements := VERSIONS[name].get(key, []):
                _uv(
                    *("pip", "install", "--python", home / "bin" / "python", "--exclude-newer", VERSIONS["date"]),
                    *(*options, *requirements),
                )
        made.write_text(wanted)
    return home / "bin" / "python"


def _uv(*words: str | Path) -> None:
    done = subprocess.run([Path(sys.executable).with_name("uv"), "--quiet", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Application:
    """An application with a database on one server; `folder` is where `sweeper init` writes."""

    name: str
    server: embedded.Server
    store: Store
    folder: Path

    def drive(self, *words: str) -> Any:
        """What the application's driver prints for words such as `write` and `read`."""
        driver = FOLDER / "drivers" / f"{self.name}.py"
        done = subprocess.run(
            [environment(self.name), "-P", "-W", "ignore", driver, words[0], self.store.libpq, *words[1:]],
            cwd=self.folder.parent,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def init(self, edit: Callable[[str], str] = str) -> None:
        """Let `sweeper init` recognise the application, change store.sql as a person does, run it, and migrate.

        The job gets the role of roles.sql, and no more than that.
        """
        done = in_process(
            None, "init", str(self.folder), "--json", SWEEPER_DATABASE_URL=self.store.acting("postgres").url
        )
        assert done.code == 0, done
        assert json.loads(done.out)["application"] == self.name
        views = self.folder / "store.sql"
        views.write_text(edit(views.read_text()))
        self.run_sql(views)
        assert self.sweeper("migrate").code == 0
        self.run_sql(self.folder / "roles.sql")

    def run_sql(self, file: Path) -> None:
        """Run a file as the page says."""
        done = subprocess.run(
            [self.server.programs / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", file, self.store.libpq],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    def execute(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement, as the superuser."""
        with psycopg.connect(self.store.libpq, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """Every row of every table of the application."""
        tables = self.execute(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind = 'r' AND n.nspname !~ '^pg_|^(information_schema|store|sweeper)$'"
        )
        return {table: [row for [row] in self.execute(f"SELECT to_jsonb(t) FROM {table} t")] for [table] in tables}

    def sweeper(self, *words: str) -> Done:
        """A command of the sweeper with the settings of the folder."""
        return in_process(
            self.store,
            *words,
            SWEEPER_CONFIG=str(self.folder / "sweeper.toml"),
            SWEEPER_POLICY_FILE=str(self.folder / "policy.toml"),
        )

    def answer(self, *words: str) -> Any:
        """What a command that succeeds prints with --json."""
        done = self.sweeper(*words, "--json")
        assert done.code == 0, done
        return json.loads(done.out)

    @property
    def superuser(self) -> "Application":
        """The same application, for a superuser's commands."""
        return replace(self, store=self.store.acting("postgres"))

    @property
    def in_doubt(self) -> set[str]:
        """The conversations that are kept because something about them is in doubt."""
        done = self.sweeper("explain", "--all", "--json")
        assert done.code == 0, done
        verdicts = map(json.loads, done.out.splitlines())
        return {verdict["conversation_id"] for verdict in verdicts if verdict["rule"] == "unclassified"}

    def swept(self) -> "Swept":
        """Check the store as the job and as a superuser, who also tries a marked conversation; preview a run, and run."""
        findings = self.answer("check") + self.superuser.answer("check")
        preview, before = self.answer("run", "--dry-run"), self.rows()
        return Swept(self, findings, preview, self.answer("run"), before, self.rows())


@dataclass(frozen=True)
class Swept:
    """An application after a run: what each command printed, and all rows before the run and after it."""

    application: Application
    findings: list[dict[str, Any]]
    preview: dict[str, Any]
    result: dict[str, Any]
    before: dict[str, list[dict[str, Any]]]
    after: dict[str, list[dict[str, Any]]]

    @property
    def complaints(self) -> list[str]:
        """What `check` finds fault with or warns of, beside the signing key, which no test has."""
        levels = [(found["level"], found["subject"], found["text"]) for found in self.findings]
        return [f"{subject}: {text}" for level, subject, text in levels if level != "ok" and subject != "signing key"]

    @property
    def canary(self) -> str:
        """What became of the marked conversation that `check` made and purged as a superuser."""
        *_, text = (found["text"] for found in self.findings if found["subject"] == "canary")
        return str(text)

    @property
    def gone(self) -> dict[str, list[dict[str, Any]]]:
        """The rows that the run deleted or changed, as they were, by table."""
        gone = {table: [row for row in rows if row not in self.after[table]] for table, rows in self.before.items()}
        return {table: rows for table, rows in gone.items() if rows}

    @property
    def changed(self) -> dict[str, list[dict[str, Any]]]:
        """The rows that the run changed, as they are now, by table."""
        changed = {table: [row for row in rows if row not in self.before[table]] for table, rows in self.after.items()}
        return {table: rows for table, rows in changed.items() if rows}

    @property
    def tombstones(self) -> dict[str, dict[str, int]]:
        """What each tombstone counts, by conversation."""
        rows = self.application.execute("SELECT conversation_id, children FROM sweeper.tombstones")
        found = {id_: dict(children) for id_, children in rows}
        assert len(found) == len(rows), "a conversation has two tombstones"
        return found

    def runs_again(self) -> None:
        """A second run purges nothing and changes nothing. It exits with 1 where all that it finds is skipped."""
        before = self.application.rows()
        assert json.loads(self.application.sweeper("run", "--json").out)["purged"] == 0
        assert self.application.rows() == before


def create(server: embedded.Server, name: str, folder: Path) -> Application:
    """An application with an empty database."""
    database = f"app_{name.replace('-', '_')}_{folder.name.replace('-', '_')}"
    with administered(server) as connection:
        connection.execute(f'CREATE DATABASE "{database}"')
    return Application(name, server, Store(server.url(database), "text").acting("sweeper"), folder / "config")
