"""The settings: what is refused and how, what the environment overrides, and what the shipped file contains."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from sweeper.errors import ConfigurationError
from sweeper.settings import Settings, load, load_policy

CONFIG = Path(__file__).parents[2] / "config"
SHIPPED = (CONFIG / "sweeper.toml").read_text()


def refused(folder: Path, text: str, **environment: str) -> list[str]:
    """Return the error lines for an invalid settings file."""
    file = folder / "s.toml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        load(file, environment)
    first, *faults = str(caught.value).splitlines()
    assert first == f"settings {file}: nothing was done. Fix:"
    return [fault.removeprefix("  ") for fault in faults]


# The shipped file


def models(value: Any) -> Iterator[type[BaseModel]]:
    """Return the models that a key's type contains."""
    if isinstance(value, type) and issubclass(value, BaseModel):
        yield value
    for part in get_args(value):
        yield from models(part)


def settings_keys(model: type[BaseModel] = Settings, above: str = "") -> Iterator[tuple[str, str]]:
    """Every table of the settings and each of its keys."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        inner = list(models(field.annotation))
        for table in inner:
            yield from settings_keys(table, f"{above}.{key}".removeprefix("."))
        if not inner:
            yield above, key


def written(text: str) -> Iterator[tuple[str, str]]:
    """Return every table of a file with its keys, also those that are commented out."""
    table = ""
    for line in text.splitlines():
        if found := re.match(r"(?:# )?\[+([a-z_.]+)\]+(?:\s|$)", line):
            table = found[1]
        elif found := re.match(r"(?:# )?([a-z_]+) = ", line):
            yield table, found[1]


def test_shipped_file_says_the_defaults() -> None:
    """The values in config/sweeper.toml are the defaults."""
    assert Settings.model_validate(tomllib.loads(SHIPPED)) == Settings()


def test_shipped_file_mentions_every_setting() -> None:
    """config/sweeper.toml lists every setting exactly once."""
    assert sorted(written(SHIPPED)) == sorted(settings_keys())


def test_shipped_file_is_read_whole_without_its_comment_marks(tmp_path: Path) -> None:
    """Lines that are commented out in config/sweeper.toml are valid."""
    (tmp_path / "s.toml").write_text(re.sub(r"^# (?=\[|[a-z_]+ = )", "", SHIPPED, flags=re.MULTILINE))
    settings = load(tmp_path / "s.toml", {})
    assert settings.purge.table == "app.chats"
    assert [(child.table, child.key) for child in settings.purge.children] == [("app.summaries", "chat_id")]
    assert settings.purge.feedback is not None
    assert settings.database.url.startswith("postgresql://")


def test_lease_outlasts_a_statement() -> None:
    """By default no statement can run until the lease of its own run has ended."""
    assert (Settings().database.statement_timeout_ms, Settings().lease.seconds) == (15_000, 20.0)
    assert Settings().database.statement_timeout_ms < Settings().lease.seconds * 1_000


# Faults

FAULTS = {
    "unknown section": ("[stores]\nschema = 'x'", "stores: unknown key"),
    "unknown key": ("[store]\nscheme = 'x'", "store.scheme: unknown key"),
    "python's name for a key": ("[store]\nschema_name = 'x'", "store.schema_name: unknown key"),
    "unknown key of a child": (
        "[[purge.children]]\ntable = 't'\nkey = 'k'\ncolumn = 'c'",
        "purge.children[0].column: unknown key",
    ),
    "section is no table": ("store = 1", "store: must be a table"),
    "section is a list": ("[[purge]]\nbatch = 1", "purge: must be a table"),
    "child is no table": ("[purge]\nchildren = ['t']", "purge.children[0]: must be a table"),
    "children are no list": ("[purge.children]\ntable = 't'\nkey = 'k'", "purge.children: must be a list"),
    "child without a key": ("[[purge.children]]\ntable = 't'", "purge.children[0].key: is missing"),
    "child's table is no name": (
        "[[purge.children]]\ntable = 'a'\nkey = 'k'\n[[purge.children]]\ntable = 'a;b'\nkey = 'k'",
        "purge.children[1].table: must be a table, written table or schema.table",
    ),
    "feedback is no table": ("[purge]\nfeedback = 'app.ratings'", "purge.feedback: must be a table"),
    "schema is no name": ("[store]\nschema = 'a b'", "store.schema: must be a name"),
    "schema ends with a line": ('[store]\nschema = "a\\n"', "store.schema: must be a name"),
    "schema is empty": ("[store]\nschema = ''", "store.schema: must be a name"),
    "schema is a number": ("[store]\nschema = 5", "store.schema: must be a text"),
    "policy is a number": ("[policy]\nfile = 5", "policy.file: must be a text"),
    "prefixes are one text": ("[objects]\nprefixes = 's3://b/'", "objects.prefixes: must be a list"),
    "prefix is empty": ("[objects]\nprefixes = ['']", "objects.prefixes[0]: must not be empty"),
    "prefix has no scheme": ("[objects]\nprefixes = ['/srv/a']", "objects.prefixes[0]: has no scheme: write a bucket"),
    "prefix climbs": (
        "[objects]\nprefixes = ['s3://b', 'file:///a/../b']",
        "objects.prefixes[1]: climbs with `..`: write",
    ),
    "prefix is all files": (
        "[objects]\nprefixes = ['file:///']",
        "objects.prefixes[0]: names no place: write a bucket",
    ),
    "share is none": ("[guards]\nmax_share = 0.0", "guards.max_share: must be more than 0"),
    "share is more than all": ("[guards]\nmax_share = 1.5", "guards.max_share: must be at most 1"),
    "share is no number": ("[guards]\nmax_share = nan", "guards.max_share: must be a finite number"),
    "wait without end": ("[purge]\nlocked_wait_seconds = inf", "purge.locked_wait_seconds: must be a finite number"),
    "wait below zero": ("[purge]\nlocked_wait_seconds = -1", "purge.locked_wait_seconds: must be at least 0"),
    "count below zero": ("[guards]\nmax_count = -1", "guards.max_count: must be at least 0"),
    "no batch": ("[purge]\nbatch = 0", "purge.batch: must be at least 1"),
    "batch too large": ("[purge]\nbatch = 10001", "purge.batch: must be at most 10000"),
    "no statement timeout": (
        "[database]\nstatement_timeout_ms = 0",
        "database.statement_timeout_ms: must be at least 1",
    ),
    "no lock timeout": ("[database]\nlock_timeout_ms = 0", "database.lock_timeout_ms: must be at least 1"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str, tmp_path: Path) -> None:
    """An invalid value is refused with the path of its key."""
    text, said = FAULTS[name]
    [found] = refused(tmp_path, text)
    assert found.startswith(said)


def test_every_fault_at_once(tmp_path: Path) -> None:
    """One error lists all faults, one a line."""
    text = "[store]\nschema = 1\n[purge]\nbatch = 0\nkeys = 'id'\n[[purge.children]]\nkey = 'a;b'\n[guards]\nclock = 1"
    assert {line.partition(": ")[0] for line in refused(tmp_path, text)} == {
        *("store.schema", "purge.batch", "purge.keys", "purge.children[0].table", "purge.children[0].key"),
        "guards.clock",
    }


VALUES = [
    (section, key, value)
    for section, table in tomllib.loads(SHIPPED).items()
    for key, value in table.items()
    if isinstance(value, int | float)
]
OTHERS = {
    int: ("true", '"5"', "1.0", "[1]"),
    float: ("true", '"5"', "inf", "-inf", "nan"),
    bool: ("1", '"true"', "0.0"),
}


@pytest.mark.parametrize(("section", "key", "value"), VALUES)
def test_no_guessing_between_types(section: str, key: str, value: float, tmp_path: Path) -> None:
    """Types are not converted, and infinite numbers are refused."""
    for other in OTHERS[type(value)]:
        [found] = refused(tmp_path, f"[{section}]\n{key} = {other}")
        assert re.match(rf"{section}\.{key}: must be (a|true)", found)


@pytest.mark.parametrize(("section", "key", "value"), [each for each in VALUES if type(each[2]) is not bool])
def test_every_number_has_bounds(section: str, key: str, value: float, tmp_path: Path) -> None:
    """Every number has a lower and an upper bound."""
    assert "must be " in refused(tmp_path, f"[{section}]\n{key} = -1")[0]
    assert "must be at most " in refused(tmp_path, f"[{section}]\n{key} = 10000000000")[0]


def test_a_whole_number_for_a_fraction(tmp_path: Path) -> None:
    """A whole number is accepted for a fraction."""
    (tmp_path / "s.toml").write_text("[lease]\nseconds = 20\n[guards]\nmax_share = 1")
    settings = load(tmp_path / "s.toml", {})
    assert (settings.lease.seconds, settings.guards.max_share) == (20.0, 1.0)


# The environment and the policy file


def test_environment_wins(tmp_path: Path) -> None:
    """A variable that is set overrides the file, an empty one does not."""
    (tmp_path / "s.toml").write_text("[store]\nschema = 'one'")
    assert load(tmp_path / "s.toml", {"SWEEPER_STORE_SCHEMA": "other"}).store.schema_name == "other"
    assert (
        load(None, {"SWEEPER_CONFIG": str(tmp_path / "s.toml"), "SWEEPER_STORE_SCHEMA": ""}).store.schema_name == "one"
    )


def test_fault_of_the_environment(tmp_path: Path) -> None:
    """A fault of a variable names the variable beside the setting."""
    [found] = refused(tmp_path, "[store]\nschema = 'good'", SWEEPER_STORE_SCHEMA="a;b")
    assert found.startswith("store.schema: must be a name")
    assert found.endswith(" (from SWEEPER_STORE_SCHEMA)")


@pytest.mark.parametrize("environment", [{}, {"SWEEPER_POLICY_FILE": "rules/nowhere.toml"}])
def test_unreadable_policy(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names an unreadable policy file by its absolute path."""
    monkeypatch.chdir(tmp_path)
    Path("conf").mkdir()
    Path("conf/s.toml").write_text("[policy]\nfile = 'nowhere.toml'")
    settings = load(Path("conf/s.toml"), environment)
    there = tmp_path / environment.get("SWEEPER_POLICY_FILE", "conf/nowhere.toml")
    with pytest.raises(ConfigurationError) as caught:
        load_policy(settings)
    assert str(caught.value) == (
        f"policy {there}: cannot be read (No such file or directory). Nothing was done. Name the file in [policy] file or in "
        "SWEEPER_POLICY_FILE, or write the shipped one with `sweeper init`. Settings come from --config, from SWEEPER_CONFIG "
        "or from config/sweeper.toml in this directory."
    )


