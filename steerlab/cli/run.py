"""Verbs that run a model: extract, generate, sweep."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.options import (
    LayerRange,
    Numbers,
    json_option,
    model_options,
    open_lab,
    quiet_option,
    sampling_options,
    store_option,
)
from steerlab.cli.output import (
    console,
    describe_result,
    loading_bar,
    print_json,
    print_table,
    printable,
    progress_bar,
    say,
    signed_dose,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from steerlab.lab import Cell, Lab, Setting
    from steerlab.vector import SteeringVector

POSITIONS = ("all", "prompt", "generated", "continuation")
METHODS = ("mean_difference", "actadd", "pca", "probe", "mean_centred", "random")
_FILE = click.Path(dir_okay=False, path_type=Path)

seed_option = click.option("--seed", type=int, default=0, show_default=True)
positions_option = click.option(
    "--positions",
    type=click.Choice(POSITIONS),
    default="all",
    show_default=True,
    help="Where it is added; a front vector goes on the first tokens anyway.",
)
other_weights_option = click.option(
    "--other-weights", is_flag=True, help="Accept vectors of a model of the same shape."
)


@click.command("extract")
@click.argument("name")
@click.option("--positive", multiple=True, metavar="TEXT", help="May be repeated.")
@click.option("--negative", multiple=True, metavar="TEXT", help="One for each --positive.")
@click.option("--pairs", type=_FILE, help="Prompts from a .jsonl, .json, .csv or .toml file.")
@click.option("--baseline", type=_FILE, help="mean_centred: a file of prompts to centre on.")
@click.option("--layer", type=int, help="One layer (default: the middle one).")
@click.option("--layers", type=LayerRange(), help="Several: 10,15,20, 10:20 or all.")
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True)
@click.option("--read", default="last", show_default=True, help="last, mean or a token index.")
@click.option("--seed", type=int, help="For --method random.")
@click.option("--chat", is_flag=True, help="Prompts are messages to a chat model.")
@click.option("--tag", "tags", multiple=True, help="May be repeated.")
@click.option("--note", default="", help="What it is for.")
@model_options
@store_option
@json_option
@quiet_option
def extract_command(
    name: str,
    positive: tuple[str, ...],
    negative: tuple[str, ...],
    pairs: Path | None,
    baseline: Path | None,
    layer: int | None,
    layers: Any,
    method: str,
    read: str,
    seed: int | None,
    chat: bool,
    tags: tuple[str, ...],
    note: str,
    store_path: Path | None,
    as_json: bool,
    quiet: bool,
    **loading: Any,
) -> None:
    """Make a vector of contrast prompts and store it.

    \b
    steerlab extract calm --positive "I feel calm" --negative "I feel tense"
    steerlab extract calm --pairs calm.csv --layers 10:20

    A positive coefficient steers toward the positive prompts.
    """
    from steerlab.extraction import check_method
    from steerlab.prompts import read_pairs
    from steerlab.recipe import check_name, check_prompts

    check_name(name)
    if layer is not None and layers is not None:
        raise click.UsageError("give --layer or --layers, not both")
    if (pairs is not None) == bool(positive):
        raise click.UsageError("give prompts by --positive and --negative, or by --pairs FILE")
    if pairs is not None:
        prompts = read_pairs(pairs)
        positive, negative = prompts.positive, prompts.negative
    check_prompts(positive, negative if negative or method != "mean_centred" else None)
    where = _token(read)
    check_method(method, where, len(positive), bool(negative), seed)
    centre = read_pairs(baseline).positive if baseline is not None else ()
    lab = open_lab(store_path, **loading)
    load(lab, quiet=quiet)
    with progress_bar("extracting", quiet=quiet) as progress:
        vector = lab.extract(
            name,
            list(zip(positive, negative, strict=True)) if negative else positive,
            layers=layer if layer is not None else layers,
            method=method,
            read=where,
            chat=chat,
            seed=seed,
            baseline=centre,
            progress=progress,
            tags=tags,
            note=note,
        )
    if as_json:
        print_json(lab.store.record(str(vector.ref), vector.model).to_json())
    else:
        click.echo(f"{click.style(str(vector), bold=True)}  {vector.recipe}")
        click.echo(describe_result(vector))


def _token(read: str) -> str | int:
    try:
        return int(read)
    except ValueError:
        return read


@click.command("generate")
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@click.option("-v", "--vector", "expression", metavar="EXPR", help="A stored vector or expression.")
@click.option("-c", "--coefficient", "coefficients", type=Numbers(), help="One or more: -2,2")
@click.option(
    "-d",
    "--dose",
    "doses",
    type=Numbers(),
    help="Instead: strength relative to the residual stream, such as 0.15 or -0.15,0.15",
)
@click.option("--layers", type=LayerRange(), help="Only at these layers of the vector.")
@click.option("--no-baseline", is_flag=True, help="Leave the unsteered text out.")
@positions_option
@other_weights_option
@sampling_options
@seed_option
@model_options
@store_option
@json_option
@quiet_option
def generate_command(
    prompts: tuple[str, ...],
    expression: str | None,
    coefficients: tuple[float, ...] | None,
    doses: tuple[float, ...] | None,
    layers: Any,
    no_baseline: bool,
    other_weights: bool,
    seed: int,
    store_path: Path | None,
    as_json: bool,
    quiet: bool,
    positions: str,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    top_k: int,
    repetition_penalty: float,
    chat: bool,
    **loading: Any,
) -> None:
    """Write with a vector, beside the baseline.

    \b
    steerlab generate "I think you are a" -v love --dose 0.15
    steerlab generate "I think you are a" -v "love - anger" -c -2,2
    """
    from steerlab.lab import Setting

    if coefficients and doses:
        raise click.UsageError("give --coefficient or --dose, not both")
    if expression is None and (coefficients or doses):
        raise click.UsageError("a strength needs a vector: --vector EXPR")
    lab = open_lab(store_path, **loading)
    settings = [] if no_baseline and expression else [Setting()]
    if expression is not None:
        vector = _evaluate(lab, expression)
        load(lab, vector, quiet=quiet)
        vector = vector if layers is None else lab.at_layers(vector, layers)
        strengths = coefficients or tuple(vector.coefficient(d) for d in doses or ()) or (1.0,)
        settings += [Setting(vector, c) for c in strengths]
    load(lab, quiet=quiet)
    show = nullcontext(None) if as_json or quiet else _streamed(prompts, settings)
    with show as on_text:
        cells = lab.compare(
            prompts,
            settings,
            seeds=(seed,),
            positions=positions,  # type: ignore[arg-type]
            allow_other_weights=other_weights,
            on_text=on_text,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            repetition_penalty=repetition_penalty,
            chat=chat,
        )
    if as_json:
        print_json([cell.to_json() for cell in cells])
    elif on_text is None or not sys.stdout.isatty():
        _print_texts(cells)


def load(lab: Lab, vector: SteeringVector | None = None, *, quiet: bool = False) -> None:
    """Load the model with a progress bar, before anything else is drawn."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours says more, and keeps quiet when asked to
    with loading_bar(quiet=quiet) as progress:
        lab.options["progress"] = progress
        if vector is not None:
            lab.for_vector(vector)
        else:
            _ = lab.model


