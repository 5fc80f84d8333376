"""steerlab extract: make a vector from contrast prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output
from steerlab.cli.progress import load, progress_bar
from steerlab.core.display import some

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.extraction.methods import Pairs
    from steerlab.files.prompts import Prompts
    from steerlab.lab.lab import Lab
    from steerlab.registry import Store

METHODS = ("mean_difference", "actadd", "pca", "probe", "mean_centred", "random")


@options.verb("extract")
@click.argument("name")
@click.option("--positive", multiple=True, metavar="TEXT", help="May be repeated.")
@click.option("--negative", multiple=True, metavar="TEXT", help="One for each --positive.")
@click.option("--pairs", type=options.FILE, help="Read prompts from .jsonl, .json, .csv or .toml.")
@click.option("--baseline", type=options.FILE, help="For mean_centred: the prompts to centre on.")
@click.option("--layer", type=int, help="One layer (default: the middle one).")
@options.layers()
@click.option("--method", type=click.Choice(METHODS), default=METHODS[0], show_default=True)
@click.option("--read", default="last", show_default=True, help="last, mean or a token index.")
@click.option("--seed", type=int, help="For --method random.")
@click.option("--chat", is_flag=True, help="Prompts are messages to a chat model.")
@click.option(
    "--skip-undecided",
    is_flag=True,
    help="Leave out layers where the pairs decide no direction.",
)
@options.tags
@options.note
@options.lab
@options.json
@options.quiet
def extract_command(
    name: str,
    positive: tuple[str, ...],
    negative: tuple[str, ...],
    pairs: Path | None,
    baseline: Path | None,
    layer: int | None,
    layers: Any,
    read: str,
    skip_undecided: bool,
    tags: tuple[str, ...],
    note: str,
    lab: Lab,
    **how: Any,
) -> None:
    """Make a vector from contrast prompts.

    \b
    steerlab extract calm --positive "I feel calm" --negative "I feel tense"
    steerlab extract calm --pairs calm.csv --layers 10:20

    A positive coefficient steers toward the positive prompts. The vector is stored under NAME;
    if that is taken, as its next version.

    \b
    Formats of --pairs:
      .jsonl  {"positive": "I feel calm", "negative": "I feel tense"}   on each line
      .json   a list of such objects, or {"positive": [...], "negative": [...]}
      .csv    a header positive,negative and a pair on each line
      .toml   positive = [...] and negative = [...]
    --baseline reads the positive prompts of such a file.

    --method random makes a control: a random direction with a seed and the norm that
    mean_difference has for the same pairs.
    """
    from steerlab.core.prompts import read_of
    from steerlab.core.recipe import Contrast, check_name
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
    _check_store(lab.store)
    load(lab)
    at = layer if layer is not None else layers
    with progress_bar("extracting") as progress:
        how |= {"layers": at, "skip_undecided": skip_undecided, "progress": progress}
        vector = lab.extract(name, _paired(prompts), tags=tags, note=note, **how)
    if output.asked("json"):
        output.print_json(lab.store.record(str(vector.ref), vector.model).to_json())
    else:
        output.made(vector, str(vector))
    _say_what_was_read(lab, vector)
    if left := sorted({*lab.model.layers(at)} - {*vector.layers}):
        output.warn(f"{output.layers_text(left)} left out: the pairs decide no direction there")
    output.say_duplicates(lab.store, vector)
    for problem in problems(vector):
        output.warn(problem)


def _say_what_was_read(lab: Lab, vector: SteeringVector) -> None:
    """Show the tokens that were read: of a template's end, or the prompts' own last words."""
    from steerlab.core.prompts import describe_read
    from steerlab.core.recipe import Contrast

    recipe = vector.recipe
    if output.asked("json") or not isinstance(recipe, Contrast):
        return
    if recipe.method == "actadd" or recipe.read == "mean":
        return  # all tokens were read
    decode = lab.model.tokenizer.decode
    tokens = list(dict.fromkeys(repr(str(decode(ids))) for ids in recipe.ids_read))
    output.say(f"read the prompts' {describe_read(recipe.read)}: {some(tokens)}")


def _prompts(positive: tuple[str, ...], negative: tuple[str, ...], path: Path | None) -> Prompts:
    from steerlab.files.prompts import Prompts, read_pairs

    if (path is not None) == bool(positive or negative):
        raise click.UsageError("give prompts by --positive and --negative, or by --pairs FILE")
    return Prompts(positive, negative) if path is None else read_pairs(path)


def _check_store(store: Store) -> None:
    """Raise StoreError for a store that can't be written; a missing one is not created."""
    if store.path.exists():
        store.save_many([])


def _paired(prompts: Prompts) -> Pairs:
    if not prompts.negative:
        return prompts.positive
    return list(zip(prompts.positive, prompts.negative, strict=True))
