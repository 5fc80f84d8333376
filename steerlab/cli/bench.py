"""steerlab bench: how fast a model is on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output
from steerlab.cli.progress import progress_bar

if TYPE_CHECKING:
    from steerlab.models.speed import Speed


@options.verb("bench")
@options.loading
@options.integer(
    "-n", "--max-new-tokens", least=1, default=16, text="Length of the texts to write."
)
@options.json
@options.quiet
def bench_command(loading: dict[str, Any], max_new_tokens: int) -> None:
    """Measure how fast a model is on this machine.

    \b
    steerlab bench
    steerlab bench --model Qwen/Qwen2.5-0.5B-Instruct --dtype bfloat16

    Measured are the precision of --dtype and, before it, that of auto; without --dtype, auto and
    bfloat16. Differences are the largest of log-probabilities to those of auto. Other work on the
    machine shows: run it twice.
    """
    from steerlab import LanguageModel
    from steerlab.models.loading import hush
    from steerlab.models.speed import machine, measure

    hush()
    output.narrate()
    source, chosen = loading.pop("source") or "smollm2", loading.pop("dtype") or "bfloat16"
    found: list[Speed] = []
    reference = None
    with progress_bar("measuring") as bar:
        for done, dtype in enumerate(dict.fromkeys(("auto", chosen))):

            def load(dtype: str = dtype) -> LanguageModel:
                return LanguageModel.load(source, dtype=dtype, **loading)

            bar(done, 2)
            speed, logs = measure(load, reference, new_tokens=max_new_tokens)
            reference = logs if reference is None else reference
            found.append(speed)
    if output.asked("json"):
        precisions = [speed.to_json() for speed in found]
        output.print_json({"model": source, "machine": machine(), "precisions": precisions})
    else:
        _show(source, machine(), found)


def _show(source: str, of: dict[str, Any], found: list[Speed]) -> None:
    threads = f"{of['threads']} thread" + ("" if of["threads"] == 1 else "s")
    output.title(f"{source} on {of['processor']}, {threads}, torch {of['torch']}")
    counts = list(found[0].tokens)
    rates = ["1 row" if rows == 1 else f"{rows} rows" for rows in counts]
    columns = ["dtype", *rates, "prompts read", "load", "log-probs differ by"]
    rows = [
        [
            speed.dtype + (" (auto)" if place == 0 else ""),
            *(f"{speed.tokens[n]:.1f}" for n in counts),
            f"{speed.extraction:.1f}",
            f"{speed.load:.1f} s",
            "" if speed.difference is None else f"{speed.difference:.2g}",
        ]
        for place, speed in enumerate(found)
    ]
    output.table(columns, rows, right=columns[1:])
    click.echo("\ntokens a second of all rows together; prompts a second, of short ones")
