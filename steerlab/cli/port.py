"""steerlab port: a recipe on another model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.options import (
    LayerRange,
    complete_ref,
    json_option,
    load,
    model_options,
    open_lab,
    quiet_option,
    store_option,
)
from steerlab.cli.output import print_json, print_table, say
from steerlab.cli.progress import progress_bar
from steerlab.core.display import number
from steerlab.core.notation import span

if TYPE_CHECKING:
    from steerlab.lab.port import Ported


@click.command("port")
@click.argument("ref", shell_complete=complete_ref)
@click.option("--layers", type=LayerRange(), help="Where: 15, 10,15,20, 10:20 or all.")
@model_options
@store_option
@json_option
@quiet_option
def port_command(
    ref: str,
    layers: Any,
    loading: dict[str, Any],
    store_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Make a vector on another model, from its recipe.

    \b
    steerlab port love --model Qwen/Qwen2.5-0.5B
    steerlab port smollm2.love_minus_anger --model gpt2 --layers 6

    Its prompts are read by --model, and the vector is stored there under the same name. For a
    composition, all that it was made from goes first. Without --layers each layer becomes the
    one at the same relative depth. Imported vectors have no recipe to run.
    """
    from steerlab.lab.port import port, portable

    if loading["source"] is None:
        raise click.UsageError("which model? give --model ID")
    lab = open_lab(store_path, loading)
    portable(lab, ref, layers=layers)
    load(lab, quiet=quiet)
    with progress_bar("porting", quiet=quiet or as_json) as progress:
        made = port(lab, ref, layers=layers, progress=progress)
    if as_json:
        print_json([one.to_json() for one in made])
        return
    print_table(_COLUMNS, [_row(one) for one in made], right=["norm"], wrap=["layers", "made"])
    new = sum(one.new for one in made)
    say(f"{new} stored, {len(made) - new} there already", quiet=quiet)


_FEW = 4  # layers, up to which each is shown with what it became
_COLUMNS = ("vector", "on", "layers", "norm", "made")


def _row(one: Ported) -> list[str]:
    after = one.after
    steps = span(after.layers)
    if one.layers:
        few = len(one.layers) <= _FEW
        steps = (
            ", ".join(f"{a} -> {b}" for a, b in one.layers.items())
            if few
            else f"{span([*one.layers])} -> {steps}"
        )
    how = str(after.recipe) if one.new else f"there already: {after.recipe}"
    return [str(after.ref), after.model.name, steps, number(after.norm, 4), how]
