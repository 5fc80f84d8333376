"""steerlab extract: make a vector from contrast prompts."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output, types
from steerlab.cli.progress import load, progress_bar
from steerlab.core.display import count, some
from steerlab.core.notation import layers_text

if TYPE_CHECKING:
    from steerlab.core.recipe import Contrast
    from steerlab.core.vector import SteeringVector
    from steerlab.files.contrast import ContrastSet
    from steerlab.lab.lab import Lab
    from steerlab.registry import Store

METHODS = (
    "mean_difference", "actadd", "pca", "probe", "mean_centred", "random", "difference_of_means"
)  # fmt: skip
SHAPES = ("persona", "continuations", "label", "question", "pairs", "prompts")

shape = options.grouped(
    "shape",
    shape=click.option("--pairs-format", "shape", type=click.Choice(SHAPES), help="Force a shape."),
    columns=click.option(
        "--columns", metavar="A,B", help="Columns: positive,negative or text,label."
    ),
    positive_label=click.option("--positive-label", metavar="VALUE", help="Of a label column."),
    turn=click.option(
        "--turn",
        type=click.Choice(("user", "system", "assistant")),
        help="Whose turn the texts are, if not the usual of the shape.",
    ),
    against=click.option("--against", type=types.FILE, help="A file of the negative prompts."),
    template=click.option("--template", metavar="TEXT", help="Put each text where it has {}."),
    positive_word=click.option("--positive-word", multiple=True, help="A text for the template."),
    negative_word=click.option("--negative-word", multiple=True, help="One for each of these."),
    questions=click.option("--questions", type=types.FILE, help="User's turns, for each text."),
    suffixes=click.option("--suffixes", type=types.FILE, help="Answers, for each text."),
)
"""How a contrast file is read; `PairsOptions` takes it."""


@options.verb("extract")
@click.argument("name")
@click.option("--positive", multiple=True, metavar="TEXT", help="May be repeated.")
@click.option("--negative", multiple=True, metavar="TEXT", help="One for each --positive.")
@click.option("--pairs", type=types.FILE, help="Prompts from a file of one of these shapes.")
@shape
@click.option("--baseline", type=types.FILE, help="For mean_centred: the prompts to centre on.")
@click.option("--layer", type=int, help="One layer (default: the middle one).")
@options.layers()
@click.option(
    "--method",
    type=click.Choice(METHODS),
    help="[default: mean_difference; difference_of_means for unpaired sets]",
)
@click.option("--read", default="last", show_default=True, help="last, mean, a token index, …")
@click.option("--seed", type=int, help="For --method random.")
@click.option(
    "--chat/--no-chat", default=None, help="Use the chat template [default: for files with turns]."
)
@click.option(
    "--embed-prompts",
    is_flag=True,
    help="Keep all prompts in the recipe, however many, not the path and digest of their file.",
)
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
    shape: dict[str, Any],
    baseline: Path | None,
    layer: int | None,
    layers: Any,
    method: str | None,
    read: str,
    chat: bool | None,
    skip_undecided: bool,
    embed_prompts: bool,
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
    What --pairs reads, by its content (JSON, JSON lines, TOML, or cells between
    commas, semicolons or tabs; UTF-8 or UTF-16; gzipped or not):
      positive and negative prompts, or any two columns (--columns harmful,harmless)
      a text and a label: unpaired sets, as are two files (--against FILE)
      a question with answers matching a behavior or not, in the assistant's turn
      instructions {pos, neg} and questions; classes and data: system prompts
    --template "You are {}" --positive-word kind --negative-word cruel
    --suffixes FILE crosses a template with answers; --questions FILE with questions.
    OWNER/NAME reads a Hugging Face data set, if `datasets` is installed.

    \b
    --read last, mean (all tokens but the first) or a token index; user_last (of the
    user's turn), assistant_mean (of the answer's tokens) or answer_letter.
    --baseline reads one list of prompts.

    --method random makes a control: a random direction with a seed and the norm that
    mean_difference has for the same pairs.
    """
    from steerlab.core.prompts import read_of
    from steerlab.core.recipe import Contrast, check_name
    from steerlab.core.record import check_labels
    from steerlab.extraction.methods import check_recipe, problems
    from steerlab.extraction.runner import LARGE
    from steerlab.files.contrast import read_texts
    from steerlab.registry.keep import keep

    check_name(name)
    if layer is not None and layers is not None:
        raise click.UsageError("give --layer or --layers, not both")
    shape["unpaired"] = method == METHODS[-1]
    prompts = _prompts(positive, negative, pairs, shape)
    centre = read_texts(baseline) if baseline is not None else ()
    how["method"] = method or (METHODS[0] if prompts.paired else METHODS[-1])
    prompts.check_method(how["method"])
    how |= {"read": read_of(read), "chat": prompts.has_turns if chat is None else chat}
    recipe = Contrast.of(prompts.positive, prompts.negative, centre, **how)
    if not embed_prompts:
        recipe = replace(recipe, prompt_set=prompts.named)
    check_recipe(recipe)
    check_labels(tags, note)
    _check_store(lab.store)
    if prompts.said and not output.asked("json"):
        output.say(f"{prompts.said}{'; in the chat template' if recipe.chat else ''}")
        if recipe.prompt_set is not None:
            output.say("the recipe keeps the set's path and digest; --embed-prompts keeps it whole")
    load(lab)
    at = layer if layer is not None else layers
    try:
        with progress_bar("extracting") as progress:
            made = lab.model.reextract(recipe, at, skip_undecided=skip_undecided, progress=progress)
    except KeyboardInterrupt:
        if len(recipe.prompts) > LARGE:
            output.say("stopped: the same command goes on where it was")
        raise
    vector = keep(lab.store, name, made, tags=tags, note=note)[0]
    if output.asked("json"):
        output.print_json(lab.store.record(str(vector.ref), vector.model).to_json())
    else:
        output.made(vector, str(vector))
    _say_what_was_read(lab, vector)
    if left := sorted({*lab.model.layers(at)} - {*vector.layers}):
        output.warn(f"{layers_text(left)} left out: the pairs decide no direction there")
    output.say_duplicates(lab.store, vector)
    for problem in problems(vector):
        output.warn(problem)
    if not output.asked("json"):
        _say_what_is_next(vector, recipe)


