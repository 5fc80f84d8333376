"""The tables of sweeps and measurements: columns and constraints only, as in `tables`.

sweep ──< sweep_operand >── vector        what the sweep's expression names
      ├──< sweep_setting, sweep_prompt, sweep_seed    its axes
      └──< cell ──< cell_metric           a text for one of each, at most once
calibration >── vector                    where and how strongly a vector works
evaluation  >── vector                    whether it generalizes
      └──< evaluation_value

Sweeps are in the registry alone, calibrations and evaluations in result files too. A rebuild
keeps all of it. digest identifies the vector, vector_id is its row if it is stored.
"""

from __future__ import annotations

from sqlalchemy import ForeignKeyConstraint, Index, Text, UniqueConstraint
from sqlmodel import Field

from steerlab.registry.schema import (
    CREATED,
    POSITIONS,
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


class SweepRow(Base, table=True):
    """A sweep, with everything that decides its texts. plan_digest: a digest of all that.

    digest: of the vector that the expression gave. strength: the unit of the strengths in
    `sweep_setting`.
    """

    __table_args__ = (
        Index(None, "created"),
        Index(None, "digest"),
        *whole("max_new_tokens", "top_k"),
        *real("temperature", "top_p", "repetition_penalty"),
        flag("chat"),
        check("length(plan_digest) = 64", "plan_digest_sha256"),
        check("length(digest) = 64", "digest_sha256"),
        check("max_new_tokens >= 1", "max_new_tokens_from_1"),
        check(CREATED, "created_utc"),
        check(POSITIONS, "positions_known"),
        check("strength IN ('dose', 'coefficient')", "strength_known"),
        check("model_key <> ''", "model_key_given"),
    )

    id: int | None = Field(default=None, primary_key=True)
    plan_digest: str = Field(unique=True)
    created: str
    expression: str = Field(sa_type=Text)
    digest: str
    model: str
    model_key: str
    strength: str
    positions: str
    chat: bool
    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float


class SweepOperandRow(Base, table=True):
    """A vector that a sweep's expression names as `ref`; digest is NULL if it was not stored."""

    __table_args__ = (
        Index(None, "vector_id", "sweep_id"),
        Index(None, "digest"),
        check("length(digest) = 64", "digest_sha256"),
    )

    sweep_id: int = owner("sweep")
    ref: str = Field(primary_key=True)
    digest: str | None = None
    vector_id: int | None = linked_vector()


class SweepSettingRow(Base, table=True):
    """A layer at a strength; the baseline has no layer, and can only come first.

    layers: JSON, for several layers. positions: NULL for the sweep's.
    """

    __table_args__ = (
        UniqueConstraint("sweep_id", "layer", "strength"),
        *whole("ordinal"),
        *whole("layer", null=True),
        *real("strength", "coefficient"),
        *real("dose", null=True),
        check("layer >= 0", "layer_from_0"),
        check("(layer IS NULL) = (strength = 0)", "baseline_without_layer"),
        check("layer IS NOT NULL OR ordinal = 0", "one_baseline"),
        *steered(),
    )

    sweep_id: int = owner("sweep")
    ordinal: int = place()
    layer: int | None = None
    strength: float
    coefficient: float
    dose: float | None = None
    operation: str = operation()
    parameters: str = parameters()
    layers: str | None = None
    positions: str | None = None
    condition: str | None = json_text(null=True)


class SweepPromptRow(Base, table=True):
    """A prompt of a sweep."""

    __table_args__ = whole("ordinal")

    sweep_id: int = owner("sweep")
    ordinal: int = place()
    prompt: str = Field(sa_type=Text)


class SweepSeedRow(Base, table=True):
    """A seed of a sweep, with its place among them."""

    __table_args__ = (
        UniqueConstraint("sweep_id", "ordinal"),
        *whole("seed", "ordinal"),
    )

    sweep_id: int = owner("sweep")
    seed: int = place()
    ordinal: int


def _axis(column: str, of: str, key: str = "ordinal") -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["sweep_id", column], [f"{of}.sweep_id", f"{of}.{key}"], ondelete="CASCADE"
    )


