"""Options that several verbs share, and what they open."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from steerlab.core.run import POSITIONS

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.evaluation.metrics.texts import Metric
    from steerlab.lab.lab import Lab
    from steerlab.registry import Store

if TYPE_CHECKING:
    ParamType = click.ParamType[Any]
else:
    ParamType = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])


def complete_ref(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Stored names for the shell's Tab; in an expression, for its last word."""
    before, word = _last_word(incomplete)
    names = _stored(ctx, lambda store: store.names())
    return [before + name for name in names if name.startswith(word)]


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the models that vectors belong to, for the shell's Tab."""
    names = _stored(ctx, lambda store: [model.name for model in store.models()])
    return [name for name in names if name.startswith(incomplete)]


def _last_word(text: str) -> tuple[str, str]:
    word = re.search(r"\w*$", text)
    start = word.start() if word else len(text)
    return text[:start], text[start:]


def _stored(ctx: click.Context, what: Callable[[Store], Sequence[str]]) -> Sequence[str]:
    from steerlab.errors import SteerlabError
    from steerlab.registry import Store

    try:
        return what(Store(ctx.params.get("store_path")))
    except SteerlabError:
        return ()


store_option = click.option(
    "--store",
    "store_path",
    type=click.Path(file_okay=False, path_type=Path),
    help="The store's directory (default: STEERLAB_STORE, ./store, your data directory).",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="No narration, no progress.")


def plot_option(what: str) -> Callable[[F], F]:
    """--plot FILE; that no such file can be written is said before any work is done."""
    return click.option("--plot", "plot_file", type=PlotFile(), help=f"Save {what}: PNG, SVG, PDF.")


model_filter_option = click.option(
    "--model",
    metavar="NAME",
    help="The model, where several have a vector of that name.",
    shell_complete=complete_model,
)


class PlotFile(ParamType):
    """A file for a picture or a page, whose suffix says which kind."""

    name = "file"

    def __init__(self, suffixes: Sequence[str] = ()) -> None:
        self.suffixes = suffixes

    def convert(self, value: Any, param: Any, ctx: Any) -> Path:
        """A path that can be written, or fail with why it can't."""
        from steerlab.errors import BadOption
        from steerlab.plots.drawing import SUFFIXES, check_file

        try:
            check_file(path := Path(value), self.suffixes or SUFFIXES)
        except BadOption as error:
            self.fail(str(error), param, ctx)
        return path


