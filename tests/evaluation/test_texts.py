"""Metrics of texts against slow references; a sweep's settings as a grid."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab import Lab, Store
from steerlab.core.recipe import Imported
from steerlab.core.setting import settings_of
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption
from steerlab.evaluation.metrics import texts
from steerlab.evaluation.metrics.texts import METRICS, Metric, distinct, length, longest_run, shared
from steerlab.plots.sweep_grid import mean
from tests.saved import ANGER, LOVE
from tests.tiny import tiny_lm

WORDS = st.lists(st.sampled_from(["a", "b", "c", "Ä", "[b]", "."]), max_size=14)
GAPS = st.sampled_from([" ", "\n", "\t ", "  "])


def spaced(draw_words: list[str], gap: str) -> str:
    return gap.join(draw_words)


TEXTS = st.builds(spaced, WORDS, GAPS)


def occurrences(words: list[str], run: list[str]) -> int:
    return sum(words[i : i + len(run)] == run for i in range(len(words) - len(run) + 1))


@given(TEXTS, st.integers(1, 4))
def test_distinct_counts_each_different_run_once(text: str, n: int) -> None:
    words = text.split()
    runs = [words[i : i + n] for i in range(len(words)) if i + n <= len(words)]
    different: list[list[str]] = []
    for run in runs:
        if run not in different:
            different.append(run)
    if runs:
        assert distinct(text, n) == len(different) / len(runs)
    else:
        assert math.isnan(distinct(text, n))


@given(TEXTS)
def test_the_longest_run_is_the_longest_that_comes_again(text: str) -> None:
    words = text.split()
    found = [
        j - i
        for i in range(len(words))
        for j in range(i + 1, len(words) + 1)
        if occurrences(words, words[i:j]) > 1
    ]
    if words:
        assert longest_run(text) == max(found, default=0)
    else:
        assert math.isnan(longest_run(text))


@given(TEXTS, TEXTS)
def test_shared_stops_at_the_first_other_word(text: str, baseline: str) -> None:
    ours, theirs = text.split(), baseline.split()
    if not ours:
        assert math.isnan(shared(text, baseline))
        return
    same = 0
    while ours[: same + 1] == theirs[: same + 1] and same < min(len(ours), len(theirs)):
        same += 1
    assert shared(text, baseline) == same / max(len(ours), len(theirs))
    assert (shared(text, baseline) == 1) == (ours == theirs)


@pytest.mark.parametrize(
    ("text", "value"),
    [("no no no no no", 4), ("a b c a b d", 2), ("a b c", 0), ("again", 0)],
)
def test_a_loop_is_a_long_run(text: str, value: float) -> None:
    assert longest_run(text) == value


def test_a_long_text_is_valued_quickly() -> None:
    assert longest_run("word " * 3000) == 2999
    assert longest_run(" ".join(map(str, range(3000)))) == 0


def test_length_is_words() -> None:
    assert length("one\ntwo  three") == 3
    assert length("") == 0


@given(TEXTS, TEXTS)
def test_every_value_lies_on_its_scale(text: str, baseline: str) -> None:
    for metric in METRICS.values():
        value = metric.score(text, baseline)
        if not math.isnan(value) and metric.name != "longest-run":
            assert metric.low <= value <= (math.inf if metric.high is None else metric.high)
        assert metric.shown(value)


def test_vader_tells_kind_from_unkind() -> None:
    metric = METRICS["vader"]
    assert metric.score("I love this wonderful day") > 0.5
    assert metric.score("I hate this horrible day") < -0.5
    assert metric.score("the table") == 0
    assert math.isnan(metric.score(" \n"))


def test_without_its_package_there_is_no_vader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texts, "find_spec", lambda name: None)
    assert "vader" not in {metric.name for metric in texts._known()}


def test_a_scorer_that_fails_gives_no_value() -> None:
    def broken(text: str) -> float:
        raise RuntimeError("no such word")

    assert math.isnan(Metric("broken", "", broken).score("text"))
    assert math.isnan(Metric("wild", "", lambda text: math.inf).score("text"))
    assert math.isnan(Metric("odd", "", lambda text: None).score("text"))  # type: ignore


def test_without_a_baseline_nothing_can_be_compared_with_it() -> None:
    assert math.isnan(METRICS["shared"].score("a b"))
    assert METRICS["shared"].score("a b", "a b") == 1
    assert METRICS["distinct-1"].score("a b") == 1


def test_values_are_written_in_few_characters() -> None:
    metric = METRICS["distinct-2"]
    assert [metric.shown(v) for v in (None, math.nan, 0.5)] == ["·", "–", "0.50"]
    assert METRICS["vader"].shown(0.5) == "+0.50"


def test_they_cost_nothing_to_import() -> None:
    code = "import sys, steerlab.evaluation.metrics.texts; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {"numpy", "torch", "vaderSentiment", "sqlmodel"} & set(result.stdout.split())


# grids


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Lab:
    lab = Lab(Store(tmp_path_factory.mktemp("grid")), tiny_lm())
    love = lab.extract("love", LOVE, layers=1)
    anger = lab.extract("anger", ANGER, layers=1)
    lab.store.save("warm", love - 0.5 * anger)
    return lab


def test_a_sweep_writes_the_settings_it_announces(lab: Lab) -> None:
    love = lab.store.load("love")
    options = {"coefficients": (-1.0, 0.0, 1.0)}
    settings = settings_of(lab.at_layers(love, "all"), **options)
    cells = lab.sweep(love, "all", ["Hi", "Ho"], max_new_tokens=1, **options)
    assert [cell.setting for cell in cells] == settings * 2


def test_a_mean_leaves_out_what_is_undefined() -> None:
    assert mean([]) is None
    assert math.isnan(mean([math.nan]) or 0)
    assert mean([1, math.nan, 2]) == 1.5


def test_settings_need_one_kind_of_strength(lab: Lab) -> None:
    with pytest.raises(BadOption, match="either"):
        lab.sweep(lab.store.load("love"), 1, ["Hi"])


def test_what_can_be_extended(lab: Lab) -> None:
    love = lab.store.load("love")
    imported = SteeringVector(love.directions, model=love.model, recipe=Imported("a file"))
    lab.store.save("foreign", imported)
    assert lab.extends(love)
    assert lab.extends(lab.evaluate("2 * warm + love"))
    assert not lab.extends(imported)
    assert not lab.extends(lab.evaluate("love + foreign"))
    assert not lab.extends(lab.evaluate("love[1]"))
    gone = love + 0.5 * imported
    assert not lab.extends(gone)
