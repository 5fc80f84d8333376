"""Steering: h' = h + c·v exactly, where it was asked for, nowhere else, and never silently not."""

from __future__ import annotations

import copy

import accelerate
import numpy as np
import pytest
import torch
from transformers import DynamicCache

from steerlab import Injection, LanguageModel, SteeringVector, steering
from steerlab.core.recipe import Verdict
from steerlab.core.run import POSITIONS
from steerlab.errors import BadOption, ModelError, ModelMismatch, SteeringError
from steerlab.models.blocks import find_blocks
from steerlab.models.cache import cache_argument
from steerlab.models.identity import fingerprint
from steerlab.models.interventions import is_steered
from tests.tiny import ARCHITECTURES, tiny_lm, tiny_model, tiny_tokenizer
from tests.watching import N_LAYERS, amount, blocks_of, hooks_on, planted, shared, watching

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
both_dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
IDS = torch.tensor([[1, 40, 77, 12, 205, 9, 133], [1, 8, 250, 31, 31, 64, 190]])


@torch.no_grad()
def passes(lm, ids=IDS, architecture="llama", **inputs):
    """Logits and what went through the blocks in one forward pass."""
    with watching(lm.model, architecture) as watch:
        logits = lm.model(input_ids=ids, **inputs).logits
    return logits, watch


@torch.no_grad()
def logits_of(lm, ids=IDS, **inputs):
    return lm.model(input_ids=ids, **inputs).logits


def in_pieces(lm, *pieces, cache=None):
    """One forward pass a piece, all on one cache; returns the cache."""
    cache = DynamicCache(config=lm.model.config) if cache is None else cache
    for piece in pieces:
        lm.model(input_ids=piece, use_cache=True, **{cache_argument(lm.model): cache})
    return cache


@every_architecture
@both_dtypes
class TestLaw:
    def test_h_becomes_h_plus_c_v_and_earlier_layers_are_untouched(self, architecture, dtype):
        lm = shared(architecture, dtype)
        v = planted(lm)
        logits, before = passes(lm, architecture=architecture)
        with steering(lm, v, 1.7):
            steered, after = passes(lm, architecture=architecture)
        assert after.inputs[2][0].dtype == dtype
        assert torch.equal(after.inputs[2][0], before.inputs[2][0] + amount(v, 1.7, dtype))
        for b in (0, 1):
            assert torch.equal(after.inputs[b][0], before.inputs[b][0])
            assert torch.equal(after.outputs[b][0], before.outputs[b][0])
        assert not torch.equal(after.inputs[3][0], before.inputs[3][0])
        assert not torch.equal(steered, logits)

    def test_layer_b_is_the_output_of_block_b_minus_1(self, architecture, dtype):
        _, watch = passes(shared(architecture, dtype), architecture=architecture)
        for b in range(1, N_LAYERS):
            assert torch.equal(watch.inputs[b][0], watch.outputs[b - 1][0])

    @pytest.mark.parametrize("layer", range(N_LAYERS))
    def test_what_is_injected_is_what_the_recorder_sees(self, architecture, dtype, layer):
        lm = shared(architecture, dtype)
        v = planted(lm, layer)
        plain = lm.record("round trip", "all")
        with steering(lm, v, -2.5):
            seen = lm.record("round trip", "all")
        expected = plain[layer].to(dtype) + amount(v, -2.5, dtype, layer)
        assert torch.equal(seen[layer].to(dtype), expected)
        assert all(torch.equal(seen[b], plain[b]) for b in range(layer))

    def test_nothing_added_is_the_baseline_bit_for_bit(self, architecture, dtype):
        lm = shared(architecture, dtype)
        a = planted(lm, 1, 3)
        logits, text = logits_of(lm), lm.generate("as it was", max_new_tokens=4).token_ids
        for vector, coefficient in ((a, 0.0), (a, -0.0), (a - a, 5.0), (0 * a, 1.0)):
            with steering(lm, vector, coefficient):
                assert torch.equal(logits_of(lm), logits)
                assert lm.generate("as it was", max_new_tokens=4).token_ids == text

    def test_the_model_is_left_as_it_was(self, architecture, dtype):
        lm = shared(architecture, dtype)
        logits, count = logits_of(lm), hooks_on(lm.model)
        with steering(lm, planted(lm, 1), 30):
            logits_of(lm)
        assert hooks_on(lm.model) == count
        assert torch.equal(logits_of(lm), logits)


@every_architecture
class TestEveryArchitecture:
    def test_recorder_and_raw_hooks_agree(self, architecture):
        lm = shared(architecture)
        recorded = lm.record("independent", "all", bos=True)
        ids = torch.tensor([lm.tokens("independent", bos=True)])
        _, watch = passes(lm, ids, architecture)
        for b in range(N_LAYERS):
            assert torch.equal(recorded[b], watch.inputs[b][0][0])

    @pytest.mark.parametrize("positions", POSITIONS)
    def test_cached_and_uncached_decoding_agree(self, architecture, positions):
        lm = shared(architecture)
        texts = []
        for use_cache in (True, False):
            with steering(lm, planted(lm, 1, 2), 1.5, positions):
                several = lm.generate(["one two", "three"], max_new_tokens=8, use_cache=use_cache)
            texts.append([c.token_ids for c in several])
        assert texts[0] == texts[1]

    def test_a_row_of_a_batch_is_the_prompt_alone(self, architecture):
        lm = shared(architecture)
        v, w = planted(lm, 1), planted(lm, 1, 3, seed=1)
        prompts = ["a much longer prompt", "short", "middling one"]
        rows = [Injection(v, 1.0, rows=(0,)), Injection(w, -2.0, "generated", rows=(2,))]
        with steering(lm, rows), watching(lm.model, architecture) as together:
            batch = lm.generate(prompts, max_new_tokens=5)
        alone = [(v, 1.0, "all"), (v, 0.0, "all"), (w, -2.0, "generated")]
        for row, (vector, coefficient, positions) in enumerate(alone):
            with (
                steering(lm, vector, coefficient, positions),
                watching(lm.model, architecture) as single,
            ):
                assert lm.generate(prompts[row], max_new_tokens=5).token_ids == batch[row].token_ids
            for one, many in zip(single.inputs[3], together.inputs[3], strict=False):
                torch.testing.assert_close(many[row, -1], one[0, -1], atol=1e-4, rtol=1e-4)

    def test_front_goes_on_the_first_tokens_cached_or_not(self, architecture):
        lm = shared(architecture)
        v = planted(lm, rows=4)
        texts = []
        for use_cache in (True, False):
            with steering(lm, v, 2.0):
                several = lm.generate(
                    ["a longer prompt", "four"], max_new_tokens=8, use_cache=use_cache
                )
            texts.append([c.token_ids for c in several])
        with steering(lm, v, 2.0), watching(lm.model, architecture) as watch:
            alone = lm.generate("four", max_new_tokens=8).token_ids
        assert texts[0] == texts[1]
        assert texts[0][1] == alone
        assert watch.added(2)[0][0].tolist() == [False, True, True, True, False]


