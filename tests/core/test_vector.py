"""The algebra of SteeringVector: its laws, its exact cases and its refusals."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from steerlab.core.algebra import (
    control_like,
    is_raw_mean,
    mean,
    project,
    random_like,
    reject,
    unit,
)
from steerlab.core.derivation import operand_of
from steerlab.core.expression import evaluate
from steerlab.core.notation import placeholder_of, replace_refs, span
from steerlab.core.recipe import Contrast, Expression, Imported, ModelIdentity, Operand
from steerlab.core.record import record_of
from steerlab.core.syntax import parse
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadExpression, BadOption, BadVector, Incompatible, NotFound
from tests.strategies import MODEL, any_vector, families, layer_sets, values, vector, weights

SMALL = {"rtol": 1e-9, "atol": 1e-6}
E1, E2 = [1.0, 0, 0, 0], [0, 1.0, 0, 0]


def close(a: SteeringVector, b: SteeringVector) -> bool:
    return a.layers == b.layers and all(
        np.allclose(a.directions[layer], b.directions[layer], **SMALL) for layer in a.layers
    )


def bits(found: SteeringVector) -> dict[int, bytes]:
    return {b: array.tobytes() for b, array in found.float32().items()}


class TestLaws:
    @given(families(2))
    def test_addition_commutes(self, pair):
        a, b = pair
        assert a + b == b + a

    @given(any_vector)
    def test_negating_twice_gives_the_vector(self, a):
        negative = -a
        assert -negative == a

    @given(any_vector)
    def test_one_times_a_vector_is_the_vector(self, a):
        assert 1 * a == a * 1 == a / 1 == +a == a

    @given(any_vector)
    def test_twice_a_vector_is_its_sum_with_itself(self, a):
        assert 2 * a == a + a

    @given(families(2))
    def test_subtraction_anticommutes(self, pair):
        a, b = pair
        assert a - b == -(b - a)

    @given(families(2))
    def test_subtraction_adds_the_negative(self, pair):
        a, b = pair
        assert a - b == a + (-b)

    @given(any_vector)
    def test_a_vector_minus_itself_is_zero(self, a):
        zero = a - a
        assert zero.norm == 0
        assert zero.layers == a.layers
        assert zero == 0 * a
        assert not any(np.signbit(x).any() for x in zero.float32().values())

    @given(families(3))
    def test_addition_associates(self, triple):
        a, b, c = triple
        assert close((a + b) + c, a + (b + c))

    @given(families(2), weights, weights)
    def test_weights_distribute(self, pair, w, x):
        a, b = pair
        assert close(w * (a + b), w * a + w * b)
        assert close((float(w) + float(x)) * a, w * a + x * a)

    @given(any_vector, weights)
    def test_weights_commute(self, a, w):
        assert w * a == a * w

    @given(any_vector, weights)
    def test_division_undoes_multiplication(self, a, w):
        assume(abs(w) > 1e-3)
        assert close((w * a) / w, a)

    @given(families(2))
    def test_projection_and_rejection_add_up(self, pair):
        a, b = pair
        assume(set(a.layers) & set(b.layers))
        assert close(project(a, b) + reject(a, b), a + 0 * project(a, b))

    def test_what_is_too_small_to_reject_has_no_direction_either(self):
        a, b = vector([2, 0, 0, 0]), vector([1e-39, 0, 0, 0])
        assert reject(a, b) == a
        assert a.cosines(b) == {1: 0.0}

    @given(families(2))
    def test_what_is_rejected_is_orthogonal(self, pair):
        a, b = pair
        assume(set(a.layers) & set(b.layers))
        rest = reject(a, b)
        for layer, cosine in rest.cosines(b).items():
            # where nearly all of it lay along b, what is left is rounding
            left = rest.norms()[layer] > 1e-9 * a.norms()[layer]
            assert abs(cosine) < 1e-6 or not left

    @given(any_vector)
    def test_a_unit_has_norm_one_at_every_layer(self, a):
        assume(min(a.norms().values()) > 1e-30)
        assert all(math.isclose(norm, 1) for norm in unit(a).norms().values())
        assert close(unit(3 * a), unit(a))

    @given(families(3))
    def test_the_mean_times_the_count_is_the_sum(self, triple):
        a, b, c = triple
        assert close(3 * mean(a, b, c), a + b + c)
        assert mean(a) == a
        assert mean(a, a) == a

    @given(st.data(), families(3))
    def test_reevaluating_a_recipe_gives_the_same_bits(self, data, leaves):
        made = data.draw(compositions(leaves))
        assume(isinstance(made.recipe, Expression))
        by_digest = {leaf.digest: leaf for leaf in leaves}
        operands = {o.ref: by_digest[o.digest] for o in made.recipe.operands}
        again = evaluate(made.recipe.text, operands.__getitem__)
        assert bits(again) == bits(made)
        assert again.digest == made.digest
        assert str(parse(made.recipe.text)) == made.recipe.text


def compositions(leaves: list[SteeringVector]) -> st.SearchStrategy[SteeringVector]:
    """Random expressions over the leaves, made with Python's operators."""
    small = st.one_of(st.integers(-5, 5), st.floats(-5, 5), st.fractions(-5, 5))

    def defined(vectors: list[SteeringVector]) -> bool:
        return bool(set(vectors[0].layers) & set(vectors[1].layers))

    def grow(inner: st.SearchStrategy[SteeringVector]) -> st.SearchStrategy[SteeringVector]:
        pairs = st.tuples(inner, inner)
        return st.one_of(
            pairs.map(lambda p: p[0] + p[1]),
            pairs.map(lambda p: p[0] - p[1]),
            inner.map(lambda a: -a),
            st.tuples(small, inner).map(lambda p: p[0] * p[1]),
            st.tuples(small, inner).map(lambda p: p[1] * p[0]),
            st.tuples(small.filter(lambda w: abs(w) > 0.01), inner).map(lambda p: p[1] / p[0]),
            inner.map(lambda a: a[a.layers[0]]),
            inner.filter(lambda a: min(a.norms().values()) > 1e-30).map(unit),
            pairs.filter(defined).map(lambda p: project(*p)),
            pairs.filter(defined).map(lambda p: reject(*p)),
            st.lists(inner, min_size=1, max_size=3).map(lambda found: mean(*found)),
        )

    return st.recursive(st.sampled_from(leaves), grow, max_leaves=6)


