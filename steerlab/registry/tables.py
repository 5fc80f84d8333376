"""The tables: columns and constraints only. Queries go through `TABLE` names with core SQL.

model ──< vector ──< direction
                ├──< operand >── vector     lineage: child -> parent record
                └──< tag
removal                         versions that were removed
undo                            changes of labels and removals that can be undone
run ──< generation              generated texts: in the registry alone, kept by rebuild
    └──< run_operand >── vector  what the run's expression names

Sweeps, calibrations and evaluations are in `result_tables`.
Every change here needs a migration; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlmodel import Field

from steerlab.registry import result_tables as result_tables
from steerlab.registry.schema import (
    CREATED,
    WITHOUT_ROWID,
    Base,
    check,
    flag,
    json_text,
    linked_vector,
    operation,
    owner,
    parameters,
    place,
    real,
    steered,
    whole,
)


class ModelRow(Base, table=True):
    """A model that vectors belong to; `identity` is its key as one text."""

    __table_args__ = (
        *whole("n_layers", "d_model"),
        check("n_layers > 0", "n_layers_positive"),
        check("d_model > 0", "d_model_positive"),
        check("name <> ''", "name_given"),
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


LISTING = ("newest", "model_id", "name", "version", "kind", "first_layer", "norm", "created")
"""What lists of vectors are filtered and sorted by, in one index."""


class VectorRow(Base, table=True):
    """A version of a vector: its story as one text, labels, and the place of its payload.

    story_text: the record's story as canonical JSON; story: its sha256. digest, scope, kind, norm,
    created, summary and first_layer repeat parts of it, for lists. summary: the recipe in words,
    with the operands of an expression numbered.
    seal: a checksum of labels and story (`rows.seal`), which an altered row does not match. edits:
    the number of changes of labels. path: the payload file, relative to the store; key: in that
    file. newest: True if no version of its name is newer.
    """

    __table_args__ = (
        UniqueConstraint("model_id", "name", "version"),
        UniqueConstraint("story"),
        Index(None, "digest"),
        Index(None, "path"),
        Index(None, "created"),
        Index(None, "name"),
        Index("ix_vector_listing", *LISTING),
        *whole("version", "edits", "model_id"),
        *real("norm"),
        check("version >= 1", "version_from_1"),
        check("edits >= 0", "edits_not_negative"),
        check("norm >= 0", "norm_not_negative"),
        check("name <> ''", "name_given"),
        check("length(digest) = 64", "digest_sha256"),
        check("length(story) = 64", "story_sha256"),
        check("length(seal) = 64", "seal_sha256"),
        check("scope IN ('broadcast', 'front')", "scope_known"),
        check("kind IN ('contrast', 'expression', 'imported')", "kind_known"),
        check(CREATED, "created_utc"),
        check("path NOT LIKE '/%' AND path NOT LIKE '%..%'", "path_inside"),
    )

    id: int | None = Field(default=None, primary_key=True)
    model_id: int = Field(sa_column=Column(Integer, ForeignKey("model.id"), nullable=False))
    name: str
    version: int
    story: str
    seal: str
    edits: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    digest: str
    scope: str
    kind: str
    norm: float
    created: str
    note: str = Field(sa_type=Text)
    summary: str = Field(sa_type=Text)
    path: str
    key: str
    newest: bool = Field(
        sa_column=Column(Boolean, nullable=False, default=True, server_default="1")
    )
    first_layer: int = Field(sa_column=Column(Integer, nullable=False, server_default="0"))
    story_text: str = Field(sa_type=Text)


class DirectionRow(Base, table=True):
    """One layer of a vector; residual_norm is NULL if it was never measured."""

    __table_args__ = (
        *whole("layer", "positions"),
        *real("norm"),
        *real("residual_norm", null=True),
        check("layer >= 0", "layer_from_0"),
        check("positions >= 1", "positions_from_1"),
        check("norm >= 0", "norm_not_negative"),
        check("residual_norm >= 0", "residual_norm_not_negative"),
        Index(None, "layer", "vector_id"),
        WITHOUT_ROWID,
    )

    vector_id: int = owner("vector")
    layer: int = place()
    positions: int
    norm: float
    residual_norm: float | None = None


class OperandRow(Base, table=True):
    """A lineage edge: an operand of the child's expression, and its record in this store.

    parent_id is NULL if the parent is not in this store (removed by force, or never imported);
    digest identifies it, and hint is its name when the child was saved.
    """

    __table_args__ = (
        UniqueConstraint("child_id", "digest"),
        Index(None, "parent_id"),
        Index(None, "digest"),
        *whole("ordinal"),
        check("parent_id <> child_id", "not_itself"),
        check("length(digest) = 64", "digest_sha256"),
    )

    child_id: int = owner("vector")
    ordinal: int = place()
    hint: str
    digest: str
    parent_id: int | None = linked_vector()


class TagRow(Base, table=True):
    """A tag of one version."""

    __table_args__ = (
        Index(None, "tag", "vector_id"),
        check("tag <> ''", "tag_given"),
        WITHOUT_ROWID,
    )

    vector_id: int = owner("vector")
    tag: str = Field(primary_key=True)


class RemovalRow(Base, table=True):
    """A removed version, whose number is never used again.

    model: the model row's `identity`; that row may be gone.
    """

    __table_args__ = (
        *whole("version"),
        check("version >= 1", "version_from_1"),
        check("length(digest) = 64", "digest_sha256"),
        check(CREATED, "created_utc"),
    )

    name: str = Field(primary_key=True)
    model: str = Field(primary_key=True)
    version: int = place()
    digest: str
    summary: str = Field(sa_type=Text)
    created: str


class UndoRow(Base, table=True):
    """A change of labels or a removal that can be undone; steps: as in `undo_log`."""

    __table_args__ = (
        flag("undone"),
        check("what IN ('tag', 'note', 'rename', 'remove')", "what_known"),
        check(CREATED, "created_utc"),
    )

    id: int | None = Field(default=None, primary_key=True)
    created: str
    what: str
    text: str = Field(sa_type=Text)
    undone: bool
    steps: str = json_text()


class RunRow(Base, table=True):
    """A comparison, with everything that decided its texts. best: a generation's ordinal."""

    __table_args__ = (
        Index(None, "created"),
        *whole("seed", "max_new_tokens", "top_k"),
        check("max_new_tokens >= 1", "max_new_tokens_from_1"),
        check(CREATED, "created_utc"),
        *steered(),
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
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
    best: int | None = None
    operation: str = operation()
    parameters: str = parameters()
    condition: str | None = json_text(null=True)


class GenerationRow(Base, table=True):
    """One text of a run; coefficient 0 is the baseline, dose is NULL if unknown.

    layers, positions, condition, expression: NULL for the run's. rating: NULL until rated.
    """

    __table_args__ = (
        *whole("ordinal", "tokens"),
        *whole("rating", null=True),
        *real("coefficient"),
        *real("dose", null=True),
        check("tokens >= 0", "tokens_not_negative"),
        check("rating BETWEEN 1 AND 5", "rating_from_1_to_5"),
        check("finish IN ('stop', 'length', 'cancelled')", "finish_known"),
        *steered(),
    )

    run_id: int = owner("run")
    ordinal: int = place()
    coefficient: float
    dose: float | None = None
    text: str = Field(sa_type=Text)
    finish: str
    tokens: int
    operation: str = operation()
    parameters: str = parameters()
    layers: str | None = None
    positions: str | None = None
    condition: str | None = json_text(null=True)
    expression: str | None = None
    rating: int | None = None


class RunOperandRow(Base, table=True):
    """A vector that a run's expression names as `ref`.

    vector_id is NULL if it is not in this store now, digest if it never was.
    """

    __table_args__ = (
        Index(None, "vector_id", "run_id"),
        Index(None, "digest"),
        check("length(digest) = 64", "digest_sha256"),
    )

    run_id: int = owner("run")
    ref: str = Field(primary_key=True)
    digest: str | None = None
    vector_id: int | None = linked_vector()


METADATA: MetaData = Base.metadata


def _of(names: str) -> Iterator[Table]:
    return (METADATA.tables[name] for name in names.split())


MODEL, VECTOR, DIRECTION, OPERAND, TAG = _of("model vector direction operand tag")
REMOVAL, UNDO, RUN, GENERATION, RUN_OPERAND = _of("removal undo run generation run_operand")
SWEEP, SWEEP_OPERAND, SWEEP_SETTING = _of("sweep sweep_operand sweep_setting")
SWEEP_PROMPT, SWEEP_SEED, CELL, CELL_METRIC = _of("sweep_prompt sweep_seed cell cell_metric")
CALIBRATION, EVALUATION, EVALUATION_VALUE = _of("calibration evaluation evaluation_value")

REGISTRY_ONLY = (
    *(REMOVAL, UNDO),
    *(RUN, GENERATION, RUN_OPERAND),
    *(SWEEP, SWEEP_OPERAND, SWEEP_SETTING, SWEEP_PROMPT, SWEEP_SEED, CELL, CELL_METRIC),
    *(CALIBRATION, EVALUATION, EVALUATION_VALUE),
)
"""What no payload can bring back, parents first: a rebuild leaves these as they are."""

LINKED = tuple(table for table in REGISTRY_ONLY if "vector_id" in table.c)
"""Those that speak of vectors: `vector_id` is the row of the one with that `digest`."""
