"""Verbs that look after the store: verify, rebuild, gc, doctor and du."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import click

from steerlab.cli import options, output, types
from steerlab.cli.progress import progress_bar
from steerlab.core.display import count, printable, some

if TYPE_CHECKING:
    from steerlab.lab.recipes import Rerun
    from steerlab.registry import Store
    from steerlab.registry.upkeep.doctor import Problem
    from steerlab.registry.upkeep.usage import Usage
    from steerlab.registry.upkeep.verify import Finding

_GROUPS = {"model": ("model",), "kind": ("kind",), "vector": ("model", "name")}
_SHOWN = 3  # vectors named for each problem


@options.verb("verify")
@click.option("--recipes", is_flag=True, help="Also run contrast recipes again on their models.")
@options.store
@options.json
@options.quiet
def verify_command(recipes: bool, store: Store) -> int:
    """Check every payload and recompute every composition.

    Compositions are compared bit for bit. --recipes also loads each model and runs the contrast
    recipes again: a vector is confirmed by a cosine of at least 0.999 at every layer. Problems
    are printed as they are found. The exit code is 1 if there are any.
    """
    findings = store.verify() if output.asked("json") else _verified(store)
    again = _rerun(store) if recipes else []
    wrong = [run for run in again if run.problem]
    if output.asked("json"):
        problems = [finding.to_json() for finding in findings]
        runs = [run.to_json() for run in again]
        output.print_json({"problems": problems, "recipes": runs} if recipes else problems)
    elif recipes:
        _print_rerun(again, wrong)
    return 1 if findings or wrong else 0


def _verified(store: Store) -> Sequence[Finding]:
    """Verify, printing each problem when it is found, then what changed by the end."""
    printer = _Printer()
    try:
        with progress_bar("verifying") as bar:

            def on_finding(finding: Finding) -> None:
                bar.hide()
                printer(finding)

            findings = store.verify(bar, on_finding)
        printer.settle(findings)
    except _Unprintable as stopped:
        raise stopped.error from None
    if findings:
        found = count(len(findings), "problem")
        output.say(f"{found} found: `steerlab doctor` explains")
    else:
        stored = count(len(store.list(every_version=True)), "vector")
        output.say(f"{stored} verified, no problems found")
    if new := len(store.upkeep.unlisted_results()):
        output.say(
            f"{count(new, 'result file')} not in the registry: `steerlab rebuild` takes them in"
        )
    return findings


class _Printer:
    """Prints findings; called with each when it is found."""

    def __init__(self) -> None:
        self.printed: dict[Finding, None] = {}

    def __call__(self, finding: Finding) -> None:
        try:
            if not self.printed:
                output.title("vector  problem")
            self.printed[finding] = None
            output.hanging(f"{printable(finding.ref)}  ", finding.problem)
        except (OSError, ValueError) as error:  # `verify` would take it for an error of the store
            raise _Unprintable(error) from error

    def settle(self, findings: Sequence[Finding]) -> None:
        """Withdraw in one line what no longer holds, and print what is new."""
        holding = set(findings)
        if gone := [printable(finding.ref) for finding in self.printed if finding not in holding]:
            click.echo(f"withdrawn, as another process changed the store: problems of {some(gone)}")
        for finding in findings:
            if finding not in self.printed:
                self(finding)


class _Unprintable(Exception):
    """An error of stdout."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _rerun(store: Store) -> Sequence[Rerun]:
    from steerlab.lab.lab import Lab
    from steerlab.lab.recipes import rerun
    from steerlab.models.loading import hush

    with progress_bar("extracting again") as progress:
        hush()
        return rerun(Lab(store), progress)


def _print_rerun(runs: Sequence[Rerun], wrong: Sequence[Rerun]) -> None:
    rows = [
        [run.ref, "-" if run.cosine is None else f"{run.cosine:.6f}", run.problem or "as stored"]
        for run in runs
    ]
    if rows:
        columns = ["vector", "cosine", "result"]
        output.table(columns, rows, right=["cosine"], wrap=["result"])
    problems = count(len(wrong), "problem") if wrong else "no problems"
    output.say(f"{count(len(runs), 'recipe')} run again, {problems} found")


