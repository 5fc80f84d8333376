"""Arguments and options that several verbs share, as decorators: `@options.json`.

`store` and `lab` hand the verb the opened thing itself; `lab`, `filters`, `sampling` and
`steering` stand for several options each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from steerlab.cli.output import narrate, note_option
from steerlab.cli.types import DIRECTORY, LAYERS, METRIC, NUMBERS, PLOT
from steerlab.core.run import POSITIONS
from steerlab.core.sampling import Sampling
from steerlab.errors import SteerlabError

if TYPE_CHECKING:
    from steerlab.registry import Store

F = TypeVar("F", bound=Callable[..., Any])

DASHES = {"ignore_unknown_options": True, "help_option_names": ["--help"]}
"""Context settings for expressions: -hate is part of one, not -h and more; see `Verb`."""


# verbs


class Verb(click.Command):
    """A command that refuses an option given twice, of which click takes the last in silence."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, or fail with the option's name; -h by itself is help, -hate is not."""
        try:
            return self._parsed(ctx, args)
        except click.NoSuchOption as error:
            name = error.option_name
            own = {option for parameter in self.params for option in parameter.opts}
            meant = own.intersection(_OTHER_OPTIONS.get(name, ()))
            if not meant:
                raise
            text = f"No such option {name!r}. Did you mean {meant.pop()!r}?"
            raise click.NoSuchOption(name, text, ctx=ctx) from None

    def _parsed(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = args.index("--") if "--" in args else len(args)
        args[:options] = ["--help" if arg == "-h" else arg for arg in args[:options]]
        _, _, given = self.make_parser(ctx).parse_args(list(args))
        single = [p for p in given if isinstance(p, click.Option) and not (p.multiple or p.is_flag)]
        for option in single:
            if single.count(option) > 1:
                hint = _SEVERAL.get(option.name or "", "")
                ctx.fail(f"{option.opts[-1]} is given more than once{hint}")
        return super().parse_args(ctx, args)


_SEVERAL = {
    "expression": ": -v 'love + anger' adds vectors",
    "layers": ": --layers 10,15 lists layers",
    "coefficients": ": --coefficient=-1,1 lists strengths",
    "doses": ": --dose=-0.1,0.1 lists doses",
}

_OTHER_OPTIONS = {
    "--name": ("--as",),
    **dict.fromkeys(("--strength", "--alpha"), ("--dose", "--doses")),
    **dict.fromkeys(("--coeff", "--scale", "--multiplier"), ("--coefficient", "--coefficients")),
    **dict.fromkeys(("--tokens", "--max-tokens"), ("--max-new-tokens",)),
    **dict.fromkeys(("--format", "--type"), ("--to",)),
    "--temp": ("--temperature",),
    "--vectors": ("--vector",),
}
"""What people call an option elsewhere, and its names here; a verb suggests those that it has."""

verb = partial(click.command, cls=Verb)


# completion by the shell


def complete_ref(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Stored names; in an expression, for its last word."""
    word = re.findall(r"\w*$", incomplete)[0]
    before = incomplete.removesuffix(word)
    names = _stored(ctx, lambda store: store.names())
    return [before + name for name in names if name.startswith(word)]


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the models that vectors belong to."""
    names = _stored(ctx, lambda store: [model.name for model in store.models()])
    return [name for name in names if name.startswith(incomplete)]


def _stored(ctx: click.Context, what: Callable[[Store], Sequence[str]]) -> Sequence[str]:
    from steerlab.registry import Store

    try:
        return what(Store(ctx.params.get("store_path")))
    except SteerlabError:
        return ()


def _complete_metric(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from steerlab.evaluation.metrics.texts import METRICS

    known = [*METRICS, "keywords:", "regex:"]
    return [CompletionItem(name) for name in known if name.startswith(incomplete)]


# arguments


def term(argument: str) -> str:
    """Refuse --dryrun in an expression: it is a slip rather than a double negation."""
    if re.match(r"--[a-z]", argument):
        raise click.NoSuchOption(argument)
    return argument


def _joined(ctx: click.Context, param: click.Parameter, words: Sequence[str]) -> str:
    return " ".join(map(term, words))


def _which(ctx: click.Context, param: click.Parameter, text: str | None) -> str | int | None:
    return int(text) if text is not None and text.isdecimal() else text


ref = click.argument("ref", shell_complete=complete_ref)
refs = click.argument("refs", nargs=-1, required=True, shell_complete=complete_ref)
expression = click.argument(
    "expression", nargs=-1, required=True, shell_complete=complete_ref, callback=_joined
)
"""One expression, however the shell split it."""


which = click.argument(
    "which", required=False, metavar="[REF|NUMBER]", shell_complete=complete_ref, callback=_which
)
"""The number of a run or a sweep as an int, a ref as text, or None."""


# options


vector = click.option(
    "-v",
    "--vector",
    "expression",
    metavar="EXPR",
    help="A stored vector or an expression.",
    shell_complete=complete_ref,
)


def grouped(
    name: str, made: Callable[..., Any] = dict, **options: Callable[[Any], Any]
) -> Callable[[F], F]:
    """Several options that reach the verb as one value called `name`, by default a dict."""

    def decorate(function: F) -> F:
        @wraps(function)
        def command(**values: Any) -> Any:
            group = {key: values.pop(key) for key in options}
            return function(**values, **{name: made(**group)})

        for option in reversed(options.values()):
            command = option(command)
        return command  # type: ignore[return-value]  # it takes more than it says

    return decorate


def _noted(*names: str, help: str) -> Callable[[F], F]:
    """A flag that `output` reads; verbs do not take it."""
    return click.option(*names, is_flag=True, help=help, callback=note_option, expose_value=False)


store_path = click.option(
    "--store",
    "store_path",
    type=DIRECTORY,
    help="The store's directory (default: STEERLAB_STORE, ./store, your data directory).",
)
json = _noted("--json", help="Print JSON for programs.")
quiet = _noted("-q", "--quiet", help="Print no messages and no progress.")
seed = click.option("--seed", type=int, default=0, show_default=True)
yes = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
no_model = click.option("--no-model", is_flag=True, help="Load no model: only what is stored.")
no_keep = click.option("--no-keep", is_flag=True, help="Keep no run.")
no_save = click.option("--no-save", is_flag=True, help="Report only; store nothing.")
tags = click.option("--tag", "tags", multiple=True, help="A tag; may be repeated.")
note = click.option("--note", default="", help="What the vector is for.")
dry_run = click.option("--dry-run", is_flag=True, help="Compute and report, store nothing.")
force = click.option("--force", is_flag=True, help="Replace an existing file.")
other_weights = click.option(
    "--other-weights", is_flag=True, help="Accept vectors of a model with the same shape."
)
model = click.option(
    "--model",
    metavar="NAME",
    help="The model, if several have a vector of that name.",
    shell_complete=complete_model,
)


PLOT_NEEDS = "--plot draws a metric's grid: say which with --metric"


def plot(what: str) -> Callable[[F], F]:
    """--plot FILE; a file that can't be written is refused before any work is done."""
    return click.option("--plot", "plot_file", type=PLOT, help=f"Save {what}: PNG, SVG or PDF.")


def layers(text: str = "Such as 15, 10,15,20, 10:20 or all.") -> Callable[[F], F]:
    """--layers RANGE."""
    return click.option("--layers", type=LAYERS, help=text)


def numbers(*names: str, text: str) -> Callable[[F], F]:
    """An option for a list of numbers; empty if it is not given."""
    return click.option(*names, type=NUMBERS, default=(), help=text)


def integer(*names: str, least: int, default: int | None, text: str) -> Callable[[F], F]:
    """An option for an integer of at least `least`."""
    kind = click.IntRange(least)
    return click.option(*names, type=kind, default=default, show_default=True, help=text)


def limit(default: int | None = 20, text: str = "Show at most this many.") -> Callable[[F], F]:
    """--limit N."""
    return integer("--limit", least=1, default=default, text=text)


def controls(default: int) -> Callable[[F], F]:
    """--controls N."""
    text = "Random directions of the same norm to compare with: few need a larger effect."
    return integer("--controls", least=5, default=default, text=text)


def metric(*names: str, text: str, **how: Any) -> Callable[[F], F]:
    """--metric SPEC: a built-in metric, keywords:FILE, regex:PATTERN or a Python function."""
    return click.option(
        "--metric", *names, type=METRIC, help=text, shell_complete=_complete_metric, **how
    )


filters = grouped(
    "filters",
    model=click.option(
        "--model", metavar="NAME", help="Only this model's.", shell_complete=complete_model
    ),
    layer=click.option("--layer", type=int, help="Only those with a direction at this layer."),
    tag=click.option("--tag", help="Only those with this tag."),
    kind=click.option(
        "--kind",
        type=click.Choice(("contrast", "expression", "imported")),
        help="Only those of this kind of recipe.",
    ),
    every_version=click.option(
        "--all-versions", "every_version", is_flag=True, help="Include older versions."
    ),
)
"""What narrows a list of vectors; `Store.list` takes it."""

loading = grouped(
    "loading",
    source=click.option(
        "--model", "source", metavar="ID", help="smollm2, a hub id or a directory."
    ),
    device=click.option("--device", metavar="NAME", help="cpu, cuda, mps (default: the fastest)."),
    dtype=click.option(
        "--dtype",
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        help="auto (default): float32 on a CPU, else the checkpoint's own; see bench.",
    ),
    device_map=click.option("--device-map", metavar="MAP", help="auto: spread over all devices."),
    revision=click.option("--revision", metavar="REV", help="Revision on the hub."),
    blocks=click.option(
        "--blocks", metavar="PATH", help="The list of blocks, such as model.layers, if not found."
    ),
    layout=click.option(
        "--plain",
        "layout",
        flag_value="plain",
        help="Torch's own linear layers, for comparing bits: slower on a CPU.",
    ),
    trust_remote_code=click.option(
        "--trust-remote-code", is_flag=True, help="Run code that comes with the model."
    ),
)
"""How the model is loaded; `Lab` takes it."""

_chat = click.option("--chat", is_flag=True, help="Prompts are messages to a chat model.")


def writing(tokens: int, *, template: bool = True) -> Callable[[F], F]:
    """How the next token is chosen, as a `Sampling`. tokens: the default; template: --chat."""
    return grouped(
        "sampling",
        Sampling,
        max_new_tokens=click.option(
            "-n", "--max-new-tokens", type=click.IntRange(1), default=tokens, show_default=True
        ),
        temperature=click.option(
            "--temperature", type=float, default=0.0, help="0 is greedy (default)."
        ),
        top_p=click.option("--top-p", type=float, default=1.0, help="1 is off (default)."),
        top_k=click.option(
            "--top-k", type=click.IntRange(0), default=0, help="0 is off (default)."
        ),
        repetition_penalty=click.option(
            "--repetition-penalty", type=float, default=1.0, help="1 is off (default)."
        ),
        **({"chat": _chat} if template else {}),
    )


sampling = writing(40)

steering = grouped(
    "where",
    positions=click.option(
        "--positions",
        type=click.Choice(POSITIONS),
        default="all",
        show_default=True,
        help="Where the vector is added; a front vector always goes on the first tokens.",
    ),
    allow_other_weights=click.option(
        "--other-weights",
        "allow_other_weights",
        is_flag=True,
        help="Accept vectors of a model with the same shape.",
    ),
)
"""Where a vector acts, and on which model; `Lab.compare` takes it."""


def store(function: Callable[..., Any]) -> Callable[..., Any]:
    """--store DIR; the verb gets a `Store` as `store`."""

    @store_path
    @wraps(function)
    def command(store_path: Path | None, **values: Any) -> Any:
        from steerlab.registry import Store

        narrate()
        return function(store=Store(store_path), **values)

    return command


def lab(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the store and the model; the verb gets a `Lab` as `lab`, nothing loaded yet."""

    @loading
    @store_path
    @wraps(function)
    def command(store_path: Path | None, loading: dict[str, Any], **values: Any) -> Any:
        from steerlab.lab.lab import Lab

        narrate()
        return function(lab=Lab(store_path, **loading), **values)

    return command
