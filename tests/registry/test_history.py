"""The story of a name: everything that mentions it, in one list."""

from __future__ import annotations

import pytest

from steerlab.core.results import Calibration, Evaluation
from steerlab.core.run import Generation, Run
from steerlab.errors import NotFound
from tests.registry.samples import OTHER, vector
from tests.registry.test_sweeps import PLAN


def told(events):
    return [(e.what, e.ref, e.other or e.number) for e in events]


@pytest.fixture
def lived(family):
    """love with two versions, a child of the first, and one of everything that measures."""
    love = family.load("love.v1")
    family.results.save_calibration(Calibration(love.digest, True, 2, 0.15, 1.5, (-0.1, 0.2)))
    family.results.save_evaluation(
        Evaluation(love.digest, "moods", "a" * 64, "tests/Tiny-1", "key", {"steerlab": "1"}, ())
    )
    family.runs.save(Run("love - anger", "I think", "tests/Tiny-1", (Generation(1, 0.1, " so"),)))
    family.save("love", vector(7), tags=["newer"], note="again")
    family.runs.save(Run("2*love", "I feel", "tests/Tiny-1", (Generation(1, 0.1, " so"),)))
    return family


def test_a_story_is_told_from_its_end(lived):
    assert told(lived.log("love")) == [
        ("run", "love.v2", 2),
        ("version", "love.v2", None),
        ("run", "love.v1", 1),
        ("evaluation", "love.v1", None),
        ("calibration", "love.v1", None),
        ("used in", "love.v1", "warm.v1"),
        ("version", "love.v1", None),
    ]


def test_each_event_says_what_happened(lived):
    run, second, *_, evaluation, calibration, used, first = lived.log("love")
    assert run.text == "2*love on 'I feel'"
    assert (second.tags, second.note) == (("newer",), "again")
    assert first.text.startswith(str(vector(1).recipe))
    assert "layers 2-3, norm " in first.text
    assert used.text == "= love.v1 - 0.5 * anger.v1"
    assert calibration.text == "works at layer 2, dose +0.15"
    assert evaluation.text == "suite moods on tests/Tiny-1"


def test_a_version_has_a_story_of_its_own(lived):
    assert told(lived.log("love.v2")) == [("run", "love.v2", 2), ("version", "love.v2", None)]


def test_what_was_removed_is_part_of_the_story(lived):
    lived.remove("love.v2")
    removed, *others = lived.log("love")
    assert (removed.what, removed.ref) == ("removed", "love.v2")
    assert removed.text == str(vector(7).recipe)
    assert all(event.ref == "love.v1" for event in others)
    assert "removed" not in [event.what for event in lived.log("love.v1")]


def test_a_name_that_lost_all_its_versions_has_a_story(lived):
    for ref in ("love.v2", "love.v1"):
        lived.remove(ref, force=True)
    assert told(lived.log("love")) == [
        ("removed", "love.v1", None),
        ("removed", "love.v2", None),
        ("evaluation", "love.v1", None),
        ("calibration", "love.v1", None),
    ]
    assert told(lived.log("love.v2")) == [("removed", "love.v2", None)]
    with pytest.raises(NotFound, match=r"no vector called love\.v3: "):
        lived.log("love.v3")


def test_what_works_nowhere_is_told_too(family):
    family.results.save_calibration(Calibration(family.load("love").digest, False))
    assert family.log("love")[0].text == "is not shown to work"


def test_a_model_decides_between_two(family):
    family.save("love", vector(3, model=OTHER))
    assert told(family.log("love", model="other")) == [("version", "love.v1", None)]
    with pytest.raises(NotFound, match="did you mean love"):
        family.log("lovee")


def test_a_sweep_is_told(family):
    begun = family.sweeps.begin(PLAN)
    event = family.log("anger")[0]
    assert (event.what, event.number, event.text) == ("sweep", begun.id, PLAN.expression)
