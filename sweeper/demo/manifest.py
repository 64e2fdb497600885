"""The last part of the demo: a training manifest, and its recall after an account has withdrawn its consent."""

import os
import secrets
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import text

from sweeper.clock import Clock
from sweeper.demo.fixture import DemoFixture
from sweeper.demo.page import DemoPage
from sweeper.manifest import pseudonym
from sweeper.postgres import database as databases

FEWEST_ROWS = 3


def show_manifest(page: DemoPage, fixture: DemoFixture, clock: Clock) -> None:
    """Build a manifest, withdraw one account's consent, and show that verify and recall report exactly its rows."""
    page.heading("7. A training manifest: what may be trained on, and taking it back")
    if fixture.policy.training is None:
        page.explain("The policy has no [training]: nothing may be trained on under it.")
        return
    if not pseudonym.is_given():
        os.environ[pseudonym.INLINE] = secrets.token_hex(pseudonym.SHORTEST)
    folder = fixture.folder / "manifest"
    page.explain(
        "Every message that may be trained on, one row each, without text and with a pseudonym for the account."
    )
    page.command("manifest", "build", str(folder))
    account, rows = _smallest_account(fixture, folder)
    page.explain(
        f"Now account {account} withdraws its consent, as its application would record it. The manifest names {rows} of its "
        "messages. The manifest is not changed, but it is no longer valid as it is: everyone who has a copy must drop those rows."
    )
    _withdraw(fixture, account, clock)
    page.command("manifest", "verify", str(folder))
    page.command("manifest", "recall", "--out", str(fixture.folder / "recalls"))


def _smallest_account(fixture: DemoFixture, folder: Path) -> tuple[str, int]:
    """Return the account with the fewest rows in the manifest, at least `FEWEST_ROWS`, and their number."""
    import pyarrow.parquet as pq  # an extra, and slow to import

    rows = pq.read_table(sorted(folder.glob("part-*.parquet")), columns=["subject", "conversation_id"]).to_pylist()
    counted = Counter(row["subject"] for row in rows)
    fewest = min(count for count in counted.values() if count >= FEWEST_ROWS)
    chat = min(row["conversation_id"] for row in rows if counted[row["subject"]] == fewest)
    (account,) = _fetch_row(fixture, "SELECT account_id::text FROM conversations WHERE id::text = :chat", chat=chat)
    return account, fewest


def _withdraw(fixture: DemoFixture, account: str, clock: Clock) -> None:
    _fetch_row(
        fixture,
        "INSERT INTO consent_events (account_id, purpose, granted, recorded_at) "
        "SELECT account_id, purpose, false, :now FROM consent_events WHERE account_id::text = :account AND granted "
        "ORDER BY recorded_at DESC LIMIT 1 RETURNING id",
        account=account,
        now=clock.now(),
    )


def _fetch_row(fixture: DemoFixture, sql: str, **parameters: object) -> tuple[Any, ...]:
    """Execute a statement on the demo's store and return its single row."""
    database = databases.connect(fixture.settings)
    try:
        with database.transaction() as connection:
            return tuple(connection.execute(text(sql), parameters).one())
    finally:
        database.engine.dispose()
