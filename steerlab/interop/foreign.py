"""Foreign: a vector as a foreign file states it, and how it becomes a SteeringVector."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from steerlab.core.display import printable, some
from steerlab.core.notation import span
from steerlab.core.recipe import Imported, ModelIdentity
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, CorruptPayload, Incompatible, NotFound, SteerlabError

Array = NDArray[Any]
Site = Literal["input", "output"]
"""Where row N of a file acts: at the input or at the output of block N, counted from 0."""

LONGEST = 200  # characters of a name or a fact that a file states


class UnknownFile(CorruptPayload):
    """A file of an unsupported format, such as a README beside vectors."""


@dataclass(frozen=True, eq=False)
class Foreign:
    """A vector as a foreign file states it.

    rows: number of a layer in the file -> (d_model,); None is the number of a single direction
        whose layer the file does not state.
    site: what those numbers mean; None if the file does not state it.
    stacked: the rows are those of one array, one a layer; the last may follow the final norm.
    name, model, architecture: of the vector and its model, as the file states them, or empty.
    facts: what else it states, as "key=value". hint: what its name suggests about the layer.
    """

    format: str
    rows: Mapping[int | None, Array]
    site: Site | None = None
    stacked: bool = False
    name: str = ""
    model: str = ""
    architecture: str = ""
    facts: tuple[str, ...] = ()
    hint: str = ""

    @property
    def width(self) -> int:
        """Entries of a direction: the model's d_model."""
        return int(next(iter(self.rows.values())).shape[-1])

    @property
    def numbers(self) -> list[int]:
        """The layer numbers that the file states, in order."""
        return sorted(number for number in self.rows if number is not None)


@dataclass(frozen=True)
class Asserted:
    """What the user states about a file that leaves it open.

    layer: of a single direction, as steerlab counts layers. layer_from: what layer numbers mean.
    layers: the layers to take; None takes all. negated: the directions point the other way.
    """

    layer: int | None = None
    layer_from: Site | None = None
    layers: Sequence[int] | slice | str | None = None
    negated: bool = False


def foreign(format: str, rows: Mapping[int | None, Array], what: str, **more: Any) -> Foreign:
    """A Foreign of 1-d rows of one width and type; raises CorruptPayload for others."""
    if not rows:
        raise CorruptPayload(f"{what} holds no direction")
    shapes = {row.shape for row in rows.values()}
    if len(shapes) > 1 or len(shape := shapes.pop()) != 1 or not shape[0]:
        raise CorruptPayload(f"{what}: its directions are not lists of numbers of one length")
    types = sorted({str(row.dtype) for row in rows.values()})
    if len(types) > 1:
        raise CorruptPayload(f"{what}: its directions are of several types, {' and '.join(types)}")
    return Foreign(format, rows, **more)


def fact(key: str, value: object) -> str:
    """A fact of a file on one line, cut where it is long."""
    return printable(f"{key}={value}")[:LONGEST]


def shortened(error: Exception) -> str:
    """An error of a library, which may quote the file, as one short line."""
    return printable(str(error))[:LONGEST]


# the model


def fits(found: Foreign, model: ModelIdentity) -> bool:
    """Whether a model has the width, the layers and the architecture that a file states."""
    if found.width != model.d_model or not _same_architecture(found.architecture, model):
        return False
    if found.stacked:
        return len(found.rows) in (model.n_layers, model.n_layers + 1)
    return max(found.numbers, default=0) < model.n_layers


def model_of(found: Foreign, known: Iterable[ModelIdentity], what: str) -> ModelIdentity:
    """The only known model that a file fits; raises BadOption if none or several fit."""
    fitting: list[ModelIdentity] = []
    listed = list(known)
    for model in listed:
        if fits(found, model) and not any(model.has_weights_of(other) for other in fitting):
            fitting.append(model)
    named = [model for model in fitting if found.model and model.source == found.model]
    if len(named or fitting) == 1:
        return (named or fitting)[0]
    if fitting:
        names = some([model.source for model in fitting])
        raise BadOption(f"{what} fits several models, {names}: choose with --model")
    shapes = [f"{m.source} ({m.architecture}, {m.n_layers} layers, {m.d_model})" for m in listed]
    none = f"none of {some(shapes)} fits" if shapes else "no vectors of any model are stored"
    raise BadOption(f"{what} is {_described(found)}, and {none}: name its model with --model")


