"""Layers and tags of vectors have no row ids."""

from __future__ import annotations

from alembic import op

from steerlab.registry import text_index

revision = "0103"
down_revision = "0102"
branch_labels = None
depends_on = None

_DIRECTION = """
CREATE TABLE direction (
    vector_id INTEGER NOT NULL,
    layer INTEGER NOT NULL,
    positions INTEGER NOT NULL,
    norm FLOAT NOT NULL,
    residual_norm FLOAT,
    CONSTRAINT pk_direction PRIMARY KEY (vector_id, layer),
    CONSTRAINT ck_direction_layer_integer CHECK (typeof(layer) = 'integer'),
    CONSTRAINT ck_direction_positions_integer CHECK (typeof(positions) = 'integer'),
    CONSTRAINT ck_direction_norm_real CHECK (typeof(norm) IN ('real')),
    CONSTRAINT ck_direction_residual_norm_real CHECK (typeof(residual_norm) IN ('real', 'null')),
    CONSTRAINT ck_direction_layer_from_0 CHECK (layer >= 0),
    CONSTRAINT ck_direction_positions_from_1 CHECK (positions >= 1),
    CONSTRAINT ck_direction_norm_not_negative CHECK (norm >= 0),
    CONSTRAINT ck_direction_residual_norm_not_negative CHECK (residual_norm >= 0),
    CONSTRAINT fk_direction_vector_id_vector
        FOREIGN KEY(vector_id) REFERENCES vector (id) ON DELETE CASCADE
) WITHOUT ROWID
"""
_TAG = """
CREATE TABLE tag (
    vector_id INTEGER NOT NULL,
    tag VARCHAR NOT NULL,
    CONSTRAINT pk_tag PRIMARY KEY (vector_id, tag),
    CONSTRAINT ck_tag_tag_given CHECK (tag <> ''),
    CONSTRAINT fk_tag_vector_id_vector
        FOREIGN KEY(vector_id) REFERENCES vector (id) ON DELETE CASCADE
) WITHOUT ROWID
"""


def upgrade() -> None:
    """Copy both tables; the text index is made anew after every migration."""
    text_index.drop(op.get_bind())
    for table, statement, column in (("direction", _DIRECTION, "layer"), ("tag", _TAG, "tag")):
        op.execute(f"ALTER TABLE {table} RENAME TO earlier")
        op.execute(" ".join(statement.split()))
        op.execute(f"INSERT INTO {table} SELECT * FROM earlier")
        op.execute("DROP TABLE earlier")
        op.execute(f"CREATE INDEX ix_{table}_{column}_vector_id ON {table} ({column}, vector_id)")