def _evaluate(lab: Lab, expression: str) -> SteeringVector:
    """An expression's vector; --model decides between vectors of one name, where it can."""
    from steerlab.recipe import ModelIdentity

    name = ModelIdentity(lab.source, "", 1, 1).name if lab.source else None
    known = name in {model.name for model in lab.store.models()}
    return lab.store.evaluate(expression, name if known else None)


def _heading(cell_or_setting: Cell | Setting) -> str:
    """What a column of text is: baseline, or vector, coefficient and dose."""
    vector, c = cell_or_setting.vector, cell_or_setting.coefficient
    if vector is None:
        return "baseline"
    return f"{vector}  c {c:+.4g}  dose {signed_dose(cell_or_setting.dose)}"


def _print_texts(cells: Sequence[Cell]) -> None:
    for number, cell in enumerate(cells):
        if number:
            click.echo()
        click.echo(click.style(f"── {printable(_heading(cell))}", bold=True))
        click.echo(printable(str(cell.completion), newlines=True))


@contextmanager
def _streamed(
    prompts: Sequence[str], settings: Sequence[Setting]
) -> Iterator[Callable[[int, str], None] | None]:
    """In a terminal: baseline and steered side by side, growing as they are written."""
    if not sys.stdout.isatty():
        yield None
        return
    from rich.live import Live
    from rich.table import Table
    from rich.text import Text

    shown = list(dict.fromkeys(settings))
    texts: dict[int, str] = {}

    def draw() -> Table:
        table = Table(box=None, expand=True, padding=(0, 2, 1, 0), header_style="bold")
        for setting in shown:
            table.add_column(Text(printable(_heading(setting))), ratio=1, overflow="fold")
        for row, prompt in enumerate(prompts):
            cells = []
            for column in range(len(shown)):
                text = Text(printable(prompt, newlines=True), style="dim")
                text.append(
                    printable(texts.get(row * len(shown) + column, ""), newlines=True),
                    style="not dim",
                )
                cells.append(text)
            table.add_row(*cells)
        return table

    with Live(draw(), console=console(), refresh_per_second=15, get_renderable=draw):

        def on_text(index: int, piece: str) -> None:
            texts[index] = texts.get(index, "") + piece

        yield on_text