class TestExactCases:
    def test_addition_and_subtraction(self):
        a, b = vector([1, 2, 3, 4]), vector([10, 20, 30, 40])
        assert values(a + b) == {1: [[11, 22, 33, 44]]}
        assert values(b - a) == {1: [[9, 18, 27, 36]]}
        assert values(-a) == {1: [[-1, -2, -3, -4]]}
        assert values(3 * a) == values(a * 3) == {1: [[3, 6, 9, 12]]}
        assert values(a / 2) == {1: [[0.5, 1, 1.5, 2]]}

    def test_a_missing_layer_counts_as_zero(self):
        a, b = vector([1, 2, 3, 4], layer=1), vector([5, 6, 7, 8], layer=3)
        assert values(a + b) == {1: [[1, 2, 3, 4]], 3: [[5, 6, 7, 8]]}
        assert values(a - b) == {1: [[1, 2, 3, 4]], 3: [[-5, -6, -7, -8]]}
        assert values(mean(a, b)) == {1: [[0.5, 1, 1.5, 2]], 3: [[2.5, 3, 3.5, 4]]}

    def test_front_tensors_are_padded_with_zero_rows_at_the_end(self):
        long = vector(E1, E2, E1, scope="front")
        short = vector([2, 2, 2, 2], scope="front")
        assert values(long + short) == {1: [[3, 2, 2, 2], E2, E1]}
        assert values(short - long) == {1: [[1, 2, 2, 2], [0, -1, 0, 0], [-1, 0, 0, 0]]}
        elsewhere = vector(E1, E2, layer=2, scope="front")
        assert values(short + elsewhere) == {1: [[2, 2, 2, 2]], 2: [E1, E2]}

    def test_unit(self):
        assert values(unit(vector([3, 0, 4, 0]))) == {1: [[0.6, 0, 0.8, 0]]}
        assert values(unit(vector([2, 0, 0, 0], [0, 2, 2, 2], scope="front"))) == {
            1: [[0.5, 0, 0, 0], [0, 0.5, 0.5, 0.5]]
        }

    @pytest.mark.parametrize("tiny", [0.0, 1e-40])
    def test_the_unit_of_zero_is_refused(self, tiny):
        a = vector(E1, layer=1) + vector([tiny, 0, 0, 0], layer=2)
        with pytest.raises(BadExpression, match="layer 2 is zero"):
            unit(a)

    def test_project_and_reject(self):
        a, b = vector([3, 4, 5, 0]), vector([0, 2, 0, 0])
        assert values(project(a, b)) == {1: [[0, 4, 0, 0]]}
        assert values(reject(a, b)) == {1: [[3, 0, 5, 0]]}
        assert close(project(a, 1e-25 * b), project(a, b))

    def test_projecting_on_zero_or_on_a_missing_layer_gives_zero(self):
        a = vector(E1, layer=1) + vector(E2, layer=2)
        assert values(project(a, 0 * a)) == {1: [[0] * 4], 2: [[0] * 4]}
        assert values(project(a, vector(E1, layer=1))) == {1: [E1], 2: [[0] * 4]}
        assert values(reject(a, vector(E1, layer=1))) == {1: [[0] * 4], 2: [E2]}

    def test_projecting_without_a_common_layer_is_refused(self):
        with pytest.raises(Incompatible, match="share no layer"):
            project(vector(E1, layer=1), vector(E1, layer=2))

    def test_projecting_a_short_front_tensor_pads_it(self):
        a, b = vector([2, 0, 0, 0], scope="front"), vector(E1, E2, scope="front")
        assert values(project(a, b)) == {1: [E1, E2]}

    def test_mean(self):
        assert values(mean(vector([1, 0, 0, 0]), vector([3, 2, 0, 0]))) == {1: [[2, 1, 0, 0]]}
        with pytest.raises(BadExpression, match="at least one"):
            mean()

    def test_the_mean_of_very_many_can_be_read_again(self):
        leaves = [vector([float(i), 1, 0, 0], ref=f"v_{i}.v1") for i in range(2000)]
        made = mean(*leaves)
        assert values(made) == {1: [[999.5, 1, 0, 0]]}
        assert isinstance(made.recipe, Expression)
        named = {leaf.ref: leaf for leaf in leaves}
        assert evaluate(made.recipe.text, named.__getitem__) == made

    def test_arithmetic_is_float64_until_it_is_stored(self):
        a, b = vector([1e-7, 0, 0, 0]), vector([1.0, 0, 0, 0])
        again = (b + a * 0.01) - b
        assert math.isclose(again.norm, 1e-9, rel_tol=1e-5)

    def test_layers_are_kept_in_order(self):
        a = SteeringVector({4: E1, 0: E2, np.int64(2): E1}, model=MODEL)
        assert a.layers == (0, 2, 4)
        assert all(type(b) is int for b in a.layers)