class TestHooks:
    def test_the_order_of_entering_does_not_hide_the_change(self):
        lm = shared()
        v = planted(lm)
        with watching(lm.model) as outside, steering(lm, v, 4.0), watching(lm.model) as inside:
            logits_of(lm)
        assert torch.equal(outside.inputs[2][0], inside.inputs[2][0])
        assert outside.added(2)[0].all()

    def test_an_exception_leaves_nothing_behind(self):
        lm = shared()
        logits, count = logits_of(lm), hooks_on(lm.model)
        with pytest.raises(KeyError), steering(lm, planted(lm)):
            raise KeyError("mine")
        assert hooks_on(lm.model) == count
        assert torch.equal(logits_of(lm), logits)

    def test_an_exception_in_a_forward_pass_leaves_nothing_behind(self):
        lm = shared()
        logits, count = logits_of(lm), hooks_on(lm.model)
        with pytest.raises(SteeringError), steering(lm, Injection(planted(lm), rows=(7,))):
            logits_of(lm)
        assert hooks_on(lm.model) == count
        assert torch.equal(logits_of(lm), logits)

    def test_contexts_nest(self):
        lm = shared()
        a, b = planted(lm, seed=1), planted(lm, seed=2)
        _, plain = passes(lm)
        count = hooks_on(lm.model)
        with steering(lm, a):
            outer = hooks_on(lm.model)
            with steering(lm, b, 2.0):
                _, both = passes(lm)
            assert hooks_on(lm.model) == outer
            _, one = passes(lm)
        assert hooks_on(lm.model) == count
        first, second = amount(a, 1, torch.float32), amount(b, 2.0, torch.float32)
        assert torch.equal(one.inputs[2][0], plain.inputs[2][0] + first)
        torch.testing.assert_close(both.inputs[2][0], plain.inputs[2][0] + first + second)

    def test_the_same_vector_nested_acts_twice(self):
        lm = shared()
        v = planted(lm)
        with steering(lm, v), steering(lm, v):
            twice = logits_of(lm)
        with steering(lm, 2 * v):
            torch.testing.assert_close(twice, logits_of(lm), atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("positions", POSITIONS)
    def test_the_second_generate_equals_the_first(self, positions):
        lm = shared()
        plain = lm.generate("again and again")
        with steering(lm, planted(lm), 2.0, positions):
            first, second = lm.generate("again and again"), lm.generate("again and again")
            other = lm.generate("something else of another length")
            third = lm.generate("again and again")
        assert first == second == third != plain
        assert other.prompt.startswith("something")
        assert lm.generate("again and again") == plain

    def test_a_context_can_be_entered_again(self):
        lm = shared()
        plain, texts = lm.generate("again"), []
        warm = steering(lm, planted(lm), 2.0, "generated")
        for _ in range(2):
            with warm:
                texts.append(lm.generate("again"))
            assert lm.generate("again") == plain
        assert texts[0] == texts[1] != plain

    def test_a_context_can_be_entered_inside_itself(self):
        lm = shared()
        v = planted(lm)
        with steering(lm, v, 1.0), steering(lm, v, 1.0):
            twice = logits_of(lm)
        warm = steering(lm, v, 1.0)
        with warm, warm:
            assert torch.equal(logits_of(lm), twice)
        assert not is_steered(lm.model)

    def test_it_decorates_functions_that_may_call_themselves(self):
        lm = shared()
        v = planted(lm)
        with steering(lm, v, 1.0), steering(lm, v, 1.0):
            twice = logits_of(lm)

        @steering(lm, v, 1.0)
        def logits(depth):
            return logits(depth - 1) if depth else logits_of(lm)

        assert torch.equal(logits(1), twice)
        assert torch.equal(logits(1), twice)
        assert not is_steered(lm.model)


class TestRounding:
    def test_a_derived_vector_is_rounded_to_float32_before_it_is_multiplied(self):
        lm = shared("llama", torch.float32)
        v = planted(lm) / 3
        exact = v.directions[2]
        assert not np.array_equal(exact, exact.astype(np.float32))
        with steering(lm, v, 4097.0), watching(lm.model) as watch:
            logits_of(lm)
        added = amount(v, 4097.0, torch.float32)
        assert not torch.equal(added, torch.from_numpy(4097.0 * exact).float())
        assert torch.equal(watch.inputs[2][0], watch.outputs[1][0] + added)


class TestSeveral:
    def test_several_vectors_add_up(self):
        lm = shared()
        a, b = planted(lm, 1, 2, seed=1), planted(lm, 2, seed=2)
        _, plain = passes(lm)
        with steering(lm, [a, b], [0.5, -3.0]):
            _, both = passes(lm)
        at_1 = plain.inputs[1][0] + amount(a, 0.5, torch.float32, 1)
        assert torch.equal(both.inputs[1][0], at_1)
        total = 0.5 * a.float32()[2].astype(np.float64) - 3.0 * b.float32()[2].astype(np.float64)
        added = torch.from_numpy(total).to(torch.float32)  # summed in float64, rounded once
        assert torch.equal(both.inputs[2][0], both.outputs[1][0] + added)

    def test_order_does_not_matter(self):
        lm = shared()
        a, b = planted(lm, seed=1), planted(lm, 1, 2, seed=2)
        with steering(lm, [a, b], [2.0, -1.0]):
            one = logits_of(lm)
        with steering(lm, [b, a], [-1.0, 2.0]):
            assert torch.equal(logits_of(lm), one)

    def test_a_list_is_the_sum(self):
        lm = shared()
        a, b = planted(lm, seed=1), planted(lm, 1, 2, seed=2)
        with steering(lm, [a, b]):
            one = logits_of(lm)
        with steering(lm, a + b):
            assert torch.equal(logits_of(lm), one)

    def test_a_vector_and_its_negative_cancel_to_the_baseline(self):
        lm = shared()
        a = planted(lm)
        logits = logits_of(lm)
        with steering(lm, [a, a], [1.5, -1.5]):
            assert torch.equal(logits_of(lm), logits)

    def test_positions_of_several_vectors_are_their_own(self):
        lm = shared()
        a, b = planted(lm, seed=1), planted(lm, seed=2)
        injections = [Injection(a, 1.0, "prompt"), Injection(b, 1.0, "continuation")]
        with steering(lm, injections), watching(lm.model) as watch:
            lm.generate("where", max_new_tokens=3)
        one, two = (amount(v, 1.0, torch.float32) for v in (a, b))
        assert torch.equal(watch.inputs[2][0], watch.outputs[1][0] + one)
        assert torch.equal(watch.inputs[2][1], watch.outputs[1][1] + two)

    def test_one_coefficient_for_each_vector(self):
        lm = shared()
        with pytest.raises(BadOption, match="2 vectors but 3 coefficients"):
            steering(lm, [planted(lm)] * 2, [1, 2, 3]).__enter__()

    def test_no_vectors_is_the_baseline(self):
        lm = shared()
        logits = logits_of(lm)
        with steering(lm, []):
            assert torch.equal(logits_of(lm), logits)


class TestRows:
    def test_each_row_has_its_own_vector_coefficient_and_layer(self):
        lm = shared()
        a, b = planted(lm, 2, seed=1), planted(lm, 1, 2, seed=2)
        ids = torch.cat([IDS, IDS])
        logits, plain = passes(lm, ids)
        rows = [Injection(a, 2.0, rows=(0,)), Injection(b, -1.0, rows=(1, 3))]
        with steering(lm, rows):
            steered, watch = passes(lm, ids)
        at_1 = plain.inputs[1][0].clone()
        at_1[[1, 3]] += amount(b, -1.0, torch.float32, 1)
        assert torch.equal(watch.inputs[1][0], at_1)
        at_2 = watch.outputs[1][0].clone()
        at_2[0] += amount(a, 2.0, torch.float32)[0]
        at_2[[1, 3]] += amount(b, -1.0, torch.float32)
        assert torch.equal(watch.inputs[2][0], at_2)
        assert torch.equal(steered[2], logits[2])
        assert not torch.equal(steered[0], logits[0])

    def test_two_injections_on_one_row_add_up(self):
        lm = shared()
        a = planted(lm)
        with steering(lm, [Injection(a, 1.0), Injection(a, 1.0, rows=(1,))]):
            _, watch = passes(lm)
        expected = watch.outputs[1][0].clone()
        expected[0] += amount(a, 1.0, torch.float32)[0]
        expected[1] += amount(a, 2.0, torch.float32)[0]
        assert torch.equal(watch.inputs[2][0], expected)

    def test_a_row_beyond_the_batch_is_an_error(self):
        lm = shared()
        with (
            pytest.raises(SteeringError, match="row 2"),
            steering(lm, Injection(planted(lm), rows=(2,))),
        ):
            logits_of(lm)

    @pytest.mark.parametrize("rows", [(), (-1,), (0, -3), (1.5,), (True,)])
    def test_rows_are_counted_from_0(self, rows):
        with pytest.raises(BadOption, match="row"):
            Injection(planted(shared()), rows=rows)

    def test_front_rows_of_a_batch(self):
        lm = shared()
        v, w = planted(lm, rows=3), planted(lm, rows=5, seed=4)
        rows = [Injection(v, 1.0, rows=(0,)), Injection(w, 2.0, rows=(2,))]
        with steering(lm, rows), watching(lm.model) as watch:
            lm.generate(["a long prompt", "prompt", "some prompt"], max_new_tokens=3)
        seq = watch.inputs[2][0].shape[1]
        expected = watch.outputs[1][0].clone()
        expected[0, :3] += amount(v, 1.0, torch.float32)
        start = seq - 1 - len("some prompt")
        expected[2, start : start + 5] += amount(w, 2.0, torch.float32)
        assert torch.equal(watch.inputs[2][0], expected)
        assert not any(added.any() for added in watch.added(2)[1:])

    def test_a_front_vector_asks_nothing_of_rows_it_does_not_steer(self):
        lm = shared()
        v = planted(lm, rows=6)
        with steering(lm, Injection(v, 1.0, rows=(0,))):
            both = lm.generate(["a long prompt", "ab"], max_new_tokens=3)
        assert len(both) == 2


class TestPositions:
    N, K = 9, 4
    PROMPT = "x" * 8 + "y"

    def expected(self, positions, length):
        """Which of `length` absolute positions are to be steered."""
        first, end = {
            "all": (0, length),
            "prompt": (0, self.N),
            "generated": (self.N - 1, length),
            "continuation": (self.N, length),
        }[positions]
        return [first <= i < end for i in range(length)]

    @pytest.mark.parametrize("positions", POSITIONS)
    def test_with_a_cache(self, positions):
        lm = shared()
        with steering(lm, planted(lm), 1.0, positions), watching(lm.model) as watch:
            lm.generate(self.PROMPT, max_new_tokens=self.K)
        added = [row[0].tolist() for row in watch.added(2)]
        assert [len(row) for row in added] == [self.N, *[1] * (self.K - 1)]
        assert [flag for row in added for flag in row] == self.expected(
            positions, self.N + self.K - 1
        )

    @pytest.mark.parametrize("positions", POSITIONS)
    def test_without_a_cache(self, positions):
        lm = shared()
        with steering(lm, planted(lm), 1.0, positions), watching(lm.model) as watch:
            lm.generate(self.PROMPT, max_new_tokens=self.K, use_cache=False)
        added = [row[0].tolist() for row in watch.added(2)]
        assert [len(row) for row in added] == list(range(self.N, self.N + self.K))
        assert added == [self.expected(positions, len(row)) for row in added]

    def test_generated_holds_the_position_that_makes_the_first_token(self):
        lm = shared()
        plain = lm.generate(self.PROMPT, max_new_tokens=1).token_ids
        texts = {}
        for positions in ("generated", "continuation"):
            v = planted(lm, norm=60.0)
            with steering(lm, v, 1.0, positions):
                texts[positions] = lm.generate(self.PROMPT, max_new_tokens=2).token_ids
        assert texts["generated"][:1] != plain
        assert texts["continuation"][:1] == plain

    @pytest.mark.parametrize("positions", POSITIONS)
    @pytest.mark.parametrize("use_cache", [True, False])
    def test_padding_is_no_position(self, positions, use_cache):
        lm = shared()
        prompts = [self.PROMPT, "abcd"]
        with steering(lm, planted(lm), 1.0, positions), watching(lm.model) as watch:
            lm.generate(prompts, max_new_tokens=self.K, use_cache=use_cache)
        for added in watch.added(2):
            long, short = added
            if positions == "prompt" and len(added[0]) == self.N:
                assert short[-4:].all()
                assert not short[:-4].any()
            if positions == "generated":  # both prompts end in the same column
                assert torch.equal(long, short)

    def test_prompt_length_scores_in_one_pass(self):
        lm = shared()
        for positions in ("prompt", "generated", "continuation"):
            with steering(lm, planted(lm), 1.0, positions, prompt_length=[3, 5]):
                _, watch = passes(lm)
            first, second = watch.added(2)[0].tolist()
            columns = range(IDS.shape[1])
            if positions == "prompt":
                wanted = [[i < n for i in columns] for n in (3, 5)]
            else:
                back = positions == "generated"
                wanted = [[i >= n - back for i in columns] for n in (3, 5)]
            assert [first, second] == wanted

    def test_prompt_length_counts_real_tokens_under_left_padding(self):
        lm = shared()
        mask = torch.ones_like(IDS)
        mask[1, :3] = 0
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        with steering(lm, planted(lm), 1.0, "continuation", prompt_length=3):
            _, watch = passes(lm, attention_mask=mask, position_ids=places)
        assert watch.added(2)[0].tolist() == [
            [i >= 3 for i in range(7)],
            [i >= 6 for i in range(7)],
        ]

    @pytest.mark.parametrize("given", [[3, 5, 7], [3]])
    def test_prompt_lengths_have_to_fit_the_batch(self, given):
        lm = shared()
        if len(given) == 1:  # one for all
            with steering(lm, planted(lm), 1.0, "prompt", prompt_length=given):
                logits_of(lm)
            return
        with (
            pytest.raises(SteeringError, match="prompt_length"),
            steering(lm, planted(lm), 1.0, "prompt", prompt_length=given),
        ):
            logits_of(lm)

    def test_teacher_forcing_one_token_a_time_is_decoding(self):
        lm = shared()
        with (
            torch.no_grad(),
            steering(lm, planted(lm), 1.0, "continuation"),
            watching(lm.model) as watch,
        ):
            in_pieces(lm, IDS[:, :4], IDS[:, 4:5], IDS[:, 5:6])
        assert [added.all(dim=-1).tolist() for added in watch.added(2)] == [
            [False, False],
            [True, True],
            [True, True],
        ]

    def test_steering_that_begins_in_mid_generation_counts_the_cache_as_prompt(self):
        lm = shared()
        with torch.no_grad():
            cache = in_pieces(lm, IDS[:, :4])
            with (
                steering(lm, planted(lm), 1.0, "continuation"),
                watching(lm.model) as watch,
            ):
                in_pieces(lm, IDS[:, 4:5], cache=cache)
        assert watch.added(2)[0].all()

    @pytest.mark.parametrize("positions", ["nowhere", "", "front", "ALL"])
    def test_unknown_positions(self, positions):
        lm = shared()
        with pytest.raises(BadOption, match="positions are all, prompt"):
            steering(lm, planted(lm), 1.0, positions).__enter__()


class TestPlainTransformers:
    def prompts(self, lm, *texts):
        ids = [lm.tokens(t) for t in texts]
        width = max(map(len, ids))
        padded = torch.tensor([[2] * (width - len(i)) + i for i in ids])
        mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i in ids])
        return {"input_ids": padded, "attention_mask": mask}

    @pytest.mark.parametrize("positions", POSITIONS)
    @pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}], ids=str)
    def test_inside_generate_with_padding(self, positions, options):
        lm = shared()
        inputs = self.prompts(lm, "a longer one", "short")
        v = planted(lm, 1, 2)
        with steering(lm, v, 1.5, positions):
            expected = [c.token_ids for c in lm.generate(["a longer one", "short"])]
        with steering(lm.model, v, 1.5, positions):
            found = lm.model.generate(**inputs, max_new_tokens=40, do_sample=False, **options)
        for row, tokens in zip(found[:, inputs["input_ids"].shape[1] :], expected, strict=True):
            assert tuple(row[: len(tokens)].tolist()) == tokens

    @pytest.mark.parametrize(
        "architecture", ["llama", "gpt2", "mistral_sliding", "gemma3", "bloom"]
    )
    @pytest.mark.parametrize("positions", POSITIONS)
    def test_static_cache_equals_dynamic(self, architecture, positions):
        lm = shared(architecture)
        inputs = self.prompts(lm, "a longer one", "short")
        texts = []
        for options in ({}, {"cache_implementation": "static"}):
            with steering(lm.model, planted(lm), 2.0, positions):
                texts.append(lm.model.generate(**inputs, max_new_tokens=12, **options))
        assert torch.equal(*texts)

    def test_positions_in_a_static_cache_under_left_padding(self):
        lm = shared()
        inputs = self.prompts(lm, "a longer one", "short")
        with steering(lm.model, planted(lm), 1.0, "generated"), watching(lm.model) as watch:
            lm.model.generate(**inputs, max_new_tokens=4, cache_implementation="static")
        first, *rest = watch.added(2)
        assert first[:, -1].all()
        assert not first[:, :-1].any()
        assert len(rest) == 3
        assert all(added.all() for added in rest)

    def test_front_in_a_static_cache_under_left_padding(self):
        lm = shared()
        inputs = self.prompts(lm, "<s>a longer one", "<s>short")
        v = planted(lm, rows=3)
        with steering(lm.model, v, 1.0), watching(lm.model) as watch:
            lm.model.generate(**inputs, max_new_tokens=3, cache_implementation="static")
        added = watch.added(2)
        assert added[0][0].nonzero().ravel().tolist() == [1, 2]
        assert added[0][1].nonzero().ravel().tolist() == [8, 9]
        assert not any(a.any() for a in added[1:])

    @pytest.mark.parametrize(
        "options",
        [
            {"num_beams": 3},
            {"num_beams": 3, "num_return_sequences": 2},
            {"num_return_sequences": 3, "do_sample": True},
        ],
        ids=str,
    )
    def test_beams_and_return_sequences_at_all_positions(self, options):
        lm = shared()
        inputs = self.prompts(lm, "a longer one", "short")
        with steering(lm.model, planted(lm), 1.0), watching(lm.model) as watch:
            found = lm.model.generate(**inputs, max_new_tokens=5, **options)
        assert len(found) == 2 * options.get("num_return_sequences", 1)
        assert all(added.all() for added in watch.added(2))

    @pytest.mark.parametrize("positions", ["prompt", "generated", "continuation"])
    def test_beams_keep_their_prompt_lengths(self, positions):
        lm = shared()
        inputs = self.prompts(lm, "a longer one", "short")
        with steering(lm.model, planted(lm), 1.0, positions), watching(lm.model) as watch:
            lm.model.generate(**inputs, max_new_tokens=5, num_beams=3)
        first, *rest = watch.added(2)
        assert first.shape[0] == 6
        assert first[:, -1].all().item() == (positions != "continuation")
        assert all(added.all().item() == (positions != "prompt") for added in rest)
        assert all(added.any().item() == (positions != "prompt") for added in rest)

    @pytest.mark.parametrize("positions", POSITIONS)
    def test_beams_without_a_cache(self, positions):
        lm = shared()
        inputs = self.prompts(lm, "a longer one", "short")
        texts = []
        for use_cache in (True, False):
            with steering(lm.model, planted(lm), 2.0, positions):
                texts.append(
                    lm.model.generate(**inputs, max_new_tokens=8, num_beams=3, use_cache=use_cache)
                )
        assert torch.equal(*texts)

    @pytest.mark.parametrize("positions", ["all", "prompt", "continuation"])
    @pytest.mark.parametrize("size", [2, 4, 5])
    def test_a_prefill_in_chunks_equals_one_in_a_piece(self, positions, size):
        lm = shared()
        inputs = self.prompts(lm, "a longer one", "short")
        texts = []
        for options in ({}, {"prefill_chunk_size": size}):
            with steering(lm.model, planted(lm), 2.0, positions):
                texts.append(lm.model.generate(**inputs, max_new_tokens=10, **options))
        assert torch.equal(*texts)

    def test_generated_in_chunks_needs_the_prompt_length(self):
        lm = shared()
        inputs = self.prompts(lm, "a longer one")
        v = planted(lm)
        with (
            pytest.raises(SteeringError, match="prompt_length"),
            steering(lm.model, v, 1.0, "generated"),
        ):
            lm.model.generate(**inputs, max_new_tokens=4, prefill_chunk_size=5)
        texts = []
        for options in ({}, {"prefill_chunk_size": 5}, {"prefill_chunk_size": 11}):
            with steering(lm.model, v, 2.0, "generated", prompt_length=12):
                texts.append(lm.model.generate(**inputs, max_new_tokens=10, **options))
        assert torch.equal(texts[0], texts[1])
        assert torch.equal(texts[0], texts[2])

    def test_front_in_chunks(self):
        lm = shared()
        inputs = self.prompts(lm, "<s>a longer one", "<s>short one")
        texts = []
        for options in ({}, {"prefill_chunk_size": 9}):
            with steering(lm.model, planted(lm, rows=4), 3.0):
                texts.append(lm.model.generate(**inputs, max_new_tokens=10, **options))
        assert torch.equal(*texts)

    def test_two_generates_in_one_context(self):
        lm = shared()
        one, two = self.prompts(lm, "a longer one"), self.prompts(lm, "another", "x")
        with steering(lm.model, planted(lm), 2.0, "generated"):
            first = lm.model.generate(**one, max_new_tokens=6)
            lm.model.generate(**two, max_new_tokens=6)
            assert torch.equal(lm.model.generate(**one, max_new_tokens=6), first)


