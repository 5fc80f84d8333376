"""Likelihoods under steering against the slow way, on several architectures."""

from __future__ import annotations

import copy
import json
import math

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from steerlab import Injection, LanguageModel, steering
from steerlab.core.setting import Setting, is_front
from steerlab.errors import BadOption, BadPrompts, Cancelled, ModelError, SteeringError
from steerlab.evaluation.metrics import passes
from steerlab.evaluation.metrics.items import (
    Continuation,
    ContrastItem,
    Fact,
    continuation,
    contrast,
    items_of_pairs,
)
from steerlab.evaluation.metrics.likelihood import (
    perplexities,
    perplexity_ratio,
    propensity,
    token_log_probs,
)
from steerlab.evaluation.metrics.predictions import answer_ranks, divergence, single_token
from steerlab.evaluation.metrics.texts import distinct, longest_run
from steerlab.interventions.runtime import TransformersRuntime
from tests.evaluation import slow
from tests.tiny import tiny_lm, tiny_tokenizer
from tests.watching import hooks_on, planted, shared

ARCHITECTURES = ["llama", "gpt2", "gemma2", "mistral_sliding", "opt", "bloom", "phi3"]
ITEMS = [("Hi", " there, you"), ("A longer prompt, it is", "!"), ("One", " two three four five")]
PROMPTS = ["Hi", "A longer prompt, it is", "One"]
CLOSE = {"abs": 1e-4, "rel": 1e-4}
BOS = 1


def settings_of(lm) -> list[Setting]:
    """Different vectors, layers and strengths, all in one batch."""
    near, far = planted(lm, 1, seed=1), planted(lm, 2, 3, seed=2)
    return [Setting(), Setting(near, 1.5), Setting(far, -0.7), Setting(near, 0.0), Setting(far, 2)]


def continuation_log_probs(lm, items, settings, *, chat=False, **how):
    """log p of each continuation, summed over its tokens: (n_settings, n_items)."""
    bos = is_front(settings)
    split = [continuation(lm, *item, chat=chat, bos=bos) for item in items]
    found = token_log_probs(lm, split, settings, **how)
    sums = [[logs.sum() for logs in row] for row in found]
    return np.array(sums).reshape(len(settings), len(split))


def tokens(prompt: str, text: str = "") -> tuple[list[int], int]:
    """The tiny tokenizer's ids are bytes, so that prompt and text stay apart."""
    lm = shared()
    whole = lm.tokenizer(prompt + text)["input_ids"]
    return whole, len(lm.tokenizer(prompt)["input_ids"])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_continuation_is_as_likely_as_alone(architecture):
    lm = shared(architecture)
    settings = settings_of(lm)
    found = continuation_log_probs(lm, ITEMS, settings)
    for s, setting in enumerate(settings):
        for i, item in enumerate(ITEMS):
            ids, start = tokens(*item)
            expected = slow.scored(architecture, ids, start, setting)
            assert found[s, i] == pytest.approx(expected.sum(), **CLOSE)
    assert (found[3] == found[0]).all()
    assert not hooks_on(lm.model)


