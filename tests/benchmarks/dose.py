"""Whether equal doses move a model equally, at one layer or many.

Run as `python -m tests.benchmarks.dose`. It prints the spread of ln KL at one dose, over ten sets
of layers of three stored concepts and of random directions, under four definitions of the dose of
several layers. Directions of a concept agree from layer to layer, random ones do not. Asked: at
most 0.5 under steerlab's own.
"""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from steerlab import Lab, LanguageModel, SteeringVector, Store, random_like
from steerlab.core.setting import Setting
from steerlab.evaluation.calibration.side_effects import NEUTRAL
from steerlab.evaluation.metrics.predictions import divergence
from tests.benchmarks.startup import STORE

CONCEPTS = ("love", "anger", "formality")
DOSE = 0.1
ASKED = 0.5
LAYERS = (
    [10],
    [15],
    [20],
    [14, 15, 16],
    [5, 15],
    [10, 15, 20],
    [5, 10, 15, 20, 25],
    [*range(10, 20)],
    [*range(5, 25)],
    [*range(30)],
)


def _alone(vector: SteeringVector) -> list[float]:
    return [norm / vector.residual_norms[b] for b, norm in vector.norms().items()]


DEFINITIONS: Mapping[str, Callable[[SteeringVector], float | None]] = {
    "what was added up to a layer (steerlab's)": lambda vector: vector.dose(1.0),
    "the largest layer's": lambda vector: max(_alone(vector)),
    "the sum over layers": lambda vector: sum(_alone(vector)),
    "the root of the sum of squares": lambda vector: float(np.linalg.norm(_alone(vector))),
}


def divergences(lm: LanguageModel, vectors: list[SteeringVector], dose: float) -> dict[str, list]:
    """Definition -> mean KL on neutral prompts of each vector at that dose, in nats."""
    found = {}
    for name, dose_of in DEFINITIONS.items():
        settings = [Setting(v, dose / (dose_of(v) or np.nan)) for v in vectors]
        found[name] = divergence(lm, NEUTRAL, settings, top=1).nats.mean(axis=1).tolist()
    return found


def main() -> None:
    """Print the spread under each definition."""
    lm = LanguageModel.load("smollm2")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "store"
        shutil.copytree(STORE, place, ignore=shutil.ignore_patterns("registry.db*", ".lock"))
        lab = Lab(Store(place), lm)
        whole = [lab.at_layers(lab.store.load(name), range(30)) for name in CONCEPTS]
    whole.append(random_like(whole[0], seed=0))
    vectors = [pick(vector, layers) for vector in whole for layers in LAYERS]
    found = divergences(lm, vectors, DOSE)
    print(f"KL at dose {DOSE} of {len(LAYERS)} sets of layers x {', '.join(CONCEPTS)}, random:")
    for name, nats in found.items():
        spread = float(np.log(nats).std(ddof=1))
        print(f"  sd(ln KL) {spread:.2f}, max/min {max(nats) / min(nats):6.1f}  {name}")
    own = float(np.log(next(iter(found.values()))).std(ddof=1))
    print(f"asked <= {ASKED}: {'met' if own <= ASKED else 'NOT met'}")


def pick(vector: SteeringVector, layers: list[int]) -> SteeringVector:
    """Some layers of a vector that has them all."""
    return SteeringVector(
        {b: vector.directions[b] for b in layers},
        model=vector.model,
        residual_norms=vector.residual_norms,
    )


if __name__ == "__main__":
    main()
