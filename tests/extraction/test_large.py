"""Many prompts: the vector of all at once, in windows that are kept on disk and taken up again."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from steerlab import Lab, LanguageModel, Store
from steerlab.core.prompts import Turns
from steerlab.core.recipe import Contrast, recipe_from_json, recipe_to_json
from steerlab.errors import BadPrompts, Cancelled, NotFound, StoreError
from steerlab.evaluation.calibration.calibrate import calibrate
from steerlab.evaluation.controls import unshuffled
from steerlab.evaluation.inspection.agreement import agreement
from steerlab.extraction import runner, spool
from steerlab.extraction.methods import check_recipe
from steerlab.extraction.readings import Readings
from steerlab.files.contrast import PairsOptions, read_pairs, reader, with_prompts
from steerlab.lab.recipes import rerun
from tests.tiny import tiny_lm

LAYERS = [1, 3]
PAIRS = [(f"a good day, the {i}th", f"a bad day, {i * i}") for i in range(43)]
UP, DOWN = zip(*PAIRS, strict=True)
RECIPES = {
    "mean_difference": Contrast(UP, DOWN),
    "mean": Contrast(UP, DOWN, read="mean"),
    "pca": Contrast(UP, DOWN, "pca"),
    "probe": Contrast(UP, DOWN, "probe"),
    "random": Contrast(UP, DOWN, "random", seed=3),
    "mean_centred": Contrast(UP, DOWN, "mean_centred"),
    "centred on others": Contrast(UP, (), "mean_centred", baseline=DOWN[:11]),
    "difference_of_means": Contrast(UP, DOWN[:19], "difference_of_means"),
    "turns": Contrast.of(
        [Turns(p, "be kind", f"({'AB'[i % 2]})") for i, p in enumerate(UP)],
        [Turns(p, answer=f"({'BA'[i % 2]}) I think") for i, p in enumerate(DOWN)],
        read="answer_letter",
        chat=True,
    ),
}


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    return tiny_lm()


@pytest.fixture
def windows(monkeypatch, tmp_path) -> Path:
    """Windows of 8 prompts a side; returns where their activations are kept."""
    for module in (spool, runner):
        monkeypatch.setattr(module, "WINDOW", 8)
    monkeypatch.setattr(runner, "LARGE", 20)
    monkeypatch.setenv("STEERLAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "extractions"


def whole(lm, recipe):
    """The vector with all activations in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "LARGE", 10**9)
        return lm.reextract(recipe, LAYERS)


@pytest.mark.parametrize("name", RECIPES)
def test_windows_give_the_vector_of_all_at_once(lm, windows, name):
    recipe = RECIPES[name]
    made, expected = lm.reextract(recipe, LAYERS), whole(lm, recipe)
    for b in LAYERS:
        size = np.linalg.norm(expected.directions[b])
        np.testing.assert_allclose(made.directions[b], expected.directions[b], atol=3e-6 * size)
        assert made.diagnostics.get(b) == pytest.approx(expected.diagnostics.get(b), abs=1e-6)
    assert made.residual_norms == pytest.approx(expected.residual_norms, rel=1e-6)
    assert made.recipe == expected.recipe
    assert list(windows.iterdir()) == []


def test_a_recipe_with_token_ids_is_replayed(lm, windows):
    made = lm.reextract(RECIPES["turns"], LAYERS)
    assert lm.reextract(made.recipe, LAYERS) == made


