"""Calibrations of a vector beside one another: which of them counts, and where."""

import pytest

from steerlab.core.results import Calibration, in_force

DIGEST = "d" * 64


def works(layer: int, *others: int, dose: float = 0.2) -> Calibration:
    """One that works at a layer, chosen among others too."""
    data = {"candidates": [layer, *others]} if others else None
    return Calibration(DIGEST, True, layer, dose, 1.0, (0.0, dose), data)


def fails(*candidates: int) -> Calibration:
    return Calibration(DIGEST, False, data={"candidates": list(candidates)})


@pytest.mark.parametrize(
    ("found", "at"),
    [
        ((), None),
        ((works(21, 15, 18), works(15)), 21),  # another layer alone stands beside it
        ((works(21, 15), works(15, 18, 21)), 15),  # it looked at 21 too
        ((works(21, 15), works(21, dose=0.1)), 21),
        ((works(15), works(21, 15, 18), works(18)), 21),
        ((fails(15, 21), works(15)), 15),  # nothing worked before
        ((works(21, 15), fails(15)), 21),
        ((works(21, 15), fails(15, 21)), None),
        ((works(21, 15), fails(21)), None),
        ((works(21, 15), works(15), fails(21)), 15),  # what stands beside it was not refuted
        ((works(21, 15), works(15), fails(21), works(18)), 15),
        ((works(21, 15), works(15), works(18, 21)), 18),
        ((works(21, 15), works(15), fails(15, 21)), None),
    ],
)
def test_a_search_of_other_layers_leaves_what_works_in_use(found, at):
    kept = in_force(found)
    assert (kept.layer if kept is not None else None) == at


@pytest.mark.parametrize(
    ("found", "layer", "dose"),
    [
        ((works(21, 15), works(15, dose=0.1)), 15, 0.1),
        ((works(21, 15), works(15, dose=0.1)), 21, 0.2),
        ((works(21, 15), works(15, dose=0.1)), 18, None),
        ((works(15, dose=0.1), works(15, dose=0.3)), 15, 0.3),
        ((works(15), works(21, 15)), 15, 0.2),  # 21 is better, which says nothing against 15
        ((works(15), fails(15)), 15, None),
        ((works(15), fails(18)), 15, 0.2),
    ],
)
def test_at_a_layer_the_newest_that_looked_at_it_alone_counts(found, layer, dose):
    kept = in_force(found, layer)
    assert (kept.dose if kept is not None else None) == dose


@pytest.mark.parametrize("data", [None, 7, [], {"candidates": 3}, {"layers": [1, {"layer": "x"}]}])
def test_data_that_say_nothing_of_candidates_leave_the_layer(data):
    assert Calibration(DIGEST, True, 4, 0.2, 1.0, (0.0, 0.2), data).candidates == {4}


def test_the_layers_that_were_compared_are_candidates_in_earlier_data():
    data = {"layers": [{"layer": 15}, {"layer": 18}]}
    assert Calibration(DIGEST, False, data=data).candidates == {15, 18}


def test_the_registry_knows_the_calibration_of_each_layer(family):
    love = family.load("love")
    made = [works(3, 1, 2), works(2, dose=0.1), works(2, dose=0.3)]
    wide, _, narrow = (family.results.save_calibration(_of(love.digest, one)) for one in made)
    assert family.results.calibration("love") == wide
    assert family.results.calibration_of(love.digest, 2) == narrow
    assert family.results.by_layer(love.digest) == {2: narrow, 3: wide}
    family.results.save_calibration(_of(love.digest, fails(1, 2, 3)))
    assert not family.results.calibration("love").works
    assert family.results.by_layer(love.digest) == {}


def _of(digest: str, made: Calibration) -> Calibration:
    point = made.layer, made.dose, made.coefficient, made.safe
    return Calibration(digest, made.works, *point, made.data)
