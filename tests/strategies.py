"""Hypothesis strategies for small steering vectors, recipes, and the model they belong to."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from steerlab.core.direction import Scope
from steerlab.core.prompts import Read
from steerlab.core.recipe import Contrast, Imported, ModelIdentity
from steerlab.core.vector import SteeringVector

D_MODEL = 4
N_LAYERS = 6
MODEL = ModelIdentity(
    source="tests/tiny", architecture="llama", n_layers=N_LAYERS, d_model=D_MODEL, fingerprint="f0"
)

entries = st.floats(-1e6, 1e6, width=32)
"""Far from float32's edges, so that sums of a few never overflow."""

weights = st.one_of(
    st.integers(-1000, 1000), st.floats(-1e3, 1e3), st.fractions(-10, 10, max_denominator=50)
)

names = st.from_regex(r"[a-z]{1,3}_[a-z0-9]{1,4}", fullmatch=True)

layer_sets = st.sets(st.integers(0, N_LAYERS - 1), min_size=1, max_size=3)


@st.composite
def vectors(
    draw: st.DrawFn, scope: Scope = "broadcast", layers: set[int] | None = None
) -> SteeringVector:
    """A fresh vector on MODEL; a third of them carry a ref as a stored one would."""
    directions = {}
    for b in sorted(layers or draw(layer_sets)):
        positions = 1 if scope == "broadcast" else draw(st.integers(1, 3))
        directions[b] = draw(arrays(np.float32, (positions, D_MODEL), elements=entries))
    known = draw(st.booleans())
    ref = draw(st.one_of(st.none(), st.none(), names.map(lambda name: f"{name}.v1")))
    return SteeringVector(
        directions,
        model=MODEL,
        scope=scope,
        residual_norms=dict.fromkeys(directions, 100.0) if known else None,
        ref=ref,
    )


@st.composite
def families(draw: st.DrawFn, count: int) -> list[SteeringVector]:
    """`count` vectors of one scope, which may therefore be combined."""
    scope = draw(st.sampled_from(["broadcast", "front"]))
    return [draw(vectors(scope)) for _ in range(count)]


any_vector = families(1).map(lambda found: found[0])

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
prompts = st.lists(texts, min_size=1, max_size=3).map(tuple)
ids = st.lists(st.lists(st.integers(0, 2**20), max_size=4).map(tuple), max_size=3).map(tuple)
reads: st.SearchStrategy[Read] = st.sampled_from(["last", "mean", 3, -1])

contrasts = st.builds(
    Contrast,
    positive=prompts,
    negative=prompts,
    method=texts,
    read=reads,
    chat=st.booleans(),
    seed=st.none() | st.integers(0, 2**64),
    baseline=prompts,
    positive_ids=ids,
    negative_ids=ids,
)
said = st.lists(texts, max_size=2).map(tuple)
imports = st.builds(Imported, source=texts, format=texts, quantity=texts, facts=said, asserted=said)


def vector(*rows: list[float], layer: int = 1, **options: object) -> SteeringVector:
    """A vector at one layer of MODEL, for exact cases: vector([1, 0, 0, 0])."""
    return SteeringVector({layer: np.array(rows)}, **{"model": MODEL, **options})  # type: ignore[arg-type]


def values(found: SteeringVector) -> dict[int, list[list[float]]]:
    """The directions as plain lists, for exact comparison."""
    return {b: direction.tolist() for b, direction in found.directions.items()}
