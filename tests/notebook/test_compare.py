"""compare(...): columns of texts, the differing words marked, and plain text without HTML."""

from __future__ import annotations

import numpy as np
import pytest

from steerlab import Lab, Store, compare
from steerlab.core.arguments import UnknownArgument
from steerlab.core.cell import Cell
from steerlab.core.results import Calibration
from steerlab.core.setting import BASELINE, Setting
from steerlab.errors import BadOption
from steerlab.notebook.compare import Comparison
from tests.notebook.values import HOSTILE, hostile_vector
from tests.report.test_report import Reader
from tests.saved import ANGER, LOVE
from tests.tiny import tiny_lm


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture
def bench(lm, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLAB_STORE", str(tmp_path / "store"))
    bench = Lab(Store(), lm)
    bench.extract("love", LOVE, layers=[1, 2])
    bench.extract("anger", ANGER, layers=[1, 2])
    return bench


def test_it_writes_the_texts_of_the_lab(bench, lm):
    made = compare(lm, "love - anger", ["Hello", "Ho"], doses=[-1, 0, 1], max_new_tokens=4)
    vector = bench.evaluate("love - anger")
    settings = [Setting(vector, c) for c in (-vector.coefficient(1), 0, vector.coefficient(1))]
    cells = bench.compare(["Hello", "Ho"], settings, max_new_tokens=4)
    assert [cell.text for cell in made.cells] == [cell.text for cell in cells]
    assert made.label == "love.v1 - anger.v1"
    assert [len(row) for row in made.rows] == [3, 3]
    page = Reader(made._repr_html_())
    head = next(words for words in page.words.split("\n") if "prompt" in words)
    assert "dose -1.00" in head
    assert "baseline" in head


def test_without_strengths_it_takes_the_calibrated_dose(bench):
    love = bench.store["love"]
    assert [s.dose for s in compare(bench, love, "Hi", max_new_tokens=1).settings] == pytest.approx(
        [-0.2, 0, 0.2]
    )
    c = love[2].coefficient(0.3)
    bench.store.results.save_calibration(Calibration(love.digest, True, 2, 0.3, c, (-0.3, 0.4)))
    found = compare(bench, "love", "Hi", max_new_tokens=1).settings
    assert [(s.layers, s.dose) for s in found] == [((), 0.0), ((2,), pytest.approx(0.3))]


def test_differing_words_are_marked_and_hostile_texts_escaped():
    vector = hostile_vector()
    settings = (BASELINE, Setting(vector, 1.0))
    texts = ("a good day", f"a bad day {HOSTILE}")
    cells = [Cell(s, HOSTILE, 0, t, "length", 3) for s, t in zip(settings, texts, strict=True)]
    made = Comparison(HOSTILE, settings, tuple(cells))
    html = made._repr_html_()
    assert "<mark>bad</mark>" in html
    assert "<mark>day</mark>" not in html
    assert not {"script", "img"} & {tag for tag, _ in Reader(html).tags}
    assert repr(made) == str(made)
    assert "baseline" in str(made)
    assert "\x1b" not in str(made)


def test_what_can_not_be_compared_is_said(bench, lm):
    with pytest.raises(BadOption, match="LanguageModel or a Lab"):
        compare(lm.model, "love", "Hi")
    with pytest.raises(BadOption, match="not both"):
        compare(bench, "love", "Hi", doses=[1], coefficients=[1])
    with pytest.raises(UnknownArgument, match="did you mean doses"):
        compare(bench, "love", "Hi", dose=[1])


@pytest.mark.parametrize("doses", [0.5, (0.5,), np.array([0.5]), np.float32([0.5])])
def test_strengths_are_a_number_a_list_or_an_array(bench, doses):
    found = compare(bench, "love", "Hi", doses=doses, max_new_tokens=1)
    assert [s.dose for s in found.settings] == pytest.approx([0.5])
    swept = bench.sweep("love", [1], "Hi", doses=doses, max_new_tokens=1)
    assert [s.dose for s in swept.settings] == pytest.approx([0.5])


@pytest.mark.parametrize(
    ("vector", "prompts", "how", "message"),
    [
        ("love", "Hi", {"doses": ["a"]}, "doses are numbers, not 'a'"),
        ("love", "Hi", {"doses": None}, "doses: give one or a list of them, not None"),
        ("love", 3, {}, "prompts: give one or a list of them, not 3"),
        (3, "Hi", {}, "a vector or an expression, not 3"),
    ],
)
def test_wrong_kinds_of_arguments_are_named(bench, vector, prompts, how, message):
    with pytest.raises(BadOption, match=message):
        compare(bench, vector, prompts, **how)
