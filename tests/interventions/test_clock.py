"""The clock: every pass is placed in the sequence that it continues, or the steering is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import DynamicCache

from steerlab import Injection, LanguageModel, steering
from steerlab.errors import BadOption, SteeringError
from steerlab.models.cache import cache_argument
from tests.models.architectures import tiny
from tests.models.judging import Watched
from tests.tiny import tiny_lm, tiny_tokenizer
from tests.watching import due, planted, shared, watching
from tests.wrappers import WRAPPERS, wrapper_lm

BY_PLACE = ("prompt", "generated", "continuation")
PROMPT = torch.tensor([[1, 40, 77, 12, 205]])
OTHER = torch.tensor([[1, 8, 250, 31, 31, 64, 190, 55]])  # longer


@torch.no_grad()
def one_pass(lm, ids, cache=None, **inputs):
    if cache is not None:
        inputs |= {"use_cache": True, cache_argument(lm.model): cache}
    return lm.model(input_ids=ids, **inputs)


def passes(lm, cache, *pieces, **inputs):
    """One pass a piece on a cache, `inputs` going into the last; a number crops the cache."""
    for piece in pieces:
        if isinstance(piece, int):
            crop(cache, piece)
        else:
            one_pass(lm, piece, cache, **(inputs if piece is pieces[-1] else {}))


def crop(cache, length):
    cache.crop(length - cache.get_seq_length())  # negative: as many tokens less


def token(number):
    return torch.tensor([[number]])


def new_cache(lm):
    return DynamicCache(config=lm.model.config)


def by_row(watch, row=0):
    return [added[row].tolist() for added in watch.added(2)]


class TestGuidance:
    """Classifier-free guidance: two sequences, whose passes alternate."""

    @pytest.mark.parametrize("positions", BY_PLACE)
    @pytest.mark.parametrize("use_cache", [True, False])
    @pytest.mark.parametrize("negative", [OTHER, None], ids=["longer", "the last token"])
    def test_both_branches_are_steered_where_they_are(self, positions, use_cache, negative):
        lm = shared()
        with steering(lm.model, planted(lm), 1.0, positions), watching(lm.model) as watch:
            lm.model.generate(
                PROMPT,
                attention_mask=torch.ones_like(PROMPT),
                guidance_scale=1.5,
                negative_prompt_ids=negative,
                max_new_tokens=4,
                do_sample=False,
                use_cache=use_cache,
            )
        found = by_row(watch)
        for branch, n in ((found[0::2], 5), (found[1::2], 8 if negative is not None else 1)):
            for step, added in enumerate(branch):
                first = n + step - 1 if use_cache and step else 0
                assert added == due(positions, n, first, n + step)

    @pytest.mark.parametrize("positions", ["prompt", "continuation"])
    @pytest.mark.parametrize("negative", [OTHER, OTHER[:, :3], None], ids=["8", "3", "1"])
    def test_the_branch_that_comes_whole_beside_a_prompt_in_chunks(self, positions, negative):
        lm = shared()
        prompt = torch.cat([OTHER, PROMPT], dim=1)
        with steering(lm.model, planted(lm), 1.0, positions), watching(lm.model) as watch:
            lm.model.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                guidance_scale=1.5,
                negative_prompt_ids=negative,
                prefill_chunk_size=3,
                max_new_tokens=4,
                do_sample=False,
            )
        n, found = 1 if negative is None else negative.shape[1], by_row(watch)
        spans = [(0, n), (n, n + 1), (n + 1, n + 2), (n + 2, n + 3)]
        assert found[5::2] == [due(positions, n, *span) for span in spans]
        assert found[4] == due(positions, 13, 12, 13)
        assert found[6::2] == [due(positions, 13, i, i + 1) for i in (13, 14, 15)]

    def test_a_branch_that_another_may_continue_is_refused(self):
        lm = shared()
        negative = torch.cat([PROMPT, torch.tensor([[9]])], dim=1)  # one token longer
        with (
            pytest.raises(SteeringError, match="go on from the same tokens"),
            steering(lm.model, planted(lm), 1.0, "continuation"),
        ):
            lm.model.generate(
                PROMPT,
                attention_mask=torch.ones_like(PROMPT),
                guidance_scale=1.5,
                negative_prompt_ids=negative,
                max_new_tokens=4,
                use_cache=False,
            )


class TestTurns:
    """Every `generate` begins with a prompt of its own, whatever was run before it."""

    def generate(self, lm, ids, cache=None, **options):
        if cache is not None:
            options |= {cache_argument(lm.model): cache}
        options = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None} | options
        mask = options.pop("attention_mask", torch.ones_like(ids))
        return lm.model.generate(ids, attention_mask=mask, pad_token_id=2, **options)

    def run(self, lm, positions, *turns):
        """The passes of the last turn, row by row. turns: calls of the model, steered."""
        with steering(lm.model, planted(lm), 1.0, positions), watching(lm.model) as watch:
            for turn in turns:
                seen = len(watch.inputs.get(2, ()))
                turn()
        return by_row(watch)[seen:]

    def expected(self, positions, length, first):
        spans = [(first, length), (length, length + 1), (length + 1, length + 2)]
        return [due(positions, length, *span) for span in spans]

    @pytest.mark.parametrize("positions", ["prompt", "continuation"])
    @pytest.mark.parametrize("seen", [5, 6, 7])
    @pytest.mark.parametrize("whole", [True, False])
    def test_the_rest_of_a_prompt_that_was_read_inside(self, positions, seen, whole):
        lm, cache = shared(), new_cache(shared())
        found = self.run(
            lm,
            positions,
            lambda: one_pass(lm, OTHER[:, :seen], cache),
            lambda: self.generate(
                lm,
                OTHER if whole else OTHER[:, seen:],
                cache,
                attention_mask=torch.ones_like(OTHER),
            ),
        )
        assert found == self.expected(positions, 8, seen)

    @pytest.mark.parametrize("positions", ["prompt", "continuation"])
    def test_one_new_token_on_a_cache_that_was_filled_outside(self, positions):
        lm, cache = shared(), new_cache(shared())
        one_pass(lm, OTHER[:, :7], cache)
        mask = torch.ones_like(OTHER)
        found = self.run(
            lm, positions, lambda: self.generate(lm, OTHER[:, 7:], cache, attention_mask=mask)
        )
        assert found == self.expected(positions, 8, 7)

    def test_the_end_of_a_prompt_that_was_steered_before_is_refused(self):
        lm, cache = shared(), new_cache(shared())
        with pytest.raises(SteeringError, match="several chunks"):
            self.run(
                lm,
                "generated",
                lambda: one_pass(lm, OTHER[:, :7], cache),
                lambda: self.generate(lm, OTHER, cache),
            )

    @pytest.mark.parametrize("positions", BY_PLACE)
    @pytest.mark.parametrize("more", [0, 1, 4])
    def test_another_turn_on_the_cache(self, positions, more):
        lm, cache = shared(), new_cache(shared())
        turns = [self.generate(lm, PROMPT)]
        turns.append(torch.cat([turns[0], OTHER[:, :more]], dim=1))
        found = self.run(
            lm,
            positions,
            lambda: self.generate(lm, PROMPT, cache),
            lambda: self.generate(lm, turns[1], cache),
        )
        assert found == self.expected(positions, 8 + more, 7)

    @pytest.mark.parametrize("positions", ["prompt", "continuation"])
    @pytest.mark.parametrize(("kept", "length"), [(3, 4), (5, 6), (5, 8), (6, 7)])
    def test_another_prompt_on_the_cropped_cache(self, positions, kept, length):
        lm, cache = shared(), new_cache(shared())
        found = self.run(
            lm,
            positions,
            lambda: self.generate(lm, PROMPT, cache),
            lambda: crop(cache, kept),
            lambda: self.generate(lm, OTHER[:, :length], cache),
        )
        assert found == self.expected(positions, length, kept)

    @pytest.mark.parametrize("positions", BY_PLACE)
    @pytest.mark.parametrize("length", [6, 8])
    def test_a_longer_prompt_without_a_cache(self, positions, length):
        lm = shared()
        found = self.run(
            lm,
            positions,
            lambda: self.generate(lm, OTHER[:, :5], use_cache=False, max_new_tokens=1),
            lambda: self.generate(lm, OTHER[:, :length], use_cache=False),
        )
        assert found == [due(positions, length, 0, length + step) for step in range(3)]

    def test_the_other_branch_of_a_later_guidance_without_a_cache(self):
        lm = shared()
        options = {"guidance_scale": 1.5, "use_cache": False, "max_new_tokens": 2}
        found = self.run(
            lm,
            "prompt",
            *[
                lambda n=n: self.generate(lm, PROMPT, negative_prompt_ids=OTHER[:, :n], **options)
                for n in (7, 8)
            ],
        )
        assert found[1::2] == [due("prompt", 8, 0, 8), due("prompt", 8, 0, 9)]

    def test_a_loop_of_its_own_on_a_known_cache_is_refused(self):
        lm, cache = shared(), new_cache(shared())

        def loop(model, input_ids, **_):
            one_pass(lm, input_ids[:, 5:], cache)
            return input_ids

        with pytest.raises(SteeringError, match=r"in a way of its own.*prompt_length"):
            self.run(
                lm,
                "continuation",
                lambda: one_pass(lm, OTHER[:, :5], cache),
                lambda: self.generate(lm, OTHER, custom_generate=loop),
            )


class TestInterleaved:
    @pytest.mark.parametrize("positions", BY_PLACE)
    def test_two_caches_in_one_context(self, positions):
        lm = shared()
        one, two = new_cache(lm), new_cache(lm)
        with steering(lm, planted(lm), 1.0, positions), watching(lm.model) as watch:
            for ids, cache in ((PROMPT, one), (OTHER, two)) + (
                (torch.tensor([[7]]), one),
                (torch.tensor([[7]]), two),
            ) * 2:
                one_pass(lm, ids, cache)
        spans = [(5, 0, 5), (8, 0, 8), (5, 5, 6), (8, 8, 9), (5, 6, 7), (8, 9, 10)]
        assert by_row(watch) == [due(positions, *span) for span in spans]

    @pytest.mark.parametrize("positions", BY_PLACE)
    def test_a_cache_that_the_model_made_itself(self, positions):
        lm = shared()
        with steering(lm, planted(lm), 1.0, positions), watching(lm.model) as watch:
            one, two = (one_pass(lm, ids).past_key_values for ids in (PROMPT, OTHER))
            for cache in (one, two, one, two):
                one_pass(lm, torch.tensor([[7]]), cache)
        spans = [(5, 0, 5), (8, 0, 8), (5, 5, 6), (8, 8, 9), (5, 6, 7), (8, 9, 10)]
        assert by_row(watch) == [due(positions, *span) for span in spans]

    @pytest.mark.parametrize("positions", BY_PLACE)
    def test_two_sequences_without_a_cache(self, positions):
        lm = shared()
        one, two = PROMPT, OTHER
        with steering(lm, planted(lm), 1.0, positions), watching(lm.model) as watch:
            for _ in range(3):
                one_pass(lm, one, use_cache=False)
                one_pass(lm, two, use_cache=False)
                one, two = (torch.cat([ids, torch.tensor([[7]])], 1) for ids in (one, two))
        spans = [(n, 0, n + step) for step in range(3) for n in (5, 8)]
        assert by_row(watch) == [due(positions, *span) for span in spans]

    def test_a_cropped_cache_that_goes_on_with_another_prompt(self):
        lm = shared()
        cache = new_cache(lm)
        with steering(lm, planted(lm), 1.0, "continuation"), watching(lm.model) as watch:
            one_pass(lm, OTHER, cache)
            one_pass(lm, torch.tensor([[7]]), cache)
            crop(cache, 3)
            one_pass(lm, torch.tensor([[5, 6]]), cache)
            one_pass(lm, torch.tensor([[7]]), cache)
        assert by_row(watch) == [[False] * 8, [True], [False] * 2, [True]]

    def test_one_token_on_a_cropped_cache_is_refused(self):
        lm = shared()
        cache = new_cache(lm)
        with (
            pytest.raises(SteeringError, match="cropped into the prompt"),
            steering(lm, planted(lm), 1.0, "generated"),
        ):
            passes(lm, cache, OTHER, 3, token(5))

    def test_several_new_tokens_without_a_cache_are_refused(self):
        lm = shared()
        with (
            pytest.raises(SteeringError, match=r"several tokens.*prompt_length"),
            steering(lm, planted(lm), 1.0, "continuation"),
        ):
            [one_pass(lm, OTHER[:, :end], use_cache=False) for end in (4, 8)]

    def test_a_rolled_back_cache_keeps_its_prompt(self):
        lm = shared()
        cache = new_cache(lm)
        with steering(lm, planted(lm), 1.0, "continuation"), watching(lm.model) as watch:
            one_pass(lm, PROMPT, cache)
            for token in (7, 8):
                one_pass(lm, torch.tensor([[token]]), cache)
            crop(cache, 6)
            one_pass(lm, torch.tensor([[9]]), cache)
        assert by_row(watch) == [[False] * 5, [True], [True], [True]]


class TestWithoutIds:
    """Passes of embeddings, as wrappers of vision models make them, and models with no cache."""

    @pytest.mark.parametrize("positions", BY_PLACE)
    @pytest.mark.parametrize("use_cache", [True, False])
    @pytest.mark.parametrize("name", WRAPPERS)
    def test_wrappers(self, name, use_cache, positions):
        lm = wrapper_lm(name)
        with steering(lm, planted(lm), 1.0, positions), watching(lm.model, name) as watch:
            lm.generate("abcde", max_new_tokens=4, use_cache=use_cache)
        found = by_row(watch)
        assert len(found) == 4
        for step, added in enumerate(found):
            first = 4 + step if use_cache and step else 0
            assert added == due(positions, 5, first, 5 + step)

    @pytest.mark.parametrize("name", WRAPPERS)
    def test_a_padded_row_of_a_wrapper(self, name):
        lm = wrapper_lm(name)
        lm.next_log_probs(["abcde", "ab"])  # the trial of batches is over
        for use_cache in (True, False):
            with (
                steering(lm, planted(lm), 1.0, "continuation"),
                watching(lm.model, name) as watch,
            ):
                lm.generate(["abcde", "ab"], max_new_tokens=3, use_cache=use_cache)
            columns = [added[:, 5:].all() for added in watch.added(2)[1:]]
            assert all(columns)
            assert not any(
                added[:, :5].any() for added in watch.added(2)[: 1 + 2 * (not use_cache)]
            )

    @pytest.mark.parametrize("positions", BY_PLACE)
    def test_a_language_model_alone_that_gets_embeddings(self, positions):
        lm = shared()
        inner, embed = lm.model.model, lm.model.get_input_embeddings()
        ids = PROMPT
        with (
            torch.no_grad(),
            steering(inner, planted(lm), 1.0, positions, allow_other_weights=True),
            watching(lm.model) as watch,
        ):
            for _ in range(3):
                inner(inputs_embeds=embed(ids), use_cache=False)
                ids = torch.cat([ids, torch.tensor([[7]])], dim=1)
        assert by_row(watch) == [due(positions, 5, 0, 5 + step) for step in range(3)]

    @pytest.mark.parametrize("positions", BY_PLACE)
    @pytest.mark.parametrize("prompts", [["abcde"], ["abcde", "xy"]], ids=["one", "padded"])
    def test_a_model_without_any_cache(self, positions, prompts):
        lm = shared("openai-gpt")
        with steering(lm, planted(lm), 1.0, positions), watching(lm.model, "openai-gpt") as watch:
            lm.generate(prompts, max_new_tokens=4)
        assert by_row(watch) == [due(positions, 5, 0, 5 + step) for step in range(4)]

    def test_embeddings_that_are_rounded_by_the_length_of_the_pass(self):
        lm = LanguageModel(tiny("roc_bert"), tiny_tokenizer(), source="tiny")
        v = planted(lm)
        with steering(lm, v, 1.0, "prompt"), Watched(lm.blocks[2]) as watch:
            lm.generate("xy", max_new_tokens=4, use_cache=False)
        watch.check(v, "prompt", [(2, 2 + step) for step in range(4)], 1.0)

    def test_a_front_vector_on_a_model_without_any_cache(self):
        lm = shared("openai-gpt")
        v = planted(lm, rows=3)
        with steering(lm, v), watching(lm.model, "openai-gpt") as watch:
            lm.generate("abcde", max_new_tokens=3)
        assert all(row[:3] == [False, True, True] for row in by_row(watch))
        assert not any(any(row[3:]) for row in by_row(watch))


class TestPacked:
    """Several requests in one row: position ids restart."""

    IDS = torch.tensor([[1, 40, 77, 1, 8, 250, 31]])
    PLACES = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])

    @pytest.mark.parametrize("mask", [None, torch.ones(1, 7, dtype=torch.long)], ids=str)
    @pytest.mark.parametrize(
        ("positions", "columns"),
        [("prompt", range(7)), ("generated", [2, 6]), ("all", range(7))],
    )
    def test_every_request_has_its_own_end(self, positions, columns, mask):
        lm = shared()
        with steering(lm, planted(lm), 1.0, positions), watching(lm.model) as watch:
            one_pass(lm, self.IDS, position_ids=self.PLACES, attention_mask=mask, use_cache=False)
        assert by_row(watch) == [[i in columns for i in range(7)]]

    def test_prompt_lengths_are_those_of_the_requests(self):
        lm = shared()
        with (
            steering(lm, planted(lm), 1.0, "continuation", prompt_length=[1, 3]),
            watching(lm.model) as watch,
        ):
            one_pass(lm, self.IDS, position_ids=self.PLACES, use_cache=False)
        assert by_row(watch) == [[i in (1, 2, 6) for i in range(7)]]

    def test_front_goes_on_the_first_tokens_of_each(self):
        lm = shared()
        with steering(lm, planted(lm, rows=3)), watching(lm.model) as watch:
            one_pass(lm, self.IDS, position_ids=self.PLACES, use_cache=False)
        assert by_row(watch) == [[i in (1, 2, 4, 5) for i in range(7)]]

    @pytest.mark.parametrize("positions", ["all", "prompt"])
    def test_rows_are_refused(self, positions):
        lm = shared()
        with (
            pytest.raises(SteeringError, match="several requests"),
            steering(lm, Injection(planted(lm), 1.0, positions, rows=(0,))),
        ):
            one_pass(lm, self.IDS, position_ids=self.PLACES, use_cache=False)

    def test_what_goes_on_from_a_packed_cache_is_refused(self):
        lm = shared()
        cache = new_cache(lm)
        with (
            pytest.raises(SteeringError, match="several requests"),
            steering(lm, planted(lm), 1.0, "generated"),
        ):
            passes(
                lm,
                one_pass(lm, self.IDS, cache, position_ids=self.PLACES).past_key_values,
                token(7),
            )

    APART = torch.block_diag(torch.ones(3, 3), torch.ones(4, 4)).bool().tril()[None, None]
    PADDED = (torch.ones(7, 7).bool().tril() & (torch.arange(7) >= 3))[None, None]
    BOUNDS = torch.tensor([0, 3, 7], dtype=torch.int32)

    @pytest.mark.parametrize(
        "inputs",
        [
            {"attention_mask": APART},
            {"attention_mask": torch.where(APART, 0.0, float("-inf"))},
            {"attention_mask": APART, "position_ids": torch.arange(7)[None]},
            {"attention_mask": PADDED},
            {"cu_seq_lens_q": BOUNDS},
            {"cu_seq_lens_q": BOUNDS, "position_ids": torch.arange(7)[None]},
            {"cu_seq_lens_q": BOUNDS + 1, "position_ids": PLACES},
            {"seq_idx": torch.tensor([[0, 0, 0, 1, 1, 1, 1]])},
        ],
        ids=lambda inputs: "+".join(inputs),
    )
    def test_requests_and_padding_that_position_ids_do_not_show_are_refused(self, inputs):
        lm = shared()
        with (
            pytest.raises(SteeringError, match=r"do not fit .* steer at positions='all'"),
            steering(lm, planted(lm), 1.0, "generated"),
        ):
            one_pass(lm, self.IDS, use_cache=False, **inputs)
        with steering(lm, planted(lm)):
            one_pass(lm, self.IDS, use_cache=False, **inputs)

    def test_masks_by_kind_of_layer_are_read(self):
        lm = shared("gemma3")
        masks = {"full_attention": self.APART, "sliding_attention": self.APART}
        with (
            pytest.raises(SteeringError, match="do not fit"),
            steering(lm, planted(lm), 1.0, "generated"),
        ):
            one_pass(lm, self.IDS, use_cache=False, attention_mask=masks)

    @pytest.mark.parametrize(
        ("inputs", "columns"),
        [
            ({"attention_mask": torch.ones(7, 7).bool().tril()[None, None]}, [6]),
            ({"attention_mask": APART, "position_ids": PLACES}, [2, 6]),
            ({"cu_seq_lens_q": BOUNDS, "position_ids": PLACES}, [2, 6]),
            ({"cu_seq_lens_q": torch.tensor([0, 7])}, [6]),
        ],
    )
    def test_masks_and_bounds_that_fit_are_no_obstacle(self, inputs, columns):
        lm = shared()
        with steering(lm, planted(lm), 1.0, "generated"), watching(lm.model) as watch:
            one_pass(lm, self.IDS, use_cache=False, **inputs)
        assert by_row(watch) == [[i in columns for i in range(7)]]


class TestPositionIds:
    """The model's own positions, where they are given, have to be the ones that we computed."""

    @pytest.mark.parametrize("positions", [*BY_PLACE, "front"])
    @pytest.mark.parametrize(
        "places",
        [[[0, 1, 2, 3, 5]], [[4, 3, 2, 1, 0]], [[0, 1, 9, 3, 4]], [[0, 2, 4, 6, 8]]],
        ids=str,
    )
    @pytest.mark.parametrize("mask", [None, torch.ones(1, 5, dtype=torch.long)], ids=str)
    def test_a_contradiction_is_refused(self, positions, places, mask):
        lm = shared()
        v = planted(lm, rows=3) if positions == "front" else planted(lm)
        where = "all" if positions == "front" else positions
        inputs = {"position_ids": torch.tensor(places), "attention_mask": mask}
        with pytest.raises(SteeringError, match="positions='all'"), steering(lm, v, 1.0, where):
            one_pass(lm, PROMPT, **inputs)
        with steering(lm, planted(lm)):
            one_pass(lm, PROMPT, **inputs)

    def test_a_contradiction_while_decoding(self):
        lm = shared()
        cache = new_cache(lm)
        with (
            pytest.raises(SteeringError, match="contradict"),
            steering(lm, planted(lm), 1.0, "generated"),
        ):
            passes(lm, cache, PROMPT, token(7), position_ids=torch.tensor([[3]]))

    def test_columns_given_as_positions_under_left_padding(self):
        lm = shared()
        mask = torch.tensor([[0, 0, 1, 1, 1]])
        with (
            pytest.raises(SteeringError, match="contradict"),
            steering(lm, planted(lm), 1.0, "generated"),
        ):
            one_pass(lm, PROMPT, attention_mask=mask, position_ids=torch.arange(5)[None])

    @pytest.mark.parametrize("told", ["mask", "mask first", "position_ids", "both"])
    @pytest.mark.parametrize("positions", BY_PLACE)
    def test_padding_is_known_however_it_is_told(self, positions, told):
        lm = shared()
        ids = torch.cat([PROMPT, torch.tensor([[2, 2, 9, 8, 7]])])
        mask = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]])
        cache = new_cache(lm)
        with steering(lm, planted(lm), 1.0, positions), watching(lm.model) as watch:
            for end in (5, 6, 7):
                whole = torch.cat([mask, torch.ones(2, end - 5, dtype=torch.long)], dim=1)
                places = (whole.cumsum(-1) - 1).clamp(min=0)
                first = 0 if end == 5 else end - 1
                inputs = {}
                if told in ("mask", "both") or (told == "mask first" and end == 5):
                    inputs["attention_mask"] = whole
                if told in ("position_ids", "both"):
                    inputs["position_ids"] = places[:, first:]
                one_pass(lm, ids if end == 5 else torch.tensor([[7], [7]]), cache, **inputs)
        long, short = by_row(watch), by_row(watch, 1)
        assert long == [due(positions, 5, *span) for span in ((0, 5), (5, 6), (6, 7))]
        assert short[0][2:] == due(positions, 3, 0, 3)
        assert short[1:] == long[1:]

    @pytest.mark.parametrize("rows", [1, 3])
    def test_a_mask_of_other_rows_is_refused(self, rows):
        lm = shared()
        mask = torch.tensor([[0, 0, 1, 1, 1]]).expand(rows, -1)
        with (
            pytest.raises(SteeringError, match=f"2 rows and the attention_mask {rows}"),
            steering(lm, planted(lm), 1.0, "prompt"),
        ):
            one_pass(lm, PROMPT.expand(2, -1), attention_mask=mask)

    def test_one_mask_without_padding_is_that_of_all_rows(self):
        lm = shared()
        with steering(lm, planted(lm), 1.0, "generated"), watching(lm.model) as watch:
            one_pass(lm, PROMPT.expand(2, -1), attention_mask=torch.ones(1, 5).long())
        assert by_row(watch, 1) == [due("generated", 5, 0, 5)]

    def test_a_mask_that_covers_too_little_is_refused(self):
        lm = tiny_lm()
        assert lm.identity
        inner = lm.model.model
        inner.forward = lambda input_ids, **_: inner.layers[2](torch.zeros(1, 1, 32))
        cache = new_cache(lm)
        cache.update(torch.zeros(1, 2, 5, 8), torch.zeros(1, 2, 5, 8), 0)
        with (
            pytest.raises(SteeringError, match="covers 1 of 6"),
            steering(lm, planted(lm), 1.0, "generated"),
        ):
            inner(
                input_ids=torch.tensor([[7]]),
                attention_mask=torch.ones(1, 1, dtype=torch.long),
                past_key_values=cache,
            )


