"""Writes and reads threads with Chainlit's own SQLAlchemyDataLayer.

The package has no statement that makes the tables: they are those of the layer's page in Chainlit's documentation.
"""

import asyncio
import json
import sys
import uuid
from pathlib import Path
from typing import Any

import chainlit
from chainlit.context import init_http_context
from chainlit.data.sql_alchemy import SQLAlchemyDataLayer
from chainlit.data.storage_clients.base import BaseStorageClient
from chainlit.types import Feedback, Pagination, ThreadFilter
from sqlalchemy import text

OF_THREAD = '"threadId" uuid {} REFERENCES threads ON DELETE CASCADE'
COLUMNS = {
    "users": 'identifier text NOT NULL UNIQUE, metadata jsonb NOT NULL, "createdAt" text',
    "threads": '"createdAt" text, name text, "userId" uuid REFERENCES users ON DELETE CASCADE, "userIdentifier" text,'
    " tags text[], metadata jsonb",
    "steps": f'name text NOT NULL, type text NOT NULL, {OF_THREAD.format("NOT NULL")}, "parentId" uuid,'
    ' streaming boolean NOT NULL, "waitForAnswer" boolean, "isError" boolean, metadata jsonb, tags text[], input text,'
    ' output text, "createdAt" text, command text, start text, "end" text, generation jsonb, "showInput" text,'
    ' language text, indent integer, "defaultOpen" boolean, modes jsonb',
    "elements": f'{OF_THREAD.format("")}, type text, url text, "chainlitKey" text, name text NOT NULL, display text,'
    ' "objectKey" text, size text, page integer, language text, "forId" uuid, mime text, props jsonb',
    "feedbacks": f'"forId" uuid NOT NULL, {OF_THREAD.format("NOT NULL")}, value integer NOT NULL, comment text',
}
NAMES = ("old", "resumed", "new", "favorite", "answered lately", "no time", "no message", "bad time")
THREADS = {name: str(uuid.uuid5(uuid.NAMESPACE_OID, name)) for name in NAMES}


class Folder(BaseStorageClient):  # type: ignore[misc]  # its package is not installed here
    """Keeps files in a folder, as other storage clients do in a bucket."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    async def upload_file(self, object_key: str, data: bytes | str, **_: Any) -> dict[str, Any]:
        """Write a file."""
        file = self.path / object_key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(data))
        return {"object_key": object_key, "url": file.as_uri()}

    async def delete_file(self, object_key: str) -> bool:
        """Delete a file."""
        (self.path / object_key).unlink()
        return True

    async def get_read_url(self, object_key: str) -> str:
        """Say where a file is."""
        return (self.path / object_key).as_uri()

    async def close(self) -> None:
        """There is nothing to close."""


async def say(layer: SQLAlchemyDataLayer, thread: str, words: str, metadata: dict[str, Any] | None = None) -> None:
    """A message of the user with a file, and an answer with the user's feedback on it."""
    message, answer = str(uuid.uuid4()), str(uuid.uuid4())
    common = {"threadId": thread, "streaming": False, "createdAt": chainlit.utils.utc_now()}
    await layer.create_step(
        {**common, "id": message, "name": "ada", "type": "user_message", "output": words, "metadata": metadata or {}}
    )
    element = chainlit.Text(name="a file.txt", content=f"file of {words}", thread_id=thread, for_id=message)
    await layer.create_element(element)
    await layer.create_step(
        {**common, "id": answer, "name": "bot", "type": "assistant_message", "parentId": message, "output": "answer"}
    )
    await layer.upsert_feedback(Feedback(forId=answer, value=1, threadId=thread, comment=f"on {words}"))


async def write(layer: SQLAlchemyDataLayer) -> dict[str, str]:
    """Make the tables, a user and the threads; returns the threads' ids by name."""
    async with layer.engine.begin() as connection:
        for table, columns in COLUMNS.items():
            await connection.execute(text(f"CREATE TABLE {table} (id uuid PRIMARY KEY, {columns})"))
    user = await layer.create_user(chainlit.User(identifier="ada"))
    assert user is not None
    for name, thread in THREADS.items():
        await layer.update_thread(thread, name=name, user_id=user.id, tags=["a tag"])
        await say(layer, thread, "hello", {"favorite": True} if name == "favorite" else None)
    return THREADS


async def threads(layer: SQLAlchemyDataLayer) -> dict[str, list[int]]:
    """How many steps, elements and feedbacks each thread of the user has."""
    user = await layer.get_user("ada")
    assert user is not None
    page = await layer.list_threads(Pagination(first=100), ThreadFilter(userId=user.id))
    return {
        str(thread["name"]): [
            len(thread["steps"]),
            len(thread["elements"] or []),
            sum(step["feedback"] is not None for step in thread["steps"]),
        ]
        for thread in page.data
    }


async def read(layer: SQLAlchemyDataLayer) -> dict[str, dict[str, list[int]]]:
    """What is left, and what is there after a thread that is left and one that is not have gone on."""
    left = await threads(layer)
    user = await layer.get_user("ada")
    assert user is not None
    for name in ("old", "resumed"):
        await layer.update_thread(THREADS[name], name=name, user_id=user.id)
        await say(layer, THREADS[name], "more")
    return {"left": left, "later": await threads(layer)}


async def main(verb: str, url: str, folder: str) -> Any:
    """Do what the verb says."""
    init_http_context()
    layer = SQLAlchemyDataLayer(url.replace("postgresql:", "postgresql+asyncpg:"), storage_provider=Folder(folder))
    try:
        return await {"write": write, "read": read}[verb](layer)
    finally:
        await layer.close()


print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
