"""The tables: columns and constraints only. Queries go through `TABLE` names with core SQL.

model ──< vector ──< direction ──< diagnostic
                ├──< contrast_pair, baseline_prompt     the prompts of a Contrast
                ├──< operand >── vector                 lineage: child -> parent record
                └──< tag
run ──< generation              texts that were written: in the registry alone, kept by rebuild
    └──< run_operand >── vector  what the run's expression names

Every change here needs a migration; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING))):
    """Our own metadata: a program's other SQLModel tables never land in the store."""


def _vector_id(**column: Any) -> Any:
    key = ForeignKey("vector.id", ondelete="CASCADE")
    return Field(sa_column=Column(Integer, key, primary_key=True, **column))


def _run_id() -> Any:
    key = ForeignKey("run.id", ondelete="CASCADE")
    return Field(sa_column=Column(Integer, key, primary_key=True))


def _check(condition: str, name: str) -> CheckConstraint:
    return CheckConstraint(condition, name=name)


def _whole(column: str) -> Any:
    """SQLite stores 'abc' in an INTEGER column unless told not to; PostgreSQL does not."""
    check = CheckConstraint(f"typeof({column}) = 'integer'", name=f"{column}_integer")
    return check.ddl_if(dialect="sqlite")


def _real(column: str, *, null: bool = False) -> Any:
    kinds = "('real', 'null')" if null else "('real')"
    check = CheckConstraint(f"typeof({column}) IN {kinds}", name=f"{column}_real")
    return check.ddl_if(dialect="sqlite")


class ModelRow(Base, table=True):
    """A model that vectors belong to; `identity` is its key as one text."""

    __tablename__ = "model"
    __table_args__ = (
        _whole("n_layers"),
        _whole("d_model"),
        _check("n_layers > 0", "n_layers_positive"),
        _check("d_model > 0", "d_model_positive"),
        _check("name <> ''", "name_given"),
    )

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(sa_type=String, unique=True)
    identity: str = Field(sa_type=String, unique=True)
    source: str
    architecture: str
    n_layers: int
    d_model: int
    fingerprint: str | None = None
    revision: str | None = None
    dtype: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None


class VectorRow(Base, table=True):
    """One version of one vector, its recipe's plain fields, and where its payload lies.

    source, revision, dtype, tokenizer, chat_template: of the very model it was made on,
    which may be another copy of the same weights than the model row's.
    read: JSON, "last", "mean" or a number. software: JSON. path: relative to the store.
    """

    __tablename__ = "vector"
    __table_args__ = (
        UniqueConstraint("model_id", "name", "version"),
        Index(None, "digest"),
        Index(None, "path"),
        Index(None, "created"),
        _whole("version"),
        _whole("model_id"),
        _real("norm"),
        _check("version >= 1", "version_from_1"),
        _check("norm >= 0", "norm_not_negative"),
        _check("name <> ''", "name_given"),
        _check("length(digest) = 64", "digest_sha256"),
        _check("scope IN ('broadcast', 'front')", "scope_known"),
        _check("created LIKE '____-__-__T__:__:__.______+00:00'", "created_utc"),
        _check("path NOT LIKE '/%' AND path NOT LIKE '%..%'", "path_inside"),
        _check(
            "(kind = 'contrast' AND method IS NOT NULL AND read IS NOT NULL AND chat IS NOT NULL"
            " AND expression IS NULL AND imported_from IS NULL)"
            " OR (kind = 'expression' AND expression IS NOT NULL"
            " AND method IS NULL AND imported_from IS NULL)"
            " OR (kind = 'imported' AND imported_from IS NOT NULL AND format IS NOT NULL"
            " AND quantity IS NOT NULL AND method IS NULL AND expression IS NULL)",
            "recipe_whole",
        ),
    )

    id: int | None = Field(default=None, primary_key=True)
    model_id: int = Field(sa_column=Column(Integer, ForeignKey("model.id"), nullable=False))
    name: str
    version: int
    digest: str
    scope: str
    kind: str
    norm: float = Field(sa_type=Float)
    created: str
    note: str = Field(sa_type=Text)
    summary: str = Field(sa_type=Text)
    path: str
    key: str
    source: str
    revision: str | None = None
    dtype: str | None = None
    tokenizer: str | None = None
    chat_template: str | None = None
    software: str
    method: str | None = None
    read: str | None = None
    chat: bool | None = None
    seed: int | None = None
    expression: str | None = Field(default=None, sa_type=Text)
    imported_from: str | None = None
    format: str | None = None
    quantity: str | None = None


class DirectionRow(Base, table=True):
    """What is known of one layer of a vector; residual_norm NULL means never measured."""

    __tablename__ = "direction"
    __table_args__ = (
        _whole("layer"),
        _whole("positions"),
        _real("norm"),
        _real("residual_norm", null=True),
        _check("layer >= 0", "layer_from_0"),
        _check("positions >= 1", "positions_from_1"),
        _check("norm >= 0", "norm_not_negative"),
        _check("residual_norm >= 0", "residual_norm_not_negative"),
        Index(None, "layer", "vector_id"),
    )

    vector_id: int = _vector_id()
    layer: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    positions: int
    norm: float = Field(sa_type=Float)
    residual_norm: float | None = Field(default=None, sa_type=Float)


class DiagnosticRow(Base, table=True):
    """A named measurement made at extraction, of one layer."""

    __tablename__ = "diagnostic"
    __table_args__ = (
        ForeignKeyConstraint(
            ["vector_id", "layer"], ["direction.vector_id", "direction.layer"], ondelete="CASCADE"
        ),
        _real("value"),
    )

    vector_id: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    layer: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    name: str = Field(primary_key=True)
    value: float = Field(sa_type=Float)