class TestSpeculative:
    def generate(self, lm, positions, **options):
        prompt = torch.tensor([lm.tokens("abab abab abab abab abab")])
        with steering(lm.model, planted(lm), 1.0, positions, **options):
            plain = lm.model.generate(input_ids=prompt, max_new_tokens=12, do_sample=False)
        with (
            steering(lm.model, planted(lm), 1.0, positions, **options),
            watching(lm.model) as watch,
        ):
            found = lm.model.generate(
                input_ids=prompt, max_new_tokens=12, do_sample=False, prompt_lookup_num_tokens=3
            )
        assert any(a.shape[1] > 1 for a in watch.added(2)[1:])
        return plain, found

    @pytest.mark.parametrize("positions", ["prompt", "generated", "continuation"])
    def test_without_a_prompt_length_it_is_an_error(self, positions):
        with pytest.raises(SteeringError, match="prompt_length"):
            self.generate(shared(), positions)

    @pytest.mark.parametrize("positions", ["prompt", "generated", "continuation"])
    def test_with_one_it_writes_what_plain_decoding_writes(self, positions):
        plain, found = self.generate(shared(), positions, prompt_length=24)
        assert torch.equal(plain, found)

    def test_everywhere_needs_no_prompt_length(self):
        plain, found = self.generate(shared(), "all")
        assert torch.equal(plain, found)

    def test_several_tokens_in_one_decoding_step(self):
        lm = shared()

        def decode():
            in_pieces(lm, IDS[:, :3], IDS[:, 3:4], IDS[:, 4:])

        with torch.no_grad(), steering(lm, planted(lm)):
            decode()  # everywhere is everywhere
        with (
            torch.no_grad(),
            pytest.raises(SteeringError, match="prompt_length"),
            steering(lm, planted(lm), 1.0, "continuation"),
        ):
            decode()


