"""The expression language: what it reads, what it refuses and where, and what it warns of."""

from __future__ import annotations

import ast
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.core.algebra import mean, project, reject, unit
from steerlab.core.display import some
from steerlab.core.expression import compose, composition_warnings, evaluate
from steerlab.core.notation import DEEPEST, LONGEST, canonical
from steerlab.core.recipe import FUNCTIONS, Imported
from steerlab.core.syntax import parse
from steerlab.errors import BadExpression, Incompatible, NotFound, SteerlabError
from tests.strategies import families, names, values, vector

A = vector([1, 2, 3, 4], layer=1, ref="a.v1") + vector([1, 0, 0, 0], layer=2, ref="a.v1")
LOVE = vector([1, 2, 3, 4], ref="love.v1")
ANGER = vector([4, 0, 2, 0], ref="anger.v1")
KNOWN = {"love": LOVE, "anger": ANGER, "love.v1": LOVE, "smollm2.love": LOVE, "m.love.v2": LOVE}
WIDE = vector([1, 0, 0, 0], layer=1) + vector([0, 1, 0, 0], layer=2) + vector([1, 1, 0, 0], layer=3)


def lookup(ref):
    if ref not in KNOWN:
        raise NotFound(f"no vector {ref}")
    return KNOWN[ref]


references = st.one_of(
    names,
    names.map(lambda name: f"{name}.v2"),
    st.tuples(names, names).map(".".join),
    st.tuples(names, names).map(lambda pair: f"{pair[0]}.{pair[1]}.v12"),
)
numbers = st.one_of(
    st.integers(0, 10**9).map(str), st.floats(0, 1e9).map(repr), st.sampled_from(["1e-3", "0x10"])
)
bounds = st.one_of(st.just(""), st.integers(0, 40).map(str))
layers = st.one_of(
    st.integers(0, 40).map(str),
    st.tuples(bounds, bounds).map(":".join),
    st.tuples(bounds, bounds, st.integers(1, 9).map(str)).map(":".join),
)


def bigger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.tuples(inner, inner)
    return st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", " * ", "/ "]), inner).map("".join),
        inner.map(lambda a: f"-{a}"),
        inner.map(lambda a: f"( {a})"),
        st.tuples(inner, layers).map(lambda pair: f"({pair[0]})[{pair[1]}]"),
        inner.map(lambda a: f"unit({a})"),
        pairs.map(lambda pair: f"project({pair[0]},{pair[1]})"),
        pairs.map(lambda pair: f"reject({pair[0]} , {pair[1]})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda found: f"mean({', '.join(found)})"),
    )


signed = numbers.map(lambda number: f"+ {number}")
unsigned = st.recursive(st.one_of(references, numbers, signed), bigger, max_leaves=8)
expressions = st.one_of(unsigned, unsigned.map(lambda a: f"+ {a}"))


class TestReading:
    @given(expressions)
    def test_parsing_the_text_of_an_expression_gives_it_back(self, text):
        expression = parse(text)
        assert parse(str(expression)) == expression
        assert hash(parse(str(expression))) == hash(expression)
        assert str(parse(str(expression))) == str(expression) == canonical(text)
        assert ast.dump(parse(str(expression)).tree) == ast.dump(expression.tree)
        assert parse(str(expression)).refs == expression.refs

    @pytest.mark.parametrize(
        ("text", "written"),
        [
            ("love-0.5*anger", "love - 0.5 * anger"),
            ("  love  ", "love"),
            ("((love))", "love"),
            ("love -\n\tanger", "love - anger"),
            ("(love\r\n- anger)", "love - anger"),
            ("(love\r- anger)", "love - anger"),
            ("love [ 10 : 20 ]", "love[10:20]"),
            ("(a+b)[3]/2", "(a + b)[3] / 2"),
            ("a+(b+c)", "a + (b + c)"),
            ("smollm2.love.v2", "smollm2.love.v2"),
            ("unit (love)", "unit(love)"),
            ("- -a", "--a"),
            ("1_000*a", "1000 * a"),
        ],
    )
    def test_one_spelling(self, text, written):
        assert str(parse(text)) == written
        assert parse(text) == parse(written)
        assert parse(text) != parse(f"2 * ({written})")
        assert parse(text).text == text

    def test_it_is_equal_to_expressions_only(self):
        assert parse("a") != "a"

    @pytest.mark.parametrize(
        ("text", "refs"),
        [
            ("love - 0.5*anger", ("love", "anger")),
            ("unit(love) + smollm2.calm.v2 - love", ("love", "smollm2.calm.v2")),
            ("mean(a.v1, a, a.v1)[1:3]", ("a.v1", "a")),
            ("project(a, reject(b, c))", ("a", "b", "c")),
            ("-(b)[2] / 3", ("b",)),
            ("2 * 3", ()),
        ],
    )
    def test_refs(self, text, refs):
        assert parse(text).refs == refs


