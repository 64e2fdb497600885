"""How the job runs: one TOML file, overridden by the environment. The rules are in the policy file, not here."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, ValidationError

from sweeper import files, toml, uri
from sweeper.errors import ConfigurationError
from sweeper.files import UnreadableError
from sweeper.policy import schema as policies
from sweeper.toml import InputFault, TomlError, faults_of, matching

DEFAULT_FILE = Path("config/sweeper.toml")
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_$]{0,62}"
Identifier = Annotated[
    str, matching(_IDENTIFIER, "must be a name: letters, digits, _ and $, beginning with no digit, at most 63")
]
Table = Annotated[str, matching(rf"{_IDENTIFIER}(\.{_IDENTIFIER})?", "must be a table, written table or schema.table")]
Whole = Annotated[int, Field(strict=True)]
Positive = Annotated[Whole, Field(ge=1)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]


def _place(text: str) -> str:
    """Validate a prefix and return its canonical form."""
    try:
        return f"{uri.parse_prefix(text).text}/"
    except uri.UriError as error:
        raise ValueError(
            f"{uri.WORDS[error.kept]}: write a bucket or a directory as attachments name it, "
            'for instance "s3://bucket/" or "file:///srv/attachments/"'
        ) from None


Prefix = Annotated[str, Field(min_length=1), AfterValidator(_place)]


def _nameable(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("must be a file name without a NUL character")
    return path


Place = Annotated[Path, AfterValidator(_nameable)]


class Section(BaseModel):
    """A table of the file: no unknown key, no guessing between types, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatabaseSettings(Section):
    """Where PostgreSQL is, and how long a statement may wait. Times in milliseconds."""

    url: str = ""
    lock_timeout_ms: Annotated[Positive, Field(le=60_000)] = 200
    statement_timeout_ms: Annotated[Positive, Field(le=3_600_000)] = 15_000
    attempts: Annotated[Positive, Field(le=100)] = 5
    outage_seconds: Annotated[Number, Field(ge=0, le=3_600)] = 60.0


class StoreSettings(Section):
    """The schema that holds the seven relations of the store contract."""

    schema_name: Identifier = Field(default="store", alias="schema")


class PolicyFile(Section):
    """Which policy file holds the rules; a relative path is read from beside the settings file."""

    file: Place = Path("policy.toml")


class ChildSettings(Section):
    """A table whose rows go with their conversation: `key` holds the conversation's key."""

    table: Table
    key: Identifier


class TableSettings(Section):
    """A physical table that rows are locked in and deleted from, and its key column."""

    table: Table
    key: Identifier = "id"


class PurgeSettings(Section):
    """What is locked and deleted, and in which portions. An empty table name means the contract relation itself."""

    table: Table | None = None
    key: Identifier = "id"
    children: tuple[ChildSettings, ...] = ()
    feedback: TableSettings | None = None
    batch: Annotated[Positive, Field(le=10_000)] = 500
    batch_children: Annotated[Positive, Field(le=1_000_000)] = 20_000
    locked_wait_seconds: Annotated[Number, Field(ge=0, le=3_600)] = 10.0


class GuardSettings(Section):
    """Limits beyond which nothing is purged without a way out being taken."""

    max_share: Annotated[Number, Field(gt=0, le=1)] = 0.20
    max_count: Annotated[Whole, Field(ge=0, le=1_000_000_000)] = 1_000
    window_hours: Annotated[Positive, Field(le=8_760)] = 24
    clock_tolerance_seconds: Annotated[Positive, Field(le=86_400)] = 300
    future_as_of: StrictBool = True
    earlier_as_of: StrictBool = True
    clock: StrictBool = True
    volume: StrictBool = True
    history: StrictBool = True
    fence: StrictBool = True


class LeaseSettings(Section):
    """How long a run that died keeps others out. By default longer than a statement: a run at work renews in time."""

    seconds: Annotated[Number, Field(ge=1, le=3_600)] = 20.0


class ObjectSettings(Section):
    """Objects behind attachment URIs: the prefixes below which they are removed (empty: none is), how many per run, and when."""

    prefixes: tuple[Prefix, ...] = ()
    per_run: Annotated[Positive, Field(le=1_000_000)] = 10_000
    grace_seconds: Annotated[Number, Field(ge=0, le=2_592_000)] = 0.0


class ManifestSettings(Section):
    """How training manifests are made. Time in milliseconds."""

    statement_timeout_ms: Annotated[Positive, Field(le=86_400_000)] = 3_600_000


Cron = Annotated[str, Field(max_length=200)]


class PaceSettings(Section):
    """How fast batches follow one another, and what they give way to. A limit of 0 is not looked at."""

    target_batch_ms: Annotated[Positive, Field(le=10_000)] = 250
    look_seconds: Annotated[Number, Field(ge=0, le=60)] = 1.0
    longest_pause_seconds: Annotated[Number, Field(ge=0, le=86_400)] = 300.0
    replica_lag_seconds: Annotated[Number, Field(ge=0, le=86_400)] = 30.0
    replica_lag_mb: Annotated[Number, Field(ge=0, le=1_000_000)] = 256.0
    wal_mb_per_second: Annotated[Number, Field(ge=0, le=1_000_000)] = 0.0
    blocked_queries: Annotated[Whole, Field(ge=0, le=100_000)] = 5
    autovacuum: StrictBool = False


