"""Verbs that look: list, show, models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.options import (
    complete_ref,
    json_option,
    model_filter_option,
    open_store,
    store_option,
)
from steerlab.cli.output import number, print_json, print_rich, print_table, printable, say

if TYPE_CHECKING:
    from steerlab.record import Record
    from steerlab.registry.lineage import Node
    from steerlab.registry.queries import Summary

SORTS = ("created", "name", "model", "layer", "norm", "kind", "version")


@click.command("list")
@click.argument("text", required=False)
@click.option("--model", metavar="NAME", help="Only this model's.")
@click.option("--layer", type=int, help="Only those with a direction at this layer.")
@click.option("--tag", help="Only those with this tag.")
@click.option("--kind", type=click.Choice(["contrast", "expression", "imported"]))
@click.option("--sort", type=click.Choice(SORTS), default="name", show_default=True)
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
        _print_summaries(found)
    elif text or any(filters[key] for key in ("model", "layer", "tag", "kind")):
        say("No stored vector fits.")
    else:
        say(
            f"No vectors in {store.path} yet. Make one:\n"
            '  steerlab extract calm --positive "I feel calm" --negative "I feel tense"\n'
            "or see it work: steerlab demo"
        )


def _print_summaries(found: Sequence[Summary]) -> None:
    models = {vector.model for vector in found}
    columns = ["name", "model", "layers", "norm", "dose/c", "made", "tags"]
    rows = [
        [
            vector.name if vector.version == 1 else vector.ref,
            vector.model,
            _layers(vector.layers) + (" front" if vector.scope == "front" else ""),
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
    print_table(columns, rows, right=["norm", "dose/c"])


def _layers(layers: Sequence[int]) -> str:
    from steerlab.notation import span

    return span(tuple(layers))


def _summary_json(vector: Summary) -> dict[str, Any]:
    from dataclasses import asdict

    data = asdict(vector)
    data.pop("id")
    return {"ref": vector.ref, **data}


@click.command("show")
@click.argument("ref", shell_complete=complete_ref)
@model_filter_option
@store_option
@json_option
def show_command(ref: str, model: str | None, store_path: Path | None, as_json: bool) -> None:
    """Show everything known of a vector.

    Its model, layers with norms and doses, recipe with prompts or operands, and lineage.
    """
    store = open_store(store_path)
    record = store.record(ref, model)
    lineage = store.lineage(ref, model)
    if as_json:
        from dataclasses import asdict

        print_json({**record.to_json(), "lineage": asdict(lineage)})
        return
    _print_head(record)
    _print_layers(record)
    _print_recipe(record)
    for title, nodes in (("made from", lineage.parents), ("used in", lineage.children)):
        if nodes:
            _print_tree(title, nodes)


def _print_head(record: Record) -> None:
    model = record.model
    precision = f", {model.dtype}" if model.dtype else ""
    software = ", ".join(f"{k} {v}" for k, v in record.software.items())
    lines = [
        ("", click.style(record.ref, bold=True)),
        (
            "model",
            f"{printable(model.source)} ({model.architecture}, {model.n_layers} layers of "
            f"{model.d_model}{precision})",
        ),
        ("recipe", printable(str(record.recipe))),
        ("scope", record.scope),
        ("norm", f"{record.norm:.4g}"),
        ("tags", printable(" ".join(record.tags))),
        ("note", printable(record.note)),
        ("made", f"{record.created[:19].replace('T', ' ')} UTC with {software}"),
        ("digest", record.digest),
    ]
    for label, text in lines:
        if text:
            click.echo(f"{label:8}{text}" if label else text)


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
    from steerlab.recipe import Contrast, Expression

    recipe = record.recipe
    if isinstance(recipe, Contrast):
        click.echo()
        for index, positive in enumerate(recipe.positive):
            click.echo(f"{click.style('+', fg='green')} {printable(positive)}")
            if recipe.negative:
                click.echo(f"{click.style('-', fg='red')} {printable(recipe.negative[index])}")
        if recipe.baseline:
            click.echo(f"less the mean over {len(recipe.baseline)} baseline prompts")
    elif isinstance(recipe, Expression):
        rows = [[operand.ref, operand.digest[:16]] for operand in recipe.operands]
        click.echo()
        print_table(["operand", "digest"], rows)


def _print_tree(title: str, nodes: Sequence[Node]) -> None:
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(title, style="bold"))

    def grow(branch: Tree, node: Node) -> None:
        what = node.recipe if node.stored else f"not in this store ({node.digest[:12]})"
        child = branch.add(Text(printable(f"{node.ref}  {what}")))
        for below in node.branches:
            grow(child, below)

    for node in nodes:
        grow(tree, node)
    click.echo()
    print_rich(tree)


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
        say("No vectors are stored, so no models are known.")
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
    print_table(columns, rows, right=["layers", "d_model", "vectors"])
