"""Scorers by spec: built-in ones, words, patterns, functions; and what is wrong with a spec."""

from __future__ import annotations

import math
import sys

import pytest

from steerlab.errors import BadOption, NotFound
from steerlab.evaluation.metrics import texts
from steerlab.evaluation.metrics.scorers import scorer
from steerlab.evaluation.metrics.texts import METRICS, Metric


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's own in the current directory."""
    (tmp_path / "mine.py").write_text(
        '''
from math import nan
def shouting(text):
    """Share of capital letters.

    More about it.
    """
    return sum(map(str.isupper, text)) / len(text)
class Scorer:
    @staticmethod
    def vowels(text): return sum(c in "aeiou" for c in text)
threshold = 3
def undefined(text): return nan
def word(text): return "high"
''',
        "utf-8",
    )
    (tmp_path / "broken.py").write_text("import no_such_package_of_mine\n", "utf-8")
    (tmp_path / "leaving.py").write_text("import sys; sys.exit('bye')\n", "utf-8")
    monkeypatch.chdir(tmp_path)
    yield
    for name in ("mine", "broken", "leaving"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", METRICS)
def test_a_built_in_metric_has_its_name(name):
    assert scorer(name) is METRICS[name]


def test_keywords_are_counted_without_case_and_marks(tmp_path):
    file = tmp_path / "warm words.txt"
    file.write_text("Love\nkind, gentle\n\ndon't\n", "utf-8")
    metric = scorer(f"keywords:{file}")
    assert metric.score("LOVE is kind; lovely is not. Don’t!") == 3 / 7
    assert metric.score("nothing of it") == 0
    assert math.isnan(metric.score(" ... "))
    assert metric.about == "words listed in warm words.txt / all"


def test_matches_are_counted():
    metric = scorer(r"regex:(?i)\bi\b:?")
    assert metric.score("I think I: i am in it") == 3
    assert metric.score("") == 0
    assert metric.shown(3.0) == "3.0"


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize("spec", ["mine:shouting", "mine.shouting"])
def test_any_function_of_a_text_is_a_metric(spec):
    before = list(sys.path)
    metric = scorer(spec)
    assert metric.score("ABcd") == 0.5
    assert (metric.name, metric.about) == (spec, "Share of capital letters.")
    assert sys.path == before
    assert scorer("mine:Scorer.vowels").score("aeb") == 2
    assert scorer("builtins:len").score("four") == 4


@pytest.mark.usefixtures("mine")
def test_a_text_without_a_value_has_a_reason():
    shouting = scorer("mine:shouting")
    assert shouting.explained("Ab") == (0.5, "")
    value, why = shouting.explained("")
    assert math.isnan(value)
    assert why == "ZeroDivisionError: division by zero"
    assert scorer("mine:undefined").explained("a")[1] == "its value is nan"
    assert "could not convert" in scorer("mine:word").explained("a")[1]
    assert "no baseline" in METRICS["shared"].explained("a")[1]
    quiet = Metric("quiet", "", lambda text: (_ for _ in ()).throw(KeyError()))
    assert quiet.explained("a")[1] == "KeyError"


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("distinct-4", "no metric 'distinct-4': did you mean distinct-"),
        ("vadr", "did you mean vader"),
        ("beauty", "known: distinct-1, .*keywords:FILE, regex:PATTERN, package.module:function"),
        ("", "no metric ''"),
        ("a b:c", "no metric 'a b:c'"),
        ("keywrds:x", "did you mean keywords:"),
        ("regex:(", r"'\(' is not a regular expression: missing \)"),
        ("regex:", "regex: needs an argument"),
        ("mine:shoutin", "mine has no 'shoutin': did you mean shouting"),
        ("mine:threshold", "mine:threshold is not a function: 3"),
        ("nowhere_at_all:f", "no module nowhere_at_all is installed"),
        ("nowhere.at.all", "no metric 'nowhere.at.all'"),
        ("broken:f", "importing broken failed: ModuleNotFoundError: .*no_such_package_of_mine"),
        ("leaving:f", "importing leaving failed: SystemExit: bye"),
    ],
)
def test_what_is_wrong_with_a_spec_is_one_line(spec, message):
    with pytest.raises(BadOption, match=message) as caught:
        scorer(spec)
    assert "\n" not in str(caught.value)


def test_a_file_of_words_has_to_be_there_and_hold_some(tmp_path):
    with pytest.raises(NotFound, match="no keywords file"):
        scorer(f"keywords:{tmp_path / 'none.txt'}")
    for text in ("...\n", "", "\n"):
        (tmp_path / "marks.txt").write_text(text, "utf-8")
        with pytest.raises(BadOption, match="contains no words"):
            scorer(f"keywords:{tmp_path / 'marks.txt'}")


def test_without_its_package_vader_says_what_to_install(monkeypatch):
    monkeypatch.setattr(texts, "find_spec", lambda name: None)
    left = {metric.name: metric for metric in texts._known()}
    monkeypatch.setattr("steerlab.evaluation.metrics.scorers.METRICS", left)
    with pytest.raises(BadOption, match="pip install vaderSentiment"):
        scorer("vader")