BAD = [
    # text, column, a part of the message
    ("", None, "empty"),
    ("   \n", None, "empty"),
    ("love +", 7, "stops too early"),
    ("  love + ", 9, "stops too early"),
    ("é + ", 4, "stops too early"),
    ("love anger", 6, "invalid syntax: write love - anger, 2*love or unit(love)"),
    ("unit love", 6, "write love - anger, 2*love or unit(love)"),
    ("2love", 1, "a number needs * before a name"),
    ("love - (anger", 8, "never closed"),
    ("love]", 5, "unmatched"),
    ("love $ anger", 6, "invalid syntax"),
    ("é $ anger", 3, "invalid syntax"),
    ("爱爱 + $", 6, "invalid syntax"),
    ("love = anger", 6, "invalid syntax"),
    ("love; anger", 5, "invalid syntax"),
    ("love\nanger", 6, "invalid syntax"),
    ("love.2", 5, "invalid syntax"),
    ("love..v1", 6, "invalid syntax"),
    ("a +\u00a0b", 4, "non-printable"),
    ("love # - anger", 6, "'#' is not allowed"),
    ("  é # x", 5, "'#' is not allowed"),
    ("love \\\n - anger", 6, "is not allowed"),
    ("a + \0", 5, "is not allowed"),
    ("a + \ud800", None, "not an expression"),
    ("9" * 5000 + "*a", 1, "4300 digits"),
    ("love ** 2", 1, "'love ** 2' is not allowed"),
    ("a - love @ anger", 5, "not allowed"),
    ("a // 2", 1, "not allowed"),
    ("a % 2", 1, "not allowed"),
    ("~love", 1, "not allowed"),
    ("not love", 1, "not allowed"),
    ("a or b", 1, "not allowed"),
    ("a < b", 1, "not allowed"),
    ("a if b else c", 1, "not allowed"),
    ("lambda: a", 1, "not allowed"),
    ("2 * (x := a)", 6, "not allowed"),
    ("[a, b]", 1, "not allowed"),
    ("a, b", 1, "not allowed"),
    ("{a}", 1, "not allowed"),
    ("{'a': b}", 1, "not allowed"),
    ("[x for x in y]", 1, "not allowed"),
    ("a - f'{b}'", 5, "not allowed"),
    ("a - ...", 5, "neither a vector nor a number"),
    ("2j * a", 1, "neither a vector nor a number"),
    ("a + True", 5, "True is neither a vector nor a number"),
    ("a + None", 5, "None is neither"),
    ("a + 'b'", 5, "'b' is neither"),
    ("é + 'b'", 5, "'b' is neither"),
    ("爱 + b'b'", 5, "b'b' is neither"),
    ("  é - 1e999*a", 7, "finite"),
    ("a * " + "9" * 400, 5, "finite"),
    ("a - unit", 5, "unit is a function"),
    ("mean", 1, "mean is a function"),
    ("unit.v1", 1, "a vector is written"),
    ("a + b.c.d.e", 5, "a vector is written"),
    ("unit(a).v1", 1, "a vector is written"),
    ("a + (b).c.v1.x", 5, "a vector is written"),
    ("a[0].v1", 1, "a vector is written"),
    ("a.__class__.__base__.__subclasses__()", 1, "the functions are"),
    ("print(a)", 1, "the functions are unit, project, reject, mean"),
    ("a + __import__('os')", 5, "the functions are"),
    ("unit(a)(b)", 1, "the functions are"),
    ("a.unit(b)", 1, "the functions are"),
    ("a + unit()", 5, "unit() takes 1 vector, not 0"),
    ("unit(a, b)", 1, "unit() takes 1 vector, not 2"),
    ("project(a)", 1, "project() takes 2 vectors, not 1"),
    ("mean()", 1, "at least one vector"),
    ("mean(*a)", 1, "takes vectors only"),
    ("unit(vector=a)", 1, "takes vectors only"),
    ("unit(a for a in b)", 5, "not allowed"),
    ("unit(a, b.c.d.e)", 1, "takes 1 vector"),
    ("mean(a, 'b')", 9, "neither"),
    ("love[-1]", 6, "whole numbers"),
    ("love[1.0]", 6, "whole numbers"),
    ("love[True]", 6, "whole numbers"),
    ("love[1, 2]", 6, "whole numbers"),
    ("love[a]", 6, "whole numbers"),
    ("é + love['x':]", 10, "whole numbers"),
    ("love[1:-2]", 8, "whole numbers"),
    ("love[1:5:0]", 10, "step 0"),
    ("love[]", 6, "invalid syntax"),
    ("love[1:2:3:4]", 11, "invalid syntax"),
]