@options.verb("rebuild")
@options.store
def rebuild_command(store: Store) -> None:
    """Restore the registry from the payload files.

    The old registry is kept beside the new one.
    """
    restored = count(store.upkeep.rebuild(), "vector")
    click.echo(f"{restored} restored from the payloads of {printable(str(store.path))}")


@options.verb("gc")
@click.option("--delete", is_flag=True, help="Delete the files; without it, list them.")
@click.option(
    "--grace",
    type=types.HOURS,
    default="1.0",
    show_default=True,
    help="Spare files younger than this, in hours.",
)
@options.store
def gc_command(delete: bool, grace: timedelta, store: Store) -> None:
    """Delete files that no vector needs.

    Without --delete the files are only listed, with the vectors in them: `steerlab undo` brings
    back removed ones, `steerlab rebuild` those that the registry does not know. So are extractions
    of large sets in the cache that were stopped over a week ago.
    """
    from steerlab.extraction.spool import abandoned
    from steerlab.files.location import extractions_directory

    with progress_bar("deleting" if delete else "looking") as progress:
        garbage = store.upkeep.gc(not delete, grace, progress)
    stopped = abandoned(extractions_directory(), delete=delete)
    if not (garbage or stopped):
        output.say("nothing to delete")
        return
    rows = [[str(g.size), g.path, g.unreadable or g.contents] for g in garbage]
    rows += [[str(size), str(path), "a stopped extraction"] for path, size in stopped.items()]
    output.table(["bytes", "file", "vectors in it"], rows, right=["bytes"], wrap=["vectors in it"])
    what = "deleted" if delete else "would be deleted (--delete does it)"
    output.say(f"{count(len(rows), 'file')} {what}")


@options.verb("doctor")
@click.option("--quick", is_flag=True, help="Skip verifying: read no payload.")
@options.store
@options.json
@options.quiet
def doctor_command(quick: bool, store: Store) -> int:
    """Report problems with the store, and how to fix them.

    Checks what verify checks, and looks for files that nothing needs, old copies and a full
    disk. Changes nothing, except that a missing or old registry.db is restored or migrated, as
    by every command. The exit code is 1 if something is wrong.
    """
    with progress_bar("examining") as progress:
        found = store.upkeep.diagnose(progress, quick=quick)
    if (store_path := click.get_current_context().params["store_path"]) is not None:
        found = [problem.with_store(store_path) for problem in found]
    output.show(found, _print_problems)
    wrong = any(problem.wrong for problem in found)
    if not wrong and not output.asked("json"):
        unverified = " (payloads were not read)" if quick else ""
        output.say(f"no problems found in {store.path}{unverified}")
    return int(wrong)


def _print_problems(found: Sequence[Problem]) -> None:
    for problem in found:
        label = "wrong:" if problem.wrong else "note: "
        output.hanging(f"{label} ", problem.what, fg="red" if problem.wrong else None)
        if problem.refs:
            output.hanging("   of: ", some(problem.refs, _SHOWN))
        output.hanging("   do: ", problem.fix)


@options.verb("du")
@click.option(
    "--by", type=click.Choice([*_GROUPS]), default="model", show_default=True, help="Group by."
)
@options.limit(None, "Show only this many of the largest.")
@options.store
@options.json
def du_command(by: str, limit: int | None, store: Store) -> None:
    """Show how much disk space vectors take.

    In bytes, largest first; a payload file of several vectors counts in shares.
    """
    output.show(store.upkeep.usage(), partial(_print_usage, by=by, limit=limit))


def _print_usage(found: Usage, by: str, limit: int | None) -> None:
    groups = found.by(*_GROUPS[by])
    shown, rest = groups[:limit], groups[len(groups) if limit is None else limit :]
    sizes: list[tuple[str, int | str, int]] = [(".".join(key), n, size) for key, n, size in shown]
    if rest:
        more = sum(n for _, n, _ in rest)
        sizes.append((f"{len(rest)} more", more, sum(size for *_, size in rest)))
    kinds = ("registry", found.registry), ("older registries", found.copies)
    sizes += [(what, "", n) for what, n in (*kinds, ("other files", found.loose)) if n]
    sizes.append(("total", len(found.vectors), found.total))
    rows = [[what, str(n), f"{size:,}"] for what, n, size in sizes]
    output.table([by, "versions", "bytes"], rows, right=["versions", "bytes"], wrap=[by])
