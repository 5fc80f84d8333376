"""The recipes of computed vectors: an expression's text and operands.

In memory an expression names its operands: `love.v1 - 0.5 * anger.v1`. In rows and payloads it
numbers them, `_1 - 0.5 * _2`, beside a list of their digests, so that renaming a vector does not
change what was made from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from steerlab.core.notation import canonical, placeholder_of, replace_refs
from steerlab.core.recipe import Expression, Operand, Recipe


class _Named(Protocol):
    """The attributes of a SteeringVector that lineage needs; its file imports this one."""

    @property
    def ref(self) -> str | None: ...
    @property
    def recipe(self) -> Recipe: ...
    @property
    def digest(self) -> str: ...


def operand_of(vector: _Named) -> tuple[str, dict[str, str]]:
    """The text for this vector in an expression, and ref -> digest of all refs in it.

    A stored vector gives its ref, an unstored expression its text. Any other vector gives a
    placeholder made from its digest, which the store replaces when that vector is saved.
    """
    if vector.ref is not None:
        return vector.ref, {vector.ref: vector.digest}
    if isinstance(vector.recipe, Expression):
        return vector.recipe.text, {o.ref: o.digest for o in vector.recipe.operands}
    placeholder = placeholder_of(vector.digest)
    return placeholder, {placeholder: vector.digest}


def expression_of(template: str, parents: Sequence[_Named]) -> Expression:
    """The recipe of a vector made from `parents`, whose texts fill the template's braces."""
    texts: list[str] = []
    operands: dict[str, str] = {}
    for parent in parents:
        text, named = operand_of(parent)
        if any(operands.get(ref, digest) != digest for ref, digest in named.items()):
            text, named = _disambiguated(text, named, operands)
        texts.append(text)
        operands.update(named)
    return Expression(
        canonical(template.format(*texts)),
        tuple(Operand(ref, digest) for ref, digest in operands.items()),
    )


def _disambiguated(
    text: str, named: dict[str, str], taken: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    """Rename refs that already mean another vector (two stores may both have love.v1)."""
    renamed = {
        ref: placeholder_of(digest) if taken.get(ref, digest) != digest else ref
        for ref, digest in named.items()
    }
    return replace_refs(text, renamed), {renamed[ref]: d for ref, d in named.items()}


def numbered(expression: Expression) -> tuple[str, tuple[Operand, ...]]:
    """The canonical text with operands as _1, _2, …, and the operands in that order.

    Operands with equal digests are merged under the first name.
    """
    first: dict[str, Operand] = {}
    for operand in expression.operands:
        first.setdefault(operand.digest, operand)
    place = {digest: f"_{number}" for number, digest in enumerate(first, 1)}
    refs = {operand.ref: place[operand.digest] for operand in expression.operands}
    return replace_refs(expression.text, refs), tuple(first.values())


def named(text: str, operands: Sequence[Operand]) -> Expression:
    """Inverse of `numbered`, with the current names of the operands."""
    refs = {f"_{number}": operand.ref for number, operand in enumerate(operands, 1)}
    return Expression(replace_refs(text, refs), tuple(operands))
