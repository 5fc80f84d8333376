"""A payload and a store with hostile text in every field that can hold text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from steerlab.core.recipe import Contrast, Imported, ModelIdentity
from steerlab.core.record import record_of
from steerlab.core.run import Generation, Run
from steerlab.core.vector import SteeringVector
from steerlab.files import payload
from steerlab.registry import Store
from steerlab.registry.saving import rounded
from tests.fuzz.hostile import MARKUP, TERMINAL

OBEYED = "\x1b[35;5m"
"""An escape that the program itself never prints."""

EVIL = f"{OBEYED}evil{''.join(TERMINAL)}"
"""Everything that a terminal obeys, in one text."""

STYLED = " ".join(MARKUP)
"""Everything that Textual and Rich obey, in one text."""

TEXT = f"needle {STYLED} {EVIL}"

MODEL = ModelIdentity(
    source=f"evil/{EVIL}/model",
    architecture=TEXT,
    n_layers=6,
    d_model=8,
    fingerprint=EVIL,
    revision=TEXT,
    dtype=TEXT,
    tokenizer=TEXT,
    chat_template=TEXT,
)
SHORT = f"[red]x[/red]{OBEYED}\x9b1m\x07"
RECIPES = {
    "contrast": Contrast(
        (TEXT, *TERMINAL, *MARKUP), (TEXT, *MARKUP, *TERMINAL), TEXT, TEXT, True, 7, (TEXT,)
    ),
    "array": Imported(TEXT, SHORT, SHORT),
}


def vectors() -> dict[str, SteeringVector]:
    """A contrast, an array, a composition of them, and a composition of what is nowhere."""
    rng = np.random.default_rng(0)
    found = {
        name: SteeringVector(
            {2: rng.normal(size=8), 3: rng.normal(size=8)},
            model=MODEL,
            recipe=recipe,
            residual_norms={2: 4.0, 3: 4.0},
            diagnostics={2: {SHORT: 0.5}, 3: {SHORT: 0.5}},
            ref=f"{name}.v1",
        )
        for name, recipe in RECIPES.items()
    }
    made = found["contrast"] - 0.5 * found["array"]
    lost = 2 * SteeringVector({2: rng.normal(size=8)}, model=MODEL, ref="lost.v1")
    return {**found, "made": made, "orphan": lost}


def write(path: Path) -> Path:
    """The payload file."""
    entries = []
    for name, vector in vectors().items():
        vector = rounded(vector, f"{name}.v1")
        record = record_of(vector, name, 1, tags=(TEXT, *MARKUP, SHORT), note=TEXT)
        entries.append((replace(record, software={SHORT: SHORT, "steerlab": TEXT}), vector))
    path.write_bytes(payload.encode(entries))
    return path


def fill(store: Store, file: Path) -> None:
    """Import the payload, and keep runs whose texts are hostile too."""
    store.transfer.import_(write(file))
    texts = (Generation(0.0, 0.0, TEXT), Generation(2.0, 0.4, TEXT, "stop", 3))
    store.runs.save(Run("contrast", TEXT, MODEL.source, texts, layers=SHORT))
    store.runs.save(Run(TEXT, TEXT, TEXT, texts))
