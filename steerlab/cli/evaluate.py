"""steerlab evaluate and steerlab check: does it generalize, and does it still?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output, types
from steerlab.cli.progress import interruptible, load, progress_bar
from steerlab.core.display import count, number, printable, signed_dose
from steerlab.core.notation import layers_text

if TYPE_CHECKING:
    from steerlab.core.results import Evaluation, Measured
    from steerlab.evaluation.generalization.regression import Change, Checked
    from steerlab.evaluation.generalization.verdict import Values
    from steerlab.evaluation.metrics.texts import Metric
    from steerlab.lab.lab import Lab

_LEGEND = (
    "(+, -: change from base at either sign; range: + minus -; random, shuffled: the range of the "
    "controls; z: how far the range exceeds them, in their standard deviations)"
)
_COLOURS = {
    "generalizes": "green",
    "reversed": "red",
    "within chance": "yellow",
    "no effect": "yellow",
    "moved": "red",
}


@options.verb("evaluate", context_settings=options.DASHES)
@options.expression
@click.option(
    "--suite",
    "suites",
    metavar="NAME|FILE",
    multiple=True,
    help="standard (the default), statements, narrative, technical, dialogue, or a .toml or "
    ".jsonl file; may be repeated.",
)
@click.option("--items", type=types.FILE, help="Contrast items: a .jsonl file.")
@options.metric(
    "metrics",
    multiple=True,
    text="Score of a text: vader (the default), keywords:FILE, regex:…, "
    "package.module:function; may be repeated.",
)
@click.option("--dose", type=float, help="Used with both signs (default: calibrated, else 0.15).")
@click.option("--coefficient", type=float, help="Instead of a dose.")
@options.layers("Default: the calibrated one, else the vector's.")
@options.integer("--seeds", least=1, default=2, text="Texts of each prompt.")
@options.controls(5)
@options.plot("each style's effect beside its controls")
@options.other_weights
@options.no_save
@options.lab
@options.json
@options.quiet
def evaluate_command(
    expression: str,
    suites: tuple[str, ...],
    items: Path | None,
    metrics: tuple[Metric, ...],
    layers: Any,
    plot_file: Path | None,
    other_weights: bool,
    no_save: bool,
    lab: Lab,
    **size: Any,
) -> None:
    """Measure whether a vector works on other texts, and what it costs.

    \b
    steerlab evaluate love
    steerlab evaluate love --suite statements --suite letters.toml --metric keywords:warm.txt
    steerlab evaluate "love - anger" --dose 0.2 --seeds 3 --items held-out.jsonl

    Generates texts in four styles at both signs of the dose, and with random directions and
    shuffled labels of the same norm: only what exceeds those is an effect. Then measures the
    cost: fluency, repetition, known facts, neutral beginnings, likelihood of given texts. The
    evaluation is stored; steerlab check runs it again.

    \b
    A suite of your own, as .toml:
      [styles.letters]
      prompts = ["Dear neighbour, I am writing to you because", "Dear sirs, the delivery"]
      chat = false      # true: messages to a chat model
      items = [{prompt = "The guests were", positive = " kind", negative = " rude"}]
      [off_target]      # the standard suite's, for every key that is left out
      facts = [{prompt = "The capital of France is", answer = " Paris"}]
      neutral = ["The map shows that"]
      on_topic = ["A text about what the vector is about."]
      off_topic = ["A text about something else."]
    or as .jsonl, one of these a line:
      {"style": "letters", "prompt": "Dear neighbour, I am writing to you because"}
      {"style": "letters", "prompt": "The guests were", "positive": " kind", "negative": " rude"}
      {"fact": "The capital of France is", "answer": " Paris"}
      {"neutral": "The map shows that"}
    """
    from steerlab.evaluation.generalization.evaluate import evaluate, named
    from steerlab.evaluation.generalization.plan import EvaluationPlan
    from steerlab.evaluation.generalization.verdict import verdict

    given = {
        "suites": suites or None,
        "items": str(items) if items else None,
        "metrics": tuple(metric.name for metric in metrics) or None,
        "allow_other_weights": other_weights,
        **size,
    }
    plan = EvaluationPlan(**{key: value for key, value in given.items() if value is not None})
    vector = lab.evaluate(expression)
    named(plan)  # refuses a bad plan before a model is loaded
    load(lab, vector)
    if layers is not None:
        plan = EvaluationPlan(**{**vars(plan), "layers": tuple(lab.model.layers(layers))})
    with interruptible() as stop, progress_bar("evaluating") as progress:
        found = evaluate(lab, vector, plan, keep=not no_save, progress=progress, should_stop=stop)
    if plot_file is not None:
        _plot(found, expression, plot_file)
    sentences = verdict(found)
    if output.asked("json"):
        output.print_json({**found.to_json(), "verdict": sentences})
        return
    _print(found, expression, sentences)
    for note in found.data["notes"]:
        output.say(f"note: {note}")
    if not no_save:
        output.say(f"kept as evaluation {found.id}; steerlab check runs it again")


def _plot(found: Evaluation, name: str, file: Path) -> None:
    from steerlab.plots import figures
    from steerlab.plots.generalization import effect_panels

    panels = effect_panels(found, name)
    if panels:
        output.save_plot(figures.generalization(panels), file)
    else:
        output.say(f"no effect has an interval, so {file} was not written")


@options.verb("check")
@click.argument("names", nargs=-1, shell_complete=options.complete_ref)
@options.lab
@options.json
@options.quiet
def check_command(names: tuple[str, ...], lab: Lab) -> int:
    """Run stored evaluations again and report what changed.

    \b
    steerlab check
    steerlab check love

    Runs all evaluations, or those of the vectors named: the newest of each vector, suite and
    settings, with the current model and library versions. A value has moved if the estimates
    then and now each lie outside the other's 95% interval. Nothing is stored.

    Exit code: 0 if nothing moved, 1 if something did or an evaluation could not be run again.
    """
    from steerlab.evaluation.generalization.regression import check, stored

    kept = stored(lab, names)
    if not kept:
        output.say("no evaluation is stored: steerlab evaluate NAME makes one")
    results = []
    for place, then in enumerate(kept, 1):
        label = f"checking {place} of {len(kept)}"
        with interruptible() as stop, progress_bar(label) as progress:
            results.append(check(lab, then, progress=progress, should_stop=stop))
        if not output.asked("json"):
            _print_checked(results[-1])
    if output.asked("json"):
        output.print_json([result.to_json() for result in results])
    return int(any(result.moved or result.problem for result in results))


def _print(found: Evaluation, text: str, sentences: Sequence[str]) -> None:
    from steerlab.evaluation.generalization import plan as names
    from steerlab.evaluation.generalization.verdict import by_name, effect_metrics

    data, values = found.data, by_name(found.values)
    size = signed_dose(data["dose"]).lstrip("+") if data["dose"] else "-"
    strength = f"dose ±{size}, coefficient ±{number(data['coefficient'])}"
    output.title(f"{text} at {layers_text(data['layers'])}, {strength}")
    for metric in effect_metrics(found.values):
        output.section(metric)
        _print_effects(values, metric)
    output.hanging("", _LEGEND)
    output.section("cost")
    rows = [
        _cost(values, *key)
        for key in dict.fromkeys((v.style, v.metric) for v in found.values)
        if key[1] in names.COSTS
    ]
    columns = ["style", "metric", "baseline", "+ [95%]", "- [95%]", "random"]
    output.table(columns, rows, right=columns[2:])
    for sign, label in ((names.TOWARD, "+"), (names.AWAY, "-")):
        if tokens := data["tokens"].get(sign):
            listed = ", ".join(f"{t['token']!r} {t['nats']:+.3f}" for t in tokens[:6])
            click.echo(printable(f"KL at {label}: {listed}"))
    click.echo()
    for sentence in sentences:
        output.hanging("", sentence)


def _print_effects(values: Values, metric: str) -> None:
    from steerlab.evaluation.generalization import plan as names
    from steerlab.evaluation.generalization.verdict import interval, judge

    rows = []
    for style in dict.fromkeys(s for s, m, setting in values if m == metric):
        v = {
            setting: value for (s, m, setting), value in values.items() if (s, m) == (style, metric)
        }
        rows.append(
            [
                style,
                _plain(v.get(names.BASELINE)),
                *(interval(v[setting]) for setting in (names.TOWARD, names.AWAY, names.RANGE)),
                _plain(v.get(names.RANDOM), "+"),
                _z(v.get(names.Z)),
                _plain(v.get(names.SHUFFLED), "+"),
                _z(v.get(names.Z_SHUFFLED)),
                "-" if style == names.OWN_PAIRS else judge(values, style, metric).finding.value,
            ]
        )
    intervals = ["+ [95%]", "- [95%]", "range [95%]"]
    numbers = ["base", *intervals, "random", "z", "shuffled", "z shuffled"]
    wrap = ["style", *intervals, "finding"]
    columns = ["style", *numbers, "finding"]
    output.table(columns, rows, right=numbers, wrap=wrap, fg={"finding": _COLOURS})


def _cost(values: Values, style: str, metric: str) -> list[str]:
    from steerlab.evaluation.generalization import plan as names
    from steerlab.evaluation.generalization.verdict import interval

    baseline, toward, away, random = (
        values.get((style, metric, setting))
        for setting in (names.BASELINE, names.TOWARD, names.AWAY, names.RANDOM)
    )
    is_ratio = baseline is None
    steered = [_ratio(v) if is_ratio else interval(v) if v else "-" for v in (toward, away)]
    return [style, metric, _plain(baseline), *steered, _plain(random, "" if is_ratio else "+")]


def _ratio(value: Measured | None) -> str:
    if value is None or value.low is None or value.high is None:
        return _plain(value)
    return f"{_plain(value)} [{value.low:.2f}, {value.high:.2f}]"


def _plain(value: Measured | None, sign: str = "") -> str:
    return "-" if value is None or value.estimate is None else f"{value.estimate:{sign}.2f}"


def _z(value: Measured | None) -> str:
    return "-" if value is None or value.estimate is None else f"{value.estimate:+.1f}"


def _print_checked(result: Checked) -> None:
    output.title(f"{result.vector} on {result.then.suite} (evaluation {result.then.id})")
    for name, (then, now) in (result.changed or {}).items():
        click.echo(printable(f"{name}: {then}, now {now}"))
    if result.problem:
        click.echo(printable(f"could not be run again: {result.problem}"))
        return
    rows = [_change(change) for change in result.changes if change.moved]
    if rows:
        columns = ["style", "metric", "what", "then [95%]", "now [95%]", "moved?"]
        output.table(columns, rows, right=columns[3:5], fg={"moved?": _COLOURS})
    moved = f"{len(rows)} moved" if rows else "none moved"
    click.echo(f"{count(len(result.changes), 'value')}, {moved} beyond the interval")


def _change(change: Change) -> list[str]:
    from steerlab.evaluation.generalization.verdict import interval

    both = [interval(value) if value else "-" for value in (change.then, change.now)]
    return [*change.name, *both, "moved"]
