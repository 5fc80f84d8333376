"""Models that call their blocks as other versions may: steered rightly, or refused."""

from __future__ import annotations

from functools import wraps

import pytest
from transformers import Cache
from transformers.modeling_outputs import CausalLMOutputWithPast

from steerlab.models.cache import cache_argument
from tests.models.judging import judge
from tests.tiny import tiny_lm


def ids(given):
    return {"input_ids": given["input_ids"]}


def places(given):
    return {"position_ids": given.get("position_ids")}


def mask(given):
    return {"attention_mask": given.get("attention_mask")}


CALLS = {  # what the module that runs the blocks is given beside its cache, and the cache's name
    "renamed cache": (lambda given: ids(given) | mask(given) | places(given), "memory"),
    "renamed cache, no mask": (ids, "memory"),
    "no mask": (ids, None),
    "positions only": (lambda given: ids(given) | places(given), None),
    "renamed cache, positions only": (lambda given: ids(given) | places(given), "memory"),
}


def calling(arguments, name):
    """A tiny model that runs its blocks with these arguments, its cache under another name."""
    lm = tiny_lm()
    model, inner = lm.model, lm.model.model
    outer, own, installed = model.forward, inner.forward, cache_argument(model)

    @wraps(outer)
    def forward(**given):
        cache = given.get(installed)
        passed = {name or installed: cache, "use_cache": given.get("use_cache")}
        hidden = inner(**arguments(given), **passed).last_hidden_state
        return CausalLMOutputWithPast(logits=model.lm_head(hidden), past_key_values=cache)

    def renamed(memory: Cache | None = None, **given):
        return own(**given, **{installed: memory})

    model.forward = forward
    if name:
        inner.forward = renamed
    return lm


@pytest.mark.parametrize("call", CALLS)
def test_it_is_right(call):
    found = judge(calling(*CALLS[call]), ("prompt", "generated"))
    if call == "renamed cache":
        assert found == "right"
    else:  # without a mask, padding is read
        assert found.startswith("right; rows with a cache, rows refused: tiny does not keep")
        assert found.count("refused") == 1
