"""The text index holds no positions; it is made anew after every migration."""

from __future__ import annotations

revision = "0102"
down_revision = "0101"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change no table."""
