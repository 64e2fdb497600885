"""A revision's SQL lies beside it, in a file of the same name."""

from pathlib import Path

from alembic import op


def run_beside(revision: str) -> None:
    """Run the SQL file beside a revision's own file."""
    run(Path(revision).with_suffix(".sql").read_text(encoding="utf-8"))


def run(script: str) -> None:
    """Run some statements as written: a percent sign or a colon in them is no parameter."""
    driver = op.get_bind().connection.driver_connection
    assert driver is not None  # noqa: S101 — Alembic's offline mode, which we never use, has none
    driver.execute(script)