def test_unreadable_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names an unreadable settings file by its absolute path."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=re.escape(f"settings {tmp_path / 'nowhere.toml'}: cannot be read")):
        load(Path("nowhere.toml"), {})


def test_faulty_policy(tmp_path: Path) -> None:
    """Every fault of a policy file is listed with its path; the message says that nothing was purged."""
    file = tmp_path / "p.toml"
    file.write_text((CONFIG / "policy.toml").read_text().replace('"2 years"', '"2 yrs"'))
    with pytest.raises(ConfigurationError) as caught:
        load_policy(load(CONFIG / "sweeper.toml", {"SWEEPER_POLICY_FILE": str(file)}))
    first, *faults = str(caught.value).splitlines()
    assert first == f"policy {file}: nothing was decided or purged. Fix:"
    assert [fault.partition(": ")[0].strip() for fault in faults] == [
        "rules[5] (partner).due[0].period",
        "floors[0] (flagged).period",
    ]


def test_prefixes_are_canonical() -> None:
    """Prefixes get one canonical form; the variable holds a list like the file."""
    written = '["S3A://bucket", "file:///srv//a b/./c/"]'
    found = load(None, {"SWEEPER_OBJECT_PREFIXES": written, "SWEEPER_CONFIG": str(CONFIG / "sweeper.toml")})
    assert found.objects.prefixes == ("s3://bucket/", "file:///srv/a b/c/")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("s3://bucket/", "objects.prefixes: must be a list (from SWEEPER_OBJECT_PREFIXES)"),
        ("['s3://bucket/'", "objects.prefixes: must be a list (from SWEEPER_OBJECT_PREFIXES)"),
        ("['s3://']", "objects.prefixes[0]: names no place"),
    ],
)
def test_prefixes_of_the_environment_are_refused(written: str, said: str, tmp_path: Path) -> None:
    """Invalid prefixes in the variable are refused, and the message names the variable."""
    [found] = refused(tmp_path, "", SWEEPER_OBJECT_PREFIXES=written)
    assert found.startswith(said)
    assert found.endswith("(from SWEEPER_OBJECT_PREFIXES)")
