"""Writes and reads chats with Open WebUI's own models, on the tables that its own migrations make."""

import asyncio
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

VERB, URL = sys.argv[1:]
OUT, sys.stdout = sys.stdout, sys.stderr  # the migrations print
os.environ |= {
    "DATABASE_URL": URL,
    "DATA_DIR": str(Path("data").absolute()),
    "STATIC_DIR": "static",
    "WEBUI_SECRET_KEY": "of a test",
    "FROM_INIT_PY": "true",
    "VECTOR_DB": "none",
}

from open_webui.config import UPLOAD_DIR  # noqa: E402 -- the environment comes first; this runs the migrations
from open_webui.models.automations import AutomationData, AutomationForm, AutomationRuns, Automations  # noqa: E402
from open_webui.models.chats import ChatForm, ChatImportForm, Chats  # noqa: E402
from open_webui.models.feedbacks import FeedbackForm, Feedbacks  # noqa: E402
from open_webui.models.files import FileForm, Files  # noqa: E402
from open_webui.models.folders import FolderForm, Folders  # noqa: E402
from open_webui.models.knowledge import KnowledgeForm, Knowledges  # noqa: E402
from open_webui.models.shared_chats import SharedChats  # noqa: E402
from open_webui.models.users import Users  # noqa: E402

FILES = ("own", "cloned", "filed", "library", "twin", "stored")
BUCKET = "s3://bucket/stored"
NOW = time.time


@contextmanager
def ago(days: int) -> Iterator[None]:
    """Let the application believe that it is so many days ago."""
    before, time.time = time.time, lambda: NOW() - days * 86_400
    try:
        yield
    finally:
        time.time = before


def file_id(name: str) -> str:
    """The id of a file."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def asked(words: str, mid: str, files: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a user says."""
    named = [{"type": "file", "id": file_id(name)} for name in files]
    return {
        "id": mid,
        "parentId": None,
        "childrenIds": [],
        "role": "user",
        "content": words,
        "timestamp": int(time.time()),
        "files": named,
    }


def content(title: str, files: tuple[str, ...] = ()) -> dict[str, Any]:
    """A chat with a question and an answer."""
    question = asked("hello", "q", files) | {"childrenIds": ["a"]}
    answer = {
        "id": "a",
        "parentId": "q",
        "childrenIds": [],
        "role": "assistant",
        "content": "hi",
        "timestamp": int(time.time()),
    }
    return {"title": title, "history": {"currentId": "a", "messages": {"q": question, "a": answer}}}


async def chat(id_: str, days: int, files: tuple[str, ...] = (), **further: Any) -> None:
    """Make a chat that was begun so many days ago."""
    with ago(days):
        assert await Chats.insert_new_chat(id_, "ann", ChatForm(chat=content(id_, files)), **further)
        await Chats.insert_chat_files(id_, "q", [file_id(name) for name in files], "ann")


async def say(id_: str, words: str) -> None:
    """Say something more in a chat."""
    user = await Users.get_user_by_id("ann")
    message = asked(words, str(uuid.uuid4())) | {"parentId": "a"}
    await Chats.insert_chat_turn(id_, user, message, [{"message_id": str(uuid.uuid4()), "model_id": "m"}])


async def write() -> dict[str, str]:
    """Make a user and chats of every kind, and return the ids of what the application names itself."""
    await Users.insert_new_user("ann", "Ann", "ann@example.com", role="admin")
    await Users.insert_new_user("bob", "Bob", "bob@example.com", role="user")
    for name in FILES:
        path = BUCKET if name == "stored" else str(UPLOAD_DIR / f"{name} #1.txt")
        if path != BUCKET:
            Path(path).write_text(name)
        form = FileForm(id=file_id(name), filename=name, path=path, data={"content": "words"})
        await Files.insert_new_file("ann", form)
    twin = FileForm(id=file_id("again"), filename="again", path=str(UPLOAD_DIR / "twin #1.txt"))
    await Files.insert_new_file("ann", twin)
    await Folders.insert_new_folder(
        "ann", FolderForm(name="F", data={"files": [{"type": "file", "id": file_id("filed")}]})
    )
    library = await Knowledges.insert_new_knowledge("ann", KnowledgeForm(name="K", description=""))
    await Knowledges.add_file_to_knowledge_by_id(library.id, file_id("library"), "ann")

    await chat("old", 60, FILES)
    for id_ in ("archived", "resumed", "pinned", "lagging", "legacy", "garbled", "timeless"):
        await chat(id_, 60)
    await chat("new", 1)
    for id_, parent in (("helper of old", "old"), ("helper of pinned", "pinned"), ("helper of resumed", "resumed")):
        await chat(id_, 60, internal_meta={"internal": True, "type": "subagent", "parent_chat_id": parent})
    await chat("timer", 60, internal_meta={"internal": True, "parent_chat_id": "old"}, timer_at=2**62)
    with ago(45):
        await Chats.insert_shared_chat_by_chat_id("old")
    with ago(2):
        for id_ in ("resumed", "lagging"):
            await say(id_, "again")
        await Chats.toggle_chat_pinned_by_id("pinned")
        await Chats.toggle_chat_archive_by_id("archived")
        await Chats.update_chat_title_by_id("archived", "renamed")
        old = await Chats.get_chat_by_id("old")
        with ago(60):  # a chat that a file of another service says is old; and a copy, as of the button Clone
            forms = [ChatImportForm(chat=content("imported"), created_at=old.created_at, updated_at=old.updated_at)]
            forms += [ChatImportForm(chat=content("clone", ("cloned",)))]
        imported, clone = await Chats.import_chats("ann", forms)
    for id_ in ("old", "new"):
        form = FeedbackForm(
            type="rating", data={"rating": 1}, meta={"chat_id": id_, "message_id": "a"}, snapshot={"chat": content(id_)}
        )
        await Feedbacks.insert_new_feedback("ann", form)
    data = AutomationData(prompt="p", model_id="m", rrule="FREQ=DAILY")
    automation = await Automations.insert("ann", AutomationForm(name="A", data=data), 0)
    for id_ in ("old", "new"):
        await AutomationRuns.insert(automation.id, "success", id_)
    return {"imported": imported.id, "clone": clone.id}


async def found() -> dict[str, Any]:
    """What the application shows to its user."""
    chats = (await Chats.get_chats_by_user_id("ann")).items
    return {
        "chats": {
            one.title: sorted(m["content"] for m in (await Chats.get_messages_map_by_chat_id(one.id) or {}).values())
            for one in chats
            if one.chat
        },
        "files": sorted(one.filename for one in await Files.get_files()),
        "feedback": sorted([one.meta["chat_id"], one.snapshot is None] for one in await Feedbacks.get_all_feedbacks()),
        "shared": await SharedChats.get_by_chat_id("old") is not None,
    }


async def read() -> dict[str, Any]:
    """What is left, and what is there after the user went on in a chat and began another with the name of a purged one."""
    left = await found()
    await say("resumed", "more")
    await chat("old", 0)
    return {"left": left, "later": await found()}


print(json.dumps(asyncio.run({"write": write, "read": read}[VERB]())), file=OUT)
