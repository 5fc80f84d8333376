"""A log of changes that can be undone."""

from __future__ import annotations

from alembic import op

revision = "0104"
down_revision = "0103"
branch_labels = None
depends_on = None

_UNDO = """
CREATE TABLE undo (
    id INTEGER NOT NULL,
    created VARCHAR NOT NULL,
    what VARCHAR NOT NULL,
    text TEXT NOT NULL,
    undone BOOLEAN NOT NULL,
    steps TEXT NOT NULL,
    CONSTRAINT pk_undo PRIMARY KEY (id),
    CONSTRAINT ck_undo_undone_flag CHECK (undone IN (0, 1)),
    CONSTRAINT ck_undo_what_known CHECK (what IN ('tag', 'note', 'rename', 'remove')),
    CONSTRAINT ck_undo_created_utc CHECK (created LIKE '____-__-__T__:__:__.______+00:00')
)
"""


def upgrade() -> None:
    """Create the table."""
    op.execute(" ".join(_UNDO.split()))
