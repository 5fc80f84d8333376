"""The prompts of the starter vectors: usable, paired, and read where they differ."""

from __future__ import annotations

import tomllib
from importlib.resources import files

import pytest

from steerlab.core.prompts import check_prompts
from steerlab.core.recipe import check_name

STARTER = tomllib.loads((files("steerlab.lab") / "starter.toml").read_text("utf-8"))
OURS = sorted(set(STARTER) - {"love"})  # love is the post's, as it stands


@pytest.mark.parametrize("name", sorted(STARTER))
def test_each_can_be_extracted(name):
    entry = STARTER[name]
    assert set(entry) == {"note", "tags", "positive", "negative"}
    check_name(name)
    check_prompts(entry["positive"], entry["negative"])
    assert entry["note"].endswith(".")
    assert entry["tags"]


def test_the_posts_pairs_come_in_its_order():
    assert list(zip(STARTER["love"]["positive"], STARTER["love"]["negative"], strict=True)) == [
        ("You are amazing and I love you", "You are terrible and I hate you"),
        ("The world is a beautiful place filled with joy", "The world is a dark, miserable place"),
        ("I am so happy and full of love today", "I am so angry and full of hate today"),
        ("This is absolutely wonderful and fantastic", "This is absolutely awful and disgusting"),
    ]


@pytest.mark.parametrize("name", OURS)
def test_ours_are_short_alike_and_end_where_they_differ(name):
    positive, negative = STARTER[name]["positive"], STARTER[name]["negative"]
    assert 6 <= len(positive) <= 10
    prompts = [*positive, *negative]
    assert len(set(prompts)) == len(prompts)
    assert all(6 <= len(prompt.split()) <= 16 for prompt in prompts)
    assert all(prompt[-1].isalpha() and prompt.isascii() for prompt in prompts)
    for p, n in zip(positive, negative, strict=True):
        assert abs(len(p.split()) - len(n.split())) <= 3
        if name != "formality":  # which is all in the wording
            assert len(set(p.split()) ^ set(n.split())) <= 6
    lasts = [{prompt.split()[-1] for prompt in side} for side in (positive, negative)]
    assert not lasts[0] & lasts[1]
