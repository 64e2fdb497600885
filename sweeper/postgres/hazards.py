"""What keeps a purge from happening, or lets purged content live on, as far as the catalogue tells.

Invariant: it reads nothing but the catalogue, so that every run can afford it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sweeper import log
from sweeper.postgres.branches import branches, everything_below
from sweeper.postgres.contract import CONTRACT, Contract
from sweeper.postgres.database import Database, is_disconnected, reason
from sweeper.postgres.finding import CheckFinding, Level
from sweeper.postgres.statement import statement


@dataclass(frozen=True)
class Hazard:
    """How a kind of hazard is reported; `{name}`, `{table}`, `{events}` and `{detail}` stand for what the catalogue says."""

    text: str
    remedy: str
    level: Level = Level.WARNING


HAZARDS: Mapping[str, Hazard] = {
    "before": Hazard(
        "trigger {name} runs before each DELETE ({detail}): it may keep rows back, and conversations with such rows are kept and "
        "counted as failed; or it may copy them to where no purge reaches",
        "make sure that {name} returns OLD and copies no content",
    ),
    "trigger": Hazard(
        "trigger {name} runs at each {events} ({detail}) and may copy content to where no purge reaches",
        "make sure that {name} writes ids and times only, or give what it writes to a foreign key with ON DELETE CASCADE",
    ),
    "instead": Hazard(
        "{name} acts on a DELETE from this view ({detail}), but a purge deletes from the table behind it: what {name} does "
        "beside that is not done",
        "do the same in a trigger on the table, or name the tables it cleans in [[purge.children]]",
    ),
    "rule": Hazard("rule {name} rewrites DELETE", "DROP RULE {name} ON {table}"),
    "rule_also": Hazard(
        "rule {name} rewrites {events} and may copy content to where no purge reaches", "DROP RULE {name} ON {table}"
    ),
    "materialized": Hazard(
        "this materialized view reads {name}: it shows what was purged until it is refreshed",
        "REFRESH MATERIALIZED VIEW {table} after each run",
    ),
    "inherits": Hazard(
        "this table inherits from {name}: no foreign key reaches its rows, so they are not deleted together with others",
        "make it a partition, or name it in [[purge.children]]",
    ),
    "foreign": Hazard(
        "this is a foreign table: what is deleted there is deleted by another server, with triggers and copies of its own",
        "run `sweeper check` on that server's store, or keep its rows here",
    ),
    "unpublished": Hazard(
        "publication {name} leaves deletes out: what is purged here lives on at its subscribers",
        "ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate')",
    ),
    "identity": Hazard(
        "it is in publication {name} and has no replica identity: PostgreSQL refuses each DELETE",
        "ALTER TABLE {table} REPLICA IDENTITY FULL, or give it a primary key",
        Level.FAULT,
    ),
    "subscribed": Hazard(
        "subscription {name} fills this table: what is purged here lives on at its publisher",
        "purge at the publisher",
    ),
    "large_object": Hazard(
        "column {name} may name large objects: they stay when the row goes",
        "give the table a trigger that runs lo_manage (extension lo), or run vacuumlo after each run",
    ),
    "forbids": Hazard(
        "{name} is ON DELETE {detail}, and these rows outlive those of {events}: what they point to there is kept, and counted "
        "as failed",
        "give {name} ON DELETE SET NULL",
    ),
}


def purged_tables(contract: Contract) -> list[int]:
    """The oids of all tables that a purge deletes from."""
    feedback = [contract.feedback.oid] if contract.feedback else []
    below = {branch.key.oid for branch in branches(contract.conversations)}
    return [contract.conversations.oid, *feedback, *sorted(below)]


def hazards(connection: Connection, contract: Contract) -> list[CheckFinding]:
    """All hazards of the tables that a purge deletes from, in order of kind and table."""
    rows = connection.execute(
        statement("check_hazards"),
        {
            "oids": purged_tables(contract),
            "known": [branch.key.oid for branch in everything_below(contract.conversations)],
            "schema": contract.schema,
            "relations": list(CONTRACT),
        },
    )
    found = []
    for row in rows:
        hazard = HAZARDS[row.kind]
        fields = row._asdict()
        found.append(
            CheckFinding(hazard.level, row.table, hazard.text.format(**fields), hazard.remedy.format(**fields))
        )
    return found


def outside(connection: Connection, contract: Contract) -> Sequence[str]:
    """The trigger functions of those tables that look as if they acted outside of the transaction."""
    rows = connection.execute(statement("check_outside"), {"oids": purged_tables(contract)})
    return [row.function for row in rows]


def warn(database: Database, contract: Contract) -> None:
    """Log the hazards in one line, if there are any; a catalogue that the role may not read is no reason not to run."""
    try:
        found = database.within(lambda connection: hazards(connection, contract))
    except DBAPIError as error:
        if is_disconnected(error):
            raise
        log.get().warning("the catalogue could not be read; see `sweeper check`", reason=reason(error))
        return
    if found:
        texts = [f"{finding.subject}: {finding.text}" for finding in found]
        log.get().warning("purges may fail, or purged content live on; see `sweeper check`", hazards=texts)
