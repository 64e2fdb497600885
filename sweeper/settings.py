"""How the job runs: one TOML file, overridden by the environment. The rules are in the policy file, not here."""

import ipaddress
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

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


def _prefix(text: str) -> str:
    """Validate a prefix and return its canonical form."""
    try:
        return f"{uri.parse_prefix(text).text}/"
    except uri.UriError as error:
        raise ValueError(
            f"{uri.WORDS[error.kept]}: write a bucket or a directory as attachments name it, "
            'for instance "s3://bucket/" or "file:///srv/attachments/"'
        ) from None


Prefix = Annotated[str, Field(min_length=1), AfterValidator(_prefix)]


def _without_nul(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("must be a file name without a NUL character")
    return path


Place = Annotated[Path, AfterValidator(_without_nul)]


class Section(BaseModel):
    """A table of the settings file. Unknown keys and values of another type are refused; instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class DatabaseSettings(Section):
    """Where PostgreSQL is, and how long the job waits for it."""

    url: str = ""
    """Connection URL, for instance `postgresql://sweeper@db.example/app`. Set it in the environment rather than here:
    it may contain a password."""
    lock_timeout_ms: Annotated[Positive, Field(le=60_000)] = 200
    """How long one attempt waits for a row lock, in milliseconds. Keep it below the server's `deadlock_timeout`, so
    that the job gives up before the application does."""
    statement_timeout_ms: Annotated[Positive, Field(le=3_600_000)] = 15_000
    """The longest that any statement of a run may take, in milliseconds. Keep it below `[lease] seconds`."""
    attempts: Annotated[Positive, Field(le=100)] = 5
    """How often a transaction is tried when it fails for a transient reason, such as a deadlock or a serialization
    failure."""
    outage_seconds: Annotated[Number, Field(ge=0, le=3_600)] = 60.0
    """How long the job waits for a server that restarts or fails over, in seconds, before it fails."""


class StoreSettings(Section):
    """Where the application's data is."""

    schema_name: Identifier = Field(default="store", alias="schema")
    """The schema that holds the seven relations of the store contract, tables or views."""


class PolicyFile(Section):
    """Which policy applies."""

    file: Place = Path("policy.toml")
    """The policy file. A relative path is resolved against the directory of the settings file."""


Key = Annotated[
    str,
    matching(
        r"[^;\x00]{1,500}", "must be a column, or an SQL expression of at most 500 characters without a semicolon"
    ),
]


def is_column(key: str) -> bool:
    """Return True if a key is the name of a column, and no expression."""
    return re.fullmatch(_IDENTIFIER, key) is not None


class ChildSettings(Section):
    """A table whose rows belong to a conversation although no foreign key says so."""

    table: Table
    """The table, as `table` or `schema.table`."""
    key: Key
    """The column that holds the key of the conversation, or an SQL expression over the table's columns that gives it, for
    instance `"meta->>'chat_id'"`. An expression needs an index."""
    action: Literal["delete", "set_null", "redact"] = "delete"
    """What happens to the rows when their conversation is purged: they are deleted (`delete`), their `key` becomes NULL
    (`set_null`), or the `columns` become NULL (`redact`)."""
    columns: tuple[Identifier, ...] = ()
    """The columns that `redact` sets to NULL."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.action == "set_null" and not is_column(self.key):
            raise ValueError('with action = "set_null", key must be a column: an expression cannot be set to NULL')
        if (self.action == "redact") != bool(self.columns):
            raise ValueError('columns must be named with action = "redact", and only with it')
        return self


class TableSettings(Section):
    """A physical table behind a view."""

    table: Table
    """The table, as `table` or `schema.table`."""
    key: Identifier = "id"
    """Its key column."""


class SharedSettings(TableSettings):
    """A table whose rows several conversations may name."""

    unless: Key | None = None
    """An SQL condition over the table's columns. A row for which it is not false stays, for instance because a JSON document
    names it, which no foreign key declares."""


class RedactSettings(Section):
    """Columns that hold content. A rule with `action = "redact"` empties them when it is due."""

    table: Table
    """The table of the conversations, or one whose rows belong to a conversation by a column of theirs."""
    columns: Annotated[tuple[Identifier, ...], Field(min_length=1)]
    """The columns that become NULL, or the value of `values`. No key, and no column that decides: one that a view of
    the store or a rule reads."""
    values: dict[Identifier, str] = Field(default_factory=dict)
    """What a column gets instead of NULL, as text of its type, for instance `{ messages = "{}" }`."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if unknown := sorted(self.values.keys() - set(self.columns)):
            raise ValueError(f"values names {unknown[0]!r}, which is not among columns: write it there, too")
        return self


class PurgeSettings(Section):
    """Which tables are locked and deleted from, and how much at a time."""

    table: Table | None = None
    """The physical table behind the relation `conversations`, if that is a view. Unset: the relation itself."""
    key: Key = "id"
    """The key column of that table, or an SQL expression over its columns, for a key of several columns. An expression needs
    an index."""
    many_rows: StrictBool = False
    """Several rows of that table have the same key and are one conversation: all of them are locked, counted and deleted, or
    none is."""
    children: tuple[ChildSettings, ...] = ()
    """Further tables whose rows belong to a conversation, where no foreign key declares it."""
    shared: tuple[SharedSettings, ...] = ()
    """Tables whose rows several conversations may name, such as files: a row is deleted with the last row that refers to it by
    a foreign key."""
    redact: tuple[RedactSettings, ...] = ()
    """What the rules with `action = "redact"` empty."""
    feedback: TableSettings | None = None
    """The physical table behind the relation `feedback`, if that is a view. Unset: the relation itself."""
    batch: Annotated[Positive, Field(le=10_000)] = 500
    """The largest number of conversations in one transaction."""
    batch_children: Annotated[Positive, Field(le=1_000_000)] = 20_000
    """The largest number of child rows (messages, attachments, …) in one transaction. A conversation that has more is
    deleted alone."""
    locked_wait_seconds: Annotated[Number, Field(ge=0, le=3_600)] = 10.0
    """How long a run waits at its end for rows that other sessions hold locked, in seconds."""


class GuardSettings(Section):
    """Limits beyond which a run refuses and purges nothing. Each refusal says how to proceed."""

    max_share: Annotated[Number, Field(gt=0, le=1)] = 0.20
    """A run refuses if more than this share of all conversations is due, and also more than `max_count`."""
    max_count: Annotated[Whole, Field(ge=0, le=1_000_000_000)] = 1_000
    """A run refuses if more than this number is due in it or was purged within `window_hours`, and also more than
    `max_share`."""
    window_hours: Annotated[Positive, Field(le=8_760)] = 24
    """How far back earlier purges count towards these two limits, in hours."""
    clock_tolerance_seconds: Annotated[Positive, Field(le=86_400)] = 300
    """How far the clock of this machine and the clock of the database may differ, in seconds."""
    future_as_of: StrictBool = True
    """Refuse an as-of in the future."""
    earlier_as_of: StrictBool = True
    """Refuse an as-of earlier than that of the last completed run, or outside the policy's plausible range."""
    clock: StrictBool = True
    """Refuse if the two clocks differ by more than `clock_tolerance_seconds`."""
    volume: StrictBool = True
    """Refuse if more is due than `max_share` and `max_count` allow."""
    history: StrictBool = True
    """Refuse if the plan or consent history is empty, or has fewer rows than the last completed run saw."""
    fence: StrictBool = True
    """Refuse if the trigger on `sweeper.legal_holds` is missing, because a hold placed by SQL could then be missed."""
    policy: Literal["any", "shortening", "off"] = "any"
    """Refuse a policy other than that of the last run, until a person accepts it with `--accept-policy`. `any`: every change;
    `shortening`: unless it can be seen from the two policies that it only lengthens; `off`: none."""

    @classmethod
    def switches(cls) -> dict[str, str]:
        """Return each guard that can be switched off, with what it refuses."""
        found = {
            name: field.description or "" for name, field in cls.model_fields.items() if field.default in ("any", True)
        }
        return {name: text.removeprefix("Refuse ").partition(". ")[0].rstrip(".") for name, text in found.items()}

    @property
    def off(self) -> dict[str, str]:
        """The guards that are off, with what runs therefore do not refuse."""
        return {name: text for name, text in self.switches().items() if getattr(self, name) in ("off", False)}

    @classmethod
    def line(cls, guard: str) -> str:
        """Return the line of the settings file that switches a guard on."""
        default = cls.model_fields[guard].default
        return f"{guard} = true" if default is True else f'{guard} = "{default}"'


class LeaseSettings(Section):
    """The lease that keeps two runs of one store apart."""

    seconds: Annotated[Number, Field(ge=1, le=3_600)] = 20.0
    """How long a lease lasts unless it is renewed, in seconds: so long a run that died keeps the next one waiting."""


class MaintenanceSettings(Section):
    """What a run does at its end for the tables that it purged from."""

    vacuum: StrictBool = False
    """VACUUM (ANALYZE) those that have more than `dead_rows` and `dead_share` dead rows, after the run or backfill has
    ended. Only tables that the role may vacuum; never VACUUM FULL."""
    dead_rows: Annotated[Whole, Field(ge=0, le=1_000_000_000)] = 1_000
    """A table with no more dead rows than this is not vacuumed, nor reported by `status`."""
    dead_share: Annotated[Number, Field(ge=0, le=1)] = 0.2
    """A table with no more dead rows than this share of all its rows is not vacuumed, nor reported by `status`."""
    backup_days: Annotated[Whole, Field(ge=0, le=100_000)] | None = None
    """How many days backups of the database are kept; 0: there are none. `check` and `report` say how long purged content can be
    restored from them. Unset: not known."""


class ObjectSettings(Section):
    """Removal of the objects that attachments name."""

    prefixes: tuple[Prefix, ...] = ()
    """Objects are removed only below these, for instance `["s3://bucket/", "file:///srv/attachments/"]`. Empty: nothing
    is removed and all objects stay pending."""
    per_run: Annotated[Positive, Field(le=1_000_000)] = 1_000_000
    """The largest number of objects that one run tries to remove."""
    budget_seconds: Annotated[Number, Field(ge=0, le=86_400)] = 600.0
    """How long one run removes objects, in seconds; later runs remove the others. 0: no limit."""
    parallel: Annotated[Positive, Field(le=64)] = 8
    """How many objects are removed at the same time where one request cannot remove many. From S3, one removes 1,000."""
    grace_seconds: Annotated[Number, Field(ge=0, le=2_592_000)] = 0.0
    """How long to wait after the run that purged the attachment, in seconds. Set it if the application reuses objects
    for new attachments."""


def _url(text: str) -> str:
    """Validate the URL of a copy: what was purged is told over TLS, or on this machine."""
    try:
        found = urlsplit(text)
        found.port  # noqa: B018 — raises if it is no port
    except ValueError as error:
        raise ValueError(f"is not a URL ({error})") from None
    if found.username is not None or found.password is not None:
        raise ValueError("must have no user and no password: put them into headers_file")
    if found.scheme != "https" and not (found.scheme == "http" and _is_loopback(found.hostname or "")):
        raise ValueError("must be https://host/path; http:// is for this machine only (127.0.0.1, ::1, localhost)")
    if not found.hostname or re.search(r"[^!-~]", text):
        raise ValueError("must be https://host/path, in ASCII without blanks")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _body(text: str) -> str:
    """Validate the JSON that a copy's URL gets instead of JSON lines."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("must be JSON") from None
    if '"$record_ids"' not in text:
        raise ValueError('must have the text "$record_ids" where the list of ids belongs')
    return text


Word = Annotated[str, matching(r"[^\x00]+", "must be a text that is not empty, without a NUL character")]


class CopySettings(Section):
    """A copy of the data elsewhere, such as vectors or a search index, which is told what was purged.

    It has either a `command` or a `url`: see [Copies elsewhere](copies.md).
    """

    name: Annotated[str, matching(r"[a-z][a-z0-9_]{0,62}", "must be a name: a-z, 0-9 and _, beginning with a letter")]
    """Its name in the database, the numbers and the log. Another name is another copy, which is told everything from the first
    purge on."""
    command: tuple[Word, ...] = ()
    """A program and its arguments, started without a shell and without the variables `SWEEPER_*`. It reads a JSON object a line
    from its standard input, deletes what they name, and exits with 0. Its output is not kept."""
    url: Annotated[str, AfterValidator(_url)] | None = None
    """An HTTPS URL that gets the same lines as a POST and answers with 2xx. No redirection is followed."""
    body: Annotated[str, AfterValidator(_body)] | None = None
    """What `url` gets instead: JSON in which the text `"$record_ids"` stands for the list of the ids."""
    secret_file: Place | None = None
    """The secret that signs the POST. The variable `SWEEPER_COPY_SECRET_` and the name in capitals can hold the secret itself.
    Required with `url`, except with `body`."""
    headers_file: Place | None = None
    """Further headers of the POST, such as an API key, as lines `Name: value`."""
    records: Annotated[tuple[Literal["conversation", "redaction", "feedback"], ...], Field(min_length=1)] = (
        "conversation",
    )
    """The kinds of purged records that it is told; `redaction`: conversations whose content was redacted. A feedback row and a
    conversation may have the same id: with several kinds, the copy must look at `record`."""
    not_found_is_success: StrictBool = False
    """Whether the answer 404 means that nothing is left, rather than that the address is wrong."""
    batch: Annotated[Positive, Field(le=10_000)] = 1_000
    """The largest number of records in one delivery."""
    per_run: Annotated[Positive, Field(le=10_000_000)] = 100_000
    """The largest number of records that are delivered after one run, or by one job or command."""
    seconds: Annotated[Number, Field(gt=0, le=86_400)] = 60.0
    """After so many seconds no further attempt begins; the next run continues."""
    timeout_seconds: Annotated[Number, Field(gt=0, le=3_600)] = 30.0
    """The longest that one attempt may take, in seconds."""
    attempts: Annotated[Positive, Field(le=100)] = 3
    """How often a delivery is tried before it is left to the next run."""
    backoff_seconds: Annotated[Number, Field(ge=0, le=60)] = 1.0
    """How long to wait before the second attempt, in seconds; the wait doubles with each further one, up to 60 s."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if bool(self.command) == bool(self.url):
            raise ValueError("must have either command or url, and not both")
        if self.command and (self.body or self.secret_file or self.headers_file or self.not_found_is_success):
            raise ValueError(
                "body, secret_file, headers_file and not_found_is_success go with url, and not with command"
            )
        if self.body and len(set(self.records)) > 1:
            raise ValueError('records must be one kind with body: "$record_ids" does not say which kind an id is of')
        return self


class ManifestSettings(Section):
    """Training manifests."""

    statement_timeout_ms: Annotated[Positive, Field(le=86_400_000)] = 3_600_000
    """The longest that a statement may take that reads the whole store, for a manifest, a report or a forecast, in
    milliseconds."""
    validation_percent: Annotated[Number, Field(ge=0, le=50)] = 5.0
    """The share of accounts whose messages are for validation, in percent. Another share moves people between splits."""
    test_percent: Annotated[Number, Field(ge=0, le=50)] = 5.0
    """The share of accounts whose messages are for the test, in percent. The other accounts are for training."""


Cron = Annotated[str, Field(max_length=200)]


class PaceSettings(Section):
    """How fast batches follow one another, and when they wait. A limit of 0 is not checked."""

    target_batch_ms: Annotated[Positive, Field(le=10_000)] = 250
    """Batches grow and shrink towards this duration in milliseconds, up to `[purge] batch`."""
    look_seconds: Annotated[Number, Field(ge=0, le=60)] = 1.0
    """How often a run reads the load of the server, in seconds."""
    longest_pause_seconds: Annotated[Number, Field(ge=0, le=86_400)] = 300.0
    """How long a run waits for the load to fall, in seconds, before it stops and says why."""
    replica_lag_seconds: Annotated[Number, Field(ge=0, le=86_400)] = 30.0
    """Wait while a replica is further behind than this, in seconds."""
    replica_lag_mb: Annotated[Number, Field(ge=0, le=1_000_000)] = 256.0
    """Wait while a replica is further behind than this, in MB of WAL."""
    wal_mb_per_second: Annotated[Number, Field(ge=0, le=1_000_000)] = 0.0
    """Wait while the server writes more WAL than this, in MB a second."""
    blocked_queries: Annotated[Whole, Field(ge=0, le=100_000)] = 5
    """Wait while more sessions of this database than this have waited for a lock for a second."""
    autovacuum: StrictBool = False
    """Wait while a VACUUM works on a table that rows are purged from."""


class BackfillSettings(Section):
    """Defaults of `sweeper backfill`. The options `--rate` and `--between` take precedence."""

    per_second: Annotated[Number, Field(ge=0, le=1_000_000)] = 0.0
    """The largest number of conversations purged a second. 0: as many as `[pace]` allows."""
    between: str = ""
    """The hours in which to purge, for instance `"01:00-05:00"`, in `[schedule] zone`. Empty: always."""


class ScheduleSettings(Section):
    """When `sweeper serve` runs which job: cron expressions, including `@daily` and the like. Empty: never."""

    zone: str = "UTC"
    """The time zone of the expressions."""
    sweep: Cron = "17 2 * * *"
    """Purge what is due."""
    report: Cron = "47 3 * * *"
    """Count everything in the store."""
    checkpoint: Cron = "7 * * * *"
    """Take a checkpoint of the evidence."""
    copies: Cron = "37 * * * *"
    """Tell the copies of `[[copies]]` what was purged, if they are not told at the end of the run."""
    export: Cron = ""
    """Write the ledger to `export_file`. `sweeper reapply` needs it after a restore: copy it elsewhere."""
    manifest: Cron = ""
    """Build a training manifest in `manifest_directory`."""
    recall: Cron = ""
    """Write what has left the manifests to `recall_directory`."""
    export_file: Place = Path("ledger.jsonl")
    """Where `export` writes. A relative path is resolved against the directory in which `serve` was started."""
    manifest_directory: Place = Path("manifests")
    """Where `manifest` puts manifests, each in a directory named after its as-of."""
    recall_directory: Place = Path("recalls")
    """Where `recall` writes."""
    misfire_grace_seconds: Annotated[Positive, Field(le=86_400)] = 3_600
    """A job that could not start for longer than this, in seconds, is reported as missed and made up for once."""


class ServeSettings(Section):
    """The HTTP endpoint of `sweeper serve`: `/healthz`, `/readyz` and `/metrics`."""

    listen: str = "127.0.0.1:9464"
    """Address and port."""
    numbers_seconds: Annotated[Positive, Field(le=86_400)] = 300
    """`/metrics` counts overdue records again if the last count is older than this, in seconds."""


Origin = Annotated[
    str, matching(r"[!-*,-~]{0,200}", "must be a name of ASCII without blanks and without +, at most 200")
]


class EvidenceSettings(Section):
    """How checkpoints of the evidence are signed."""

    signing_key_file: Place | None = None
    """The Ed25519 private key in PEM. The variable `SWEEPER_SIGNING_KEY` can hold the key itself instead."""
    origin: Origin = ""
    """The name of the log in checkpoints. Empty: `sweeper/` and the identity of the store."""


class Settings(Section):
    """All settings of the job."""

    database: DatabaseSettings = DatabaseSettings()
    store: StoreSettings = StoreSettings()
    policy: PolicyFile = PolicyFile()
    purge: PurgeSettings = PurgeSettings()
    guards: GuardSettings = GuardSettings()
    lease: LeaseSettings = LeaseSettings()
    maintenance: MaintenanceSettings = MaintenanceSettings()
    objects: ObjectSettings = ObjectSettings()
    copies: tuple[CopySettings, ...] = ()
    manifest: ManifestSettings = ManifestSettings()
    pace: PaceSettings = PaceSettings()
    backfill: BackfillSettings = BackfillSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    serve: ServeSettings = ServeSettings()
    evidence: EvidenceSettings = EvidenceSettings()

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [copy.name for copy in self.copies]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"[[copies]] name {twice[0]!r} is there twice: each copy needs a name of its own")
        return self


