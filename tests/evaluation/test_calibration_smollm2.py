"""On the embedded model: love works, at a middle layer; its shuffled and random twins do not.

The grid is smaller than the default one, for the time it takes; `steerlab calibrate love` with
all of it takes a few minutes and comes to the same.
"""

from __future__ import annotations

import pytest

from steerlab import Lab
from steerlab.evaluation.calibration.calibrate import calibrate
from steerlab.evaluation.calibration.curve import Curve, FreshCost
from steerlab.evaluation.calibration.options import Options
from steerlab.evaluation.calibration.side_effects import SideEffects
from steerlab.evaluation.statistics import Estimate
from tests.test_smollm2 import PAIRS, all_cores  # noqa: F401  # a fixture

pytestmark = pytest.mark.smollm2

LAYERS = (9, 15, 21)
FRESH = FreshCost(0.0, *[Estimate(1.0, 1.0, 1.0, 24)] * 2, Estimate(0.0, 0.0, 0.1, 24))


@pytest.fixture
def lab(tmp_path, smollm2):
    return Lab(tmp_path / "store", smollm2)


def test_love_works_at_a_middle_layer_and_a_moderate_dose(lab, smollm2):
    options = Options(doses=(0.1, 0.2), controls=6)
    found = calibrate(lab, smollm2.extract(PAIRS), layers=LAYERS, options=options)
    curve = Curve.of(found)
    assert found.works, curve.reason
    assert 12 <= found.layer <= 22
    assert 0.08 <= found.dose <= 0.35
    assert curve.held.z >= 4
    assert curve.held.effect.low > 0


@pytest.mark.parametrize("kind", ["shuffled", "random"])
def test_its_twins_do_not(lab, smollm2, kind, monkeypatch):
    if kind == "shuffled":
        pairs = [(b, a) if i % 2 else (a, b) for i, (a, b) in enumerate(PAIRS)]
        vector = smollm2.extract(pairs)
    else:
        vector = smollm2.extract(PAIRS, method="random", seed=0)
    # what they cost is beside the point, and texts take longest
    for name, one in (("kl", 0.0), ("fresh", FRESH)):
        monkeypatch.setattr(SideEffects, name, lambda self, some, *_, one=one: [one] * len(some))
    options = Options(doses=(0.15,), controls=6)
    found = calibrate(lab, vector, layers=LAYERS, options=options)
    assert not found.works
    assert "no dose beats its control" in Curve.of(found).reason
