"""Open WebUI's chats: the newest user message tells the last activity, and files are named by chats, libraries and JSON."""

import pytest

from tests.apps.application import Application, Swept

APPLICATION = "open-webui"
GONE = {"old", "archived", "legacy", "helper of old"}
DOUBTED = {"timeless", "of nobody"}
SKIPPED = {"lagging", "garbled"}
KEPT = {"new", "resumed", "pinned", "imported", "clone", "timer", "helper of pinned", "helper of resumed"}
READS_MESSAGES = "store.conversations: it also reads public.chat_message, whose rows no batch locks"


@pytest.fixture(scope="module")
def swept(application: Application) -> Swept:
    """A store with chats that are due and others, swept once."""
    application.drive("write")
    # the application swallows an error of its second write; older versions wrote other things
    application.execute("DELETE FROM chat_message WHERE chat_id IN ('legacy', 'garbled', 'timeless')")
    application.execute("DELETE FROM chat_message WHERE chat_id = 'lagging' AND parent_id = 'a'")
    application.execute("UPDATE chat_message SET updated_at = created_at WHERE chat_id = 'lagging'")
    application.execute(r"""UPDATE chat SET chat = '{"history": {"messages": {"q": {"role": "\u0000"}}}}' WHERE id = 'garbled'""")
    application.execute("UPDATE chat SET created_at = NULL, updated_at = 99999999999999 WHERE id = 'timeless'")
    application.execute(
        "INSERT INTO chat (id, user_id, title, chat, created_at, updated_at) SELECT 'of nobody', 'carl', 'of nobody', '{}',"
        " created_at, updated_at FROM chat WHERE id = 'old'"
    )
    application.execute("INSERT INTO chatidtag (id, tag_name, chat_id) VALUES ('1', 't', 'old'), ('2', 't', 'new')")
    application.init()
    settings, uploads = application.folder / "sweeper.toml", application.folder / "data" / "uploads"
    settings.write_text(settings.read_text().replace("/app/backend/data/uploads", str(uploads)))
    application.run_sql(application.folder / "store.sql")
    return application.swept()


def titles(rows: list[dict[str, str]], key: str = "title") -> set[str]:
    """One column of rows."""
    return {row[key] for row in rows}


def test_chats_that_are_due(swept: Swept) -> None:
    """Chats go 30 days after the user wrote last; pinning, archiving and renaming is nothing that a user writes."""
    assert [line.startswith(READS_MESSAGES) for line in swept.complaints] == [True, True], swept.complaints
    assert swept.canary.endswith("was purged, and no table that was written to meanwhile keeps any")
    assert titles(swept.after["chat"]) == KEPT | SKIPPED | DOUBTED