@pytest.mark.parametrize("positions", ["all", "prompt", "generated", "continuation"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_positions_are_those_of_generation(architecture, positions):
    lm = shared(architecture)
    settings = settings_of(lm)
    found = continuation_log_probs(lm, ITEMS, settings, positions=positions)
    for s, setting in enumerate(settings):
        for i, item in enumerate(ITEMS):
            expected = slow.scored(architecture, *tokens(*item), setting, positions).sum()
            assert found[s, i] == pytest.approx(expected, **CLOSE)
    single = found[:, 1]  # one token, predicted before anything is continued
    assert (single == single[0]).all() == (positions == "continuation")


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_a_front_vector_and_its_baseline_both_begin_with_bos(architecture):
    lm = shared(architecture)
    settings = [Setting(), Setting(planted(lm, 2, rows=3), 1.0), Setting(planted(lm, 1), 1.0)]
    items = [("Hello", " there"), ("What", " is it?")]
    found = continuation_log_probs(lm, items, settings)
    for s, setting in enumerate(settings):
        for i, item in enumerate(items):
            ids, start = tokens(*item)
            expected = slow.scored(architecture, [BOS, *ids], start + 1, setting).sum()
            assert found[s, i] == pytest.approx(expected, **CLOSE)


def test_a_prompt_shorter_than_a_front_vector_is_refused_as_in_generation():
    lm = shared()
    with pytest.raises(SteeringError, match="longer prompt"):
        continuation_log_probs(lm, [("a", "bcdefgh")], [Setting(planted(lm, rows=4), 1.0)])


def test_it_agrees_with_a_left_padded_batch_of_transformers_own():
    lm = shared("gpt2")
    setting = Setting(planted(lm, 2), 1.2)
    found = continuation_log_probs(lm, ITEMS, [setting])[0]
    split = [tokens(*item) for item in ITEMS]
    width = max(len(ids) for ids, _ in split)
    ids = torch.tensor([[2] * (width - len(i)) + i for i, _ in split])
    mask = torch.tensor([[0] * (width - len(i)) + [1] * len(i) for i, _ in split])
    place = (mask.cumsum(-1) - 1).clamp(min=0)
    with steering(lm, setting.vector, 1.2), torch.no_grad():
        logits = lm.model(input_ids=ids, attention_mask=mask, position_ids=place).logits
    logs = torch.log_softmax(logits.double(), -1)
    for row, (i, start) in enumerate(split):
        columns = range(width - len(i) + start, width)
        total = sum(float(logs[row, c - 1, ids[row, c]]) for c in columns)
        assert found[row] == pytest.approx(total, **CLOSE)


def test_in_a_chat_the_answer_follows_the_templates_opening():
    lm = shared()
    setting = Setting(planted(lm, 2), 1.0)
    found = continuation_log_probs(lm, [("Hi", "ho")], [setting], chat=True, positions="generated")
    before, after = lm.tokens("Hi", chat=True), lm.tokenizer("ho")["input_ids"]
    expected = slow.scored("llama", [*before, *after], len(before), setting, "generated").sum()
    assert before.count(BOS) == 1
    assert found[0, 0] == pytest.approx(expected, **CLOSE)


@pytest.mark.parametrize("room", [300, 900])
def test_small_memory_changes_nothing(monkeypatch, room):
    lm = shared()
    settings = settings_of(lm)
    whole = continuation_log_probs(lm, ITEMS, settings, positions="generated")
    ratio = perplexity_ratio(lm, ["some text", "more"], settings).each
    monkeypatch.setitem(passes._LOGITS, "cpu", room)  # one or three columns at a time
    monkeypatch.setitem(passes._TOKENS, "cpu", 20)
    again = continuation_log_probs(lm, ITEMS, settings, positions="generated")
    assert again == pytest.approx(whole, **CLOSE)
    assert perplexity_ratio(lm, ["some text", "more"], settings).each == pytest.approx(ratio)


def test_no_pass_ever_holds_more_logits_than_allowed(monkeypatch):
    lm = shared()
    seen = []
    handle = lm.model.get_output_embeddings().register_forward_hook(
        lambda module, args, output: seen.append(output.numel())
    )
    monkeypatch.setitem(passes._LOGITS, "cpu", 3000)
    token_log_probs(lm, [Continuation(tuple(range(3, 63)), 1)] * 2, settings_of(lm))
    handle.remove()
    assert max(seen) <= 3000


def test_equal_rows_are_computed_once():
    lm = shared()
    rows = []
    handle = lm.blocks[0].register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(args[0] if args else kwargs["hidden_states"])),
        with_kwargs=True,
    )
    vector = planted(lm)
    continuation_log_probs(
        lm,
        [("a", "b")] * 5,
        [Setting(), Setting(vector, 0), Setting(vector - vector, 1), Setting(vector, 1)],
    )
    handle.remove()
    assert sum(rows) == 2


