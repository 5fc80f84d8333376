"""The lab: comparisons as batches, sweeps, and layers made again from a recipe."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest

from steerlab import Lab, LanguageModel, SteeringVector, Store, steering
from steerlab.core.recipe import Imported
from steerlab.core.results import Calibration
from steerlab.core.setting import Setting
from steerlab.errors import BadOption, Incompatible, ModelMismatch, NotFound
from steerlab.lab.exports import strength_of, together
from steerlab.lab.operating_point import OperatingPoint
from steerlab.models import batch_size
from tests.saved import ANGER, LOVE, fill_store, save_model
from tests.tiny import tiny_lm

PROMPTS = ["Hello there", "What a day it is"]


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def bench(lm, tmp_path_factory):
    """A lab with love and anger at layer 1, warm = love - 0.5*anger, deep = 2*warm + love."""
    bench = Lab(Store(tmp_path_factory.mktemp("lab")), lm)
    love = bench.extract("love", LOVE, layers=1)
    anger = bench.extract("anger", ANGER, layers=1)
    warm = bench.store.save("warm", love - 0.5 * anger)
    bench.store.save("deep", 2 * warm + love)
    return bench


@pytest.fixture(scope="module")
def love(bench):
    return bench.store.load("love")


def texts(cells):
    return [cell.text for cell in cells]


def test_each_audited_cell_has_its_own_audit_as_if_alone(bench, love):
    settings = [Setting(love, 0.5), Setting(), Setting(love, -1.0)]
    how = {"positions": "generated", "audit": True, "max_new_tokens": 4}
    cells = bench.compare(PROMPTS, settings, **how)
    for cell in cells:
        audit, n = cell.audit.audit, len(cell.prompt)
        expected = range(n - 1, n + cell.tokens - 1) if cell.setting.vector else ()
        assert audit.positions() == tuple(expected)
        size = abs(cell.setting.coefficient) * love.norm
        assert audit.norms() == pytest.approx(dict.fromkeys(expected, size), rel=1e-5)
        assert len(cell.audit.tokens) == n + cell.tokens
        alone = bench.compare([cell.prompt], [cell.setting], **how)[0].audit
        assert cell.audit.tokens == alone.tokens
        assert audit.positions() == alone.audit.positions()
    assert all(cell.audit is None for cell in bench.compare(PROMPTS, settings, max_new_tokens=1))


def written(text):
    """A cell's or a completion's text with all that is known of it."""
    return (text.prompt, text.text, text.token_ids, text.finish)


def test_cells_come_prompt_by_prompt_seed_by_seed_setting_by_setting(bench, love):
    settings = [Setting(love, 0.5), Setting(), Setting(love, -0.5)]
    cells = bench.compare(PROMPTS, settings, seeds=(3, 4), max_new_tokens=2)
    assert [(c.prompt, c.seed, c.setting.coefficient) for c in cells] == [
        (prompt, seed, c) for prompt in PROMPTS for seed in (3, 4) for c in (0.5, 0, -0.5)
    ]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_cell_is_what_it_would_be_alone(bench, love, lm, temperature):
    sampling = {"max_new_tokens": 6, "temperature": temperature}
    anger = bench.store.load("anger")
    settings = [Setting(), Setting(love, 0.4), Setting(anger, -0.4)]
    cells = bench.compare(PROMPTS, settings, seeds=(0, 1), positions="generated", **sampling)
    for cell in cells:
        vectors = [] if cell.setting.vector is None else cell.setting.vector
        with steering(lm, vectors, cell.setting.coefficient, "generated"):
            alone = lm.generate(cell.prompt, seed=cell.seed, **sampling)
        assert written(cell) == written(alone)


def test_more_rows_than_a_batch_holds(bench, love, monkeypatch):
    settings = [Setting(), *(Setting(love, c / 10) for c in range(1, 6))]
    whole = bench.compare(PROMPTS, settings, max_new_tokens=4)
    monkeypatch.setattr(batch_size, "ROWS_CPU", 5)
    seen, heard = [], {}

    def hear(index, piece):
        heard[index] = heard.get(index, "") + piece

    cells = bench.compare(
        PROMPTS, settings, max_new_tokens=4, on_text=hear, progress=lambda *p: seen.append(p)
    )
    assert texts(cells) == texts(whole)
    assert heard == {i: text for i, text in enumerate(texts(cells)) if text}
    assert seen == sorted(seen)
    assert {total for _, total in seen} == {3 * 4}


def test_equal_generations_are_made_once(bench, love, monkeypatch):
    rows = []
    generate = LanguageModel.generate

    def counting(self, prompts, **options):
        rows.append(len(prompts))
        return generate(self, prompts, **options)

    monkeypatch.setattr(LanguageModel, "generate", counting)
    settings = [Setting(), Setting(love, 0.0), Setting(), Setting(love, 1), Setting(love, 1, "x")]
    heard = {}
    cells = bench.compare(
        ["Hi", "Hi"],
        settings,
        max_new_tokens=3,
        on_text=lambda i, piece: heard.__setitem__(i, heard.get(i, "") + piece),
    )
    assert rows == [2]
    assert len(cells) == 10
    assert heard == dict(enumerate(texts(cells)))
    assert texts(cells)[0] == texts(cells)[1] == texts(cells)[5]


def test_nothing_to_compare(bench, love):
    assert bench.compare([], [Setting(love, 1)]) == []
    assert bench.compare(["Hi"], []) == []


def test_stopping_keeps_what_came_and_starts_no_other_batch(bench, love, monkeypatch):
    monkeypatch.setattr(batch_size, "ROWS_CPU", 2)
    asked = []

    def stop():
        asked.append(None)
        return len(asked) == 3

    settings = [Setting(), Setting(love, 0.5)]
    cells = bench.compare(PROMPTS, settings, max_new_tokens=30, should_stop=stop)
    assert [c.prompt for c in cells] == [PROMPTS[0]] * 2
    assert {len(c.token_ids) for c in cells} == {3}
    assert {c.finish for c in cells} == {"cancelled"}


def test_a_cell_knows_its_dose(bench, love):
    blank = SteeringVector({1: np.ones(32)}, model=love.model, recipe=Imported("x.pt"))
    settings = [Setting(), Setting(love, -2.0), Setting(love, 0.5), Setting(blank, 1.0)]
    cells = bench.compare(["Hi"], settings, max_new_tokens=1)
    assert [c.setting.dose for c in cells] == [0, -love.dose(2), love.dose(0.5), None]
    assert [c.setting.label for c in cells] == ["", "love.v1", "love.v1", str(blank)]
    assert [c.setting.layers for c in cells] == [(), (1,), (1,), (1,)]


def test_front_vectors_and_broadcast_ones_share_a_batch(bench, love, lm):
    front = lm.extract([("Love", "Hate")], layers=1, method="actadd")
    cells = bench.compare(PROMPTS, [Setting(front, 0.5), Setting(love, 0.5)], max_new_tokens=3)
    with steering(lm, front, 0.5):
        assert written(cells[0]) == written(lm.generate(PROMPTS[0], max_new_tokens=3))


def test_missing_layers_are_extracted_again(bench, love, lm):
    direct = lm.extract(LOVE, layers=[0, 1, 3])
    made = bench.at_layers(love, [0, 1, 3])
    assert made == direct
    assert made.residual_norms == direct.residual_norms
    assert made.recipe == love.recipe
    assert made.ref is None


def test_what_was_extracted_again_is_remembered(bench, love, monkeypatch):
    made = bench.at_layers(love, [0, 1])
    monkeypatch.setattr(LanguageModel, "reextract", None)
    assert bench.at_layers(love, [0, 1]) == made
    with pytest.raises(TypeError):
        bench.at_layers(love, [1, 2])


def test_compositions_are_made_again_through_their_operands(bench, lm):
    love, anger = lm.extract(LOVE, layers=[2, 3]), lm.extract(ANGER, layers=[2, 3])
    assert bench.at_layers(bench.store.load("warm"), [2, 3]) == love - 0.5 * anger
    deep = bench.at_layers(bench.store.load("deep"), [2, 3])
    assert deep.layers == (2, 3)
    for b in deep.layers:
        expected = 3 * love.directions[b] - anger.directions[b]
        np.testing.assert_allclose(deep.directions[b], expected, rtol=1e-6, atol=1e-6)


def test_operands_in_common_are_made_once(bench, monkeypatch):
    x, y = "love", "anger"
    for n in range(6):
        bench.store.save(f"x{n}", bench.evaluate(f"{x} + 0.5*{y}"))
        bench.store.save(f"y{n}", bench.evaluate(f"{x} - 0.5*{y}"))
        x, y = f"x{n}", f"y{n}"
    last, asked = bench.store.load("x5"), []
    for name in ("load", "record"):
        real = getattr(type(bench.store), name)
        counted = lambda *given, real=real: asked.append(1) or real(*given)  # noqa: E731
        monkeypatch.setattr(type(bench.store), name, counted)
    assert bench.extends(last)
    assert bench.at_layers(last, [2, 3]).layers == (2, 3)
    assert len(asked) < 60


def test_layers_that_are_there_are_taken(bench, love, monkeypatch):
    wide = bench.at_layers(love, "all")
    monkeypatch.setattr(LanguageModel, "extract", None)
    assert bench.at_layers(love, 1) is love
    assert bench.at_layers(wide, [0, 2]) == wide[::2]


def test_every_method_can_be_made_again(bench, lm):
    for options in (
        {"method": "pca"},
        {"method": "probe"},
        {"method": "random", "seed": 3},
        {"read": "mean"},
        {"read": -2},
        {"chat": True},
        {"method": "mean_centred", "baseline": ["a chair", "the sky"]},
    ):
        vector = lm.extract(LOVE, layers=1, **options)
        assert bench.at_layers(vector, [2]) == lm.extract(LOVE, layers=2, **options)
    front = lm.extract(LOVE[:1], layers=1, method="actadd")
    assert bench.at_layers(front, [2]) == lm.extract(LOVE[:1], layers=2, method="actadd")


def test_imported_vectors_have_no_recipe_to_run(bench, love):
    found = SteeringVector({1: np.ones(32)}, model=love.model, recipe=Imported("x.pt"))
    assert bench.at_layers(found, 1) == found
    with pytest.raises(Incompatible, match="was imported at layers 1 and has no recipe"):
        bench.at_layers(found, [1, 2])


def test_a_copy_without_a_recipe_is_not_steered_where_its_original_was_calibrated(bench, love):
    found = SteeringVector({1: np.ones(32)}, model=love.model, recipe=Imported("x.pt"))
    elsewhere = Calibration(found.digest, True, 2, 0.2, 0.7, (-0.1, 0.2))
    bench.store.results.save_calibration(elsewhere)
    assert bench.calibration_of(found) is None
    assert bench.operating_point(found) == OperatingPoint(found, 1.0)
    bench.store.results.save_calibration(replace(elsewhere, layer=1))
    assert bench.operating_point(found).coefficient == 0.7


@pytest.fixture
def calibrated(lm, tmp_path):
    """A lab whose love is stored at layer 1 and works at layer 2, and at layer 3 too."""
    lab = Lab(Store(tmp_path / "store"), lm)
    love = lab.extract("love", LOVE, layers=1)
    for layer, dose in ((2, 0.3), (3, 0.1)):
        coefficient = lab.at_layers(love, layer).coefficient(dose)
        found = Calibration(love.digest, True, layer, dose, coefficient, (0.0, dose))
        lab.store.results.save_calibration(found)
    return lab


@pytest.mark.parametrize(
    ("given", "layer", "dose"),
    [
        ({}, 2, 0.3),
        ({"layers": 3}, 3, 0.1),
        ({"dose": 0.05}, 2, 0.05),
        ({"layers": [1], "dose": 0.2}, 1, 0.2),
    ],
)
def test_a_lab_steers_where_and_as_strongly_as_generate(calibrated, lm, given, layer, dose):
    at = calibrated.at_layers(calibrated.store.load("love"), layer)
    for of in ("love", calibrated.store.load("love")):
        with calibrated.steering(of, **given):
            ours = lm.generate(PROMPTS[0], max_new_tokens=5)
        with steering(lm, at, dose=dose):
            assert lm.generate(PROMPTS[0], max_new_tokens=5) == ours


def test_a_layer_that_says_itself_takes_the_calibration_made_there(calibrated):
    love = calibrated.store.load("love")
    assert calibrated.calibration_of(love[1]) is None
    found = Calibration(love.digest, True, 1, 0.2, 0.7, (0.0, 0.2))
    calibrated.store.results.save_calibration(found)
    assert calibrated.operating_point(love[1]).coefficient == 0.7
    assert calibrated.operating_point(love).vector.layers == (2,)
    assert calibrated.operating_point(love, [1, 2]).coefficient == 1.0


def test_a_vector_made_at_another_layer_says_what_it_is(calibrated):
    love = calibrated.store.load("love")
    assert str(calibrated.at_layers(love, 2)) == "love.v1 at layer 2"
    assert str(calibrated.at_layers(2 * love, [2, 3])) == "2 * love.v1 at layers 2-3"
    assert str(calibrated.at_layers(love, 2) + love) != "love.v1 at layer 2"


def test_a_stored_layer_is_taken_without_a_model(calibrated):
    apart = Lab(calibrated.store)
    assert apart.at_layers(calibrated.store.load("love"), 1).layers == (1,)
    assert not apart.is_loaded


def test_what_selects_its_layers_cant_move(bench, love):
    with pytest.raises(Incompatible, match=r"selects its layers itself \(love\.v1\[1\]\)"):
        bench.at_layers(love[1], 2)


def test_layers_that_do_not_exist(bench, love):
    with pytest.raises(NotFound, match="has no layer 4"):
        bench.at_layers(love, 4)


def test_another_model_makes_no_layers(bench, love):
    other = Lab(bench.store, tiny_lm(seed=1))
    with pytest.raises(ModelMismatch, match="layer 2 can't be made on"):
        other.at_layers(love, 2)
    with pytest.raises(ModelMismatch):
        other.compare(["Hi"], [Setting(love, 1)])
    cells = other.compare(["Hi"], [Setting(love, 1)], allow_other_weights=True, max_new_tokens=1)
    assert len(cells) == 1


def test_an_expression_that_says_its_layers_keeps_them(lm, tmp_path):
    lab = Lab(Store(tmp_path), lm)
    love = lab.extract("love", LOVE, layers=1)
    lab.store.results.save_calibration(
        Calibration(love.digest, True, 2, 0.2, 0.5, (-0.1, 0.3), data={})
    )
    moved = lab.operating_point(lab.evaluate("love"))
    assert (moved.vector.layers, moved.coefficient) == ((2,), 0.5)
    said = lab.evaluate("love[1]")  # has love's own numbers, and so its digest
    assert said.digest == love.digest
    assert lab.operating_point(said) == (said, 1.0, None)


def test_a_sweep_at_equal_dose(bench, love):
    cells = bench.sweep(love, [0, 2], PROMPTS[:1], doses=[-0.2, 0, 0.2], max_new_tokens=2)
    assert [c.setting.layers for c in cells] == [(), (0,), (0,), (2,), (2,)]
    assert [c.setting.dose for c in cells] == pytest.approx([0, -0.2, 0.2, -0.2, 0.2])
    assert len({abs(c.setting.coefficient) for c in cells}) == 3


def test_a_sweep_at_equal_coefficient(bench, love):
    cells = bench.sweep(love, "all", PROMPTS, coefficients=[1.0], max_new_tokens=1)
    assert [(c.prompt, c.setting.layers) for c in cells] == [
        (p, (b,)) for p in PROMPTS for b in range(4)
    ]
    assert {c.setting.coefficient for c in cells} == {1.0}


def test_a_sweep_with_seeds(bench, love):
    options = {"doses": [0, 0.3], "seeds": [0, 1, 2], "temperature": 1.0, "max_new_tokens": 8}
    cells = bench.sweep(love, 1, ["Hi"], **options)
    assert [(c.seed, c.setting.dose) for c in cells] == [
        (seed, pytest.approx(dose)) for seed in (0, 1, 2) for dose in (0, 0.3)
    ]
    assert len(set(texts(cells))) > 2
    assert texts(bench.sweep(love, 1, ["Hi"], **options)) == texts(cells)


@pytest.mark.parametrize("strengths", [{}, {"doses": [1], "coefficients": [1]}])
def test_a_sweep_needs_one_kind_of_strength(bench, love, strengths):
    with pytest.raises(BadOption, match="either coefficients or doses"):
        bench.sweep(love, 1, ["Hi"], **strengths)


@pytest.mark.parametrize("coefficient", [float("nan"), float("inf")])
def test_a_strength_is_finite(bench, love, coefficient):
    with pytest.raises(BadOption, match="finite"):
        bench.sweep(love, 1, ["Hi"], coefficients=[coefficient])


def test_the_model_is_loaded_once_and_only_when_needed(tmp_path, capsys):
    directory = save_model(tmp_path / "tiny")
    store = Store(fill_store(tmp_path / "store", directory))
    lazy = Lab(store)
    love = lazy.evaluate("love")
    assert lazy.source is None
    assert lazy.load(love) is lazy.model
    assert lazy.source == str(directory)
    named = Lab(store, source=str(directory), dtype="bfloat16")
    assert str(named.model.model.dtype) == "torch.bfloat16"


def test_the_labs_model_decides_between_vectors_of_one_name(bench, lm, tmp_path):
    other = tiny_lm(seed=1)
    other.source = "other"
    store = Store(tmp_path / "store")
    for model in (lm, other):
        store.save("love", model.extract(LOVE, layers=1))
    with pytest.raises(Incompatible, match="several models"):
        Lab(store).evaluate("love")
    assert Lab(store, other).evaluate("2*love").model.source == "other"
    assert Lab(store, source="other").evaluate("love").model.source == "other"
    with pytest.raises(Incompatible, match="several models"):
        Lab(store, source="third").evaluate("love")


def test_threads_that_share_a_model_never_steer_each_other(bench, love):
    from concurrent.futures import ThreadPoolExecutor

    anger = bench.store.load("anger")
    jobs = [[Setting(love, 0.5)], [Setting(anger, 0.5)]] * 6
    alone = [texts(bench.compare(PROMPTS, job, max_new_tokens=4)) for job in jobs[:2]] * 6

    def write(job):
        return texts(bench.compare(PROMPTS, job, max_new_tokens=4))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, jobs)) == alone


def test_beside_a_front_vector_every_prompt_begins_with_bos(bench, love, lm):
    front = lm.extract([("Love", "Hate")], layers=1, method="actadd")
    cells = bench.compare(PROMPTS, [Setting(), Setting(love, 0.5), Setting(front, 1.0)])
    baseline = lm.generate(PROMPTS, bos=True)
    with steering(lm, love, 0.5):
        steered = lm.generate(PROMPTS, bos=True)
    assert [written(c) for c in cells if c.setting.vector is None] == [*map(written, baseline)]
    assert [written(c) for c in cells if c.setting.vector == love] == [*map(written, steered)]


def test_layers_are_not_made_of_another_vector_that_took_the_operands_name(lm, tmp_path):
    lab = Lab(Store(tmp_path / "store"), lm)
    lab.extract("b", LOVE, layers=2)
    thrice = lab.store.save("thrice", 3 * lab.store.load("b"))
    lab.store.remove("b", force=True)
    lab.extract("c", ANGER, layers=2)
    with pytest.raises(NotFound, match=r"no vector called b\.v1 \(v1 was removed"):
        lab.at_layers(thrice, 1)
    lab.store.rename("c", "b")
    with pytest.raises(Incompatible, match="is no longer the vector"):
        lab.at_layers(thrice, 1)


def test_what_at_layers_gives_can_be_saved_and_verified(bench, lm, tmp_path):
    lab = Lab(Store(tmp_path / "store"), lm)
    love = lab.extract("love", LOVE, layers=[0, 1, 3])
    lab.extract("anger", ANGER, layers=[1])
    picked = lab.at_layers(love, [0, 1])
    assert picked == love[0:2]
    assert lab.at_layers(love, [0, 3]) == love[0] + love[3]
    lab.store.save("picked", picked)
    lab.store.save("grown", lab.at_layers(love, [0, 1, 2, 3]))
    warm = lab.store.evaluate("love[1] - anger")
    lab.store.save("warm", lab.store.evaluate("love - anger"))
    wide = lab.at_layers(lab.store.load("warm"), [1, 2])
    with pytest.raises(NotFound, match="never saved"):
        lab.store.save("wide", wide)
    assert np.allclose(wide.directions[1], warm.directions[1], atol=1e-6)
    assert lab.store.verify() == []


def test_one_prompt_may_be_given_as_it_is(bench, love):
    cells = bench.sweep(love, 1, "Hello there", coefficients=[0, 1], max_new_tokens=1)
    assert [cell.prompt for cell in cells] == ["Hello there"] * 2


def test_where_a_vector_acts_is_no_news_if_it_was_asked_for(calibrated):
    love = calibrated.store.results.noted(calibrated.store.load("love"))
    assert love.works_at == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        point = calibrated.operating_point(love, 1)
        calibrated.compare(PROMPTS[:1], [Setting(point.vector, 0.5)], max_new_tokens=1)


def test_a_sum_of_made_vectors_says_what_it_is(calibrated):
    love = calibrated.store.load("love")
    both = together([strength_of(calibrated, love, None, 2.0)] * 2)
    assert str(both.vector) == "2 * (love.v1 at layer 2) + 2 * (love.v1 at layer 2)"