class TestSelectingLayers:
    three = vector(E1, layer=1) + vector(E2, layer=2) + vector(E1, layer=3)

    @pytest.mark.parametrize(
        ("wanted", "text", "layers"),
        [
            (2, "[2]", (2,)),
            (np.int64(2), "[2]", (2,)),
            (slice(1, 3), "[1:3]", (1, 2)),
            (slice(np.int64(1), np.int32(3)), "[1:3]", (1, 2)),
            (slice(2, None), "[2:]", (2, 3)),
            (slice(None, 3), "[:3]", (1, 2)),
            (slice(None), "[:]", (1, 2, 3)),
            (slice(1, 4, 2), "[1:4:2]", (1, 3)),
            (slice(None, None, 2), "[::2]", (1, 3)),
        ],
    )
    def test_by_number_and_by_range(self, wanted, text, layers):
        stored = SteeringVector(self.three.directions, model=MODEL, ref="love.v1")
        picked = stored[wanted]
        assert picked.layers == layers
        assert picked.recipe.text == f"love.v1{text}"
        assert evaluate(picked.recipe.text, {"love.v1": stored}.__getitem__) == picked

    @pytest.mark.parametrize(
        ("wanted", "message"),
        [
            (0, "no direction at layer 0: it has 1-3"),
            (slice(1, 5), "no direction at layer 4"),
            (slice(0, 10**18), "no direction at layer 0"),
            (slice(1, 10**18), "no direction at layer 4"),
            (10**30, "no direction at layer 1000"),
            (slice(3, 1), "empty range"),
            (-1, "layer -1"),
            (slice(-2, None), "counted from 0"),
            (slice(None, None, -1), "counted from 0"),
            (slice(1, 3, 0), "counted from 0"),
        ],
    )
    def test_a_layer_that_is_not_there_is_an_error(self, wanted, message):
        with pytest.raises(NotFound, match=message):
            self.three[wanted]

    @pytest.mark.parametrize("wanted", ["1", 1.0, True, None, (1, 2), slice(1.0, 2), slice("a")])
    def test_layers_are_whole_numbers(self, wanted):
        with pytest.raises(TypeError, match="selected by int or slice"):
            self.three[wanted]

    def test_selecting_drops_what_was_known_of_other_layers(self):
        a = SteeringVector({1: E1, 2: E2}, model=MODEL, residual_norms={1: 10, 2: 20}, ref="a.v1")
        assert dict(a[2].residual_norms) == {2: 20}

    @given(layer_sets)
    def test_span_is_short_and_complete(self, layers):
        found = []
        for part in span(tuple(sorted(layers))).split(", "):
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
        assert found == sorted(layers)

    def test_it_is_no_sequence(self):
        with pytest.raises(TypeError, match="no sequence"):
            list(self.three)
        with pytest.raises(TypeError):
            len(self.three)


