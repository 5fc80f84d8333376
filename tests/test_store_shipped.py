"""The starter vectors in the repository: readable forever, and what their prompts give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors import safe_open

from steerlab import Lab, Store, vectors
from steerlab.cli import run
from steerlab.core.recipe import Contrast
from steerlab.evaluation.benchmark import made_so
from steerlab.evaluation.calibration.calibrate import calibrate
from steerlab.evaluation.calibration.curve import Curve, findings
from steerlab.evaluation.calibration.options import Options
from steerlab.evaluation.generalization.plan import EvaluationPlan
from steerlab.evaluation.generalization.regression import check, stored
from steerlab.evaluation.generalization.verdict import verdict
from steerlab.lab.starter import LAYER, ensure, starters

MEASURED = (*starters(), "love_minus_anger")
SHIPPED = Path(__file__).parents[1] / "store"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory) -> Path:
    """What a fresh clone has: the payloads, and no registry."""
    return Path(
        shutil.copytree(
            SHIPPED,
            tmp_path_factory.mktemp("shipped") / "store",
            ignore=shutil.ignore_patterns("registry.db*", ".lock"),
        )
    )


@pytest.fixture(scope="module")
def store(fresh) -> Store:
    return Store(fresh)


def test_a_fresh_clone_answers_at_once(tmp_path, monkeypatch, fresh, capsys):
    shutil.copytree(fresh, tmp_path / "store", ignore=shutil.ignore_patterns("registry.db*"))
    monkeypatch.delenv("STEERLAB_STORE", raising=False)
    monkeypatch.chdir(tmp_path)
    assert run(["list", "--json"]) == 0
    names = {entry["name"] for entry in json.loads(capsys.readouterr().out)}
    assert names == {*starters(), "love_minus_anger"}
    assert vectors.love.layers == (LAYER,)


def test_there_are_at_least_ten_and_nothing_is_wrong(store):
    assert len(store.list()) >= 10
    assert store.verify() == []


@pytest.mark.parametrize("name", starters())
def test_a_vector_is_made_of_its_prompts(store, name):
    entry, record = starters()[name], store.record(f"smollm2.{name}")
    assert isinstance(record.recipe, Contrast)
    assert record.recipe.positive == entry.positive
    assert record.recipe.negative == entry.negative
    assert all(record.recipe.ids_read)
    assert record.recipe.method == "mean_difference"
    assert (record.note, set(record.tags)) == (entry.note, set(entry.tags))
    assert [facts.layer for facts in record.layers] == [LAYER]
    assert 0.1 < record.doses()[LAYER] < 2
    assert (record.model.n_layers, record.model.d_model) == (30, 576)


@pytest.mark.parametrize("name", MEASURED)
def test_a_vector_brings_its_calibration(store, name):
    found = store.results.calibration(f"smollm2.{name}")
    assert made_so(found, Options())
    low, high = found.safe
    assert found.works
    assert low < 0 < found.dose <= high
    assert Curve.of(found).held.beats_chance
    assert "/tmp" not in json.dumps(found.to_json())


@pytest.mark.parametrize("name", MEASURED)
def test_a_vector_brings_its_evaluation_at_its_operating_point(store, name):
    found = store.results.calibration(f"smollm2.{name}")
    (evaluation,) = store.results.evaluations(f"smollm2.{name}")
    assert evaluation.data["layers"] == [found.layer]
    assert evaluation.data["coefficient"] == pytest.approx(found.coefficient)
    assert EvaluationPlan.from_json(evaluation.data["plan"]).suites == ("statements",)
    assert verdict(evaluation)[0].startswith("vader: ")
    assert "/tmp" not in json.dumps(evaluation.to_json())


def test_an_effect_below_zero_is_shown_the_other_way(store):
    (evaluation,) = store.results.evaluations("smollm2.hate")
    assert verdict(evaluation)[0].startswith("vader: shown the other way in statements (-0.87")


def test_show_tells_the_evidence_of_a_fresh_clone(fresh, capsys):
    assert run(["show", "love", "--store", str(fresh)]) == 0
    assert "works: layer 21, dose +0.20" in capsys.readouterr().out


@pytest.mark.parametrize("name", starters())
def test_a_verdict_says_where_its_point_itself_is_not_shown(store, name):
    found = store.results.calibration(f"smollm2.{name}")
    first, *_ = findings(found)
    point = Curve.of(found).point
    assert ("the effect at this point itself is not shown" in first) == (not point.beats_chance)
    assert ("this dose alone is not shown" in first) == (point.beats_chance and not point.shows(1))
    assert (name == "concision") == ("not shown" in first)


def test_every_payload_describes_itself():
    for path in (SHIPPED / "payloads").rglob("*.safetensors"):
        with safe_open(path, "np") as file:
            assert set(file.metadata()) == {"steerlab"}
            data = json.loads(file.metadata()["steerlab"])
        assert path.stem in json.dumps(data)
        assert "/home" not in json.dumps(data)


def test_love_minus_anger_is_just_that(store):
    love, anger = store.load("love"), store.load("anger")
    assert store.load("love_minus_anger") == love - anger
    assert [node.ref for node in store.lineage("love").children] == ["smollm2.love_minus_anger.v1"]


def test_what_is_stored_is_not_made_again(store):
    class Untouchable:
        pass

    lab = Untouchable()
    lab.store = store
    assert set(ensure(lab)) == set(starters())
    assert ensure(lab, ["love"]) == {"love": store.load("love")}


@pytest.mark.smollm2
@pytest.mark.parametrize("name", ["love", "formality"])
def test_the_model_gives_the_same_again(store, smollm2, name):
    stored = store.load(name)
    again = smollm2.reextract(stored.recipe, list(stored.layers))
    assert stored.model.key == again.model.key
    assert again.cosines(stored)[LAYER] >= 0.9999
    assert again.recipe.without_ids() == stored.recipe.without_ids()
    assert again.recipe.ids_read == stored.recipe.ids_read


@pytest.mark.smollm2
def test_it_is_used_where_its_calibration_says(fresh, smollm2):
    at, coefficient, found = Lab(Store(fresh), smollm2).operating_point(Store(fresh).load("love"))
    assert at.layers == (found.layer,) != (LAYER,)
    assert at.dose(coefficient) == pytest.approx(found.dose)


@pytest.mark.campaign
@pytest.mark.smollm2
def test_a_calibration_comes_out_the_same_again(fresh, smollm2):
    lab = Lab(Store(fresh), smollm2)
    then = lab.store.results.calibration("love")
    options = Options(doses=(0.1, then.dose))  # at its layer: all layers take four times as long
    now = calibrate(lab, lab.store.load("love"), layers=[then.layer], options=options)
    assert (now.works, now.layer, now.dose) == (then.works, then.layer, then.dose)
    one, other = (Curve.of(found).held.effect for found in (then, now))
    assert one.low < other.mean < one.high
    assert other.low < one.mean < other.high


@pytest.mark.campaign
@pytest.mark.smollm2
def test_nothing_moved_since_it_was_evaluated(fresh, smollm2):
    lab = Lab(Store(fresh), smollm2)
    (then,) = stored(lab, ["love"])
    result = check(lab, then)
    assert not result.problem
    assert result.moved == ()
