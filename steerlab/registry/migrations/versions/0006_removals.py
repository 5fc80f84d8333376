"""Versions that were removed, whose numbers are not given again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table; of what was removed before, nothing is known."""
    op.create_table(
        "removal",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("created", sa.String(), nullable=False),
        sa.CheckConstraint("typeof(version) = 'integer'", name=op.f("ck_removal_version_integer")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_removal_version_from_1")),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_removal_digest_sha256")),
        sa.CheckConstraint(
            "created LIKE '____-__-__T__:__:__.______+00:00'",
            name=op.f("ck_removal_created_utc"),
        ),
        sa.PrimaryKeyConstraint("name", "model", "version", name=op.f("pk_removal")),
    )
