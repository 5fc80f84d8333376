"""A text of a run may have its own expression and a rating."""

from __future__ import annotations

from alembic import op

revision = "0105"
down_revision = "0104"
branch_labels = None
depends_on = None

_GENERATION = """
CREATE TABLE generation (
    run_id INTEGER NOT NULL,
    ordinal INTEGER NOT NULL,
    coefficient FLOAT NOT NULL,
    dose FLOAT,
    text TEXT NOT NULL,
    finish VARCHAR NOT NULL,
    tokens INTEGER NOT NULL,
    operation VARCHAR DEFAULT 'add' NOT NULL,
    parameters TEXT DEFAULT '{}' NOT NULL,
    layers VARCHAR,
    positions VARCHAR,
    condition TEXT,
    expression VARCHAR,
    rating INTEGER,
    CONSTRAINT pk_generation PRIMARY KEY (run_id, ordinal),
    CONSTRAINT ck_generation_ordinal_integer CHECK (typeof(ordinal) = 'integer'),
    CONSTRAINT ck_generation_tokens_integer CHECK (typeof(tokens) = 'integer'),
    CONSTRAINT ck_generation_rating_integer CHECK (typeof(rating) IN ('integer', 'null')),
    CONSTRAINT ck_generation_coefficient_real CHECK (typeof(coefficient) IN ('real')),
    CONSTRAINT ck_generation_dose_real CHECK (typeof(dose) IN ('real', 'null')),
    CONSTRAINT ck_generation_tokens_not_negative CHECK (tokens >= 0),
    CONSTRAINT ck_generation_rating_from_1_to_5 CHECK (rating BETWEEN 1 AND 5),
    CONSTRAINT ck_generation_finish_known CHECK (finish IN ('stop', 'length', 'cancelled')),
    CONSTRAINT ck_generation_positions_known
        CHECK (positions IN ('all', 'prompt', 'generated', 'continuation')),
    CONSTRAINT ck_generation_operation_given CHECK (operation <> ''),
    CONSTRAINT fk_generation_run_id_run
        FOREIGN KEY(run_id) REFERENCES run (id) ON DELETE CASCADE
)
"""
_COPIED = (
    "run_id, ordinal, coefficient, dose, text, finish, tokens, operation, parameters, layers, "
    "positions, condition"
)


def upgrade() -> None:
    """Copy the table."""
    op.execute("ALTER TABLE generation RENAME TO earlier")
    op.execute(" ".join(_GENERATION.split()))
    op.execute(f"INSERT INTO generation ({_COPIED}) SELECT {_COPIED} FROM earlier")
    op.execute("DROP TABLE earlier")
