"""Record: everything known of a stored vector but its arrays; one canonical JSON form."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from steerlab.core.direction import Scope
from steerlab.core.recipe import (
    LayerFacts,
    ModelIdentity,
    Recipe,
    build,
    check_text,
    is_name,
    kind_of,
    mapping,
    recipe_from_json,
    recipe_to_json,
)
from steerlab.core.vector import SteeringVector
from steerlab.core.version import __version__
from steerlab.errors import BadOption, CorruptPayload


def check_labels(tags: Iterable[str], note: str) -> None:
    """Raise BadOption or BadPrompts for tags or a note that no vector can have."""
    for tag in tags:
        check_text(tag, "a tag")
        if not tag.strip():
            raise BadOption("a tag can't be empty")
    check_text(note, "the note")


@dataclass(frozen=True)
class Record:
    """What the registry and a payload's metadata say of one vector.

    created: UTC, ISO 8601. software: versions that made it. tags and note may change later;
    everything else is fixed once stored.
    """

    name: str
    version: int
    digest: str
    model: ModelIdentity
    scope: Scope
    layers: tuple[LayerFacts, ...]
    recipe: Recipe
    norm: float
    created: str
    software: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    note: str = ""

    @property
    def ref(self) -> str:
        """How an expression names exactly this version: "love.v1"."""
        return f"{self.name}.v{self.version}"

    @property
    def qualified(self) -> str:
        """The ref with its model's name: "smollm2.love.v1"."""
        return f"{self.model.name}.{self.ref}"

    @property
    def kind(self) -> str:
        """contrast, expression or imported."""
        return kind_of(self.recipe)

    def doses(self) -> dict[int, float | None]:
        """Layer -> dose of coefficient 1, by the layer's Frobenius norm; None if unknown."""
        return {f.layer: f.norm / f.residual_norm if f.residual_norm else None for f in self.layers}

    def to_json(self) -> dict[str, Any]:
        """JSON values; `record_from_json` reads them back."""
        return vars(self) | {
            "model": dict(vars(self.model)),
            "layers": [
                vars(facts) | {"diagnostics": dict(facts.diagnostics)} for facts in self.layers
            ],
            "recipe": recipe_to_json(self.recipe),
            "software": dict(self.software),
            "tags": list(self.tags),
        }


def record_of(
    vector: SteeringVector,
    name: str,
    version: int,
    *,
    tags: tuple[str, ...] = (),
    note: str = "",
) -> Record:
    """Describe a vector that is about to be stored, as of now and with this software."""
    norms = vector.norms()
    return Record(
        name=name,
        version=version,
        digest=vector.digest,
        model=vector.model,
        scope=vector.scope,
        layers=tuple(
            LayerFacts(
                b,
                len(direction),
                norms[b],
                vector.residual_norms.get(b),
                dict(vector.diagnostics.get(b, {})),
            )
            for b, direction in vector.directions.items()
        ),
        recipe=vector.recipe,
        norm=vector.norm,
        created=now(),
        software=software(),
        tags=tuple(sorted(set(tags))),
        note=note,
    )


def record_from_json(data: Any) -> Record:
    """Inverse of `Record.to_json`; raises CorruptPayload for anything else."""
    fields = mapping(data, "record")
    try:
        fields["model"] = build(ModelIdentity, mapping(fields["model"], "model"), "model")
        fields["recipe"] = recipe_from_json(fields["recipe"])
        layers = (build(LayerFacts, mapping(entry, "layer"), "layer") for entry in fields["layers"])
        fields["layers"] = tuple(sorted(layers, key=lambda facts: facts.layer))
        scope = fields.pop("scope")
        typed = {k: fields.pop(k) for k in ("model", "recipe", "layers")}
        record = build(_Plain, fields, "record")
    except (KeyError, TypeError) as error:
        raise CorruptPayload(f"the record can't be read: {error}") from None
    if scope not in ("broadcast", "front") or not is_name(record.name) or record.version < 1:
        raise CorruptPayload("the record has an impossible scope, name or version")
    return Record(scope=scope, **typed, **vars(record))


@dataclass(frozen=True)
class _Plain:
    """The fields of Record that are plain JSON values."""

    name: str
    version: int
    digest: str
    norm: float
    created: str
    software: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    note: str = ""


def canonical_json(data: Any) -> str:
    """Sorted keys, no spaces, ASCII only, no NaN: one spelling for one value."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)


def now() -> str:
    """The time as records and tables have it: UTC, ISO 8601, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def software() -> dict[str, str]:
    """Versions of what is loaded; asking must not import torch."""
    loaded = {name: sys.modules.get(name) for name in ("numpy", "torch", "transformers")}
    return {"steerlab": __version__} | {
        name: str(module.__version__) for name, module in loaded.items() if module is not None
    }
