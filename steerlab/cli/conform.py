"""steerlab conform: whether other programs compute what steerlab computes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output, types
from steerlab.cli.progress import load_exactly, progress_bar
from steerlab.core.display import printable
from steerlab.errors import BadOption

if TYPE_CHECKING:
    from steerlab.conformance.conform import Conformance, Outcome
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab


def _names(text: str) -> tuple[str, ...]:
    from steerlab.conformance.targets import TARGETS

    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in TARGETS:
            raise BadOption(f"there is no target {name!r}: {', '.join(TARGETS)}")
    return names


@options.verb("conform")
@options.expression
@click.option(
    "--with",
    "targets",
    type=types.Parsed("names", _names),
    default=(),
    help="Some of hook, peft, bake, lm-eval, llama.cpp, vllm (default: those installed).",
)
@click.option("--dose", type=types.NUMBER, help="The strength, as a dose.")
@click.option("--coefficient", type=types.NUMBER, help="The strength.")
@click.option("--prompt", "prompts", multiple=True, help="May be repeated (default: built in).")
@click.option(
    "--prompts", "prompts_file", type=types.FILE, help="A text file with one prompt a line."
)
@options.integer("-n", "--max-new-tokens", least=1, default=16, text="Length of the greedy texts.")
@options.lab
@options.json
@options.quiet
def conform_command(
    expression: str,
    targets: tuple[str, ...],
    dose: float | None,
    coefficient: float | None,
    prompts: tuple[str, ...],
    prompts_file: Path | None,
    max_new_tokens: int,
    lab: Lab,
) -> int:
    """Compare steering here with steering in other programs.

    \b
    steerlab conform love --dose 0.15
    steerlab conform love --with peft,llama.cpp --prompt "I think you are a"

    Each program loads the model and the file that `steerlab export` or `steerlab bake` writes for
    it, and runs the same prompts, steered and not. The table shows the largest difference of a
    log-probability, after each token of the prompts and of our greedy texts, over the whole
    vocabulary; the same over the 1000 likeliest next tokens; and how many greedy texts are equal. A
    program agrees if no difference over the whole vocabulary is above 1e-4 and all texts are equal.
    Float32 itself may be as far off float64 at unlikely tokens: up to 1.1e-4 for smollm2.

    hook: a forward hook of plain torch. peft: a BEFT adapter. bake: a checkpoint of
    `steerlab bake`, in transformers. lm-eval: its loader of steering vectors. llama.cpp: a control
    vector on float32 weights. vllm: the baked checkpoint in vLLM, of the Python that
    STEERLAB_VLLM_PYTHON names.

    Everything runs in float32 on the CPU. The exit code is 1 if a program differs, if one that
    --with names is missing, or if nothing could be compared.
    """
    from steerlab.lab.exports import check_strength, strength_of

    vector = lab.evaluate(expression)
    check_strength(vector, dose, coefficient)
    load_exactly(lab, vector)
    strength = strength_of(lab, vector, dose, coefficient)
    from steerlab.conformance.conform import PROMPTS, conform
    from steerlab.conformance.targets import TARGETS
    from steerlab.files.prompts import read_lines

    if prompts_file is not None:
        prompts = (*prompts, *read_lines(prompts_file))
    with progress_bar("comparing") as progress:
        found = conform(
            lab.model,
            strength.vector,
            strength.coefficient,
            targets or list(TARGETS),
            prompts=prompts or PROMPTS,
            new_tokens=max_new_tokens,
            progress=progress,
        )
    output.show(found, partial(_print, vector=strength.vector, coefficient=strength.coefficient))
    lacking = any(outcome.verdict == "missing" for outcome in found.outcomes)
    return int(not found.agrees or bool(targets and lacking))


def _print(found: Conformance, vector: SteeringVector, coefficient: float) -> None:
    click.echo(
        printable(
            f"{vector} at coefficient {coefficient:g} changes log-probabilities by up to "
            f"{found.effect:.2g}"
        )
    )
    likeliest = ("likeliest unsteered", "likeliest steered")
    columns = ("target", "unsteered", "steered", *likeliest, "equal texts", "verdict")
    output.table(columns, [_row(outcome) for outcome in found.outcomes])
    for outcome in found.outcomes:
        if outcome.why:
            output.say(f"{outcome.target}: {outcome.why}", always=True)


def _row(outcome: Outcome) -> tuple[Any, ...]:
    differences = (
        outcome.unsteered,
        outcome.steered,
        outcome.unsteered_likeliest,
        outcome.steered_likeliest,
    )
    numbers = ["" if number is None else f"{number:.2e}" for number in differences]
    texts = f"{outcome.equal} of {outcome.texts}" if outcome.texts else ""
    return outcome.target, *numbers, texts, outcome.verdict
