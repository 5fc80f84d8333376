"""A server without HTTP, for plugins: its model and store in this process."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.lab.lab import Lab
from steerlab.serving.app import Server
from steerlab.serving.engine import Engine

if TYPE_CHECKING:
    from steerlab.models.language_model import LanguageModel


def started(source: str, store: Path | str | None = None) -> Server:
    """A server whose model is being loaded; `answering` takes requests from now on."""
    lab = Lab(store, source=source)
    server = Server(lab, Engine(partial(load, lab)), source, host="localhost")
    server.engine.start()
    return server


def load(lab: Lab) -> LanguageModel:
    """Load the model of a lab without the bars and warnings of libraries."""
    from steerlab.models.loading import hush

    hush()
    return lab.load()
