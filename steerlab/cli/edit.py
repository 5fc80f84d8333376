"""Verbs that change labels: tag, note, rename and remove."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from steerlab.cli import options, output
from steerlab.core.display import printable

if TYPE_CHECKING:
    from steerlab.core.record import Record
    from steerlab.registry import Store


@options.verb("tag")
@options.ref
@click.argument("tags", nargs=-1, required=True)
@click.option("--remove", is_flag=True, help="Remove these tags instead.")
@options.model
@options.store
def tag_command(
    ref: str, tags: tuple[str, ...], remove: bool, model: str | None, store: Store
) -> None:
    """Add or remove tags."""
    absent = sorted(set(tags) - {*store.record(ref, model).tags}) if remove else []
    if absent:
        output.say(f"{ref} has no tag {' or '.join(absent)}")
    record = store.tag(ref, add=() if remove else tags, remove=tags if remove else (), model=model)
    click.echo(f"{record.ref}: {printable(' '.join(record.tags)) or 'no tags'}")


@options.verb("note")
@options.ref
@click.argument("text", nargs=-1)
@options.model
@options.store
def note_command(ref: str, text: tuple[str, ...], model: str | None, store: Store) -> None:
    """Write a vector's note.

    Without TEXT the note is printed; "" deletes it.
    """
    record = store.note(ref, " ".join(text), model=model) if text else store.record(ref, model)
    if record.note:
        click.echo(printable(record.note, newlines=True))
    else:
        output.say(f"{record.ref} has no note")


@options.verb("rename")
@click.argument("old", shell_complete=options.complete_ref)
@click.argument("new")
@options.model
@options.store
def rename_command(old: str, new: str, model: str | None, store: Store) -> None:
    """Give a vector another name.

    All versions are renamed together; recipes that use them show the new name.
    """
    click.echo(f"{printable(old)} is now {store.rename(old, new, model=model)}")


@options.verb("remove")
@options.refs
@click.option("--force", is_flag=True, help="Even if other vectors were made from it.")
@options.model
@options.store
def remove_command(refs: tuple[str, ...], force: bool, model: str | None, store: Store) -> None:
    """Remove a vector from the store.

    A bare name means its newest version. Only a backup or an export can bring a removed vector
    back. Its version number is not used again, and `log` still lists it.
    """
    records = {record.qualified: record for record in (store.record(ref, model) for ref in refs)}
    later = sorted(records.values(), key=lambda record: record.created, reverse=True)
    if not force:  # all are removed, or none
        _check_unused(store, set(records), later)
    for record in later:  # compositions before their operands
        broken = store.remove(record.ref, force=force, model=record.model)
        click.echo(f"removed {record.ref}")
        if broken:
            output.warn(f"can no longer be recomputed: {', '.join(broken)}")


def _check_unused(store: Store, going: set[str], records: Sequence[Record]) -> None:
    from steerlab.errors import StoreError

    for record in records:
        staying = [
            c.ref for c in store.lineage(record.ref, record.model).children if c.ref not in going
        ]
        if staying:
            raise StoreError(
                f"can't remove {record.ref}: {staying[0]} was made from it and could not be "
                "recomputed; remove that too, or use --force"
            )
