"""Verbs that change what is said of a vector: tag, note, rename, remove."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerlab.cli.options import complete_ref, model_filter_option, open_store, store_option
from steerlab.cli.output import say, warn
from steerlab.core.display import printable

if TYPE_CHECKING:
    from steerlab.core.record import Record
    from steerlab.registry import Store


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

    A bare name means its newest version. The file goes too: only a backup or an export brings
    a removed vector back. Its number is not given to another one, and `log` tells of it.
    """
    store = open_store(store_path)
    records = {record.qualified: record for record in (store.record(ref, model) for ref in refs)}
    later = sorted(records.values(), key=lambda record: record.created, reverse=True)
    if not force:  # all go, or none
        _check_unused(store, {record.qualified for record in later}, later)
    for record in later:  # what was made from others goes before them
        broken = store.remove(record.ref, force=force, model=record.model)
        click.echo(f"removed {record.ref}")
        if broken:
            warn(f"can no longer be recomputed: {', '.join(broken)}")


def _check_unused(store: Store, going: set[str], records: Sequence[Record]) -> None:
    from steerlab.errors import StoreError

    for record in records:
        staying = [c.ref for c in store.children(record.ref, record.model) if c.ref not in going]
        if staying:
            raise StoreError(
                f"can't remove {record.ref}: {staying[0]} was made from it; remove that too, or "
                "--force it and lose the means to recompute it"
            )
