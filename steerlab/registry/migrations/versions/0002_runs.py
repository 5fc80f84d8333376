"""Runs: the texts that were written with a vector, and what decided them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _sqlite_only(condition: str, name: str) -> Any:
    return sa.CheckConstraint(condition, name=name).ddl_if(dialect="sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created", sa.String(), nullable=False),
        sa.Column("expression", sa.Text(), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("layers", sa.String(), nullable=False),
        sa.Column("positions", sa.String(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("chat", sa.Boolean(), nullable=False),
        sa.Column("max_new_tokens", sa.Integer(), nullable=False),
        sa.Column("temperature", sa.Float(), nullable=False),
        sa.Column("top_p", sa.Float(), nullable=False),
        sa.Column("top_k", sa.Integer(), nullable=False),
        sa.Column("repetition_penalty", sa.Float(), nullable=False),
        sa.Column("best", sa.Integer(), nullable=True),
        _sqlite_only("typeof(seed) = 'integer'", op.f("ck_run_seed_integer")),
        _sqlite_only("typeof(max_new_tokens) = 'integer'", op.f("ck_run_max_new_tokens_integer")),
        _sqlite_only("typeof(top_k) = 'integer'", op.f("ck_run_top_k_integer")),
        sa.CheckConstraint("max_new_tokens >= 1", name=op.f("ck_run_max_new_tokens_from_1")),
        sa.CheckConstraint(
            "created LIKE '____-__-__T__:__:__.______+00:00'", name=op.f("ck_run_created_utc")
        ),
        sa.CheckConstraint(
            "positions IN ('all', 'prompt', 'generated', 'continuation')",
            name=op.f("ck_run_positions_known"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_run")),
    )
    op.create_index(op.f("ix_run_created"), "run", ["created"], unique=False)
    op.create_table(
        "generation",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("coefficient", sa.Float(), nullable=False),
        sa.Column("dose", sa.Float(), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("finish", sa.String(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        _sqlite_only("typeof(ordinal) = 'integer'", op.f("ck_generation_ordinal_integer")),
        _sqlite_only("typeof(tokens) = 'integer'", op.f("ck_generation_tokens_integer")),
        _sqlite_only("typeof(coefficient) IN ('real')", op.f("ck_generation_coefficient_real")),
        _sqlite_only("typeof(dose) IN ('real', 'null')", op.f("ck_generation_dose_real")),
        sa.CheckConstraint("tokens >= 0", name=op.f("ck_generation_tokens_not_negative")),
        sa.CheckConstraint(
            "finish IN ('stop', 'length', 'cancelled')", name=op.f("ck_generation_finish_known")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_generation_run_id_run"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "ordinal", name=op.f("pk_generation")),
    )
    op.create_table(
        "run_operand",
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("ref", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=True),
        sa.Column("vector_id", sa.Integer(), nullable=True),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_run_operand_digest_sha256")),
        sa.ForeignKeyConstraint(
            ["run_id"], ["run.id"], name=op.f("fk_run_operand_run_id_run"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["vector_id"],
            ["vector.id"],
            name=op.f("fk_run_operand_vector_id_vector"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("run_id", "ref", name=op.f("pk_run_operand")),
    )
    op.create_index(op.f("ix_run_operand_digest"), "run_operand", ["digest"], unique=False)
    op.create_index(
        op.f("ix_run_operand_vector_id_run_id"),
        "run_operand",
        ["vector_id", "run_id"],
        unique=False,
    )
