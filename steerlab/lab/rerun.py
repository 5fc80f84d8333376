"""Contrast recipes run again on their own model: does it still give the stored vector?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from steerlab.core.recipe import Contrast, Verdict
from steerlab.core.vector import SteeringVector
from steerlab.errors import ModelMismatch, SteerlabError

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab

ALIKE = 0.999
"""The least cosine, at every layer, of a stored vector and its recipe's on the same model.

Other kernels and precisions move it by far less.
"""


@dataclass(frozen=True)
class Rerun:
    """What a stored contrast vector's recipe gives today.

    cosine: the lowest over layers; None where the recipe could not be run.
    problem: in words; empty where the vector is borne out.
    """

    ref: str
    cosine: float | None
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values."""
        return asdict(self)


def rerun_recipes(lab: Lab, progress: Callable[[int, int], object] | None = None) -> list[Rerun]:
    """Extract every contrast vector of the store again on its own model, and compare.

    Models are loaded one after the other, each once; one that can't be loaded, or whose weights
    are others by now, is a problem of its vectors.
    lab: one that names no model. progress: called with (vectors done, vectors).
    """
    vectors = lab.store.list(kind="contrast", every_version=True, sort="model")
    unloadable: dict[tuple[str, str | None], str] = {}
    found = []
    for number, summary in enumerate(vectors, 1):
        cosine, problem = None, ""
        try:
            vector = lab.store.load(summary.qualified)
            source = (vector.model.source, vector.model.revision)
            problem = unloadable.get(source, "") or _unloadable(lab, vector)
            if problem:
                unloadable[source] = problem
            else:
                cosine = _again(lab, vector)
                problem = "" if cosine >= ALIKE else "its recipe gives another vector today"
        except SteerlabError as error:
            problem = str(error)
        found.append(Rerun(summary.qualified, cosine, problem))
        if progress is not None:
            progress(number, len(vectors))
    return found


def _unloadable(lab: Lab, vector: SteeringVector) -> str:
    try:
        lab.load(vector)
    except SteerlabError as error:
        return f"its model can't be loaded: {error}"
    return ""


def _again(lab: Lab, vector: SteeringVector) -> float:
    lm = lab.load(vector)
    if vector.model.verdict(lm.identity) not in (Verdict.SAME, Verdict.OTHER_PRECISION):
        raise ModelMismatch(f"{lm.source} has other weights today than it was made on")
    assert isinstance(vector.recipe, Contrast)
    made = lm.reextract(vector.recipe, vector.layers)
    if made == vector:
        return 1.0
    return min(vector.cosines(made).values())
