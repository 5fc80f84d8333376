"""The nearest vectors to one: similar."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from steerlab.cli.options import (
    complete_ref,
    json_option,
    model_filter_option,
    open_store,
    quiet_option,
    store_option,
)
from steerlab.cli.output import print_json, print_table, say
from steerlab.cli.progress import interruptible, progress_bar
from steerlab.core.notation import span


@click.command("similar")
@click.argument("ref", shell_complete=complete_ref)
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most.")
@model_filter_option
@store_option
@json_option
@quiet_option
def similar_command(
    ref: str, limit: int, model: str | None, store_path: Path | None, as_json: bool, quiet: bool
) -> None:
    """List a vector's nearest neighbours.

    By cosine over the layers that both have; opposite vectors count as near. Ctrl-C stops and
    shows the nearest so far.
    """
    store = open_store(store_path)
    with interruptible() as stop, progress_bar("comparing", quiet=quiet) as progress:
        found = store.similar(ref, model=model, limit=limit, should_stop=stop, progress=progress)
    if as_json:
        print_json([asdict(neighbour) for neighbour in found])
    elif found:
        rows = [[n.ref, f"{n.cosine:+.3f}", span(n.layers)] for n in found]
        print_table(["vector", "cosine", "layers"], rows, right=["cosine"])
    else:
        say(f"no other vector of its model shares a layer with {ref}")
    stop.check()
