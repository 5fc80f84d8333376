"""Verbs that change labels: tag, note, rename, remove and undo."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from steerlab.cli import options, output
from steerlab.core.display import printable, some

if TYPE_CHECKING:
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
@options.yes
@options.model
@options.store
def remove_command(
    refs: tuple[str, ...], force: bool, yes: bool, model: str | None, store: Store
) -> None:
    """Remove a vector from the store.

    A bare name means its newest version. `steerlab undo` brings a removed vector back until `gc`
    deletes its payload. Its version number is not used again, and `log` still lists it. In a
    terminal it asks first.
    """
    named = list(dict.fromkeys(store.qualified(ref, model) for ref in refs))
    output.confirm(f"Remove {some(named)}?", yes)
    broken = store.remove(named, force=force)
    for ref in named:
        click.echo(f"removed {ref.partition('.')[2]}")
    if broken:
        output.warn(f"can no longer be recomputed: {', '.join(broken)}")
    output.say("`steerlab undo` brings it back, `steerlab gc` frees its space")


@options.verb("undo")
@click.argument("number", type=int, required=False)
@options.store
def undo_command(number: int | None, store: Store) -> None:
    """Undo the last tag, note, rename or remove.

    \b
    steerlab undo
    steerlab log        what can be undone
    steerlab undo 3     that one

    Every process that uses the store counts: the last change may be another's. A removed vector
    comes back with its labels, unless `gc` deleted its payload. The last 100 changes are kept.
    """
    change = store.changes.undo(number)
    click.echo(f"undone: {printable(change.text)}")