def test_progress_counts_all_prompts(lm, windows):
    seen = []
    lm.reextract(RECIPES["pca"], LAYERS, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (86, 86)
    assert {total for _, total in seen} == {86}


class Stopped:
    """Says stop from the n-th window on."""

    def __init__(self, lm, monkeypatch, windows):
        self.left, self.prompts, read = windows, 0, LanguageModel.read_tokens

        def counted(model, prompts, *rest, **watch):
            self.left -= 1
            if self.left < 0:
                raise Cancelled("stopped")
            self.prompts += len(prompts)
            return read(model, prompts, *rest, **watch)

        monkeypatch.setattr(LanguageModel, "read_tokens", counted)


@pytest.mark.parametrize("name", ["mean_difference", "difference_of_means", "turns"])
def test_what_was_stopped_goes_on(lm, windows, monkeypatch, name):
    recipe = RECIPES[name]
    expected = lm.reextract(recipe, LAYERS)
    stopped = Stopped(lm, monkeypatch, 3)
    with pytest.raises(Cancelled):
        lm.reextract(recipe, LAYERS)
    assert len(list(windows.iterdir())) == 1
    before, stopped.left = stopped.prompts, 10**6
    seen = []
    made = lm.reextract(recipe, LAYERS, progress=lambda done, total: seen.append(done))
    assert seen[0] == before > 0
    assert stopped.prompts == len(recipe.prompts)  # none was read twice
    assert made == expected
    assert made.recipe == expected.recipe
    assert list(windows.iterdir()) == []


def test_other_work_starts_from_the_beginning(lm, windows, monkeypatch):
    stopped = Stopped(lm, monkeypatch, 2)
    for recipe, layers in ((RECIPES["pca"], [1]), (RECIPES["mean"], [1]), (RECIPES["pca"], [2])):
        stopped.left, stopped.prompts = 2, 0
        with pytest.raises(Cancelled):
            lm.reextract(recipe, layers)
        assert stopped.prompts == 32
    assert len(list(windows.iterdir())) == 3
    stopped.left, stopped.prompts = 10**6, 0
    lm.reextract(RECIPES["probe"], [2])  # of the same activations
    assert stopped.prompts == 86 - 32


@pytest.mark.parametrize("whole", [0, 1])
def test_a_damaged_window_is_read_again(lm, windows, monkeypatch, whole):
    recipe = RECIPES["mean_difference"]
    expected, stopped = lm.reextract(recipe, LAYERS), Stopped(lm, monkeypatch, 2)
    with pytest.raises(Cancelled):
        lm.reextract(recipe, LAYERS)
    (held,) = windows.iterdir()
    sorted(held.glob("*.npz"))[whole].write_bytes(b"{")
    stopped.left, stopped.prompts = 10**6, 0
    assert lm.reextract(recipe, LAYERS) == expected
    assert stopped.prompts == 86 - 16 * whole


def test_a_window_with_damaged_numbers_is_named(tmp_path):
    values = np.arange(12.0).reshape(3, 4)
    work = (tmp_path / "work", (2, 1, 0), [5], 4)
    with suppress(Cancelled), spool.spooled(*work) as held:
        held.add(Readings({5: values}, {}, {5: np.ones(3)}), "x")
        raise Cancelled
    (window,) = work[0].glob("*.npz")
    window.write_bytes(window.read_bytes().replace(values[:2].astype("<f4").tobytes(), b"?" * 32))
    with pytest.raises(StoreError, match=f"can't read {window}"), spool.spooled(*work) as held:
        list(held.rows(5, 0))
    window.unlink()
    with spool.spooled(*work) as held:
        assert list(held.windows) == [0]


def test_what_others_do_to_the_directory_loses_nothing(tmp_path):
    work = (tmp_path / "work", (2, 1, 0), [5], 4)
    (work[0] / "of another program").mkdir(parents=True)
    with spool.spooled(*work) as held:
        held.add(Readings({5: np.zeros((3, 4))}, {}, {5: np.ones(3)}), "x")
        shutil.rmtree(work[0])
    assert not work[0].exists()


def test_half_a_window_is_dropped(lm, windows, monkeypatch):
    recipe = RECIPES["mean_difference"]
    expected, stopped = lm.reextract(recipe, LAYERS), Stopped(lm, monkeypatch, 2)
    with pytest.raises(Cancelled):
        lm.reextract(recipe, LAYERS)
    (held,) = windows.iterdir()
    (held / "new").write_bytes(b"\x00" * 1000)
    stopped.left = 10**6
    assert lm.reextract(recipe, LAYERS) == expected


def test_windows_of_other_tokens_are_read_again(lm, windows, monkeypatch):
    recipe, stopped = RECIPES["mean"], Stopped(lm, monkeypatch, 2)
    with pytest.raises(Cancelled):
        lm.reextract(recipe, LAYERS)
    stopped.left, tokens = 10**6, LanguageModel.tokens
    dated = lambda *given, **how: [5, *tokens(*given, **how)]  # noqa: E731  # as a template's date
    monkeypatch.setattr(LanguageModel, "tokens", dated)
    made = lm.reextract(recipe, LAYERS)
    assert {ids[0] for ids in made.recipe.prompt_ids} == {5}
    assert made == lm.reextract(recipe, LAYERS)


def test_what_was_abandoned_is_found_and_deleted(lm, windows, monkeypatch):
    recipe, stopped = RECIPES["mean"], Stopped(lm, monkeypatch, 2)
    for _ in range(2):
        with pytest.raises(Cancelled):
            lm.reextract(recipe, LAYERS)
        (held,) = windows.iterdir()
        assert spool.abandoned(windows, delete=True) == {}  # it may go on
        for file in held.iterdir():
            os.utime(file, (0, 0))
        with open(held / "lock", "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            assert spool.abandoned(windows, delete=True) == {}
        assert spool.abandoned(windows, delete=False)[held] > 1000
        assert list(spool.abandoned(windows, delete=True)) == [held]
        assert list(windows.iterdir()) == []
        stopped.left = 2
    assert spool.abandoned(windows / "nowhere", delete=True) == {}


def test_two_at_once_are_refused(lm, windows, monkeypatch):
    read = LanguageModel.read_tokens

    def twice(model, *given, **watch):
        with pytest.raises(StoreError, match="another process extracts the same"):
            runner.extract(lm, RECIPES["pca"], LAYERS, scratch=windows)
        return read(model, *given, **watch)

    monkeypatch.setattr(LanguageModel, "read_tokens", twice)
    assert lm.reextract(RECIPES["pca"], LAYERS).layers == (1, 3)


def test_what_can_not_be_read_is_told_first_and_leaves_nothing(lm, windows, monkeypatch):
    stopped = Stopped(lm, monkeypatch, 10**6)
    with pytest.raises(BadPrompts, match="there is no token 4 in 'a'"):
        lm.reextract(Contrast(UP, (*DOWN[:-1], "a"), read=4), LAYERS)
    assert stopped.prompts == 0
    assert list(windows.iterdir()) == []


def test_too_small_a_disk_is_told_first(lm, windows, monkeypatch):
    monkeypatch.setattr(spool.shutil, "disk_usage", lambda path: type("", (), {"free": 1000}))
    with pytest.raises(StoreError, match=r"room for 0\.0 GB.*choose fewer layers"):
        lm.reextract(RECIPES["pca"], LAYERS)


def test_medians_of_many_sizes(tmp_path):
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 300, 301):
        sizes = np.exp(5 * rng.standard_normal(n)).astype("<f4").astype(float)
        values = np.zeros((3, 4))
        with spool.spooled(tmp_path / str(n), (2, 1, 0), [5], 4) as held:
            held.add(Readings({5: values}, {}, {5: sizes}), "x")
            assert held.median_norm(5) == np.median(sizes)


class TestNamedSets:
    """A large set from a file is named by its recipe."""

    @pytest.fixture
    def path(self, tmp_path, monkeypatch, windows):
        monkeypatch.setattr(reader, "EMBEDDED", 20)
        path = tmp_path / "pairs.csv"
        rows = "".join(f'"{up}","{down}"\n' for up, down in PAIRS)
        path.write_text(f"good,bad\n{rows}")
        return path

    @pytest.fixture
    def named(self, path):
        found = read_pairs(path, PairsOptions(columns=("good", "bad")))
        return replace(Contrast.of(found.positive, found.negative), prompt_set=found.named)

    def test_the_recipe_keeps_path_and_digest(self, lm, path, named):
        made, held = lm.reextract(named, LAYERS), lm.reextract(RECIPES["mean_difference"], LAYERS)
        assert made.digest == held.digest
        recipe = made.recipe
        assert (recipe.positive, recipe.prompt_ids, recipe.counts) == ((), (), (43, 43))
        assert recipe.prompt_set.path == str(path)
        assert recipe.prompt_set.ids_digest
        assert len(json.dumps(recipe_to_json(recipe))) < 700
        assert recipe_from_json(json.loads(json.dumps(recipe_to_json(recipe)))) == recipe
        assert str(recipe) == "43 contrast pairs, mean_difference, last token"

    def test_a_small_set_is_held(self, tmp_path, windows):
        path = tmp_path / "few.csv"
        path.write_text("a,b\nc,d\n")
        assert read_pairs(path).named is None

    def test_it_is_stored_verified_and_made_at_other_layers(self, lm, path, named, tmp_path):
        lab = Lab(Store(tmp_path / "store"), lm)
        stored = lab.store.save("good", lm.reextract(named, [1]))
        assert lab.store.load("good").recipe == stored.recipe
        assert [found.problem for found in rerun(lab)] == [""]
        assert lab.at_layers(stored, [1, 2]).layers == (1, 2)
        assert lab.store.verify() == []
        with pytest.raises(BadPrompts, match=r"the pairs of \S*good\.v1 are many, in .*--embed"):
            calibrate(lab, stored)

    def test_a_file_that_has_changed_or_gone(self, lm, path, named):
        recipe = lm.reextract(named, [1]).recipe
        path.write_text(path.read_text().replace("bad day", "sad day", 1))
        with pytest.raises(BadPrompts, match="holds other prompts than when"):
            lm.reextract(recipe, [1])
        path.unlink()
        with pytest.raises(NotFound, match=r"are in .*pairs\.csv, which is not there any more"):
            lm.reextract(recipe, [1])

    def test_a_file_beside_it_that_has_gone(self, path, tmp_path):
        beside = tmp_path / "ends.txt"
        beside.write_text("Well\nSo\n")
        options = PairsOptions(columns=("good", "bad"), suffixes=beside)
        found = read_pairs(path, options)
        recipe = replace(Contrast.of(found.positive, found.negative), prompt_set=found.named)
        stored = recipe.without_prompts()
        assert with_prompts(stored).sides == recipe.sides
        beside.unlink()
        with pytest.raises(NotFound, match=r"no prompts file .*ends\.txt"):
            with_prompts(stored)

    def test_its_prompts_are_checked_before_they_are_read(self, named):
        with pytest.raises(BadPrompts, match="needs an answer in every prompt"):
            check_recipe(replace(named, read="assistant_mean"))

    def test_other_tokens_are_refused(self, lm, named):
        recipe = lm.reextract(named, [1]).recipe
        other = replace(recipe, prompt_set=replace(recipe.prompt_set, ids_digest="0" * 64))
        with pytest.raises(BadPrompts, match="have other tokens than when the vector was made"):
            lm.reextract(other, [1])
        assert lm.reextract(other.without_ids(), [1]).recipe == recipe  # as for another model

    def test_what_needs_all_activations_says_so(self, lm, named):
        recipe = lm.reextract(named, [1]).recipe
        with pytest.raises(BadPrompts, match="its pairs are many"):
            agreement(lm, recipe, [1])
        assert unshuffled(recipe).startswith("its prompts are many")
        assert with_prompts(recipe).pairs == tuple(PAIRS)


def test_a_median_takes_eight_bytes_a_token(tmp_path):
    sizes = np.ones(1_000_000, dtype="<f4")
    with spool.spooled(tmp_path / "work", (2, 1, 0), [5], 4) as held:
        held.add(Readings({5: np.zeros((3, 4))}, {}, {5: sizes}), "x")
        tracemalloc.start()
        try:
            assert held.median_norm(5) == 1
            assert tracemalloc.get_traced_memory()[1] < 10 * len(sizes)
        finally:
            tracemalloc.stop()