def grouped(name: str, **options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Several options that reach the command together, as one dict called `name`."""

    def decorate(function: F) -> F:
        @wraps(function)
        def command(**values: Any) -> Any:
            group = {key: values.pop(key) for key in options}
            return function(**values, **{name: group})

        for option in reversed(options.values()):
            command = option(command)
        return command  # type: ignore[return-value]  # it takes more than it says

    return decorate


model_options = grouped(
    "loading",
    source=click.option(
        "--model", "source", metavar="ID", help="smollm2, a hub id or a directory."
    ),
    device=click.option("--device", metavar="NAME", help="cpu, cuda, mps (default: the best)."),
    dtype=click.option("--dtype", type=click.Choice(["float32", "bfloat16", "float16"])),
    device_map=click.option("--device-map", metavar="MAP", help="auto: spread over all devices."),
    revision=click.option("--revision", metavar="REV", help="Revision on the hub."),
    blocks=click.option(
        "--blocks", metavar="PATH", help="The block list, such as model.layers, if not found."
    ),
    trust_remote_code=click.option(
        "--trust-remote-code", is_flag=True, help="Run code that comes with the model."
    ),
)
"""What decides how a model is loaded; `open_lab` takes it."""

sampling_options = grouped(
    "sampling",
    max_new_tokens=click.option(
        "-n", "--max-new-tokens", type=click.IntRange(1), default=40, show_default=True
    ),
    temperature=click.option(
        "--temperature", type=float, default=0.0, help="0 is greedy (default)."
    ),
    top_p=click.option("--top-p", type=float, default=1.0, help="1 is off (default)."),
    top_k=click.option("--top-k", type=click.IntRange(0), default=0, help="0 is off (default)."),
    repetition_penalty=click.option(
        "--repetition-penalty", type=float, default=1.0, help="1 is off (default)."
    ),
    chat=click.option("--chat", is_flag=True, help="Prompts are messages to a chat model."),
)
"""How the next token is chosen; `Lab.compare` takes it."""

steering_options = grouped(
    "where",
    positions=click.option(
        "--positions",
        type=click.Choice(POSITIONS),
        default="all",
        show_default=True,
        help="Where it is added; a front vector goes on the first tokens anyway.",
    ),
    allow_other_weights=click.option(
        "--other-weights",
        "allow_other_weights",
        is_flag=True,
        help="Accept vectors of a model of the same shape.",
    ),
)
"""Where a vector acts and on what; `Lab.compare` takes it."""

seed_option = click.option("--seed", type=int, default=0, show_default=True)


def open_store(path: Path | None) -> Store:
    """The store a command works on."""
    from steerlab.cli.output import narrate
    from steerlab.registry import Store

    narrate("steerlab")
    return Store(path)


def open_lab(store_path: Path | None, loading: dict[str, Any]) -> Lab:
    """Store and model of a command; the model is loaded when it is first needed."""
    from steerlab.cli.output import narrate
    from steerlab.lab.lab import Lab

    narrate("steerlab")
    return Lab(store_path, **loading)


def load(lab: Lab, vector: SteeringVector | None = None, *, quiet: bool = False) -> None:
    """Load the model (the vector's own, if none was named) before anything else is drawn."""
    from steerlab.cli.progress import loading_bar

    source = lab.source or (vector.model.source if vector is not None else "smollm2")
    with loading_bar(source, quiet=quiet) as progress:
        from steerlab.models.loading import hush

        hush()
        lab.load(vector, progress)


class Numbers(ParamType):
    """Comma-separated numbers: 10,15,20 or -0.2,0,0.2."""

    def __init__(self, *, one: bool = False) -> None:
        self.one = one
        self.name = "number" if one else "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        """Parse, or fail with what was expected."""
        if isinstance(value, tuple):
            return value
        try:
            parts = [value] if self.one else str(value).split(",")
            found = tuple(float(part) for part in parts)
        except ValueError:
            what = "a number" if self.one else "a list of numbers such as -0.2,0,0.2"
            self.fail(f"{value!r} is not {what}", param, ctx)
        if not all(map(math.isfinite, found)):
            self.fail(f"{value!r} holds a number that is not finite", param, ctx)
        return found


class LayerRange(ParamType):
    """Layers: 15, 10,15,20, 10:20 or all."""

    name = "layers"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Parse into what `LanguageModel.layers` takes."""
        if not isinstance(value, str):
            return value
        from steerlab.core.notation import layers_of
        from steerlab.errors import BadOption

        try:
            return layers_of(value)
        except BadOption as error:
            self.fail(str(error), param, ctx)


class MetricSpec(ParamType):
    """A metric: a built-in one, keywords:FILE, regex:PATTERN or package.module:function."""

    name = "spec"

    def convert(self, value: Any, param: Any, ctx: Any) -> Metric:
        """Find or make it, or fail with those there are."""
        if not isinstance(value, str):
            return value  # type: ignore[no-any-return]  # converted before
        from steerlab.errors import SteerlabError
        from steerlab.evaluation.metrics.scorers import scorer

        try:
            return scorer(value)
        except SteerlabError as error:
            self.fail(str(error), param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Built-in metrics, and how the others begin."""
        from steerlab.evaluation.metrics.texts import METRICS

        known = [*METRICS, "keywords:", "regex:"]
        return [CompletionItem(name) for name in known if name.startswith(incomplete)]
