"""How ids that people write are compared: whatever a locale, an editor or a mail program made of one, it still is that one."""

import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper import embedded
from sweeper.policy.schema import Policy
from sweeper.postgres import database as databases
from sweeper.postgres import migrate, unmatched
from sweeper.postgres.statement import spelling
from sweeper.runs.sweep import sweep
from sweeper.settings import Settings
from tests.store import stores
from tests.store.stores import Store
from tests.store.test_propose import chat, world_of
from tests.store.test_races import AS_OF, GUARDS, SPELLINGS

Rows: TypeAlias = psycopg.Connection[tuple[Any, ...]]
UUID = "00c0ffee-0000-4000-8000-00000000002a"
TEXTS = (
    *("caf\u00e9", "STRASSE-7", "\u0130stanbul", "\u03a3\u03b1\u03c2", "\u0414\u0430\u0448\u0430"),
    *("thread_7.b", "a:b/c", "\u4f1a\u8bdd-9", "0042"),
)
PASTED: dict[str, Callable[[str], str]] = {
    "composed": lambda t: unicodedata.normalize("NFC", t),
    "decomposed": lambda t: unicodedata.normalize("NFD", t),
    "upper case": str.upper,
    "lower case": str.lower,
    "guillemets": lambda t: f"\u00ab\u00a0{t}\u00a0\u00bb",
    "brackets": lambda t: f"[{t}];",
    "right to left": lambda t: f"\u200f{t}\u202c",
    "variation selector": lambda t: f"{t}\ufe0f",
    "soft hyphen": lambda t: f"{t[:1]}\u00ad{t[1:]}",
}


def spelt(connection: Rows, *texts: str) -> list[str]:
    """The spellings of some texts."""
    rows = connection.execute(
        "SELECT sweeper.spelling(t) FROM unnest(%s::text[]) WITH ORDINALITY AS u (t, n) ORDER BY n", [list(texts)]
    )
    return [row[0] for row in rows]


@pytest.fixture(
    scope="module",
    params=["LOCALE 'C'", "LOCALE 'C.UTF-8'", "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'PG_UNICODE_FAST'"],
)
def located(request: pytest.FixtureRequest, server: embedded.Server) -> Iterator[Rows]:
    """A migrated database of each kind of locale that the embedded server has: it folds ASCII alone, or all of Unicode."""
    provider: str = request.param
    with _database(server, f"TEMPLATE template0 ENCODING 'UTF8' {provider}") as connection:
        yield connection


