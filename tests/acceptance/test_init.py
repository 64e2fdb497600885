"""`init`: files for a known application, for sweeper's own tables, or drafted from tables that nobody knows."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from sweeper import applications, embedded
from sweeper.files import shipped
from tests.acceptance.commands import Done, in_process
from tests.store.stores import Store

FILES = {"store.sql", "sweeper.toml", "policy.toml", "roles.sql"}
UNKNOWN = """
CREATE SCHEMA chat;
CREATE TABLE chat.people (id text PRIMARY KEY, joined bigint, left_at bigint);
CREATE TABLE chat.sessions (id uuid PRIMARY KEY, person text REFERENCES chat.people, created_at timestamptz);
CREATE TABLE chat.threads (
    id text PRIMARY KEY, person text REFERENCES chat.people, begun bigint, "updatedAt" timestamp, is_deleted boolean
);
CREATE TABLE chat.posts (
    id bigserial PRIMARY KEY, thread text REFERENCES chat.threads ON DELETE CASCADE, role text, at bigint, words text
);
CREATE TABLE chat.summaries (id integer PRIMARY KEY, thread_id text);
CREATE TABLE chat.files (id integer PRIMARY KEY, thread_id text, url text);
INSERT INTO chat.people VALUES ('ada', 1600000000, NULL);
INSERT INTO chat.threads VALUES
    ('old', 'ada', 1600000000, '2021-01-01', false), ('new', 'ada', 1600000000, 'now', false),
    ('without', 'ada', 1600000000, NULL, false), ('unborn', 'ada', NULL, '2021-01-01', false),
    ('nobody', NULL, 1600000000, '2021-01-01', false);
INSERT INTO chat.posts (thread, role, at, words) SELECT id, 'user', 1600000000, 'hello' FROM chat.threads;
INSERT INTO chat.summaries VALUES (1, 'old'), (2, 'new');
"""


@pytest.fixture
def url(server: embedded.Server) -> Iterator[str]:
    """An empty database: its URL for libpq, as superuser."""
    name = sql.Identifier("unswept")
    admin = server.url().replace("+psycopg", "")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        yield server.url("unswept").replace("+psycopg", "")
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def initialised(directory: Path, *words: str, url: str = "") -> Done:
    """What `init` does on a database, or without one."""
    return in_process(None, "init", str(directory), *words, **({"SWEEPER_DATABASE_URL": url} if url else {}))


def read(directory: Path) -> dict[str, str]:
    """The files of a directory with their texts."""
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_list() -> None:
    """Every folder of sweeper/apps is listed, with the version that was tested."""
    listed = json.loads(in_process(None, "init", "--list", "--json").out)
    folders = {path.name for path in applications.FOLDER.iterdir()}
    assert {each["name"] for each in listed} == folders
    table = in_process(None, "init", "--list").out
    assert all(each["tested"] in table and each["title"] in table for each in listed)


@pytest.mark.parametrize("name", applications.names())
def test_files_of_an_application(tmp_path: Path, name: str) -> None:
    """Without a database the files of a known application are written as shipped, and the next commands are printed."""
    done = initialised(tmp_path / "config", "--app", name)
    assert (done.code, done.err) == (0, "")
    assert "no database was looked at" in done.out
    assert f"psql -v ON_ERROR_STOP=1 -f {tmp_path}/config/store.sql" in done.out
    assert f"sweeper run --dry-run --config {tmp_path}/config/sweeper.toml" in done.out
    written = read(tmp_path / "config")
    assert set(written) == FILES
    own = read(applications.FOLDER / name)
    assert {file: text for file, text in own.items() if file in FILES}.items() <= written.items()
    assert f"--app {name}" in own["page.md"]
    loaded = applications.load(name)
    assert all(f"    ('{table.relation}', '{table.key}'," in written["roles.sql"] for table in loaded.purged)
    assert bool(loaded.purged) != (written["roles.sql"] == shipped("roles.sql").read_text())


@pytest.mark.parametrize("name", applications.names())
def test_another_schema(name: str) -> None:
    """For tables in another schema than the usual one, every file names that schema, quoted where SQL needs it."""
    application = applications.load(name)
    usual, files = application.files(application.schema_name), application.files("Other")
    home = f"{application.schema_name}."
    code = {file: re.sub(r"(--|#).*", "", text) for file, text in files.items()}
    assert not any(home in text for text in code.values())
    assert [text.count('"Other".') for text in (code["store.sql"], code["roles.sql"])] == [
        re.sub(r"--.*", "", usual[file]).count(home) for file in ("store.sql", "roles.sql")
    ]
    assert tomllib.loads(files["sweeper.toml"])["policy"] == {"file": "policy.toml"}
    assert files["policy.toml"] == usual["policy.toml"]


def test_reference_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an application and a database the files for sweeper's own tables are written to config/."""
    monkeypatch.chdir(tmp_path)
    done = in_process(None, "init", "--json")
    assert json.loads(done.out) == {
        "application": "reference",
        "directory": "config",
        "files": ["store.sql", "sweeper.toml", "policy.toml", "roles.sql"],
        "found": "no database was looked at, as SWEEPER_DATABASE_URL is not set: "
        "these are for sweeper's own tables (sweeper 0.1.0)",
        "next": [
            'psql -v ON_ERROR_STOP=1 -f config/store.sql "$SWEEPER_DATABASE_URL"',
            *("sweeper migrate", "sweeper check", "sweeper run --dry-run"),
        ],
    }


