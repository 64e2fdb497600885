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
    odd = '{"history": {"messages": {"q": {"role": "user", "timestamp": "yesterday", "content": "hello"}}}}'
    application.execute("UPDATE chat SET chat = %s WHERE id = 'garbled'", odd)
    application.execute("UPDATE chat SET created_at = 0, updated_at = 99999999999999 WHERE id = 'timeless'")
    application.execute(
        "INSERT INTO chat (id, user_id, title, chat, created_at, updated_at) SELECT 'of nobody', 'carl', 'of nobody', '{}',"
        " created_at, updated_at FROM chat WHERE id = 'old'"
    )
    application.execute("INSERT INTO chatidtag (id, tag_name, chat_id) VALUES ('1', 't', 'old'), ('2', 't', 'new')")
    application.init()
    settings, uploads = application.folder / "sweeper.toml", application.folder.parent / "data" / "uploads"
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
    assert (swept.preview["would_purge"], swept.result["purged"], swept.result["failed"]) == (4, 4, 0)
    assert titles(swept.after["chat"]) == KEPT | SKIPPED | DOUBTED
    assert titles(swept.after["chat_message"], "chat_id") | {"garbled", "timeless", "of nobody"} == titles(
        swept.after["chat"], "id"
    )
    assert swept.tombstones.keys() == GONE


def test_what_belongs_to_a_chat(swept: Swept) -> None:
    """All that holds a chat's content goes with it. A rating and an automation's run stay, and forget it."""
    assert swept.tombstones["old"] == {
        "public.chat_message": 2,
        "public.chat_file": 6,
        "public.file": 3,
        "public.shared_chat": 1,
        "public.chatidtag": 1,
        "public.feedback (snapshot)": 1,
        "public.automation_run (chat_id)": 1,
    }
    assert {table: len(rows) for table, rows in swept.changed.items()} == {"feedback": 1, "automation_run": 1}
    [rating], [was] = swept.changed["feedback"], swept.gone["feedback"]
    assert rating == was | {"snapshot": None}
    assert was["meta"]["chat_id"] == "old"
    [run], [ran] = swept.changed["automation_run"], swept.gone["automation_run"]
    assert run == ran | {"chat_id": None}
    assert ran["chat_id"] == "old"


def test_files_of_a_chat(swept: Swept) -> None:
    """A file goes, with its bytes, unless a library, a folder or a copy of the chat has it, or another row its bytes."""
    uploads = swept.application.folder.parent / "data" / "uploads"
    assert titles(swept.gone["file"], "filename") == {"own", "twin", "stored"}
    assert {path.name for path in uploads.iterdir()} == {
        f"{name} #1.txt" for name in ("cloned", "filed", "library", "twin")
    }
    assert swept.result["objects_kept"] == {"outside_prefixes": 1}  # in S3


def test_chats_in_doubt(swept: Swept) -> None:
    """A chat whose own JSON has a newer user message, or cannot be read, is skipped; one without a user or a time is kept."""
    assert swept.application.in_doubt == DOUBTED
    assert swept.result["spared_by_reason"] == {"stale_last_activity": len(SKIPPED)}


def test_application_goes_on(swept: Swept) -> None:
    """A second run changes nothing. Open WebUI shows what is left, fills the gap in chat_message, and writes on."""
    swept.runs_again()
    read = swept.application.drive("read")
    turn, again = ["hello", "hi"], ["", "again", "hello", "hi"]
    shown = {"new": turn, "pinned": turn, "resumed": again, "lagging": again, "imported": turn, "clone": turn}
    assert {title: read["left"]["chats"][title] for title in shown} == shown
    assert read["left"]["chats"].keys() == {*shown, *SKIPPED, "timeless"}  # it hides what sub-agents and timers have
    assert read["left"]["feedback"] == [["new", False], ["old", True]]
    assert not read["left"]["shared"]
    later = read["later"]["chats"]
    assert later.keys() == {*read["left"]["chats"], "old"}
    assert later["resumed"] == sorted([*again, "", "more"])
