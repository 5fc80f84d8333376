"""Prompts in turns: what is tokenized, which tokens are read, and that recipes replay it."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest

from steerlab import LanguageModel
from steerlab.core.prompts import Turns
from steerlab.core.recipe import Contrast, recipe_from_json, recipe_to_json
from steerlab.errors import BadPrompts, CorruptPayload, ModelError
from steerlab.extraction.methods import difference_of_means, mean_difference
from steerlab.files.contrast import read_pairs
from steerlab.models import recording
from tests.tiny import tiny_lm, tiny_tokenizer
from tests.watching import shared

QUESTION = "Do you like tea?\n (A) yes\n (B) no"
CAA = [
    (Turns(QUESTION, answer="(A)"), Turns(QUESTION, answer="(B)")),
    (Turns("And rain?", "be kind", "(B)"), Turns("And rain?", "be kind", "(A)")),
]

SYSTEMS = [
    (Turns("How are you?", "be kind", "Well"), Turns("How are you?", "be cruel", "Go away")),
    (Turns("And now?", "be warm", "Still well"), Turns("And now?", "be cold", "Leave")),
]


def pairs_for(read):
    """Pairs that differ in what is read."""
    return SYSTEMS if read == "user_last" else CAA


def text_read(prompt, read, *, chat=True):
    """The tokens that are read, as text."""
    lm = shared()
    ids = lm.tokens(prompt, chat=chat)
    return lm.tokenizer.decode(ids[slice(*lm.span(prompt, read, chat=chat))])


def test_the_answer_goes_on_after_the_template():
    lm = shared()
    prompt = Turns("hi", "be kind", "(A)")
    assert lm.tokenizer.decode(lm.tokens(prompt, chat=True)) == "<s>system:be kind<s>user:hi|(A)"


@pytest.mark.parametrize(
    ("turns", "text"),
    [
        (Turns("hi"), "hi"),
        (Turns("hi", answer="(A)"), "hi\n(A)"),
        (Turns("hi", answer=" Yes"), "hi Yes"),
        (Turns("hi\n", answer="Yes"), "hi\nYes"),
        (Turns("hi", "be kind", "Yes"), "be kind\n\nhi\nYes"),
    ],
)
def test_without_a_template_turns_are_paragraphs(turns, text):
    lm = shared()
    assert lm.tokenizer.decode(lm.tokens(turns)) == text


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize(
    ("read", "prompt", "text"),
    [
        ("user_last", Turns("hi you", answer="(A)"), "u"),
        ("user_last", Turns("hi you ", "you"), "u"),
        ("user_last", "hello", "o"),
        ("assistant_mean", Turns("hi", answer="I am well"), "I am well"),
        ("answer_letter", Turns("hi", answer="(B)"), "B"),
        ("answer_letter", Turns("hi", answer=" B) no"), "B"),
        ("answer_letter", Turns("hi", answer="The choice is (B) no"), "B"),
        ("answer_letter", Turns("hi", answer="I think (B)"), "B"),
        ("answer_letter", Turns("hi", answer="**B**"), "B"),
        ("answer_letter", Turns("hi", answer="B\nI like it"), "B"),
    ],
)
def test_the_tokens_that_are_read(read, prompt, text, chat):
    assert text_read(prompt, read, chat=chat) == text


def test_a_token_across_two_turns_is_read():
    """A tokenizer that merges the letter with its bracket, the answer with what is before."""
    from tokenizers import Tokenizer

    spec = json.loads(tiny_tokenizer().backend_tokenizer.to_str())
    spec["pre_tokenizer"]["use_regex"] = False
    for number, merge in enumerate((["(", "A"], ["|", "I"])):
        spec["model"]["vocab"]["".join(merge)] = 290 + number
        spec["model"]["merges"].append(merge)
    tokenizer = copy.deepcopy(tiny_tokenizer())
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(spec))
    lm = LanguageModel(shared().model, tokenizer, source="merging")
    for prompt, read, text in (
        (Turns("hi", answer="(A)"), "answer_letter", "(A"),
        (Turns("hi", answer="I am"), "assistant_mean", "|I am"),
    ):
        ids = lm.tokens(prompt, chat=True)
        assert tokenizer.decode(ids[slice(*lm.span(prompt, read, chat=True))]) == text


@pytest.mark.parametrize("words", ["|", "s", "hi|", " hi "])
def test_words_of_the_user_that_the_template_has_too(words):
    lm = shared()
    prompt = Turns(words, "be kind", "(A)")
    end = lm.span(prompt, "user_last", chat=True)[1]
    told = lm.tokenizer.decode(lm.tokens(prompt, chat=True)[:end])
    assert told.rstrip() == f"<s>system:be kind<s>user:{words}".rstrip()


@pytest.mark.parametrize("answer", ["I think so", "A good one", "I'd say yes"])
def test_words_are_no_answer_letters(answer):
    with pytest.raises(BadPrompts, match="no answer letter"):
        shared().span(Turns("hi", answer=answer), "answer_letter", chat=True)


@pytest.mark.parametrize("read", ["user_last", "assistant_mean", "answer_letter", "last", "mean"])
@pytest.mark.parametrize("chat", [True, False])
def test_the_vector_is_that_of_the_tokens_one_by_one(read, chat):
    lm = shared()
    made = lm.extract(pairs_for(read), layers=[1, 3], read=read, chat=chat)
    for b in (1, 3):
        found = []
        for prompt in made.recipe.prompts:
            ids = lm.tokens(prompt, chat=chat)
            whole = recording.record(lm.model, lm.blocks, ids, [b])[b].double().numpy()
            span = {"last": (len(ids) - 1, len(ids)), "mean": (1, len(ids))}.get(read)
            found.append(whole[slice(*(span or lm.span(prompt, read, chat=chat)))].mean(axis=0))
        expected = mean_difference(np.stack(found[:2]), np.stack(found[2:]))
        np.testing.assert_allclose(made.directions[b][0], expected, atol=2e-5)


def test_spans_within_a_shared_beginning_are_read():
    lm = shared()
    head = list(range(10, 40))
    prompts = [[*head, 50 + i, 60 + i] for i in range(6)]
    spans = [(3, 8), (3, 8), (0, 1), (28, 32), (30, 31), (1, 32)]
    found = lm.read_tokens(prompts, [2], spans).values[2]
    for ids, span, values in zip(prompts, spans, found, strict=True):
        whole = recording.record(lm.model, lm.blocks, ids, [2])[2].double().numpy()
        np.testing.assert_allclose(values, whole[slice(*span)].mean(axis=0), atol=2e-5)


class TestRecipes:
    def test_they_survive_json(self):
        recipe = shared().extract(CAA, read="answer_letter", chat=True).recipe
        assert recipe.spans
        assert recipe_from_json(json.loads(json.dumps(recipe_to_json(recipe)))) == recipe
        assert recipe.pairs == tuple(CAA)

    def test_plain_prompts_have_the_json_of_earlier_versions(self):
        recipe = Contrast.of(["a"], ["b"])
        assert recipe == Contrast(("a",), ("b",))
        later = {"systems", "answers", "spans", "prompt_set"}
        assert not later & recipe_to_json(recipe).keys()

    @pytest.mark.parametrize("read", ["user_last", "assistant_mean", "answer_letter"])
    def test_they_replay_under_another_tokenizer_and_template(self, read):
        lm = tiny_lm()
        made = lm.extract(pairs_for(read), read=read, chat=True)
        other = copy.deepcopy(tiny_tokenizer())
        other.chat_template = "{% for m in messages %}{{ m['content'] }}!{% endfor %}"
        again = LanguageModel(lm.model, other, source="tiny").reextract(made.recipe, made.layers)
        assert again.digest == made.digest

    def test_the_ids_that_were_read_are_told(self):
        recipe = shared().extract(CAA, read="answer_letter", chat=True).recipe
        assert shared().tokenizer.decode([ids[0] for ids in recipe.ids_read]) == "ABBA"

    @pytest.mark.parametrize("spans", [(), ((0, 0),) * 4, ((5, 999),) * 4, ((3,),) * 4])
    def test_places_that_can_not_be_are_refused(self, spans):
        from dataclasses import replace

        recipe = shared().extract(CAA, read="answer_letter", chat=True).recipe
        with pytest.raises((BadPrompts, CorruptPayload)):
            shared().reextract(replace(recipe, spans=spans), 1)


class TestRefusals:
    @pytest.mark.parametrize("read", ["assistant_mean", "answer_letter"])
    def test_prompts_without_an_answer(self, read):
        with pytest.raises(BadPrompts, match="needs an answer in every prompt"):
            shared().extract([("a", "b")], read=read)
        with pytest.raises(BadPrompts, match="answer"):
            shared().extract([(Turns("a", answer="(A)"), Turns("a"))], read=read)

    def test_an_answer_without_a_letter(self):
        with pytest.raises(BadPrompts, match="no answer letter"):
            shared().extract([(Turns("a", answer="yes"), Turns("a", answer="no"))],
                             read="answer_letter")  # fmt: skip

    def test_a_template_that_leaves_the_system_prompt_out(self):
        tokenizer = copy.deepcopy(tiny_tokenizer())
        tokenizer.chat_template = "{% for m in messages %}{% if m['role'] == 'user' %}"\
            "{{ m['content'] }}{% endif %}{% endfor %}"  # fmt: skip
        lm = LanguageModel(shared().model, tokenizer, source="deaf")
        with pytest.raises(ModelError, match="leaves out the system prompt"):
            lm.tokens(Turns("hi", "be kind"), chat=True)
        assert lm.tokens(Turns("hi"), chat=True)

    def test_equal_turns(self):
        with pytest.raises(BadPrompts, match="are the same"):
            shared().extract([(CAA[0][0], CAA[0][0])])


class TestUnpaired:
    UP, DOWN = ("I love this", "so good", "a fine day"), ("I hate it", "bad")

    def test_the_difference_of_means_of_sets_of_different_sizes(self):
        lm = shared()
        made = lm.reextract(Contrast(self.UP, self.DOWN, "difference_of_means"), [2])
        read = [lm.read_tokens([lm.tokens(t) for t in side], [2], "last").values[2]
                for side in (self.UP, self.DOWN)]  # fmt: skip
        expected = read[0].mean(axis=0) - read[1].mean(axis=0)
        np.testing.assert_allclose(made.directions[2][0], expected, atol=2e-5)
        assert set(made.diagnostics[2]) == {"separability"}
        assert str(made.recipe).startswith("3 against 2 prompts, difference_of_means")
        assert made.recipe.pairs == ()

    def test_equal_sizes_give_the_mean_difference(self):
        rng = np.random.default_rng(0)
        positive, negative = rng.standard_normal((2, 7, 5))
        np.testing.assert_allclose(
            difference_of_means(positive, negative), mean_difference(positive, negative)
        )

    @pytest.mark.parametrize("method", ["mean_difference", "pca", "probe", "mean_centred"])
    def test_other_methods_take_pairs(self, method):
        with pytest.raises(BadPrompts, match=r"read as pairs.*difference_of_means"):
            shared().reextract(Contrast(self.UP, self.DOWN, method), [2])

    def test_separability_leaves_each_prompt_out(self):
        from steerlab.extraction.methods import auc, diagnose_sets

        rng = np.random.default_rng(1)
        up, down = rng.standard_normal((6, 4)), rng.standard_normal((9, 4)) + 0.5
        above = [x @ (np.delete(up, i, 0).mean(0) - down.mean(0)) for i, x in enumerate(up)]
        below = [x @ (up.mean(0) - np.delete(down, i, 0).mean(0)) for i, x in enumerate(down)]
        expected = auc(np.array(above), np.array(below))
        assert diagnose_sets(up, down) == {"separability": pytest.approx(expected)}


@pytest.mark.smollm2
@pytest.mark.parametrize(
    ("name", "read", "texts"),
    [
        ("caa.json", "answer_letter", ["A", "B", "B", "A"]),
        ("model_written_evals.jsonl", "assistant_mean", [" Yes", " No", " No", " Yes"]),
        ("persona_vectors.json", "user_last", ["?", "?", ".", "?", "?", "."] * 2),
    ],
)
def test_on_the_embedded_model_and_its_template(smollm2, name, read, texts):
    found = read_pairs(Path(__file__).parents[1] / "files" / "contrast" / name)
    recipe = Contrast.of(found.positive, found.negative, read=read, chat=True)
    made = smollm2.reextract(recipe, 15)
    read_of_each = [smollm2.tokenizer.decode(list(ids)) for ids in made.recipe.ids_read]
    assert sorted(read_of_each) == sorted(texts)
    assert smollm2.reextract(made.recipe, 15) == made
