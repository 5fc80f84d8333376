"""Generation: greedy is transformers' greedy, sampling is seeded row by row, text comes whole."""

from __future__ import annotations

import copy
import threading
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from steerlab import LanguageModel, steering
from steerlab.core.sampling import Sampling
from steerlab.errors import BadOption, BadPrompts
from steerlab.models.generation import GrowingText, _largest, choose
from tests.tiny import tiny_lm, tiny_model, tiny_tokenizer
from tests.watching import planted, shared

SAMPLED = {"temperature": 1.3, "top_p": 0.95, "max_new_tokens": 12}


def fresh(**settings):
    """A model of its own, so that its generation config can be set."""
    lm = tiny_lm()
    lm.model.generation_config.update(**settings)
    return lm


class TestGreedy:
    @pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3", "mixtral", "opt"])
    def test_it_is_what_transformers_writes(self, architecture):
        lm = shared(architecture)
        ids = torch.tensor([lm.tokens("what comes next")])
        expected = lm.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False
        )[0, ids.shape[1] :]
        found = lm.generate("what comes next", max_new_tokens=16)
        assert list(found.token_ids) == expected.tolist()
        assert found.text == lm.tokenizer.decode(expected, skip_special_tokens=True)

    def test_a_repetition_penalty_is_transformers_too(self):
        lm = shared()
        ids = torch.tensor([lm.tokens("again")])
        expected = lm.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=20,
            do_sample=False,
            repetition_penalty=1.7,
        )[0, ids.shape[1] :]
        found = lm.generate("again", max_new_tokens=20, repetition_penalty=1.7)
        assert list(found.token_ids) == expected.tolist()
        assert found != lm.generate("again", max_new_tokens=20)

    def test_one_prompt_gives_one_completion_and_a_list_a_list(self):
        lm = shared()
        one = lm.generate("prompt", max_new_tokens=3)
        assert lm.generate(["prompt"], max_new_tokens=3) == [one]
        assert lm.generate([]) == []
        assert str(one) == "prompt" + one.text
        assert one.prompt == "prompt"
        assert len(one.token_ids) == 3

    def test_chat(self):
        lm = shared()
        ids = lm.tokens("hello", chat=True)
        expected = lm.model.generate(
            input_ids=torch.tensor([ids]), max_new_tokens=6, do_sample=False
        )
        found = lm.generate("hello", chat=True, max_new_tokens=6)
        assert list(found.token_ids) == expected[0, len(ids) :].tolist()


