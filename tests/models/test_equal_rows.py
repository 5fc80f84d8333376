"""Equal rows are computed once below the layer at which they are steered apart."""

from __future__ import annotations

import threading

import pytest
import torch

from steerlab import steering
from steerlab.core.setting import Setting
from steerlab.interventions.runtime import TransformersRuntime
from steerlab.models import equal_rows
from steerlab.models.runtime import Row
from tests.tiny import ARCHITECTURES
from tests.watching import blocks_of, planted, shared

TEXTS = ((1, 5, 6, 7, 8), (1, 9, 10, 11), (1, 9, 10))
UNSHARED = {"mistral_sliding", "gemma2", "gemma3", "bloom", "falcon", "gptj"}  # masks of all rows


def rows_of(lm, layer):
    """Each text under several strengths, and unsteered."""
    settings = [Setting(), *(Setting(planted(lm, layer), c) for c in (0.5, -1.0, 2.0))]
    return [Row(ids, 2, 1, len(ids), setting) for setting in settings for ids in TEXTS]


def entered(blocks, rows, run):
    """How many rows each block got in a call, with a handle that does not change anything."""
    seen = [0] * len(blocks)
    originals = [block.forward for block in blocks]
    try:
        for b, block in enumerate(blocks):

            def forward(*args, b=b, **kwargs):
                seen[b] = len(args[0] if args else kwargs["hidden_states"])
                return originals[b](*args, **kwargs)

            block.forward = forward
        return run(rows), seen
    finally:
        for block in blocks:
            del block.forward


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_have_the_logits_that_they_have_alone(architecture):
    lm = shared(architecture)
    runtime, rows = TransformersRuntime(lm), rows_of(lm, 2)
    blocks = blocks_of(lm.model, architecture)
    found, seen = entered(blocks, rows, runtime.logits)
    few = len(rows) if architecture in UNSHARED else len(TEXTS)
    if architecture == "gptj" and seen[0] < few:
        few = len(TEXTS)  # from transformers 5.24 on, its mask has no rows
    assert seen == [few, few, len(rows), len(rows)]
    for row, logits in zip(rows, found, strict=True):
        torch.testing.assert_close(logits, runtime.logits([row])[0], rtol=1e-4, atol=1e-4)


def test_nothing_is_shared_where_it_saves_nothing_or_someone_watches():
    lm = shared()

    def hooks(ids, layer=2):
        return equal_rows.shared_below(lm.model, lm.blocks, torch.tensor(ids), layer)

    assert len(hooks([[1, 2]] * 4)) == 2
    assert not hooks([[1, 2]] * 4, layer=0)
    assert not hooks([[1, 2], [1, 3], [1, 4], [1, 4]][:3])
    for watched in (lm.blocks[1], lm.blocks[1].mlp):
        handle = watched.register_forward_hook(lambda *_: None)
        assert not hooks([[1, 2]] * 4)
        handle.remove()
    with steering(lm, planted(lm, 3), 1.0):
        assert len(hooks([[1, 2]] * 4)) == 2
        lm.generate("x", max_new_tokens=1)


@pytest.mark.parametrize("seen", ["mask", "row number"])
@pytest.mark.parametrize("error", [RuntimeError, AssertionError])
def test_a_model_whose_blocks_see_the_rows_runs_them_all(monkeypatch, seen, error):
    lm = shared("qwen2")
    monkeypatch.setattr(equal_rows, "_sharing", type(equal_rows._sharing)())
    block, forward = lm.blocks[1], lm.blocks[1].forward

    def wanting(hidden_states, *args, **kwargs):
        rows = len(hidden_states)
        if seen == "mask" and rows != 4:
            raise error("The size of tensor a must match the size of tensor b")
        return forward(hidden_states + torch.arange(rows)[:, None, None], *args, **kwargs)

    monkeypatch.setattr(block, "forward", wanting)
    ids = torch.tensor([[1, 2]] * 4)
    assert not equal_rows.shared_below(lm.model, lm.blocks, ids, 2)


def test_texts_of_another_thread_wait_until_rows_are_scored():
    lm = shared()
    runtime, rows = TransformersRuntime(lm), rows_of(lm, 2)
    text, written = lm.generate("ab", max_new_tokens=3), []
    other = threading.Thread(target=lambda: written.append(lm.generate("ab", max_new_tokens=3)))

    def meanwhile(*_):
        handle.remove()
        other.start()
        other.join(0.2)
        assert other.is_alive()

    handle = lm.blocks[3].register_forward_hook(meanwhile)
    runtime.logits(rows)
    other.join(60)
    assert written == [text]