def check_model(found: Foreign, model: ModelIdentity, what: str) -> None:
    """Raise BadOption for a model that was named and has another width or depth."""
    if found.width != model.d_model:
        raise BadOption(
            f"{what} is {found.width} wide and {model.source} {model.d_model}: "
            "it was made on another model"
        )
    if found.stacked and len(found.rows) not in (model.n_layers, model.n_layers + 1):
        raise BadOption(
            f"{what} has {len(found.rows)} rows and {model.source} {model.n_layers} layers: "
            "it was made on another model"
        )


def _described(found: Foreign) -> str:
    where = f", of layers {span(found.numbers)}" if found.numbers else ""
    of = f", for {printable(found.architecture)}" if found.architecture else ""
    return f"{found.width} wide{where}{of}"


_LLAMA = ("llama", "mistral", "smollm")
"""What llama.cpp calls llama."""


def _same_architecture(stated: str, model: ModelIdentity) -> bool:
    """Whether a file may mean the architecture of a model: spellings differ between programs."""
    mine, theirs = (re.sub(r"[^a-z0-9]", "", text.lower()) for text in (stated, model.architecture))
    return mine in ("", "unknown", theirs) or (mine == "llama" and theirs.startswith(_LLAMA))


# the layers


def bind(
    found: Foreign, model: ModelIdentity, source: str, said: Asserted, *, model_named: bool
) -> SteeringVector:
    """The steering vector of a file.

    source: the file, for the recipe and in messages. model_named: the user named the model.
    Raises BadOption if something has to be said that the file does not state, NotFound for a
    layer that the model does not have, BadVector for entries that no vector can have.
    """
    check_model(found, model, source)
    rows, dropped, asserted = _placed(found, model, source, said)
    sign = -1 if said.negated else 1
    asserted += ["sign=-"] * said.negated
    stated = [fact("model", found.model)] if found.model not in ("", model.source) else []
    asserted += [fact("model", model.source)] if model_named or stated or not found.model else []
    recipe = Imported(
        printable(source),
        found.format,
        facts=(*found.facts, *dropped, *stated),
        asserted=tuple(asserted),
    )
    try:
        with np.errstate(invalid="ignore"):  # a NaN, which is refused below
            directions = {b: sign * row.astype(np.float64) for b, row in rows.items()}
        return SteeringVector(directions, model=model, recipe=recipe)
    except SteerlabError as error:
        raise type(error)(f"{source}: {error}") from None


def _placed(
    found: Foreign, model: ModelIdentity, source: str, said: Asserted
) -> tuple[dict[int, Array], list[str], list[str]]:
    """Layer b -> row, facts about the rows left out, and what the user asserted."""
    if None in found.rows:
        return {_single(found, model, source, said): found.rows[None]}, [], [f"layer={said.layer}"]
    if said.layer is not None:
        raise BadOption(
            f"{source} states its layers ({span(found.numbers)}): --layer is for a single "
            "direction; use --layers to take some of them"
        )
    site = _site(found, model, source, said)
    asserted = [] if found.site or _is_hidden_states(found, model) else [f"layer_from={site}"]
    rows = {n + (site == "output"): found.rows[n] for n in found.numbers}
    dropped = []
    if found.stacked and rows.pop(model.n_layers, None) is not None:
        dropped = [f"dropped=row {len(found.rows) - 1}, after the final norm"]
    chosen = _chosen(rows, said.layers, source)
    _check_layers(chosen, model, source)
    return chosen, dropped, asserted