class CellRow(Base, table=True):
    """The complete text of a setting, a prompt and a seed; cancelled texts are not stored."""

    __table_args__ = (
        UniqueConstraint("sweep_id", "setting", "prompt", "seed"),
        _axis("setting", "sweep_setting"),
        _axis("prompt", "sweep_prompt"),
        _axis("seed", "sweep_seed", "seed"),
        *whole("tokens"),
        check("tokens >= 0", "tokens_not_negative"),
        check("finish IN ('stop', 'length')", "finish_whole"),
    )

    id: int | None = Field(default=None, primary_key=True)
    sweep_id: int
    setting: int
    prompt: int
    seed: int
    text: str = Field(sa_type=Text)
    finish: str
    tokens: int


class CellMetricRow(Base, table=True):
    """A metric of a cell; value is NULL if undefined, with the reason if one is known."""

    __table_args__ = (
        *real("value", null=True),
        check("name <> ''", "name_given"),
        check("value IS NULL OR reason IS NULL", "value_or_reason"),
    )

    cell_id: int = owner("cell")
    name: str = Field(primary_key=True)
    value: float | None = None
    reason: str | None = Field(default=None, sa_type=Text)


class CalibrationRow(Base, table=True):
    """The operating point of a vector, and the signed doses between which text stays sound.

    works: False if no dose beat its control; the rest is then NULL. data: the curves, JSON.
    """

    __table_args__ = (
        Index(None, "digest", "created"),
        Index(None, "vector_id"),
        *whole("layer", null=True),
        *real("dose", "coefficient", "safe_low", "safe_high", null=True),
        flag("works"),
        check("length(digest) = 64", "digest_sha256"),
        check(CREATED, "created_utc"),
        check("layer >= 0", "layer_from_0"),
        check("safe_low <= safe_high", "safe_in_order"),
        check("(safe_low IS NULL) = (safe_high IS NULL)", "safe_both"),
        check(
            "NOT works OR (layer IS NOT NULL AND dose IS NOT NULL AND coefficient IS NOT NULL"
            " AND safe_low IS NOT NULL)",
            "works_somewhere",
        ),
        *steered(),
    )

    id: int | None = Field(default=None, primary_key=True)
    digest: str
    vector_id: int | None = linked_vector()
    created: str
    works: bool
    layer: int | None = None
    dose: float | None = None
    coefficient: float | None = None
    safe_low: float | None = None
    safe_high: float | None = None
    data: str = json_text()
    operation: str = operation()
    parameters: str = parameters()
    layers: str | None = None
    positions: str | None = None
    condition: str | None = json_text(null=True)


class EvaluationRow(Base, table=True):
    """A vector measured on a suite of prompts. versions: of the software, JSON.

    data: how it was measured, JSON; NULL if unknown.
    """

    __table_args__ = (
        Index(None, "digest", "created"),
        Index(None, "vector_id"),
        check("length(digest) = 64", "digest_sha256"),
        check("length(suite_digest) = 64", "suite_digest_sha256"),
        check(CREATED, "created_utc"),
        check("suite <> ''", "suite_given"),
        check("model_key <> ''", "model_key_given"),
        *steered(),
    )

    id: int | None = Field(default=None, primary_key=True)
    digest: str
    vector_id: int | None = linked_vector()
    created: str
    suite: str
    suite_digest: str
    model: str
    model_key: str
    versions: str = json_text()
    data: str | None = json_text(null=True)
    operation: str = operation()
    parameters: str = parameters()
    layers: str | None = None
    positions: str | None = None
    condition: str | None = json_text(null=True)


class EvaluationValueRow(Base, table=True):
    """An estimate with its interval, over `n` items; NULL if undefined."""

    __table_args__ = (
        UniqueConstraint("evaluation_id", "style", "metric", "setting"),
        *whole("ordinal", "n"),
        *real("estimate", "low", "high", null=True),
        check("metric <> ''", "metric_given"),
        check("n >= 0", "n_not_negative"),
        check("low <= high", "interval_in_order"),
    )

    evaluation_id: int = owner("evaluation")
    ordinal: int = place()
    style: str
    metric: str
    setting: str
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int
