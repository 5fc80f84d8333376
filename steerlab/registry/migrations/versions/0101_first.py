"""The first schema that is migrated; earlier ones are brought over by `earlier`."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0101"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables as SQLite was told to, constraint by constraint, when 0101 was new."""
    for statement in Path(__file__).with_suffix(".sql").read_text("utf-8").split(";\n"):
        if statement.strip():
            op.execute(statement)