@pytest.mark.parametrize("room", [300, 2**25])
@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
def test_a_row_that_begins_another_is_read_with_it(monkeypatch, positions, room):
    """A side of one token is predicted where the prompt ends, which the other side reads too."""
    lm, rows = shared(), []
    monkeypatch.setitem(passes._LOGITS, "cpu", room)  # one column at a time, or all
    items = [ContrastItem("Hi there", "a", "bcd"), ContrastItem("One", " two", "!")]
    settings = [Setting(), Setting(planted(lm), 1), Setting(planted(lm), -1)]
    alone = [
        [
            sum(token_log_probs(lm, [side], [setting], positions=positions)[0][0])
            for side in contrast(lm, item)
        ]
        for setting in settings
        for item in items
    ]
    logits = TransformersRuntime.logits
    monkeypatch.setattr(
        TransformersRuntime,
        "logits",
        lambda self, some, **how: (rows.extend(some), logits(self, some, **how))[1],
    )
    found = propensity(lm, items, settings, positions=positions)
    np.testing.assert_allclose(found.ravel(), [one - two for one, two in alone], atol=1e-4)
    assert len({(row.ids, row.setting) for row in rows}) == len(settings) * len(items)


# where a prompt ends


def merging(*, bos: bool = False) -> LanguageModel:
    """The tiny model with a tokenizer that joins "a" and "b", and may put BOS first itself."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["model"]["merges"] = [["a", "b"]]
    state["model"]["vocab"]["ab"] = 299
    backend = Tokenizer.from_str(json.dumps(state))
    if bos:
        backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", BOS)])
    return LanguageModel(
        shared().model, PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>")
    )


def test_a_token_across_the_boundary_is_scored_whole():
    lm = merging()
    (x, c, a) = (lm.tokenizer(letter)["input_ids"][0] for letter in "xca")
    assert continuation(lm, "xa", "bc") == Continuation((x, 299, c), 1)
    assert continuation(lm, "xa", "c") == Continuation((x, a, c), 2)
    positive, negative = contrast(lm, ContrastItem("xa", "bc", "c"))
    assert positive == Continuation((x, 299, c), 1)  # both after the same context
    assert negative == Continuation((x, a, c), 1)


def test_a_tokenizers_own_bos_is_context_and_never_doubled():
    lm = merging(bos=True)
    (_, x) = lm.tokenizer("x")["input_ids"]
    for bos in (False, True):
        assert continuation(lm, "", "xx", bos=bos) == Continuation((BOS, x, x), 1)
        assert continuation(lm, "x", "x", bos=bos) == Continuation((BOS, x, x), 2)
        assert continuation(lm, (BOS, x), (x,), bos=bos) == Continuation((BOS, x, x), 2)
    assert continuation(lm, (x,), (x,), bos=True) == Continuation((BOS, x, x), 2)
    with pytest.raises(BadPrompts, match="both texts"):
        continuation(lm, "x", (x,))


# contrasts


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_a_propensity_is_the_difference_of_two_continuations(architecture):
    lm = shared(architecture)
    settings = settings_of(lm)
    items = [ContrastItem("It is", " good", " bad!"), ContrastItem("Say", " yes", " no")]
    found = propensity(lm, items, settings)
    for s, setting in enumerate(settings):
        for i, item in enumerate(items):
            sides = [
                slow.scored(architecture, *tokens(item.prompt, text), setting).sum()
                for text in (item.positive, item.negative)
            ]
            assert found[s, i] == pytest.approx(sides[0] - sides[1], **CLOSE)


def test_pairs_become_items_at_their_first_difference():
    lm = shared()
    pairs = [("I love it", "I hate it"), ("good", "bad"), ("yes", "yes, yes")]
    items = items_of_pairs(lm, pairs)
    said = [
        [lm.tokenizer.decode(list(t)) for t in (i.prompt, i.positive, i.negative)] for i in items
    ]
    assert said[0] == ["I ", "love it", "hate it"]
    assert said[1] == ["", "good", "bad"]
    assert said[2] == ["ye", "s", "s, yes"]  # something is left to score of either
    found = propensity(lm, items, [Setting()])
    good, bad = (tokens("", text)[0] for text in ("good", "bad"))
    sides = [slow.scored("llama", [BOS, *ids], 1, Setting()).sum() for ids in (good, bad)]
    assert found[0, 1] == pytest.approx(sides[0] - sides[1], **CLOSE)


def test_without_bos_the_first_tokens_are_context():
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer.bos_token = None
    lm = LanguageModel(shared().model, tokenizer)
    (item,) = items_of_pairs(lm, [("good", "bad")])
    found = propensity(lm, [item], [Setting()])
    good, bad = (tokens("", text)[0] for text in ("good", "bad"))
    sides = [slow.scored("llama", ids, 1, Setting()).sum() for ids in (good, bad)]
    assert found[0, 0] == pytest.approx(sides[0] - sides[1], **CLOSE)


def test_pairs_that_do_not_differ_are_refused():
    with pytest.raises(BadPrompts, match="pair 2 are the same"):
        items_of_pairs(shared(), [("a", "b"), ("same", "same")])


@pytest.mark.parametrize("item", [("Hi", ""), Continuation((5, 6), 1)])
def test_nothing_to_score_is_refused(item):
    with pytest.raises(BadPrompts):
        Continuation((5, 6), 2)
    if isinstance(item, tuple):
        with pytest.raises(BadPrompts, match="no token to score"):
            continuation_log_probs(shared(), [item], [Setting()])


# the next token


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_divergence_is_that_of_the_whole_distributions(architecture):
    lm = shared(architecture)
    settings = settings_of(lm)
    found = divergence(lm, PROMPTS, settings, top=3)
    for i, prompt in enumerate(PROMPTS):
        ids, start = tokens(prompt)
        logs = [slow.log_probs(architecture, ids, s, start)[-1] for s in settings]
        for s, log in enumerate(logs):
            terms = np.exp(log) * (log - logs[0])
            assert found.nats[s, i] == pytest.approx(terms.sum(), **CLOSE)
            if settings[s].is_baseline:
                assert found.nats[s, i] == 0
                assert found.top[s][i] == ()
                continue
            top = found.top[s][i]
            expected = [lm.tokenizer.decode([token]) for token in np.argsort(-terms)[:3]]
            assert [c.token for c in top] == expected
            assert [c.nats for c in top] == pytest.approx(np.sort(terms)[::-1][:3], **CLOSE)


def test_divergence_in_parts_is_divergence(monkeypatch):
    lm, steps = shared(), []
    settings = settings_of(lm)
    whole = divergence(lm, PROMPTS, settings)
    monkeypatch.setattr("steerlab.evaluation.metrics.predictions._HELD", 600)
    parts = divergence(lm, PROMPTS, settings, progress=lambda *step: steps.append(step))
    assert parts.nats == pytest.approx(whole.nats, abs=1e-6)
    assert steps == sorted(steps)
    assert steps[-1] == (12, 12)


@pytest.mark.parametrize("measure", [divergence, answer_ranks])
def test_what_begins_after_the_next_token_can_not_act_on_it(measure):
    with pytest.raises(BadOption, match="continuation"):
        measure(shared(), [], [Setting()], positions="continuation")


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_precision_is_the_share_of_answers_among_the_likeliest(architecture):
    lm = shared(architecture)
    settings = settings_of(lm)
    facts = [Fact(prompt, answer) for prompt in PROMPTS for answer in "abcde"]
    found = answer_ranks(lm, facts, settings)
    for s, setting in enumerate(settings):
        ranks = []
        for fact in facts:
            ids, start = tokens(fact.prompt)
            log = slow.log_probs(architecture, ids, setting, start)[-1]
            answer = tokens(fact.answer)[0][0]
            ranks.append(int((log > log[answer]).sum()))
        assert found[s].tolist() == ranks


def test_an_answer_of_several_tokens_is_refused():
    lm = shared()
    facts = [Fact("x is", "y"), Fact("x is", " y")]
    with pytest.raises(BadPrompts, match="' y' to 'x is' is not a single token"):
        answer_ranks(lm, facts, [Setting()])
    assert single_token(lm, facts) == facts[:1]


def test_no_facts_have_no_ranks():
    assert answer_ranks(shared(), [], [Setting()]).shape == (1, 0)


# perplexity


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bloom"])
def test_the_ratio_is_per_token_and_leaves_out_what_is_injected(architecture, positions):
    lm = shared(architecture)
    settings = settings_of(lm)
    texts = [("Some", " text here"), ("It was a dark", " and stormy night")]
    found = perplexity_ratio(lm, texts, settings, positions=positions)
    for s, setting in enumerate(settings):
        losses, counts = [], []
        for item in texts:
            ids, start = tokens(*item)
            plain = slow.scored(architecture, ids, start, Setting())
            steered = slow.scored(architecture, ids, start, setting, positions)
            masked = positions == "prompt" and not setting.is_baseline
            loss = (plain - steered)[1 if masked else 0 :]
            losses.append(loss.sum())
            counts.append(len(loss))
        assert found.counts[s].tolist() == counts
        assert found.each[s] == pytest.approx(np.exp(np.divide(losses, counts)), **CLOSE)
    assert (found.each[[0, 3]] == 1).all()


def test_a_front_vector_is_judged_by_what_stands_behind_it():
    lm = shared()
    setting = Setting(planted(lm, 2, rows=4), 1.0)
    texts = ["Some text here", "abc"]
    found = perplexity_ratio(lm, texts, [setting, Setting()])
    ids = [BOS, *tokens(texts[0])[0]]
    difference = slow.scored("llama", ids, 1, Setting()) - slow.scored("llama", ids, 1, setting)
    assert found.each[0, 0] == pytest.approx(np.exp(difference[4:].mean()), **CLOSE)
    assert (difference[:3] != 0).any()
    assert found.counts.tolist() == [[len(ids) - 5, 0], [len(ids) - 1, 3]]
    assert math.isnan(found.each[0, 1])


def test_a_text_alone_is_scored_after_its_first_token():
    lm = shared()
    setting = Setting(planted(lm, 2), 1.0)
    ids, _ = tokens("Some text")
    difference = slow.scored("llama", ids, 1, Setting()) - slow.scored("llama", ids, 1, setting)
    found = perplexity_ratio(lm, ["Some text"], [setting])
    assert found.each[0, 0] == pytest.approx(np.exp(difference.mean()), **CLOSE)
    assert found.counts[0, 0] == len(ids) - 1


def test_the_perplexity_of_what_was_written_is_the_unsteered_models():
    lm = shared()
    vector = planted(lm, 2, norm=6)
    with steering(lm, [Injection(vector, 2.0)]):
        written = lm.generate(PROMPTS, max_new_tokens=8)
    found = perplexities(lm, PROMPTS, [c.token_ids for c in written])
    for prompt, completion, value in zip(PROMPTS, written, found, strict=True):
        ids, start = tokens(prompt)
        expected = slow.scored("llama", [*ids, *completion.token_ids], start, Setting())
        assert value == pytest.approx(np.exp(-expected.mean()), **CLOSE)
    first = perplexities(lm, PROMPTS, [c.token_ids[:3] for c in written])
    assert perplexities(lm, PROMPTS, [c.token_ids for c in written], limit=3) == pytest.approx(
        first
    )


def test_a_text_of_nothing_has_no_perplexity():
    found = perplexities(shared(), ["Hi", "Ho"], [(), (5, 6)])
    assert math.isnan(found[0])
    assert found[1] > 1
    with pytest.raises(BadOption, match="at least one token"):
        perplexities(shared(), ["Hi"], [(5, 6)], limit=0)
    with pytest.raises(BadOption, match="2 prompts for 1"):
        perplexities(shared(), ["Hi", "Ho"], [()])


def test_a_loop_passes_for_fluent_and_is_caught_by_its_repetition():
    """A model that expects newlines after newlines finds a loop of them most likely."""
    lm = tiny_lm()
    (newline,) = lm.tokenizer("\n")["input_ids"]
    words = lm.tokenizer("a dark and stormy night")["input_ids"]
    bias = torch.zeros(lm.model.config.vocab_size)
    bias[newline] = 9.0
    lm.model.get_output_embeddings().bias = torch.nn.Parameter(bias)
    loop, plain = [newline] * 23, words
    steered, unsteered = perplexities(lm, ["It was"] * 2, [loop, plain])
    assert steered / unsteered < 1.5
    written = "said . " * 12
    assert distinct(written, 2) < 0.9 * distinct("a dark and stormy night", 2)
    assert longest_run(written) > 20
    assert math.isnan(distinct("\n" * 23, 2))  # nothing is written at all


# edges


def test_it_stops_when_told_to():
    with pytest.raises(Cancelled):
        continuation_log_probs(shared(), ITEMS, [Setting()], should_stop=lambda: True)


def test_it_says_how_far_it_is(monkeypatch):
    steps = []
    monkeypatch.setitem(passes._TOKENS, "cpu", 30)
    lm = shared()
    settings = settings_of(lm)
    continuation_log_probs(lm, ITEMS, settings, progress=lambda *step: steps.append(step))
    assert len(steps) > 2
    assert steps[-1] == (15, 15)


def test_logits_that_overflow_have_no_value():
    lm = shared("gpt2")
    huge = [Setting(), Setting(planted(lm, 2, norm=1e37), 300.0)]
    assert np.isnan(continuation_log_probs(lm, ITEMS, huge)[1]).all()
    assert np.isfinite(continuation_log_probs(lm, ITEMS, huge)[0]).all()
    lost = divergence(lm, PROMPTS, huge)
    assert np.isnan(lost.nats[1]).all()
    assert lost.top[1] == ((), (), ())
    found = answer_ranks(lm, [Fact("a", "b")], huge)
    assert found[0, 0] < 300
    assert np.isnan(found[1, 0])


def test_a_head_that_is_not_where_it_says_is_refused():
    lm = tiny_lm()
    lm.model.get_output_embeddings = lambda: torch.nn.Linear(32, 300)
    with pytest.raises(ModelError, match="output embeddings"):
        continuation_log_probs(lm, ITEMS, [Setting()])


def test_inside_of_steering_there_is_no_baseline():
    lm = shared()
    with steering(lm, planted(lm, 2)):
        with pytest.raises(SteeringError, match="no baseline"):
            divergence(lm, PROMPTS, [Setting()])
        lm.generate("a", max_new_tokens=1)


def test_half_precision_is_measured_in_single():
    lm = shared("llama", torch.bfloat16)
    found = continuation_log_probs(lm, ITEMS, [Setting(planted(lm, 2), 1.0)])
    exact = continuation_log_probs(shared(), ITEMS, [Setting(planted(shared(), 2), 1.0)])
    assert found == pytest.approx(exact, rel=0.03)


def test_a_text_that_does_not_fit_is_refused():
    with pytest.raises(BadPrompts, match="does not fit"):
        perplexity_ratio(shared(), ["a" * 200], [Setting()])


def test_nothing_asked_is_nothing_answered():
    lm = shared()
    assert continuation_log_probs(lm, [], [Setting()]).shape == (1, 0)
    assert propensity(lm, [ContrastItem("a", "b", "c")], []).shape == (0, 1)
    assert divergence(lm, [], [Setting()]).nats.shape == (1, 0)
