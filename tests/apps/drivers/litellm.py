"""Makes LiteLLM's tables with the migrations of its package, and writes and reads its log.

The proxy does so through Prisma, whose engine is on no package index: here it is the same SQL.
"""

import json
import sys
from pathlib import Path
from typing import Any

import litellm_proxy_extras
import psycopg

MIGRATIONS = Path(litellm_proxy_extras.__file__).parent / "migrations"
LOG = """
    INSERT INTO "LiteLLM_SpendLogs" (request_id, call_type, "startTime", "endTime", "user", end_user, spend, messages, response,
                                     proxy_server_request)
    SELECT %s, 'acompletion', t, t, %s, 'carl', 0.5, '[{"role": "user", "content": "hello"}]', '{"content": "hi"}',
           '{"model": "m", "messages": [{"role": "user", "content": "hello"}]}'
    FROM (SELECT now() AT TIME ZONE 'UTC' - %s * interval '1 day' AS t) AS one
"""
ROWS = (
    ("old", "ann", 181),
    ("old of nobody", None, 181),
    ("old of no name", "", 400),
    ("young", "ann", 179),
    ("week", "ann", 6),
    ("new", "", 0),
)


def log(connection: psycopg.Connection[Any], id_: str, user: str | None, days: int) -> None:
    """Log a request with its tool and its guardrail."""
    connection.execute(LOG, (id_, user, days))
    for table, column in (("Tool", "tool_name"), ("Guardrail", "guardrail_id")):
        connection.execute(
            f'INSERT INTO "LiteLLM_SpendLog{table}Index" (request_id, {column}, start_time) SELECT %s, %s, now()'.encode(),
            (id_, "g"),
        )


def write(connection: psycopg.Connection[Any]) -> None:
    """Make the tables, requests, and what the proxy sums up by day."""
    for migration in sorted(MIGRATIONS.glob("*/migration.sql")):
        connection.execute(migration.read_bytes())
    for row in ROWS:
        log(connection, *row)
    connection.execute(
        'INSERT INTO "LiteLLM_DailyUserSpend" (id, user_id, date, api_key, model, spend, updated_at)'
        " VALUES ('1', 'ann', '2026-01-01', 'k', 'm', 1.5, now())"
    )


def shown(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """What the page Logs lists, newest first, which of it has content, and what the page Usage sums up."""
    page = connection.execute(
        """SELECT request_id, messages, response, proxy_server_request FROM "LiteLLM_SpendLogs"
        WHERE "startTime" >= '2020-01-01' ORDER BY "startTime" DESC"""
    ).fetchall()
    spend = connection.execute('SELECT sum(spend) FROM "LiteLLM_DailyUserSpend"').fetchone()
    logs, content = [id_ for id_, *_ in page], [id_ for id_, *columns in page if any(columns)]
    return {"logs": logs, "content": content, "spend": spend and spend[0]}


def read(connection: psycopg.Connection[Any]) -> dict[str, Any]:
    """What is left, and what is there after another request."""
    left = shown(connection)
    log(connection, "later", "ann", 0)
    return {"left": left, "later": shown(connection)}


if __name__ == "__main__":
    verb, url = sys.argv[1:]
    with psycopg.connect(url, autocommit=True) as opened:
        print(json.dumps({"write": write, "read": read}[verb](opened)))
