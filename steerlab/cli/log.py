"""steerlab log: the story of a name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerlab.cli.options import (
    complete_ref,
    json_option,
    model_filter_option,
    open_store,
    store_option,
)
from steerlab.cli.output import print_json, print_table, say

if TYPE_CHECKING:
    from steerlab.registry.history import Event


@click.command("log")
@click.argument("ref", shell_complete=complete_ref)
@click.option("--limit", type=click.IntRange(1), default=40, show_default=True, help="At most.")
@model_filter_option
@store_option
@json_option
def log_command(
    ref: str, limit: int, model: str | None, store_path: Path | None, as_json: bool
) -> None:
    """Tell the story of a name.

    \b
    steerlab log love
    steerlab log love.v1 --json

    The newest first: its versions and how each was made, those that were removed, what was made
    from them, and the runs, sweeps, calibrations and evaluations that they were in. Times are UTC.
    """
    events = open_store(store_path).log(ref, model)
    shown = events[:limit]
    if as_json:
        from dataclasses import asdict

        print_json([asdict(event) for event in shown])
        return
    print_table(["when", "vector", "what", ""], [_row(event) for event in shown], wrap=[""])
    if len(events) > len(shown):
        say(f"and {len(events) - len(shown)} older (--limit shows more)")


def _row(event: Event) -> list[str]:
    name = {"run": f"run {event.number}", "sweep": f"sweep {event.number}"}.get(event.what)
    used = f"{event.other}  " if event.other else ""
    note = f"  “{' '.join(event.note.split())}”" if event.note else ""
    tags = "".join(f"  #{tag}" for tag in event.tags)
    when = event.created[:16].replace("T", " ")
    made = "made" if event.what == "version" else event.what
    return [when, event.ref, name or made, f"{used}{event.text}{tags}{note}"]
