"""Writes and reads sessions with the OpenAI Agents SDK's own SQLAlchemySession."""

import asyncio
import json
import sys
from typing import Any

from agents.extensions.memory import SQLAlchemySession
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

SESSIONS = ("old", "resumed", "new", "late message", "no time", "emptied")
TURN: list[Any] = [
    {"content": "hello", "role": "user"},
    {"type": "function_call", "call_id": "1", "name": "look", "arguments": '{"for": "a user"}'},
    {"type": "function_call_output", "call_id": "1", "output": "found"},
    {
        "type": "message",
        "id": "m",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "hi"}],
    },
]


def session(engine: AsyncEngine, name: str) -> SQLAlchemySession:
    """The session of a name."""
    return SQLAlchemySession(name, engine=engine, create_tables=True)


async def write(engine: AsyncEngine) -> None:
    """Make the tables and the sessions."""
    for name in SESSIONS:
        await session(engine, name).add_items(TURN)
    for _ in TURN:
        await session(engine, "emptied").pop_item()


async def items(engine: AsyncEngine) -> dict[str, int]:
    """How many items each session has."""
    return {name: len(await session(engine, name).get_items()) for name in SESSIONS}


async def read(engine: AsyncEngine) -> dict[str, dict[str, int]]:
    """What is left, and what is there after a session that is left and one that is not have gone on."""
    left = await items(engine)
    for name in ("old", "resumed"):
        await session(engine, name).add_items(TURN[:1])
    return {"left": left, "later": await items(engine)}


async def main(verb: str, url: str) -> Any:
    """Do what the verb says."""
    engine = create_async_engine(url.replace("postgresql:", "postgresql+asyncpg:"))
    try:
        return await {"write": write, "read": read}[verb](engine)
    finally:
        await engine.dispose()


print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
