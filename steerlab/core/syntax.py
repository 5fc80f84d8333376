"""An expression's text: parsed, and checked against a whitelist of nodes."""

from __future__ import annotations

import ast
import math
from dataclasses import dataclass

from steerlab.core.notation import refs_in, syntax_tree
from steerlab.core.recipe import FUNCTIONS
from steerlab.errors import BadExpression

_ADVICE = {
    "invalid syntax": "invalid syntax: write love - anger, 2*love or unit(love)",
    "invalid decimal literal": "a number needs * before a name: 2*love",
}
_ARITY = {"unit": 1, "project": 2, "reject": 2, "mean": None}
_SPACES = str.maketrans(
    dict.fromkeys("\t\n\r\f\v", " ")
)  # one line, so that a column is a position


@dataclass(frozen=True)
class Parsed:
    """A well-formed expression; nothing has been looked up yet."""

    text: str
    tree: ast.expr

    def __str__(self) -> str:
        return ast.unparse(self.tree)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parsed) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def refs(self) -> tuple[str, ...]:
        """The vectors it names, each once, in order: "love", "smollm2.love.v2"."""
        return refs_in(str(self))

    def column(self, node: ast.AST) -> int:
        """1-based column of a node in characters; the parser counts UTF-8 bytes."""
        line = self.text.translate(_SPACES)
        code = line.lstrip()
        before = code.encode()[: getattr(node, "col_offset", 0)].decode(errors="ignore")
        return len(line) - len(code) + len(before) + 1

    def refusal(self, node: ast.AST, why: str) -> BadExpression:
        """The error of a node, with its column."""
        return BadExpression(why, text=self.text, column=self.column(node))


def parse(text: str) -> Parsed:
    """Parse an expression; raises BadExpression with the column of the error."""
    source = text.translate(_SPACES).rstrip()
    stripped = source.lstrip()
    if not stripped:
        raise BadExpression("the expression is empty: try love - anger", text=text)
    shift = len(source) - len(stripped)
    for mark in ("#", "\\", "\0"):
        if mark in stripped:
            column = source.index(mark) + 1
            raise BadExpression(f"{mark!r} is not allowed", text=text, column=column)
    try:
        tree = syntax_tree(stripped)
    except SyntaxError as error:
        message, offset = error.msg.split(". Per")[0].split("; use sys")[0], error.offset
        if not offset and message == "invalid syntax":  # it ran out of text
            offset = len(stripped) + 1
        if offset and offset > len(stripped):
            message = "it stops too early"
        message = _ADVICE.get(message, message)
        raise BadExpression(
            f"not an expression: {message}", text=text, column=(offset or 1) + shift
        ) from None
    except ValueError as error:
        raise BadExpression(f"not an expression: {error}", text=text) from None
    parsed = Parsed(text, tree)
    _Checker(parsed).check(tree)
    return parsed


class _Checker:
    """Checks nodes against the whitelist; every refusal names its column."""

    def __init__(self, parsed: Parsed) -> None:
        self.refuse = parsed.refusal

    def check(self, node: ast.AST) -> None:
        match node:
            case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div()):
                self.check(node.left)
                self.check_no_plus(node.right)
                self.check(node.right)
            case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
                self.check_no_plus(node.operand)
                self.check(node.operand)
            case ast.Constant(value=value):
                if type(value) not in (int, float):
                    raise self.refuse(node, f"{ast.unparse(node)} is neither a vector nor a number")
                self.check_number(node)
            case ast.Name(id=name):
                if name in FUNCTIONS:
                    raise self.refuse(node, f"{name} is a function: write {name}(…)")
            case ast.Attribute():
                self.check_reference(node)
            case ast.Subscript():
                self.check(node.value)
                self.check_layers(node.slice)
            case ast.Call():
                self.check_call(node)
            case _:
                known = "vectors, + - * /, numbers, parentheses, [layers] and " + ", ".join(
                    FUNCTIONS
                )
                what = ast.unparse(node)
                what = what if len(what) <= 40 else f"{what[:40]}…"
                raise self.refuse(node, f"{what!r} is not allowed: an expression holds {known}")

    def check_no_plus(self, node: ast.AST) -> None:
        """Refuse a plus after an operator, numbers aside: a vector is missing between them."""
        match node:
            case ast.UnaryOp(op=ast.UAdd(), operand=operand) if not isinstance(
                operand, ast.Constant
            ):
                raise self.refuse(node, "two operators in a row: what stands between them?")

    def check_number(self, node: ast.Constant) -> None:
        try:
            finite = math.isfinite(float(node.value))  # type: ignore[arg-type]
        except OverflowError:
            finite = False
        if not finite:
            raise self.refuse(node, "a weight has to be a finite number")

    def check_reference(self, node: ast.Attribute) -> None:
        part: ast.expr = node
        depth = 1
        while isinstance(part, ast.Attribute):
            part, depth = part.value, depth + 1
        if not isinstance(part, ast.Name) or depth > 3 or part.id in FUNCTIONS:
            raise self.refuse(
                node, "a vector is written name, name.v2, model.name or model.name.v2"
            )

    def check_layers(self, node: ast.AST) -> None:
        step = node.step if isinstance(node, ast.Slice) else None
        bounds = [node.lower, node.upper, step] if isinstance(node, ast.Slice) else [node]
        for bound in bounds:
            if bound is None:
                continue
            if not isinstance(bound, ast.Constant) or type(bound.value) is not int:
                raise self.refuse(bound, "layers are whole numbers from 0: [15] or [10:20]")
            if bound is step and bound.value == 0:
                raise self.refuse(bound, "a range of layers can't have step 0")

    def check_call(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
            raise self.refuse(node, f"the functions are {', '.join(FUNCTIONS)}")
        if node.keywords or any(isinstance(a, ast.Starred) for a in node.args):
            raise self.refuse(node, f"{node.func.id}() takes vectors only")
        wanted = _ARITY[node.func.id]
        if not node.args or (wanted is not None and len(node.args) != wanted):
            takes = (
                "at least one vector" if wanted is None else f"{wanted} vector{'s' * (wanted > 1)}"
            )
            raise self.refuse(node, f"{node.func.id}() takes {takes}, not {len(node.args)}")
        for argument in node.args:
            self.check(argument)
