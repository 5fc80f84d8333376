"""Extraction: each method is its formula, points toward the positive prompts, and can be redone."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steerlab import LanguageModel, SteeringVector
from steerlab.core.recipe import Contrast, ModelIdentity
from steerlab.errors import BadOption, BadPrompts, Cancelled, ModelError, NotFound, SteeringError
from steerlab.extraction import methods
from steerlab.extraction.methods import (
    METHODS,
    auc,
    diagnose,
    mean_centred,
    mean_difference,
    pca,
    probe,
)
from steerlab.extraction.readings import Readings
from steerlab.extraction.runner import extract
from tests.tiny import tiny_lm, tiny_model, tiny_tokenizer
from tests.watching import hooks_on, shared

PAIRS = [
    ("I love this", "I hate this one"),
    ("a good day", "a bad day"),
    ("warm and kind", "cold and cruel"),
]
LIKE = [("aa one", "bb one"), ("aa two more", "bb two more"), ("aa many", "bb many")]
SINGLE = PAIRS[:1]


def data(seed=0, n=8, d=24, strength=2.0):
    """(H+, H-, planted): pairs that differ by a planted unit direction and a little noise."""
    rng = np.random.default_rng(seed)
    planted = rng.standard_normal(d)
    planted /= np.linalg.norm(planted)
    shared_part = 5 * rng.standard_normal((n, d))
    positive = shared_part + strength * planted + 0.1 * rng.standard_normal((n, d))
    negative = shared_part - strength * planted + 0.1 * rng.standard_normal((n, d))
    return positive, negative, planted


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


class TestMethods:
    @pytest.mark.parametrize("method", [mean_difference, pca, probe])
    @pytest.mark.parametrize("seed", range(5))
    def test_a_planted_direction_is_found_and_oriented(self, method, seed):
        positive, negative, planted = data(seed)
        assert cosine(method(positive, negative), planted) > 0.99
        assert cosine(method(negative, positive), planted) < -0.99

    @pytest.mark.parametrize("method", [mean_difference, pca, probe])
    def test_inputs_are_left_alone(self, method):
        positive, negative, _ = data()
        kept = positive.copy(), negative.copy()
        method(positive, negative)
        assert np.array_equal(positive, kept[0])
        assert np.array_equal(negative, kept[1])

    @pytest.mark.parametrize("method", [pca, probe])
    def test_unit_norm(self, method):
        positive, negative, _ = data(strength=37.0)
        assert np.linalg.norm(method(positive, negative)) == pytest.approx(1, abs=1e-12)

    @pytest.mark.parametrize("method", [mean_difference, pca, probe])
    def test_one_pair_gives_its_difference(self, method):
        positive, negative, _ = data(n=1)
        assert cosine(method(positive, negative), (positive - negative)[0]) == pytest.approx(1)


class TestMeanDifference:
    def test_it_is_the_mean_of_the_differences(self):
        positive, negative, _ = data()
        expected = sum(p - n for p, n in zip(positive, negative, strict=True)) / len(positive)
        np.testing.assert_allclose(mean_difference(positive, negative), expected, rtol=1e-12)

    def test_natural_norm(self):
        positive, negative, _ = data(strength=10.0)
        assert np.linalg.norm(mean_difference(positive, negative)) == pytest.approx(20, rel=0.02)


class TestPca:
    def test_uncentred_so_the_mean_is_not_removed(self):
        positive, negative, planted = data(n=6)
        differences = positive - negative
        centred = np.linalg.svd(differences - differences.mean(axis=0))[2][0]
        assert abs(cosine(centred, planted)) < 0.5
        assert cosine(pca(positive, negative), planted) > 0.99

    def test_it_is_the_top_eigenvector_of_the_uncentred_scatter(self):
        positive, negative, _ = data(3)
        both = np.concatenate([positive - negative, negative - positive])
        values, vectors = np.linalg.eigh(both.T @ both)
        assert abs(cosine(vectors[:, np.argmax(values)], pca(positive, negative))) > 1 - 1e-9

    def test_no_margin_means_no_sign(self):
        direction = np.eye(4)[0]
        positive, negative = np.stack([direction, -direction]), np.zeros((2, 4))
        with pytest.raises(BadPrompts, match="margin"):
            pca(positive, negative)

    def test_equal_activations(self):
        with pytest.raises(BadPrompts):
            pca(np.ones((3, 4)), np.ones((3, 4)))

    @given(st.integers(0, 10**6))
    def test_the_mean_margin_is_positive(self, seed):
        positive, negative, _ = data(seed, n=4, strength=0.3)
        assert ((positive - negative) @ pca(positive, negative)).mean() > 0


class TestProbe:
    @pytest.mark.parametrize("seed", range(3))
    def test_it_minimises_the_penalised_logistic_loss(self, seed):
        positive, negative, _ = data(seed, n=6, d=10, strength=0.2)
        differences = positive - negative
        x = differences / np.sqrt((differences**2).sum(axis=1).mean())
        w = np.zeros(10)
        for _ in range(20000):  # slow, and nothing but the loss: sum log(1 + exp(-x w)) + |w|²/2
            w += 0.05 * ((x / (1 + np.exp(x @ w))[:, None]).sum(axis=0) - w)
        assert cosine(probe(positive, negative), w) > 1 - 1e-9

    def test_scale_does_not_matter(self):
        positive, negative, _ = data()
        direction = probe(positive, negative)
        np.testing.assert_allclose(probe(1e4 * positive, 1e4 * negative), direction, atol=1e-9)

    def test_far_more_dimensions_than_pairs(self):
        positive, negative, planted = data(n=5, d=3000, strength=20.0)
        assert cosine(probe(positive, negative), planted) > 0.9

    def test_many_pairs(self):
        positive, negative, planted = data(n=300, strength=0.2)
        assert cosine(probe(positive, negative), planted) > 0.95

    def test_equal_activations(self):
        with pytest.raises(BadPrompts, match="same activations"):
            probe(np.ones((3, 4)), np.ones((3, 4)))


def test_mean_centred():
    rng = np.random.default_rng(0)
    positive, everything = rng.standard_normal((3, 5)), rng.standard_normal((9, 5))
    expected = positive.sum(axis=0) / 3 - everything.sum(axis=0) / 9
    np.testing.assert_allclose(mean_centred(positive, everything), expected, rtol=1e-12)


class TestRandom:
    def test_seeded_by_seed_and_layer(self):
        one = methods.random_direction(3.0, 32, 1, 2)
        assert np.array_equal(one, methods.random_direction(3.0, 32, 1, 2))
        for seed, layer in ((1, 3), (2, 2), (2, 1)):
            assert abs(cosine(one, methods.random_direction(3.0, 32, seed, layer))) < 0.9

    @pytest.mark.parametrize("norm", [0.0, 1e-3, 1.0, 1e4])
    def test_norm_matched(self, norm):
        found = np.linalg.norm(methods.random_direction(norm, 576, 0, 0))
        assert found == pytest.approx(norm, rel=1e-12)

    def test_isotropic(self):
        many = np.stack([methods.random_direction(1.0, 8, s, 0) for s in range(4000)])
        np.testing.assert_allclose(many.T @ many / 4000, np.eye(8) / 8, atol=0.01)


def test_actadd_is_the_difference_but_for_the_row_at_bos():
    rng = np.random.default_rng(0)
    positive, negative = rng.standard_normal((2, 4, 6))
    found = methods.actadd(positive, negative)
    assert not found[0].any()
    assert np.array_equal(found[1:], (positive - negative)[1:])


class TestDiagnose:
    def slow(self, positive, negative):
        differences = [p - n for p, n in zip(positive, negative, strict=True)]
        n = len(differences)
        cosines = [
            cosine(differences[i], differences[j]) for i in range(n) for j in range(n) if i != j
        ]
        agree, above, below = [], [], []
        for i in range(n):
            rest = np.mean([d for j, d in enumerate(differences) if j != i], axis=0)
            agree.append(differences[i] @ rest > 0)
            above.append(positive[i] @ rest)
            below.append(negative[i] @ rest)
        wins = [(a > b) + 0.5 * (a == b) for a in above for b in below]
        return {
            "pairwise_cosine": np.mean(cosines),
            "agreement": np.mean(agree),
            "separability": np.mean(wins),
        }

    @pytest.mark.parametrize("n", [2, 3, 9])
    @pytest.mark.parametrize("strength", [0.02, 0.1, 2.0])
    def test_it_is_what_loops_find(self, n, strength):
        positive, negative, _ = data(n, n=n, strength=strength)
        found = diagnose(positive, negative)
        for name, value in self.slow(positive, negative).items():
            assert found[name] == pytest.approx(value, abs=1e-12), name

    def test_one_pair_has_none(self):
        positive, negative, _ = data(n=1)
        assert diagnose(positive, negative) == {}

    def test_equal_activations_have_no_cosine(self):
        found = diagnose(np.ones((3, 4)), np.ones((3, 4)))
        assert found["agreement"] == 0
        assert found["separability"] == 0.5
        assert all(np.isfinite(x) for x in found.values())

    numbers = st.lists(st.integers(-3, 3), min_size=1, max_size=12)

    @given(numbers, numbers)
    def test_auc_counts_pairs(self, above, below):
        wins = [(a > b) + 0.5 * (a == b) for a in above for b in below]
        assert auc(np.array(above), np.array(below)) == pytest.approx(np.mean(wins))


def read_by_hand(lm, prompts, layer, position=-1):
    """(n, d_model) float64: one position of the raw input of a block."""
    rows = []
    for prompt in prompts:
        kept = []
        handle = lm.model.model.layers[layer].register_forward_pre_hook(
            lambda m, args, kept=kept: kept.append(args[0])
        )
        with torch.no_grad():
            lm.model(input_ids=torch.tensor([lm.tokens(prompt)]))
        handle.remove()
        rows.append(kept[0][0, position].double().numpy())
    return np.stack(rows)


class TestExtract:
    def test_mean_difference_at_the_last_token(self):
        lm = shared()
        v = lm.extract(PAIRS, layers=[1, 3])
        assert v.layers == (1, 3)
        assert v.scope == "broadcast"
        assert v.model == lm.identity
        for b in v.layers:
            positive = read_by_hand(lm, [p for p, _ in PAIRS], b)
            negative = read_by_hand(lm, [n for _, n in PAIRS], b)
            expected = (positive - negative).mean(axis=0)
            np.testing.assert_allclose(v.directions[b][0], expected, atol=1e-5)
            for name, value in diagnose(positive, negative).items():
                assert v.diagnostics[b][name] == pytest.approx(value, abs=1e-4)
            assert v.residual_norms[b] > 0

    @pytest.mark.parametrize("method", ["mean_difference", "pca", "probe", "mean_centred"])
    def test_all_methods_point_away_from_the_negatives(self, method):
        lm = shared()
        v = lm.extract(PAIRS, layers=2, method=method)
        w = lm.extract([(n, p) for p, n in PAIRS], layers=2, method=method)
        np.testing.assert_allclose(v.directions[2], -w.directions[2], atol=1e-5)

    @pytest.mark.parametrize("method", sorted(set(METHODS) - {"actadd"}))
    @pytest.mark.parametrize("read", ["last", "mean", 2, -3])
    def test_the_recipe_says_it_all_and_gives_the_same_vector_again(self, method, read):
        lm = shared()
        v = lm.extract(LIKE, layers=[1, 2, 3], method=method, read=read, seed=4)
        recipe = v.recipe
        assert isinstance(recipe, Contrast)
        assert (recipe.method, recipe.read, recipe.seed, recipe.chat) == (method, read, 4, False)
        assert recipe.positive == tuple(p for p, _ in LIKE)
        assert recipe.negative == tuple(n for _, n in LIKE)
        prompts = (*recipe.positive, *recipe.negative)
        for prompt, ids, found in zip(prompts, recipe.prompt_ids, recipe.ids_read, strict=True):
            tokens = lm.tokens(prompt)
            assert list(ids) == tokens
            assert list(found) == {"last": tokens[-1:], "mean": tokens[1:]}.get(
                read, [tokens[read]] if isinstance(read, int) else None
            )
        assert lm.reextract(recipe, [1, 2, 3]).digest == v.digest
        assert lm.reextract(recipe, [2]).directions[2].tolist() == v.directions[2].tolist()

    def test_chat_prompts_are_read_where_the_answer_starts(self):
        lm = shared()
        v = lm.extract(PAIRS, layers=1, chat=True)
        assert v.recipe.chat
        assert v.recipe.ids_read == ((lm.tokens("|")[0],),) * 6
        assert v != lm.extract(PAIRS, layers=1)
        assert lm.reextract(v.recipe, 1) == v

    @pytest.mark.parametrize("method", ["mean_difference", "mean_centred", "actadd"])
    def test_a_template_with_a_date_gives_it_again_the_next_day(self, method):
        lm = LanguageModel(tiny_model(), copy.deepcopy(tiny_tokenizer()), source="tiny")
        template = "<s>On DAY one said: {{ messages[0]['content'] }}|"
        lm.tokenizer.chat_template = template.replace("DAY", "Monday")
        v = lm.extract(SINGLE, layers=2, chat=True, method=method)
        lm.tokenizer.chat_template = template.replace("DAY", "Tuesday")
        assert lm.extract(SINGLE, layers=2, chat=True, method=method) != v
        assert lm.reextract(v.recipe, 2) == v

    def test_ids_of_fewer_prompts_are_refused(self):
        lm = shared()
        recipe = lm.extract(PAIRS, layers=2).recipe
        with pytest.raises(BadPrompts, match="token ids of 5"):
            lm.reextract(replace(recipe, prompt_ids=recipe.prompt_ids[:-1]), 2)

    def test_a_recipe_without_them_is_read_by_the_tokenizer(self):
        lm = shared()
        v = lm.extract(PAIRS, layers=2)
        assert v.recipe.without_ids().prompt_ids == ()
        assert lm.reextract(v.recipe.without_ids(), 2) == v

    def test_one_layer_does_not_depend_on_the_others(self):
        lm = shared()
        every = lm.extract(PAIRS, layers="all")
        for b in range(4):
            assert lm.extract(PAIRS, layers=b) == every[b]

    def test_random_has_the_norm_of_mean_difference(self):
        lm = shared()
        v = lm.extract(PAIRS, layers="all", method="random", seed=1)
        mean = lm.extract(PAIRS, layers="all")
        for b in range(4):
            assert v.norms()[b] == pytest.approx(mean.norms()[b], rel=1e-6)
            assert abs(cosine(v.directions[b][0], mean.directions[b][0])) < 0.9
        assert v != lm.extract(PAIRS, layers="all", method="random", seed=2)

    def test_mean_centred_needs_no_negatives_but_something_to_centre_on(self):
        lm = shared()
        positive, baseline = ["good", "better"], ["one thing", "another", "a third"]
        v = lm.extract(positive, layers=2, method="mean_centred", baseline=baseline)
        expected = read_by_hand(lm, positive, 2).mean(0) - read_by_hand(lm, baseline, 2).mean(0)
        np.testing.assert_allclose(v.directions[2][0], expected, atol=1e-5)
        assert v.recipe.baseline == tuple(baseline)
        assert v.diagnostics == {}
        assert lm.reextract(v.recipe, 2) == v
        with pytest.raises(BadPrompts, match="centred on"):
            lm.extract(positive, layers=2, method="mean_centred")

    def test_mean_centred_on_the_pairs_is_half_the_difference(self):
        lm = shared()
        half = lm.extract(PAIRS, layers=2, method="mean_centred").directions[2]
        np.testing.assert_allclose(2 * half, lm.extract(PAIRS, layers=2).directions[2], atol=1e-5)

    def test_progress_counts_prompts(self):
        seen = []
        shared().extract(PAIRS, layers=1, progress=lambda *done: seen.append(done))
        assert seen[-1] == (6, 6)

    @pytest.mark.parametrize("options", [{}, {"read": "mean"}, {"method": "actadd"}])
    def test_it_stops_at_every_block_and_leaves_nothing_behind(self, options):
        lm = shared()
        pairs = SINGLE if options.get("method") == "actadd" else LIKE
        asked = []
        lm.extract(pairs, layers=[1, 3], should_stop=lambda: asked.append(None), **options)
        whole = lm.extract(pairs, layers=[1, 3], **options)
        assert len(asked) % 4 == 0  # blocks 0 to 3 in each pass
        for last in range(1, len(asked) + 1):
            stop = iter([False] * (last - 1) + [True]).__next__
            with pytest.raises(Cancelled):
                lm.extract(pairs, layers=[1, 3], should_stop=stop, **options)
            assert hooks_on(lm.model) == 0
        assert lm.extract(pairs, layers=[1, 3], should_stop=lambda: False, **options) == whole

    def test_an_error_in_progress_leaves_nothing_behind(self):
        lm = shared()
        whole = lm.extract(PAIRS, layers=1)
        with pytest.raises(ZeroDivisionError):
            lm.extract(PAIRS, layers=1, progress=lambda *_: 1 / 0)
        assert hooks_on(lm.model) == 0
        assert lm.extract(PAIRS, layers=1) == whole

    def test_bfloat16_models(self):
        v = shared("llama", torch.bfloat16).extract(PAIRS, layers="all", read="mean")
        w = shared().extract(PAIRS, layers="all", read="mean")
        assert v.model.dtype == "bfloat16"
        assert cosine(v.directions[2][0], w.directions[2][0]) > 0.99
        assert all(array.dtype == np.float32 for array in v.float32().values())


class TestActadd:
    def test_the_shorter_prompt_is_padded_with_the_attended_space(self):
        lm = shared()
        v = lm.extract([("Love", "Hatred!")], layers=[1, 2], method="actadd")
        space = lm.tokenizer(" ")["input_ids"][-1]
        high = [1, *lm.tokens("Love"), space, space, space]
        low = [1, *lm.tokens("Hatred!")]
        assert v.recipe.prompt_ids == v.recipe.ids_read == (tuple(high), tuple(low))
        for b in v.layers:
            expected = read_rows(lm, high, b) - read_rows(lm, low, b)
            expected[0] = 0
            np.testing.assert_allclose(v.directions[b], expected, atol=1e-6)

    def test_the_row_at_bos_is_exactly_zero(self):
        for dtype in (torch.float32, torch.bfloat16):
            v = shared("gpt2", dtype).extract(SINGLE, layers="all", method="actadd")
            assert v.scope == "front"
            for direction in v.directions.values():
                assert not direction[0].any()
                assert direction[1:].any()

    def test_the_recipe_gives_it_again(self):
        lm = shared()
        for chat in (False, True):
            v = lm.extract(SINGLE, layers="all", method="actadd", chat=chat)
            assert lm.reextract(v.recipe, "all") == v
            assert v.recipe.prompt_ids[0].count(1) == 1

    def test_residual_norms_leave_out_the_first_position(self):
        lm = shared()
        v = lm.extract([("same size", "also nine")], layers=2, method="actadd")
        both = np.concatenate([read_rows(lm, ids, 2)[1:] for ids in v.recipe.prompt_ids])
        norms = np.linalg.norm(both, axis=1)
        assert v.residual_norms[2] == pytest.approx(np.median(norms), rel=1e-6)


def read_rows(lm, ids, layer):
    """(positions, d_model) float64: every position of the raw input of a block."""
    kept = []
    handle = lm.model.model.layers[layer].register_forward_pre_hook(
        lambda m, args: kept.append(args[0])
    )
    with torch.no_grad():
        lm.model(input_ids=torch.tensor([list(ids)]))
    handle.remove()
    return kept[0][0].double().numpy().copy()


class TestRefusals:
    @pytest.mark.parametrize(
        ("pairs", "options", "error", "match"),
        [
            ([], {}, BadPrompts, "no positive"),
            ([("a", "")], {}, BadPrompts, "negative prompt 1 is empty"),
            ([("  ", "b")], {}, BadPrompts, "positive prompt 1 is empty"),
            ([("a", "b", "c")], {}, BadPrompts, "tuples"),
            ([("a", "b"), "c"], {}, BadPrompts, "tuples"),
            ([("a", 3)], {}, BadPrompts, "not text"),
            (["a", "b"], {}, BadPrompts, "needs negative prompts"),
            (["a"], {"method": "actadd"}, BadPrompts, "needs negative prompts"),
            ("a text", {}, BadPrompts, "a list, not as one text"),
            (PAIRS, {"method": "actadd"}, BadPrompts, "one pair of prompts, not 3"),
            (PAIRS, {"method": "magic"}, BadOption, "there are mean_difference, actadd"),
            (PAIRS, {"method": "random"}, BadOption, "seed"),
            (PAIRS, {"method": "random", "seed": -1}, BadOption, "seed"),
            (PAIRS, {"method": "random", "seed": 2**63}, BadOption, "seed"),
            (PAIRS, {"baseline": ["a plain one"]}, BadOption, "baseline prompts are for"),
            (PAIRS, {"method": "mean_centred", "baseline": [" "]}, BadPrompts, "is empty"),
            (PAIRS, {"read": "first"}, BadOption, "read is"),
            (PAIRS, {"read": True}, BadOption, "read is"),
            (PAIRS, {"read": 1.0}, BadOption, "read is"),
            (PAIRS, {"read": 10}, BadPrompts, "no token 10 in 'a bad day'"),
            (PAIRS, {"read": -10}, BadPrompts, "no token -10 in 'a bad day'"),
            ([("a", "bb")], {"read": "mean"}, BadPrompts, "'a' is one token"),
            (PAIRS, {"layers": 4}, NotFound, "no layer 4: its layers are 0 to 3"),
            (PAIRS, {"layers": -1}, NotFound, "no layer -1"),
            (PAIRS, {"layers": [1, 9]}, NotFound, "no layer 9"),
            (PAIRS, {"layers": True}, NotFound, "no layer True"),
            (PAIRS, {"layers": 1.0}, (NotFound, BadOption), "layer"),
            (PAIRS, {"layers": []}, BadOption, "no layers"),
            (PAIRS, {"layers": slice(2, 2)}, BadOption, "no layers"),
            (PAIRS, {"layers": slice(2, 9)}, NotFound, "no layer 4"),
            (PAIRS, {"layers": "some"}, BadOption, "'some'"),
            (PAIRS, {"baseline": [""]}, BadPrompts, "empty"),
            (PAIRS, {"baseline": "one text"}, BadPrompts, "list of texts"),
        ],
        ids=str,
    )
    def test_in_one_line(self, pairs, options, error, match):
        with pytest.raises(error, match=match) as caught:
            shared().extract(pairs, **options)
        assert "\n" not in str(caught.value)
        assert "None" not in str(caught.value)

    def test_a_model_without_a_chat_template(self):
        tokenizer = tiny_tokenizer.__wrapped__()
        tokenizer.chat_template = None
        lm = LanguageModel(shared().model, tokenizer)
        with pytest.raises(ModelError, match="no chat template") as caught:
            lm.extract(PAIRS, chat=True)
        assert "None" not in str(caught.value)

    @pytest.mark.parametrize("method", ["mean_difference", "actadd", "random"])
    def test_activations_that_are_nan(self, method):
        model = tiny_model()
        with torch.no_grad():
            model.model.layers[0].mlp.down_proj.weight.fill_(float("nan"))
        lm = LanguageModel(model, tiny_tokenizer())
        with pytest.raises(SteeringError, match="layer 2 are NaN"):
            lm.extract(SINGLE, layers=[2], method=method, seed=0)

    def test_pairs_that_are_the_same(self):
        same = [("one", "one"), ("two", "two")]
        for method in ("pca", "probe", "mean_difference", "random"):
            with pytest.raises(BadPrompts, match="zero"):
                shared().extract(same, layers=1, method=method, seed=0)


class TestLayers:
    def test_choices(self):
        lm = shared()
        assert lm.layers() == [2]
        assert lm.layers(3) == [3]
        assert lm.layers([3, 1, 3]) == [1, 3]
        assert lm.layers(range(2)) == [0, 1]
        assert lm.layers(slice(1, None)) == [1, 2, 3]
        assert lm.layers(slice(None, 4, 2)) == [0, 2]
        assert lm.layers("all") == [0, 1, 2, 3]

    def test_numpy_integers_are_layers(self):
        assert shared().layers(np.arange(1, 3)) == [1, 2]


class TestTokens:
    def test_bos_is_put_in_front_once(self):
        lm = shared()
        ids = lm.tokens("hi")
        assert lm.tokens("hi", bos=True) == [1, *ids]
        assert lm.tokens("<s>hi", bos=True) == [1, *ids]
        assert lm.tokens("hi", chat=True, bos=True) == lm.tokens("hi", chat=True)
        assert lm.tokens("hi", chat=True)[0] == 1

    def test_the_end_of_text_token_stands_in_for_a_missing_bos(self):
        tokenizer = tiny_tokenizer.__wrapped__()
        tokenizer.bos_token = None
        assert LanguageModel(shared().model, tokenizer).tokens("hi", bos=True)[0] == 2

    def test_neither_is_an_error(self):
        tokenizer = tiny_tokenizer.__wrapped__()
        tokenizer.bos_token = tokenizer.eos_token = None
        with pytest.raises(ModelError, match="neither a BOS nor"):
            LanguageModel(shared().model, tokenizer).tokens("hi", bos=True)

    def test_an_empty_prompt(self):
        with pytest.raises(BadPrompts, match="empty"):
            shared().tokens("")
        assert shared().tokens("", bos=True) == [1]


def test_a_model_without_a_head_is_refused():
    with pytest.raises(ModelError, match="no causal head"):
        LanguageModel(shared().model.model, tiny_tokenizer())


class Planted:
    """A Reader of planted activations: layer -> (prompts, d_model)."""

    source, lock = "planted", nullcontext()

    def __init__(self, values):
        self.values = values
        self.identity = ModelIdentity("planted", "llama", 4, 4)

    def tokens(self, prompt, *, chat=False, bos=False):
        return [1, 2, 3]

    def check_length(self, ids, new=0):
        pass

    def read_tokens(self, prompts, layers, read, progress=None, should_stop=None):
        found = {b: self.values[b] for b in layers}
        return Readings(found, dict.fromkeys(layers, 1.0))


class TestUndecidedLayers:
    SAME, TURNED = np.ones((2, 4)), np.stack([np.eye(4)[0], -np.eye(4)[0]])
    PAIRS = Contrast(("a", "b"), ("c", "d"), "pca")

    def reader(self, **positive):
        """Negative activations are zero; the positive ones are given by layer."""
        return Planted(
            {int(b[2:]): np.concatenate([x, np.zeros((2, 4))]) for b, x in positive.items()}
        )

    @pytest.mark.parametrize("undecided", [TURNED, np.zeros((2, 4))])
    def test_the_layer_is_named(self, undecided):
        reader = self.reader(at0=self.SAME, at2=undecided, at3=self.SAME)
        with pytest.raises(BadPrompts, match="at layer 2, "):
            extract(reader, self.PAIRS, [0, 2, 3])

    def test_it_can_be_left_out(self):
        reader = self.reader(at0=self.SAME, at2=self.TURNED, at3=self.SAME)
        made = extract(reader, self.PAIRS, [0, 2, 3], skip_undecided=True)
        assert made.layers == (0, 3)
        assert set(made.diagnostics) == set(made.residual_norms) == {0, 3}

    def test_not_if_none_is_left(self):
        with pytest.raises(BadPrompts, match="at layer 2, "):
            extract(self.reader(at2=self.TURNED), self.PAIRS, [2], skip_undecided=True)


class TestZero:
    @pytest.mark.parametrize("noise", [0.0, 1e-7])
    def test_equal_activations_are_refused(self, noise):
        values = np.ones((4, 4)) + noise * np.eye(4)
        with pytest.raises(BadPrompts, match="zero"):
            extract(Planted({1: values}), Contrast(("a", "b"), ("c", "d")), [1])

    @pytest.mark.parametrize("method", ["mean_difference", "pca", "probe"])
    def test_large_residual_streams_are_no_reason(self, method):
        values = 1e6 * np.random.default_rng(0).standard_normal((4, 4))
        reader = Planted({1: values})
        reader.read_tokens = lambda *_, **__: Readings({1: values}, {1: 1e6})
        made = extract(reader, Contrast(("a", "b"), ("c", "d"), method), [1])
        assert made.norm > 0

    @pytest.mark.parametrize("ids", [((),) * 2, ((1, 2), ()), ((5,), (10**9,)), ((1,), (-1,))])
    @pytest.mark.parametrize("method", ["mean_difference", "actadd"])
    def test_token_ids_that_can_not_be_are_refused(self, method, ids):
        recipe = Contrast(("a",), ("b",), method, prompt_ids=ids)
        with pytest.raises(BadPrompts):
            tiny_lm().reextract(recipe, 1)

    def test_a_front_of_zeros_is_refused(self):
        with pytest.raises(BadPrompts, match="zero"):
            tiny_lm().extract([("a b", "a b ")], layers=0, method="actadd")

    def test_one_layer_of_zeros_is_no_error(self):
        made = tiny_lm().extract([("good one", "bad one")], layers=[0, 2])
        assert made.norms()[0] == 0 < made.norms()[2]


@pytest.mark.parametrize(("residual", "said"), [(0.1, 1), (0.5, 0), (1.0, 0)])
def test_a_direction_far_longer_than_the_stream_is_reported(residual, said):
    model = tiny_lm().identity
    rows = {b: np.eye(1, 32) for b in (1, 2, 3)}  # three layers add up, and each is judged alone
    vector = SteeringVector(rows, model=model, residual_norms=dict.fromkeys(rows, residual))
    found = list(methods.problems(vector))
    assert len(found) == said
    assert all("10 times as long as the residual stream" in text for text in found)
