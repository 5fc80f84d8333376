"""What lists are filtered and sorted by, where an index holds it together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_LISTING = ["newest", "model_id", "name", "version", "kind", "first_layer", "norm", "created"]


def upgrade() -> None:
    """Add what follows from other rows, and the indices."""
    newest: sa.Column[bool] = sa.Column("newest", sa.Boolean(), nullable=False, server_default="1")
    first_layer = sa.Column("first_layer", sa.Integer(), nullable=False, server_default="0")
    op.add_column("vector", newest)
    op.add_column("vector", first_layer)
    op.execute(
        "UPDATE vector SET first_layer ="
        " (SELECT min(layer) FROM direction WHERE direction.vector_id = vector.id),"
        " newest = NOT EXISTS (SELECT 1 FROM vector AS newer"
        " WHERE newer.model_id = vector.model_id AND newer.name = vector.name"
        " AND newer.version > vector.version)"
    )
    op.create_index("ix_vector_listing", "vector", _LISTING)
    op.create_index(op.f("ix_vector_name"), "vector", ["name"])
    op.drop_index(op.f("ix_tag_tag"), "tag")
    op.create_index(op.f("ix_tag_tag_vector_id"), "tag", ["tag", "vector_id"])
