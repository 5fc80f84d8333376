"""Caches: found by what they are, whatever a model, or a version of transformers, calls them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache

from steerlab import steering
from steerlab.core.run import POSITIONS
from steerlab.errors import SteeringError
from steerlab.models.cache import cache_argument, past_of
from steerlab.models.recording import read
from tests.tiny import ARCHITECTURES, tiny_lm
from tests.watching import planted, shared, watching

IDS = torch.tensor([[1, 40, 77, 12, 205, 9, 133], [1, 8, 250, 31, 31, 64, 190]])
PIECES = (IDS[:, :5], IDS[:, 5:6], IDS[:, 6:7])  # a prompt of 5 tokens, then 2 one by one
STEERED = {  # which of the 7 tokens are steered
    "all": range(7),
    "prompt": range(5),
    "generated": range(4, 7),
    "continuation": range(5, 7),
    "front": range(1, 3),
}


def unpacked(value):
    """The cache that is in there, of whatever a call wraps it in."""
    while not isinstance(value, Cache):
        value = getattr(value, "__dict__", value)
        value = next(iter(value.values() if isinstance(value, dict) else value))
    return getattr(value, "self_attention_cache", value)


def calling(call):
    """A tiny model whose inner forward takes its cache in another way, and three passes on it.

    call: (tokens, mask, cache) -> the arguments of one pass.
    """
    lm = tiny_lm()
    assert lm.identity
    inner, name = lm.model.model, cache_argument(lm.model)
    forward = inner.forward

    def own(input_ids, attention_mask=None, memory=None, **others):
        cache = unpacked(next(iter(others.values())) if memory is None else memory)
        return forward(input_ids, attention_mask, use_cache=True, **{name: cache})

    inner.forward = own

    def decode(mask=None):
        cache = DynamicCache(config=lm.model.config)
        end = 0
        for piece in PIECES:
            end += piece.shape[1]
            args, kwargs = call(piece, None if mask is None else mask[:, :end], cache)
            inner(*args, **kwargs)

    return lm, decode


CALLS = {
    "past_key_values": lambda ids, mask, cache: (
        (),
        {"input_ids": ids, "attention_mask": mask, "past_key_values": cache},
    ),
    "cache": lambda ids, mask, cache: (
        (),
        {"input_ids": ids, "attention_mask": mask, "cache": cache},
    ),
    "memory": lambda ids, mask, cache: (
        (ids,),
        {"attention_mask": mask, "memory": cache},
    ),
    "a_name_of_its_own": lambda ids, mask, cache: (
        (ids, mask),
        {"a_name_of_its_own": cache},
    ),
    "positional": lambda ids, mask, cache: ((ids, mask, cache), {}),
    "encoder and decoder": lambda ids, mask, cache: (
        (ids, mask, EncoderDecoderCache(cache, DynamicCache())),
        {},
    ),
    "in a tuple": lambda ids, mask, cache: ((ids, mask, (cache, None)), {}),
    "in a dict": lambda ids, mask, cache: ((ids, mask), {"memory": {"text": cache}}),
    "in an object": lambda ids, mask, cache: (
        (ids, mask),
        {"memory": SimpleNamespace(inner=[cache])},
    ),
}


@pytest.mark.parametrize("call", CALLS)
class TestHoweverItIsPassed:
    def steered(self, call, positions, mask=None):
        """Column by column of all passes: (batch, 7) bool."""
        lm, decode = calling(CALLS[call])
        v = planted(lm, rows=3) if positions == "front" else planted(lm)
        where = "all" if positions == "front" else positions
        with torch.no_grad(), steering(lm, v, 1.0, where), watching(lm.model) as watch:
            decode(mask)
        return torch.cat(watch.added(2), dim=1).tolist()

    @pytest.mark.parametrize("positions", [*POSITIONS, "front"])
    def test_positions_are_those_of_the_sequence(self, call, positions):
        wanted = [i in STEERED[positions] for i in range(7)]
        assert self.steered(call, positions) == [wanted, wanted]

    @pytest.mark.parametrize("positions", POSITIONS)
    def test_padding_is_no_position(self, call, positions):
        mask = torch.ones_like(IDS)
        mask[1, :2] = 0
        found = self.steered(call, positions, mask)
        assert found[0] == [i in STEERED[positions] for i in range(7)]
        assert found[1][2:] == found[0][2:]
        assert positions == "all" or not any(found[1][:2])


class TestStates:
    """Models that keep the past, or a part of it, elsewhere than in keys and values."""

    def passes(self, architecture, positions, **options):
        lm = shared(architecture)
        with steering(lm, planted(lm), 1.0, positions), watching(lm.model, architecture) as watch:
            lm.generate("x" * 9, max_new_tokens=4, **options)
        return [added[0].tolist() for added in watch.added(2)]

    @pytest.mark.parametrize("architecture", ["mamba", "rwkv"])
    def test_one_that_tells_no_length_can_be_steered_everywhere(self, architecture):
        assert self.passes(architecture, "all") == [[True] * 9, [True], [True], [True]]

    @pytest.mark.parametrize("architecture", ["mamba", "rwkv"])
    @pytest.mark.parametrize("positions", ["prompt", "generated", "continuation"])
    def test_or_without_its_state(self, architecture, positions):
        found = self.passes(architecture, positions, use_cache=False)
        first, end = {"prompt": (0, 9), "generated": (8, 12), "continuation": (9, 12)}[positions]
        assert found == [[first <= i < end for i in range(n)] for n in range(9, 13)]

    @pytest.mark.parametrize("architecture", ["mamba", "rwkv"])
    @pytest.mark.parametrize("positions", ["prompt", "generated", "continuation"])
    @pytest.mark.parametrize("prompt_length", [None, 9])
    def test_elsewhere_it_is_refused(self, architecture, positions, prompt_length):
        lm = shared(architecture)
        with (
            pytest.raises(SteeringError, match="does not tell how far it has come"),
            steering(lm, planted(lm), 1.0, positions, prompt_length=prompt_length),
        ):
            lm.generate("x" * 9, max_new_tokens=4)

    @pytest.mark.parametrize("architecture", ["lfm2", "minimax"])
    @pytest.mark.parametrize("positions", POSITIONS)
    def test_one_with_attention_in_some_layers_tells_it_there(self, architecture, positions):
        found = [flag for added in self.passes(architecture, positions) for flag in added]
        first, end = {
            "all": (0, 12),
            "prompt": (0, 9),
            "generated": (8, 12),
            "continuation": (9, 12),
        }[positions]
        assert found == [first <= i < end for i in range(12)]


class TestUnseen:
    """What the model was given before, where no cache that is known says so: never silently."""

    @pytest.mark.parametrize("positions", ["prompt", "generated", "continuation", "front"])
    @pytest.mark.parametrize(
        "told",
        [
            {"attention_mask": torch.ones(2, 6, dtype=torch.long)},
            {"position_ids": torch.tensor([[5]])},
            {"past_key_values": tuple((torch.zeros(2, 2, 5, 8),) * 2 for _ in range(4))},
            {"cache": [torch.zeros(2, 32)]},
        ],
        ids=["mask", "positions", "tuples", "tensors"],
    )
    def test_a_pass_that_goes_on_from_it_is_refused(self, positions, told):
        lm = tiny_lm()
        assert lm.identity
        inner = lm.model.model
        inner.forward = lambda input_ids, **_: inner.layers[2](input_ids)
        v = planted(lm, rows=3) if positions == "front" else planted(lm)
        where = "all" if positions == "front" else positions
        with (
            pytest.raises(SteeringError, match="steer at positions='all'"),
            steering(lm, v, 1.0, where),
        ):
            inner(input_ids=torch.zeros(2, 1, 32), **told)

    def test_two_caches_of_different_lengths_are_ambiguous(self):
        one, two = DynamicCache(), DynamicCache()
        one.update(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4), 0)
        assert past_of({"a": one, "b": None}).length == 3
        assert past_of({"a": one, "b": one}).length == 3
        assert past_of({"a": one, "b": two}).unknown == "a and b"
        assert past_of({"a": [one, two]}).unknown == "a"
        silent = SimpleNamespace(get_seq_length=lambda: None)  # as Reformer's
        assert past_of({"a": silent}).unknown == "a"
        assert past_of({"use_cache": True, "state": (), "cache": None}).cached is False


class TestOurOwnCalls:
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_the_argument_is_the_one_the_model_has(self, architecture):
        model = shared(architecture).model
        with torch.no_grad():
            cache = DynamicCache(config=model.config)
            model(input_ids=IDS, use_cache=True, **{cache_argument(model): cache})
        assert cache.get_seq_length() == 7

    def test_a_wrapper_passes_it_on(self):
        class Wrapper(torch.nn.Module):
            def __init__(self, model):
                super().__init__()
                self.model = model

            def forward(self, *args, **kwargs):
                return self.model(*args, **kwargs)

        class Strict(Wrapper):
            def forward(self, input_ids):
                return self.model(input_ids)

        model = shared().model
        assert cache_argument(Wrapper(model)) == cache_argument(model) is not None
        assert cache_argument(Strict(model)) is None
        assert cache_argument(torch.nn.Linear(2, 2)) is None

    @pytest.mark.parametrize("architecture", ["llama", "rwkv"])
    def test_prompts_that_begin_alike_are_read_as_alone(self, architecture):
        lm = shared(architecture)
        start = list(range(20, 60))
        prompts = [[*start, 70 + i, 80 + i] for i in range(4)]
        together = read(lm.model, lm.blocks, prompts, [2])
        alone = [read(lm.model, lm.blocks, [ids], [2]).values[2][0] for ids in prompts]
        for row, one in zip(together.values[2], alone, strict=True):
            torch.testing.assert_close(torch.tensor(row), torch.tensor(one), atol=1e-4, rtol=1e-4)
