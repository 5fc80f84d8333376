"""steerlab bake: a model with the steering in its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from steerlab.cli import options, output, types
from steerlab.cli.progress import load_exactly, load_to_make
from steerlab.core.display import printable

if TYPE_CHECKING:
    from steerlab.lab.exports import Strength
    from steerlab.lab.lab import Lab


@options.verb("bake")
@options.expression
@click.argument("path", type=types.PATH, metavar="OUT")
@click.option("--dose", type=types.NUMBER, help="The strength, as a dose.")
@click.option("--coefficient", type=types.NUMBER, help="The strength.")
@click.option("--as-llama", is_flag=True, help="Write Mistral and Qwen2 as LlamaForCausalLM.")
@click.option("--adapter", is_flag=True, help="Write a BEFT adapter of PEFT, of a few kB.")
@click.option("--lora", is_flag=True, help="Write a LoRA that ablates the direction.")
@options.lab
@options.quiet
def bake_command(
    expression: str,
    path: Path,
    dose: float | None,
    coefficient: float | None,
    as_llama: bool,
    adapter: bool,
    lora: bool,
    lab: Lab,
) -> None:
    """Write a model with the steering in its weights.

    \b
    steerlab bake love --dose 0.15 ./kind-model
    steerlab bake "love - anger" --coefficient 2 ./adapter --adapter
    steerlab bake refusal ./ablated --lora

    Any program that loads the model is steered, at every position. A vector at layer B becomes the
    bias of block B-1's down projection; at layer 0, a part of every embedding. Models whose blocks
    normalize what they write, and mixtures of experts, are refused. What was written is loaded
    again and compared with the steered model before OUT appears; its README.md says what is inside.

    --lora takes the direction of one layer out of everything that the model writes to the
    residual stream, by an adapter of rank 1; it has no strength.
    """
    from steerlab.lab import exports

    if adapter + lora + as_llama > 1:
        raise click.UsageError("--adapter, --lora and --as-llama exclude each other")
    if lora and (dose is not None or coefficient is not None):
        raise click.UsageError("an ablation has no strength: leave --dose and --coefficient out")
    if path.exists():
        raise click.UsageError(f"{path} already exists: bake to another name, or delete it first")
    vector = lab.evaluate(expression)
    if not lora:
        exports.check_strength(vector, dose, coefficient)
    if adapter:
        load_to_make(lab, vector)
        strength = exports.strength_of(lab, vector, dose, coefficient)
        exports.write(strength, "peft", path)
        return _say_done(path, f"{strength.vector}: an adapter, {_strength(strength)}")
    if lora:
        load_exactly(lab, vector)
        from steerlab.interventions.ablation_lora import ablation_lora

        exports.write_files(ablation_lora(lab.model, vector), path)
        return _say_done(path, f"{vector}: a LoRA that ablates its direction")
    load_exactly(lab, vector)
    strength = exports.strength_of(lab, vector, dose, coefficient)
    from steerlab.interventions.bake import bake

    found = bake(lab.model, strength.vector, strength.coefficient, path, as_llama=as_llama)
    how = f"{_strength(strength)}; log-probabilities equal the steered model's to {found:.1g}"
    return _say_done(path, f"{strength.vector} baked in {how}")


def _strength(strength: Strength) -> str:
    return f"at coefficient {strength.coefficient:g}, {strength.why}"


def _say_done(path: Path, text: str) -> None:
    output.say(text)
    click.echo(printable(str(path)))