class TestRowsAreIndependent:
    @pytest.mark.parametrize("penalty", [1.0, 1.5])
    @pytest.mark.parametrize("top_k", [0, 7])
    def test_neighbours_and_padding_change_nothing(self, penalty, top_k):
        lm = shared()
        prompts = ["one", "a considerably longer prompt", "</s></s>2", "four"]
        options = {**SAMPLED, "repetition_penalty": penalty, "top_k": top_k}
        batch = lm.generate(prompts, seed=[1, 2, 3, 1], **options)
        for prompt, seed, row in zip(prompts, [1, 2, 3, 1], batch, strict=True):
            assert lm.generate(prompt, seed=seed, **options) == row

    def test_the_penalty_does_not_see_padding(self):
        lm = fresh(pad_token_id=68)  # "b": what a row may well want to write
        favourite = lm.model.get_output_embeddings().weight
        with torch.no_grad():
            favourite[68] *= 3
        for prompt in ("x", "y", "zz"):
            options = {"repetition_penalty": 3.0, "max_new_tokens": 6}
            alone = lm.generate(prompt, **options)
            assert lm.generate(["a longer neighbour", prompt], **options)[1] == alone

    def test_one_seed_gives_one_text(self):
        lm = shared()
        assert lm.generate("dice", seed=3, **SAMPLED) == lm.generate("dice", seed=3, **SAMPLED)
        twins = lm.generate(["dice", "dice"], seed=3, **SAMPLED)
        assert twins[0] == twins[1]

    def test_other_seeds_give_other_texts(self):
        texts = shared().generate(["dice"] * 8, seed=list(range(8)), **SAMPLED)
        assert len({c.token_ids for c in texts}) == 8

    def test_the_global_generator_is_neither_used_nor_moved(self):
        lm = shared()
        torch.manual_seed(1)
        one = lm.generate("dice", **SAMPLED)
        state = torch.get_rng_state()
        torch.manual_seed(2)
        assert lm.generate("dice", **SAMPLED) == one
        lm.generate("dice", **SAMPLED)
        torch.manual_seed(1)
        assert torch.equal(torch.get_rng_state(), state)

    def test_a_longer_text_begins_with_the_shorter(self):
        lm = shared()
        short = lm.generate("dice", **{**SAMPLED, "max_new_tokens": 5})
        long = lm.generate("dice", **{**SAMPLED, "max_new_tokens": 15})
        assert long.token_ids[:5] == short.token_ids

    @pytest.mark.parametrize("seed", [-1, 2**64, 2**70])
    def test_any_whole_number_is_a_seed(self, seed):
        assert len(shared().generate("x", seed=seed, **SAMPLED).token_ids) == 12

    def test_numpy_integers_are_seeds(self):
        lm = shared()
        assert lm.generate("x", seed=np.int64(3), **SAMPLED) == lm.generate("x", seed=3, **SAMPLED)

    def test_a_seed_for_each_row(self):
        with pytest.raises(BadOption, match="2 seeds for 3 prompts"):
            shared().generate(["a", "b", "c"], seed=[1, 2], **SAMPLED)


def warped(logits, sampling):
    """The distribution that transformers' own warpers make of logits: (batch, vocab) float64."""
    warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    return torch.softmax(warpers(None, logits), dim=-1, dtype=torch.float64)


