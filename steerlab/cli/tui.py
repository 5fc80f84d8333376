"""steerlab tui: the same core in a terminal UI."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from steerlab.cli.options import model_options, open_lab, store_option


@click.command("tui")
@model_options
@store_option
def tui_command(store_path: Path | None, loading: dict[str, Any]) -> None:
    """Browse the vectors and steer in the terminal.

    The model is loaded when a text is first asked for.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("tui needs a terminal: use generate and list in pipes and scripts")
    from steerlab.tui.app import SteerlabApp

    SteerlabApp(open_lab(store_path, loading)).run()
