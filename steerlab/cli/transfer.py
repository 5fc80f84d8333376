"""Verbs that move vectors and stores: export, import, backup and restore."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output
from steerlab.cli.progress import progress_bar
from steerlab.core.display import count, printable

if TYPE_CHECKING:
    from steerlab.registry import Store
    from steerlab.registry.queries import Summary
    from steerlab.registry.transfer.import_plan import Import

_COMPARED = 50  # vectors of one import, up to which each is compared with the store


@options.verb("export")
@click.argument("refs", nargs=-1, shell_complete=options.complete_ref)
@click.argument("path", type=options.FILE)
@click.option("--parents", is_flag=True, help="Include everything they were made from.")
@click.option("--all", "everything", is_flag=True, help="All vectors, including older versions.")
@click.option("--text", help="Only those with this in their name, note, tags, recipe or prompts.")
@options.filters
@options.force
@options.store
@options.quiet
def export_command(
    refs: tuple[str, ...],
    path: Path,
    parents: bool,
    everything: bool,
    text: str | None,
    filters: dict[str, Any],
    force: bool,
    store: Store,
) -> None:
    """Write vectors to a payload file or an archive.

    \b
    steerlab export love love.safetensors
    steerlab export love anger pair.tar --parents
    steerlab export --tag feeling feelings.tar

    A name that ends in .tar makes an archive of any number of vectors, any other name a payload
    file of one. Both are self-describing and can be mailed; `steerlab import` reads them.
    Select vectors by refs, or by the filters of `steerlab list`.
    """
    model, every_version = filters.pop("model"), filters.pop("every_version")
    chosen = text is not None or any(value is not None for value in filters.values())
    if refs and (chosen or everything or every_version):
        raise click.UsageError("name vectors, or select them: not both")
    if path.exists() and not force:
        raise click.UsageError(f"{path} already exists: use --force to replace it")
    wanted: Sequence[str | Summary] = refs
    if not refs:
        if not (chosen or everything or model):
            raise click.UsageError("name vectors, or select them: --all, --tag, --model, --text …")
        versions = everything or every_version
        wanted = store.list(model=model, text=text, every_version=versions, sort="name", **filters)
        if not wanted:
            raise click.ClickException("no vectors match; nothing was written")
    with progress_bar("exporting") as progress:
        store.transfer.export(
            wanted, path, model=model, parents=parents, force=force, progress=progress
        )
    click.echo(printable(str(path)))


@options.verb("import")
@click.argument("paths", nargs=-1, required=True, type=options.FILE)
@options.store
@options.json
@options.quiet
def import_command(paths: tuple[Path, ...], store: Store) -> None:
    """Import vectors from payload files or archives.

    Every vector is checked against its digest; a file is imported whole or not at all. A taken
    name gets its next version; a vector that the store already has is left alone. Reports
    duplicates of stored vectors (for up to 50 at once).
    """
    done = []
    for path in paths:
        with progress_bar("importing") as progress:
            entries = store.transfer.import_(path, progress=progress)
        done += [{"ref": e.ref, "was": e.was, "already": e.already} for e in entries]
        if not output.asked("json"):
            _print_imported(store, entries)
    if output.asked("json"):
        output.print_json(done)


def _print_imported(store: Store, entries: Sequence[Import]) -> None:
    for entry in entries:
        how = "already here" if entry.already else f"imported from {entry.was}"
        if entry.same_numbers is not None:
            parts = ", ".join(entry.differs)
            how += f"; same numbers as {entry.same_numbers}, which differs in: {parts}"
        click.echo(f"{printable(entry.ref)}  {printable(how)}")
    new = [entry for entry in entries if not entry.already]
    for entry in new if len(new) <= _COMPARED else ():
        output.say_duplicates(store, store.load(entry.ref, entry.model))


@options.verb("backup")
@click.argument("path", type=options.FILE)
@options.force
@options.store
@options.quiet
def backup_command(path: Path, force: bool, store: Store) -> int:
    """Write the whole store to one file, while it is in use.

    \b
    steerlab backup vectors-2026-05-01.tar

    Contains vectors, runs, sweeps and measurements as of one moment; others may keep writing.
    Every vector is checked: damaged ones are copied as they are and named, and the exit code
    is 1. `steerlab restore` brings a backup back; unpacked with tar it is a store.
    """
    with progress_bar("copying") as progress:
        made = store.transfer.backup(path, force=force, progress=progress)
    click.echo(printable(str(made.path)))
    for problem in made.damaged:
        output.warn(f"damaged: {problem}")
    if made.damaged:
        output.warn("everything else is in the backup; `steerlab doctor` explains")
    return 1 if made.damaged else 0


@options.verb("restore")
@click.argument("backup", type=click.Path(exists=True, path_type=Path))
@click.option("--force", is_flag=True, help="Replace an existing store, which is moved aside.")
@options.store
@options.quiet
def restore_command(backup: Path, force: bool, store: Store) -> int:
    """Restore a backup.

    \b
    steerlab restore vectors-2026-05-01.tar --store ./store

    The backup, which may also be a store's directory, is unpacked beside the store's place,
    moved there when it is complete, and verified. The exit code is 1 if verifying finds
    problems.
    """
    with progress_bar("restoring") as progress:
        aside = store.transfer.restore(backup, force=force, progress=progress)
    with progress_bar("verifying") as progress:
        findings = store.verify(progress)
    stored = sum(model.vectors for model in store.models())
    click.echo(f"{count(stored, 'vector')} restored to {printable(str(store.path))}")
    if aside is not None:
        output.say(f"the previous store was moved to {aside}")
    if findings:
        output.say(
            f"{count(len(findings), 'problem')} found: `steerlab doctor` explains", always=True
        )
    return 1 if findings else 0
