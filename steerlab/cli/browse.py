"""Verbs that look: list, show, models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.options import (
    complete_model,
    complete_ref,
    json_option,
    model_filter_option,
    open_store,
    plot_option,
    store_option,
)
from steerlab.cli.output import print_fields, print_hanging, print_json, print_table, say, width
from steerlab.cli.tree import print_tree
from steerlab.core.display import number
from steerlab.core.notation import span

if TYPE_CHECKING:
    from steerlab.core.record import Record
    from steerlab.core.results import Calibration
    from steerlab.registry.queries import Summary

KINDS = ("contrast", "expression", "imported")
SORTS = ("created", "name", "model", "layer", "norm", "kind", "version")


@click.command("list")
@click.argument("text", required=False)
@click.option("--model", metavar="NAME", help="Only this model's.", shell_complete=complete_model)
@click.option("--layer", type=int, help="Only those with a direction at this layer.")
@click.option("--tag", help="Only those with this tag.")
@click.option("--kind", type=click.Choice(KINDS), help="Only those made so.")
@click.option(
    "--sort", type=click.Choice(SORTS), default="name", show_default=True, help="By what."
)
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@click.option("--all-versions", is_flag=True, help="Older versions too.")
@store_option
@json_option
def list_command(
    text: str | None, store_path: Path | None, as_json: bool, all_versions: bool, **filters: Any
) -> None:
    """List the stored vectors.

    TEXT keeps those that have it in a name, note, tag, recipe or prompt.
    """
    store = open_store(store_path)
    found = store.list(text=text, every_version=all_versions, **filters)
    if as_json:
        print_json([_summary_json(vector) for vector in found])
    elif found:
        _print_summaries(found, all_versions)
    elif text or any(filters[key] is not None for key in ("model", "layer", "tag", "kind")):
        say("no stored vector fits")
    else:
        say(
            f"no vectors in {store.path} yet; make one:\n"
            '  steerlab extract calm --positive "I feel calm" --negative "I feel tense"\n'
            "or see it work: steerlab demo"
        )


def _print_summaries(found: Sequence[Summary], all_versions: bool) -> None:
    models = {vector.model for vector in found}
    columns = ["name", "model", "layers", "norm", "dose/c", "made", "tags"]
    rows = [
        [
            vector.ref if vector.version > 1 or all_versions else vector.name,
            vector.model,
            span(vector.layers) + (" front" if vector.scope == "front" else ""),
            number(vector.norm),
            number(vector.dose, 2),
            vector.recipe,
            " ".join(vector.tags),
        ]
        for vector in found
    ]
    if len(models) == 1:  # then the column says the same in every row
        columns.remove("model")
        rows = [row[:1] + row[2:] for row in rows]
    flexible = ["made", "tags"]
    print_table(columns, rows, right=["norm", "dose/c"], wrap=["name", "layers"], cut=flexible)


def _summary_json(vector: Summary) -> dict[str, Any]:
    from dataclasses import asdict

    data = asdict(vector)
    data.pop("id")
    return {"ref": vector.ref, **data}


@click.command("show")
@click.argument("ref", shell_complete=complete_ref)
@plot_option("its norm, dose and diagnostics layer by layer")
@model_filter_option
@store_option
@json_option
def show_command(
    ref: str, plot_file: Path | None, model: str | None, store_path: Path | None, as_json: bool
) -> None:
    """Show everything known of a vector.

    Its model, layers with norms and doses, recipe with prompts or operands, and lineage.
    """
    store = open_store(store_path)
    record = store.record(ref, model)
    lineage = store.lineage(ref, model)
    calibration = store.results.calibration(ref, model)
    if plot_file is not None:
        _plot_layers(record, plot_file)
    if as_json:
        from dataclasses import asdict

        known = calibration.to_json() if calibration is not None else None
        data = {**record.to_json(), "lineage": asdict(lineage), "calibration": known}
        print_json(data)
        return
    _print_head(record, calibration)
    _print_layers(record)
    if calibration is not None:
        _print_response(record, calibration)
    _print_recipe(record)
    for title, nodes in (("made from", lineage.parents), ("used in", lineage.children)):
        if nodes:
            print_tree(title, nodes)


def _plot_layers(record: Record, file: Path) -> None:
    from steerlab.plots import drawing, figures
    from steerlab.plots.values import profiles

    drawing.save(figures.layer_profile(record.ref, profiles(record)), file)
    say(f"wrote {file}")


def _print_head(record: Record, calibration: Calibration | None) -> None:
    model = record.model
    precision = f", {model.dtype}" if model.dtype else ""
    software = ", ".join(f"{k} {v}" for k, v in record.software.items())
    click.echo(click.style(record.ref, bold=True))
    print_fields(
        [
            (
                "model",
                f"{model.source} ({model.architecture}, {model.n_layers} layers of "
                f"{model.d_model}{precision})",
            ),
            ("recipe", str(record.recipe)),
            ("scope", record.scope),
            ("norm", number(record.norm, 4)),
            ("tags", " ".join(record.tags)),
            ("note", record.note),
            ("calibrated", _verdict(calibration)),
            ("made", f"{record.created[:19].replace('T', ' ')} UTC with {software}"),
            ("digest", record.digest),
        ]
    )


def _verdict(calibration: Calibration | None) -> str:
    if calibration is None:
        return ""
    from steerlab.evaluation.calibration.curve import verdict

    return verdict(calibration)


def _print_response(record: Record, calibration: Calibration) -> None:
    """The dose-response that was measured, beside its control."""
    from steerlab.plots.calibration import response_of
    from steerlab.plots.terminal import dose_response

    click.echo()
    for line in dose_response(response_of(calibration, record.ref), width() or 100):
        click.echo(line)


def _print_layers(record: Record) -> None:
    doses = record.doses()
    names = sorted({name for facts in record.layers for name in facts.diagnostics})
    rows = [
        [
            str(facts.layer),
            *([str(facts.positions)] if record.scope == "front" else []),
            number(facts.norm, 4),
            number(facts.residual_norm, 4),
            number(doses[facts.layer], 2),
            *(number(facts.diagnostics.get(name), 2) for name in names),
        ]
        for facts in record.layers
    ]
    columns = ["layer", *(["rows"] if record.scope == "front" else []), "norm", "residual"]
    columns += ["dose/c", *(name.replace("_", " ") for name in names)]
    click.echo()
    print_table(columns, rows, right=columns)


def _print_recipe(record: Record) -> None:
    from steerlab.core.recipe import Contrast, Expression

    recipe = record.recipe
    if isinstance(recipe, Contrast):
        click.echo()
        for index, positive in enumerate(recipe.positive):
            print_hanging("+ ", positive, fg="green")
            if recipe.negative:
                print_hanging("- ", recipe.negative[index], fg="red")
        if recipe.baseline:
            click.echo(f"less the mean over {len(recipe.baseline)} baseline prompts")
    elif isinstance(recipe, Expression):
        rows = [[operand.ref, operand.digest[:16]] for operand in recipe.operands]
        click.echo()
        print_table(["operand", "digest"], rows)


@click.command("models")
@store_option
@json_option
def models_command(store_path: Path | None, as_json: bool) -> None:
    """List the models that vectors belong to."""
    from dataclasses import asdict

    models = open_store(store_path).models()
    if as_json:
        print_json([{"name": m.name, "vectors": m.vectors, **asdict(m.identity)} for m in models])
        return
    if not models:
        say("no vectors are stored, so no models are known")
        return
    rows = [
        [
            m.name,
            m.identity.source,
            m.identity.architecture,
            str(m.identity.n_layers),
            str(m.identity.d_model),
            str(m.vectors),
            (m.identity.fingerprint or "-")[:12],
        ]
        for m in models
    ]
    columns = ["name", "source", "architecture", "layers", "d_model", "vectors", "weights"]
    print_table(columns, rows, right=["layers", "d_model", "vectors"], wrap=["name", "source"])
