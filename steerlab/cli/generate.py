"""steerlab generate: steered text beside the baseline, shown as it is written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output
from steerlab.cli.engine import engine
from steerlab.cli.progress import console, interruptible, load
from steerlab.core.display import printable, signed, signed_dose
from steerlab.core.notation import layers_text, spelled

if TYPE_CHECKING:
    from rich.console import RenderableType

    from steerlab.core.audit import AuditedText
    from steerlab.core.cell import Cell
    from steerlab.core.sampling import Sampling
    from steerlab.core.setting import Setting
    from steerlab.lab.lab import Lab

_STRONG = 0.4  # a dose that is likely to break texts
_COLUMN = 24  # the fewest terminal columns in which text is readable


@options.verb("generate")
@click.argument("prompts", nargs=-1, required=True, metavar="PROMPT...")
@options.vector
@options.numbers("-c", "--coefficient", "coefficients", text="One or more: -2,2")
@options.numbers(
    "-d",
    "--dose",
    "doses",
    text="Instead: strength relative to the residual stream, such as 0.15 or -0.15,0.15",
)
@options.layers("Where to steer (default: the vector's).")
@click.option("--keep", is_flag=True, help="Keep the texts: `steerlab runs` lists them.")
@click.option("--audit", is_flag=True, help="Show which tokens were changed, and how far.")
@click.option("--no-baseline", is_flag=True, help="Leave out the unsteered text.")
@options.steering
@options.sampling
@options.seed
@options.lab
@engine
@options.json
@options.quiet
def generate_command(
    prompts: tuple[str, ...],
    keep: bool,
    audit: bool,
    no_baseline: bool,
    where: dict[str, Any],
    sampling: Sampling,
    seed: int,
    lab: Lab,
    **steer: Any,
) -> None:
    """Generate text with a vector, beside the baseline.

    \b
    steerlab generate "I think you are a" -v love --dose 0.15
    steerlab generate "I think you are a" -v "love - anger" -c -2,2

    Without --layers, a vector acts where `steerlab calibrate` found that it works; without a
    strength too, as strongly. A vector that was not calibrated acts at its own layers, with
    coefficient 1. Ctrl-C keeps the text so far.

    --audit prints the tokens of each text: █ before one that was changed most, ▄ and ▂ by up to
    two thirds and a third of that, · before one that was not changed. ‖Δ‖ is the length of the
    change, as measured in the model. --json has it for every pass, layer and position.
    """
    settings, layers = _settings(lab, **steer)
    if no_baseline and steer["expression"] is not None:
        settings = settings[1:]
    whole = audit or output.asked("json") or output.asked("quiet")
    live = not whole and sys.stdout.isatty()
    shown = [sampling.shown(prompt) for prompt in prompts]
    with interruptible() as stop, _streamed(shown, settings) if live else nullcontext() as feed:
        watch = {"on_text": feed, "should_stop": stop, "audit": audit}
        how = {**watch, **where, **sampling.options()}
        cells = lab.compare(prompts, settings, seeds=(seed,), **how)
    if not live:
        output.show(cells, partial(_print_texts, sampling=sampling))
    if steer["expression"] is not None and not (steer["coefficients"] or steer["doses"]):
        _warn_of_default(lab, settings[-1])
    if keep:
        run = {"layers": layers, "positions": where["positions"]}
        _keep(lab, steer["expression"] or "", cells, sampling=sampling, **run)
    stop.check()


def _keep(lab: Lab, expression: str, cells: Sequence[Cell], **how: Any) -> None:
    """Keep the texts of every prompt as a run."""
    from steerlab.core.run import Run

    for prompt in dict.fromkeys(cell.prompt for cell in cells):
        mine = [cell for cell in cells if cell.prompt == prompt]
        run = lab.store.runs.save(Run.of(mine, expression, lab.model.source, **how))
        output.say(f"kept as run {run.id}")


def _settings(
    lab: Lab,
    expression: str | None,
    layers: Any,
    coefficients: tuple[float, ...],
    doses: tuple[float, ...],
) -> tuple[list[Setting], str]:
    """The baseline, then each strength, and the layers as a run keeps them; loads the model."""
    from steerlab.core.setting import Setting
    from steerlab.lab.operating_point import all_beyond_safe

    if coefficients and doses:
        raise click.UsageError("give --coefficient or --dose, not both")
    if expression is None and (coefficients or doses or layers is not None):
        raise click.UsageError("which vector? give --vector EXPR")
    if expression is None:
        load(lab)
        return [Setting()], ""
    vector = lab.evaluate(expression)
    if doses:
        vector.coefficient(doses[0])  # refuses a vector without doses before a model is loaded
    load(lab, vector)
    point = lab.operating_point(vector, layers)
    strengths = coefficients or tuple(map(point.coefficient_of, doses))
    steered = [point.setting(c, str(vector)) for c in strengths or (point.coefficient,)]
    if point.calibration is not None and not (strengths and layers is not None):
        layers = list(steered[0].layers)  # a run is repeated where it was written
        _say_calibrated(steered[0], with_strength=not strengths)
    for text in all_beyond_safe(lab.store, vector, steered):
        output.warn(text)
    return [Setting(), *steered], spelled(layers)


def _say_calibrated(setting: Setting, *, with_strength: bool) -> None:
    where = layers_text(setting.layers)
    if with_strength:
        strength = f"dose {signed_dose(setting.dose)} (c {signed(setting.coefficient)})"
        output.say(f"{setting.label} as calibrated: {where}, {strength}")
    else:
        output.say(f"{setting.label} at its calibrated layer: {where}")


def _warn_of_default(lab: Lab, setting: Setting) -> None:
    """Say that coefficient 1, chosen by nobody, is not known to work or likely to break texts."""
    digest = setting.vector.digest if setting.vector is not None else ""
    here = setting.layers if len(setting.layers) == 1 else ()
    found = lab.store.results.calibration_of(digest, *here)
    if found is not None and not found.works:
        output.warn(
            f"{setting.label} is not shown to work at any strength: c 1, which nothing chose, is "
            f"dose {signed_dose(setting.dose)}"
        )
    elif setting.coefficient == 1 and setting.dose is not None and abs(setting.dose) > _STRONG:
        output.warn(
            f"{setting.label} has no calibrated strength here, and c 1 is dose "
            f"{signed_dose(setting.dose)}: 0.1 to 0.25 usually steers, more breaks texts; "
            "give --dose 0.15, or calibrate it"
        )


def heading(of: Setting) -> str:
    """The title of a text: the baseline, or vector, coefficient and dose."""
    if not of.layers:
        return "baseline"
    if of.is_baseline:
        return printable(f"baseline: {of.label} adds nothing at c {signed(of.coefficient)}")
    return printable(f"{of.label}  c {signed(of.coefficient)}  dose {signed_dose(of.dose)}")


def _print_texts(cells: Sequence[Cell], sampling: Sampling) -> None:
    for number, cell in enumerate(cells):
        if number:
            click.echo()
        click.echo(click.style(f"── {heading(cell.setting)}", bold=True))
        click.echo(printable(sampling.shown(cell.prompt) + cell.text, newlines=True))
        if cell.audit is not None:
            _print_audit(cell.audit)


def _print_audit(audit: AuditedText) -> None:
    """The tokens in a line, those that were changed on colour, and a summary."""
    from steerlab.plots.terminal import shaded

    drawn = (
        shaded(text, max(shade, 0.2)) if shade else click.style(text, dim=True)
        for text, shade in audit.pieces()
    )
    click.echo("".join(drawn))
    click.echo(printable(audit.summary()))


@contextmanager
def _streamed(
    prompts: Sequence[str], settings: Sequence[Setting]
) -> Iterator[Callable[[int, str], None]]:
    """Show texts in a terminal as they are written, side by side where there is room."""
    from rich.live import Live

    texts = [""] * (len(prompts) * len(settings))
    room = output.width() or 80
    draw = _side_by_side if room >= len(settings) * (_COLUMN + 2) else _stacked

    def on_text(index: int, piece: str) -> None:
        texts[index] += piece

    def current() -> RenderableType:
        return draw(prompts, settings, texts)

    with Live(console=console(), refresh_per_second=12, get_renderable=current):
        yield on_text


def _side_by_side(
    prompts: Sequence[str], settings: Sequence[Setting], texts: Sequence[str]
) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 1, 0), pad_edge=False, header_style="bold")
    table.width = (output.width() or 80) - 3  # room for the ^C that a terminal echoes
    for setting in settings:
        table.add_column(Text(heading(setting)), ratio=1, overflow="fold")
    for row, prompt in enumerate(prompts):
        written = texts[row * len(settings) : (row + 1) * len(settings)]
        table.add_row(*(_continued(prompt, text) for text in written))
    return table


def _stacked(
    prompts: Sequence[str], settings: Sequence[Setting], texts: Sequence[str]
) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    parts = []
    for index, text in enumerate(texts):
        prompt, setting = prompts[index // len(settings)], settings[index % len(settings)]
        parts += [Text(f"── {heading(setting)}", style="bold"), _continued(prompt, text), Text()]
    return Group(*parts)


def _continued(prompt: str, text: str) -> Any:
    from rich.text import Text

    whole = Text(printable(prompt, newlines=True), style="dim")
    return whole.append(printable(text, newlines=True), style="not dim")
