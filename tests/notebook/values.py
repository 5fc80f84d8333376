"""One value of each kind that notebooks show, all of hostile texts."""

from __future__ import annotations

from dataclasses import replace

from steerlab import difference
from steerlab.core.cell import Cell
from steerlab.core.completion import Completion
from steerlab.core.recipe import Imported
from steerlab.core.results import Calibration, Evaluation, Measured
from steerlab.core.setting import BASELINE, settings_of
from steerlab.core.sweep import Sweep
from steerlab.evaluation.generalization import plan as names
from steerlab.evaluation.inspection.inspect import Inspection
from steerlab.evaluation.inspection.logit_lens import Lens, TokenLogit
from steerlab.registry.neighbours import Neighbour
from tests.evaluation.measurements import calibration
from tests.registry.samples import TINY, vector

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\x1b[31m\u202e\"'&{{7*7}}"
MODEL = replace(TINY, source=HOSTILE)


def hostile_vector(seed: int = 0, recipe: Imported | None = None):
    return vector(seed, model=MODEL, recipe=recipe or Imported(HOSTILE))


def sweep(texts: int = 2) -> Sweep:
    settings = (BASELINE, *settings_of(hostile_vector(), doses=[0.1, -0.1], label=HOSTILE))
    prompts = [HOSTILE, "Hello"][:texts]
    bare = tuple(s.without_vector() for s in settings)
    cells = [Cell(s, p, 0, f"{HOSTILE} {i}", "length", 2) for p in prompts
             for i, s in enumerate(bare)]  # fmt: skip
    made = Sweep("", HOSTILE, "d" * 64, HOSTILE, "k", "dose", bare, tuple(prompts), (0,))
    return made.with_cells(cells)


def evaluation() -> Evaluation:
    values = [
        Measured(HOSTILE, "propensity", setting, 1.0, 0.5, 1.5, 4)
        for setting in (names.RANGE, names.RANDOM, names.Z)
    ]
    return Evaluation("d" * 64, HOSTILE, "s", HOSTILE, "k", {}, tuple(values), {"dose": 0.1})


def inspection() -> Inspection:
    one, token = hostile_vector(), TokenLogit(1, HOSTILE, 2.0)
    return Inspection(
        HOSTILE,
        one.recipe,
        one,
        operands={HOSTILE: {2: 0.5}},
        neighbours=(Neighbour(HOSTILE, (2, 3), 0.5),),
        lens=(Lens(2, None, (token,), (token,), 1.0),),
        notes=(HOSTILE,),
    )


def every_value(store) -> list[object]:
    """store: where a hostile record can be made."""
    saved = store.save("love", hostile_vector(), tags=[HOSTILE], note=HOSTILE.replace("\x1b", ""))
    return [
        saved,
        store.record(saved.ref),
        store,
        sweep(),
        evaluation(),
        inspection(),
        calibration("d" * 64),
        calibration("d" * 64, reason=HOSTILE),
        Calibration("d" * 64, False, data={"points": HOSTILE}),
        difference(hostile_vector(), hostile_vector(1)),
        Completion(HOSTILE, HOSTILE, (1, 2), "length"),
    ]
