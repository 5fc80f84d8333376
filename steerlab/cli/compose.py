"""Verbs of the algebra: compose, and its short forms add, scale and negate."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output, types
from steerlab.core.display import number

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.registry import Store


def _composing(function: Any) -> Any:
    """The options of every verb that stores a composed vector."""
    for option in (
        options.json,
        options.store,
        options.model,
        options.note,
        options.tags,
        options.dry_run,
        click.option("--as", "name", metavar="NAME", help="Its name (default: derived)."),
    ):
        function = option(function)
    return function


@options.verb("compose", context_settings=options.DASHES)
@options.expression
@_composing
def compose_command(expression: str, **how: Any) -> None:
    """Compute an expression of stored vectors: love - anger.

    \b
    steerlab compose love - anger
    steerlab compose "unit(love) - 0.5*unit(anger)" --as warm
    steerlab compose "reject(love, joy)[10:20]" --dry-run

    The result is stored. Arguments are joined with spaces; quote what your shell would
    interpret: * ( ). Expressions have + - * /, unit, project, reject, mean, [layers] and
    versions such as love.v2.
    """
    _compose(expression, **how)


@options.verb("add", context_settings=options.DASHES)
@options.refs
@_composing
def add_command(refs: tuple[str, ...], **how: Any) -> None:
    """Add vectors: compose a + b + …"""
    if len(refs) < 2:
        raise click.UsageError("give at least two vectors to add")
    _compose(" + ".join(map(_operand, refs)), **how)


@options.verb("scale", context_settings=options.DASHES)
@options.ref
@click.argument("factor", type=types.NUMBER)
@_composing
def scale_command(ref: str, factor: float, **how: Any) -> None:
    """Multiply a vector: compose FACTOR * a."""
    from steerlab.core.notation import number as weight

    _compose(f"{weight(factor)} * {_operand(ref)}", **how)


@options.verb("negate", context_settings=options.DASHES)
@options.ref
@_composing
def negate_command(ref: str, **how: Any) -> None:
    """Reverse a vector: compose -a."""
    _compose(f"-{_operand(ref)}", **how)


def _operand(argument: str) -> str:
    """A ref as it is, anything longer in parentheses."""
    return argument if re.fullmatch(r"[\w.]+", options.term(argument)) else f"({argument})"


def _compose(
    expression: str,
    *,
    store: Store,
    name: str | None,
    dry_run: bool,
    model: str | None,
    **labels: Any,
) -> None:
    from steerlab.core.expression import composition_warnings
    from steerlab.core.notation import derived_name
    from steerlab.core.recipe import check_name
    from steerlab.core.syntax import parse
    from steerlab.registry.keep import keep

    parsed = parse(expression)
    chosen = check_name(derived_name(str(parsed)) if name is None else name)
    result = store.evaluate(expression, model)
    if name is None and not dry_run:
        _check_derived(store, chosen, result)
    operands = {ref: store.load(ref, result.model) for ref in parsed.refs}
    for warning in composition_warnings(parsed, result, operands):
        output.warn(warning)
    how = "dry run, nothing stored"
    _say_taken(store, chosen, result)
    if not dry_run:
        result, new = keep(store, chosen, result, **labels)
        how = "stored" if new else "already stored"
    output.say_duplicates(store, result)
    cosines = {ref: _mean(result.cosines(operand)) for ref, operand in operands.items()}
    if output.asked("json"):
        output.print_json(_report(result, how, cosines))
        return
    output.made(result, result.ref or chosen, f"  ({how})")
    rows = [[ref, number(v.norm, 4), f"{cosines[ref]:+.3f}"] for ref, v in operands.items()]
    output.table(["operand", "norm", "cosine"], rows, right=["norm", "cosine"], wrap=["operand"])


def _say_taken(store: Store, name: str, result: SteeringVector) -> None:
    """Say that a name in use gets its next version."""
    from steerlab.errors import NotFound

    try:
        newest = store.record(name, result.model)
    except NotFound:
        return
    if newest.digest != result.digest:
        made = f"{newest.ref} is {newest.recipe}"
        output.say(f"note: {name} is taken ({made}): this is its version {newest.version + 1}")


def _check_derived(store: Store, name: str, result: SteeringVector) -> None:
    """Refuse a derived name that another formula has; it is not the next version of that."""
    from steerlab.errors import NameTaken, NotFound

    try:
        newest = store.load(name, result.model)
    except NotFound:
        return
    before, now = (re.sub(r"\.v\d+\b", "", str(v.recipe)) for v in (newest, result))
    if before != now:
        raise NameTaken(f"{name} is already {newest.recipe}: give this one a name with --as")


def _report(vector: SteeringVector, how: str, cosines: dict[str, float]) -> dict[str, Any]:
    return {
        "ref": vector.ref,
        "status": how,
        "recipe": str(vector.recipe),
        "digest": vector.digest,
        "layers": list(vector.layers),
        "norm": vector.norm,
        "dose": vector.dose(1.0),
        "cosines": cosines,
    }


def _mean(cosines: dict[int, float]) -> float:
    return sum(cosines.values()) / len(cosines) if cosines else 0.0