class TestRefusals:
    @pytest.mark.parametrize(
        "other", [1, 1.0, None, "love", [1, 2], np.ones(4), np.float64(1), {}, object()]
    )
    def test_only_vectors_are_added(self, other):
        a = vector(E1)
        assert a.__add__(other) is NotImplemented
        assert a.__sub__(other) is NotImplemented
        for operation in (
            lambda: a + other,
            lambda: other + a,
            lambda: a - other,
            lambda: other - a,
        ):
            with pytest.raises(TypeError):
                operation()

    @pytest.mark.parametrize(
        "weight",
        [True, False, np.bool_(True), None, "2", 1j, np.array(2.0), np.ones(4), Decimal(2), [1]],
    )
    def test_only_real_scalars_are_weights(self, weight):
        a = vector(E1)
        assert a.__mul__(weight) is NotImplemented
        assert a.__rmul__(weight) is NotImplemented
        assert a.__truediv__(weight) is NotImplemented
        for operation in (lambda: a * weight, lambda: weight * a, lambda: a / weight):
            with pytest.raises(TypeError):
                operation()

    def test_vectors_are_not_multiplied_or_divided(self):
        a = vector(E1)
        for operation in (lambda: a * a, lambda: a / a, lambda: 1 / a, lambda: a**2):
            with pytest.raises(TypeError):
                operation()

    @pytest.mark.parametrize(
        "weight",
        [
            2,
            2.0,
            np.float32(2),
            np.float64(2),
            np.float16(2),
            np.int64(2),
            np.uint8(2),
            Fraction(2),
        ],
    )
    def test_numpy_scalars_and_fractions_are_weights(self, weight):
        a = vector([1, 2, 3, 4])
        doubled = weight * a
        assert isinstance(doubled, SteeringVector)
        assert doubled == a * weight == 2 * a
        assert a / weight == 0.5 * a
        assert str(doubled) == f"2 * {a}"

    @pytest.mark.parametrize("weight", [math.inf, -math.inf, math.nan, 10**400, np.float32("inf")])
    def test_weights_are_finite(self, weight):
        for operation in (
            lambda: weight * vector(E1),
            lambda: vector(E1) * weight,
            lambda: vector(E1) / weight,
        ):
            with pytest.raises(BadExpression, match="finite"):
                operation()

    def test_division_by_zero(self):
        with pytest.raises(BadExpression, match="divide a vector by zero"):
            vector(E1) / 0
        with pytest.raises(BadExpression, match="divide a vector by zero"):
            vector(E1) / -0.0

    @pytest.mark.parametrize(
        ("operation", "message"),
        [
            (lambda a: 1e39 * a, "beyond float32"),
            (lambda a: 1e308 * (1e30 * a), "NaN or infinity"),
            (lambda a: a / 1e-300, "beyond float32"),
            (lambda a: 3e38 * a + 3e38 * a, "beyond float32"),
        ],
    )
    def test_what_float32_cannot_hold_is_refused_where_it_arises(self, operation, message):
        with pytest.raises(BadVector, match=message):
            operation(vector([10, 0, 0, 0] if "inf" in message else E1))

    def test_models_are_not_mixed(self):
        other = SteeringVector({1: E1}, model=replace(MODEL, source="else/where", fingerprint="f1"))
        for operation in (
            lambda: vector(E1) + other,
            lambda: other - vector(E1),
            lambda: mean(vector(E1), other),
            lambda: project(vector(E1), other),
            lambda: vector(E1).cosines(other),
        ):
            with pytest.raises(Incompatible, match="different models"):
                operation()

    def test_models_of_unknown_weights_are_told_apart_by_their_source(self):
        here = vector(E1, model=replace(MODEL, fingerprint=None))
        there = vector(E1, model=replace(MODEL, fingerprint=None, source="else/where"))
        assert here != there
        with pytest.raises(Incompatible, match="another model"):
            here + there

    def test_known_and_unknown_weights_of_one_source_combine_either_way(self):
        known = vector(E1, ref="a.v1")
        unknown = vector(E2, ref="b.v1", model=replace(MODEL, fingerprint=None))
        assert known + unknown == unknown + known
        assert (unknown - known).model == MODEL
        other = vector(E2, model=replace(MODEL, fingerprint="f1"))
        with pytest.raises(Incompatible):
            mean(unknown, known, other)

    def test_precisions_of_the_same_weights_combine(self):
        half = vector(E1, model=replace(MODEL, dtype="bfloat16"))
        full = vector(E2, model=replace(MODEL, dtype="float32"))
        assert half + full == full + half

    def test_scopes_are_not_mixed(self):
        front = vector(E1, scope="front")
        for operation in (
            lambda: vector(E1) + front,
            lambda: mean(front, vector(E1)),
            lambda: reject(front, vector(E1)),
        ):
            with pytest.raises(Incompatible, match="can't be combined"):
                operation()

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([math.nan, 0, 0, 0], "NaN or infinity"),
            ([math.inf, 0, 0, 0], "NaN or infinity"),
            ([1e39, 0, 0, 0], "beyond float32"),
            ([1, 2, 3], r"shape \(3,\): expected \(positions, 4\)"),
            ([[1, 2, 3, 4], [1, 2, 3, 4]], "a broadcast vector has one"),
            ([[[1, 2, 3, 4]]], "shape"),
            (np.zeros((0, 4)), "shape"),
            ([], "shape"),
            (5.0, "shape"),
            ([1j, 0, 0, 0], "not real numbers"),
            ([True, False, True, False], "not real numbers"),
            (["a", "b", "c", "d"], "not real numbers"),
            ([None] * 4, "not real numbers"),
            ([[1, 2], [3]], "can't be read as an array"),
        ],
    )
    def test_arrays_that_are_no_direction(self, rows, message):
        with pytest.raises(BadVector, match=message):
            SteeringVector({1: rows}, model=MODEL)

    @pytest.mark.parametrize("layer", ["1", 1.0, True, None, (1,)])
    def test_layers_that_are_no_integer(self, layer):
        with pytest.raises(BadVector, match="a layer is an integer"):
            SteeringVector({0: E1, layer: E1}, model=MODEL)

    @pytest.mark.parametrize("layer", [-1, 6, 10**20])
    def test_layers_that_the_model_lacks(self, layer):
        with pytest.raises(NotFound, match="its layers are 0 to 5"):
            SteeringVector({layer: E1}, model=MODEL)

    def test_other_refusals_of_the_constructor(self):
        with pytest.raises(BadVector, match="at least one layer"):
            SteeringVector({}, model=MODEL)
        with pytest.raises(BadVector, match="scope 'everywhere'"):
            vector(E1, scope="everywhere")

    @pytest.mark.parametrize("ref", ["", "love anger", "love - anger", "a.b.c.d", "a.", "1", "a()"])
    def test_a_ref_is_spelt_like_one(self, ref):
        with pytest.raises(BadVector, match="no reference"):
            vector(E1, ref=ref)

    @pytest.mark.parametrize("value", [math.nan, math.inf, None, "x", [1]])
    def test_measurements_are_finite_numbers(self, value):
        with pytest.raises(BadVector, match="residual norm"):
            vector(E1, residual_norms={1: value})
        with pytest.raises(BadVector, match="agreement"):
            vector(E1, diagnostics={1: {"agreement": value}})