class TestReordered:
    IDS = torch.cat([PROMPT, torch.tensor([[2, 2, 9, 8, 7]])])
    MASK = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]])

    def go_on(self, lm, order):
        cache = new_cache(lm)
        one_pass(lm, self.IDS, cache, attention_mask=self.MASK)
        cache.batch_select_indices(torch.tensor(order))
        for end in (6, 7):
            later = torch.ones(2, end - 5, dtype=torch.long)
            mask = torch.cat([self.MASK[order], later], dim=1)
            one_pass(lm, torch.tensor([[7], [7]]), cache, attention_mask=mask)

    @pytest.mark.parametrize("order", [[1, 0], [0, 0], [1, 1]])
    @pytest.mark.parametrize(("positions", "rows"), [("prompt", None), ("all", (0,))])
    def test_rows_that_changed_places_in_the_cache_are_refused(self, positions, rows, order):
        lm = shared()
        with (
            pytest.raises(SteeringError, match="were they reordered"),
            steering(lm, Injection(planted(lm), 1.0, positions, rows=rows)),
        ):
            self.go_on(lm, order)

    def test_the_audit_knows_no_rows_then_and_all_are_steered(self):
        lm = shared()
        with steering(lm, planted(lm), audit=True) as applied, watching(lm.model) as watch:
            self.go_on(lm, [1, 0])
        assert "were they reordered" in applied.audit.problem
        assert all(added.all() for added in watch.added(2))

    def test_new_tokens_that_are_padding_are_no_other_row(self):
        lm = shared()
        cache = new_cache(lm)
        mask = self.MASK
        with steering(lm, planted(lm), 1.0, "continuation"), watching(lm.model) as watch:
            one_pass(lm, self.IDS, cache, attention_mask=mask)
            for real in ([1, 0], [1, 0], [1, 1]):
                mask = torch.cat([mask, torch.tensor(real)[:, None]], dim=1)
                one_pass(lm, torch.tensor([[7], [7]]), cache, attention_mask=mask)
        assert by_row(watch, 1)[1:] == [[False], [False], [True]]