def _say_what_is_next(vector: SteeringVector, recipe: Contrast) -> None:
    """How to find where the vector works, and whether its pairs are likely to tell."""
    from steerlab.evaluation.calibration.calibrate import LEAST_ITEMS
    from steerlab.evaluation.statistics import RELIABLE

    if recipe.method == "random":
        return  # a control, which works nowhere
    pairs = 0 if recipe.prompt_set is not None else len(recipe.pairs)
    items = " --items FILE" if pairs < LEAST_ITEMS else ""  # else it would be refused
    few = f"; {count(pairs, 'pair')} may be too few to tell, {2 * RELIABLE} usually do"
    command = f"steerlab calibrate {shlex.quote(str(vector.ref))}{items}"
    output.say(f"{command} finds where it works{few if not items and pairs < RELIABLE else ''}")


def _say_what_was_read(lab: Lab, vector: SteeringVector) -> None:
    """Show the tokens that were read: of a template's end, or the prompts' own last words."""
    from steerlab.core.prompts import describe_read
    from steerlab.core.recipe import Contrast

    recipe = vector.recipe
    if output.asked("json") or not isinstance(recipe, Contrast):
        return
    if recipe.method == "actadd" or recipe.read in ("mean", "assistant_mean"):
        return  # all tokens were read
    if recipe.prompt_set is not None and not recipe.ids_read:
        return  # they are too many to be kept
    decode = lab.model.tokenizer.decode
    tokens = list(dict.fromkeys(repr(str(decode(ids))) for ids in recipe.ids_read))
    output.say(f"read the prompts' {describe_read(recipe.read)}: {some(tokens)}")


def _prompts(
    positive: tuple[str, ...], negative: tuple[str, ...], path: Path | None, shape: dict[str, Any]
) -> ContrastSet:
    from steerlab.files.contrast import ContrastSet, PairsOptions, columns_of, read_pairs

    chosen = PairsOptions(**{**shape, "columns": columns_of(shape["columns"] or "")})
    typed, named = bool(positive or negative), path is not None or bool(chosen.positive_word)
    if typed == named or (path is not None and chosen.positive_word):
        raise click.UsageError("give prompts by --positive and --negative, or by --pairs FILE")
    if named:
        return read_pairs(path, chosen)
    if replace(chosen, unpaired=False):
        raise click.UsageError("give --pairs FILE with options of how a file is read")
    return ContrastSet(positive, negative, paired=not shape["unpaired"])


def _check_store(store: Store) -> None:
    """Raise StoreError for a store that can't be written; a missing one is not created."""
    if store.path.exists():
        store.save_many([])
