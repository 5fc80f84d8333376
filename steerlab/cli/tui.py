"""steerlab tui: the same core in a terminal UI."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import click

from steerlab.cli.options import model_options, open_lab, store_option
from steerlab.cli.output import say, warn

HOST, PORT = "127.0.0.1", 8000


@click.command("tui")
@click.option("--web", is_flag=True, help="Serve it to a browser on this machine instead.")
@click.option("--host", metavar="NAME", help=f"With --web: where to listen (default: {HOST}).")
@click.option("--port", type=click.IntRange(0, 65535), help=f"With --web (default: {PORT}).")
@model_options
@store_option
def tui_command(
    web: bool,
    host: str | None,
    port: int | None,
    store_path: Path | None,
    loading: dict[str, Any],
) -> None:
    """Browse the vectors and steer in the terminal.

    The model is loaded when a text is first asked for. With --web each tab of the browser is
    such a session, until it is closed; Ctrl+C ends them all.
    """
    if web:
        _serve(host or HOST, PORT if port is None else port, store_path, loading)
        return
    if host is not None or port is not None:
        raise click.UsageError("--host and --port go with --web")
    served = "TEXTUAL_DRIVER" in os.environ  # a tab of the browser is the terminal then
    if not served and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("tui needs a terminal: use generate and list in pipes and scripts")
    if served:
        Thread(target=_end_with_parent, daemon=True).start()
    from steerlab.tui.app import SteerlabApp

    SteerlabApp(open_lab(store_path, loading)).run()


def _end_with_parent() -> None:
    """A server that was killed can't end its tabs: each sees by itself that it is alone."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(host: str, port: int, store_path: Path | None, loading: dict[str, Any]) -> None:
    from steerlab.tui.web import is_loopback, serve

    if not is_loopback(host):
        warn(
            f"{host} is reached from other machines, and there is no password: whoever can reach "
            "it can use it, and read and remove your vectors"
        )
    options = _options(store_path, loading)
    serve(options, host, port, lambda address: say(f"steerlab is at {address} (Ctrl+C ends it)"))


def _options(store_path: Path | None, loading: dict[str, Any]) -> list[str]:
    """The options of this command as a tab's process takes them."""
    named = {"model" if name == "source" else name: value for name, value in loading.items()}
    words = [f"--store={store_path}"] if store_path is not None else []
    for name, value in named.items():
        option = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(option)
        elif value not in (None, False):
            words.append(f"{option}={value}")
    return words
