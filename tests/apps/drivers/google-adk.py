"""Writes and reads sessions with Google ADK's own DatabaseSessionService."""

import asyncio
import json
import sys
import time
from typing import Any

from google.adk.events import Event, EventActions
from google.adk.sessions import DatabaseSessionService, Session
from google.genai import types

DAY = 86_400.0
SESSIONS = {
    ("shop", "alice", "old"): 40,
    ("shop", "alice", "resumed"): 1,
    ("shop", "alice", "new"): 29,
    ("shop", "bob", "new"): 0,
    ("shop", "eve", "held"): 40,
    # the same letters, cut in other places: each pair has one session that is due
    ("a", "bc", "same"): 40,
    ("ab", "c", "same"): 0,
    ("1:x", "y", "same"): 0,
    ("1", "x:y", "same"): 40,
    ("shop", "carol", "late"): 40,
    ("shop", "dave", "no account"): 40,
}
"""The sessions by key, with the days since their last event."""


async def say(service: DatabaseSessionService, session: Session, words: str, at: float) -> None:
    """What a user says, and the answer a second later, which remembers something of each kind."""
    remembered = {"user:name": session.user_id, "app:visits": 1, "topic": words}
    for author, text, delta in (("user", words, {}), ("agent", f"answer to {words}", remembered)):
        await service.append_event(
            session,
            Event(
                author=author,
                timestamp=at,
                content=types.Content(role=author, parts=[types.Part(text=text)]),
                actions=EventActions(state_delta=delta),
            ),
        )
        at += 1


async def write(service: DatabaseSessionService) -> None:
    """Make the tables and the sessions; each begins 60 days ago."""
    now = time.time()
    for (app, user, name), days in SESSIONS.items():
        session = await service.create_session(app_name=app, user_id=user, session_id=name)
        await say(service, session, "hello", now - 60 * DAY)
        await say(service, session, "again", now - days * DAY)


async def events(service: DatabaseSessionService) -> dict[str, int]:
    """How many events each session has."""
    found = {}
    for app, user, name in SESSIONS:
        session = await service.get_session(app_name=app, user_id=user, session_id=name)
        if session is not None:
            assert session.state["app:visits"] == 1
            assert session.state.get("user:name", user) == user
            found[" ".join((app, user, name))] = len(session.events)
    return found


async def read(service: DatabaseSessionService) -> dict[str, dict[str, int]]:
    """What is left, and what is there after a session that is left has gone on and one that is not has begun anew."""
    left = await events(service)
    resumed = await service.get_session(app_name="shop", user_id="alice", session_id="resumed")
    assert resumed is not None
    anew = await service.create_session(app_name="shop", user_id="alice", session_id="old")
    assert anew.state["user:name"] == "alice"
    for session in (resumed, anew):
        await say(service, session, "more", time.time())
    return {"left": left, "later": await events(service)}


async def main(verb: str, url: str) -> Any:
    """Do what the verb says."""
    async with DatabaseSessionService(url.replace("postgresql:", "postgresql+asyncpg:")) as service:
        return await {"write": write, "read": read}[verb](service)


print(json.dumps(asyncio.run(main(*sys.argv[1:]))))
