"""Small vectors of two tiny models, with every kind of recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from steerlab.core.recipe import Contrast, ModelIdentity
from steerlab.core.setting import Setting
from steerlab.core.vector import SteeringVector
from steerlab.registry import Store

TINY = ModelIdentity("tests/Tiny-1", "llama", 6, 8, "f1", "main", "float32", "t1", "c1")
OTHER = ModelIdentity("tests/other", "gpt2", 6, 8, "f2")
PAIRS = Contrast(
    positive=("I love you", "So much [b]love[/b] \x1b[31m"),
    negative=("I hate you", "nan"),
    method="mean_centred",
    read=-2,
    chat=True,
    seed=7,
    baseline=("The sky", "A table"),
    positive_ids=((1, 2), (3,)),
    negative_ids=((4,), ()),
)


def vector(seed: int = 0, *layers: int, model: ModelIdentity = TINY, **more: Any) -> SteeringVector:
    """A contrast vector with everything a record can hold."""
    rng = np.random.default_rng(seed)
    layers = layers or (2, 3)
    more = {
        "recipe": PAIRS,
        "residual_norms": dict.fromkeys(layers, 4.0),
        "diagnostics": {b: {"agreement": 0.5, "separability": 0.9} for b in layers},
        **more,
    }
    return SteeringVector({b: rng.normal(size=8) for b in layers}, model=model, **more)


def restored(store: Store, place: Path) -> Store:
    """A store made of a backup of another, in a directory."""
    copy = Store(place / "copy")
    copy.transfer.restore(store.transfer.backup(place / "backup.tar").path)
    return copy


def swept_setting(layer: int, strength: float, coefficient: float, dose: float | None) -> Setting:
    """A setting of a sweep as a store gives it."""
    return Setting(None, coefficient, "", (layer,), strength, dose)