class ContrastPairRow(Base, table=True):
    """The prompts of a pair; one side is NULL for methods that need no negative.

    *_ids: the token ids that were read, a JSON list; NULL where they were not kept.
    """

    __tablename__ = "contrast_pair"
    __table_args__ = (
        _whole("ordinal"),
        _check("positive IS NOT NULL OR negative IS NOT NULL", "prompt_given"),
    )

    vector_id: int = _vector_id()
    ordinal: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    positive: str | None = Field(default=None, sa_type=Text)
    negative: str | None = Field(default=None, sa_type=Text)
    positive_ids: str | None = Field(default=None, sa_type=Text)
    negative_ids: str | None = Field(default=None, sa_type=Text)


class BaselinePromptRow(Base, table=True):
    """A prompt whose activations `mean_centred` subtracts."""

    __tablename__ = "baseline_prompt"
    __table_args__ = (_whole("ordinal"),)

    vector_id: int = _vector_id()
    ordinal: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    prompt: str = Field(sa_type=Text)


class OperandRow(Base, table=True):
    """A lineage edge: the child's expression names the parent as `ref`.

    parent_id is NULL when the parent is not in this store (removed by force, or never
    imported); `digest` still says which vector it was.
    """

    __tablename__ = "operand"
    __table_args__ = (
        UniqueConstraint("child_id", "ref"),
        Index(None, "parent_id"),
        Index(None, "digest"),
        _whole("ordinal"),
        _check("parent_id <> child_id", "not_itself"),
        _check("length(digest) = 64", "digest_sha256"),
    )

    child_id: int = _vector_id()
    ordinal: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    ref: str
    digest: str
    parent_id: int | None = Field(
        default=None,
        sa_column=Column(Integer, ForeignKey("vector.id", ondelete="SET NULL")),
    )


class TagRow(Base, table=True):
    """A tag of one version."""

    __tablename__ = "tag"
    __table_args__ = (Index(None, "tag"), _check("tag <> ''", "tag_given"))

    vector_id: int = _vector_id()
    tag: str = Field(primary_key=True)


class RunRow(Base, table=True):
    """A comparison that was made: what decided its texts. `best` is a generation's ordinal."""

    __tablename__ = "run"
    __table_args__ = (
        Index(None, "created"),
        _whole("seed"),
        _whole("max_new_tokens"),
        _whole("top_k"),
        _check("max_new_tokens >= 1", "max_new_tokens_from_1"),
        _check("created LIKE '____-__-__T__:__:__.______+00:00'", "created_utc"),
        _check("positions IN ('all', 'prompt', 'generated', 'continuation')", "positions_known"),
    )

    id: int | None = Field(default=None, primary_key=True)
    created: str
    expression: str = Field(sa_type=Text)
    prompt: str = Field(sa_type=Text)
    model: str
    layers: str
    positions: str
    seed: int
    chat: bool
    max_new_tokens: int
    temperature: float = Field(sa_type=Float)
    top_p: float = Field(sa_type=Float)
    top_k: int
    repetition_penalty: float = Field(sa_type=Float)
    best: int | None = None


class GenerationRow(Base, table=True):
    """One text of a run; coefficient 0 is the baseline, dose NULL where none is known."""

    __tablename__ = "generation"
    __table_args__ = (
        _whole("ordinal"),
        _whole("tokens"),
        _real("coefficient"),
        _real("dose", null=True),
        _check("tokens >= 0", "tokens_not_negative"),
        _check("finish IN ('stop', 'length', 'cancelled')", "finish_known"),
    )

    run_id: int = _run_id()
    ordinal: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    coefficient: float = Field(sa_type=Float)
    dose: float | None = Field(default=None, sa_type=Float)
    text: str = Field(sa_type=Text)
    finish: str
    tokens: int


class RunOperandRow(Base, table=True):
    """A vector that a run's expression names as `ref`.

    vector_id is NULL where it is not in this store (any more); `digest` says which it was, and
    is NULL where it never was.
    """

    __tablename__ = "run_operand"
    __table_args__ = (
        Index(None, "vector_id", "run_id"),
        Index(None, "digest"),
        _check("length(digest) = 64", "digest_sha256"),
    )

    run_id: int = _run_id()
    ref: str = Field(primary_key=True)
    digest: str | None = None
    vector_id: int | None = Field(
        default=None,
        sa_column=Column(Integer, ForeignKey("vector.id", ondelete="SET NULL")),
    )


METADATA: MetaData = Base.metadata
MODEL: Table = METADATA.tables["model"]
VECTOR: Table = METADATA.tables["vector"]
DIRECTION: Table = METADATA.tables["direction"]
DIAGNOSTIC: Table = METADATA.tables["diagnostic"]
CONTRAST_PAIR: Table = METADATA.tables["contrast_pair"]
BASELINE_PROMPT: Table = METADATA.tables["baseline_prompt"]
OPERAND: Table = METADATA.tables["operand"]
TAG: Table = METADATA.tables["tag"]
RUN: Table = METADATA.tables["run"]
GENERATION: Table = METADATA.tables["generation"]
RUN_OPERAND: Table = METADATA.tables["run_operand"]

KEPT = (RUN, GENERATION, RUN_OPERAND)
"""What no payload can bring back, parents first: a rebuild leaves these as they are."""
