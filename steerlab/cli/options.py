"""Options that several verbs share, and what they open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from steerlab.lab import Lab
    from steerlab.registry import Store

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])

store_option = click.option(
    "--store",
    "store_path",
    type=click.Path(file_okay=False, path_type=Path),
    help="The store's directory (default: STEERLAB_STORE, ./store, your data directory).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No narration, no progress.")
model_filter_option = click.option(
    "--model", metavar="NAME", help="The model, where several have a vector of that name."
)


def model_options(function: F) -> F:
    """What decides how a model is loaded."""
    for option in reversed(
        (
            click.option(
                "--model", "source", metavar="ID", help="smollm2, a hub id or a directory."
            ),
            click.option("--device", metavar="NAME", help="cpu, cuda, mps (default: the best)."),
            click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"])),
            click.option("--device-map", metavar="MAP", help="auto: spread over all devices."),
            click.option("--revision", metavar="REV", help="Revision on the hub."),
            click.option(
                "--trust-remote-code", is_flag=True, help="Run code that comes with the model."
            ),
        )
    ):
        function = option(function)
    return function


def sampling_options(function: F) -> F:
    """How the next token is chosen."""
    for option in reversed(
        (
            click.option("-n", "--max-new-tokens", type=int, default=40, show_default=True),
            click.option("--temperature", type=float, default=0.0, help="0 is greedy (default)."),
            click.option("--top-p", type=float, default=1.0, help="1 is off (default)."),
            click.option("--top-k", type=int, default=0, help="0 is off (default)."),
            click.option("--repetition-penalty", type=float, default=1.0, help="1 is off."),
            click.option("--chat", is_flag=True, help="Prompts are messages to a chat model."),
        )
    ):
        function = option(function)
    return function


def open_store(path: Path | None) -> Store:
    """The store a command works on."""
    from steerlab.registry import Store

    return Store(path)


def open_lab(store_path: Path | None, source: str | None, **options: Any) -> Lab:
    """Store and model of a command; the model is loaded when it is first needed."""
    from steerlab.lab import Lab

    return Lab(open_store(store_path), source=source, **options)


class Numbers(ParamType):
    """Comma-separated numbers: 10,15,20 or -0.2,0,0.2."""

    name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        """Parse, or fail with what was expected."""
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(",") if part.strip())
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers such as -0.2,0,0.2", param, ctx)


class LayerRange(ParamType):
    """Layers: 15, 10,15,20, 10:20 or all."""

    name = "layers"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Parse into what `LanguageModel.layers` takes."""
        text = str(value).strip()
        try:
            if text == "all":
                return "all"
            if ":" in text:
                bounds = [int(part) if part.strip() else None for part in text.split(":")]
                if len(bounds) > 3 or any(b is not None and b < 0 for b in bounds):
                    raise ValueError
                return slice(*bounds)
            return [int(part) for part in text.split(",")]
        except ValueError:
            self.fail(f"{value!r} is not layers such as 15, 10,15,20, 10:20 or all", param, ctx)


def complete_ref(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Stored names that begin like what is typed, for the shell's Tab."""
    from steerlab.errors import SteerlabError

    try:
        names = open_store(ctx.params.get("store_path")).names()
    except SteerlabError:
        return []
    return [name for name in names if name.startswith(incomplete)]