class BackfillSettings(Section):
    """How a backfill goes about it; the command's options win. 0 and "" are no limit."""

    per_second: Annotated[Number, Field(ge=0, le=1_000_000)] = 0.0
    between: str = ""


class ScheduleSettings(Section):
    """When `serve` does what, as cron expressions in a zone; "" is never. Relative directories: from where it is started."""

    zone: str = "UTC"
    sweep: Cron = "17 2 * * *"
    report: Cron = "47 3 * * *"
    checkpoint: Cron = "7 * * * *"
    export: Cron = ""
    manifest: Cron = ""
    recall: Cron = ""
    export_file: Place = Path("ledger.jsonl")
    manifest_directory: Place = Path("manifests")
    recall_directory: Place = Path("recalls")
    misfire_grace_seconds: Annotated[Positive, Field(le=86_400)] = 3_600


class ServeSettings(Section):
    """Where `serve` answers, and how old the numbers may be that it answers with."""

    listen: str = "127.0.0.1:9464"
    numbers_seconds: Annotated[Positive, Field(le=86_400)] = 300


Origin = Annotated[
    str, matching(r"[!-*,-~]{0,200}", "must be a name of ASCII without blanks and without +, at most 200")
]


class EvidenceSettings(Section):
    """How evidence is signed: the key's file, and the name of the log where it is not to be the store's own."""

    signing_key_file: Place | None = None
    origin: Origin = ""


class Settings(Section):
    """All settings of the job."""

    database: DatabaseSettings = DatabaseSettings()
    store: StoreSettings = StoreSettings()
    policy: PolicyFile = PolicyFile()
    purge: PurgeSettings = PurgeSettings()
    guards: GuardSettings = GuardSettings()
    lease: LeaseSettings = LeaseSettings()
    objects: ObjectSettings = ObjectSettings()
    manifest: ManifestSettings = ManifestSettings()
    pace: PaceSettings = PaceSettings()
    backfill: BackfillSettings = BackfillSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    serve: ServeSettings = ServeSettings()
    evidence: EvidenceSettings = EvidenceSettings()


ENVIRONMENT = {
    "SWEEPER_DATABASE_URL": ("database", "url"),
    "SWEEPER_STORE_SCHEMA": ("store", "schema"),
    "SWEEPER_POLICY_FILE": ("policy", "file"),
    "SWEEPER_SIGNING_KEY_FILE": ("evidence", "signing_key_file"),
    "SWEEPER_OBJECT_PREFIXES": ("objects", "prefixes"),
}


def load(file: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings from `file` (or SWEEPER_CONFIG, or config/sweeper.toml if it is there), overridden by the environment.

    Raises:
        ConfigurationError: a file that was named is missing or unreadable, or a value is wrong; every fault is listed.
    """
    named = file or (Path(environment["SWEEPER_CONFIG"]) if environment.get("SWEEPER_CONFIG") else None)
    path = named or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    raw = _read(path) if path else {}
    folder = path.parent if path else DEFAULT_FILE.parent
    _resolve_policy(raw, folder)
    for variable, (section, key) in ENVIRONMENT.items():
        if environment.get(variable):
            section_table = raw.setdefault(section, {})
            if isinstance(section_table, dict):
                section_table[key] = _value(environment[variable])
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        faults = (f"  {fault.line(raw)}{_origin(fault, environment)}" for fault in faults_of(error))
        raise ConfigurationError(f"settings {path or 'of the environment'}: nothing was done. Mend:", *faults) from None


def load_policy(settings: Settings) -> policies.Policy:
    """The policy that the settings name.

    Raises:
        ConfigurationError: the file is missing, unreadable or faulty; every fault is listed with its key.
    """
    path = settings.policy.file.absolute()
    try:
        return policies.parse(files.read_text(path))
    except UnreadableError as error:
        raise ConfigurationError(
            f"policy {path}: cannot be read ({error}). Nothing was done. Name the file in [policy] file, "
            "or in SWEEPER_POLICY_FILE; settings are those of --config, of SWEEPER_CONFIG or of config/sweeper.toml from here."
        ) from None
    except policies.PolicyError as error:
        faults = (f"  {line}" for line in str(error).split("\n"))
        raise ConfigurationError(f"policy {path}: nothing was decided or purged. Mend:", *faults) from None


def _value(text: str) -> object:
    """The value of a variable: a list in TOML syntax, or the text itself."""
    try:
        return toml.parse(f"value = {text}")["value"] if text.startswith("[") else text
    except TomlError:
        return text


def _origin(fault: InputFault, environment: Mapping[str, str]) -> str:
    """Where a value comes from that the file does not hold."""
    variables = [name for name, key in ENVIRONMENT.items() if key == fault.loc[:2] and environment.get(name)]
    return f" (from {variables[0]})" if variables else ""


def _resolve_policy(raw: dict[str, Any], folder: Path) -> None:
    section = raw.setdefault("policy", {})
    if isinstance(section, dict) and isinstance(section.setdefault("file", "policy.toml"), str):
        section["file"] = str(folder / section["file"])


def _read(path: Path) -> dict[str, Any]:
    try:
        return toml.parse(files.read_text(path))
    except UnreadableError as error:
        raise ConfigurationError(
            f"settings {path.absolute()}: cannot be read ({error}). Nothing was done. "
            "Give --config FILE or SWEEPER_CONFIG."
        ) from None
    except TomlError as error:
        raise ConfigurationError(f"settings {path}: not TOML ({error}). Nothing was done. Mend the file.") from None