class TestFrozen:
    def test_the_input_is_copied(self):
        source = np.array([[1.0, 2, 3, 4]], dtype=np.float32)
        a = SteeringVector({1: source}, model=MODEL)
        before = a.digest
        source[:] = 0
        assert values(a) == {1: [[1, 2, 3, 4]]}
        assert SteeringVector(a.directions, model=MODEL).digest == before

    @given(any_vector)
    def test_arrays_are_read_only_float64(self, a):
        for made in (a, 0.1 * a, a[a.layers[0]], pickle.loads(pickle.dumps(a))):
            for direction in made.directions.values():
                assert direction.dtype == np.float64
                assert direction.ndim == 2
                with pytest.raises(ValueError, match="read-only"):
                    direction[0, 0] = 1

    def test_attributes_and_mappings_cannot_be_set(self):
        a = vector(E1, residual_norms={1: 10}, diagnostics={1: {"agreement": 1.0}})
        for name in ("directions", "model", "recipe", "ref", "norm", "digest", "anything"):
            with pytest.raises(AttributeError, match="frozen"):
                setattr(a, name, None)
        with pytest.raises(AttributeError, match="frozen"):
            del a.ref
        for mapping in (a.directions, a.residual_norms, a.diagnostics, a.diagnostics[1]):
            with pytest.raises(TypeError):
                mapping["agreement"] = 0

    def test_measurements_are_copied_as_plain_floats(self):
        notes = {"agreement": np.float32(0.5)}
        norms = {1: np.float32(10)}
        a = vector(E1, residual_norms=norms, diagnostics={1: notes})
        notes["agreement"], norms[1] = 0, 0
        assert json.dumps([dict(a.residual_norms), dict(a.diagnostics[1])]) == (
            '[{"1": 10.0}, {"agreement": 0.5}]'
        )

    def test_measurements_of_layers_it_lacks_are_dropped(self):
        a = vector(E1, residual_norms={1: 10, 2: 20}, diagnostics={3: {"agreement": 1.0}})
        assert dict(a.residual_norms) == {1: 10}
        assert not a.diagnostics

    @given(any_vector)
    def test_it_survives_pickling_and_copying(self, a):
        a = SteeringVector(
            a.directions,
            model=MODEL,
            scope=a.scope,
            ref=a.ref,
            recipe=Contrast(("x",), ("y",)),
            residual_norms=dict.fromkeys(a.layers, 2.0),
            diagnostics={b: {"agreement": 1.0} for b in a.layers},
        )
        for made in (a, a / 3):
            for again in (pickle.loads(pickle.dumps(made)), copy.copy(made), copy.deepcopy(made)):
                assert again == made
                assert values(again) == values(made)
                assert (again.model, again.recipe, again.ref) == (made.model, made.recipe, made.ref)
                assert again.residual_norms == made.residual_norms
                assert again.diagnostics == made.diagnostics

    @given(families(2))
    def test_equality_and_hash_go_by_digest(self, pair):
        a, b = pair
        assert (a == b) == (a.digest == b.digest)
        assert len({a, b, a * 1}) == len({a.digest, b.digest})
        assert a != a.digest
        assert a != None  # noqa: E711
        assert a != np.ones(4)


class TestDigest:
    @given(any_vector)
    def test_it_is_what_the_format_says(self, a):
        header = {
            "format": "steerlab.digest.1",
            "layers": list(a.layers),
            "model": ["llama", 6, 4, "f0"],
            "scope": a.scope,
            "shapes": [list(x.shape) for x in a.directions.values()],
        }
        text = json.dumps(header, sort_keys=True, separators=(",", ":"))
        data = b"".join((x.astype("<f4") + np.float32(0)).tobytes() for x in a.directions.values())
        assert a.digest == hashlib.sha256(text.encode() + data).hexdigest()

    @given(any_vector)
    def test_it_ignores_order_layout_dtype_ref_and_recipe(self, a):
        def again(change, **options):
            arrays = {b: change(a.directions[b]) for b in reversed(a.layers)}
            return SteeringVector(arrays, model=MODEL, scope=a.scope, **options).digest

        assert again(np.asfortranarray) == a.digest
        assert again(lambda x: np.repeat(x, 2, axis=1)[:, ::2]) == a.digest
        assert again(lambda x: x[::-1, ::-1].copy()[::-1, ::-1]) == a.digest
        assert again(lambda x: x.astype(np.float32)) == a.digest
        assert again(lambda x: x.astype(">f4")) == a.digest
        assert again(lambda x: x.astype(np.longdouble)) == a.digest
        assert again(lambda x: x.tolist(), ref="other.v2") == a.digest
        assert again(lambda x: x, recipe=Contrast(("a",), ("b",))) == a.digest
        assert again(lambda x: x, residual_norms={0: 1.0}) == a.digest

    def test_half_and_integer_arrays_are_read(self):
        assert vector(np.array(E1, np.float16)) == vector(np.array(E1, np.int8)) == vector(E1)

    def test_non_contiguous_arrays_are_stored_right(self):
        table = np.arange(24, dtype=np.float32).reshape(4, 6)
        a = SteeringVector({1: table[:, 2]}, model=MODEL)
        assert values(a) == {1: [[2, 8, 14, 20]]}
        assert np.frombuffer(a.float32()[1].tobytes(), "<f4").tolist() == [2, 8, 14, 20]
        front = SteeringVector({1: table.T}, model=MODEL, scope="front")
        assert np.frombuffer(front.float32()[1].tobytes(), "<f4").tolist() == (
            table.T.ravel().tolist()
        )

    def test_negative_zero_folds(self):
        a, b = vector([-0.0, 1, 0, 0]), vector([0.0, 1, 0, 0])
        assert a == b
        negative = -a
        assert bits(a) == bits(b) == bits(-negative)
        assert not np.signbit(a.directions[1]).any()
        assert not np.signbit((-1e-30 * (1e-30 * b)).float32()[1]).any()

    def test_it_depends_on_all_that_matters(self):
        digests = {
            vector(E1).digest,
            vector(E2).digest,
            vector(E1, layer=2).digest,
            vector(E1, scope="front").digest,
            vector(E1, [0, 0, 0, 0], scope="front").digest,
            vector(E1, model=replace(MODEL, fingerprint="f1")).digest,
            vector(E1, model=replace(MODEL, architecture="gpt2")).digest,
            vector(E1, model=replace(MODEL, n_layers=7)).digest,
        }
        assert len(digests) == 8

    def test_two_processes_agree(self):
        script = (
            "import hashlib, tests.files.test_payload as t\n"
            "entries = t.sample_entries()\n"
            "print([v.digest for _, v in entries], hashlib.sha256(t.encode(entries)).hexdigest())"
        )
        printed = {
            subprocess.run(
                [sys.executable, "-c", script],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
                timeout=60,
            ).stdout
            for seed in ("0", "1")
        }
        assert len(printed) == 1