class TestFront:
    def test_row_i_is_added_at_token_i_in_the_prefill_only(self):
        lm = shared()
        v = planted(lm, rows=4)
        with steering(lm, v, 1.3), watching(lm.model) as watch:
            lm.generate("prompt", max_new_tokens=4)
        before = watch.outputs[1][0]
        expected = before.clone()
        expected[0, :4] += amount(v, 1.3, torch.float32)
        assert torch.equal(watch.inputs[2][0], expected)
        assert torch.equal(watch.inputs[2][0][0, 0], before[0, 0])
        assert before.shape[1] == 1 + len("prompt")  # BOS in front
        assert watch.added(2)[0][0].nonzero().ravel().tolist() == [1, 2, 3]
        assert not any(added.any() for added in watch.added(2)[1:])

    def test_without_a_cache_the_same_tokens_are_steered_every_time(self):
        lm = shared()
        with steering(lm, planted(lm, rows=4)), watching(lm.model) as watch:
            lm.generate("prompt", max_new_tokens=4, use_cache=False)
        assert all(a[0].nonzero().ravel().tolist() == [1, 2, 3] for a in watch.added(2))

    @pytest.mark.parametrize("architecture", ["llama", "gpt2", "opt", "bloom"])
    def test_left_padding_shifts_nothing(self, architecture):
        lm = shared(architecture)
        v = planted(lm, rows=4)
        with steering(lm, v), watching(lm.model, architecture) as watch:
            batch = lm.generate(["a rather long prompt", "tiny one"], max_new_tokens=6)
        expected = watch.outputs[1][0].clone()
        start = len("a rather long prompt") - len("tiny one")
        expected[0, :4] += amount(v, 1.0, torch.float32)
        expected[1, start : start + 4] += amount(v, 1.0, torch.float32)
        assert torch.equal(watch.inputs[2][0], expected)
        with steering(lm, v), watching(lm.model, architecture) as single:
            alone = lm.generate("tiny one", max_new_tokens=6)
        assert alone.token_ids == batch[1].token_ids
        torch.testing.assert_close(
            single.inputs[0][0][0], watch.inputs[0][0][1, start:], atol=1e-5, rtol=1e-5
        )

    def test_a_prompt_shorter_than_the_tensor_is_an_error(self):
        lm = shared()
        with (
            pytest.raises(SteeringError, match="5 tokens and the front vector covers 6"),
            steering(lm, planted(lm, rows=6)),
        ):
            lm.generate("four")

    def test_a_prompt_as_long_as_the_tensor_will_do(self):
        lm = shared()
        with steering(lm, planted(lm, rows=5)), watching(lm.model) as watch:
            lm.generate("four", max_new_tokens=2)
        assert watch.added(2)[0][0].tolist() == [False, True, True, True, True]

    def test_a_short_prompt_in_a_batch_is_an_error(self):
        lm = shared()
        with pytest.raises(SteeringError, match="longer prompt"), steering(lm, planted(lm, rows=6)):
            lm.generate(["long enough", "no"])

    def test_a_plain_model_needs_the_bos_in_front(self):
        lm = shared()
        ids = torch.tensor([lm.tokens("without")])
        with pytest.raises(SteeringError, match="BOS"), steering(lm.model, planted(lm, rows=3)):
            lm.model.generate(input_ids=ids, max_new_tokens=3)
        with steering(lm.model, planted(lm, rows=3)):
            lm.model.generate(
                input_ids=torch.tensor([lm.tokens("with", bos=True)]), max_new_tokens=3
            )

    def test_a_tensor_that_steers_the_first_token_too_needs_no_bos(self):
        lm = shared()
        ids = torch.tensor([lm.tokens("without")])
        with steering(lm.model, planted(lm, rows=3, bos=False)), watching(lm.model) as watch:
            lm.model.generate(input_ids=ids, max_new_tokens=3)
        assert watch.added(2)[0][0].nonzero().ravel().tolist() == [0, 1, 2]

    def test_a_chat_template_brings_the_only_bos(self):
        lm = shared()
        with steering(lm, planted(lm, rows=3)), watching(lm.model) as watch:
            lm.generate("hello", chat=True, max_new_tokens=2)
        assert watch.inputs[0][0].shape[1] == len(lm.tokens("hello", chat=True))
        assert lm.tokens("hello", chat=True, bos=True).count(1) == 1

    def test_positions_do_not_matter_to_it(self):
        lm = shared()
        texts = []
        for positions in POSITIONS:
            with steering(lm, planted(lm, rows=3), 2.0, positions):
                texts.append(lm.generate("the same").token_ids)
        assert len(set(texts)) == 1

    def test_front_and_broadcast_together(self):
        lm = shared()
        v, w = planted(lm, rows=3), planted(lm, seed=1)
        with steering(lm, [v, w]), watching(lm.model) as watch:
            lm.generate("together", max_new_tokens=2)
        front = torch.zeros_like(watch.outputs[1][0])
        front[0, :3] = amount(v, 1.0, torch.float32)
        expected = watch.outputs[1][0] + front + amount(w, 1.0, torch.float32)
        torch.testing.assert_close(watch.inputs[2][0], expected)
        assert watch.added(2)[1].all()

    def test_an_extracted_one_goes_back_where_it_was_read(self):
        lm = shared()
        v = lm.extract([("love you", "hate")], layers=2, method="actadd")
        high = lm.record("love you", 2, bos=True)[2]
        low = lm.record("hate    ", 2, bos=True)[2]
        assert not v.directions[2][0].any()
        with steering(lm, v):
            seen = lm.record("hate    ", 2, bos=True)[2]
        torch.testing.assert_close(seen, high, atol=1e-5, rtol=1e-5)
        assert torch.equal(seen[0], low[0])


