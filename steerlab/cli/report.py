"""steerlab report: a page about a vector, for a colleague."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.options import (
    Numbers,
    PlotFile,
    complete_ref,
    load,
    model_options,
    open_lab,
    quiet_option,
    seed_option,
    store_option,
)
from steerlab.cli.output import say
from steerlab.cli.progress import interruptible, progress_bar

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab
    from steerlab.report.examples import Examples

_HTML = PlotFile((".html", ".htm"))


@click.command("report")
@click.argument("ref", shell_complete=complete_ref)
@click.option("--html", "file", type=_HTML, required=True, help="The page; overwritten if there.")
@click.option("--prompt", "prompts", multiple=True, help="Write examples of it; may be repeated.")
@click.option("--doses", type=Numbers(), help="At these doses, such as -0.2,-0.1,0.1,0.2")
@click.option("--no-model", is_flag=True, help="Only what the store knows: loads no model.")
@seed_option
@model_options
@store_option
@quiet_option
def report_command(
    ref: str,
    file: Path,
    no_model: bool,
    loading: dict[str, Any],
    store_path: Path | None,
    quiet: bool,
    **writing: Any,
) -> None:
    """Write a page about a vector.

    \b
    steerlab report love --html love.html
    steerlab report love --html love.html --prompt "I think you are a" --doses -0.2,0.2
    steerlab report love --html love.html --no-model

    One file that a colleague can open: what the vector is, its recipe, its dose-response beside
    random directions, texts from the most negative dose to the most positive, its neighbours
    and how to load it. It asks the network for nothing.

    Texts are those of its newest sweep or run; where none are kept, or with --prompt or
    --doses, they are written now, within the calibrated range if there is one.
    """
    asked = bool(writing["prompts"] or writing["doses"])
    if no_model and asked:
        raise click.UsageError("--prompt and --doses write texts: leave out --no-model")
    from steerlab.files import durable
    from steerlab.report.page import page, report

    lab = open_lab(store_path, loading)
    found = report(lab.store, ref, lab.stored_model())
    if not no_model and (asked or not found.examples):
        texts = _written(lab, found.record.qualified, quiet=quiet, **writing)
        found = report(lab.store, found.record.qualified, examples=texts)
    durable.write(file, page(found).encode("utf-8"))
    say(f"wrote {file}: open it in a browser, or mail it", quiet=quiet)


def _written(lab: Lab, ref: str, *, quiet: bool, **writing: Any) -> tuple[Examples, ...]:
    from steerlab.report.examples import PROMPTS, written_examples

    vector = lab.store.load(ref)
    load(lab, vector, quiet=quiet)
    with interruptible() as stop, progress_bar("writing examples", quiet=quiet) as progress:
        return written_examples(
            lab,
            vector,
            lab.store.results.calibration(ref),
            prompts=writing["prompts"] or PROMPTS,
            doses=writing["doses"] or (),
            seed=writing["seed"],
            progress=progress,
            should_stop=stop,
        )