ENVIRONMENT = {
    "SWEEPER_DATABASE_URL": ("database", "url"),
    "SWEEPER_STORE_SCHEMA": ("store", "schema"),
    "SWEEPER_POLICY_FILE": ("policy", "file"),
    "SWEEPER_SIGNING_KEY_FILE": ("evidence", "signing_key_file"),
    "SWEEPER_OBJECT_PREFIXES": ("objects", "prefixes"),
}


def load(file: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Load the settings from `file` (or SWEEPER_CONFIG, or config/sweeper.toml if it is there), overridden by the environment.

    Raises:
        ConfigurationError: a file that was named is missing or unreadable, or a value is wrong; every fault is listed.
    """
    named = file or (Path(environment["SWEEPER_CONFIG"]) if environment.get("SWEEPER_CONFIG") else None)
    path = named or (DEFAULT_FILE if DEFAULT_FILE.is_file() else None)
    text = _read(path) if path else ""
    raw = _parse(path, text) if path else {}
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
        faults = (f"  {fault.line(raw)}{_origin(fault, environment)}" for fault in faults_of(error, Settings, text))
        raise ConfigurationError(f"settings {path or 'of the environment'}: nothing was done. Fix:", *faults) from None


def load_policy(settings: Settings) -> policies.Policy:
    """Load the policy that the settings name.

    Raises:
        ConfigurationError: the file is missing, unreadable or faulty; every fault is listed with its key.
    """
    return read_policy(
        settings.policy.file,
        "Name the file in [policy] file or in SWEEPER_POLICY_FILE, or write the shipped one with `sweeper init`. Settings come "
        "from --config, from SWEEPER_CONFIG or from config/sweeper.toml in this directory.",
    )


def read_policy(file: Path, remedy: str = "Name a policy file.") -> policies.Policy:
    """Return the policy of a file; `remedy` is what to do if there is none.

    Raises:
        ConfigurationError: the file is missing, unreadable or faulty; every fault is listed with its key.
    """
    path = file.absolute()
    try:
        return policies.parse(files.read_text(path))
    except UnreadableError as error:
        raise ConfigurationError(f"policy {path}: cannot be read ({error}). Nothing was done. {remedy}") from None
    except policies.PolicyError as error:
        faults = (f"  {line}" for line in str(error).split("\n"))
        raise ConfigurationError(f"policy {path}: nothing was decided or purged. Fix:", *faults) from None


def _value(text: str) -> object:
    """Return the value of a variable: a list if it is in TOML syntax, otherwise the text itself."""
    try:
        return toml.parse(f"value = {text}")["value"] if text.startswith("[") else text
    except TomlError:
        return text


def _origin(fault: InputFault, environment: Mapping[str, str]) -> str:
    """Return which environment variable a value comes from that is not in the file."""
    variables = [name for name, key in ENVIRONMENT.items() if key == fault.loc[:2] and environment.get(name)]
    return f" (from {variables[0]})" if variables else ""


def _resolve_policy(raw: dict[str, Any], folder: Path) -> None:
    section = raw.setdefault("policy", {})
    if isinstance(section, dict) and isinstance(section.setdefault("file", "policy.toml"), str):
        section["file"] = str(folder / section["file"])


def _read(path: Path) -> str:
    try:
        return files.read_text(path)
    except UnreadableError as error:
        raise ConfigurationError(
            f"settings {path.absolute()}: cannot be read ({error}). Nothing was done. "
            "Name another file with --config or in SWEEPER_CONFIG, or write the shipped one with `sweeper init`."
        ) from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return toml.parse(text)
    except TomlError as error:
        raise ConfigurationError(f"settings {path}: not TOML ({error}). Nothing was done. Fix the file.") from None
