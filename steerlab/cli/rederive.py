"""steerlab rederive: a composition made again with the newest operands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerlab.cli.options import (
    complete_ref,
    json_option,
    model_filter_option,
    open_store,
    store_option,
)
from steerlab.cli.output import print_hanging, print_json, print_table, say
from steerlab.core.display import number, printable

if TYPE_CHECKING:
    from steerlab.registry.rederive import Rederived


_COLUMNS = ("layer", "cosine", "norm before", "norm now")


@click.command("rederive")
@click.argument("ref", shell_complete=complete_ref)
@click.option("--deep", is_flag=True, help="Make compositions among its operands again first.")
@click.option("--dry-run", is_flag=True, help="Compute and report, store nothing.")
@model_filter_option
@store_option
@json_option
def rederive_command(
    ref: str, deep: bool, dry_run: bool, model: str | None, store_path: Path | None, as_json: bool
) -> None:
    """Make a composition again with the newest operands.

    \b
    steerlab rederive love_minus_anger
    steerlab rederive love_minus_anger --deep --dry-run

    Its recipe is evaluated with the newest version of every operand and stored as its own next
    version, with its tags and note. Nothing is stored where no operand is newer.
    """
    made = open_store(store_path).rederive(ref, deep=deep, dry_run=dry_run, model=model)
    if as_json:
        print_json([step.to_json() for step in made])
    elif made:
        for step in made:
            _print(step, "would be stored" if dry_run else "stored")
    else:
        hint = "" if deep else " (--deep looks at theirs too)"
        say(f"{ref} is up to date: none of its operands has a newer version{hint}")


def _print(step: Rederived, how: str) -> None:
    title = click.style(str(step.after.ref), bold=True)
    click.echo(f"{title}  {printable(str(step.after.recipe))}  ({how})")
    changes = ", ".join(f"{old} -> {new}" for old, new in step.operands.items())
    print_hanging("newer: ", changes)
    print_table(_COLUMNS, _rows(step), right=_COLUMNS)


def _rows(step: Rederived) -> Sequence[Sequence[str]]:
    before, now, cosines = step.before.norms(), step.after.norms(), step.cosines
    return [
        [
            str(b),
            f"{cosines[b]:+.3f}" if b in cosines else "-",
            number(before.get(b), 4),
            number(now.get(b), 4),
        ]
        for b in sorted({*before, *now})
    ]
