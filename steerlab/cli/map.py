"""steerlab map: the vectors of one model, laid flat."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerlab.cli.options import (
    complete_model,
    json_option,
    open_store,
    plot_option,
    quiet_option,
    store_option,
)
from steerlab.cli.output import print_json, say, width
from steerlab.cli.progress import interruptible, progress_bar

if TYPE_CHECKING:
    from steerlab.plots.store_map import StoreMap


@click.command("map")
@click.option("--model", metavar="NAME", help="Whose vectors.", shell_complete=complete_model)
@click.option("--layer", type=int, help="At which layer (default: where most vectors are).")
@click.option("--tag", help="Only those with this tag.")
@click.option("--all-versions", is_flag=True, help="Older versions too.")
@plot_option("the map")
@store_option
@json_option
@quiet_option
def map_command(
    model: str | None,
    layer: int | None,
    tag: str | None,
    all_versions: bool,
    plot_file: Path | None,
    store_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Lay the vectors of a model out on a map.

    \b
    steerlab map
    steerlab map --layer 15 --tag emotion --plot map.png

    Principal components of their unit directions at one layer: near on the map is near in
    direction, as far as two axes can say (how far is said below the map). --json gives
    coordinates.
    """
    from steerlab.plots.store_map import store_map

    store = open_store(store_path)
    with interruptible() as stop, progress_bar("reading vectors", quiet=quiet) as progress:
        found = store_map(
            store,
            model,
            layer,
            tag=tag,
            every_version=all_versions,
            progress=progress,
            should_stop=stop,
        )
    if plot_file is not None:
        from steerlab.plots import drawing, figures

        drawing.save(figures.map_of(found), plot_file)
        say(f"wrote {plot_file}", quiet=quiet)
    print_json(found.to_json()) if as_json else _print(found)


def _print(found: StoreMap) -> None:
    from steerlab.plots.terminal import map_lines

    heading = f"{len(found.points)} vectors of {found.model} at layer {found.layer}"
    click.echo(click.style(heading, bold=True))
    for line in map_lines(found, min(width() or 80, 120)):
        click.echo(line)
    across, up = found.variance
    click.echo(
        f"across: {across:.0%} of the variance, up: {up:.0%}; the map leaves out "
        f"{max(0.0, 1 - across - up):.0%}"
    )
    for why, count in found.left_out.items():
        say(f"not on the map: {count} {why}")