class TestNeverSilent:
    def test_steering_that_never_fired(self):
        lm = shared()
        with pytest.raises(SteeringError, match="never fired"), steering(lm, planted(lm)):
            pass

    def test_another_copy_was_run(self):
        lm, other = shared(), tiny_model()
        with pytest.raises(SteeringError, match="another copy"), steering(lm, planted(lm)):
            other(input_ids=IDS)

    def test_no_position_was_due(self):
        lm = shared()
        with (
            pytest.raises(SteeringError, match="no position was 'continuation'"),
            steering(lm, planted(lm), 1.0, "continuation"),
        ):
            lm.generate("one token only", max_new_tokens=1)

    @pytest.mark.parametrize("coefficient", [1e-9, -1e-6])
    def test_a_coefficient_lost_in_rounding(self, coefficient):
        lm = shared("llama", torch.bfloat16)
        with (
            pytest.raises(SteeringError, match=r"changed nothing.*bfloat16"),
            steering(lm, planted(lm), coefficient),
        ):
            logits_of(lm)

    def test_a_coefficient_below_float16(self):
        lm = shared("llama", torch.float16)
        with (
            pytest.raises(SteeringError, match=r"changed nothing.*float16"),
            steering(lm, planted(lm), 1e-12),
        ):
            logits_of(lm)

    def test_one_row_of_a_batch_lost_in_rounding(self):
        lm = shared("llama", torch.bfloat16)
        v = planted(lm)
        rows = [Injection(v, 3.0, rows=(0,)), Injection(v, 1e-9, rows=(1,))]
        with pytest.raises(SteeringError, match="changed nothing"), steering(lm, rows):
            logits_of(lm)

    @pytest.mark.parametrize("coefficient", [float("nan"), float("inf"), -float("inf")])
    def test_coefficients_are_finite(self, coefficient):
        lm = shared()
        with pytest.raises(BadOption, match="finite"):
            steering(lm, planted(lm), coefficient).__enter__()
        with pytest.raises(BadOption, match="finite"):
            Injection(planted(lm), coefficient)

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    @pytest.mark.parametrize("coefficient", [1e30, 1e39])  # overflows in a norm, or at once
    def test_logits_that_became_nan(self, temperature, coefficient):
        lm = shared()
        with (
            pytest.raises(SteeringError, match=r"NaN or infinite.*too large"),
            steering(lm, planted(lm), coefficient),
        ):
            lm.generate("too much", temperature=temperature)
        assert hooks_on(lm.model) == 0

    def test_all_layers_have_to_come_to_pass(self):
        lm = shared()
        with (
            pytest.raises(SteeringError, match="layer 3 never fired"),
            steering(lm, planted(lm, 1, 3)),
        ):
            lm.record("only up to layer 2", 2)


