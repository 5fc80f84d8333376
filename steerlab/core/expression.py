"""The expression language: a subset of Python's syntax for vectors, weights and layers.

    love - 0.5*anger      unit(love) + smollm2.calm.v2      love[10:20]      mean(joy, love)

`ast.parse` parses it, a whitelist of nodes limits it, and the operators of `SteeringVector`
evaluate it, so that the shell, Python and the TUI agree to the last bit.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from functools import cache

from steerlab.core.algebra import is_raw_mean, mean, project, reject, unit
from steerlab.core.notation import span
from steerlab.core.recipe import Expression
from steerlab.core.syntax import Parsed, parse
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadExpression, NotFound

_FUNCTIONS: Mapping[str, Callable[..., SteeringVector]] = {
    "unit": unit,
    "project": project,
    "reject": reject,
    "mean": mean,
}
_OPERATORS: Mapping[type[ast.operator], Callable[[object, object], object]] = {
    ast.Add: lambda x, y: x + y,  # type: ignore[operator]
    ast.Sub: lambda x, y: x - y,  # type: ignore[operator]
    ast.Mult: lambda x, y: x * y,  # type: ignore[operator]
    ast.Div: lambda x, y: x / y,  # type: ignore[operator]
}
Value = SteeringVector | int | float
Lookup = Callable[[str], SteeringVector]


def evaluate(expression: str | Parsed, lookup: Lookup) -> SteeringVector:
    """Compute an expression; lookup: returns the vector of a ref such as "love.v2", once for each.

    Raises BadExpression if the result is not a vector, and whatever `lookup` raises; NotFound
    gets the column.
    """
    parsed = parse(expression) if isinstance(expression, str) else expression
    value = _Evaluation(parsed, cache(lookup)).of(parsed.tree)
    if not isinstance(value, SteeringVector):
        raise BadExpression(
            "the expression is a number, not a vector: name one", text=parsed.text, column=1
        )
    return value


def compose(
    expression: str,
    operands: Mapping[str, SteeringVector] | None = None,
    /,
    **named: SteeringVector,
) -> SteeringVector:
    """Compute an expression over the given vectors.

    compose("a - 0.5*b", a=love, b=anger); `operands` takes names with dots in them.
    """
    known = {**(operands or {}), **named}

    def lookup(ref: str) -> SteeringVector:
        if ref not in known:
            have = ", ".join(known) or "none"
            raise NotFound(f"no operand {ref!r} was given (given: {have})")
        return known[ref]

    return evaluate(expression, lookup)


def composition_warnings(
    parsed: Parsed, result: SteeringVector, operands: Mapping[str, SteeringVector]
) -> list[str]:
    """Warnings, in words: differing layers, cancellation, mixed kinds or sizes of operands.

    operands: by the refs of the parsed expression, whose value is `result`.
    """
    found = []
    layers = {ref: span(v.layers) for ref, v in operands.items()}
    if len(set(layers.values())) > 1:
        listed = ", ".join(f"{ref} at {where}" for ref, where in layers.items())
        found.append(
            f"the operands stand at different layers ({listed}): "
            "where one is missing it counts as zero"
        )
    raw = [ref for ref, v in operands.items() if is_raw_mean(v)]
    if raw and len(raw) < len(operands):
        found.append(
            f"{', '.join(raw)} is a raw mean activation among differences: it will dominate"
        )
    total, norms = _terms(parsed, operands)
    plain = {term: norm for term, norm in norms.items() if not set("*/([") & set(term)}
    largest = max(plain, key=lambda term: plain[term], default="")
    small = [term for term, norm in plain.items() if 0 < norm < plain[largest] / 20]
    if small:
        found.append(
            f"{small[0]} (norm {norms[small[0]]:.3g}) all but vanishes beside {largest} "
            f"(norm {norms[largest]:.3g}): {_ONE_SCALE}"
        )
    if not small and (main := _dominant(result, operands)):
        ref, share = main
        found.append(f"{ref} is {share:.0%} of the result: {_ONE_SCALE}")
    if result.norm == 0:
        found.append("the result is zero: steering with it changes nothing")
    elif len(norms) > 1 and len(operands) > 1 and total < 0.2 * sorted(norms.values())[-2]:
        most = max(norms.values())
        found.append(f"the operands nearly cancel: norm {total:.3g} is left of {most:.3g}")
    return found


_MOST = 0.95  # of a result: what is more is hardly a mixture
_ONE_SCALE = "unit(…) around each puts them on one scale"


def _terms(
    parsed: Parsed, operands: Mapping[str, SteeringVector]
) -> tuple[float, dict[str, float]]:
    """The norm of a sum, without a factor around it, and of each of its terms; 0 and {} if none."""
    value, node = _Evaluation(parsed, operands.__getitem__), parsed.tree
    while True:
        if isinstance(node, ast.UnaryOp):
            node = node.operand
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
            node = node.left if isinstance(value.of(node.left), SteeringVector) else node.right
        else:
            break
    terms = _summands(node)
    if len(terms) < 2:
        return 0.0, {}
    norms = {ast.unparse(term): value.vector(term, "").norm for term in terms}
    return value.vector(node, "").norm, norms


def _summands(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
        return [*_summands(node.left), *_summands(node.right)]
    return [node]


def _dominant(
    result: SteeringVector, operands: Mapping[str, SteeringVector]
) -> tuple[str, float] | None:
    """The one operand of a sum that makes up over 95% of it, by squared cosine, and its share."""
    recipe = result.recipe
    text = recipe.text if isinstance(recipe, Expression) else ""
    layers = {v.layers for v in operands.values()}
    zero = any(v.norm == 0 for v in operands.values())
    if (
        len(operands) < 2
        or len(layers) > 1
        or zero
        or any(f"{name}(" in text for name in ("project", "reject", "mean"))
    ):
        return None
    shares = {}
    for ref, operand in operands.items():
        cosines = result.cosines(operand).values()
        shares[ref] = (sum(cosines) / len(cosines)) ** 2 if cosines else 0.0
    large = [ref for ref, share in shares.items() if share > _MOST]
    return (large[0], shares[large[0]]) if len(large) == 1 else None


class _Evaluation:
    """One walk over a checked tree with the operators of SteeringVector."""

    def __init__(self, parsed: Parsed, lookup: Lookup) -> None:
        self.column, self.refuse, self.lookup = parsed.column, parsed.refusal, lookup

    def of(self, node: ast.expr) -> Value:
        match node:
            case ast.Constant(value=int() | float() as number):
                return number
            case ast.UnaryOp(op=op, operand=operand):
                value = self.of(operand)
                return -value if isinstance(op, ast.USub) else value
            case ast.BinOp(left=left, op=op, right=right):
                return self.binary(node, type(op), self.of(left), self.of(right))
            case ast.Subscript(value=base):
                vector = self.vector(base, "[…] selects layers of a vector, not of a number")
                return self.placed(node, lambda: vector[_layers(node.slice)])
            case ast.Call(func=ast.Name(id=name), args=args):
                vectors = [self.vector(a, f"{name}() takes vectors, not numbers") for a in args]
                return self.placed(node, lambda: _FUNCTIONS[name](*vectors))
        return self.operand(node)

    def operand(self, node: ast.expr) -> SteeringVector:
        return self.placed(node, lambda: self.lookup(ast.unparse(node)))

    def placed(self, node: ast.expr, compute: Callable[[], SteeringVector]) -> SteeringVector:
        """The result of `compute`; its errors get the column."""
        try:
            return compute()
        except NotFound as error:
            column = self.column(node)
            found = NotFound(f"{error} (column {column})")
            found.column, found.reason = column, str(error)
            raise found from None
        except BadExpression as error:
            raise self.refuse(node, str(error)) from None

    def vector(self, node: ast.expr, otherwise: str) -> SteeringVector:
        value = self.of(node)
        if not isinstance(value, SteeringVector):
            raise self.refuse(node, otherwise)
        return value

    def binary(self, node: ast.expr, op: type[ast.operator], x: Value, y: Value) -> Value:
        vectors = isinstance(x, SteeringVector) + isinstance(y, SteeringVector)
        if op in (ast.Add, ast.Sub) and vectors == 1:
            raise self.refuse(node, "a vector and a number can't be added")
        if op is ast.Mult and vectors == 2:
            raise self.refuse(node, "two vectors can't be multiplied: weights are numbers")
        if op is ast.Div and isinstance(y, SteeringVector):
            raise self.refuse(node, "can't divide by a vector")
        try:
            return _OPERATORS[op](x, y)  # type: ignore[return-value]
        except (ZeroDivisionError, OverflowError, BadExpression) as error:
            raise self.refuse(node, str(error)) from None


def _layers(node: ast.expr) -> int | slice:
    def whole(bound: ast.expr | None) -> int | None:
        return bound.value if isinstance(bound, ast.Constant) else None  # type: ignore[return-value]

    if isinstance(node, ast.Slice):
        return slice(whole(node.lower), whole(node.upper), whole(node.step))
    return int(whole(node) or 0)