class TestRounding:
    third = (1 / 3, 0.0, 0.0, 0.0)

    @pytest.mark.parametrize("recipe", [None, Contrast(("a",), ("b",)), Imported("x")])
    def test_a_fresh_vector_is_rounded_at_once(self, recipe):
        a = vector(self.third, recipe=recipe)
        assert a.directions[1][0, 0] == np.float32(1 / 3)

    def test_an_expression_is_rounded_once_it_is_stored(self):
        recipe = Expression("a / 3", (Operand("a", "0" * 64),))
        assert vector(self.third, recipe=recipe).directions[1][0, 0] == 1 / 3
        stored = vector(self.third, recipe=recipe, ref="b.v1")
        assert stored.directions[1][0, 0] == np.float32(1 / 3)


class TestDose:
    a = SteeringVector(
        {1: [3, 0, 4, 0], 2: [0, 6, 0, 8]}, model=MODEL, residual_norms={1: 50, 2: 50}
    )

    def test_it_is_the_norm_over_the_residual_norm(self):
        assert self.a[1].doses() == {1: 0.1}
        assert self.a[2].dose(2) == self.a[2].dose(-2) == 0.4
        assert self.a.dose(0) == 0
        assert self.a[1].dose(1) == 0.1

    def test_what_earlier_layers_added_counts_with_each_layer(self):
        total = math.hypot(5, 10)  # 3, 6, 4, 8
        assert self.a.reaches() == {1: 5, 2: total}
        assert self.a.doses() == {1: 0.1, 2: total / 50}
        assert self.a.dose(-2) == 2 * total / 50

    def test_the_largest_sum_counts_and_not_the_last(self):
        back = SteeringVector(
            {1: [5, 0, 0, 0], 3: [-5, 0, 0, 0], 4: [0, 1, 0, 0]},
            model=MODEL,
            residual_norms={1: 50, 3: 50, 4: 50},
        )
        assert back.doses() == {1: 0.1, 3: 0, 4: 0.02}
        assert back.dose(1) == 0.1
        assert (back * 2).coefficient(0.1) == 0.5

    def test_a_layer_without_a_residual_norm_still_adds_to_those_after_it(self):
        partly = SteeringVector({1: [3, 0, 0, 0], 2: [0, 4, 0, 0]}, model=MODEL)
        known = SteeringVector(partly.directions, model=MODEL, residual_norms={2: 50})
        assert known.doses() == {1: None, 2: 0.1}

    def test_front_tensors_of_unequal_length_sum_to_the_longer_one(self):
        rows = {1: [[3, 0, 0, 0]], 2: [[0, 0, 0, 0], [0, 4, 0, 0]]}
        front = SteeringVector(rows, model=MODEL, scope="front", residual_norms={2: 50})
        assert front.dose(1) == 0.1

    def test_a_record_has_the_sums_only_of_several_layers(self):
        record = record_of(self.a, "a", 1)
        assert record.summed
        assert record.doses() == self.a.doses()
        assert "reach" not in record_of(self.a[1], "one", 1).to_json()["layers"][0]
        alone = replace(record, layers=tuple(replace(f, reach=None) for f in record.layers))
        assert not alone.summed
        assert alone.doses() == {1: 0.1, 2: 0.2}

    def test_coefficients_and_doses_are_inverse(self):
        assert self.a[2].coefficient(0.4) == 2
        assert self.a[2].coefficient(-0.4) == -2
        assert math.isclose(self.a.dose(self.a.coefficient(0.15)), 0.15)

    def test_a_front_tensor_counts_by_its_frobenius_norm_as_its_record_does(self):
        front = vector([3, 0, 0, 0], [0, 4, 0, 0], scope="front", residual_norms={1: 100})
        assert front.dose(1) == front.norm / 100 == 0.05
        assert record_of(front, "front", 1).doses() == front.doses()

    def test_unknown_residual_norms(self):
        partly = SteeringVector({1: E1, 2: E1}, model=MODEL, residual_norms={1: 10})
        assert partly.doses() == {1: 0.1, 2: None}
        assert partly.dose(1) == 0.1
        assert vector(E1).dose(1) is None
        assert vector(E1, residual_norms={1: 0}).dose(1) is None
        with pytest.raises(Incompatible, match="give a coefficient"):
            vector(E1).coefficient(0.1)
        with pytest.raises(Incompatible, match="is zero"):
            (0 * self.a).coefficient(0.1)

    def test_residual_norms_are_inherited(self):
        assert (self.a - 2 * self.a[1]).residual_norms == self.a.residual_norms
        assert (vector(E1) + self.a).residual_norms == self.a.residual_norms