class TestModels:
    def test_another_shape_is_refused(self):
        lm, wide = shared(), tiny_lm(hidden_size=64)
        v = planted(lm)
        for allowed in (False, True):
            with pytest.raises(ModelMismatch, match="does not fit"):
                steering(wide, v, allow_other_weights=allowed).__enter__()

    def test_another_architecture_of_the_same_shape_is_refused(self):
        with pytest.raises(ModelMismatch, match=r"llama, 4 layers of 32.*qwen2, 4 layers of 32"):
            steering(shared("qwen2"), planted(shared())).__enter__()

    def test_other_weights_are_refused_unless_meant(self):
        lm, other = shared(), tiny_lm(seed=1)
        v = planted(lm)
        with pytest.raises(ModelMismatch, match="other weights"):
            steering(other, v).__enter__()
        with pytest.raises(ModelMismatch, match="other weights"):
            steering(other.model, v).__enter__()
        logits = logits_of(other)
        with steering(other, v, allow_other_weights=True):
            assert not torch.equal(logits_of(other), logits)

    def test_a_refusal_puts_no_hook_on(self):
        lm, other = shared(), tiny_lm(seed=1)
        with pytest.raises(ModelMismatch):
            steering(other, [planted(other), planted(lm)]).__enter__()
        assert hooks_on(other.model) == 0

    def test_another_precision_is_fine(self):
        lm, half = shared(), shared("llama", torch.bfloat16)
        v = planted(lm)
        assert v.model.verdict(half.identity) is Verdict.OTHER_PRECISION
        with steering(half, v), watching(half.model) as watch:
            logits_of(half)
        expected = watch.outputs[1][0] + amount(v, 1.0, torch.bfloat16)
        assert torch.equal(watch.inputs[2][0], expected)

    def test_a_plain_model_and_a_language_model_are_the_same_model(self):
        lm = shared()
        with steering(lm, planted(lm)):
            one = logits_of(lm)
        with steering(lm.model, planted(lm)):
            assert torch.equal(logits_of(lm), one)


