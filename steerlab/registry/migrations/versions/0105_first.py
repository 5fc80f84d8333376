"""The first schema that is migrated; stores before it are brought over by `earlier`."""

from __future__ import annotations

revision = "0105"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change no table: a store begins with these, which `tests/stores/0105.sql` has as text."""
