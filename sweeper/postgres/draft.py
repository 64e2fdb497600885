"""Drafts views and settings for a store that no adapter knows, from the names and types of its tables.

Invariant: a draft decides nothing. What a person must choose is marked, and what was not found is NULL, which keeps the row.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sweeper.postgres.catalogue import CatalogueTable
from sweeper.postgres.statement import quoted

CHOOSE = "-- CHOOSE"
CONVERSATION = ("conversation", "chat", "thread", "dialog", "dialogue", "session")
MESSAGE = ("message", "post", "turn", "step", "utterance", "event", "entry")
FILE = ("attachment", "upload", "file", "document", "element", "asset")
ACCOUNT = ("account", "user", "person", "people", "member", "customer", "profile")
OWNER = ("account_id", "user_id", "owner_id", "person_id", "member_id", "customer_id", "author_id", "tenant_id")
OWNERS = (*OWNER, "account", "user", "owner", "person", "member", "customer", "created_by", "username")
CREATED = (
    *(
        "created_at",
        "created",
        "create_time",
        "created_on",
        "inserted_at",
        "started_at",
        "started",
        "begun_at",
        "begun",
    ),
    *("registered_at", "joined_at", "joined", "timestamp", "time", "at"),
)
ACTIVE = (
    *("last_activity_at", "last_message_at", "last_user_message_at", "last_active_at", "last_activity", "last_message"),
    *("updated_at", "update_time", "modified_at", "updated", "modified", "updated_on"),
)
CHANGED = ("updated_at", "update_time", "modified_at", "updated", "modified", "updated_on")
DELETED_AT = ("deleted_at", "deleted_on", "removed_at", "trashed_at", "delete_time")
DELETED = ("is_deleted", "deleted", "removed", "is_removed", "trashed")
CLOSED = ("closed_at", "deactivated_at", "left_at", *DELETED_AT)
AUTHOR = ("author", "role", "sender", "sender_type", "author_role", "type", "by")
BODY = ("body", "content", "text", "message", "words", "parts")
URI = ("uri", "url", "storage_uri", "storage_path", "path", "object_key", "key", "location")
"""Names of columns and tables, the likeliest first, as `_plain` writes them."""

INSTANTS = {
    "timestamp with time zone": "{}",
    "timestamp without time zone": "{} AT TIME ZONE 'UTC'",
    "date": "{}::timestamp AT TIME ZONE 'UTC'",
    "bigint": "to_timestamp({})",
    "integer": "to_timestamp({})",
    "numeric": "to_timestamp({})",
    "double precision": "to_timestamp({})",
    "text": "{}::timestamptz",
    "character varying": "{}::timestamptz",
}
"""How an instant is made of a column, by its type."""
HINTS = {
    "timestamp without time zone": "if these are not UTC, name their zone",
    "date": "a day begins at midnight UTC",
    "text": "a text that is no instant makes every run fail; no index can be used",
    "character varying": "a text that is no instant makes every run fail; no index can be used",
} | dict.fromkeys(("bigint", "integer", "numeric", "double precision"), "if these are milliseconds, divide by 1000.0")
NO_INDEX = frozenset({"text", "character varying"})

POLICY = """\
# Retention of this store: edit it. What a person must choose is marked.

format = 1
name = "thirty days"

[plausible]
from = 2015-01-01T00:00:00Z
before = 9999-01-01T00:00:00Z

[[rules]]
name = "deleted"
because = "the user deleted the conversation and has not restored it since"
when = { deleted = true }
due = [{ anchor = "deleted", period = "30 days" }]      # CHOOSE