class TestFingerprint:
    @every_architecture
    def test_the_same_in_every_precision(self, architecture):
        prints = {
            fingerprint(blocks_of(tiny_model(architecture).to(dtype), architecture))
            for dtype in (torch.float32, torch.bfloat16, torch.float16)
        }
        assert len(prints) == 1
        assert None not in prints

    @every_architecture
    def test_other_weights_have_another(self, architecture):
        one, two = (blocks_of(tiny_model(architecture, seed), architecture) for seed in (0, 1))
        assert fingerprint(one) != fingerprint(two)

    @every_architecture
    def test_one_step_of_training_changes_it(self, architecture):
        model = copy.deepcopy(shared(architecture).model).train()
        before = fingerprint(blocks_of(model, architecture))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        assert fingerprint(blocks_of(model, architecture)) != before

    def test_a_fine_tuned_copy_has_the_same_shape_and_other_weights(self):
        lm = shared()
        model = copy.deepcopy(lm.model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
        tuned = LanguageModel(model, lm.tokenizer, source="tiny")
        assert lm.identity.verdict(tuned.identity) is Verdict.OTHER_WEIGHTS

    def test_one_that_is_unknown_is_told_by_the_source(self):
        assert fingerprint([torch.nn.LayerNorm(4)]) is None


class TestBlocks:
    def test_a_list_can_be_named(self):
        model = tiny_model()
        parent, blocks = find_blocks(model, "model.layers")
        assert parent is model.model
        assert blocks == list(model.model.layers)

    def test_one_that_is_not_there(self):
        with pytest.raises(ModelError, match=r"no block list 'model\.h'.*model\.layers \(4\)"):
            find_blocks(tiny_model(), "model.h")

    def ambiguous(self):
        model = tiny_model()
        model.extra = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(4))
        return model

    def test_two_that_fit_are_an_error_that_says_how_to_choose(self):
        with pytest.raises(ModelError, match=r"extra \(4\).*name one with blocks="):
            LanguageModel(self.ambiguous(), tiny_tokenizer())

    def test_naming_one_helps_everywhere(self):
        model = self.ambiguous()
        lm = LanguageModel(model, tiny_tokenizer(), source="tiny", blocks="model.layers")
        v = planted(lm)
        with steering(lm, v), watching(model) as watch:
            logits_of(lm)
        assert watch.added(2)[0].all()
        with steering(model, v, blocks="model.layers"):
            logits_of(lm)
        with pytest.raises(ModelError, match="blocks="):
            steering(model, v).__enter__()

    def test_no_transformers_model_at_all(self):
        with pytest.raises(ModelError, match="no transformers config"):
            find_blocks(torch.nn.Linear(2, 2))


