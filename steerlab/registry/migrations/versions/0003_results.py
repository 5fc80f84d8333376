"""What was measured: sweeps and their cells, calibrations, evaluations."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _sqlite_only(condition: str, name: str) -> Any:
    return sa.CheckConstraint(condition, name=name).ddl_if(dialect="sqlite")


def upgrade() -> None:
    """Make the tables."""
    _plans()
    _axes()
    _cells()
    _calibrations()
    _evaluations()


def _plans() -> None:
    """A sweep, and the vectors that it names."""
    op.create_table(
        "sweep",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("plan_digest", sa.String(), nullable=False),
        sa.Column("created", sa.String(), nullable=False),
        sa.Column("expression", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("model_key", sa.String(), nullable=False),
        sa.Column("strength", sa.String(), nullable=False),
        sa.Column("positions", sa.String(), nullable=False),
        sa.Column("chat", sa.Boolean(), nullable=False),
        sa.Column("max_new_tokens", sa.Integer(), nullable=False),
        sa.Column("temperature", sa.Float(), nullable=False),
        sa.Column("top_p", sa.Float(), nullable=False),
        sa.Column("top_k", sa.Integer(), nullable=False),
        sa.Column("repetition_penalty", sa.Float(), nullable=False),
        sa.CheckConstraint(
            "created LIKE '____-__-__T__:__:__.______+00:00'", name=op.f("ck_sweep_created_utc")
        ),
        sa.CheckConstraint("model_key <> ''", name=op.f("ck_sweep_model_key_given")),
        sa.CheckConstraint(
            "positions IN ('all', 'prompt', 'generated', 'continuation')",
            name=op.f("ck_sweep_positions_known"),
        ),
        sa.CheckConstraint(
            "strength IN ('dose', 'coefficient')", name=op.f("ck_sweep_strength_known")
        ),
        _sqlite_only("typeof(max_new_tokens) = 'integer'", op.f("ck_sweep_max_new_tokens_integer")),
        _sqlite_only(
            "typeof(repetition_penalty) IN ('real')", op.f("ck_sweep_repetition_penalty_real")
        ),
        _sqlite_only("typeof(temperature) IN ('real')", op.f("ck_sweep_temperature_real")),
        _sqlite_only("typeof(top_k) = 'integer'", op.f("ck_sweep_top_k_integer")),
        _sqlite_only("typeof(top_p) IN ('real')", op.f("ck_sweep_top_p_real")),
        _sqlite_only("chat IN (0, 1)", op.f("ck_sweep_chat_flag")),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_sweep_digest_sha256")),
        sa.CheckConstraint("length(plan_digest) = 64", name=op.f("ck_sweep_plan_digest_sha256")),
        sa.CheckConstraint("max_new_tokens >= 1", name=op.f("ck_sweep_max_new_tokens_from_1")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sweep")),
        sa.UniqueConstraint("plan_digest", name=op.f("uq_sweep_plan_digest")),
    )
    op.create_index(op.f("ix_sweep_created"), "sweep", ["created"], unique=False)
    op.create_index(op.f("ix_sweep_digest"), "sweep", ["digest"], unique=False)
    op.create_table(
        "sweep_operand",
        sa.Column("sweep_id", sa.Integer(), nullable=False),
        sa.Column("ref", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=True),
        sa.Column("vector_id", sa.Integer(), nullable=True),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_sweep_operand_digest_sha256")),
        sa.ForeignKeyConstraint(
            ["sweep_id"],
            ["sweep.id"],
            name=op.f("fk_sweep_operand_sweep_id_sweep"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["vector_id"],
            ["vector.id"],
            name=op.f("fk_sweep_operand_vector_id_vector"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("sweep_id", "ref", name=op.f("pk_sweep_operand")),
    )
    op.create_index(op.f("ix_sweep_operand_digest"), "sweep_operand", ["digest"], unique=False)
    op.create_index(
        op.f("ix_sweep_operand_vector_id_sweep_id"),
        "sweep_operand",
        ["vector_id", "sweep_id"],
        unique=False,
    )


def _axes() -> None:
    """Its settings, prompts and seeds."""
    op.create_table(
        "sweep_setting",
        sa.Column("sweep_id", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("layer", sa.Integer(), nullable=True),
        sa.Column("strength", sa.Float(), nullable=False),
        sa.Column("coefficient", sa.Float(), nullable=False),
        sa.Column("dose", sa.Float(), nullable=True),
        _sqlite_only("typeof(coefficient) IN ('real')", op.f("ck_sweep_setting_coefficient_real")),
        _sqlite_only("typeof(dose) IN ('real', 'null')", op.f("ck_sweep_setting_dose_real")),
        _sqlite_only(
            "typeof(layer) IN ('integer', 'null')", op.f("ck_sweep_setting_layer_integer")
        ),
        _sqlite_only("typeof(ordinal) = 'integer'", op.f("ck_sweep_setting_ordinal_integer")),
        _sqlite_only("typeof(strength) IN ('real')", op.f("ck_sweep_setting_strength_real")),
        sa.CheckConstraint(
            "(layer IS NULL) = (strength = 0)", name=op.f("ck_sweep_setting_baseline_without_layer")
        ),
        sa.CheckConstraint("layer >= 0", name=op.f("ck_sweep_setting_layer_from_0")),
        sa.CheckConstraint(
            "layer IS NOT NULL OR ordinal = 0", name=op.f("ck_sweep_setting_one_baseline")
        ),
        sa.ForeignKeyConstraint(
            ["sweep_id"],
            ["sweep.id"],
            name=op.f("fk_sweep_setting_sweep_id_sweep"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sweep_id", "ordinal", name=op.f("pk_sweep_setting")),
        sa.UniqueConstraint(
            "sweep_id", "layer", "strength", name=op.f("uq_sweep_setting_sweep_id_layer_strength")
        ),
    )
    op.create_table(
        "sweep_prompt",
        sa.Column("sweep_id", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        _sqlite_only("typeof(ordinal) = 'integer'", op.f("ck_sweep_prompt_ordinal_integer")),
        sa.ForeignKeyConstraint(
            ["sweep_id"],
            ["sweep.id"],
            name=op.f("fk_sweep_prompt_sweep_id_sweep"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sweep_id", "ordinal", name=op.f("pk_sweep_prompt")),
    )
    op.create_table(
        "sweep_seed",
        sa.Column("sweep_id", sa.Integer(), nullable=False),
        sa.Column("seed", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        _sqlite_only("typeof(ordinal) = 'integer'", op.f("ck_sweep_seed_ordinal_integer")),
        _sqlite_only("typeof(seed) = 'integer'", op.f("ck_sweep_seed_seed_integer")),
        sa.ForeignKeyConstraint(
            ["sweep_id"],
            ["sweep.id"],
            name=op.f("fk_sweep_seed_sweep_id_sweep"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sweep_id", "seed", name=op.f("pk_sweep_seed")),
        sa.UniqueConstraint("sweep_id", "ordinal", name=op.f("uq_sweep_seed_sweep_id_ordinal")),
    )


def _cells() -> None:
    """A text for one of each, and what was measured of it."""
    op.create_table(
        "cell",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("sweep_id", sa.Integer(), nullable=False),
        sa.Column("setting", sa.Integer(), nullable=False),
        sa.Column("prompt", sa.Integer(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("finish", sa.String(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.CheckConstraint("finish IN ('stop', 'length')", name=op.f("ck_cell_finish_whole")),
        _sqlite_only("typeof(tokens) = 'integer'", op.f("ck_cell_tokens_integer")),
        sa.CheckConstraint("tokens >= 0", name=op.f("ck_cell_tokens_not_negative")),
        sa.ForeignKeyConstraint(
            ["sweep_id", "prompt"],
            ["sweep_prompt.sweep_id", "sweep_prompt.ordinal"],
            name=op.f("fk_cell_sweep_id_prompt_sweep_prompt"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["sweep_id", "seed"],
            ["sweep_seed.sweep_id", "sweep_seed.seed"],
            name=op.f("fk_cell_sweep_id_seed_sweep_seed"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["sweep_id", "setting"],
            ["sweep_setting.sweep_id", "sweep_setting.ordinal"],
            name=op.f("fk_cell_sweep_id_setting_sweep_setting"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cell")),
        sa.UniqueConstraint(
            "sweep_id",
            "setting",
            "prompt",
            "seed",
            name=op.f("uq_cell_sweep_id_setting_prompt_seed"),
        ),
    )
    op.create_table(
        "cell_metric",
        sa.Column("cell_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.CheckConstraint("name <> ''", name=op.f("ck_cell_metric_name_given")),
        _sqlite_only("typeof(value) IN ('real', 'null')", op.f("ck_cell_metric_value_real")),
        sa.CheckConstraint(
            "value IS NULL OR reason IS NULL", name=op.f("ck_cell_metric_value_or_reason")
        ),
        sa.ForeignKeyConstraint(
            ["cell_id"], ["cell.id"], name=op.f("fk_cell_metric_cell_id_cell"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("cell_id", "name", name=op.f("pk_cell_metric")),
    )


def _calibrations() -> None:
    """Where a vector works best."""
    op.create_table(
        "calibration",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("vector_id", sa.Integer(), nullable=True),
        sa.Column("created", sa.String(), nullable=False),
        sa.Column("works", sa.Boolean(), nullable=False),
        sa.Column("layer", sa.Integer(), nullable=True),
        sa.Column("dose", sa.Float(), nullable=True),
        sa.Column("coefficient", sa.Float(), nullable=True),
        sa.Column("safe_low", sa.Float(), nullable=True),
        sa.Column("safe_high", sa.Float(), nullable=True),
        sa.Column("data", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "created LIKE '____-__-__T__:__:__.______+00:00'",
            name=op.f("ck_calibration_created_utc"),
        ),
        _sqlite_only(
            "typeof(coefficient) IN ('real', 'null')", op.f("ck_calibration_coefficient_real")
        ),
        _sqlite_only("typeof(dose) IN ('real', 'null')", op.f("ck_calibration_dose_real")),
        _sqlite_only("typeof(layer) IN ('integer', 'null')", op.f("ck_calibration_layer_integer")),
        _sqlite_only(
            "typeof(safe_high) IN ('real', 'null')", op.f("ck_calibration_safe_high_real")
        ),
        _sqlite_only("typeof(safe_low) IN ('real', 'null')", op.f("ck_calibration_safe_low_real")),
        sa.CheckConstraint(
            "(safe_low IS NULL) = (safe_high IS NULL)", name=op.f("ck_calibration_safe_both")
        ),
        sa.CheckConstraint(
            "NOT works OR (layer IS NOT NULL AND dose IS NOT NULL AND coefficient IS NOT NULL"
            " AND safe_low IS NOT NULL)",
            name=op.f("ck_calibration_works_somewhere"),
        ),
        sa.CheckConstraint("layer >= 0", name=op.f("ck_calibration_layer_from_0")),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_calibration_digest_sha256")),
        sa.CheckConstraint("safe_low <= safe_high", name=op.f("ck_calibration_safe_in_order")),
        _sqlite_only("works IN (0, 1)", op.f("ck_calibration_works_flag")),
        sa.ForeignKeyConstraint(
            ["vector_id"],
            ["vector.id"],
            name=op.f("fk_calibration_vector_id_vector"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calibration")),
    )
    op.create_index(
        op.f("ix_calibration_digest_created"), "calibration", ["digest", "created"], unique=False
    )
    op.create_index(op.f("ix_calibration_vector_id"), "calibration", ["vector_id"], unique=False)


def _evaluations() -> None:
    """Whether a vector carries over."""
    op.create_table(
        "evaluation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("vector_id", sa.Integer(), nullable=True),
        sa.Column("created", sa.String(), nullable=False),
        sa.Column("suite", sa.String(), nullable=False),
        sa.Column("suite_digest", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("model_key", sa.String(), nullable=False),
        sa.Column("versions", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "created LIKE '____-__-__T__:__:__.______+00:00'",
            name=op.f("ck_evaluation_created_utc"),
        ),
        sa.CheckConstraint("model_key <> ''", name=op.f("ck_evaluation_model_key_given")),
        sa.CheckConstraint("suite <> ''", name=op.f("ck_evaluation_suite_given")),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_evaluation_digest_sha256")),
        sa.CheckConstraint(
            "length(suite_digest) = 64", name=op.f("ck_evaluation_suite_digest_sha256")
        ),
        sa.ForeignKeyConstraint(
            ["vector_id"],
            ["vector.id"],
            name=op.f("fk_evaluation_vector_id_vector"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluation")),
    )
    op.create_index(
        op.f("ix_evaluation_digest_created"), "evaluation", ["digest", "created"], unique=False
    )
    op.create_index(op.f("ix_evaluation_vector_id"), "evaluation", ["vector_id"], unique=False)
    op.create_table(
        "evaluation_value",
        sa.Column("evaluation_id", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("style", sa.String(), nullable=False),
        sa.Column("metric", sa.String(), nullable=False),
        sa.Column("setting", sa.String(), nullable=False),
        sa.Column("estimate", sa.Float(), nullable=True),
        sa.Column("low", sa.Float(), nullable=True),
        sa.Column("high", sa.Float(), nullable=True),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.CheckConstraint("metric <> ''", name=op.f("ck_evaluation_value_metric_given")),
        _sqlite_only(
            "typeof(estimate) IN ('real', 'null')", op.f("ck_evaluation_value_estimate_real")
        ),
        _sqlite_only("typeof(high) IN ('real', 'null')", op.f("ck_evaluation_value_high_real")),
        _sqlite_only("typeof(low) IN ('real', 'null')", op.f("ck_evaluation_value_low_real")),
        _sqlite_only("typeof(n) = 'integer'", op.f("ck_evaluation_value_n_integer")),
        _sqlite_only("typeof(ordinal) = 'integer'", op.f("ck_evaluation_value_ordinal_integer")),
        sa.CheckConstraint("low <= high", name=op.f("ck_evaluation_value_interval_in_order")),
        sa.CheckConstraint("n >= 0", name=op.f("ck_evaluation_value_n_not_negative")),
        sa.ForeignKeyConstraint(
            ["evaluation_id"],
            ["evaluation.id"],
            name=op.f("fk_evaluation_value_evaluation_id_evaluation"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("evaluation_id", "ordinal", name=op.f("pk_evaluation_value")),
        sa.UniqueConstraint(
            "evaluation_id",
            "style",
            "metric",
            "setting",
            name=op.f("uq_evaluation_value_evaluation_id_style_metric_setting"),
        ),
    )
