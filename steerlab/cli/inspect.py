"""steerlab inspect: what a direction is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output
from steerlab.cli.progress import interruptible, load, progress_bar
from steerlab.core.display import number
from steerlab.core.notation import span
from steerlab.plots.terminal import has_colour, shaded

if TYPE_CHECKING:
    from steerlab.evaluation.inspection.inspect import Inspection
    from steerlab.evaluation.inspection.logit_lens import Lens, TokenLogit
    from steerlab.evaluation.inspection.projection import Projections
    from steerlab.lab.lab import Lab

_TABLES = 3  # directions, up to which each has a table of its own tokens
_TOKENS = 8  # shown in a line of a table of several directions


@options.verb("inspect", context_settings=options.DASHES)
@options.expression
@options.layers("Which layers (default: the vector's).")
@options.integer(
    "--tokens", least=0, default=10, text="Tokens that it promotes and suppresses; 0 for none."
)
@click.option("--prompt", help="Project the tokens of this text onto the direction.")
@click.option("--chat", is_flag=True, help="The prompt is a message to a chat model.")
@click.option("--pairs", is_flag=True, help="Measure again how its contrast pairs agree.")
@options.integer("--neighbours", least=0, default=8, text="Show at most this many.")
@options.no_model
@options.other_weights
@options.lab
@options.json
@options.quiet
def inspect_command(
    expression: str, tokens: int, no_model: bool, other_weights: bool, lab: Lab, **how: Any
) -> None:
    """Explain a direction.

    \b
    steerlab inspect love
    steerlab inspect "love - anger" --prompt "I hate to say that I love you"
    steerlab inspect love --layers 10:25 --pairs
    steerlab inspect love --no-model

    Shows the nearest stored vectors; whether its contrast pairs agree (as measured at
    extraction; --pairs measures again, and halves of the pairs against each other); and the
    tokens that it promotes and suppresses, read through the model's final norm and unembedding
    (the logit lens, clearest at late layers). Logits are per dose at the end of the residual
    stream.

    --prompt projects every token of a text, in doses. The first token is an attention sink and
    is not coloured.
    """
    from steerlab.evaluation.inspection.inspect import inspect
    from steerlab.evaluation.inspection.projection import check_projectable

    needs = [name for name in ("layers", "prompt", "pairs") if how[name] not in (None, False)]
    if no_model and needs:
        raise click.UsageError(f"--{needs[0]} needs the model: leave out --no-model")
    vector = lab.evaluate(expression)
    if how["prompt"] is not None:
        check_projectable(vector)  # before a model is loaded for nothing
    tokens = 0 if no_model else tokens
    if tokens or needs:
        load(lab, vector)
    how |= {"tokens": tokens, "allow_other_weights": other_weights}
    with interruptible() as stop, progress_bar("reading pairs") as progress:
        found = inspect(lab, vector, progress=progress, should_stop=stop, **how)
    output.show(found, _print)
    stop.check()


def _print(found: Inspection) -> None:
    _print_head(found)
    _print_agreement(found)
    _print_relatives(found)
    if found.lens:
        _print_tokens(found.lens)
    if found.projections is not None:
        _print_projections(found.projections)
    for note in found.notes:
        output.say(f"note: {note}")


def _print_head(found: Inspection) -> None:
    vector = found.vector
    output.title(found.name)
    recipe = str(found.recipe)
    output.fields(
        [
            ("recipe", "" if recipe == f"= {found.name}" else recipe),
            ("model", vector.model.source),
            ("scope", "front: one row for each of the first tokens" * (vector.scope == "front")),
        ]
    )
    doses, norms = vector.doses(), vector.norms()
    rows = [
        [str(b), number(norms[b], 4), number(vector.residual_norms.get(b), 4), number(doses[b], 2)]
        for b in vector.layers
    ]
    click.echo()
    output.table(columns := ["layer", "norm", "residual", "dose/c"], rows, right=columns)
    click.echo(output.dose_legend(len(rows)))


def _print_agreement(found: Inspection) -> None:
    layers = [figures for by_layer in found.agreement.values() for figures in by_layer.values()]
    names = sorted({name for figures in layers for name in figures})
    if not names:
        return
    output.section("agreement of its pairs")
    rows = [
        [ref, str(b), *(number(figures.get(name), 2) for name in names)]
        for ref, by_layer in found.agreement.items()
        for b, figures in by_layer.items()
    ]
    columns = ["layer", *(name.replace("_", " ") for name in names)]
    output.table(["pairs of", *columns], rows, right=columns, wrap=["pairs of"])


def _print_relatives(found: Inspection) -> None:
    several = len(found.vector.layers) > 1
    if found.operands:
        output.section("made from")
        rows = [
            [ref, _by_layer(list(cosines.values()), several), span(list(cosines))]
            for ref, cosines in found.operands.items()
        ]
        output.table(["operand", "cosine", "layers"], rows, wrap=["operand", "cosine"])
    if found.neighbours:
        output.section("nearest stored vectors")
        rows = [
            [
                n.ref,
                f"{n.cosine:+.3f}",
                *([_by_layer(n.cosines, True)] if several else []),
                span(n.layers),
            ]
            for n in found.neighbours
        ]
        columns = ["vector", "cosine", *(["by layer"] if several else []), "layers"]
        output.table(columns, rows, right=["cosine"], wrap=["vector", "by layer"])


def _by_layer(cosines: Sequence[float], several: bool) -> str:
    digits = 2 if several else 3
    return " ".join(f"{cosine:+.{digits}f}" for cosine in cosines)


def _print_tokens(lenses: Sequence[Lens]) -> None:
    from steerlab.evaluation.inspection.logit_lens import beyond_chance

    output.section("tokens it promotes and suppresses")
    if len(lenses) > _TABLES:
        rows = [[_place(x), _line(x.promoted), _line(x.suppressed)] for x in lenses]
        output.table(["layer", "promoted", "suppressed"], rows, wrap=["promoted", "suppressed"])
    else:
        for lens in lenses:
            _print_lens(lens, alone=len(lenses) == 1)
    click.echo(f"({beyond_chance(lenses)})")


def _print_lens(lens: Lens, *, alone: bool) -> None:
    if not alone:
        output.title(f"layer {_place(lens)}")
    if not lens.promoted:
        click.echo("the direction is zero and moves no token")
        return
    rows = [
        [up.text, f"{up.logit:+.1f}", down.text, f"{down.logit:+.1f}"]
        for up, down in zip(lens.promoted, lens.suppressed, strict=True)
    ]
    output.table(["promoted", "logit", "suppressed", "logit"], rows, right=["logit"])


def _place(lens: Lens) -> str:
    return str(lens.layer) if lens.row is None else f"{lens.layer} row {lens.row}"


def _line(tokens: Sequence[TokenLogit]) -> str:
    return "  ".join(token.text for token in tokens[:_TOKENS]) or "-"


def _print_projections(found: Projections) -> None:
    middle = " from the midpoint of its pairs" if found.centred else ""
    output.section(
        f"its tokens along the direction, in doses{middle} (position 0, an attention sink, is left "
        "out)"
    )
    if has_colour():
        for b, values in found.values.items():
            shades = found.shades(b)
            line = "".join(_shaded(text, x) for text, x in zip(found.tokens, shades, strict=True))
            places = range(min(1, len(values) - 1), len(values))
            ends = min(places, key=values.__getitem__), max(places, key=values.__getitem__)
            scale = " to ".join(_shaded(f"{values[i]:+.2f}", shades[i]) for i in ends)
            click.echo(f"{click.style(f'layer {b}', bold=True)}  {line}  {scale}")
    else:
        rows = [
            [str(i), text, *(f"{values[i]:+.3f}" for values in found.values.values())]
            for i, text in enumerate(found.tokens)
        ]
        columns = ["position", "token", *(f"layer {b}" for b in found.values)]
        output.table(columns, rows, right=[c for c in columns if c != "token"])


def _shaded(text: str, shade: float) -> str:
    return shaded(text.replace("␣", " "), shade)