class TestOffloaded:
    @pytest.fixture(params=["cpu", "disk"])
    def offloaded(self, request, tmp_path):
        model = tiny_model()
        if request.param == "cpu":
            accelerate.cpu_offload(model, execution_device="cpu")
        else:
            accelerate.disk_offload(model, str(tmp_path), execution_device="cpu")
        return LanguageModel(model, tiny_tokenizer(), source="tiny")

    def test_it_is_the_same_model(self, offloaded):
        assert offloaded.identity.fingerprint == shared().identity.fingerprint

    def test_steering_and_writing(self, offloaded):
        lm = shared()
        v = planted(lm, 1, 2)
        with steering(lm, v, 2.0):
            expected = lm.generate(["offloaded", "or not"], max_new_tokens=6)
        with steering(offloaded, v, 2.0):
            assert offloaded.generate(["offloaded", "or not"], max_new_tokens=6) == expected

    def test_extraction(self, offloaded):
        pairs = [("good morning", "bad evening"), ("good night", "bad luck")]
        found, expected = (m.extract(pairs, layers="all") for m in (offloaded, shared()))
        assert found == expected

    def test_a_model_spread_over_devices(self):
        model = tiny_model()
        device_map = {"": "cpu", "model.layers.3": "cpu"}
        accelerate.dispatch_model(model, device_map=device_map, main_device="cpu", force_hooks=True)
        lm = LanguageModel(model, tiny_tokenizer(), source="tiny")
        v = planted(shared())
        with steering(lm, v, 2.0):
            found = lm.generate("spread", max_new_tokens=6)
        with steering(shared(), v, 2.0):
            assert found == shared().generate("spread", max_new_tokens=6)


def test_a_vector_may_steer_several_models_at_once():
    lm, half = shared(), shared("llama", torch.bfloat16)
    v = planted(lm)
    with steering(lm, v), steering(half, v):
        one, two = logits_of(lm), logits_of(half)
    assert one.dtype == torch.float32
    assert two.dtype == torch.bfloat16


def test_zero_vectors_at_one_of_two_layers():
    lm = shared()
    zero = np.zeros((1, lm.d_model))
    v = SteeringVector({1: planted(lm).directions[2], 2: zero}, model=lm.identity)
    with steering(lm, v), watching(lm.model) as watch:
        logits_of(lm)
    assert watch.added(1)[0].all()
    assert not watch.added(2)[0].any()