class TestNormsAndCosines:
    def test_norms(self):
        a = vector([3, 0, 4, 0], layer=1) + vector([0, 12, 0, 0], layer=2)
        assert a.norms() == {1: 5, 2: 12}
        assert a.norm == 13

    def test_norms_survive_the_whole_range(self):
        big = vector([3e38, 3e38, 0, 0])
        assert math.isclose(big.norm, 3e38 * math.sqrt(2), rel_tol=1e-6)
        assert math.isclose(unit(big).norm, 1)
        assert math.isclose(vector([1e-37, 0, 0, 0]).norm, 1e-37, rel_tol=1e-6)

    def test_cosines(self):
        a = vector(E1, layer=1) + vector(E2, layer=2)
        b = vector([2, 0, 0, 0], layer=1) + vector([0, 0, 3, 0], layer=3)
        assert a.cosines(b) == {1: 1}
        assert a.cosines(-b) == {1: -1}
        assert a.cosines(a) == {1: 1, 2: 1}
        assert a.cosines(0 * a) == {1: 0, 2: 0}
        front = vector(E1, E2, scope="front")
        assert math.isclose(front.cosines(vector(E1, scope="front"))[1], math.sqrt(0.5))

    @given(families(2))
    def test_cosines_are_symmetric_and_bounded(self, pair):
        a, b = pair
        assert a.cosines(b) == b.cosines(a)
        assert all(abs(c) <= 1 + 1e-9 for c in a.cosines(b).values())


class TestRandomLike:
    @given(any_vector, st.integers(0, 2**64))
    def test_norms_are_matched(self, a, seed):
        control = random_like(a, seed)
        assert control.layers == a.layers
        assert control.scope == a.scope
        for b, norm in a.norms().items():
            assert math.isclose(control.norms()[b], norm, rel_tol=1e-6, abs_tol=1e-37)
            assert (control.directions[b].shape) == a.directions[b].shape

    def test_it_is_seeded_layer_by_layer(self):
        a = SteeringVector({1: E1, 2: E2}, model=MODEL)
        assert random_like(a, 0) == random_like(a, 0)
        assert random_like(a, 0) != random_like(a, 1)
        assert values(random_like(a, 3))[2] == values(random_like(a[2], 3))[2]
        assert values(random_like(a, 3))[1] != values(random_like(a, 3))[2]

    def test_zero_rows_stay_zero(self):
        control = random_like(vector([0, 0, 0, 0], E1, scope="front"), 0)
        assert not control.directions[1][0].any()
        assert control.directions[1][1].all()
        assert random_like(0 * vector(E1), 0).norm == 0

    def test_it_keeps_the_residual_norms_and_says_what_it_is(self):
        a = vector(E1, residual_norms={1: 10}, ref="love.v1")
        control = random_like(a, 7)
        assert math.isclose(control.dose(1), a.dose(1), rel_tol=1e-6)
        assert control.recipe == Imported("random_like(love.v1, seed=7)", "random")

    def test_a_seed_is_not_negative(self):
        for like in (random_like, control_like):
            with pytest.raises(BadOption, match="seed"):
                like(vector(E1), -1)

    @given(st.integers(0, 2**64), st.integers(0, 2**64))
    def test_a_control_is_no_random_vector_of_any_seed(self, seed, other):
        a = SteeringVector({1: E1, 2: E2}, model=MODEL)
        control = control_like(a, seed)
        assert control == control_like(a, seed)
        assert control.norms() == pytest.approx(a.norms())
        for b in a.layers:
            assert abs(control.cosines(random_like(a, other))[b]) < 1 - 1e-9
            assert abs(control.cosines(random_like(a, seed))[b]) < 1 - 1e-9


