"""The audit: what was really changed, as raw hooks see it, pass by pass, layer by layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from steerlab import Injection, steering
from steerlab.core.run import POSITIONS
from steerlab.errors import BadOption, SteeringError
from tests.interventions.test_clock import OTHER, PROMPT, due, one_pass
from tests.watching import planted, shared, watching

PROMPTS = ["a longer prompt", "short"]  # of 15 and 5 tokens: the second one is padded on the left
LENGTHS = [15, 5]


def seen(watch, layer, lengths, copies=1):
    """(pass, layer, row, copy) -> {position: norm}, as raw hooks saw it.

    lengths: of the prompts. Without a cache, passes are as long as their texts.
    """
    found = {}
    for number, (after, before) in enumerate(
        zip(watch.inputs[layer], watch.outputs[layer - 1], strict=True)
    ):
        norms = np.linalg.norm((after.double() - before.double()).numpy(), axis=-1)
        for index, row in enumerate(norms):
            prompt, copy = divmod(index, copies)
            end = lengths[prompt] + number
            places = range(end - len(row), end)  # padding is before 0
            there = {p: n for p, n in zip(places, row, strict=True) if p >= 0 and n}
            if there:
                found[number, layer, prompt, copy] = there
    return found


def told(audit):
    return {
        (c.number, c.layer, c.row, c.copy): dict(zip(c.positions, c.norms, strict=True))
        for c in audit.changes
    }


def assert_same(audit, expected):
    found = told(audit)
    assert found.keys() == expected.keys()
    for key, norms in expected.items():
        assert list(found[key]) == list(norms), key
        assert list(found[key].values()) == pytest.approx(list(norms.values()), rel=1e-5)


@pytest.mark.parametrize("positions", POSITIONS)
@pytest.mark.parametrize("use_cache", [True, False])
class TestPositions:
    def test_it_is_what_raw_hooks_see_in_a_padded_batch(self, positions, use_cache):
        lm = shared()
        v = planted(lm, 1, 2)
        with steering(lm, v, 1.7, positions, audit=True) as applied, watching(lm.model) as watch:
            lm.generate(PROMPTS, max_new_tokens=4, use_cache=use_cache)
        assert_same(applied.audit, seen(watch, 1, LENGTHS) | seen(watch, 2, LENGTHS))
        for row, length in enumerate(LENGTHS):
            expected = due(positions, length, 0, length + 3)
            places = [i for i in range(length + 3) if expected[i]]
            assert list(applied.audit.positions(row)) == places
            assert list(applied.audit.positions(row, 2)) == places
            assert applied.audit.positions(row, 3) == ()

    def test_the_size_is_that_of_c_v_in_float32(self, positions, use_cache):
        lm = shared()
        with steering(lm, planted(lm, norm=3.0), -1.7, positions, audit=True) as applied:
            lm.generate(PROMPTS, max_new_tokens=3, use_cache=use_cache)
        norms = [norm for change in applied.audit.changes for norm in change.norms]
        assert norms == pytest.approx([5.1] * len(norms), rel=1e-6)


def test_in_bfloat16_it_is_what_rounding_left():
    lm = shared(dtype=torch.bfloat16)
    with steering(lm, planted(lm, norm=0.02), audit=True) as applied, watching(lm.model) as watch:
        lm.generate("coarse", max_new_tokens=3)
    assert_same(applied.audit, seen(watch, 2, [6]))
    norms = applied.audit.norms().values()
    assert max(abs(norm - 0.02) for norm in norms) > 1e-4  # not what was planned


def test_several_injections_are_measured_as_one_and_rows_apart():
    lm = shared()
    a, b = planted(lm, 1, 2, seed=1), planted(lm, 2, 3, seed=2)
    injections = [Injection(a, 1.0, "prompt", rows=(0, 2)), Injection(b, -0.5, rows=(2,))]
    with (
        steering(lm, injections, audit=True) as applied,
        watching(lm.model) as watch,
    ):
        lm.generate(["one", "two", "six"], max_new_tokens=3)
    audit = applied.audit
    assert_same(audit, seen(watch, 1, [3] * 3) | seen(watch, 2, [3] * 3) | seen(watch, 3, [3] * 3))
    assert audit.positions(1) == ()
    assert audit.positions(2, 1) == (0, 1, 2)
    assert audit.positions(2) == (0, 1, 2, 3, 4)
    assert audit.layers == (1, 2, 3)
    both = np.linalg.norm((a.directions[2] - 0.5 * b.directions[2])[0])
    assert audit.norms(2, 2)[0] == pytest.approx(both, rel=1e-5)
    assert str(audit).splitlines()[:3] == [
        "row 0  layer 1  passes 0  positions 0-2  ‖Δ‖ 3.000",
        "row 0  layer 2  passes 0  positions 0-2  ‖Δ‖ 3.000",
        "row 1  unsteered",
    ]


def test_a_front_vector_is_on_the_first_tokens_in_the_prefill_alone():
    lm = shared()
    with steering(lm, planted(lm, rows=3), audit=True) as applied:
        lm.generate(PROMPTS, max_new_tokens=3)
    assert [(c.number, c.row, c.positions) for c in applied.audit.changes] == [
        (0, 0, (1, 2)),
        (0, 1, (1, 2)),
    ]


@pytest.mark.parametrize("options", [{"num_beams": 2}, {"num_beams": 3, "num_return_sequences": 2}])
def test_beams_are_copies_of_their_prompt(options):
    lm = shared()
    ids, copies = torch.cat([PROMPT, PROMPT + 1]), options["num_beams"]
    injection = Injection(planted(lm), 1.0, "generated", rows=(1,))
    with (
        steering(lm.model, injection, audit=True) as applied,
        watching(lm.model) as watch,
    ):
        lm.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, **options)
    assert_same(applied.audit, seen(watch, 2, [5, 5], copies))
    assert {(c.row, c.copy) for c in applied.audit.changes} == {(1, i) for i in range(copies)}
    assert applied.audit.rows == 2


def test_rows_of_later_prompts_follow():
    lm = shared()
    with steering(lm, planted(lm), audit=True) as applied:
        lm.generate(["ab", "abcd"], max_new_tokens=2)
        assert applied.audit.rows == 2  # it can be read meanwhile
        lm.generate("abc", max_new_tokens=2)
    assert [applied.audit.positions(row) for row in range(3)] == [
        (0, 1, 2),
        (0, 1, 2, 3, 4),
        (0, 1, 2, 3),
    ]
    assert applied.audit.passes == 4
    with pytest.raises(BadOption, match="3 rows were run, from 0 on: there is no row 3"):
        applied.audit.positions(3)


def test_the_branches_of_guidance_are_rows_of_their_own():
    lm = shared()
    with steering(lm.model, planted(lm), 1.0, "continuation", audit=True) as applied:
        lm.model.generate(
            PROMPT,
            attention_mask=torch.ones_like(PROMPT),
            guidance_scale=1.5,
            negative_prompt_ids=OTHER,
            max_new_tokens=4,
        )
    assert applied.audit.positions(0) == (5, 6, 7)
    assert applied.audit.positions(1) == (8, 9, 10)


def test_nested_steerings_each_have_their_own():
    lm = shared()
    with (
        steering(lm, planted(lm, norm=2.0), audit=True) as outer,
        steering(lm, planted(lm, norm=5.0, seed=1), positions="continuation", audit=True) as inner,
    ):
        lm.generate("ab", max_new_tokens=3)
    assert outer.audit.norms() == pytest.approx(dict.fromkeys(range(4), 2.0), rel=1e-5)
    assert inner.audit.norms() == pytest.approx(dict.fromkeys((2, 3), 5.0), rel=1e-5)


@torch.no_grad()
def test_where_positions_are_unknown_it_says_so_and_the_steering_goes_on():
    lm = shared()
    packed = torch.tensor([[0, 1, 2, 0, 1]])
    with steering(lm, planted(lm), audit=True) as applied:
        one_pass(lm, PROMPT)
        plain = one_pass(lm, PROMPT, position_ids=packed, use_cache=False).logits
    with steering(lm, planted(lm)):
        assert torch.equal(plain, one_pass(lm, PROMPT, position_ids=packed, use_cache=False).logits)
    audit = applied.audit
    assert audit.problem == "a row of the batch holds several requests"
    assert audit.changes == ()
    assert str(audit) == f"unknown: {audit.problem}"
    with pytest.raises(SteeringError, match="several requests"):
        audit.positions()


@torch.no_grad()
def test_blocks_run_alone_have_no_positions():
    lm = shared()
    with steering(lm, planted(lm), audit=True) as applied:
        one_pass(lm, PROMPT)
        hidden = torch.zeros(1, 2, lm.d_model)
        places = torch.arange(2).unsqueeze(0)
        embeddings = lm.parent.rotary_emb(hidden, position_ids=places)
        lm.blocks[2](hidden, position_embeddings=embeddings)
    assert "outside of the model's own forward" in applied.audit.problem


def test_without_audit_nothing_is_kept_and_reading_it_says_what_to_do():
    lm = shared()
    with steering(lm, planted(lm)) as applied:
        lm.generate("ab", max_new_tokens=2)
    assert "audit=True" in repr(applied)
    with pytest.raises(SteeringError, match=r"enter steering\(\.\.\., audit=True\)"):
        _ = applied.audit


def test_nothing_added_is_an_empty_audit():
    lm = shared()
    with steering(lm, planted(lm), 0.0, audit=True) as applied:
        lm.generate("ab", max_new_tokens=2)
    assert applied.audit.positions() == ()
    assert str(applied.audit) == "nothing was steered"


def test_a_pass_is_kept_in_few_bytes_however_long_its_text():
    lm = shared()
    with steering(lm, planted(lm), audit=True) as applied:
        lm.generate("ab" * 30, max_new_tokens=3)
    assert [p.positions.untyped_storage().nbytes() for p in applied._passes] == [480, 8, 8]


def test_measuring_changes_no_text():
    lm = shared()
    texts = []
    for audit in (False, True):
        with steering(lm, planted(lm), 1.3, audit=audit):
            texts.append([c.token_ids for c in lm.generate(PROMPTS, max_new_tokens=6)])
    assert texts[0] == texts[1]


class TestPassesThatEndHalfWay:
    def test_a_recording_is_audited(self):
        lm = shared()
        with steering(lm, planted(lm), audit=True) as applied, watching(lm.model) as watch:
            lm.record("Hello", [2, 3])
        assert watch.added(2)[0].all()
        assert applied.audit.positions() == (0, 1, 2, 3, 4)

    def test_so_is_an_extraction(self):
        lm = shared()
        with steering(lm, planted(lm), audit=True) as applied:
            lm.extract([("Hello", "there")], layers=[2, 3])
        assert [applied.audit.positions(row) for row in (0, 1)] == [(0, 1, 2, 3, 4)] * 2

    def test_so_is_an_error_but_not_before_the_layer(self):
        lm = shared()
        for layer, expected in ((3, (0, 1)), (1, ())):

            def fail(*_):
                raise ArithmeticError

            handle = lm.blocks[layer].register_forward_pre_hook(fail)
            with steering(lm, planted(lm), audit=True) as applied:
                with pytest.raises(ArithmeticError):
                    lm.generate("ab")
                handle.remove()
                assert applied.audit.positions() == expected
                lm.generate("ab", max_new_tokens=1)


@pytest.mark.parametrize("size", [1e-30, 1e30])
@torch.no_grad()
def test_sizes_whose_squares_are_outside_of_float32(size):
    lm = shared()
    with steering(lm, planted(lm, 0), size, audit=True) as applied:
        lm.model(inputs_embeds=torch.zeros(1, 2, lm.d_model))
    assert list(applied.audit.norms().values()) == pytest.approx([3 * size] * 2, rel=1e-5)


def test_numbers_agree_with_their_nouns():
    lm = shared()
    with steering(lm, planted(lm), audit=True) as applied:
        lm.generate("ab", max_new_tokens=1)
    with pytest.raises(BadOption, match=r"^1 row was run, from 0 on: there is no row 1$"):
        applied.audit.positions(1)
    with (
        pytest.raises(SteeringError, match=r"the batch has 1 row, one"),
        steering(lm, Injection(planted(lm), 1.0, rows=(2,))),
    ):
        lm.generate("ab", max_new_tokens=1)
