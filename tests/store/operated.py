"""An operation as the sweeper's tables would have recorded it, over a world in which something of everything is stored."""

import json
from datetime import timedelta
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from sweeper.policy.instant import rfc3339
from sweeper.report import metrics
from sweeper.report import numbers as numbers
from sweeper.report.numbers import Numbers
from tests.facts import World, instant
from tests.store.stores import DIGEST, Store, frozen

NOW = "2026-06-01T00:00:00Z"
TICK = timedelta(microseconds=1)
MONTH = timedelta(days=30)


def chat(id_: str, due_ago: timedelta = timedelta(days=-9), account: str = "a1", **columns: Any) -> dict[str, Any]:
    """A conversation under `standard` that was due so long ago."""
    last = rfc3339(instant(NOW) - MONTH - due_ago)
    return {"id": id_, "account": account, "created_at": last, "last_activity_at": last, "messages": [], **columns}


def world(*chats: dict[str, Any], **parts: Any) -> World:
    """A world of consumers who never agreed, and of one account on a plan that nobody knows."""
    event = {"recorded_at": "2026-01-01T00:00:00Z", "granted": False}
    accounts = [
        {"id": "a1", "plans": [{"effective_at": "2020-01-01T00:00:00Z", "plan": "pro"}], "consent": [event]},
        {"id": "a2", "plans": [{"effective_at": "2020-01-01T00:00:00Z", "plan": "platinum"}], "consent": []},
    ]
    return {"as_of": NOW, "accounts": accounts, "conversations": [*chats], "holds": [], "orders": [], **parts}


def mixed() -> World:
    """Something of everything."""
    late = {"id": "m1", "author": "user", "created_at": "2026-05-31T00:00:00Z"}
    return world(
        chat("new", timedelta(hours=1)),
        chat("old", timedelta(hours=40)),
        chat("now", timedelta(0)),
        chat("kept", -TICK),
        chat("soon", timedelta(days=-7)),
        chat("later", timedelta(days=-7) - TICK),
        chat("held", timedelta(days=3)),
        chat("held early"),
        chat("doubt", timedelta(days=3), account="a2"),
        chat("stale", timedelta(days=1), messages=[late]),
        chat("zero", timedelta(days=-29), zero_retention=True),
        chat("gone", deleted_at=rfc3339(instant(NOW) - MONTH - timedelta(hours=5))),
        chat("unborn", created_at="2026-06-02T00:00:00Z", last_activity_at="2026-06-02T00:00:00Z"),
        feedback=[
            {"id": "f1", "account": "a1", "kind": "thumbs", "submitted_at": "2021-05-31T00:00:00Z"},
            {"id": "f2", "account": "a1", "kind": "thumbs", "submitted_at": "2021-06-01T00:00:00.000001Z"},
            {"id": "f3", "account": "a2", "kind": "thumbs", "submitted_at": "2021-01-01T00:00:00Z"},
            {"id": "f4", "account": "a1", "kind": "shrug", "submitted_at": "2021-01-01T00:00:00Z"},
            {"id": "f5", "account": "a1", "kind": "survey", "submitted_at": NOW, "transcript": "secret words"},
            {"id": "f6", "conversation": "x", "kind": "thumbs", "submitted_at": "2021-01-01T00:00:00Z"},
        ],
        holds=[
            {"conversation": "x", "placed_at": "2026-06-01T00:00:00.000001Z"},
            {"conversation": "held"},
            {"conversation": "held early"},
            {"account": "a2"},
        ],
    )


def read(store: Store, now: str = NOW) -> Numbers:
    """The numbers at a frozen now."""
    return numbers.read(store.settings(), frozen(now))


def exported(found: Numbers) -> dict[tuple[str, ...], float]:
    """The samples as Prometheus reads them: (series, label values but the store's …) → value."""
    return {
        (sample.name, *(value for label, value in sorted(sample.labels.items()) if label != "store")): sample.value
        for family in text_string_to_metric_families(metrics.text(found).decode())
        for sample in family.samples
    }


def ran(
    store: Store, result: dict[str, Any] | None, outcome: str = "completed", kind: str = "run", **columns: Any
) -> int:
    """A run as it would have been recorded."""
    row = {"schema": "store", "started_at": NOW, "finished_at": NOW if outcome else None, **columns}
    return int(
        store.execute(
            "INSERT INTO sweeper.runs (store, as_of, policy_name, policy_digest, token, started_at, finished_at, outcome, "
            "kind, result) "
            "SELECT %s, %s, 'p', %s, count(*) + 1, %s, %s, %s, %s, %s FROM sweeper.runs RETURNING id",
            row["schema"], NOW, DIGEST, row["started_at"], row["finished_at"], outcome or None, kind,
            json.dumps(result) if result is not None else None,
        )[0][0]
    )  # fmt: skip


def bury(store: Store, run_id: int, at: str, count: int = 1, record: str = "conversation") -> None:
    """Tombstones of a run."""
    for _ in range(count):
        store.execute(
            "INSERT INTO sweeper.tombstones (record, record_id, rule, due_at, as_of, run_id, policy_digest, children, approved, "
            "purged_at) VALUES (%s, 'x', 'standard', %s, %s, %s, 'd', '{}', false, %s)",
            record, at, at, run_id, at,
        )  # fmt: skip
