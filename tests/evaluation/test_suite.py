"""Suites: the built-in one, and files with what is wrong in them."""

from __future__ import annotations

import json

import pytest

from steerlab.errors import BadPrompts, NotFound
from steerlab.evaluation.generalization.suite import combined, suite
from steerlab.evaluation.metrics.items import ContrastItem, Fact
from steerlab.evaluation.metrics.texts import vader


def test_the_standard_suite_has_four_styles_and_each_is_a_suite():
    standard = suite("standard")
    assert [s.name for s in standard.styles] == ["statements", "narrative", "technical", "dialogue"]
    assert [s.chat for s in standard.styles] == [False, False, False, True]
    assert all(8 <= len(set(s.prompts)) <= 10 for s in standard.styles)
    assert len(set(standard.facts)) >= 24
    assert all(fact.answer.startswith(" ") for fact in standard.facts)
    assert standard.neutral
    assert standard.off_topic
    alone = suite("narrative")
    assert [s.name for s in alone.styles] == ["narrative"]
    assert alone.facts == standard.facts
    assert alone.digest != standard.digest


def test_no_beginning_reads_as_good_or_bad():
    standard = suite("standard")
    texts = [*standard.neutral, *(p for s in standard.styles for p in s.prompts)]
    assert all(abs(vader(text)) < 0.5 for text in texts)


TOML = """
[styles.letters]
prompts = ["Dear neighbour,", "Dear sirs,"]
items = [{prompt = "The guests were", positive = " kind", negative = " rude"}]
[styles.chat]
chat = true
prompts = ["How are you?"]
[off_target]
facts = [{prompt = "The sky is", answer = " blue"}]
on_topic = ["A kind text."]
"""
JSONL = [
    {"style": "letters", "prompt": "Dear neighbour,"},
    {"style": "letters", "prompt": "Dear sirs,"},
    {"style": "letters", "prompt": "The guests were", "positive": " kind", "negative": " rude"},
    {"style": "chat", "prompt": "How are you?", "chat": True},
    {"fact": "The sky is", "answer": " blue"},
    {"on_topic": "A kind text."},
]


def test_a_file_says_the_same_as_toml_and_as_jsonl(tmp_path):
    (tmp_path / "own.toml").write_text(TOML)
    (tmp_path / "own.jsonl").write_text("\n\n".join(map(json.dumps, JSONL)))
    made = suite(tmp_path / "own.toml")
    assert made == suite(str(tmp_path / "own.jsonl"))
    assert made.name == "own"
    letters, chat = made.styles
    assert letters.prompts == ("Dear neighbour,", "Dear sirs,")
    assert letters.items == (ContrastItem("The guests were", " kind", " rude"),)
    assert chat.chat
    assert made.facts == (Fact("The sky is", " blue"),)
    assert made.neutral == suite("standard").neutral  # not mentioned: the standard suite's
    (tmp_path / "renamed.toml").write_text(TOML)
    assert suite(tmp_path / "renamed.toml").digest == made.digest


def test_suites_come_together(tmp_path):
    (tmp_path / "own.toml").write_text(TOML)
    both = combined([suite("statements"), suite(tmp_path / "own.toml")])
    assert [s.name for s in both.styles] == ["statements", "letters", "chat"]
    assert both.name == "statements+own"
    assert len(both.neutral) == len(suite("standard").neutral)
    assert combined([both]) is both
    (tmp_path / "statements.toml").write_text(TOML.replace("letters", "statements"))
    with pytest.raises(BadPrompts, match="two suites have a style 'statements'"):
        combined([suite("statements"), suite(tmp_path / "statements.toml")])


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.toml", "[styles", "a.toml: not valid TOML"),
        ("a.toml", "", "a.toml has no prompts"),
        ("a.toml", "x = " + "9" * 5000, "a.toml: not valid TOML"),
        ("a.toml", "a." * 5000 + "a = 1", "a key of 32 parts"),
        ("a.toml", '[styles."' + "x" * 999 + '\\u001b[31m"]\nchat = 3', "xxx, chat: expected true"),
        ("a.jsonl", '{"style": "a\\ud800", "prompt": "b"}', "not Unicode"),
        ("a.jsonl", '{"' + "x" * 9999 + '": "b"}', "unknown key 'xxx"),
        ("a.toml", "[style.x]", "unknown key 'style'; known: about, styles, off_target"),
        ("a.toml", "[styles]\nx = 3", "styles.x: expected a table of keys, not 3"),
        ("a.toml", '[styles.x]\nprompts = ["a", 3]', "styles.x, prompts, entry 2: expected a text"),
        ("a.toml", '[styles.x]\nprompts = "a"', "prompts: expected a list of texts, not 'a'"),
        ("a.toml", '[styles.x]\nchat = "no"', "chat: expected true or false"),
        ("a.toml", '[styles.x]\nprompt = ["a"]', "unknown key 'prompt'"),
        ("a.toml", "[styles.x]\nitems = 3", "items: expected a list, not 3"),
        (
            "a.toml",
            '[styles.x]\nitems = [{prompt = "a", positive = "b"}]',
            "styles.x.items, entry 1, negative is missing",
        ),
        (
            "a.toml",
            'styles.x.prompts = ["a"]\noff_target.facts = [{prompt = "a"}]',
            "off_target.facts, entry 1, answer is missing",
        ),
        ("a.jsonl", '{"neutral": "a"}\n{"style": "x",', "a.jsonl, line 2: not valid JSON"),
        ("a.jsonl", "3", "line 1: expected a table of keys, not 3"),
        ("a.jsonl", '\n{"style": "x"}', "line 2: prompt is missing"),
        ("a.jsonl", '{"style": "x", "prompt": " "}', "line 1, prompt: expected a text"),
        ("a.jsonl", '{"style": "x", "prompt": "a", "positive": "b"}', "1: negative is missing"),
        ("a.jsonl", '{"fact": "x"}', "line 1, answer is missing"),
        ("a.jsonl", '{"fact": 3, "answer": "x"}', "prompt: expected a text, not 3"),
        ("a.jsonl", '{"nautral": "x"}', "line 1: unknown key 'nautral'"),
        (
            "a.jsonl",
            '{"style": "x", "prompt": "a"}\n{"style": "x", "prompt": "b", "chat": true}',
            "line 2: chat differs",
        ),
    ],
)
def test_what_is_wrong_is_one_line_with_its_place(tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    with pytest.raises(BadPrompts) as caught:
        suite(tmp_path / name)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_suite_that_is_not_there(tmp_path):
    with pytest.raises(NotFound, match="no suite file"):
        suite(tmp_path / "none.toml")
    with pytest.raises(NotFound, match="no suite 'statments': give one of standard, statements"):
        suite("statments")