[[rules]]
name = "inactive"
because = "the user has not written for 30 days"
due = [{ anchor = "last_activity", period = "30 days" }]  # CHOOSE
"""


@dataclass(frozen=True)
class Draft:
    """The tables of a store that look like conversations and what belongs to them."""

    tables: Sequence[CatalogueTable]
    root: CatalogueTable

    @cached_property
    def children(self) -> list[tuple[CatalogueTable, str]]:
        """The tables that name a conversation, each with the column, those with a foreign key first."""
        keyed = [
            (table, column) for table in self.tables for column, to in table.parents.items() if to == self.root.path
        ]
        known = {table.path for table, _ in keyed} | {self.root.path}
        return keyed + [
            (table, column)
            for table in self._beside()
            if table.path not in known
            for column in self._names_root(table)[:1]
        ]

    @property
    def keyless(self) -> list[tuple[CatalogueTable, str]]:
        """Those of them that name a conversation without a foreign key."""
        return [(table, column) for table, column in self.children if table.parents.get(column) != self.root.path]

    @cached_property
    def accounts(self) -> CatalogueTable | None:
        """The table of the accounts: what the owner's column refers to, or else one with such a name."""
        owner = _pick(self.root, OWNERS)
        to = self.root.parents.get(owner) if owner else None
        return next((table for table in self.tables if table.path == to), None) or _likeliest(self._beside(), ACCOUNT)

    def files(self) -> dict[str, str]:
        """Return store.sql, sweeper.toml and policy.toml."""
        return {"store.sql": "\n".join(self._store()) + "\n", "sweeper.toml": self._settings(), "policy.toml": POLICY}

    def _beside(self) -> list[CatalogueTable]:
        return [table for table in self.tables if table.schema == self.root.schema]

    def _names_root(self, table: CatalogueTable) -> list[str]:
        """Return the columns that name a conversation, by their name and type."""
        words = {f"{_words(self.root.name)[-1]}_id", *(f"{word}_id" for word in CONVERSATION)}
        type_ = self.root.columns[self._key]
        return [column for column, has in table.columns.items() if _plain(column) in words and has == type_]

    @property
    def _key(self) -> str:
        return self.root.key[0] if self.root.key else next(iter(self.root.columns))

    def _store(self) -> Iterator[str]:
        yield "-- A draft for the tables of this database. Go through every line that is marked, and remove the mark."
        yield "-- Until then do not purge. What was not found is NULL: a conversation without an owner or a time is kept."
        yield ""
        yield "BEGIN;"
        yield "CREATE SCHEMA IF NOT EXISTS store;"
        for relation, columns, source in self._relations():
            yield ""
            yield f"CREATE OR REPLACE VIEW store.{relation} AS SELECT"
            yield from _selected(columns)
            sql, _, choice = source.partition(f"  {CHOOSE}")
            yield f"{sql};" + (f"  {CHOOSE}{choice}" if choice else "")
        yield "COMMIT;"
        yield ""
        yield "-- What the nightly run searches by."
        yield from self._indexes()

    def _relations(self) -> Iterator[tuple[str, "Columns", str]]:
        yield "accounts", *self._accounts()
        yield (
            "plan_changes",
            {
                "id": ("1::bigint", ""),
                "account_id": ("a.id", ""),
                "effective_at": ("'-infinity'::timestamptz", ""),
                "plan": ("'everyone'", "the plan of the account, if the policy is to know plans"),
            },
            "FROM store.accounts a",
        )
        consent = {"id": "bigint", "account_id": "text", "purpose": "text", "granted": "boolean"}
        yield (
            "consent_events",
            _nothing({**consent, "recorded_at": "timestamptz", "effective_at": "timestamptz"}),
            f"WHERE false  {CHOOSE}: a table of consents, if people are asked",
        )
        yield (
            "conversations",
            self._conversations(),
            f"FROM {self.root.sql} t  {CHOOSE}: the table of the conversations",
        )
        yield "messages", *self._messages()
        yield "attachments", *self._attachments()
        feedback = {"id": "text", "account_id": "text", "conversation_id": "text", "kind": "text"}
        yield (
            "feedback",
            _nothing({**feedback, "submitted_at": "timestamptz", "rating": "integer", "transcript": "text"}),
            f"WHERE false  {CHOOSE}: a table of ratings with a retention of their own, if there is one",
        )

    def _accounts(self) -> tuple["Columns", str]:
        table = self.accounts
        if table is None:
            created = ("'-infinity'::timestamptz", "")
            columns = {"id": ("'everyone'::text", "one account owns everything"), "created_at": created}
            return {**columns, "closed_at": ("NULL::timestamptz", "")}, "WHERE true"
        return {
            "id": (
                f"t.{quoted(table.key[0] if table.key else next(iter(table.columns)))}",
                "what identifies an account",
            ),
            "created_at": _instant(table, CREATED, "when the account was made"),
            "closed_at": _instant(table, CLOSED, "when it was closed"),
        }, f"FROM {table.sql} t  {CHOOSE}: the table of the accounts"

    def _conversations(self) -> "Columns":
        owner = _pick(self.root, OWNERS)
        whose = (f"t.{quoted(owner)}" if owner else "NULL::text") if self.accounts else "'everyone'::text"
        return {
            "id": (
                f"t.{quoted(self._key)}",
                "what identifies a conversation; a key of several columns needs a function",
            ),
            "account_id": (whose, f"whose it is{_others(self.root, OWNERS, owner)}"),
            "kind": ("'chat'::text", ""),
            "platform": ("'first_party'::text", ""),
            "incognito": ("false", "whether it is temporary"),
            "zero_retention": ("false", "whether it should never have been stored"),
            "created_at": _instant(self.root, CREATED, "when it was begun"),
            "last_activity_at": _instant(self.root, ACTIVE, "when the user last wrote; a later time keeps longer"),
            "deleted_at": self._deleted(),
            "restored_at": ("NULL::timestamptz", ""),
            "flagged_at": ("NULL::timestamptz", ""),
        }

    def _deleted(self) -> tuple[str, str]:
        flag = _pick(self.root, DELETED)
        if _pick(self.root, DELETED_AT) or flag is None or self.root.columns[flag] != "boolean":
            return _instant(self.root, DELETED_AT, "when the user deleted it; NULL if not")
        when, _ = _instant(self.root, CHANGED, "")
        return f"CASE WHEN t.{quoted(flag)} THEN {when} END", "when the user deleted it; a later time keeps longer"

    def _messages(self) -> tuple["Columns", str]:
        found = self._child(MESSAGE)
        if found is None:
            types = {
                "id": "text",
                "conversation_id": "text",
                "author": "text",
                "created_at": "timestamptz",
                "body": "text",
            }
            return _nothing(types), f"WHERE false  {CHOOSE}: the table of the messages"
        table, column = found
        author, body = _pick(table, AUTHOR), _pick(table, BODY)
        return {
            "id": (f"t.{quoted(table.key[0])}" if table.key else "NULL::text", "what identifies a message"),
            "conversation_id": (f"t.{quoted(column)}", "the conversation it belongs to"),
            "author": (
                f"t.{quoted(author)}::text" if author else "'user'::text",
                "must be 'user' for what the user wrote, 'assistant' otherwise",
            ),
            "created_at": _instant(table, CREATED, "when it was written"),
            "body": (f"t.{quoted(body)}::text" if body else "NULL::text", "its text, for training manifests only"),
        }, f"FROM {table.sql} t  {CHOOSE}: the table of the messages"

    def _attachments(self) -> tuple["Columns", str]:
        found = self._child(FILE)
        uri = _pick(found[0], URI) if found else None
        if found is None or uri is None:
            types = {"id": "text", "conversation_id": "text", "uri": "text"}
            return _nothing(types), f"WHERE false  {CHOOSE}: the table of uploaded files"
        table, column = found
        return {
            "id": (f"t.{quoted(table.key[0])}" if table.key else "NULL::text", ""),
            "conversation_id": (f"t.{quoted(column)}", "the conversation it belongs to"),
            "uri": (f"t.{quoted(uri)}::text", "where the object is, such as s3://bucket/name; [objects] removes it"),
        }, f"FROM {table.sql} t  {CHOOSE}: the table of uploaded files"

    def _child(self, words: Sequence[str]) -> tuple[CatalogueTable, str] | None:
        table = _likeliest([table for table, _ in self.children], words)
        return next((child for child in self.children if child[0] == table), None) if table else None

    def _indexes(self) -> Iterator[str]:
        owner, active = _pick(self.root, OWNERS), _pick(self.root, ACTIVE) or _pick(self.root, CREATED)
        if active and self.root.columns[active] not in NO_INDEX:
            when, _ = _instant(self.root, (_plain(active),), "")
            columns = ", ".join([*([quoted(owner)] if owner else []), f"({when.replace('t.', '', 1)})"])
            yield f"CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_activity ON {self.root.sql} ({columns});  {CHOOSE}"
        for number, (table, column) in enumerate(self.children, 1):
            index = f"CREATE INDEX CONCURRENTLY IF NOT EXISTS sweeper_child_{number} ON {table.sql} ({quoted(column)});"
            yield f"{index}  {CHOOSE}: unless it has one"

    def _settings(self) -> str:
        lines = [
            "# Where the conversations are. What a person must choose is marked; every other setting has its default.",
            "",
            "[policy]",
            'file = "policy.toml"',
            "",
            "[purge]",
            f'table = "{self.root.schema}.{self.root.name}"  # CHOOSE: the table of the conversations',
            f'key = "{self._key}"  # CHOOSE: what identifies a conversation',
        ]
        for table, column in self.keyless:
            lines += [
                "",
                "[[purge.children]]  # CHOOSE: it has no foreign key; do its rows go with the conversation?",
                f'table = "{table.schema}.{table.name}"',
                f'key = "{column}"',
                'action = "delete"  # CHOOSE: or "set_null", or "redact" with columns',
            ]
        return "\n".join(lines) + "\n"


