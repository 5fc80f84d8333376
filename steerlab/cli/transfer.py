"""Verbs that move vectors and stores: export, import, backup and restore."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output, types
from steerlab.cli.progress import load_to_make, progress_bar
from steerlab.core.display import count, printable
from steerlab.core.notation import layers_text
from steerlab.errors import NotFound

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.interop.foreign import Site
    from steerlab.lab.exports import Strength
    from steerlab.lab.imports import Arrival
    from steerlab.registry import Store
    from steerlab.registry.queries import Summary
    from steerlab.registry.transfer.import_plan import Import

_COMPARED = 50  # vectors of one import, up to which each is compared with the store
_STRENGTH = "its file states the strength {0}: use it with --coefficient {0}"
_SAID = {
    "dropped": "left out {}",
    "model": "its file states the model {}",
    "coefficient": _STRENGTH,
    "glp.alpha_default": _STRENGTH,
}
"""Facts of a foreign file that are said when it comes in."""


@options.verb("export")
@click.argument("refs", nargs=-1, shell_complete=options.complete_ref)
@click.argument("path", type=types.PATH)
@click.option("--parents", is_flag=True, help="Include everything they were made from.")
@click.option("--all", "everything", is_flag=True, help="All vectors, including older versions.")
@click.option("--text", help="Only those with this in their name, note, tags, recipe or prompts.")
@click.option(
    "--to",
    metavar="FORMAT",
    help="Of another program: gguf, llama-cpp, npz, peft, …",
)
@click.option("--dose", type=types.NUMBER, help="With --to: the strength, as a dose.")
@click.option("--coefficient", type=types.NUMBER, help="With --to: the strength.")
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
    to: str | None,
    **strength: float | None,
) -> None:
    """Write vectors to a file, for other programs too.

    \b
    steerlab export love love.safetensors
    steerlab export love anger pair.tar --parents
    steerlab export --tag feeling feelings.tar
    steerlab export love love.gguf --dose 0.15
    steerlab export love calm both.gguf
    steerlab export "love[10:20] - anger" part.npz

    A name that ends in .tar makes an archive of any number of vectors, any other name a payload
    file of one. Both are self-describing and can be mailed; `steerlab import` reads them.
    Select vectors by refs, or by the filters of `steerlab list`.

    Other programs' formats (--to) hold one vector, which may be an expression: of several, their
    sum is written, each at its strength, which is what they do together. gguf and glp: control
    vectors for llama.cpp and repeng, the latter with its meaning. llama-cpp: the same file at
    coefficient 1, and the option that gives llama.cpp the strength. npz: arrays of numpy. lm-eval:
    for lm-evaluation-harness. peft: a directory with a BEFT adapter. saklas: a profile and its
    sidecar. neuronpedia, vllm-lens: requests.
    NAME.gguf and NAME.npz need no --to. The strength is --dose or --coefficient, else the
    calibrated one, else 1, where `generate` steers: a calibrated layer that is not stored is made
    on the model, and "love[15]" writes the stored one. Formats that state no strength get the
    directions times it. What a format can't hold is refused.
    """
    model, every_version = filters.pop("model"), filters.pop("every_version")
    chosen = text is not None or any(value is not None for value in filters.values())
    if refs and (chosen or everything or every_version):
        raise click.UsageError("name vectors, or select them: not both")
    if path.is_dir():
        raise click.UsageError(f"{path} is a directory: export to another name, or delete it first")
    if path.exists() and not force:
        raise click.UsageError(f"{path} already exists: use --force to replace it")
    target = _target(to, path)
    if target is not None:
        if not refs or parents:
            raise click.UsageError(f"{target} holds no lineage and no archive: name vectors")
        vectors = [store.evaluate(ref, model) for ref in refs]
        made = _strengths(store, vectors, **strength)
        _export_foreign(made, target, path, force)
        return
    if any(value is not None for value in strength.values()):
        raise click.UsageError("steerlab's own files have no strength: choose a format with --to")
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


def _target(to: str | None, path: Path) -> str | None:
    """The foreign format that is meant, if any."""
    from steerlab.interop.targets import TARGETS, target_of

    to = to and to.replace("llama.cpp", "llama-cpp")
    if to is not None and to not in TARGETS:
        raise click.UsageError(f"there is no format {to!r}: {', '.join(TARGETS)}")
    return target_of(path, to)


def _strengths(
    store: Store, vectors: Sequence[SteeringVector], **asked: float | None
) -> list[Strength]:
    """Vectors where and as strongly as they are to be written; loads a model if one has to be made.

    Imports torch only then.
    """
    from steerlab.lab.exports import check_strength, strength_of
    from steerlab.lab.lab import Lab

    lab = Lab(store)
    made = []
    for vector in vectors:
        check_strength(vector, **asked)
    for vector in vectors:
        load_to_make(lab, vector)
        made.append(strength_of(lab, vector, **asked))
    return made


def _export_foreign(strengths: Sequence[Strength], target: str, path: Path, force: bool) -> None:
    from steerlab.interop.targets import TARGETS
    from steerlab.lab import exports

    strength = exports.together(strengths)
    command = TARGETS[target].command
    given = command(path, strength.coefficient) if command is not None else ""
    exports.write(strength, target, path, force=force)
    how = "stated in the file" if TARGETS[target].has_knob else "baked in"
    how = f"use it with {given}" if given else how
    output.say(f"{strength.vector} at coefficient {strength.coefficient:g}, {strength.why}: {how}")
    click.echo(printable(str(path)))


@options.verb("import")
@click.argument("paths", nargs=-1, type=types.PATH, metavar="FILE...")
@click.option("--model", metavar="ID", help="The model of foreign files: a name, id or directory.")
@click.option("--layer", type=int, help="The layer of a foreign file's single direction.")
@click.option(
    "--layer-from",
    type=click.Choice(("input", "output")),
    help="A foreign file's layer N is this of block N.",
)
@options.layers("Take only these layers of foreign files: 15, 10,15,20 or 10:20.")
@click.option(
    "--sign", type=click.Choice(("+", "-")), default="+", help="-: reverse foreign files."
)
@click.option("--sae", type=types.PATH, help="A directory of SAELens.")
@click.option("--feature", type=click.IntRange(0), help="With --sae: the decoder's row to take.")
@click.option("--as", "name", metavar="NAME", help="The vector's name (default: the file's).")
@click.option("--format", "format_", metavar="F", help="Refuse foreign files of another format.")
@options.store
@options.json
@options.quiet
def import_command(
    paths: tuple[Path, ...], store: Store, sae: Path | None, feature: int | None, **foreign: Any
) -> None:
    """Import vectors, from files of other programs too.

    \b
    steerlab import feelings.tar
    steerlab import happy.gguf --layers 2:30
    steerlab import calm.pt --model smollm2 --layer 15
    steerlab import --sae ./gpt2-small-res-jb --feature 9143 --model gpt2

    Files are recognised by what is in them. Of payload files and archives, every vector is
    checked against its digest; a taken name gets its next version; a vector that the store already
    has is left alone. Reports duplicates of stored vectors (for up to 50 at once).

    Foreign files, and those in a directory, are stored together or not at all: GGUF control
    vectors; arrays of numpy (.npy, .npz) and torch (.pt, which is never unpickled); safetensors of
    saklas (packs too), steering-lite and others; .svec; requests to Neuronpedia and vllm-lens.
    What a file does not state (its model, its layers) is asked for, and recorded as asserted. The
    model is one that has vectors in the store, unless --model names it. Layer B is the residual
    stream at the input of block B, which is the output of block B-1.
    """
    from steerlab.interop.recognise import is_ours
    from steerlab.lab import imports

    if (sae is None) != (feature is None):
        raise click.UsageError("--sae DIR and --feature N belong together")
    if not paths and sae is None:
        raise click.UsageError("name files, or --sae DIR and --feature N")
    files = list(imports.files_in(paths))
    if absent := [path for path in files if not path.exists()]:
        raise NotFound(f"no file {absent[0]}")
    ours = {path for path in files if is_ours(path)}
    others = [path for path in files if path not in ours]
    items = _foreign(store, others, paths, (sae, feature), **foreign)
    done: list[dict[str, Any]] = []
    for path in files:
        if path in ours:
            with progress_bar("importing") as progress:
                entries = store.transfer.import_(path, progress=progress)
            done += [{"ref": e.ref, "was": e.was, "already": e.already} for e in entries]
            if not output.asked("json"):
                _print_imported(store, entries)
    arrivals = imports.stored(store, items)
    done += [{"ref": a.vector.ref, "was": a.recipe.source, "already": a.already} for a in arrivals]
    if output.asked("json"):
        output.print_json(done)
    else:
        _print_arrivals(store, arrivals)


def _foreign(
    store: Store,
    files: list[Path],
    named: Sequence[Path],
    sae: tuple[Path | None, int | None],
    *,
    model: str | None,
    layer: int | None,
    layer_from: Site | None,
    layers: Any,
    sign: str,
    name: str | None,
    format_: str | None,
) -> list[tuple[str, SteeringVector]]:
    """The vectors of foreign files; options that only they have are refused without any."""
    from steerlab.interop.foreign import Asserted
    from steerlab.lab import imports

    said = Asserted(layer, layer_from, layers, sign == "-")
    directory, feature = sae
    if not files and directory is None:
        if said != Asserted() or (model, name, format_) != (None, None, None):
            raise click.UsageError(
                "steerlab's own files state their models, layers and names: leave the options out"
            )
        return []
    found, others = imports.foreign_in(files, named, format_)
    if directory is not None and feature is not None:
        from steerlab.interop import sae_directory

        found.append((directory, sae_directory.read(directory, feature)))
    if not found:
        raise click.ClickException("no file has a vector in it; nothing was stored")
    identity = None if model is None else imports.identity_of(store, model)
    items = imports.bound(store, found, said, identity, name)
    for path in others:
        output.say(f"{path} is no vector: left out")
    return items


def _print_arrivals(store: Store, arrivals: Sequence[Arrival]) -> None:
    for arrival in arrivals:
        vector, recipe = arrival.vector, arrival.recipe
        how = "already here" if arrival.already else str(recipe)
        where = layers_text(vector.layers)
        text = f"{vector.ref}  {how}; {where} of {vector.model.name}"
        click.echo(printable(text))
        for fact in recipe.facts:
            key, _, value = fact.partition("=")
            if key in _SAID:
                output.say(f"{vector.ref}: {_SAID[key].format(value)}")
    new = {arrival.vector.ref: arrival.vector for arrival in arrivals if not arrival.already}
    for vector in new.values() if len(new) <= _COMPARED else ():
        output.say_duplicates(store, vector)


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
@click.argument("path", type=types.FILE)
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
@click.argument("backup", type=types.EXISTING)
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
