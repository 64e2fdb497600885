"""What in a store would keep a DELETE from doing what it says: triggers, rules, keys, row security, children unknown."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection

from sweeper.store.contract import Key
from sweeper.store.finding import Finding, Level, fault, warning
from sweeper.store.scene import Relation, Scene, quoted_if_odd
from sweeper.store.statement import statement


@dataclass(frozen=True)
class Hazard:
    """What a key's action means for the purge, and the action that mends it; `{…}` is filled in."""

    level: Level
    text: str
    mend: str = ""


SLOWER = "{key} of {table} does not cascade: its rows are deleted one statement earlier, which is slower."
LOST = "{key} of {table} would set its columns to {value}, but the purge deletes its rows with their conversation."
BLOCKS = "{key} of {table} keeps a conversation from being deleted while another one points to it."
KEYS: Mapping[tuple[str, bool], Hazard] = {
    ("a", False): Hazard(Level.OK, SLOWER),
    ("r", False): Hazard(Level.OK, SLOWER),
    ("n", False): Hazard(Level.WARNING, LOST, "CASCADE"),
    ("d", False): Hazard(Level.WARNING, LOST, "CASCADE"),
    ("a", True): Hazard(Level.WARNING, BLOCKS, "SET NULL"),
    ("r", True): Hazard(Level.WARNING, BLOCKS, "SET NULL"),
    ("c", True): Hazard(
        Level.WARNING,
        "{key} of {table} would take other conversations along, so that the batch is refused.",
        "SET NULL",
    ),
}
"""By ON DELETE action (a: NO ACTION, r: RESTRICT, n: SET NULL, d: SET DEFAULT, c: CASCADE) and whether the key leads back."""
FEEDBACK = Hazard(
    Level.WARNING, "{key} of {table} keeps feedback from being deleted while a row points to it.", "CASCADE"
)


def triggers(scene: Scene, connection: Connection) -> Iterator[Finding]:
    """Row triggers that may keep rows back."""
    for row in connection.execute(statement("check_triggers"), {"oids": _with_partitions(scene, connection)}):
        yield warning(
            f"trigger {row.trigger}",
            f"{row.trigger} on {row.table} runs before each DELETE and keeps the row if it returns NULL.",
            f"ALTER TABLE {row.table} DISABLE TRIGGER {row.trigger};",
        )


def rules(scene: Scene, connection: Connection) -> Iterator[Finding]:
    """Rewrite rules that replace a DELETE or add to it."""
    for row in connection.execute(statement("check_rules"), {"oids": _with_partitions(scene, connection)}):
        say, does = (fault, "replaces") if row.is_instead else (warning, "adds to")
        text = f"the rule {row.rule} on {row.table} {does} every DELETE."
        yield say(f"rule {row.rule}", text, f"DROP RULE {row.rule} ON {row.table};")


def disabled(scene: Scene, connection: Connection) -> Iterator[Finding]:
    """Foreign keys whose triggers are switched off."""
    for row in connection.execute(statement("check_disabled"), {"oids": _with_partitions(scene, connection)}):
        yield fault(
            f"key {row.key}",
            f"a trigger by which {row.key} works is switched off on {row.table}: children would stay behind.",
            f"ALTER TABLE {row.table} ENABLE TRIGGER {row.trigger};",
        )


def security(scene: Scene, connection: Connection) -> Iterator[Finding]:
    """Row-level security that hides rows from the role."""
    oids = sorted({*scene.touched, *(relation.oid for relation in scene.relations.values() if relation.is_table)})
    for row in connection.execute(statement("check_touched"), {"oids": oids}):
        if row.secured:
            yield fault(
                f"row security {row.name}",
                f"row-level security on {row.name} applies to {scene.role}, who would not see every row.",
                f"ALTER ROLE {scene.role} BYPASSRLS;",
            )


def keys(scene: Scene, _: Connection) -> Iterator[Finding]:
    """Foreign keys whose ON DELETE action is not what a purge expects."""
    if scene.root:
        below = {key.oid for branch in scene.family for key in branch.path}
        for parent, key in scene.every_key:
            hazard = KEYS.get((key.stored_action, key.leads_back))
            if hazard and (key.oid in below or key.leads_back):
                yield _said(hazard, parent, key)
    for key in scene.feedback.children if scene.feedback else ():
        if key.action == "explicit" and scene.feedback:
            yield _said(FEEDBACK, scene.feedback.table, key)


def _said(hazard: Hazard, parent: str, key: Key) -> Finding:
    name = quoted_if_odd(key.name)
    text = hazard.text.format(key=name, table=key.table, value="NULL" if key.stored_action == "n" else "their default")
    own, theirs = (", ".join(map(quoted_if_odd, columns)) for columns in (key.columns, key.parent_columns))
    remedy = (
        f"ALTER TABLE {key.table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} "
        f"FOREIGN KEY ({own}) REFERENCES {parent} ({theirs}) ON DELETE {hazard.mend};"
    )
    return Finding(hazard.level, f"key {name}", text, remedy if hazard.mend else "")


def children(scene: Scene, connection: Connection) -> Iterator[Finding]:
    """Tables that look like children of a conversation but that no purge reaches."""
    if scene.root is None:
        return
    reached = {scene.root.oid, *(branch.key.oid for branch in scene.family)}
    unreached = [*_unreached(scene, reached)]
    for relation, name in unreached:
        yield fault(
            f"children {relation.name}",
            f"{name} is read from {relation.name}, which no foreign key ties to {scene.root.table}: its rows would stay.",
            _snippet(relation.name.replace('"', ""), "conversation_id"),
        )
    feedback = {relation.oid for relation in scene.behind.get("feedback", ())}
    feedback |= {scene.feedback.oid} if scene.feedback else set()
    names = {"conversationid", *(_bare(key.columns[0]) for b in scene.family for key in b.path[:1])} - {"id"}
    asked = {
        "schema": scene.schema,
        "oids": sorted(reached),
        "known": sorted(reached | feedback | {relation.oid for relation, _ in unreached}),
        "names": sorted(names),
    }
    for row in connection.execute(statement("check_unkeyed"), asked):
        yield warning(
            f"children {row.table}",
            f"{row.table} has a column {row.column} without a foreign key: its rows stay when their conversation goes.",
            _snippet(row.setting, row.column),
        )


def _unreached(scene: Scene, reached: set[int]) -> Iterator[tuple[Relation, str]]:
    """The tables behind messages and attachments where none of them is below conversations."""
    below = reached - {scene.root.oid if scene.root else 0}
    for name in ("messages", "attachments"):
        tables = scene.behind.get(name, ())
        if tables and not any(relation.oid in below for relation in tables):
            yield from ((relation, name) for relation in tables if relation.oid not in reached)


def _snippet(table: str, key: str) -> str:
    return f'[[purge.children]]\ntable = "{table}"\nkey = "{key}"'


def _bare(column: str) -> str:
    return column.replace("_", "").lower()


def _with_partitions(scene: Scene, connection: Connection) -> list[int]:
    return [row.oid for row in connection.execute(statement("check_touched"), {"oids": scene.touched})]
