"""steerlab inspect: what a direction is, and how that is printed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.algebra import DASHES, term
from steerlab.cli.options import (
    LayerRange,
    complete_ref,
    json_option,
    load,
    model_options,
    open_lab,
    quiet_option,
    store_option,
)
from steerlab.cli.output import print_fields, print_json, print_table, say
from steerlab.cli.progress import interruptible, progress_bar
from steerlab.core.display import number, printable
from steerlab.core.notation import span
from steerlab.plots.terminal import has_colour, shaded

if TYPE_CHECKING:
    from steerlab.evaluation.inspection.inspect import Inspection
    from steerlab.evaluation.inspection.logit_lens import Lens, TokenLogit
    from steerlab.evaluation.inspection.projection import Projections

_APART = 3  # directions whose tokens get a table of their own
_A_LINE = 8  # tokens of one side in a line


@click.command("inspect", context_settings=DASHES)
@click.argument("expression", nargs=-1, required=True, shell_complete=complete_ref)
@click.option("--layers", type=LayerRange(), help="Which layers (default: the vector's).")
@click.option(
    "--tokens",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    help="How many tokens it promotes and suppresses; 0 for none.",
)
@click.option("--prompt", help="Show which of its tokens lie along the direction.")
@click.option("--chat", is_flag=True, help="The prompt is a message to a chat model.")
@click.option("--pairs", is_flag=True, help="Read its contrast pairs again: do they agree?")
@click.option(
    "--neighbours", type=click.IntRange(0), default=8, show_default=True, help="How many at most."
)
@click.option("--no-model", is_flag=True, help="Only what the store knows: loads no model.")
@click.option("--other-weights", is_flag=True, help="Accept a vector of a model of the same shape.")
@model_options
@store_option
@json_option
@quiet_option
def inspect_command(
    expression: tuple[str, ...],
    tokens: int,
    no_model: bool,
    other_weights: bool,
    loading: dict[str, Any],
    store_path: Path | None,
    as_json: bool,
    quiet: bool,
    **asked: Any,
) -> None:
    """Say what a direction is.

    \b
    steerlab inspect love
    steerlab inspect "love - anger" --prompt "I hate to say that I love you"
    steerlab inspect love --layers 10:25 --pairs
    steerlab inspect love --no-model

    Its nearest stored vectors; whether its contrast pairs agree (as measured at extraction;
    --pairs measures anew, with halves of the pairs against each other); the tokens that it
    promotes and suppresses, read through the model's final norm and unembedding (the logit
    lens: late layers speak clearest). Logits are per dose at the end of the residual stream.

    --prompt projects every token of a text, in doses. The first token is an attention sink and
    has no part in the colours.
    """
    from steerlab.evaluation.inspection.inspect import inspect
    from steerlab.evaluation.inspection.projection import check_projectable

    needs = [name for name in ("layers", "prompt", "pairs") if asked[name] not in (None, False)]
    if no_model and needs:
        raise click.UsageError(f"--{needs[0]} takes the model: leave out --no-model")
    lab = open_lab(store_path, loading)
    vector = lab.evaluate(" ".join(map(term, expression)))
    if asked["prompt"] is not None:
        check_projectable(vector)  # before a model is loaded for nothing
    tokens = 0 if no_model else tokens
    if tokens or needs:
        load(lab, vector, quiet=quiet)
    with interruptible() as stop, progress_bar("reading pairs", quiet=quiet) as progress:
        found = inspect(
            lab,
            vector,
            tokens=tokens,
            allow_other_weights=other_weights,
            progress=progress,
            should_stop=stop,
            **asked,
        )
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
        for note in found.notes:
            say(f"note: {note}", quiet=quiet)
    stop.check()


def _print(found: Inspection) -> None:
    _print_head(found)
    _print_agreement(found)
    _print_relatives(found)
    if found.lens:
        _print_tokens(found.lens)
    if found.projections is not None:
        _print_projections(found.projections)


def _print_head(found: Inspection) -> None:
    vector = found.vector
    click.echo(click.style(printable(found.name), bold=True))
    recipe = str(found.recipe)
    print_fields(
        [
            ("recipe", "" if recipe == f"= {found.name}" else recipe),
            ("model", vector.model.source),
            ("scope", "" if vector.scope == "broadcast" else "front: a row for each first token"),
        ]
    )
    doses, norms = vector.doses(), vector.norms()
    rows = [
        [str(b), number(norms[b], 4), number(vector.residual_norms.get(b), 4), number(doses[b], 2)]
        for b in vector.layers
    ]
    click.echo()
    print_table(columns := ["layer", "norm", "residual", "dose/c"], rows, right=columns)


def _print_agreement(found: Inspection) -> None:
    layers = [figures for by_layer in found.agreement.values() for figures in by_layer.values()]
    names = sorted({name for figures in layers for name in figures})
    if not names:
        return
    _title("do its pairs agree?")
    rows = [
        [ref, str(b), *(number(figures.get(name), 2) for name in names)]
        for ref, by_layer in found.agreement.items()
        for b, figures in by_layer.items()
    ]
    columns = ["layer", *(name.replace("_", " ") for name in names)]
    print_table(["pairs of", *columns], rows, right=columns, wrap=["pairs of"])


def _print_relatives(found: Inspection) -> None:
    several = len(found.vector.layers) > 1
    if found.operands:
        _title("made of")
        rows = [
            [ref, *_by_layer(list(cosines.values()), several), span(list(cosines))]
            for ref, cosines in found.operands.items()
        ]
        print_table(["operand", "cosine", "layers"], rows, wrap=["operand", "cosine"])
    if found.neighbours:
        _title("nearest stored vectors")
        rows = [
            [
                n.ref,
                f"{n.cosine:+.3f}",
                *(_by_layer(n.cosines, True) if several else []),
                span(n.layers),
            ]
            for n in found.neighbours
        ]
        columns = ["vector", "cosine", *(["by layer"] if several else []), "layers"]
        print_table(columns, rows, right=["cosine"], wrap=["vector", "by layer"])


def _by_layer(cosines: Sequence[float], several: bool) -> list[str]:
    digits = 2 if several else 3
    return [" ".join(f"{cosine:+.{digits}f}" for cosine in cosines)]


def _print_tokens(lenses: Sequence[Lens]) -> None:
    _title("tokens it promotes and suppresses")
    if len(lenses) > _APART:
        rows = [[_place(x), _line(x.promoted), _line(x.suppressed)] for x in lenses]
        print_table(["layer", "promoted", "suppressed"], rows, wrap=["promoted", "suppressed"])
    else:
        for lens in lenses:
            _print_lens(lens, alone=len(lenses) == 1)
    click.echo(f"(at random, a direction's first token comes to ±{lenses[0].chance:.1f})")


def _print_lens(lens: Lens, *, alone: bool) -> None:
    if not alone:
        click.echo(click.style(f"layer {_place(lens)}", bold=True))
    if not lens.promoted:
        click.echo("the direction is zero: no token moves")
        return
    rows = [
        [up.text, f"{up.logit:+.1f}", down.text, f"{down.logit:+.1f}"]
        for up, down in zip(lens.promoted, lens.suppressed, strict=True)
    ]
    print_table(["promoted", "logit", "suppressed", "logit"], rows, right=["logit"])


def _place(lens: Lens) -> str:
    return str(lens.layer) if lens.row is None else f"{lens.layer} row {lens.row}"


def _line(tokens: Sequence[TokenLogit]) -> str:
    return "  ".join(token.text for token in tokens[:_A_LINE]) or "-"


def _print_projections(found: Projections) -> None:
    _title("tokens along it, in doses (position 0 is an attention sink, and not compared)")
    if has_colour():
        for b, values in found.values.items():
            shades = found.shades(b)
            line = "".join(_shaded(text, x) for text, x in zip(found.tokens, shades, strict=True))
            rest = range(1, len(values)) if len(values) > 1 else range(1)
            ends = min(rest, key=values.__getitem__), max(rest, key=values.__getitem__)
            scale = " to ".join(_shaded(f"{values[i]:+.2f}", shades[i]) for i in ends)
            click.echo(f"{click.style(f'layer {b}', bold=True)}  {line}  {scale}")
    else:
        rows = [
            [str(i), text, *(f"{values[i]:+.3f}" for values in found.values.values())]
            for i, text in enumerate(found.tokens)
        ]
        columns = ["position", "token", *(f"layer {b}" for b in found.values)]
        print_table(columns, rows, right=[c for c in columns if c != "token"])


def _shaded(text: str, shade: float) -> str:
    return shaded(text.replace("␣", " "), shade)


def _title(text: str) -> None:
    click.echo(f"\n{click.style(text, bold=True)}")
