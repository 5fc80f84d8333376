"""Verbs that look after the store: verify, rebuild, gc."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerlab.cli.options import (
    json_option,
    open_lab,
    open_store,
    quiet_option,
    store_option,
)
from steerlab.cli.output import count, print_json, print_table, say
from steerlab.cli.progress import progress_bar
from steerlab.notation import printable

if TYPE_CHECKING:
    from steerlab.rerun import Rerun


@click.command("verify")
@click.option("--recipes", is_flag=True, help="Extract contrast vectors again on their models.")
@store_option
@json_option
@quiet_option
def verify_command(recipes: bool, store_path: Path | None, as_json: bool, quiet: bool) -> int:
    """Check every payload and recompute every composition.

    Bit for bit. --recipes also loads each model and runs the contrast recipes on it again: a
    vector is borne out by a cosine of at least 0.999 at every layer. Exits with 1 if anything
    is wrong.
    """
    store = open_store(store_path)
    with progress_bar("verifying", quiet=quiet or as_json) as progress:
        findings = store.verify(progress)
    again = _rerun(store_path, quiet or as_json) if recipes else []
    wrong = [run for run in again if run.problem]
    problems = [{"ref": f.ref, "problem": f.problem, "harm": f.harm.value} for f in findings]
    if as_json:
        runs = [run.to_json() for run in again]
        print_json({"problems": problems, "recipes": runs} if recipes else problems)
        return 1 if findings or wrong else 0
    if findings:
        print_table(["vector", "problem"], [[f.ref, f.problem] for f in findings], wrap=["problem"])
    else:
        stored = count(len(store.list(every_version=True)), "vector")
        say(f"{stored} verified, nothing is wrong", quiet=quiet)
    if recipes:
        _print_rerun(again, wrong, quiet)
    return 1 if findings or wrong else 0


def _rerun(store_path: Path | None, quiet: bool) -> Sequence[Rerun]:
    from steerlab.loading import hush
    from steerlab.rerun import rerun_recipes

    lab = open_lab(store_path, {})
    with progress_bar("extracting again", quiet=quiet) as progress:
        hush()
        return rerun_recipes(lab, progress)


def _print_rerun(runs: Sequence[Rerun], wrong: Sequence[Rerun], quiet: bool) -> None:
    rows = [
        [run.ref, "-" if run.cosine is None else f"{run.cosine:.6f}", run.problem or "as stored"]
        for run in runs
    ]
    if rows:
        columns = ["vector", "cosine", "its recipe today"]
        print_table(columns, rows, right=["cosine"], wrap=["its recipe today"])
    done = f"{count(len(runs), 'recipe')} run again"
    say(f"{done}, {len(wrong) or 'nothing'} {'are' if len(wrong) > 1 else 'is'} wrong", quiet=quiet)


@click.command("rebuild")
@store_option
def rebuild_command(store_path: Path | None) -> None:
    """Restore the registry from the payload files.

    The old registry is kept beside the new one.
    """
    store = open_store(store_path)
    restored = store.rebuild()
    what = printable(str(store.path))
    click.echo(f"{count(restored, 'vector')} restored from the payloads of {what}")


@click.command("gc")
@click.option("--delete", is_flag=True, help="Really delete; without it, only list.")
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Hours a file has to be old.",
)
@store_option
def gc_command(delete: bool, grace: float, store_path: Path | None) -> None:
    """Delete files that no vector needs.

    Without --delete it only lists them, with the vectors in a payload file that the registry does
    not know: `steerlab rebuild` takes those in.
    """
    store = open_store(store_path)
    with progress_bar("deleting" if delete else "looking") as progress:
        garbage = store.gc(not delete, timedelta(hours=grace), progress)
    if not garbage:
        say("nothing to delete")
        return
    rows = [[str(g.size), g.path, g.unreadable or " ".join(g.holds)] for g in garbage]
    print_table(["bytes", "file", "vectors in it"], rows, right=["bytes"], wrap=["vectors in it"])
    what = "deleted" if delete else "would be deleted (--delete does it)"
    say(f"{count(len(garbage), 'file')} {what}")
