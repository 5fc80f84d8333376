"""steerlab tui: the terminal UI, in this terminal or served to a browser."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from threading import Thread
from typing import Any

import click

from steerlab.cli import options, output

HOST, PORT = "127.0.0.1", 8000


@options.verb("tui")
@click.option("--web", is_flag=True, help="Serve it to a browser instead.")
@click.option(
    "--host", metavar="NAME", help=f"With --web: the address to listen on (default: {HOST})."
)
@click.option("--port", type=click.IntRange(0, 65535), help=f"With --web (default: {PORT}).")
@options.loading
@options.store_path
def tui_command(
    web: bool,
    host: str | None,
    port: int | None,
    store_path: Path | None,
    loading: dict[str, Any],
) -> int | None:
    """Browse vectors and steer in the terminal.

    The model is loaded when text is first generated. With --web each browser tab is a session
    of its own, which ends when the tab is closed; Ctrl+C ends them all. The address that is
    printed has a token, without which nobody gets in: keep it to yourself.
    """
    if web:
        _serve(host or HOST, PORT if port is None else port, store_path, loading)
        return None
    if host is not None or port is not None:
        raise click.UsageError("--host and --port go with --web")
    served = "TEXTUAL_DRIVER" in os.environ  # this process serves one tab of a browser
    if not served and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("tui needs a terminal: use generate and list in pipes and scripts")
    if served:
        Thread(target=_end_with_parent, daemon=True).start()
    from steerlab.cli.forms import CommandLine
    from steerlab.lab.lab import Lab
    from steerlab.tui.app import SteerlabApp

    output.narrate()
    app = SteerlabApp(Lab(store_path, **loading), CommandLine())
    app.run()
    return app.return_code


def _end_with_parent() -> None:
    """End a tab's process when its server is gone; a killed server can't end its tabs."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _serve(host: str, port: int, store_path: Path | None, loading: dict[str, Any]) -> None:
    from steerlab.cli.forms import CommandLine
    from steerlab.tui.web import serve
    from steerlab.web.guard import is_loopback

    if not is_loopback(host):
        output.warn(
            f"{host} can be reached from other machines, and nothing is encrypted: anyone who "
            "sees the address or listens can read and remove your vectors"
        )
    loading["layout"] = loading["layout"] is not None  # of --plain
    given = {n: v if isinstance(v, bool) else str(v or "") for n, v in loading.items()}
    words = CommandLine().verb("tui").words(given)[1:]
    words += [f"--store={store_path}"] if store_path is not None else []
    serve(
        words, host, port, lambda address: output.say(f"steerlab is at {address} (Ctrl+C ends it)")
    )
