"""Vectors and stores as files: export, import, backup, restore."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.browse import KINDS
from steerlab.cli.options import (
    complete_model,
    complete_ref,
    grouped,
    json_option,
    open_store,
    quiet_option,
    store_option,
)
from steerlab.cli.output import print_json, say, say_duplicates, warn
from steerlab.cli.progress import progress_bar
from steerlab.core.display import count, printable

if TYPE_CHECKING:
    from steerlab.registry import Store
    from steerlab.registry.queries import Summary

_COMPARED = 50  # imported at once, up to which each is compared with what is there
_FILE = click.Path(dir_okay=False, path_type=Path)

_selection = grouped(
    "selection",
    text=click.option("--text", help="Those with this in name, note, tag, recipe or prompt."),
    layer=click.option("--layer", type=int, help="Those with a direction at this layer."),
    tag=click.option("--tag", help="Those with this tag."),
    kind=click.option("--kind", type=click.Choice(KINDS), help="Those made so."),
)


@click.command("export")
@click.argument("refs", nargs=-1, shell_complete=complete_ref)
@click.argument("path", type=_FILE)
@click.option("--parents", is_flag=True, help="With everything they were made from.")
@click.option("--all", "everything", is_flag=True, help="All vectors, older versions too.")
@_selection
@click.option("--all-versions", is_flag=True, help="Older versions of the selection too.")
@click.option("--model", metavar="NAME", help="Of this model.", shell_complete=complete_model)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@store_option
@quiet_option
def export_command(
    refs: tuple[str, ...],
    path: Path,
    everything: bool,
    all_versions: bool,
    selection: dict[str, Any],
    model: str | None,
    store_path: Path | None,
    quiet: bool,
    **how: bool,
) -> None:
    """Write vectors to a payload file or an archive.

    \b
    steerlab export love love.safetensors
    steerlab export love anger pair.tar --parents
    steerlab export --tag feeling feelings.tar

    A name that ends in .tar makes an archive of any number of vectors, any other one payload
    file. Both describe themselves and are fit to be mailed: `steerlab import` takes them in
    anywhere. Select by refs, or by what `steerlab list` filters by.
    """
    store = open_store(store_path)
    chosen = any(value is not None for value in selection.values())
    if refs and (chosen or everything or all_versions):
        raise click.UsageError("name vectors, or select them: not both")
    if path.exists() and not how["force"]:
        raise click.UsageError(f"{path} is there already: --force replaces it")
    wanted: Sequence[str | Summary] = refs
    if not refs:
        if not (chosen or everything or model):
            raise click.UsageError("name vectors, or select them: --all, --tag, --model, --text …")
        wanted = store.list(
            model=model, every_version=everything or all_versions, sort="name", **selection
        )
        if not wanted:
            raise click.ClickException("no stored vector fits, so nothing was written")
    with progress_bar("exporting", quiet=quiet) as progress:
        store.transfer.export(wanted, path, model=model, progress=progress, **how)
    click.echo(printable(str(path)))


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=_FILE)
@store_option
@json_option
@quiet_option
def import_command(
    paths: tuple[Path, ...], store_path: Path | None, as_json: bool, quiet: bool
) -> None:
    """Take vectors in from a payload file or an archive.

    Each is checked against its digest first, and a file is taken in whole or not at all. A taken
    name gives the next version; what is here already is left alone. What repeats a stored
    vector is told, of up to 50 at once.
    """
    store = open_store(store_path)
    done = []
    for path in paths:
        with progress_bar("importing", quiet=quiet) as progress:
            entries = store.transfer.import_(path, progress=progress)
        done += [{"ref": e.ref, "was": e.was, "already": e.already} for e in entries]
        for entry in () if as_json else entries:
            how = "already here" if entry.already else f"imported from {entry.was}"
            click.echo(f"{printable(entry.ref)}  {printable(how)}")
        new = [entry for entry in entries if not entry.already]
        for entry in new if len(new) <= _COMPARED and not as_json else ():
            say_duplicates(store, store.load(entry.ref, entry.model))
    if as_json:
        print_json(done)


@click.command("backup")
@click.argument("path", type=_FILE)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@store_option
@quiet_option
def backup_command(path: Path, force: bool, store_path: Path | None, quiet: bool) -> int:
    """Write the whole store to one file, while it is in use.

    \b
    steerlab backup vectors-2026-05-01.tar

    Vectors, runs, sweeps and measurements, as they are at one moment; others may write
    meanwhile. Every vector is checked on the way: what is damaged is copied as it is, named, and
    makes this exit with 1. `steerlab restore` brings it back; unpacked with tar it is a store.
    """
    store = open_store(store_path)
    with progress_bar("copying", quiet=quiet) as progress:
        made = store.transfer.backup(path, force=force, progress=progress)
    click.echo(printable(str(made.path)))
    for problem in made.damaged:
        warn(f"not whole: {problem}")
    if made.damaged:
        warn("the backup has all else; `steerlab doctor` explains")
    return 1 if made.damaged else 0


@click.command("restore")
@click.argument("backup", type=click.Path(exists=True, path_type=Path))
@click.option("--force", is_flag=True, help="Replace a store that is there; it is moved aside.")
@store_option
@quiet_option
def restore_command(backup: Path, force: bool, store_path: Path | None, quiet: bool) -> int:
    """Bring a backup back.

    \b
    steerlab restore vectors-2026-05-01.tar --store ./store

    It is unpacked beside the store's place, put there once it is whole, and verified; the backup
    stays as it is. A directory that is a store can be restored too. Exits with 1 if what came
    back has something wrong.
    """
    store = open_store(store_path)
    with progress_bar("restoring", quiet=quiet) as progress:
        aside = store.transfer.restore(backup, force=force, progress=progress)
    with progress_bar("verifying", quiet=quiet) as progress:
        findings = store.verify(progress)
    click.echo(f"{count(_stored(store), 'vector')} restored to {printable(str(store.path))}")
    if aside is not None:
        say(f"what was there is now in {aside}", quiet=quiet)
    if findings:
        say(f"{count(len(findings), 'problem')} came with them: `steerlab doctor` explains")
    return 1 if findings else 0


def _stored(store: Store) -> int:
    return sum(model.vectors for model in store.models())