class TestLineage:
    love, anger = vector(E1, ref="love.v1"), vector(E2, ref="anger.v2")

    @pytest.mark.parametrize(
        ("make", "text"),
        [
            (lambda a, b: a - 0.5 * b, "love.v1 - 0.5 * anger.v2"),
            (lambda a, b: -(a + b), "-(love.v1 + anger.v2)"),
            (lambda a, b: -a + b, "-love.v1 + anger.v2"),
            (lambda a, b: a - (a - b), "love.v1 - (love.v1 - anger.v2)"),
            (lambda a, b: (a - b) - a, "love.v1 - anger.v2 - love.v1"),
            (lambda a, b: (a + b) * 2, "(love.v1 + anger.v2) * 2"),
            (lambda a, b: -2 * a, "-2 * love.v1"),
            (lambda a, b: a * -2, "love.v1 * -2"),
            (lambda a, b: a / 4.0, "love.v1 / 4"),
            (lambda a, b: 1e-9 * a, "1e-09 * love.v1"),
            (lambda a, b: 0.1 * a, "0.1 * love.v1"),
            (lambda a, b: 2.0**60 * a, "1.152921504606847e+18 * love.v1"),
            (lambda a, b: -0.0 * a, "0 * love.v1"),
            (lambda a, b: (a + b)[1], "(love.v1 + anger.v2)[1]"),
            (lambda a, b: unit(a) + mean(a, b), "unit(love.v1) + mean(love.v1, anger.v2)"),
            (lambda a, b: project(a, reject(b, a)), "project(love.v1, reject(anger.v2, love.v1))"),
        ],
    )
    def test_a_derived_vector_knows_how_it_was_made(self, make, text):
        made = make(self.love, self.anger)
        assert made.recipe.text == text
        assert str(made.recipe) == f"= {text}"
        assert str(made) == text
        assert made.ref is None
        operands = {o.ref: o.digest for o in made.recipe.operands}
        known = {"love.v1": self.love.digest, "anger.v2": self.anger.digest}
        assert operands.items() <= known.items()
        assert tuple(operands) == parse(text).refs

    def test_each_operand_is_listed_once(self):
        assert (self.love + self.love - self.anger + self.love).recipe.operands == (
            Operand("love.v1", self.love.digest),
            Operand("anger.v2", self.anger.digest),
        )

    def test_a_stored_expression_is_an_operand_by_its_name(self):
        kind = self.love - self.anger
        stored = SteeringVector(kind.directions, model=MODEL, recipe=kind.recipe, ref="kind.v1")
        assert (2 * stored).recipe == Expression(
            "2 * kind.v1", (Operand("kind.v1", stored.digest),)
        )

    def test_unsaved_operands_get_a_placeholder(self):
        fresh = vector(E1)
        name = f"unsaved_{fresh.digest[:12]}"
        assert placeholder_of(fresh.digest) == name
        assert operand_of(fresh) == (name, {name: fresh.digest})
        assert (fresh - self.anger).recipe.text == f"{name} - anger.v2"
        assert fresh.digest in {o.digest for o in (2 * fresh).recipe.operands}

    def test_one_ref_with_two_meanings_is_kept_apart(self):
        mine, theirs = vector(E1, ref="love.v1"), vector(E2, ref="love.v1")
        both = 2 * mine - 3 * (theirs + self.anger)
        name = placeholder_of(theirs.digest)
        assert both.recipe.text == f"2 * love.v1 - 3 * ({name} + anger.v2)"
        assert both.recipe.operands == (
            Operand("love.v1", mine.digest),
            Operand(name, theirs.digest),
            Operand("anger.v2", self.anger.digest),
        )
        known = {"love.v1": mine, name: theirs, "anger.v2": self.anger}
        assert evaluate(both.recipe.text, known.__getitem__) == both
        assert mean(theirs, mine, theirs).recipe.text.startswith("mean(love.v1, unsaved_")

    @pytest.mark.parametrize(
        ("text", "renamed", "expected"),
        [
            ("a + b", {"a": "love.v1"}, "love.v1 + b"),
            ("a - b", {"a": "b", "b": "a"}, "b - a"),
            ("love.v1 - love", {"love": "hate.v3"}, "love.v1 - hate.v3"),
            ("m.a.v1 + a.v1", {"a.v1": "b.v1"}, "m.a.v1 + b.v1"),
            ("unit(unit_a) * 2", {"unit": "x", "unit_a": "c"}, "unit(c) * 2"),
            ("a[1:3] / 2", {"a": "b.v1"}, "b.v1[1:3] / 2"),
            ("a", {}, "a"),
        ],
    )
    def test_replace_refs(self, text, renamed, expected):
        assert replace_refs(text, renamed) == expected

    def test_a_long_chain_is_refused_in_words_and_not_by_a_crash(self):
        chain = [self.love]

        def grow() -> None:
            while True:
                chain.append(chain[-1] + self.anger)

        with pytest.raises(BadExpression, match=r"nested too deeply.*mean"):
            grow()
        longest = chain[-1]
        assert len(chain) > 90
        known = {"love.v1": self.love, "anger.v2": self.anger}
        assert evaluate(longest.recipe.text, known.__getitem__) == longest
        assert replace_refs(longest.recipe.text, {"love.v1": "x"}).startswith("x + ")

    def test_what_can_be_made_can_be_read_on_a_deep_stack(self):
        total = self.love
        for _ in range(90):
            total = self.anger - total

        def deep(levels: int) -> SteeringVector:
            if levels:
                return deep(levels - 1)
            known = {"love.v1": self.love, "anger.v2": self.anger}
            return evaluate(total.recipe.text, known.__getitem__)

        assert deep(400) == total

    def test_it_is_shown_in_few_words(self):
        assert repr(self.love + vector(E1, layer=2, ref="b.v1")) == (
            "<SteeringVector love.v1 + b.v1: tiny, layers 1-2, broadcast, norm 1.414>"
        )
        assert repr(self.love) == "<SteeringVector love.v1: tiny, layer 1, broadcast, norm 1>"

    def test_raw_means_are_known(self):
        assert is_raw_mean(vector(E1, recipe=Imported("x", "pt", "mean")))
        assert not is_raw_mean(vector(E1, recipe=Imported("x", "pt", "difference")))
        assert not is_raw_mean(self.love - self.anger)


def test_it_needs_no_torch():
    script = (
        "import sys, steerlab.core.vector, steerlab.core.expression, steerlab.files.payload;"
        "assert not {'torch', 'transformers', 'sqlmodel'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_model_identity_is_all_it_takes():
    model = ModelIdentity("x", "gpt2", 1, 1)
    assert SteeringVector({0: 5.0}, model=model).norm == 5