Columns = Mapping[str, tuple[str, str]]
"""By column of a view: the expression, and what a person has to choose; "" if nothing."""


def draft(tables: Sequence[CatalogueTable]) -> Draft | None:
    """Return a draft for the table that looks most like conversations; None if none does."""
    root = _likeliest([table for table in tables if table.columns], CONVERSATION, tables)
    return Draft(tables, root) if root else None


def _selected(columns: Columns) -> Iterator[str]:
    for name, (expression, choice) in columns.items():
        comma = "" if name == list(columns)[-1] else ","
        yield f"    {expression} AS {name}{comma}" + (f"  {CHOOSE}: {choice}" if choice else "")


def _nothing(types: Mapping[str, str]) -> Columns:
    return {name: (f"NULL::{type_}", "") for name, type_ in types.items()}


def _likeliest(
    candidates: Sequence[CatalogueTable], words: Sequence[str], tables: Sequence[CatalogueTable] = ()
) -> CatalogueTable | None:
    """Return the candidate whose name ends in the earliest of the words; of several the one that most tables refer to."""

    def rank(table: CatalogueTable) -> tuple[int, int, int]:
        named = _words(table.name)
        referring = sum(table.path in other.parents.values() for other in tables)
        return (named[-1] not in words, words.index(named[-1]) if named[-1] in words else len(words), -referring)

    found = [table for table in candidates if set(_words(table.name)) & set(words)]
    return min(found, key=rank, default=None)


