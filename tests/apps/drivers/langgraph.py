"""Writes and reads threads with LangGraph's own graphs and its PostgreSQL checkpointer."""

import json
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, TypedDict

from freezegun import freeze_time
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.graph import START, StateGraph
from langgraph.types import interrupt


def merged(said: list[str], more: list[str]) -> list[str]:
    """What was said with what is new."""
    return said + [words for words in more if words not in said]


class State(TypedDict):
    """What a thread remembers."""

    words: Annotated[list[str], merged]


def answer(state: State) -> dict[str, list[str]]:
    """Say something."""
    return {"words": [f"answer to {state['words'][-1]}"]}


def ask(state: State) -> dict[str, list[str]]:
    """Wait for a person, if the thread asks for one."""
    return {"words": [interrupt("who are you?")]} if state["words"][-2] == "wait" else {}


def graph(saver: PostgresSaver) -> Any:
    """A graph with a graph inside that keeps checkpoints of its own."""
    inner = StateGraph(State)
    inner.add_node("answer", answer)
    inner.add_edge(START, "answer")
    outer = StateGraph(State)
    outer.add_node("inner", inner.compile(checkpointer=True))
    outer.add_node("ask", ask)
    outer.add_edge(START, "inner")
    outer.add_edge("inner", "ask")
    return outer.compile(checkpointer=saver)


def say(saver: PostgresSaver, thread: str, words: str, days: int) -> None:
    """Say something in a thread so many days ago; the ids of checkpoints hold the time."""
    with freeze_time(datetime.now(UTC) - timedelta(days=days), tick=True):
        graph(saver).invoke({"words": [words]}, {"configurable": {"thread_id": thread}})


def write(saver: PostgresSaver) -> None:
    """Make the tables and threads that are old, resumed lately, interrupted, and new."""
    saver.setup()
    for days, thread, words in (
        (60, "old", "hello"),
        (50, "resumed", "hello"),
        (45, "interrupted", "wait"),
        (40, "old", "again"),
        (2, "resumed", "again"),
        (1, "new", "hello"),
    ):
        say(saver, thread, words, days)


def threads(saver: PostgresSaver) -> dict[str, list[str]]:
    """What was said in each thread."""
    ids = {found.config["configurable"]["thread_id"] for found in saver.list(None)}
    states = {id_: graph(saver).get_state({"configurable": {"thread_id": id_}}) for id_ in ids}
    return {id_: state.values.get("words", []) for id_, state in states.items()}


def read(saver: PostgresSaver) -> dict[str, dict[str, list[str]]]:
    """What is left, and what is there after more was said in a thread that is left and in one that is not."""
    left = threads(saver)
    say(saver, "resumed", "more", 0)
    say(saver, "old", "more", 0)
    return {"left": left, "later": threads(saver)}


if __name__ == "__main__":
    verb, url = sys.argv[1:]
    with PostgresSaver.from_conn_string(url) as opened:
        print(json.dumps({"write": write, "read": read}[verb](opened)))
