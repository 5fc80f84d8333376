"""How an evaluation was measured, so that it can be run again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("evaluation", sa.Column("data", sa.Text(), nullable=True))
