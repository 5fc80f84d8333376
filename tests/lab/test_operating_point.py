"""What is said of doses outside the range that a calibration found safe."""

import pytest

from steerlab.core.results import Calibration
from steerlab.lab.operating_point import beyond_safe

FOUND = Calibration("d" * 64, True, 21, 0.2, 0.7, (-0.1, 0.2))


@pytest.mark.parametrize("dose", [0.2, 0.2000000152279065, -0.10000001, 0.0, None])
def test_the_calibrated_dose_is_safe_after_rounding_too(dose):
    assert beyond_safe(FOUND, (21,), dose) == ""


@pytest.mark.parametrize("dose", [0.21, -0.15])
def test_a_dose_beyond_the_range_is_named(dose):
    assert "outside the safe range, -0.10 to +0.20" in beyond_safe(FOUND, (21,), dose)


def test_another_layer_has_another_range():
    assert beyond_safe(FOUND, (15,), 0.5) == ""
