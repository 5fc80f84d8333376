"""Verbs that look after the store: verify, rebuild, gc."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerlab.cli.options import json_option, open_lab, open_store, quiet_option, store_option
from steerlab.cli.output import print_hanging, print_json, print_table, say
from steerlab.cli.progress import progress_bar
from steerlab.core.display import count, printable, some

if TYPE_CHECKING:
    from steerlab.lab.rerun import Rerun
    from steerlab.registry import Store
    from steerlab.registry.upkeep.verify import Finding


@click.command("verify")
@click.option("--recipes", is_flag=True, help="Extract contrast vectors again on their models.")
@store_option
@json_option
@quiet_option
def verify_command(recipes: bool, store_path: Path | None, as_json: bool, quiet: bool) -> int:
    """Check every payload and recompute every composition.

    Bit for bit. --recipes also loads each model and runs the contrast recipes on it again: a
    vector is borne out by a cosine of at least 0.999 at every layer. Each problem is printed as
    it is met. Exits with 1 if anything is wrong.
    """
    store = open_store(store_path)
    findings = store.verify() if as_json else _verified(store, quiet)
    again = _rerun(store_path, quiet or as_json) if recipes else []
    wrong = [run for run in again if run.problem]
    if as_json:
        problems = [{"ref": f.ref, "problem": f.problem, "harm": f.damage.key} for f in findings]
        runs = [run.to_json() for run in again]
        print_json({"problems": problems, "recipes": runs} if recipes else problems)
        return 1 if findings or wrong else 0
    if recipes:
        _print_rerun(again, wrong, quiet)
    return 1 if findings or wrong else 0


def _verified(store: Store, quiet: bool) -> Sequence[Finding]:
    """Verify and print each problem as it is met; the last word is on what holds in the end."""
    tell = _Teller()
    try:
        with progress_bar("verifying", quiet=quiet) as bar:

            def on_finding(finding: Finding) -> None:
                bar.hide()
                tell(finding)

            findings = store.verify(bar, on_finding)
        tell.settle(findings)
    except _Unprintable as stopped:
        raise stopped.error from None
    if findings:
        found = count(len(findings), "problem")
        say(f"{found} found: `steerlab doctor` says what to do", quiet=quiet)
    else:
        stored = count(len(store.list(every_version=True)), "vector")
        say(f"{stored} verified, nothing is wrong", quiet=quiet)
    return findings


class _Teller:
    """Prints findings; called with each as it is met."""

    def __init__(self) -> None:
        self.told: dict[Finding, None] = {}

    def __call__(self, finding: Finding) -> None:
        try:
            if not self.told:
                click.echo(click.style("vector  problem", bold=True))
            self.told[finding] = None
            print_hanging(f"{printable(finding.ref)}  ", finding.problem)
        except (OSError, ValueError) as error:  # in the store it would pass for one of its own
            raise _Unprintable(error) from error

    def settle(self, findings: Sequence[Finding]) -> None:
        """Take back in one line what does not hold in the end, and tell what only then came."""
        holding = set(findings)
        if gone := [printable(finding.ref) for finding in self.told if finding not in holding]:
            click.echo(f"withdrawn, as others wrote meanwhile: what was said of {some(gone)}")
        for finding in findings:
            if finding not in self.told:
                self(finding)


class _Unprintable(Exception):
    """What stdout does not take."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _rerun(store_path: Path | None, quiet: bool) -> Sequence[Rerun]:
    from steerlab.lab.rerun import rerun_recipes
    from steerlab.models.loading import hush

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
    restored = store.upkeep.rebuild()
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
        garbage = store.upkeep.gc(not delete, timedelta(hours=grace), progress)
    if not garbage:
        say("nothing to delete")
        return
    rows = [[str(g.size), g.path, g.unreadable or " ".join(g.holds)] for g in garbage]
    print_table(["bytes", "file", "vectors in it"], rows, right=["bytes"], wrap=["vectors in it"])
    what = "deleted" if delete else "would be deleted (--delete does it)"
    say(f"{count(len(garbage), 'file')} {what}")
