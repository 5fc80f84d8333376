"""Verbs of a vector's lineage and history: tree and log."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerlab.cli import options, output

if TYPE_CHECKING:
    from steerlab.core.record import Record
    from steerlab.registry import Store
    from steerlab.registry.history import Event
    from steerlab.registry.lineage import Lineage, Node
    from steerlab.registry.undo_log import Change

_BRANCHES = 20


@options.verb("tree")
@options.ref
@options.plot("the lineage as a graph")
@options.model
@options.store
@options.json
def tree_command(ref: str, plot_file: Path | None, model: str | None, store: Store) -> None:
    """Show a vector's lineage.

    \b
    steerlab tree love_minus_anger
    steerlab tree love --plot love.svg

    Shows what the vector was made from, then what was made from it. The branches of a vector
    that occurs twice are shown once, and as … elsewhere.
    """
    record, lineage = store.record(ref, model), store.lineage(ref, model)
    if plot_file is not None:
        from steerlab.plots.lineage import lineage_graph

        output.save_plot(lineage_graph(lineage, str(record.recipe)), plot_file)
    output.show(lineage, partial(_print_tree, record))


def _print_tree(record: Record, lineage: Lineage) -> None:
    output.hanging(f"{click.style(record.ref, bold=True)}  ", str(record.recipe))
    print_lineage(lineage)
    if not lineage.parents and not lineage.children:
        output.say("made from no other vector, and no other vector was made from it")


def print_lineage(lineage: Lineage) -> None:
    """Both sides of a lineage as trees, each under its title; nothing for an empty side."""
    for title, nodes in (("made from", lineage.parents), ("used in", lineage.children)):
        if nodes:
            output.section(title)
            _print_branches(nodes, "")


def _print_branches(nodes: Sequence[Node], before: str) -> None:
    shown = nodes[:_BRANCHES]
    for node in shown:
        last = node is nodes[-1]
        what = node.recipe if node.stored else f"not in this store ({node.digest[:12]})"
        again = " …" if node.cut else ""
        output.hanging(f"{before}{'└── ' if last else '├── '}", f"{node.ref}  {what}{again}")
        _print_branches(node.branches, before + ("    " if last else "│   "))
    if len(nodes) > len(shown):
        click.echo(f"{before}└── and {len(nodes) - len(shown)} more (--json lists them)")


@options.verb("log")
@click.argument("ref", required=False, shell_complete=options.complete_ref)
@options.limit(40)
@options.model
@options.store
@options.json
def log_command(ref: str | None, limit: int, model: str | None, store: Store) -> None:
    """Show a name's history, or what can be undone.

    \b
    steerlab log                the last changes, with numbers for undo
    steerlab log love
    steerlab log love.v1 --json

    Newest first: its versions and how each was made, removed versions, what was made from them,
    and the runs, sweeps, calibrations and evaluations that used them. Times are UTC.
    """
    if ref is None:
        output.show(store.changes.list(limit), _print_changes)
        return
    events = store.log(ref, model)
    output.show(events[:limit], _print_log)
    if len(events) > limit and not output.asked("json"):
        output.say(f"and {len(events) - limit} older (--limit shows more)")


def _print_changes(changes: Sequence[Change]) -> None:
    rows = [
        [str(c.number), output.minute(c.created), c.text, "undone" if c.undone else ""]
        for c in changes
    ]
    if rows:
        output.table(["number", "when", "change", ""], rows, right=["number"], wrap=["change"])
    else:
        output.say("no changes yet: `steerlab log NAME` shows the history of a name")


def _print_log(events: Sequence[Event]) -> None:
    output.table(["when", "vector", "what", ""], [_row(event) for event in events], wrap=[""])


def _row(event: Event) -> list[str]:
    name = {"run": f"run {event.number}", "sweep": f"sweep {event.number}"}.get(event.what)
    used = f"{event.other}  " if event.other else ""
    note = f"  “{' '.join(event.note.split())}”" if event.note else ""
    tags = "".join(f"  #{tag}" for tag in event.tags)
    made = "made" if event.what == "version" else event.what
    return [
        output.minute(event.created),
        event.ref,
        name or made,
        f"{used}{event.text}{tags}{note}",
    ]
