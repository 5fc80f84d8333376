"""Verbs that run a stored recipe again: rederive with newer operands, port on another model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output
from steerlab.cli.progress import load, progress_bar
from steerlab.core.display import number, printable
from steerlab.core.notation import span

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab
    from steerlab.lab.port import Ported
    from steerlab.lab.recipes import Rederived
    from steerlab.registry import Store

_FEW = 4  # layers, up to which each is shown with the one that it became


@options.verb("rederive")
@options.ref
@click.option("--deep", is_flag=True, help="First rederive the compositions among its operands.")
@options.dry_run
@options.model
@options.store
@options.json
def rederive_command(ref: str, deep: bool, dry_run: bool, model: str | None, store: Store) -> None:
    """Recompute a composition with the newest operands.

    \b
    steerlab rederive love_minus_anger
    steerlab rederive love_minus_anger --deep --dry-run

    Evaluates the recipe with the newest version of every operand and stores the result as the
    composition's next version, with its tags and note. Stores nothing if no operand is newer.
    """
    from steerlab.lab.recipes import rederive

    made = rederive(store, ref, deep=deep, dry_run=dry_run, model=model)
    if made or output.asked("json"):
        output.show(made, partial(_print_steps, how="would be stored" if dry_run else "stored"))
    else:
        hint = "" if deep else " (--deep checks their operands too)"
        output.say(f"{ref} is up to date: none of its operands has a newer version{hint}")


def _print_steps(made: Sequence[Rederived], how: str) -> None:
    for step in made:
        _print_step(step, how)


def _print_step(step: Rederived, how: str) -> None:
    title = click.style(str(step.after.ref), bold=True)
    click.echo(f"{title}  {printable(str(step.after.recipe))}  ({how})")
    changes = ", ".join(f"{old} -> {new}" for old, new in step.operands.items())
    output.hanging("newer: ", changes)
    before, now = step.before.norms(), step.after.norms()
    rows = [
        [
            str(b),
            f"{step.cosines[b]:+.3f}" if b in step.cosines else "-",
            number(before.get(b), 4),
            number(now.get(b), 4),
        ]
        for b in sorted({*before, *now})
    ]
    output.table(columns := ["layer", "cosine", "norm before", "norm now"], rows, right=columns)


@options.verb("port")
@options.ref
@options.layers()
@options.lab
@options.json
@options.quiet
def port_command(ref: str, layers: Any, lab: Lab) -> None:
    """Make a vector on another model, from its recipe.

    \b
    steerlab port love --model Qwen/Qwen2.5-0.5B
    steerlab port smollm2.love_minus_anger --model gpt2 --layers 6

    Runs the recipe's prompts on --model and stores the vector there under the same name. For a
    composition, all that it was made from is ported first. Without --layers each layer becomes
    the one at the same relative depth. Imported vectors have no recipe to run.
    """
    from steerlab.lab.port import port, portable

    if lab.source is None:
        raise click.UsageError("which model? give --model ID")
    portable(lab, ref, layers=layers)
    load(lab)
    with progress_bar("porting") as progress:
        made = port(lab, ref, layers=layers, progress=progress)
    output.show(made, _print_ported)


def _print_ported(made: Sequence[Ported]) -> None:
    columns = ["vector", "on", "layers", "norm", "made"]
    output.table(columns, [_row(one) for one in made], right=["norm"], wrap=["layers", "made"])
    new = sum(one.new for one in made)
    output.say(f"{new} stored, {len(made) - new} already there")
    for one in made:
        if one.poor_layers:
            where = f"layer {span(one.poor_layers)} of {one.after.model.name}"
            output.say(
                f"note: the pairs of {one.after.ref} disagree at {where}: try other --layers"
            )


def _row(one: Ported) -> list[str]:
    after = one.after
    if 0 < len(one.layers) <= _FEW:
        steps = ", ".join(f"{a} -> {b}" for a, b in one.layers.items())
    else:
        steps = " -> ".join(filter(None, [span([*one.layers]), span(after.layers)]))
    how = str(after.recipe) if one.new else f"already there: {after.recipe}"
    return [str(after.ref), after.model.name, steps, number(after.norm, 4), how]
