"""Verbs that change what is said of a vector: tag, note, rename, remove."""

from __future__ import annotations

from pathlib import Path

import click

from steerlab.cli.options import complete_ref, model_filter_option, open_store, store_option
from steerlab.cli.output import say, warn
from steerlab.notation import printable


@click.command("tag")
@click.argument("ref", shell_complete=complete_ref)
@click.argument("tags", nargs=-1, required=True)
@click.option("--remove", is_flag=True, help="Take these tags away instead.")
@model_filter_option
@store_option
def tag_command(
    ref: str, tags: tuple[str, ...], remove: bool, model: str | None, store_path: Path | None
) -> None:
    """Add or remove tags."""
    store = open_store(store_path)
    absent = sorted(set(tags) - {*store.record(ref, model).tags}) if remove else []
    if absent:
        say(f"{ref} has no tag {' or '.join(absent)}")
    record = store.tag(ref, add=() if remove else tags, remove=tags if remove else (), model=model)
    click.echo(f"{record.ref}: {printable(' '.join(record.tags)) or 'no tags'}")


@click.command("note")
@click.argument("ref", shell_complete=complete_ref)
@click.argument("text", nargs=-1)
@model_filter_option
@store_option
def note_command(
    ref: str, text: tuple[str, ...], model: str | None, store_path: Path | None
) -> None:
    """Write a vector's note.

    Without TEXT it is printed; "" empties it.
    """
    store = open_store(store_path)
    record = store.note(ref, " ".join(text), model=model) if text else store.record(ref, model)
    if record.note:
        click.echo(printable(record.note, newlines=True))
    else:
        say(f"{record.ref} has no note")


@click.command("rename")
@click.argument("old", shell_complete=complete_ref)
@click.argument("new")
@model_filter_option
@store_option
def rename_command(old: str, new: str, model: str | None, store_path: Path | None) -> None:
    """Give a vector another name.

    All its versions move together, and what was made from them says the new name.
    """
    ref = open_store(store_path).rename(old, new, model=model)
    click.echo(f"{printable(old)} is now {ref}")


@click.command("remove")
@click.argument("refs", nargs=-1, required=True, shell_complete=complete_ref)
@click.option("--force", is_flag=True, help="Even if other vectors were made from it.")
@model_filter_option
@store_option
def remove_command(
    refs: tuple[str, ...], force: bool, model: str | None, store_path: Path | None
) -> None:
    """Remove a vector from the store.

    A bare name means its newest version. Its payload stays until `steerlab gc`.
    """
    store = open_store(store_path)
    for record in [store.record(ref, model) for ref in refs]:  # all are there, or none goes
        broken = store.remove(record.ref, force=force, model=record.model)
        click.echo(f"removed {record.ref}")
        if broken:
            warn(f"can no longer be recomputed: {', '.join(broken)}")