BAD_VALUES = [
    ("2", 1, "is a number, not a vector"),
    ("  3 * 4", 1, "is a number, not a vector"),
    ("-1e308 * 10", 1, "is a number, not a vector"),
    ("9" * 300 + "*" + "9" * 300, 1, "is a number, not a vector"),
    ("love + 1", 1, "a vector and a number can't be added"),
    ("anger - (1 - love)", 10, "a vector and a number can't be added"),
    ("2 * (love * anger)", 6, "two vectors can't be multiplied"),
    ("love / anger", 1, "can't divide by a vector"),
    ("1 / love", 1, "can't divide by a vector"),
    ("anger + love / 0", 9, "divide a vector by zero"),
    ("anger + 1 / 0 * love", 9, "division by zero"),
    ("anger + love / (1 - 1)", 9, "divide a vector by zero"),
    ("anger + 1e308 * 10 * love", 9, "finite"),
    ("9" * 300 + "*" + "9" * 300 + "* love", 1, "finite"),
    ("9" * 300 + "*" + "9" * 300 + "/ 7 * love", 1, "too large"),
    ("love + unit(3)", 13, "unit() takes vectors, not numbers"),
    ("mean(love, 2 * 3)", 12, "mean() takes vectors, not numbers"),
    ("love - 5[1]", 8, "[…] selects layers of a vector"),
    ("  love - unit(love - love)", 10, "is zero"),
]


def refused(text: str) -> BadExpression | None:
    try:
        parse(text)
    except BadExpression as error:
        return error
    return None


class TestRefusing:
    @pytest.mark.parametrize(("text", "column", "message"), BAD)
    def test_what_is_no_expression_is_refused_at_its_column(self, text, column, message):
        with pytest.raises(BadExpression) as caught:
            parse(text)
        assert message in str(caught.value)
        assert caught.value.column == column
        assert caught.value.text == text
        assert str(caught.value).endswith(f"(column {column})") == (column is not None)
        assert "\n" not in str(caught.value)

    def test_what_is_quoted_of_a_long_text_is_cut(self):
        with pytest.raises(BadExpression) as caught:
            parse(f"love - 'a{'-' * 5000}b'")
        assert len(str(caught.value)) < 400
        assert str(caught.value).endswith("b' is neither a vector nor a number (column 8)")

    @pytest.mark.parametrize(("text", "column", "message"), BAD_VALUES)
    def test_what_can_not_be_computed_is_refused_at_its_column(self, text, column, message):
        assert parse(text)
        with pytest.raises(BadExpression) as caught:
            evaluate(text, lookup)
        assert message in str(caught.value)
        assert caught.value.column == column
        assert str(caught.value).count("(column") == 1

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("love - hate", "no vector hate (column 8)"),
            ("  é - hate", "no vector é (column 3)"),
            ("love + m.hate.v1", "no vector m.hate.v1 (column 8)"),
            ("anger - love[7]", "no direction at layer 7: it has 1 (column 9)"),
            ("love[0:99999999999999999999]", "no direction at layer 0"),
            ("love[1:99999999999999999999]", "no direction at layer 2"),
        ],
    )
    def test_what_is_not_there_is_not_found_at_its_column(self, text, message):
        with pytest.raises(NotFound, match=r"column \d+\)$") as caught:
            evaluate(text, lookup)
        assert message in str(caught.value)

    @given(st.text(max_size=40) | st.text("lovev1. +-*/()[]:'#\\\n,=\0é", max_size=20))
    def test_any_text_is_an_expression_or_refused(self, text):
        refusal = refused(text)
        if refusal is not None:
            assert refusal.column is None or 1 <= refusal.column <= len(text) + 1
            return
        assert parse(str(parse(text))) == parse(text)
        with contextlib.suppress(SteerlabError):
            evaluate(text, lookup)

    @pytest.mark.parametrize(
        "nest",
        [
            lambda n: "(" * n + "a" + ")" * n,
            lambda n: "-" * n + "a",
            lambda n: "a" + " + a" * n,
            lambda n: "a + (" * n + "a" + ")" * n,
            lambda n: "unit(" * n + "a" + ")" * n,
            lambda n: "a" + "[1]" * n,
            lambda n: "a" + ".b" * n,
            lambda n: "[" * n + "a" + "]" * n,
            lambda n: "(" * n,
            lambda n: "a if a else " * n + "a",
        ],
    )
    @pytest.mark.parametrize("depth", [DEEPEST - 5, DEEPEST + 5, 190, 400, 2000, 9000, 40_000])
    def test_nesting_is_read_or_refused_and_never_crashes(self, nest, depth):
        text = nest(depth)
        refusal = refused(text)
        if refusal is not None:
            assert refusal.text == text
            return
        assert depth <= 190  # parentheses that change nothing leave no level behind
        assert parse(str(parse(text))) == parse(text)
        assert parse(text).refs == ("a",)

    def test_a_sum_of_ninety_is_read_and_a_mean_of_thousands(self):
        assert values(evaluate(" + ".join(["love"] * 90), lookup)) == values(90 * LOVE)
        assert evaluate(f"mean({', '.join(['love'] * 5000)})", lookup) == LOVE

    def test_a_very_long_text_is_refused(self):
        text = f"mean({', '.join(['a'] * LONGEST)})"
        with pytest.raises(BadExpression, match="characters"):
            parse(text)
        with pytest.raises(BadExpression, match="characters"):
            canonical(text)