def select_and_go_on(lm, ids, cache):
    one_pass(lm, ids, cache)
    cache.batch_select_indices(torch.tensor([1]))
    one_pass(lm, token(7), cache)


class TestRowsArePrompts:
    IDS = torch.tensor([[1, 40, 77, 12, 205], [1, 8, 250, 31, 31]])

    def generate(self, lm, ids=None, **options):
        ids = self.IDS if ids is None else ids
        mask = torch.ones_like(ids)
        return lm.model.generate(ids, attention_mask=mask, max_new_tokens=4, **options)

    @pytest.mark.parametrize("use_cache", [True, False])
    @pytest.mark.parametrize(
        "options",
        [
            {"num_beams": 2},
            {"num_beams": 3, "num_return_sequences": 2},
            {"num_return_sequences": 2, "do_sample": True},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("positions", ["all", *BY_PLACE])
    def test_beams_and_return_sequences_are_of_their_prompt(self, options, positions, use_cache):
        lm = shared()
        copies = options.get("num_beams", 2)
        injection = Injection(planted(lm), 1.0, positions, rows=(1,))
        with steering(lm.model, injection), watching(lm.model) as watch:
            self.generate(lm, use_cache=use_cache, **options)
        for step, added in enumerate(watch.added(2)):
            first = 4 + step if use_cache and step else 0
            assert not added[:copies].any()
            for row in added[copies:]:
                assert row.tolist() == due(positions, 5, first, 5 + step)

    def test_equal_prompts_are_still_two(self):
        lm = shared()
        with (
            steering(lm.model, Injection(planted(lm), rows=(1,))),
            watching(lm.model) as watch,
        ):
            self.generate(lm, self.IDS[[0, 0]])
            one_pass(lm, self.IDS[[0, 0]])
        assert all(not added[0].any() and added[1].all() for added in watch.added(2))

    def test_rows_beyond_the_prompts_are_refused_under_beams_too(self):
        lm = shared()
        with (
            pytest.raises(SteeringError, match=r"row 2 .* 2 rows, one for each prompt"),
            steering(lm.model, Injection(planted(lm), rows=(2,))),
        ):
            self.generate(lm, num_beams=3)

    def test_prompt_lengths_are_those_of_the_prompts(self):
        lm = shared()
        mask = torch.tensor([[1] * 5, [0, 0, 1, 1, 1]])
        with (
            steering(lm.model, planted(lm), 1.0, "continuation", prompt_length=[5, 3]),
            watching(lm.model) as watch,
        ):
            lm.model.generate(self.IDS, attention_mask=mask, max_new_tokens=4, num_beams=2)
        first, *rest = watch.added(2)
        assert not first.any()
        assert all(added.all() for added in rest)

    def test_a_generate_of_the_models_own_is_refused(self):
        lm = tiny_lm()
        v = planted(lm)

        def generate(self, ids):
            return self(torch.cat([ids, ids]))  # the guided half comes first

        model = lm.model
        model.__class__ = type("Own", (type(model),), {"generate": generate})
        with (
            pytest.raises(SteeringError, match="generate of its own"),
            steering(model, Injection(v, rows=(0,)), allow_other_weights=True),
        ):
            model.generate(self.IDS)

    def test_rows_that_left_the_batch(self):
        lm = shared()
        cache = new_cache(lm)
        with (
            pytest.raises(SteeringError, match="which row"),
            steering(lm, Injection(planted(lm), 1.0, "generated", rows=(1,))),
        ):
            select_and_go_on(lm, self.IDS, cache)

    def test_rows_that_were_repeated_in_the_cache(self):
        lm = shared()
        cache = new_cache(lm)
        with (
            steering(lm, Injection(planted(lm), 1.0, "generated", rows=(1,))),
            watching(lm.model) as watch,
        ):
            one_pass(lm, self.IDS, cache)
            cache.batch_repeat_interleave(2)
            one_pass(lm, torch.tensor([[7], [8], [7], [8]]), cache)
        assert watch.added(2)[1].tolist() == [[False], [False], [True], [True]]


class TestChunks:
    @pytest.mark.parametrize("positions", ["prompt", "continuation"])
    @pytest.mark.parametrize("size", [2, 3, 4, 7])
    def test_a_last_chunk_of_one_token_is_still_prompt(self, positions, size):
        lm = shared()
        with steering(lm.model, planted(lm), 1.0, positions), watching(lm.model) as watch:
            lm.model.generate(
                OTHER,
                attention_mask=torch.ones_like(OTHER),
                max_new_tokens=3,
                prefill_chunk_size=size,
            )
        assert [flag for row in by_row(watch) for flag in row] == due(positions, 8, 0, 10)

    def test_the_rest_of_a_cached_prompt_is_prompt(self):
        lm = shared()
        cache = new_cache(lm)
        one_pass(lm, OTHER[:, :7], cache)
        with steering(lm.model, planted(lm), 1.0, "continuation"), watching(lm.model) as watch:
            lm.model.generate(
                OTHER,
                attention_mask=torch.ones_like(OTHER),
                max_new_tokens=3,
                **{cache_argument(lm.model): copy.deepcopy(cache)},
            )
        assert by_row(watch) == [[False], [True], [True]]


class TestPromptLength:
    @pytest.mark.parametrize("given", [-1, [3, -2], 2.5, [], "five", [[3]]])
    def test_it_is_a_number_of_tokens(self, given):
        lm = shared()
        with pytest.raises(BadOption, match="prompt_length"):
            steering(lm, planted(lm), 1.0, "prompt", prompt_length=given).__enter__()

    @pytest.mark.parametrize("given", [3, 9, [4]])
    @pytest.mark.parametrize("positions", ["all", *BY_PLACE])
    def test_one_that_contradicts_the_prompt_of_generate(self, given, positions):
        lm = shared()
        with (
            pytest.raises(SteeringError, match="contradicts"),
            steering(lm, planted(lm), 1.0, positions, prompt_length=given),
        ):
            lm.generate("abcde", max_new_tokens=6)

    def test_one_that_no_sequence_reaches(self):
        lm = shared()
        cache = new_cache(lm)
        with (
            pytest.raises(SteeringError, match="contradicts"),
            steering(lm, planted(lm), 1.0, "prompt", prompt_length=20),
        ):
            passes(lm, cache, PROMPT, token(7))

    def test_the_other_branch_of_guidance_has_another_length(self):
        lm = shared()
        with (
            pytest.raises(SteeringError, match="contradicts"),
            steering(lm.model, planted(lm), 1.0, "continuation", prompt_length=5),
        ):
            lm.model.generate(
                PROMPT, guidance_scale=1.5, negative_prompt_ids=OTHER, max_new_tokens=4
            )


class TestBlocks:
    @pytest.mark.parametrize("change", ["append", "insert", "replace", "drop"])
    def test_blocks_that_change_inside_are_refused(self, change):
        lm = tiny_lm()
        v, layers = planted(lm), lm.model.model.layers
        changes = {
            "append": lambda: layers.append(copy.deepcopy(layers[0])),
            "insert": lambda: layers.insert(0, copy.deepcopy(layers[0])),
            "replace": lambda: layers.__setitem__(2, copy.deepcopy(layers[2])),
            "drop": lambda: layers.__delitem__(3),
        }
        with pytest.raises(SteeringError, match="blocks were changed"), steering(lm, v):
            changes[change](), one_pass(lm, PROMPT, use_cache=False)

    def test_blocks_that_changed_before_are_refused(self):
        lm = tiny_lm()
        v = planted(lm)
        lm.model.model.layers.append(copy.deepcopy(lm.model.model.layers[0]))
        with pytest.raises(SteeringError, match="load it anew"):
            steering(lm, v).__enter__()
