"""From prompts to tokens: the user's words are there, whatever template and tokenizer do."""

from __future__ import annotations

import copy

import pytest
from tokenizers.processors import TemplateProcessing

from steerlab import LanguageModel
from steerlab.core.prompts import Conversation, Turns
from steerlab.errors import BadPrompts, ModelError
from tests.tiny import tiny_model, tiny_tokenizer

PARTS = (
    "{% for m in messages %}<s>{{ m['role'] }}:"
    "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}|"
)


def lm_with(template=None, adds=None):
    """A tiny model whose tokenizer has another template, or adds special tokens."""
    tokenizer = copy.deepcopy(tiny_tokenizer())
    if template is not None:
        tokenizer.chat_template = template
    if adds is not None:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=adds, special_tokens=[("<s>", 1), ("</s>", 2)]
        )
    return LanguageModel(tiny_model(), tokenizer, source="tiny")


def text_of(lm, prompt):
    return lm.tokenizer.decode(lm.tokens(prompt, chat=True))


class TestChatTemplates:
    def test_content_in_parts(self):
        lm = lm_with(PARTS)
        assert text_of(lm, "how are you") == "<s>user:how are you|"
        assert lm.tokens("one", chat=True) != lm.tokens("two", chat=True)

    @pytest.mark.parametrize(
        "check", ["raise_exception('parts, please')", "m['content'].missing.x"]
    )
    def test_one_that_fails_on_plain_text_gets_parts(self, check):
        refusing = "{% if m['content'] is string %}{{ " + check + " }}{% endif %}<s>"
        lm = lm_with(PARTS.replace("<s>", refusing))
        assert text_of(lm, "how are you") == "<s>user:how are you|"

    def test_one_that_takes_either_gets_plain_text(self):
        either = (
            "{% for m in messages %}{% if m['content'] is string %}={{ m['content'] }}"
            "{% else %}[{{ m['content'][0]['text'] }}]{% endif %}{% endfor %}|"
        )
        assert text_of(lm_with(either), "words") == "=words|"

    @pytest.mark.parametrize(
        "template",
        ["<s>user:|", "{{ messages[0]['content'] | upper }}|", "{{ messages[0]['content'][:3] }}"],
    )
    @pytest.mark.parametrize("prompt", ["some words", "s", "user"])
    def test_one_that_loses_the_words_is_refused(self, template, prompt):
        with pytest.raises(ModelError, match="leaves out or changes"):
            lm_with(template).tokens(prompt, chat=True)

    def test_white_space_at_the_ends_may_go(self):
        lm = lm_with("<s>{{ messages[0]['content'] | trim }}|")
        assert text_of(lm, "  in the middle \n") == "<s>in the middle|"

    @pytest.mark.parametrize(
        ("template", "why"),
        [
            ("{{ raise_exception('only after a system message') }}", "only after a system message"),
            ("{{ persona.name }}", "persona"),
            ("{% for m in messages %}", "endfor"),
            ({"rag": "{{ messages }}", "tool_use": "{{ messages }}"}, "default"),
        ],
    )
    def test_one_that_fails_is_said_in_a_line(self, template, why):
        with pytest.raises(ModelError, match="chat template of tiny fails") as caught:
            lm_with(template).tokens("words", chat=True)
        assert why in str(caught.value)
        assert "\n" not in str(caught.value)


SPOKEN = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }};{% endfor %}assistant:"


class TestConversations:
    def test_every_message_is_in_the_template(self):
        said = (("system", "be kind"), ("user", "hi"), ("assistant", "hello"), ("user", "why"))
        asked = Conversation(said)
        found = text_of(lm_with(SPOKEN), asked)
        assert found == "system:be kind;user:hi;assistant:hello;user:why;assistant:"

    def test_a_last_answer_is_continued(self):
        found = text_of(lm_with(SPOKEN), Conversation((("user", "hi"), ("assistant", "I am"))))
        assert found == "user:hi;assistant:I am"

    @pytest.mark.parametrize("turns", [Turns("hi"), Turns("hi", "be kind"), Turns("hi", "", "I")])
    def test_turns_are_a_short_conversation(self, turns):
        lm = lm_with(SPOKEN)
        assert lm.tokens(turns, chat=True) == lm.tokens(Conversation.of(turns), chat=True)

    def test_is_generated_from(self):
        lm, asked = lm_with(SPOKEN), Conversation((("user", "hi"),))
        made, several = lm.generate(asked, chat=True), lm.generate([asked, "hi"], chat=True)
        assert [made.text] * 2 == [one.text for one in several]
        assert str(made) == "user: hi" + made.text

    def test_outside_a_chat_is_refused(self):
        with pytest.raises(BadPrompts, match="needs the chat template"):
            lm_with(SPOKEN).tokens(Conversation((("user", "hi"),)))

    @pytest.mark.parametrize("kept", ["system", "user"])
    def test_a_template_that_drops_a_message_is_refused(self, kept):
        template = "{% for m in messages %}{% if m['role'] == 'KEPT' or loop.last %}"
        template = template.replace("KEPT", kept) + "{{ m['content'] }}{% endif %}{% endfor %}|"
        said = (("system", "be kind"), ("user", "one"), ("assistant", "hello"), ("user", "two"))
        with pytest.raises(ModelError, match="leaves out"):
            lm_with(template).tokens(Conversation(said), chat=True)

    @pytest.mark.parametrize(
        ("messages", "why"),
        [
            ((), "a message of the user"),
            ((("system", "x"), ("assistant", "y")), "a message of the user"),
            ((("user", "x"), ("tool", "y")), "message 2 is of 'tool'"),
            ((("user", None),), "message 1 is not text"),
        ],
    )
    def test_a_bad_one_is_refused(self, messages, why):
        with pytest.raises(BadPrompts, match=why):
            Conversation(messages)


class TestTokensAtTheEnd:
    @pytest.mark.parametrize("adds", ["$A </s>", "<s> $A </s>", "<s> $A </s> </s>", "<s> $A"])
    def test_they_are_not_content(self, adds):
        lm, plain = lm_with(adds=adds), lm_with()
        start = [1] if adds.startswith("<s>") else []
        for prompt in ("a prompt", "x", "ends in </s>"):
            assert lm.tokens(prompt) == [*start, *plain.tokens(prompt)]

    @pytest.mark.parametrize(("prompt", "ids"), [("<s>", [1, 1]), ("<s><s>", [1, 1, 1])])
    def test_special_tokens_that_the_user_writes_stay(self, prompt, ids):
        assert lm_with(adds="<s> $A").tokens(prompt) == ids

    def test_what_the_user_writes_stays(self):
        assert lm_with(adds="$A </s>").tokens("bye</s>")[-1] == 2

    def test_bos_alone(self):
        assert lm_with(adds="<s> $A </s>").tokens("") == [1]

    def test_texts_go_on_behind_the_prompt(self):
        with_eos, plain = lm_with(adds="$A </s>"), lm_with()
        assert with_eos.generate("once", max_new_tokens=6) == plain.generate(
            "once", max_new_tokens=6
        )

    def test_last_reads_the_last_word(self):
        with_eos, plain = lm_with(adds="$A </s>"), lm_with()
        pairs = [("so good", "so bad")]
        assert with_eos.extract(pairs, layers=2).directions[2].tolist() == (
            plain.extract(pairs, layers=2).directions[2].tolist()
        )
