"""A world without a model, where calibrations run in a tenth of a second and the truth is known.

Each item answers a direction by the product with its own readout: a shared part, which is what a
vector should find, and a part of its own. The difference of its pair is the same readout with
more noise, so that a pair helps to move itself, as it does in a model.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from steerlab.core.recipe import Imported, ModelIdentity
from steerlab.core.vector import SteeringVector
from steerlab.evaluation.calibration.held_out import Source
from steerlab.evaluation.calibration.options import Options
from steerlab.evaluation.calibration.search import Search
from steerlab.evaluation.calibration.trials import Trials
from steerlab.evaluation.controls import halvings, swaps
from steerlab.progress import Parts

WIDTH, LAYERS = 24, (0, 1, 2)
MODEL = ModelIdentity("simulated", "none", 4, WIDTH, "f")
QUICK = Options(doses=(0.1, 0.2), controls=8)


class World:
    """Items and pairs. shared: how strongly all items answer one direction; 0 for a null."""

    def __init__(self, seed: int, shared: float, count: int) -> None:
        self.rng = np.random.default_rng([seed, count])
        self.shared = shared
        self.gains = self.rng.uniform(0.5, 1.5, len(LAYERS))
        self.common = self.rng.standard_normal((len(LAYERS), WIDTH))
        self.readouts = self.drawn(count)
        noise = self.rng.standard_normal(self.readouts.shape)
        self.differences = self.readouts + 0.5 * noise

    def drawn(self, count: int) -> np.ndarray:
        """Readouts of new items: (n, layers, width)."""
        own = self.rng.standard_normal((count, len(LAYERS), WIDTH))
        return self.gains[:, None] * (self.shared * self.common + own)

    def truth(self, vector: SteeringVector, dose: float, count: int = 4_000) -> np.ndarray:
        """Signed ranges of new items under a vector: (n,)."""
        (b,) = vector.layers
        direction = vector.directions[b][0]
        return 2 * dose * self.drawn(count)[:, b] @ direction / np.linalg.norm(direction)


class Measured:
    """The answer of each item; damage pulls both signs down alike."""

    name = "propensity"

    def __init__(self, readouts: np.ndarray) -> None:
        self.readouts, self.count = readouts, len(readouts)

    def values(self, requests, **watch) -> np.ndarray:
        """One value for each request."""
        found = []
        for item, setting in requests:
            moved = 0.0
            for b in setting.layers:
                direction = setting.vector.directions[b][0]
                along = self.readouts[item, b] @ direction / np.linalg.norm(direction)
                moved += setting.dose * along - setting.dose**2
            found.append(item % 3 + moved)
        return np.array(found)


class Pairs:
    """A vector of some of the world's pairs: the mean of their differences."""

    unshuffled = ""

    def __init__(self, differences: np.ndarray) -> None:
        self.differences = differences
        self.pairs = tuple((f"more {i}", f"less {i}") for i in range(len(differences)))
        self.shuffles = halvings(len(differences))
        self._made: dict[object, SteeringVector] = {}

    def at(self, layer: int, without: Collection[tuple[str, str]] = ()) -> SteeringVector:
        """The mean of the remaining differences."""
        kept = [i for i, pair in enumerate(self.pairs) if pair not in without]
        return self._mean(layer, kept, np.ones(len(kept)))

    def shuffled(self, layer: int, number: int) -> SteeringVector:
        """The mean with half of the differences turned round."""
        draw = swaps(len(self.pairs), range(self.shuffles))[number]
        made = self._mean(layer, range(len(self.pairs)), np.where(draw, -1.0, 1.0))
        return made * (self.at(layer).norm / made.norm)

    def separability(self, layer: int, without: Collection[tuple[str, str]] = ()) -> None:
        """Unknown, so that no layer is left out."""

    def _mean(self, layer: int, kept: Sequence[int], signs: np.ndarray) -> SteeringVector:
        key = (layer, tuple(kept), signs.tobytes())
        if key not in self._made:
            mean = (signs[:, None] * self.differences[list(kept), layer]).mean(axis=0)
            self._made[key] = made({layer: mean})
        return self._made[key]


def made(directions: dict[int, np.ndarray]) -> SteeringVector:
    """A vector of the simulated model."""
    return SteeringVector(
        directions,
        model=MODEL,
        recipe=Imported("simulated"),
        residual_norms=dict.fromkeys(directions, 10.0),
    )


def search(world: World, *, own_pairs: bool = True, vector: SteeringVector | None = None) -> Search:
    """A calibration of the world's vector on its own pairs, or of some vector on its items."""
    source = Pairs(world.differences) if vector is None else Source(vector)
    crossed = source.pairs if own_pairs and vector is None else ()
    readouts = world.readouts if crossed else world.drawn(len(world.readouts))
    trials = Trials(source, Measured(readouts), crossed, 0, Parts(None, 1))
    whole = vector or made({b: source.at(b).directions[b][0] for b in LAYERS})
    return Search(None, whole, trials, LAYERS, QUICK)