@contextmanager
def _database(server: embedded.Server, options: str, name: str = "located") -> Iterator[Rows]:
    """A connection to a new database with the sweeper's own tables, dropped at the end."""
    with stores.administered(server) as connection:
        connection.execute(f"CREATE DATABASE {name} {options}".encode())
    try:
        opened = databases.connect(Settings.model_validate({"database": {"url": server.url(name)}}))
        migrate.migrate(opened)
        opened.engine.dispose()
        with psycopg.connect(server.url(name).replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute("SET client_encoding = 'UTF8'")
            yield connection
    finally:
        stores.drop(server, name)


@pytest.mark.parametrize("way", SPELLINGS)
def test_uuid(located: Rows, way: str) -> None:
    """A uuid has one spelling in whatever way it is written, in every locale."""
    stored, written = spelt(located, UUID, SPELLINGS[way](UUID))
    assert stored == written == "c0ffee000040008000" + "00000000002a"


@pytest.mark.parametrize("way", PASTED)
def test_text(located: Rows, way: str) -> None:
    """A text id has one spelling in whatever way it is written, in every locale."""
    assert spelt(located, *map(PASTED[way], TEXTS)) == spelt(located, *TEXTS)


def test_different_ids_stay_different(located: Rows) -> None:
    """What a person would not take for the same id has another spelling."""
    texts = [
        "thread_7",
        "thread7",
        "thread.7",
        "thread/7",
        "cafe",
        "caf\u00e9",
        "7",
        "70",
        "0",
        "\u4f1a",
        "\u8bdd",
        "stra\u00dfe",
    ]
    assert len(set(spelt(located, *texts))) == len(texts)


def test_number(located: Rows) -> None:
    """A number has one spelling with blanks, leading zeros and what a spreadsheet adds; zero is one, too."""
    assert set(spelt(located, "42", " 042", "42.0", "+42", "42.00", "\uff14\uff12", "(42)")) == {"42"}
    assert spelt(located, "0", "00", "10.5") == ["0", "0", "10.5"]


def test_every_letter(located: Rows) -> None:
    """Every character that has a capital, a small or a composed form has the spelling of those."""
    letters = [chr(code) for code in range(0x21, 0x2FFFF) if unicodedata.category(chr(code))[0] in "LN"]
    ways: tuple[Callable[[str], str], ...] = (
        *(str.upper, str.lower),
        *(partial(unicodedata.normalize, form) for form in ("NFKD", "NFKC")),
    )
    for way in ways:
        pairs = [(c, way(c)) for c in letters if len(way(c)) == 1 and way(c) != c]
        found = list(zip(spelt(located, *(c for c, _ in pairs)), spelt(located, *(w for _, w in pairs)), strict=True))
        assert [pair for pair, (one, other) in zip(pairs, found, strict=True) if one != other] == []


def test_setting_of_the_session(located: Rows) -> None:
    """Sessions whose strings have backslashes of another meaning give the same spelling."""
    before = spelt(located, UUID, *TEXTS, "a\\b\n")
    located.execute("SET standard_conforming_strings = off; SET escape_string_warning = off")
    try:
        assert spelt(located, UUID, *TEXTS, "a\\b\n") == before
    finally:
        located.execute("RESET ALL")


def test_latin1(server: embedded.Server) -> None:
    """In a database of another encoding, which knows no normal forms, ids of ASCII have the same spelling."""
    with _database(server, "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'", "latin") as connection:
        assert set(spelt(connection, UUID, *(f"{{{UUID.upper()}}}", f"urn:uuid:{UUID}", f"'{UUID}'."))) == {
            UUID[2:].replace("-", "")
        }
        for way in ("upper case", "lower case", "guillemets", "brackets", "soft hyphen"):
            assert spelt(connection, PASTED[way]("caf\u00e9-7\u00df")) == ["caf\u00e97ss"]


@given(st.uuids() | st.integers(-(2**63), 2**63 - 1))
def test_written_out(located: Rows, id_: object) -> None:
    """What the statements write out for columns of uuids and numbers is what the function gives."""
    type_ = "bigint" if isinstance(id_, int) else "uuid"
    row = located.execute(
        f"SELECT {spelling('v', type_)}, sweeper.spelling(v::text) FROM (SELECT %s::{type_} AS v) AS t".encode(),
        [str(id_)],
    )
    written, called = row.fetchone() or ("", "x")
    assert written == called


# Orders and holds that find nothing


@pytest.mark.parametrize("store", ["uuid", "text", "bigint"], indirect=True)
def test_unmatched(store: Store, policy: Policy) -> None:
    """A hold or order that finds nothing is told, one of another spelling apart; those that find something are not."""
    store.load(world_of([chat("c1"), chat("c2")]))
    account = store.execute("SELECT account_id::text FROM conversations LIMIT 1")[0][0]
    one, other = store.id("c1"), store.id("c2")
    holds = {
        "found": (None, f" {one}\u2060"),
        "account": (f"{account}.", None),
        "either": ("gone", one),
        "everything": (None, None),
        "lost": (None, "1234-nowhere"),
        "lost account": ("nobody", None),
    }
    orders = {
        "found": (None, one),
        "account": (account, None),
        "both": (account, other),
        "misspelt": (None, f"{{{one}}}"),
        "misspelt account": (f"{account}\u00a0", None),
        "lost": (None, "nowhere"),
        "apart": ("nobody", one),
    }
    for table, name, rows in (("legal_holds", "matter", holds), ("erasure_orders", "reference", orders)):
        for label, ids in rows.items():
            store.execute(
                f"INSERT INTO sweeper.{table} ({name}, account_id, conversation_id) VALUES (%s, %s, %s)", label, *ids
            )
    store.execute(
        "INSERT INTO sweeper.legal_holds (matter, conversation_id, released_at) VALUES ('over', 'nowhere', now())"
    )
    found = unmatched.attempt(store.database(), datetime.now(UTC))
    assert found is not None
    named = dict(store.execute("SELECT id, matter FROM sweeper.legal_holds"))
    assert {named[id_] for id_ in found.holds} == {"lost", "lost account"}
    named = dict(store.execute("SELECT id, reference FROM sweeper.erasure_orders"))
    assert {named[id_] for id_ in found.orders} == {"lost", "apart"}
    assert {named[id_] for id_ in found.misspelt} == {"misspelt", "misspelt account"}


def test_order_that_was_carried_out(store: Store, policy: Policy) -> None:
    """An order whose conversation it erased has done its work: it is not among those that find nothing."""
    store.load(world_of([chat("c1")]))
    store.execute(
        "INSERT INTO sweeper.erasure_orders (reference, conversation_id, recorded_at, due_at) "
        "VALUES ('o', %s, NULL, '2026-06-01Z')",
        store.id("c1"),
    )
    assert sweep(store.job(policy, AS_OF, guards=GUARDS)).count == 1
    assert unmatched.attempt_orders(store.database(), purged=False) == ((), ())
