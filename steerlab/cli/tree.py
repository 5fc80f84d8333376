"""steerlab tree: what a vector was made from, and what was made from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerlab.cli.options import (
    complete_ref,
    json_option,
    model_filter_option,
    open_store,
    plot_option,
    store_option,
)
from steerlab.cli.output import print_hanging, print_json, say

if TYPE_CHECKING:
    from steerlab.registry.lineage import Node

_BRANCHES = 20


@click.command("tree")
@click.argument("ref", shell_complete=complete_ref)
@plot_option("the lineage as a graph")
@model_filter_option
@store_option
@json_option
def tree_command(
    ref: str,
    plot_file: Path | None,
    model: str | None,
    store_path: Path | None,
    as_json: bool,
) -> None:
    """Show a vector's lineage.

    \b
    steerlab tree love_minus_anger
    steerlab tree love --plot love.svg

    Up: what it was made from. Down: what was made from it. A vector met twice is shown with
    its own branches once, and with … elsewhere.
    """
    store = open_store(store_path)
    record, lineage = store.record(ref, model), store.lineage(ref, model)
    if plot_file is not None:
        from steerlab.plots import drawing
        from steerlab.plots.lineage import lineage_graph

        drawing.save(lineage_graph(lineage, str(record.recipe)), plot_file)
        say(f"wrote {plot_file}")
    if as_json:
        from dataclasses import asdict

        print_json(asdict(lineage))
    else:
        print_hanging(f"{click.style(record.ref, bold=True)}  ", str(record.recipe))
        for title, nodes in (("made from", lineage.parents), ("used in", lineage.children)):
            if nodes:
                print_tree(title, nodes)
        if not lineage.parents and not lineage.children:
            say("made from no other vector, and no other vector was made from it")


def print_tree(title: str, nodes: Sequence[Node]) -> None:
    """One side of a lineage, under its title."""
    click.echo(f"\n{click.style(title, bold=True)}")
    _print_branches(nodes, "")


def _print_branches(nodes: Sequence[Node], before: str) -> None:
    shown = nodes[:_BRANCHES]
    for node in shown:
        last = node is nodes[-1]
        what = node.recipe if node.stored else f"not in this store ({node.digest[:12]})"
        again = " …" if node.cut else ""
        print_hanging(f"{before}{'└── ' if last else '├── '}", f"{node.ref}  {what}{again}")
        _print_branches(node.branches, before + ("    " if last else "│   "))
    if len(nodes) > len(shown):
        click.echo(f"{before}└── and {len(nodes) - len(shown)} more (--json lists them)")