@click.command("sweep")
@click.argument("expression", nargs=-1, required=True)
@click.option("--layers", type=LayerRange(), help="Layers to compare (default: the vector's).")
@click.option("--coefficients", type=Numbers(), help="Such as -60,-30,0,30,60")
@click.option("--doses", type=Numbers(), help="Instead: such as -0.2,-0.1,0,0.1,0.2 (the default)")
@click.option("--prompt", "prompts", multiple=True, help="May be repeated.")
@click.option("--prompts", "prompts_file", type=_FILE, help="A text file with a prompt a line.")
@click.option("--seeds", type=click.IntRange(1), default=1, help="Generations of each cell.")
@positions_option
@other_weights_option
@sampling_options
@seed_option
@model_options
@store_option
@json_option
@quiet_option
def sweep_command(
    expression: tuple[str, ...],
    layers: Any,
    coefficients: tuple[float, ...] | None,
    doses: tuple[float, ...] | None,
    prompts: tuple[str, ...],
    prompts_file: Path | None,
    seeds: int,
    seed: int,
    other_weights: bool,
    store_path: Path | None,
    as_json: bool,
    quiet: bool,
    source: str | None,
    device: str | None,
    dtype: str | None,
    device_map: str | None,
    revision: str | None,
    trust_remote_code: bool,
    **options: Any,
) -> None:
    """Layers x strengths x prompts, as one batch.

    \b
    steerlab sweep "love - anger" --layers 10,15,20 --doses=-0.2,-0.1,0,0.1,0.2
    steerlab sweep love --layers 10,15,20 --coefficients=-1,0,1 --prompt "I think you are a"

    Layers that the vector lacks are made again from its recipe. At equal coefficient, layers
    differ in dose: compare layers at equal dose.
    """
    if coefficients and doses:
        raise click.UsageError("give --coefficients or --doses, not both")
    if not coefficients and not doses:
        doses = (-0.2, -0.1, 0.0, 0.1, 0.2)
    if prompts_file is not None:
        prompts = (*prompts, *_lines(prompts_file))
    loading = {
        "device": device,
        "dtype": dtype,
        "device_map": device_map,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
    }
    lab = open_lab(store_path, source, **loading)
    vector = _evaluate(lab, " ".join(expression))
    load(lab, vector, quiet=quiet)
    with progress_bar("sweeping", quiet=quiet) as progress:
        cells = lab.sweep(
            vector,
            list(vector.layers) if layers is None else layers,
            prompts or ("I think you are a",),
            coefficients=coefficients or (),
            doses=doses or (),
            seeds=range(seed, seed + seeds),
            allow_other_weights=other_weights,
            progress=progress,
            **options,
        )
    if as_json:
        print_json([cell.to_json() for cell in cells])
        return
    print_cells(cells)
    if coefficients and len({cell.layers for cell in cells if cell.layers}) > 1:
        say("Layers stand here at equal coefficient, so their doses differ: compare at equal dose.")


def _lines(path: Path) -> list[str]:
    from steerlab.errors import BadPrompts

    try:
        found = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise BadPrompts(f"can't read prompts from {path}: {error}") from None
    if not found:
        raise BadPrompts(f"{path} holds no prompt")
    return found


def print_cells(cells: Sequence[Cell]) -> None:
    """A sweep as a table: one block a prompt, a line a cell."""
    several_seeds = len({cell.seed for cell in cells}) > 1
    for number, prompt in enumerate(dict.fromkeys(cell.prompt for cell in cells)):
        if number:
            click.echo()
        click.echo(click.style(printable(prompt), bold=True))
        rows = [
            [
                ",".join(str(b) for b in cell.layers) or "-",
                f"{cell.coefficient:+.4g}" if cell.coefficient else "0",
                signed_dose(cell.dose) if cell.vector else "baseline",
                *([str(cell.seed)] if several_seeds else []),
                cell.completion.text.strip().replace("\n", "⏎"),
            ]
            for cell in cells
            if cell.prompt == prompt
        ]
        columns = ["layer", "c", "dose", *(["seed"] if several_seeds else []), "text"]
        print_table(columns, rows, right=columns[:-1])