def _single(found: Foreign, model: ModelIdentity, source: str, said: Asserted) -> int:
    if said.layer is None:
        hint = f" ({found.hint})" if found.hint else ""
        raise BadOption(
            f"{source} does not state its layer{hint}: say it with --layer B, the block at whose "
            f"input it is added, 0 to {model.n_layers - 1}"
        )
    if said.layer_from is not None or said.layers is not None:
        raise BadOption(f"{source} is a single direction: --layer B is all that it needs")
    if not 0 <= said.layer < model.n_layers:
        raise NotFound(
            f"{model.source} has no layer {said.layer}: its layers are 0 to {model.n_layers - 1}"
        )
    return said.layer


def _is_hidden_states(found: Foreign, model: ModelIdentity) -> bool:
    """Whether an array has a row for the embeddings too, as transformers' hidden states have."""
    return found.stacked and len(found.rows) == model.n_layers + 1


def _site(found: Foreign, model: ModelIdentity, source: str, said: Asserted) -> Site:
    stated = "input" if _is_hidden_states(found, model) else found.site
    if stated and said.layer_from not in (None, stated):
        raise BadOption(
            f"{source} states that its layers are the {stated}s of blocks: leave --layer-from out"
        )
    site = stated or said.layer_from
    if site is None:
        hint = f"; {found.hint}" if found.hint else ""
        raise BadOption(
            f"{source} does not state whether its layer N is the input or the output of block N"
            f"{hint}: say --layer-from input or --layer-from output"
        )
    return "input" if site == "input" else "output"


def _chosen(
    rows: dict[int, Array], layers: Sequence[int] | slice | str | None, source: str
) -> dict[int, Array]:
    if layers is None or isinstance(layers, str):
        return rows
    wanted = range(max(rows) + 1)[layers] if isinstance(layers, slice) else layers
    found = {b: rows[b] for b in wanted if b in rows}
    missing = [b for b in wanted if b not in rows]
    if not found or (missing and not isinstance(layers, slice)):
        raise NotFound(f"{source} has layers {span(sorted(rows))}, not those of --layers")
    return found


def _check_layers(rows: Mapping[int, Array], model: ModelIdentity, source: str) -> None:
    last = max(rows)
    if last < model.n_layers:
        return
    if last == model.n_layers:
        rest = [b for b in rows if b < last]
        cure = (
            f"take the others with --layers {min(rest)}:{last}" if rest else "nothing else is in it"
        )
        raise BadOption(
            f"{source} acts at the output of the last block of {model.source}, where steerlab "
            f"has no layer: {cure}"
        )
    raise NotFound(
        f"{source} has a direction for layer {last}, and {model.source} has layers 0 to "
        f"{model.n_layers - 1}: it was made on another model"
    )


# writing


def rows_of(vector: SteeringVector, format: str) -> dict[int, Array]:
    """Layer b -> float32 direction (d_model,); raises Incompatible for front vectors.

    format: what is written, in the message.
    """
    if vector.scope != "broadcast":
        raise Incompatible(
            f"{vector} is added to the first tokens alone, and {format} has no positions"
        )
    return {b: array[0] for b, array in vector.float32().items()}


def single_row(vector: SteeringVector, format: str) -> tuple[int, Array]:
    """The one layer of a vector and its direction; raises Incompatible if it has several."""
    rows = rows_of(vector, format)
    if len(rows) > 1:
        raise Incompatible(
            f"{vector} has layers {span(vector.layers)}, and {format} holds one: choose it, as in "
            f"{vector}[{vector.layers[0]}]"
        )
    return next(iter(rows.items()))


def outputs_of(vector: SteeringVector, format: str) -> dict[int, Array]:
    """Block -> the direction that is added to its output; raises Incompatible for layer 0."""
    rows = rows_of(vector, format)
    if 0 in rows:
        rest = f": export {vector}[1:]" if len(rows) > 1 else ""
        raise Incompatible(
            f"{vector} acts at layer 0, and {format} steers the outputs of blocks, steerlab's "
            f"layers from 1 on{rest}"
        )
    return {b - 1: row for b, row in rows.items()}
