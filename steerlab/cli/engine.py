"""--engine: texts written by a server that runs the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import click


def engine(function: Callable[..., Any]) -> Callable[..., Any]:
    """--engine, for verbs that write texts; it stands below `options.lab`."""

    @click.option(
        "--engine",
        metavar="URL",
        help="Let a server that runs the model write: `steerlab serve`, or vLLM with the plugin.",
    )
    @wraps(function)
    def command(lab: Any, engine: str | None, **values: Any) -> Any:
        lab.engine = engine
        return function(lab=lab, **values)

    return command
