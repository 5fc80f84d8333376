"""steerlab diff: two vectors side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerlab.cli.algebra import DASHES, term
from steerlab.cli.options import (
    complete_ref,
    json_option,
    model_filter_option,
    open_store,
    store_option,
)
from steerlab.cli.output import print_hanging, print_json, print_table, say
from steerlab.core.display import number, printable

if TYPE_CHECKING:
    from steerlab.evaluation.inspection.difference import Difference, LayerDifference

_COLOURS = {" ": None, "-": "red", "+": "green"}


@click.command("diff", context_settings=DASHES)
@click.argument("a", shell_complete=complete_ref)
@click.argument("b", shell_complete=complete_ref)
@model_filter_option
@store_option
@json_option
def diff_command(a: str, b: str, model: str | None, store_path: Path | None, as_json: bool) -> None:
    """Put two vectors side by side.

    \b
    steerlab diff love joy
    steerlab diff love.v1 love.v2
    steerlab diff "love - anger" "unit(love)"

    Layer by layer: their cosine; "B in A", the multiple of B that A projects to, and the other
    way round; what A + B and A - B keep of the two norms (1: nothing cancels, 0: all does).
    Then how they were made: - is A's alone, + is B's alone.
    """
    from steerlab.evaluation.inspection.difference import difference

    store = open_store(store_path)
    found = difference(*(store.evaluate(term(x), model) for x in (a, b)))
    print_json(found.to_json()) if as_json else _print(found)


def _print(found: Difference) -> None:
    click.echo(click.style(f"- {printable(found.a)}", fg="red"))
    click.echo(click.style(f"+ {printable(found.b)}", fg="green"))
    click.echo()
    columns = ["layer", "norm A", "norm B", "cosine", "B in A", "A in B", "A+B keeps", "A-B keeps"]
    print_table(columns, [_row(layer) for layer in found.layers], right=columns)
    shared = [x for x in found.layers if None not in (x.norm_a, x.norm_b)]
    if not shared:
        say("they share no layer: A + B would put both side by side, and cancel nothing")
    click.echo()
    edge = max(len(line.label) for line in found.recipe) + 2
    for line in found.recipe:
        label = f"{line.sign} {line.label.ljust(edge)}"
        print_hanging(label, line.text, fg=_COLOURS[line.sign])


def _row(layer: LayerDifference) -> list[str]:
    cosine = "-" if layer.cosine is None else f"{layer.cosine:+.3f}"
    kept = [layer.sum_keeps, layer.difference_keeps]
    return [
        str(layer.layer),
        number(layer.norm_a, 4),
        number(layer.norm_b, 4),
        cosine,
        *("-" if x is None else f"{x:+.3f}" for x in (layer.b_in_a, layer.a_in_b)),
        *("-" if x is None else f"{x:.2f}" for x in kept),
    ]