def _pick(table: CatalogueTable, names: Sequence[str]) -> str | None:
    """Return the column with the likeliest of the names."""
    plain = {_plain(column): column for column in table.columns}
    return next((plain[name] for name in names if name in plain), None)


def _others(table: CatalogueTable, names: Sequence[str], chosen: str | None) -> str:
    others = [column for column in table.columns if _plain(column) in names and column != chosen]
    return f" (or {', '.join(others)})" if others else ""


def _instant(table: CatalogueTable, names: Sequence[str], what: str) -> tuple[str, str]:
    """Return the likeliest column as an instant, and what is to be chosen; NULL if there is none."""
    column = next(
        (column for name in names if (column := _pick(table, (name,))) and table.columns[column] in INSTANTS), None
    )
    if column is None:
        return "NULL::timestamptz", what
    type_ = table.columns[column]
    hints = [what + _others(table, names, column), *([HINTS[type_]] if type_ in HINTS else [])]
    return INSTANTS[type_].format(f"t.{quoted(column)}"), "; ".join(hints)


def _plain(name: str) -> str:
    """Return a column's name in lower case with underscores: createdAt is created_at."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _words(name: str) -> list[str]:
    """Return the words of a table's name, in the singular."""
    words = re.findall(r"[a-z0-9]+", _plain(name)) or [name]
    return [re.sub(r"(?<=[^s])s$", "", re.sub(r"ies$", "y", word)) for word in words]