class TestChoose:
    settings = pytest.mark.parametrize(
        "sampling",
        [
            Sampling(temperature=t, top_k=k, top_p=p)
            for t in (0.7, 1.5)
            for k in (0, 1, 5, 40)
            for p in (1.0, 0.9, 0.3, 1e-6)
        ],
        ids=lambda s: f"t{s.temperature}-k{s.top_k}-p{s.top_p}",
    )

    def drawn(self, logits, sampling, n):
        """Tokens chosen at n evenly spaced draws."""
        draws = (torch.arange(n, dtype=torch.float64) + 0.5) / n
        logits = logits / sampling.temperature
        parts = [choose(logits.expand(len(d), -1), d, sampling) for d in draws.split(500)]
        return torch.cat(parts)

    @settings
    @pytest.mark.parametrize("vocab", [50, 1000])
    def test_its_distribution_is_that_of_the_usual_warpers(self, sampling, vocab):
        torch.manual_seed(vocab)
        logits = 3 * torch.randn(1, vocab)
        expected = warped(logits, sampling)[0]
        n = 4000
        found = torch.bincount(self.drawn(logits, sampling, n), minlength=vocab) / n
        assert set(found.nonzero().ravel().tolist()) <= set(expected.nonzero().ravel().tolist())
        # evenly spaced draws invert the distribution: each token gets its share to 1 in n
        assert (found - expected).abs().max() <= 1.01 / n

    @settings
    def test_all_of_the_support_can_be_drawn(self, sampling):
        torch.manual_seed(7)
        logits = torch.randn(1, 30)
        expected = warped(logits, sampling)[0]
        found = set(self.drawn(logits, sampling, 4000).tolist())
        assert found == set(expected.nonzero().ravel().tolist())

    def test_many_candidates_are_looked_at_in_turn(self):
        logits = torch.zeros(1, 3000)  # flat: the first few hundred hold a tenth of the mass
        logits += 1e-3 * torch.randn(1, 3000, generator=torch.Generator().manual_seed(0))
        sampling = Sampling(temperature=1.0, top_p=0.97)
        expected = warped(logits, sampling)[0]
        found = torch.bincount(self.drawn(logits, sampling, 4000), minlength=3000) / 4000
        assert not found[expected == 0].any()
        assert (found - expected).abs().max() <= 1.01 / 4000

    @pytest.mark.parametrize("top_p", [1.0, 0.9])
    @pytest.mark.parametrize("top_k", [0, 3])
    def test_the_ends_of_the_unit_interval(self, top_p, top_k):
        logits = torch.tensor([[-torch.inf, 1.0, 2.0, -torch.inf, 0.0, -torch.inf]] * 2)
        draws = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
        sampling = Sampling(temperature=1.0, top_p=top_p, top_k=top_k)
        assert set(choose(logits, draws, sampling).tolist()) <= {1, 2, 4}

    @pytest.mark.parametrize("vocab", [700, 64 * 300])
    def test_rows_are_chosen_apart(self, vocab):
        torch.manual_seed(1)
        logits, draws = torch.randn(40, vocab), torch.rand(40, dtype=torch.float64)
        logits *= torch.linspace(0.1, 20, 40)[:, None]  # flat rows need many candidates
        sampling = Sampling(temperature=1.0, top_p=0.8)
        together = choose(logits, draws, sampling)
        alone = [choose(logits[i : i + 1], draws[i : i + 1], sampling) for i in range(40)]
        assert together.tolist() == torch.cat(alone).tolist()

    @pytest.mark.parametrize("count", [1, 64, 70])
    def test_the_largest_logits_are_found_by_blocks(self, count):
        logits = torch.randn(3, 64 * 300, generator=torch.Generator().manual_seed(count))
        logits[0, :200] += 10  # all of them in a few blocks
        found, expected = _largest(logits, count), logits.topk(count, dim=-1)
        assert torch.equal(found[0], expected.values)
        assert torch.equal(found[1], expected.indices)

    def test_sampled_text_follows_the_models_distribution(self):
        lm = shared()
        n = 3000
        ids = torch.tensor([lm.tokens("loaded dice")])
        with torch.no_grad():
            logits = lm.model(input_ids=ids).logits[:, -1].float()
        sampling = Sampling(temperature=2.0, top_k=6)
        expected = warped(logits, sampling)[0]
        texts = lm.generate(
            ["loaded dice"] * n, max_new_tokens=1, temperature=2.0, top_k=6, seed=list(range(n))
        )
        counts = torch.bincount(torch.tensor([c.token_ids[0] for c in texts]), minlength=300)
        support = expected > 0
        assert not counts[~support].any()
        chi_squared = ((counts - n * expected) ** 2 / (n * expected))[support].sum()
        assert chi_squared < 25.7  # 5 degrees of freedom: once in ten thousand

    def test_repetition_penalty_is_the_usual_one(self):
        lm = shared()
        ids = torch.tensor([lm.tokens("pen pen")])
        with torch.no_grad():
            logits = lm.model(input_ids=ids).logits[:, -1].float()
        penalised = RepetitionPenaltyLogitsProcessor(2.0)(ids, logits)
        greedy = lm.generate("pen pen", max_new_tokens=1, repetition_penalty=2.0)
        assert greedy.token_ids[0] == int(penalised.argmax())


@cache
def unsettled(**options):
    """What is written where the model has no settings of its own."""
    return shared().generate("whose settings", **options)


