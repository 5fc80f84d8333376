"""steerlab extract: a vector from contrast prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.options import (
    LayerRange,
    json_option,
    load,
    model_options,
    open_lab,
    quiet_option,
    store_option,
)
from steerlab.cli.output import describe_result, print_json, say_duplicates, warn
from steerlab.cli.progress import progress_bar
from steerlab.core.display import printable

if TYPE_CHECKING:
    from steerlab.extraction.methods import Pairs
    from steerlab.files.prompts import Prompts
    from steerlab.registry import Store

METHODS = ("mean_difference", "actadd", "pca", "probe", "mean_centred", "random")
_FILE = click.Path(dir_okay=False, path_type=Path)


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
    read: str,
    tags: tuple[str, ...],
    note: str,
    loading: dict[str, Any],
    store_path: Path | None,
    as_json: bool,
    quiet: bool,
    **how: Any,
) -> None:
    """Make a vector of contrast prompts.

    \b
    steerlab extract calm --positive "I feel calm" --negative "I feel tense"
    steerlab extract calm --pairs calm.csv --layers 10:20

    A positive coefficient steers toward the positive prompts. It is stored under NAME; a
    taken name gets its next version.

    \b
    What --pairs reads:
      .jsonl  {"positive": "I feel calm", "negative": "I feel tense"}   on each line
      .json   a list of such objects, or {"positive": [...], "negative": [...]}
      .csv    a header positive,negative and a pair on each line
      .toml   positive = [...] and negative = [...]
    --baseline reads the positive prompts of such a file.

    --method random makes a control: a random direction, seeded, with the norm that
    mean_difference has for the same pairs.
    """
    from steerlab.core.recipe import Contrast, check_name, read_of
    from steerlab.core.record import check_labels
    from steerlab.extraction.methods import check_recipe, problems

    check_name(name)
    if layer is not None and layers is not None:
        raise click.UsageError("give --layer or --layers, not both")
    prompts = _prompts(positive, negative, pairs)
    centre = _prompts((), (), baseline).positive if baseline is not None else ()
    how |= {"read": read_of(read), "baseline": centre}
    check_recipe(Contrast(prompts.positive, prompts.negative, **how))
    check_labels(tags, note)
    lab = open_lab(store_path, loading)
    _check_store(lab.store)
    load(lab, quiet=quiet)
    with progress_bar("extracting", quiet=quiet) as progress:
        vector = lab.extract(
            name,
            _paired(prompts),
            layers=layer if layer is not None else layers,
            progress=progress,
            tags=tags,
            note=note,
            **how,
        )
    if as_json:
        print_json(lab.store.record(str(vector.ref), vector.model).to_json())
    else:
        click.echo(f"{click.style(str(vector), bold=True)}  {printable(str(vector.recipe))}")
        click.echo(describe_result(vector))
    if not quiet:
        say_duplicates(lab.store, vector)
    for problem in problems(vector):
        warn(problem)


def _prompts(positive: tuple[str, ...], negative: tuple[str, ...], path: Path | None) -> Prompts:
    from steerlab.files.prompts import Prompts, read_pairs

    if (path is not None) == bool(positive or negative):
        raise click.UsageError("give prompts by --positive and --negative, or by --pairs FILE")
    return Prompts(positive, negative) if path is None else read_pairs(path)


def _check_store(store: Store) -> None:
    """Raise StoreError for a store that can't be written; make none that is not there yet."""
    if store.path.exists():
        store.save_many([])


def _paired(prompts: Prompts) -> Pairs:
    if not prompts.negative:
        return prompts.positive
    return list(zip(prompts.positive, prompts.negative, strict=True))