def test_known_tables_are_recognised(tmp_path: Path, url: str) -> None:
    """Tables in whatever schema are recognised; the files name that schema."""
    with psycopg.connect(url) as connection:
        text = (applications.FOLDER / "reference" / "store.sql").read_text()
        connection.execute(text.replace("store.", '"My Chats".').replace("SCHEMA store", 'SCHEMA "My Chats"').encode())
    done = initialised(tmp_path / "o", url=url)
    assert (done.code, done.err) == (0, "")
    assert "sweeper's own tables found in schema My Chats, in the shape of sweeper 0.1.0." in done.out
    assert "psql" not in done.out
    assert tomllib.loads(read(tmp_path / "o")["sweeper.toml"])["store"] == {"schema": "My Chats"}


def test_another_shape(tmp_path: Path, url: str) -> None:
    """Tables of a known application that lack something are refused by name, and nothing is written."""
    with psycopg.connect(url) as connection:
        connection.execute((applications.FOLDER / "reference" / "store.sql").read_text().encode())
        connection.execute("ALTER TABLE store.conversations DROP COLUMN flagged_at; DROP TABLE store.feedback")
    for words in ((), ("--app", "reference")):
        done = initialised(tmp_path / "o", *words, url=url)
        assert done.code == 2
        assert "column conversations.flagged_at is missing" in done.err
        assert "table feedback is missing" in done.err
        assert "Nothing was written" in done.err
        assert not (tmp_path / "o").exists()


def test_draft(tmp_path: Path, url: str) -> None:
    """An unknown store gets views that run as they are; what they do not find keeps the row."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(UNKNOWN)
        done = initialised(tmp_path, url=url)
        assert (done.code, done.err) == (0, "")
        assert "views were drafted from table chat.threads." in done.out
        written = read(tmp_path)
        views = written["store.sql"]
        for choice in (
            """t."person" AS account_id,  -- CHOOSE""",
            """to_timestamp(t."begun") AS created_at,  -- CHOOSE: when it was begun; if these are milliseconds""",
            """t."updatedAt" AT TIME ZONE 'UTC' AS last_activity_at,  -- CHOOSE""",
            """CASE WHEN t."is_deleted" THEN t."updatedAt" AT TIME ZONE 'UTC' END AS deleted_at,  -- CHOOSE""",
            """FROM "chat"."posts" t;  -- CHOOSE""",
        ):
            assert choice in views
        assert tomllib.loads(written["sweeper.toml"])["purge"] == {
            "table": "chat.threads",
            "key": "id",
            "children": [
                {"table": "chat.files", "key": "thread_id", "action": "delete"},
                {"table": "chat.summaries", "key": "thread_id", "action": "delete"},
            ],
        }
        for statement in re.split(r";(?: +--[^\n]*)?\n", views):
            connection.execute(statement.encode())
        config, policy = str(tmp_path / "sweeper.toml"), str(tmp_path / "policy.toml")
        variables = {"SWEEPER_DATABASE_URL": url, "SWEEPER_CONFIG": config, "SWEEPER_POLICY_FILE": policy}
        for command in ("migrate", "check", "run"):
            done = in_process(None, command, **variables)
            assert done.code == 0, done.out + done.err
        left = {row[0] for row in connection.execute("SELECT id FROM chat.threads")}
        assert left == {"new", "without", "unborn", "nobody"}
        assert connection.execute("SELECT count(*) FROM chat.summaries").fetchone() == (1,)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--app", "open-webuy"), "there is no application 'open-webuy'"),
        (("--app", "../apps/reference"), "there is no application '../apps/reference'"),
        (("--app", "draft"), "SWEEPER_DATABASE_URL is not set"),
    ],
)
def test_bad_input(tmp_path: Path, words: tuple[str, ...], found: str) -> None:
    """What cannot be written is refused with the reason, and no directory is made."""
    done = initialised(tmp_path / "o", *words)
    assert (done.code, done.out) == (2, "")
    assert found in done.err
    assert "Nothing was written" in done.err
    assert not (tmp_path / "o").exists()


def test_an_empty_database(tmp_path: Path, url: str) -> None:
    """A database without tables has nothing to draft from, and can have sweeper's own."""
    done = initialised(tmp_path, url=url)
    assert (done.code, done.out) == (2, "")
    assert "no table of the database looks like conversations" in done.err
    assert "reference" in done.err
    done = initialised(tmp_path, "--app", "reference", url=url)
    assert (done.code, "sweeper's own tables are not there yet" in done.out) == (0, True)


def test_nothing_is_overwritten(tmp_path: Path, store: Store) -> None:
    """A directory that holds anything is refused, and so is a file in its place."""
    (tmp_path / "mine").write_text("mine")
    for directory, why in ((tmp_path, "is not empty: it has mine"), (tmp_path / "mine", "Not a directory")):
        done = initialised(directory, url=store.url)
        assert (done.code, done.out) == (2, "")
        assert why in done.err
        assert "Nothing was written" in done.err
    assert read(tmp_path) == {"mine": "mine"}
