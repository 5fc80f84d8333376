"""--engine: texts written by a server that runs the model."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from steerlab.cli import output

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab


_HERE = ("device", "device_map", "blocks", "layout")
_AT_START = ("dtype", "revision", "trust_remote_code")


def engine(function: Callable[..., Any]) -> Callable[..., Any]:
    """--engine, for verbs that write texts; it stands below `options.lab`."""

    @click.option(
        "--engine",
        metavar="URL|vllm",
        help="Let a server that runs the model write: `steerlab serve`, or vLLM with the plugin; "
        "vllm starts one, in the checkpoint's precision unless there is --dtype, and ends it.",
    )
    @wraps(function)
    def command(lab: Lab, engine: str | None, **values: Any) -> Any:
        if engine is not None:
            _check_loading(_HERE if engine == "vllm" else (*_HERE, *_AT_START))
        lab.engine = engine
        return function(lab=lab, **values)

    return command


def _check_loading(unheard: Collection[str]) -> None:
    """Refuse options of loading that a server would not hear of."""
    context = click.get_current_context()
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if given and option.name in unheard:
            raise click.UsageError(
                f"{option.opts[0]} loads a model here, and --engine runs it in a server: leave out "
                "one of the two"
            )


def started(lab: Lab) -> str:
    """The URL of a vLLM server that runs the lab's model until the verb ends."""
    from tempfile import TemporaryDirectory

    from steerlab.models.embedded import ALIAS
    from steerlab.vllm_plugin import launch

    context = click.get_current_context()
    chosen, source = launch.python(), lab.source or ALIAS
    made_on = None if lab.is_named else lab.model.identity.revision  # as `Lab.load` takes it
    loading = {**lab.options, "revision": lab.options.get("revision") or made_on}
    port = launch.free_port()
    words = launch.command(chosen, source, "model", "127.0.0.1", port, launch.options(loading))
    log = Path(context.with_resource(TemporaryDirectory())) / "log"
    address = f"http://127.0.0.1:{port}"
    output.say(f"starting vLLM with {source}")
    variables = launch.environment(lab.store_path, os.environ.get("STEERLAB_API_KEY", ""))
    context.with_resource(launch.running(words, variables, address, log))
    return address
