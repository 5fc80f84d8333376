"""Verbs that compare directions: diff of two, similar to one, map of all of a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output
from steerlab.cli.progress import interruptible, progress_bar
from steerlab.core.display import count, number, printable
from steerlab.core.notation import span

if TYPE_CHECKING:
    from steerlab.evaluation.inspection.difference import Difference, LayerDifference
    from steerlab.plots.store_map import StoreMap
    from steerlab.registry import Store
    from steerlab.registry.neighbours import Neighbour

_COLOURS = {" ": None, "-": "red", "+": "green"}


@options.verb("diff", context_settings=options.DASHES)
@click.argument("a", shell_complete=options.complete_ref)
@click.argument("b", shell_complete=options.complete_ref)
@options.model
@options.store
@options.json
def diff_command(a: str, b: str, model: str | None, store: Store) -> None:
    """Compare two vectors side by side.

    \b
    steerlab diff love joy
    steerlab diff love.v1 love.v2
    steerlab diff "love - anger" "unit(love)"

    For each layer: the cosine; "B in A", the multiple of B that A projects to, and "A in B";
    the share of the two norms that A + B and A - B keep (1: nothing cancels, 0: everything
    does). Then the recipes: - marks what only A has, + what only B has.
    """
    from steerlab.evaluation.inspection.difference import difference

    output.show(difference(*(store.evaluate(options.term(x), model) for x in (a, b))), _print_diff)


def _print_diff(found: Difference) -> None:
    click.echo(click.style(f"- {printable(found.a)}", fg="red"))
    click.echo(click.style(f"+ {printable(found.b)}", fg="green"))
    click.echo()
    columns = ["layer", "norm A", "norm B", "cosine", "B in A", "A in B", "A+B keeps", "A-B keeps"]
    output.table(columns, [_row(layer) for layer in found.layers], right=columns)
    shared = [x for x in found.layers if None not in (x.norm_a, x.norm_b)]
    if not shared:
        output.say("they share no layer: A + B keeps both, and nothing cancels")
    click.echo()
    edge = max(len(line.label) for line in found.recipe) + 2
    for line in found.recipe:
        label = f"{line.sign} {line.label.ljust(edge)}"
        output.hanging(label, line.text, fg=_COLOURS[line.sign])


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


@options.verb("similar")
@options.ref
@options.limit()
@options.model
@options.store
@options.json
@options.quiet
def similar_command(ref: str, limit: int, model: str | None, store: Store) -> None:
    """List a vector's nearest neighbours.

    By cosine over the layers that both have; opposite vectors count as near. Ctrl-C stops and
    shows the nearest so far.
    """
    with interruptible() as stop, progress_bar("comparing") as progress:
        found = store.similar(ref, model=model, limit=limit, should_stop=stop, progress=progress)
    if found or output.asked("json"):
        output.show(found, _print_similar)
    else:
        output.say(f"no other vector of its model shares a layer with {ref}", always=True)
    stop.check()


def _print_similar(found: Sequence[Neighbour]) -> None:
    rows = [[n.ref, f"{n.cosine:+.3f}", span(n.layers)] for n in found]
    output.table(["vector", "cosine", "layers"], rows, right=["cosine"])


@options.verb("map")
@click.option(
    "--model", metavar="NAME", help="Only this model's.", shell_complete=options.complete_model
)
@click.option("--layer", type=int, help="The layer (default: the one with most vectors).")
@click.option("--tag", help="Only those with this tag.")
@click.option("--all-versions", "every_version", is_flag=True, help="Include older versions.")
@options.plot("the map")
@options.store
@options.json
@options.quiet
def map_command(
    model: str | None, layer: int | None, plot_file: Path | None, store: Store, **which: Any
) -> None:
    """Map the vectors of a model in two dimensions.

    \b
    steerlab map
    steerlab map --layer 15 --tag emotion --plot map.png

    The axes are principal components of the unit directions at one layer: vectors near each
    other on the map have similar directions, as far as two axes can show; the share of variance
    shown is printed below the map. --json gives coordinates.
    """
    from steerlab.plots.store_map import store_map

    with interruptible() as stop, progress_bar("reading vectors") as progress:
        found = store_map(store, model, layer, progress=progress, should_stop=stop, **which)
    if plot_file is not None:
        from steerlab.plots import figures

        output.save_plot(figures.map_of(found), plot_file)
    output.show(found, _print_map)


def _print_map(found: StoreMap) -> None:
    from steerlab.plots.terminal import map_lines

    vectors = count(len(found.points), "vector")
    output.title(f"{vectors} of {found.model} at layer {found.layer}")
    for line in map_lines(found, min(output.width() or 80, 120)):
        click.echo(line)
    across, up = found.variance
    if across + up == 0:
        click.echo("all directions are the same, so nothing spreads them")
    else:
        hidden = max(0.0, 1 - across - up)
        click.echo(f"across: {across:.0%} of the variance, up: {up:.0%}; not shown: {hidden:.0%}")
    for why, left_out in found.left_out.items():
        output.say(f"not on the map: {left_out} {why}")
