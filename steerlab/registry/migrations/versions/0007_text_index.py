"""The text index, which `Database` makes anew after every migration: it follows from the rows."""

from __future__ import annotations

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change no table."""
