"""The time left, in round numbers."""

import pytest

from steerlab.cli.progress import Bar, about


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "10 s"),
        (44, "40 s"),
        (59, "60 s"),
        (61, "1 min"),
        (170, "3 min"),
        (7 * 60, "5 min"),
        (9 * 60, "10 min"),
        (40 * 60, "45 min"),
    ],
)
def test_a_time_to_wait_is_round(seconds, said):
    assert about(seconds) == f"about {said} left"


def test_the_pace_of_the_whole_work_counts_not_that_of_its_last_part(monkeypatch):
    now = 100.0
    monkeypatch.setattr("steerlab.cli.progress.time.monotonic", lambda: now)
    bar = Bar("calibrating", None)
    assert bar._left(10, 1000) == ""  # too early
    now += 60
    assert bar._left(11, 1000) == ""  # too little
    assert bar._left(110, 1000) == "about 10 min left"
    now += 1
    assert bar._left(210, 1000) == "about 4 min left"  # a fast part shortens it once, not to 0
    now += 60
    assert bar._left(220, 1000) == "about 5 min left"
    assert bar._left(2, 1000) == ""  # another work has begun


def test_each_stage_has_a_pace_of_its_own_and_work_of_nothing_has_none(monkeypatch):
    now = 100.0
    monkeypatch.setattr("steerlab.cli.progress.time.monotonic", lambda: now)
    bar = Bar("loading", None)
    bar._left(0, 270)
    now += 60
    bar._left(270, 270)  # fetched
    bar._left(0, 270)  # checking begins
    now += 6
    assert bar._left(135, 270) == "about 10 s left"
    bar._left(0, 0)
    now += 6
    assert bar._left(0, 0) == ""