class TestEvaluating:
    @pytest.mark.parametrize(
        ("text", "python"),
        [
            ("love - 0.5*anger", lambda: LOVE - 0.5 * ANGER),
            ("-(love + anger)", lambda: -(LOVE + ANGER)),
            ("love * 2 / 3", lambda: LOVE * 2 / 3),
            ("2 / 3 * love", lambda: 2 / 3 * LOVE),
            ("1/3*love + (2 - 5)*anger", lambda: 1 / 3 * LOVE + (2 - 5) * ANGER),
            ("-2 * -love", lambda: -2 * -LOVE),
            ("+love - +3*anger", lambda: +LOVE - +3 * ANGER),
            ("unit(love) + anger", lambda: unit(LOVE) + ANGER),
            ("project(love, anger) - reject(anger, love)",
             lambda: project(LOVE, ANGER) - reject(ANGER, LOVE)),
            ("mean(love, anger, love)", lambda: mean(LOVE, ANGER, LOVE)),
            ("(love - anger)[1]", lambda: (LOVE - ANGER)[1]),
            ("smollm2.love + m.love.v2", lambda: LOVE + LOVE),
            ("10000000000000000000000 * love", lambda: 10**22 * LOVE),
        ],
    )  # fmt: skip
    def test_text_and_python_agree_to_the_last_bit(self, text, python):
        from_text, from_python = evaluate(text, lookup), python()
        assert from_text.digest == from_python.digest
        assert values(from_text) == values(from_python)
        assert from_text.recipe == from_python.recipe
        assert evaluate(parse(text), lookup) == from_text

    def test_a_name_alone_is_that_vector(self):
        assert evaluate("love", lookup) is LOVE

    def test_errors_of_the_algebra_pass_through(self):
        front = vector([1, 0, 0, 0], scope="front")
        with pytest.raises(Incompatible, match="can't be combined"):
            compose("a + b", a=LOVE, b=front)

    @given(families(2))
    def test_compose_computes_over_vectors_at_hand(self, pair):
        a, b = pair
        assert compose("x - 0.5*y", x=a, y=b) == a - 0.5 * b
        assert compose("m.x.v1 + y", {"m.x.v1": a}, y=b).recipe == (a + b).recipe

    def test_compose_says_what_it_was_given(self):
        with pytest.raises(NotFound, match=r"no operand 'c' was given \(given: a, b\) \(column 5"):
            compose("a + c", a=LOVE, b=ANGER)
        with pytest.raises(NotFound, match="given: none"):
            compose("a")

    def test_operands_may_have_any_name(self):
        assert compose("operands + expression", operands=LOVE, expression=ANGER) == LOVE + ANGER

    def test_every_function_is_offered(self):
        for name in FUNCTIONS:
            with pytest.raises(BadExpression, match=f"{name} is a function"):
                parse(name)

    @pytest.mark.parametrize("text", ["a + + b", "a - + b", "-+b", "+ +b", "2*(a + +b)"])
    def test_a_plus_after_an_operator_is_a_slip(self, text):
        with pytest.raises(BadExpression, match="two operators in a row"):
            parse(text)


