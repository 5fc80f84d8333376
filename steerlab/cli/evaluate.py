"""steerlab evaluate and steerlab check: does it carry over, and does it still?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.algebra import DASHES, term
from steerlab.cli.options import (
    LayerRange,
    MetricSpec,
    complete_ref,
    json_option,
    load,
    model_options,
    open_lab,
    plot_option,
    quiet_option,
    store_option,
)
from steerlab.cli.output import print_hanging, print_json, print_table, say
from steerlab.cli.progress import interruptible, progress_bar
from steerlab.core.display import count, number, printable, signed_dose
from steerlab.core.notation import span

if TYPE_CHECKING:
    from steerlab.core.results import Evaluation, Measured
    from steerlab.evaluation.generalization.regression import Change, Checked
    from steerlab.evaluation.generalization.verdict import Values
    from steerlab.evaluation.metrics.texts import Metric

_FILE = click.Path(dir_okay=False, path_type=Path)
_COLOURS = {
    "generalizes": "green",
    "reversed": "red",
    "within chance": "yellow",
    "no effect": "yellow",
    "moved": "red",
}


@click.command("evaluate", context_settings=DASHES)
@click.argument("expression", nargs=-1, required=True, shell_complete=complete_ref)
@click.option(
    "--suite",
    "suites",
    metavar="NAME|FILE",
    multiple=True,
    help="standard (the default), statements, narrative, technical, dialogue, or a .toml or "
    ".jsonl file; may be repeated.",
)
@click.option("--items", type=_FILE, help="Contrast items: a .jsonl file.")
@click.option(
    "--metric",
    "metrics",
    type=MetricSpec(),
    multiple=True,
    help="What a text is valued by: vader (the default), keywords:FILE, regex:…, "
    "package.module:function; may be repeated.",
)
@click.option("--dose", type=float, help="Of both signs (default: calibrated, else 0.15).")
@click.option("--coefficient", type=float, help="Instead of a dose.")
@click.option("--layers", type=LayerRange(), help="Default: the calibrated one, else its own.")
@click.option(
    "--seeds", type=click.IntRange(1), default=2, show_default=True, help="Texts of each prompt."
)
@click.option(
    "--controls",
    type=click.IntRange(5),
    default=5,
    show_default=True,
    help="Random directions of the same norm.",
)
@plot_option("each style's effect beside its controls")
@click.option("--other-weights", is_flag=True, help="Accept a vector of a model of the same shape.")
@click.option("--no-save", is_flag=True, help="Do not keep the evaluation in the store.")
@model_options
@store_option
@json_option
@quiet_option
def evaluate_command(
    expression: tuple[str, ...],
    suites: tuple[str, ...],
    items: Path | None,
    metrics: tuple[Metric, ...],
    layers: Any,
    plot_file: Path | None,
    other_weights: bool,
    no_save: bool,
    loading: dict[str, Any],
    store_path: Path | None,
    as_json: bool,
    quiet: bool,
    **size: Any,
) -> None:
    """Measure whether a vector carries over to other texts.

    \b
    steerlab evaluate love
    steerlab evaluate love --suite statements --suite letters.toml --metric keywords:warm.txt
    steerlab evaluate "love - anger" --dose 0.2 --seeds 3 --items held-out.jsonl

    Texts in four styles are written at both signs of the dose, and with random directions and
    shuffled labels of the same norm: an effect is one where it goes beyond those. Then what it
    costs: fluency, repetition, known facts, neutral beginnings, the likelihood of given texts.
    The evaluation is kept; steerlab check runs it again.

    \b
    A suite of your own, as .toml:
      [styles.letters]
      prompts = ["Dear neighbour, I am writing to you because", "Dear sirs, the delivery"]
      chat = false      # true: messages to a chat model
      items = [{prompt = "The guests were", positive = " kind", negative = " rude"}]
      [off_target]      # each key may be left out, and is then the standard suite's
      facts = [{prompt = "The capital of France is", answer = " Paris"}]
      neutral = ["The map shows that"]
      on_topic = ["A text about what the vector is about."]
      off_topic = ["A text about something else."]
    or as .jsonl, a line each:
      {"style": "letters", "prompt": "Dear neighbour, I am writing to you because"}
      {"style": "letters", "prompt": "The guests were", "positive": " kind", "negative": " rude"}
      {"fact": "The capital of France is", "answer": " Paris"}
      {"neutral": "The map shows that"}
    """
    from steerlab.evaluation.generalization.evaluate import evaluate, named
    from steerlab.evaluation.generalization.plan import EvaluationPlan

    given = {
        "suites": suites or None,
        "items": str(items) if items else None,
        "metrics": tuple(metric.name for metric in metrics) or None,
        "allow_other_weights": other_weights,
        **size,
    }
    plan = EvaluationPlan(**{key: value for key, value in given.items() if value is not None})
    lab = open_lab(store_path, loading)
    vector = lab.evaluate(text := " ".join(map(term, expression)))
    named(plan)  # what is wrong with it is said before a model is loaded
    load(lab, vector, quiet=quiet)
    if layers is not None:
        plan = EvaluationPlan(**{**vars(plan), "layers": tuple(lab.model.layers(layers))})
    with interruptible() as stop, progress_bar("evaluating", quiet=quiet) as progress:
        found = evaluate(lab, vector, plan, keep=not no_save, progress=progress, should_stop=stop)
    from steerlab.evaluation.generalization.verdict import verdict

    if plot_file is not None:
        _plot(found, text, plot_file, quiet=quiet)
    if as_json:
        print_json({**found.to_json(), "verdict": verdict(found)})
        return
    _print(found, text, verdict(found))
    for note in found.data["notes"]:
        say(f"note: {note}", quiet=quiet)
    if not no_save:
        say(f"kept as evaluation {found.id}; steerlab check runs it again", quiet=quiet)


def _plot(found: Evaluation, name: str, file: Path, *, quiet: bool) -> None:
    from steerlab.plots import drawing, figures
    from steerlab.plots.generalization import effect_panels

    panels = effect_panels(found, name)
    if panels:
        drawing.save(figures.generalization(panels), file)
        say(f"wrote {file}", quiet=quiet)
    else:
        say(f"no effect has an interval, so {file} was not written", quiet=quiet)


@click.command("check")
@click.argument("names", nargs=-1, shell_complete=complete_ref)
@model_options
@store_option
@json_option
@quiet_option
def check_command(
    names: tuple[str, ...],
    loading: dict[str, Any],
    store_path: Path | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Run stored evaluations again and say what moved.

    \b
    steerlab check
    steerlab check love

    All evaluations, or those of the vectors named: the newest of each vector, suite and
    settings, on the present model and library versions. A value has moved if the estimates
    then and now both lie outside of the other's 95% interval. Nothing is stored.

    Exit code: 0 if nothing moved, 1 if something did or an evaluation could not be run again.
    """
    from steerlab.evaluation.generalization.regression import check, stored

    lab = open_lab(store_path, loading)
    kept = stored(lab, names)
    if not kept:
        say("no evaluation is stored: steerlab evaluate NAME makes one", quiet=quiet)
    results = []
    for place, then in enumerate(kept, 1):
        label = f"checking {place} of {len(kept)}"
        with interruptible() as stop, progress_bar(label, quiet=quiet) as progress:
            results.append(check(lab, then, progress=progress, should_stop=stop))
        if not as_json:
            _print_checked(results[-1])
    if as_json:
        print_json([result.to_json() for result in results])
    return int(any(result.moved or result.problem for result in results))


