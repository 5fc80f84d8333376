"""How the store is: doctor, du."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerlab.cli.options import json_option, open_store, quiet_option, store_option
from steerlab.cli.output import print_hanging, print_json, print_table, say
from steerlab.cli.progress import progress_bar
from steerlab.core.display import some

if TYPE_CHECKING:
    from steerlab.registry.upkeep.doctor import Problem

_GROUPS = {"model": ("model",), "kind": ("kind",), "vector": ("model", "name")}
_SHOWN = 3  # vectors named for each problem


@click.command("doctor")
@click.option("--quick", is_flag=True, help="Without verifying: no payload is read.")
@store_option
@json_option
@quiet_option
def doctor_command(quick: bool, store_path: Path | None, as_json: bool, quiet: bool) -> int:
    """Say what is wrong with the store, and what to type.

    Checks what verify checks, and looks for files that nothing needs, old copies and a full
    disk. Changes nothing but what every command does when a registry.db is missing or old.
    Exits with 1 if something is wrong.
    """
    store = open_store(store_path)
    with progress_bar("examining", quiet=quiet or as_json) as progress:
        found = store.upkeep.diagnose(progress, quick=quick)
    if store_path is not None:
        found = [problem.with_store(store_path) for problem in found]
    wrong = [problem for problem in found if problem.wrong]
    if as_json:
        print_json([asdict(problem) for problem in found])
        return 1 if wrong else 0
    for problem in found:
        _print(problem)
    if not wrong:
        at_a_glance = ", at a glance" if quick else ""
        say(f"{store.path} is well{at_a_glance}", quiet=quiet)
    return 1 if wrong else 0


def _print(problem: Problem) -> None:
    label = "wrong:" if problem.wrong else "note: "
    print_hanging(f"{label} ", problem.what, fg="red" if problem.wrong else None)
    if problem.refs:
        print_hanging("   of: ", some(problem.refs, _SHOWN))
    print_hanging("   do: ", problem.fix)


@click.command("du")
@click.option(
    "--by", type=click.Choice([*_GROUPS]), default="model", show_default=True, help="Of what."
)
@click.option("--limit", type=click.IntRange(1), help="Only the largest.")
@store_option
@json_option
def du_command(by: str, limit: int | None, store_path: Path | None, as_json: bool) -> None:
    """Say what takes how much of the disk.

    Bytes, the largest first; a payload file with many vectors is shared out among them.
    """
    found = open_store(store_path).upkeep.usage()
    if as_json:
        print_json(found.to_json())
        return
    groups = found.by(*_GROUPS[by])
    rows = [[".".join(key), str(n), f"{size:,}"] for key, n, size in groups[:limit]]
    if limit is not None and len(groups) > limit:
        rest = groups[limit:]
        rows.append(
            [f"{len(rest)} more", str(sum(n for _, n, _ in rest)), f"{sum(s for *_, s in rest):,}"]
        )
    rows += [
        [what, "", f"{size:,}"]
        for what, size in (
            ("registry", found.registry),
            ("older registries", found.copies),
            ("other files", found.loose),
        )
        if size
    ]
    rows.append(["total", str(len(found.vectors)), f"{found.total:,}"])
    print_table([by, "versions", "bytes"], rows, right=["versions", "bytes"], wrap=[by])