class TestWarnings:
    def found(self, text, **operands):
        return composition_warnings(parse(text), compose(text, **operands), operands)

    def test_nothing_to_say(self):
        assert self.found("a - 0.5*b", a=LOVE, b=ANGER) == []

    def test_a_zero_result(self):
        (warning,) = self.found("a - a", a=LOVE)
        assert "zero" in warning
        assert composition_warnings(parse("a"), LOVE, {"a": LOVE}) == []

    def test_one_operand_that_is_nearly_all_of_a_sum(self):
        (warning,) = self.found("unit(a) - 10*b", a=LOVE, b=ANGER)
        assert warning.startswith("b is 100% of the result")
        for quiet in ("unit(a) - 0.5*unit(b)", "project(a, b)", "reject(a, b)"):
            assert self.found(quiet, a=LOVE, b=ANGER) == []

    def test_differing_layers(self):
        (warning,) = self.found("a + b", a=LOVE, b=vector([1, 2, 3, 4], layer=2))
        assert warning.startswith("the operands stand at different layers (a at 1, b at 2)")
        (warning,) = self.found("a + b", a=LOVE, b=WIDE)
        assert "b at 1-3" in warning

    def test_a_raw_mean_among_differences(self):
        raw = vector([1, 2, 0, 0], recipe=Imported("x.pt", "pt", "mean"))
        (warning,) = self.found("a + b", a=LOVE, b=raw)
        assert warning.startswith("b is a raw mean activation")
        assert self.found("a + b", a=raw, b=2 * raw) != []
        assert self.found("a + b", a=raw, b=raw) == []

    def test_operands_of_very_different_size(self):
        (warning,) = self.found("a + b", a=LOVE, b=100 * ANGER)
        assert warning.startswith("a (norm 5.48) all but vanishes beside b (norm 447)")
        assert self.found("a + b", a=LOVE, b=0 * ANGER) == []

    def test_operands_that_nearly_cancel(self):
        (warning,) = self.found("a - b", a=LOVE, b=LOVE + 0.01 * ANGER)
        assert warning.startswith("the operands nearly cancel: norm 0.0447 is left of 5.5")
        *_, warning = self.found("a - 1.0001*a + 0*b", a=LOVE, b=ANGER)
        assert warning.startswith("the operands nearly cancel")
        for scaled in ("2*(a - b)", "-(a - b)", "(a - b)/-2"):
            (warning,) = self.found(scaled, a=LOVE, b=LOVE + 0.01 * ANGER)
            assert warning.startswith("the operands nearly cancel: norm 0.0447 is left of 5.5")

    @pytest.mark.parametrize("text", ["unit(a) + unit(b)", "0.1*a - 0.1*b", "(a + b)/10"])
    def test_a_short_sum_is_no_cancellation(self, text):
        """Each term is compared as it stands in the sum, not as it is stored."""
        assert self.found(text, a=100 * LOVE, b=100 * ANGER) == []

    @pytest.mark.parametrize("text", ["mean(a, b) + mean(a, b)", "project(a, b) + project(a, b)"])
    def test_a_term_that_stands_twice_is_no_cancellation(self, text):
        assert self.found(text, a=LOVE, b=ANGER) == []

    def test_terms_on_one_scale_do_not_vanish(self):
        assert self.found("unit(a) + unit(b)", a=LOVE, b=100 * ANGER) == []
        assert "a is 100% of the result" in self.found("a - b/30", a=LOVE, b=ANGER)[0]


@pytest.mark.parametrize(
    ("count", "most", "said"),
    [(0, 5, ""), (1, 5, "n0"), (2, 2, "n0, n1"), (3, 2, "n0, n1 and 1 more")],
)
def test_several_names_are_told_by_the_first(count, most, said):
    assert some([f"n{i}" for i in range(count)], most) == said


def test_how_many_more_is_told_in_thousands():
    assert some(["n"] * 2005) == "n, n, n, n, n and 2,000 more"


def test_a_name_means_one_vector_and_is_looked_up_once():
    asked = []

    def looked_up(ref):
        asked.append(ref)
        return lookup(ref)

    evaluate("mean(love, love, love.v1) - love", looked_up)
    assert asked == ["love", "love.v1"]