class TestTheModelsOwnSettings:
    LEAKY = {  # noqa: RUF012
        "do_sample": True,
        "temperature": 0.3,
        "top_k": 3,
        "top_p": 0.5,
        "min_p": 0.4,
        "typical_p": 0.2,
        "epsilon_cutoff": 0.1,
        "eta_cutoff": 0.1,
        "repetition_penalty": 9.0,
        "encoder_repetition_penalty": 5.0,
        "no_repeat_ngram_size": 1,
        "bad_words_ids": [[i] for i in range(3, 200)],
        "suppress_tokens": list(range(3, 200)),
        "begin_suppress_tokens": list(range(3, 250)),
        "sequence_bias": [[[80], 50.0]],
        "forced_bos_token_id": 77,
        "forced_eos_token_id": 78,
        "min_new_tokens": 3,
        "min_length": 30,
        "exponential_decay_length_penalty": (1, 50.0),
        "max_length": 9,
        "max_time": 1e-9,
        "stop_strings": ["e", "a", "o"],
        "num_beams": 4,
        "length_penalty": 3.0,
        "early_stopping": True,
        "num_return_sequences": 1,
        "renormalize_logits": True,
        "remove_invalid_values": True,
        "guidance_scale": 2.5,
        "watermarking_config": {"bias": 9.0, "seeding_scheme": "selfhash"},
        "token_healing": True,
        "cache_implementation": "static",
        "use_cache": False,
        "prefill_chunk_size": 2,
        "prompt_lookup_num_tokens": 3,
        "return_dict_in_generate": True,
        "output_scores": True,
        "output_hidden_states": True,
        "output_attentions": True,
    }

    @pytest.mark.parametrize("options", [{}, SAMPLED], ids=["greedy", "sampled"])
    @pytest.mark.parametrize("name", LEAKY)
    def test_nothing_leaks_in(self, monkeypatch, name, options):
        lm = shared()
        expected = unsettled(**options)
        monkeypatch.setattr(lm.model.generation_config, name, self.LEAKY[name], raising=False)
        before = copy.deepcopy(lm.model.generation_config.to_dict())
        assert lm.generate("whose settings", **options) == expected
        assert lm.model.generation_config.to_dict() == before

    def test_a_row_may_end_early_whatever_the_model_says(self):
        lm = fresh(eos_token_id=list(range(300)), min_new_tokens=20)
        assert lm.generate("end").finish == "stop"
        assert len(lm.generate("end").token_ids) == 1

    def test_its_config_object_is_not_replaced(self):
        lm = fresh()
        config = lm.model.generation_config
        lm.generate("mine", **SAMPLED)
        assert lm.model.generation_config is config

    def test_a_model_without_any_ending(self):
        lm = tiny_lm()
        lm.model.generation_config = GenerationConfig()
        completions = lm.generate(["no end", "in sight at all"], max_new_tokens=30)
        assert [len(c.token_ids) for c in completions] == [30, 30]
        assert [c.finish for c in completions] == ["length", "length"]