def _print(found: Evaluation, text: str, sentences: Sequence[str]) -> None:
    from steerlab.evaluation.generalization import plan as names
    from steerlab.evaluation.generalization.verdict import by_name, effect_metrics

    data, values = found.data, by_name(found.values)
    size = signed_dose(data["dose"]).lstrip("+") if data["dose"] else "-"
    where = f"layer{'s' * (len(data['layers']) > 1)} {span(data['layers'])}"
    strength = f"dose ±{size}, coefficient ±{number(data['coefficient'])}"
    head = f"{printable(text)} at {where}, {strength}"
    click.echo(click.style(head, bold=True))
    for metric in effect_metrics(found.values):
        click.echo(f"\n{click.style(printable(metric), bold=True)}")
        _print_effects(values, metric)
    click.echo(f"\n{click.style('what it costs', bold=True)}")
    rows = [
        _price(values, *key)
        for key in dict.fromkeys((v.style, v.metric) for v in found.values)
        if key[1] in names.COSTS
    ]
    columns = ["style", "metric", "baseline", "+ [95%]", "- [95%]", "random"]
    print_table(columns, rows, right=columns[2:])
    for sign, label in ((names.TOWARD, "+"), (names.AWAY, "-")):
        if tokens := data["tokens"].get(sign):
            listed = ", ".join(f"{t['token']!r} {t['nats']:+.3f}" for t in tokens[:6])
            click.echo(printable(f"KL at {label}: {listed}"))
    click.echo()
    for sentence in sentences:
        print_hanging("", sentence)


