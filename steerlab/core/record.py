"""Record: everything about a stored vector but its arrays, and its canonical JSON.

A record consists of a story, which never changes and is written to the payload, and of labels,
which people change: name, version, tags and note.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from steerlab.core import above
from steerlab.core.derivation import named, numbered
from steerlab.core.direction import Scope
from steerlab.core.notation import placeholder_of, span
from steerlab.core.prompts import check_text
from steerlab.core.recipe import (
    Expression,
    LayerFacts,
    ModelIdentity,
    Operand,
    Recipe,
    build,
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
    """Raise BadOption or BadPrompts for invalid tags or notes."""
    for tag in tags:
        check_text(tag, "a tag")
        if not tag.strip():
            raise BadOption("a tag can't be empty")
    check_text(note, "the note")


@dataclass(frozen=True)
class Labels:
    """What people may change about a stored vector.

    edits: the number of changes; of two copies, the one with more edits is newer.
    """

    name: str
    version: int
    tags: tuple[str, ...] = ()
    note: str = ""
    edits: int = field(default=0, compare=False)

    def to_json(self) -> dict[str, Any]:
        """JSON values; `labels_from_json` reads them back."""
        plain = {**vars(self), "tags": list(self.tags)}
        return plain if self.edits else {k: v for k, v in plain.items() if k != "edits"}


LAST_VERSION = 10**18 - 1
"""The highest version: refs are read up to so many digits."""

_MOST_EDITS = 2**53
_LABELS = ("name", "version", "tags", "note")


@dataclass(frozen=True, repr=False)
class Record(above.Drawn):
    """The story and the labels of a vector.

    created: UTC, ISO 8601. software: versions that made it. An empty name and version 0
    mean that the labels are unknown.
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

    def __repr__(self) -> str:
        layers = span([facts.layer for facts in self.layers])
        return f"<Record {self.qualified}: layers {layers}, {self.recipe!s:.60}>"

    @property
    def ref(self) -> str:
        """The ref of this version in an expression: "love.v1"."""
        return f"{self.name}.v{self.version}" if self.name else placeholder_of(self.digest)

    @property
    def qualified(self) -> str:
        """The ref with its model's name: "smollm2.love.v1"."""
        return f"{self.model.name}.{self.ref}"

    @property
    def kind(self) -> str:
        """contrast, expression or imported."""
        return kind_of(self.recipe)

    def doses(self) -> dict[int, float | None]:
        """Layer -> dose of coefficient 1 there; None if unknown. See `summed`."""
        return {facts.layer: facts.dose for facts in self.layers}

    @property
    def summed(self) -> bool:
        """Whether doses count what earlier layers added, as `SteeringVector.doses` does.

        False for vectors of several layers stored before that: theirs count each layer alone.
        """
        return len(self.layers) == 1 or all(f.reach is not None for f in self.layers)

    @property
    def labels(self) -> Labels:
        """What people may change."""
        return Labels(self.name, self.version, self.tags, self.note)

    def labelled(self, labels: Labels) -> Record:
        """The same story under other labels."""
        record = replace(self, **{name: getattr(labels, name) for name in _LABELS})
        vars(record).update({key: vars(self)[key] for key in ("story",) if key in vars(self)})
        return record

    @cached_property
    def story(self) -> str:
        """The sha256 of everything that never changes, without the names of operands."""
        return hashlib.sha256(self.story_text().encode()).hexdigest()

    def story_text(self) -> str:
        """The text whose sha256 is the story."""
        return canonical_json(self._story())

    def differs_from(self, other: Record) -> tuple[str, ...]:
        """The parts in which the stories of two records differ."""
        mine, theirs = self._story(), other._story()
        return tuple(part for part in mine if mine[part] != theirs[part])

    def _story(self) -> dict[str, Any]:
        data = self.story_to_json()
        if isinstance(self.recipe, Expression):
            data["recipe"]["operands"] = [o["digest"] for o in data["recipe"]["operands"]]
        return data

    def to_json(self) -> dict[str, Any]:
        """JSON values; `record_from_json` reads them back."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "model": dict(vars(self.model)),
            "layers": [facts.to_json() for facts in self.layers],
            "recipe": recipe_to_json(self.recipe),
            "software": dict(self.software),
            "tags": list(self.tags),
        }

    def story_to_json(self) -> dict[str, Any]:
        """The story as JSON values; `record_from_story` reads them back."""
        data = self.to_json()
        for name in _LABELS:
            del data[name]
        if isinstance(self.recipe, Expression):
            text, operands = numbered(self.recipe)
            listed = [{"digest": o.digest, "name": o.ref} for o in operands]
            data["recipe"] = {"kind": "expression", "text": text, "operands": listed}
        return data


def record_of(
    vector: SteeringVector,
    name: str,
    version: int,
    *,
    tags: tuple[str, ...] = (),
    note: str = "",
) -> Record:
    """The record of a new vector, with the current time and software versions."""
    norms = vector.norms()
    reaches = vector.reaches() if len(norms) > 1 else {}
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
                _plain(vector.residual_norms.get(b)),
                {name: float(x) + 0.0 for name, x in vector.diagnostics.get(b, {}).items()},
                reaches.get(b),
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


def _plain(value: float | None) -> float | None:
    """A float without a negative zero, which SQLite does not keep."""
    return None if value is None else float(value) + 0.0


def labels_from_json(data: Any) -> Labels:
    """Inverse of `Labels.to_json`; unknown keys are ignored.

    Raises CorruptPayload for invalid data.
    """
    found = mapping(data, "label")
    known = {f.name: found[f.name] for f in fields(Labels) if f.name in found}
    try:
        labels = build(Labels, known, "label")
    except TypeError as error:
        raise CorruptPayload(f"the label can't be read: {error}") from None
    if not is_name(labels.name) or not 1 <= labels.version <= LAST_VERSION:
        raise CorruptPayload("the label has an impossible name or version")
    return replace(labels, edits=checked_edits(labels.edits))


def checked_edits(edits: Any) -> int:
    """The number of edits that a label claims, as far as it leaves room for more.

    Raises CorruptPayload for an impossible one.
    """
    if type(edits) is not int or not 0 <= edits < 2**62:
        raise CorruptPayload("the label has an impossible number of edits")
    return min(edits, _MOST_EDITS)


def record_from_story(data: Any) -> Record:
    """Inverse of `Record.story_to_json`, with the labels in `data["labels"]` if there are any.

    Raises CorruptPayload for invalid data.
    """
    story = mapping(data, "record")
    labels = story.pop("labels", None)
    if not story.keys().isdisjoint(_LABELS):
        raise CorruptPayload("the record has labels where they do not belong")
    recipe = mapping(story.get("recipe"), "recipe")
    if recipe.get("kind") == "expression":
        recipe = _with_names(recipe)
    known = record_from_json({**story, "recipe": recipe, "name": "story", "version": 1})
    return known.labelled(Labels("", 0) if labels is None else labels_from_json(labels))


def _with_names(recipe: dict[str, Any]) -> dict[str, Any]:
    """A numbered expression as JSON with the names that its operands had."""
    try:
        operands = [Operand(str(o["name"]), str(o["digest"])) for o in recipe["operands"]]
        text = str(recipe["text"])
    except (KeyError, TypeError) as error:
        raise CorruptPayload(f"the recipe can't be read: {error}") from None
    return recipe_to_json(named(text, told_apart(operands)))


def told_apart(operands: Iterable[Operand]) -> list[Operand]:
    """The operands, with placeholders for names that occur twice."""
    found: dict[str, Operand] = {}
    for operand in operands:
        refs = (operand.ref, placeholder_of(operand.digest), f"unsaved_{operand.digest}")
        ref = next((ref for ref in refs if ref not in found), refs[-1])
        found[ref] = Operand(ref, operand.digest)
    return list(found.values())


def record_from_json(data: Any) -> Record:
    """Inverse of `Record.to_json`; raises CorruptPayload for anything else."""
    fields = mapping(data, "record")
    try:
        fields["model"] = build(ModelIdentity, mapping(fields["model"], "model"), "model")
        fields["recipe"] = recipe_from_json(fields["recipe"])
        layers = (build(LayerFacts, mapping(entry, "layer"), "layer") for entry in fields["layers"])
        fields["layers"] = tuple(sorted(layers, key=lambda facts: facts.layer))
    except (KeyError, TypeError) as error:
        raise CorruptPayload(f"the record can't be read: {error}") from None
    record = build(Record, fields, "record")
    if not is_name(record.name) or not 1 <= record.version <= LAST_VERSION:
        raise CorruptPayload("the record has an impossible name or version")
    return record


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical_json(data: Any) -> str:
    """JSON with sorted keys, no spaces, ASCII only, no NaN: equal values give equal text."""
    return _CANONICAL.encode(data)


def now() -> str:
    """The current time as it is stored: UTC, ISO 8601, in microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def software() -> dict[str, str]:
    """Versions of the loaded libraries; does not import torch."""
    loaded = {name: sys.modules.get(name) for name in ("numpy", "torch", "transformers")}
    return {"steerlab": __version__} | {
        name: str(module.__version__) for name, module in loaded.items() if module is not None
    }
