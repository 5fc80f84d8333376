"""The first schema: models, vectors, directions, prompts, lineage and tags."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_RECIPE_WHOLE = (
    "(kind = 'contrast' AND method IS NOT NULL AND read IS NOT NULL AND chat IS NOT NULL"
    " AND expression IS NULL AND imported_from IS NULL)"
    " OR (kind = 'expression' AND expression IS NOT NULL"
    " AND method IS NULL AND imported_from IS NULL)"
    " OR (kind = 'imported' AND imported_from IS NOT NULL AND format IS NOT NULL"
    " AND quantity IS NOT NULL AND method IS NULL AND expression IS NULL)"
)


def _sqlite_only(condition: str, name: str) -> Any:
    return sa.CheckConstraint(condition, name=name).ddl_if(dialect="sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "model",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("identity", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("architecture", sa.String(), nullable=False),
        sa.Column("n_layers", sa.Integer(), nullable=False),
        sa.Column("d_model", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=True),
        sa.Column("revision", sa.String(), nullable=True),
        sa.Column("dtype", sa.String(), nullable=True),
        sa.Column("tokenizer", sa.String(), nullable=True),
        sa.Column("chat_template", sa.String(), nullable=True),
        sa.CheckConstraint("name <> ''", name=op.f("ck_model_name_given")),
        _sqlite_only("typeof(d_model) = 'integer'", op.f("ck_model_d_model_integer")),
        _sqlite_only("typeof(n_layers) = 'integer'", op.f("ck_model_n_layers_integer")),
        sa.CheckConstraint("d_model > 0", name=op.f("ck_model_d_model_positive")),
        sa.CheckConstraint("n_layers > 0", name=op.f("ck_model_n_layers_positive")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model")),
        sa.UniqueConstraint("identity", name=op.f("uq_model_identity")),
        sa.UniqueConstraint("name", name=op.f("uq_model_name")),
    )
    op.create_table(
        "vector",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("scope", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("norm", sa.Float(), nullable=False),
        sa.Column("created", sa.String(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("path", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("revision", sa.String(), nullable=True),
        sa.Column("dtype", sa.String(), nullable=True),
        sa.Column("tokenizer", sa.String(), nullable=True),
        sa.Column("chat_template", sa.String(), nullable=True),
        sa.Column("software", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=True),
        sa.Column("read", sa.String(), nullable=True),
        sa.Column("chat", sa.Boolean(), nullable=True),
        sa.Column("seed", sa.Integer(), nullable=True),
        sa.Column("expression", sa.Text(), nullable=True),
        sa.Column("imported_from", sa.String(), nullable=True),
        sa.Column("format", sa.String(), nullable=True),
        sa.Column("quantity", sa.String(), nullable=True),
        sa.CheckConstraint(_RECIPE_WHOLE, name=op.f("ck_vector_recipe_whole")),
        sa.CheckConstraint(
            "created LIKE '____-__-__T__:__:__.______+00:00'", name=op.f("ck_vector_created_utc")
        ),
        sa.CheckConstraint("name <> ''", name=op.f("ck_vector_name_given")),
        sa.CheckConstraint(
            "path NOT LIKE '/%' AND path NOT LIKE '%..%'", name=op.f("ck_vector_path_inside")
        ),
        sa.CheckConstraint("scope IN ('broadcast', 'front')", name=op.f("ck_vector_scope_known")),
        _sqlite_only("typeof(model_id) = 'integer'", op.f("ck_vector_model_id_integer")),
        _sqlite_only("typeof(norm) IN ('real')", op.f("ck_vector_norm_real")),
        _sqlite_only("typeof(version) = 'integer'", op.f("ck_vector_version_integer")),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_vector_digest_sha256")),
        sa.CheckConstraint("norm >= 0", name=op.f("ck_vector_norm_not_negative")),
        sa.CheckConstraint("version >= 1", name=op.f("ck_vector_version_from_1")),
        sa.ForeignKeyConstraint(["model_id"], ["model.id"], name=op.f("fk_vector_model_id_model")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vector")),
        sa.UniqueConstraint(
            "model_id", "name", "version", name=op.f("uq_vector_model_id_name_version")
        ),
    )
    op.create_index(op.f("ix_vector_created"), "vector", ["created"], unique=False)
    op.create_index(op.f("ix_vector_digest"), "vector", ["digest"], unique=False)
    op.create_index(op.f("ix_vector_path"), "vector", ["path"], unique=False)
    op.create_table(
        "baseline_prompt",
        sa.Column("vector_id", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        _sqlite_only("typeof(ordinal) = 'integer'", op.f("ck_baseline_prompt_ordinal_integer")),
        sa.ForeignKeyConstraint(
            ["vector_id"],
            ["vector.id"],
            name=op.f("fk_baseline_prompt_vector_id_vector"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("vector_id", "ordinal", name=op.f("pk_baseline_prompt")),
    )
    op.create_table(
        "contrast_pair",
        sa.Column("vector_id", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("positive", sa.Text(), nullable=True),
        sa.Column("negative", sa.Text(), nullable=True),
        sa.Column("positive_ids", sa.Text(), nullable=True),
        sa.Column("negative_ids", sa.Text(), nullable=True),
        _sqlite_only("typeof(ordinal) = 'integer'", op.f("ck_contrast_pair_ordinal_integer")),
        sa.CheckConstraint(
            "positive IS NOT NULL OR negative IS NOT NULL",
            name=op.f("ck_contrast_pair_prompt_given"),
        ),
        sa.ForeignKeyConstraint(
            ["vector_id"],
            ["vector.id"],
            name=op.f("fk_contrast_pair_vector_id_vector"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("vector_id", "ordinal", name=op.f("pk_contrast_pair")),
    )
    op.create_table(
        "direction",
        sa.Column("vector_id", sa.Integer(), nullable=False),
        sa.Column("layer", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("positions", sa.Integer(), nullable=False),
        sa.Column("norm", sa.Float(), nullable=False),
        sa.Column("residual_norm", sa.Float(), nullable=True),
        _sqlite_only("typeof(layer) = 'integer'", op.f("ck_direction_layer_integer")),
        _sqlite_only("typeof(norm) IN ('real')", op.f("ck_direction_norm_real")),
        _sqlite_only("typeof(positions) = 'integer'", op.f("ck_direction_positions_integer")),
        _sqlite_only(
            "typeof(residual_norm) IN ('real', 'null')", op.f("ck_direction_residual_norm_real")
        ),
        sa.CheckConstraint("layer >= 0", name=op.f("ck_direction_layer_from_0")),
        sa.CheckConstraint("norm >= 0", name=op.f("ck_direction_norm_not_negative")),
        sa.CheckConstraint("positions >= 1", name=op.f("ck_direction_positions_from_1")),
        sa.CheckConstraint(
            "residual_norm >= 0", name=op.f("ck_direction_residual_norm_not_negative")
        ),
        sa.ForeignKeyConstraint(
            ["vector_id"],
            ["vector.id"],
            name=op.f("fk_direction_vector_id_vector"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("vector_id", "layer", name=op.f("pk_direction")),
    )
    op.create_index(
        op.f("ix_direction_layer_vector_id"), "direction", ["layer", "vector_id"], unique=False
    )
    op.create_table(
        "operand",
        sa.Column("child_id", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("ref", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("parent_id", sa.Integer(), nullable=True),
        _sqlite_only("typeof(ordinal) = 'integer'", op.f("ck_operand_ordinal_integer")),
        sa.CheckConstraint("length(digest) = 64", name=op.f("ck_operand_digest_sha256")),
        sa.CheckConstraint("parent_id <> child_id", name=op.f("ck_operand_not_itself")),
        sa.ForeignKeyConstraint(
            ["child_id"], ["vector.id"], name=op.f("fk_operand_child_id_vector"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["vector.id"],
            name=op.f("fk_operand_parent_id_vector"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("child_id", "ordinal", name=op.f("pk_operand")),
        sa.UniqueConstraint("child_id", "ref", name=op.f("uq_operand_child_id_ref")),
    )
    op.create_index(op.f("ix_operand_digest"), "operand", ["digest"], unique=False)
    op.create_index(op.f("ix_operand_parent_id"), "operand", ["parent_id"], unique=False)
    op.create_table(
        "tag",
        sa.Column("vector_id", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(), nullable=False),
        sa.CheckConstraint("tag <> ''", name=op.f("ck_tag_tag_given")),
        sa.ForeignKeyConstraint(
            ["vector_id"], ["vector.id"], name=op.f("fk_tag_vector_id_vector"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("vector_id", "tag", name=op.f("pk_tag")),
    )
    op.create_index(op.f("ix_tag_tag"), "tag", ["tag"], unique=False)
    op.create_table(
        "diagnostic",
        sa.Column("vector_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("layer", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("value", sa.Float(), nullable=False),
        _sqlite_only("typeof(value) IN ('real')", op.f("ck_diagnostic_value_real")),
        sa.ForeignKeyConstraint(
            ["vector_id", "layer"],
            ["direction.vector_id", "direction.layer"],
            name=op.f("fk_diagnostic_vector_id_layer_direction"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("vector_id", "layer", "name", name=op.f("pk_diagnostic")),
    )
