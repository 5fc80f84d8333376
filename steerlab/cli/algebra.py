"""Verbs of the algebra: compose, and the thin words add, scale and negate for it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.options import (
    Numbers,
    complete_ref,
    json_option,
    model_filter_option,
    open_store,
    store_option,
)
from steerlab.cli.output import describe_result, print_json, print_table, say_duplicates, warn
from steerlab.core.display import number, printable

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.registry import Store


def _composing(function: Any) -> Any:
    """The options of everything that stores a composed vector."""
    for option in (
        json_option,
        store_option,
        model_filter_option,
        click.option("--note", default="", help="What it is for."),
        click.option("--tag", "tags", multiple=True, help="A tag; may be repeated."),
        click.option("--dry-run", is_flag=True, help="Compute and report, store nothing."),
        click.option("--as", "name", metavar="NAME", help="Its name (default: derived)."),
    ):
        function = option(function)
    return function


DASHES = {"ignore_unknown_options": True, "help_option_names": ["--help"]}
"""-hate is part of an expression, not -h and more."""


@click.command("compose", context_settings=DASHES)
@click.argument("expression", nargs=-1, required=True, shell_complete=complete_ref)
@_composing
def compose_command(expression: tuple[str, ...], **options: Any) -> None:
    """Compute an expression of stored vectors: love - anger.

    \b
    steerlab compose love - anger
    steerlab compose "unit(love) - 0.5*anger" --as warm
    steerlab compose "reject(love, joy)[10:20]" --dry-run

    The result is stored. The arguments are joined with spaces; quote what your shell would
    take for itself: * ( ). There are + - * /, unit, project, reject, mean, [layers] and
    versions such as love.v2.
    """
    _compose(" ".join(map(term, expression)), **options)


@click.command("add", context_settings=DASHES)
@click.argument("refs", nargs=-1, required=True, shell_complete=complete_ref)
@_composing
def add_command(refs: tuple[str, ...], **options: Any) -> None:
    """Add vectors: compose a + b + …"""
    if len(refs) < 2:
        raise click.UsageError("give at least two vectors to add")
    _compose(" + ".join(map(_operand, refs)), **options)


@click.command("scale", context_settings=DASHES)
@click.argument("ref", shell_complete=complete_ref)
@click.argument("factor", type=Numbers(one=True))
@_composing
def scale_command(ref: str, factor: tuple[float], **options: Any) -> None:
    """Multiply a vector: compose FACTOR * a."""
    from steerlab.core.notation import number as weight

    _compose(f"{weight(factor[0])} * {_operand(ref)}", **options)


@click.command("negate", context_settings=DASHES)
@click.argument("ref", shell_complete=complete_ref)
@_composing
def negate_command(ref: str, **options: Any) -> None:
    """Turn a vector around: compose -a."""
    _compose(f"-{_operand(ref)}", **options)


def term(argument: str) -> str:
    """An argument of an expression; --dryrun is more likely a slip than a double negation."""
    if re.match(r"--[a-z]", argument):
        raise click.NoSuchOption(argument)
    return argument


def _operand(argument: str) -> str:
    """A ref as it is, anything longer in parentheses."""
    return argument if re.fullmatch(r"[\w.]+", term(argument)) else f"({argument})"


def _compose(
    expression: str,
    *,
    name: str | None,
    dry_run: bool,
    tags: tuple[str, ...],
    note: str,
    model: str | None,
    store_path: Path | None,
    as_json: bool,
) -> None:
    from steerlab.core.expression import composition_warnings, parse
    from steerlab.core.notation import derived_name
    from steerlab.core.recipe import check_name

    parsed = parse(expression)
    derived = name is None
    name = check_name(name or derived_name(str(parsed)))
    store = open_store(store_path)
    result = store.evaluate(expression, model)
    if derived and not dry_run:
        _check_derived(store, name, result)
    operands = {ref: store.load(ref, result.model) for ref in parsed.refs}
    for warning in composition_warnings(result, operands):
        warn(warning)
    stored, how = _stored(store, name, result, tags, note, dry_run)
    say_duplicates(store, stored)
    cosines = {ref: _mean(result.cosines(operand)) for ref, operand in operands.items()}
    if as_json:
        print_json(_report(stored, how, cosines))
        return
    title = click.style(stored.ref or name, bold=True)
    click.echo(f"{title}  {printable(str(stored.recipe))}  ({how})")
    click.echo(describe_result(stored))
    rows = [[ref, number(v.norm, 4), f"{cosines[ref]:+.3f}"] for ref, v in operands.items()]
    print_table(["operand", "norm", "cosine"], rows, right=["norm", "cosine"], wrap=["operand"])


def _check_derived(store: Store, name: str, result: SteeringVector) -> None:
    """Two formulas can give one name; then the second is not its next version."""
    from steerlab.errors import NameTaken, NotFound

    try:
        newest = store.load(name, result.model)
    except NotFound:
        return
    before, now = (re.sub(r"\.v\d+\b", "", str(v.recipe)) for v in (newest, result))
    if before != now:
        raise NameTaken(f"{name} is already {newest.recipe}: give this one a name with --as")


def _stored(
    store: Store,
    name: str,
    result: SteeringVector,
    tags: tuple[str, ...],
    note: str,
    dry_run: bool,
) -> tuple[SteeringVector, str]:
    """Save, unless it is a dry run or this very vector already stands under that name."""
    if dry_run:
        return result, "dry run, nothing stored"
    vector, new = store.keep(name, result, tags=tags, note=note)
    return vector, "stored" if new else "already stored"


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