def _print_effects(values: Values, metric: str) -> None:
    from steerlab.evaluation.generalization import plan as names
    from steerlab.evaluation.generalization.verdict import interval, judge

    rows = []
    for style in dict.fromkeys(s for s, m, setting in values if m == metric):
        v = {
            setting: value for (s, m, setting), value in values.items() if (s, m) == (style, metric)
        }
        z = v[names.Z].estimate
        rows.append(
            [
                style,
                _plain(v.get(names.BASELINE)),
                interval(v[names.TOWARD]),
                interval(v[names.AWAY]),
                interval(v[names.RANGE]),
                _signed(v.get(names.RANDOM)),
                "-" if z is None else f"{z:+.1f}",
                _signed(v.get(names.SHUFFLED)),
                "-" if style == names.OWN_PAIRS else judge(values, style, metric).finding.value,
            ]
        )
    columns = [
        "style",
        "base",
        "+ [95%]",
        "- [95%]",
        "range [95%]",
        "random",
        "z",
        "shuffled",
        "finding",
    ]
    wrap = ["style", "+ [95%]", "- [95%]", "range [95%]", "finding"]
    print_table(columns, rows, right=columns[1:-1], wrap=wrap, fg={"finding": _COLOURS})


def _price(values: Values, style: str, metric: str) -> list[str]:
    from steerlab.evaluation.generalization import plan as names
    from steerlab.evaluation.generalization.verdict import interval

    show = [values.get((style, metric, s)) for s in (names.TOWARD, names.AWAY)]
    is_ratio = (style, metric, names.BASELINE) not in values
    told = [_ratio(v) if is_ratio else interval(v) if v else "-" for v in show]
    random = values.get((style, metric, names.RANDOM))
    return [
        style,
        metric,
        _plain(values.get((style, metric, names.BASELINE))),
        *told,
        _plain(random) if is_ratio else _signed(random),
    ]


def _ratio(value: Measured | None) -> str:
    if value is None or value.low is None or value.high is None:
        return _plain(value)
    return f"{_plain(value)} [{value.low:.2f}, {value.high:.2f}]"


def _plain(value: Measured | None) -> str:
    return "-" if value is None or value.estimate is None else f"{value.estimate:.2f}"


def _signed(value: Measured | None) -> str:
    return "-" if value is None or value.estimate is None else f"{value.estimate:+.2f}"


def _print_checked(result: Checked) -> None:
    head = f"{result.vector} on {result.then.suite} (evaluation {result.then.id})"
    click.echo(click.style(printable(head), bold=True))
    for name, (then, now) in (result.changed or {}).items():
        click.echo(printable(f"{name}: {then}, now {now}"))
    if result.problem:
        click.echo(printable(f"could not be run again: {result.problem}"))
        return
    rows = [_change(change) for change in result.changes if change.moved]
    if rows:
        columns = ["style", "metric", "what", "then [95%]", "now [95%]", "moved?"]
        print_table(columns, rows, right=columns[3:5], fg={"moved?": _COLOURS})
    moved = f"{len(rows)} moved" if rows else "none moved"
    click.echo(f"{count(len(result.changes), 'value')}, {moved} beyond the interval")


def _change(change: Change) -> list[str]:
    from steerlab.evaluation.generalization.verdict import interval

    both = [interval(value) if value else "-" for value in (change.then, change.now)]
    return [*change.name, *both, "moved"]