def metaspace_tokenizer():
    """Pieces that carry their space in front, as SentencePiece writes them."""
    pieces = ["<unk>", "<s>", "</s>", "▁", *"abcdefgh", "▁ab", "▁cd", "ef", "▁gh"]
    tokenizer = Tokenizer(models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def streamed(tokenizer, prompt, tokens):
    """(pieces handed out, text of the completion) for tokens that come one by one."""
    row = GrowingText(tokenizer, prompt)
    pieces = []
    for token in tokens:
        row.add(token, False)
        pieces.append(row.new_text())
    pieces.append(row.new_text(final=True))
    return pieces, row.completion(False).text


def is_whole(piece):
    return "\ufffd" not in piece


class TestStreaming:
    @given(st.text(min_size=1, max_size=60), st.text(max_size=10))
    def test_whole_characters_of_any_text(self, text, prompt):
        tokenizer = tiny_tokenizer()
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        pieces, whole = streamed(tokenizer, before, tokens)
        assert "".join(pieces) == whole
        if not {"<s>", "</s>", "<unk>"} & {t for t in ("<s>", "</s>", "<unk>") if t in text}:
            assert whole == text
        assert all(map(is_whole, pieces)) or "\ufffd" in text

    @given(st.lists(st.integers(0, 258), max_size=70), st.lists(st.integers(3, 258), max_size=6))
    def test_any_bytes_at_all(self, tokens, prompt):
        pieces, whole = streamed(tiny_tokenizer(), prompt, tokens)
        assert "".join(pieces) == whole

    @given(st.lists(st.integers(0, 15), max_size=50), st.lists(st.integers(3, 15), max_size=6))
    def test_pieces_that_carry_their_spaces(self, tokens, prompt):
        pieces, whole = streamed(metaspace_tokenizer(), prompt, tokens)
        assert "".join(pieces) == whole

    def test_the_space_before_the_first_word_is_kept(self):
        tokenizer = metaspace_tokenizer()
        ab, cd = (tokenizer.convert_tokens_to_ids(t) for t in ("▁ab", "▁cd"))
        assert streamed(tokenizer, [ab], [cd, cd]) == ([" cd", " cd", ""], " cd cd")

    def test_pieces_come_as_soon_as_a_character_is_whole(self):
        tokenizer = tiny_tokenizer()
        tokens = tokenizer("aé€😀b")["input_ids"]
        pieces, _ = streamed(tokenizer, [], tokens)
        assert pieces == ["a", "", "é", "", "", "€", "", "", "", "😀", "b", ""]

    @pytest.mark.parametrize("options", [{}, SAMPLED, {**SAMPLED, "max_new_tokens": 50}])
    def test_pieces_add_up_to_each_rows_text(self, options):
        lm = shared()
        seen = {0: [], 1: [], 2: []}
        completions = lm.generate(
            ["one", "twenty-two", "3"],
            seed=[1, 2, 3],
            on_text=lambda row, piece: seen[row].append(piece),
            **options,
        )
        for row, completion in enumerate(completions):
            assert "".join(seen[row]) == completion.text
            assert all(seen[row])

    def test_an_error_in_the_listener_reaches_the_caller_and_leaves_no_mark(self):
        lm = shared()
        expected = lm.generate("careful")

        def broken(row, piece):
            raise LookupError(piece)

        with pytest.raises(LookupError), steering(lm, planted(lm)):
            lm.generate("careful", on_text=broken)
        assert lm.generate("careful") == expected


class TestStopping:
    @pytest.mark.parametrize("after", [1, 2, 5])
    def test_it_stops_within_two_tokens_and_the_next_one_is_right(self, after):
        lm = shared()
        whole = lm.generate("never ending", max_new_tokens=30)
        pieces = []
        stopped = lm.generate(
            "never ending",
            max_new_tokens=30,
            on_text=lambda row, piece: pieces.append(piece),
            should_stop=lambda: len(pieces) >= after,
        )
        assert stopped.finish == "cancelled"
        assert len(stopped.token_ids) <= len(whole.token_ids)
        assert whole.token_ids[: len(stopped.token_ids)] == stopped.token_ids
        assert len(pieces) <= after + 2
        assert "".join(pieces) == stopped.text
        assert lm.generate("never ending", max_new_tokens=30) == whole

    def test_at_once(self):
        stopped = shared().generate("no", should_stop=lambda: True)
        assert len(stopped.token_ids) <= 2
        assert stopped.finish == "cancelled"

    def test_steered_and_stopped_leaves_nothing_behind(self):
        lm = shared()
        plain = lm.generate("steered")
        with steering(lm, planted(lm)):
            lm.generate("steered", should_stop=lambda: True)
        assert lm.generate("steered") == plain

    def test_from_another_thread(self):
        lm = shared()
        stop = threading.Event()
        results = []
        thread = threading.Thread(
            target=lambda: results.append(
                lm.generate(
                    "thread",
                    max_new_tokens=100,
                    on_text=lambda row, piece: stop.set(),
                    should_stop=stop.is_set,
                )
            )
        )
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
        assert results[0].finish == "cancelled"

    def test_two_threads_take_turns(self):
        lm = shared()
        prompts = [f"prompt number {i}" for i in range(6)]
        expected = [lm.generate(p, max_new_tokens=6) for p in prompts]
        results = {}
        threads = [
            threading.Thread(
                target=lambda p=p: results.update({p: lm.generate(p, max_new_tokens=6)})
            )
            for p in prompts
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert [results[p] for p in prompts] == expected


class TestEnd:
    def ending(self):
        """A model, and what it greedily writes after "one": a token and its end."""
        lm = fresh()
        token_ids = lm.generate("one", max_new_tokens=2).token_ids
        lm.model.generation_config.eos_token_id = [2, token_ids[1]]
        assert token_ids[0] != token_ids[1]
        return lm, token_ids

    def test_a_row_ends_and_the_others_go_on(self):
        lm, token_ids = self.ending()
        one, other = lm.generate(["one", "a quite different prompt"], max_new_tokens=8)
        assert one.token_ids == token_ids
        assert one.finish == "stop"
        assert other == lm.generate("a quite different prompt", max_new_tokens=8)
        assert len(other.token_ids) == 8
        assert other.finish == "length"

    def test_nothing_is_streamed_after_the_end(self):
        lm, _ = self.ending()
        pieces = {0: [], 1: []}
        one, _ = lm.generate(
            ["one", "a quite different prompt"],
            max_new_tokens=8,
            on_text=lambda row, piece: pieces[row].append(piece),
        )
        assert "".join(pieces[0]) == one.text

    def test_special_tokens_are_no_text(self):
        lm = fresh()
        with torch.no_grad():
            lm.model.get_output_embeddings().weight[2] *= 0
        lm.model.generation_config.eos_token_id = 2
        row = GrowingText(lm.tokenizer, [])
        row.add(68, False)
        row.add(2, True)
        assert row.completion(False).text == lm.tokenizer.decode([68])
        assert row.completion(False).finish == "stop"


class TestRefusals:
    def test_a_prompt_that_does_not_fit(self):
        lm = shared()
        lm.generate("x" * 120, max_new_tokens=8)
        with pytest.raises(BadPrompts, match="120 tokens and 9 new ones do not fit into the 128"):
            lm.generate("x" * 120, max_new_tokens=9)
        with pytest.raises(BadPrompts, match="130 tokens"):
            lm.generate(["short", "x" * 130], max_new_tokens=1)

    def test_an_empty_prompt(self):
        with pytest.raises(BadPrompts, match="empty"):
            shared().generate(["fine", ""])

    @pytest.mark.parametrize(
        "options",
        [
            {"max_new_tokens": 0},
            {"max_new_tokens": -1},
            {"max_new_tokens": 2.5},
            {"temperature": -0.1},
            {"temperature": float("nan")},
            {"temperature": float("inf")},
            {"top_p": 0.0},
            {"top_p": 1.1},
            {"top_p": float("nan")},
            {"top_k": -1},
            {"top_k": 0.5},
            {"repetition_penalty": 0.0},
            {"repetition_penalty": -2.0},
            {"repetition_penalty": float("inf")},
        ],
        ids=str,
    )
    def test_options_outside_their_range(self, options):
        name = next(iter(options))
        with pytest.raises(BadOption, match=name):
            shared().generate("x", **options)

    def test_top_k_may_exceed_the_vocabulary(self):
        lm = shared()
        options = {**SAMPLED, "top_p": 1.0}
        assert lm.generate("k", top_k=10**6, **options).token_ids
        assert lm.generate("k", top_k=1, **options) == lm.generate("k", max_new_tokens=12)

    @pytest.mark.parametrize("temperature", [1e-4, 1e-30])
    def test_a_tiny_temperature_is_greedy(self, temperature):
        lm = shared()
        assert lm.generate("cold", temperature=temperature) == lm.generate("cold")


def test_a_plain_transformers_model_can_be_wrapped():
    lm = LanguageModel(tiny_model(), tiny_tokenizer)
    assert lm.generate("wrapped", max_new_tokens=4) == shared().generate(
        "wrapped", max_new_tokens=4
    )
    assert "4 layers of 32" in repr(lm)
