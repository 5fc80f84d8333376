"""Verbs that look: list, search, show and models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output
from steerlab.cli.lineage import print_lineage
from steerlab.core.display import count, number, printable
from steerlab.core.notation import span

if TYPE_CHECKING:
    from steerlab.core.record import Record
    from steerlab.core.results import Calibration, Evaluation
    from steerlab.registry import Store
    from steerlab.registry.queries import StoredModel, Summary
    from steerlab.registry.search import Hit, Search

SORTS = ("created", "name", "model", "layer", "norm", "kind", "version")


@options.verb("list")
@click.argument("text", required=False)
@options.filters
@click.option(
    "--sort", type=click.Choice(SORTS), default="name", show_default=True, help="Sort key."
)
@click.option("--reverse", is_flag=True, help="Reverse the order.")
@options.limit(None)
@options.store
@options.json
def list_command(text: str | None, filters: dict[str, Any], store: Store, **order: Any) -> None:
    """List the stored vectors.

    TEXT selects those that contain it in their name, note, tags, recipe or prompts.
    """
    found = store.list(text=text, **filters, **order)
    every_version = filters.pop("every_version")
    if found or output.asked("json"):
        output.show(
            found,
            partial(_print_summaries, all_versions=every_version, store=store),
            _summaries_json,
        )
    elif text or any(value is not None for value in filters.values()):
        output.say("no vectors match" + _hint(store, text or ""))
    else:
        output.say(f"no vectors in {store.path} yet; make one:")
        output.say('  steerlab extract calm --positive "I feel calm" --negative "I feel tense"')
        output.say("or see it work: steerlab demo")


def _hint(store: Store, text: str) -> str:
    """What may follow a message about a text that nothing contains: the closest names."""
    from steerlab.registry.refs import did_you_mean

    hint = did_you_mean(text, store.names()) if text else ""
    return hint and f": {hint}"


def _print_summaries(found: Sequence[Summary], all_versions: bool, store: Store) -> None:
    calibrated = store.results.calibrated(found)
    columns = ["name", "model", "layers", "norm", "dose/c", "calibrated", "made", "tags"]
    rows = [
        [
            vector.ref if vector.version > 1 or all_versions else vector.name,
            vector.model,
            span(vector.layers) + (" front" if vector.scope == "front" else ""),
            number(vector.norm),
            number(vector.dose, 2),
            calibrated[vector.id].brief if vector.id in calibrated else "",
            vector.recipe,
            " ".join(vector.tags),
        ]
        for vector in found
    ]
    told = {}
    for column in ("model", "layers", "calibrated", "tags"):  # drop what is the same in every row
        at = columns.index(column)
        empty_or_known = column == "model" or not rows[0][at]
        if len({row[at] for row in rows}) == 1 and (len(rows) > 1 or empty_or_known):
            told[column] = rows[0][at]
            columns.remove(column)
            rows = [row[:at] + row[at + 1 :] for row in rows]
    numbers, wrap, cut = ["norm", "dose/c"], ["name", "layers"], ["made", "tags"]
    output.table(columns, rows, right=numbers, wrap=wrap, cut=cut)
    shared = {"layers": "stored at layer", "calibrated": "calibrated", "tags": "tags"}
    if same := ", ".join(f"{word} {told[what]}" for what, word in shared.items() if told.get(what)):
        output.say(f"all of them: {same}")


def _summaries_json(found: Sequence[Summary]) -> list[dict[str, Any]]:
    data = [{"ref": vector.ref, **asdict(vector)} for vector in found]
    for vector in data:
        del vector["id"]
    return data


@options.verb("search")
@click.argument("words", nargs=-1, required=True)
@options.filters
@options.limit()
@options.store
@options.json
def search_command(
    words: tuple[str, ...], filters: dict[str, Any], limit: int, store: Store
) -> None:
    """Find vectors by words in names, prompts, notes and tags.

    \b
    steerlab search "angry customer"
    steerlab search calm --tag checked --layer 15

    A vector matches if it contains all the words, in any order and case. Best matches come
    first: a name counts more than a tag, a tag more than a note, a note more than a prompt.
    """
    text = " ".join(words)
    output.show(
        store.search(text, limit=limit, **filters),
        partial(_print_hits, store=store, text=text),
        _hits_json,
    )


def _print_hits(found: Search, store: Store, text: str) -> None:
    edge = max((len(hit.vector.ref) for hit in found.hits), default=0)
    for hit in found.hits:
        click.echo(f"{hit.vector.ref.ljust(edge)}  {hit.place.ljust(6)}  {_marked(hit)}")
    if found.total > len(found.hits):
        output.say(f"the best {len(found.hits)} of {found.total} (--limit shows more)")
    elif not found.total:
        output.say(f"no vector contains {text!r}{_hint(store, text)}")


def _marked(hit: Hit) -> str:
    """The snippet with the matched words in bold."""
    text, at = "", 0
    for start, end in hit.spans:
        text += printable(hit.snippet[at:start])
        text += click.style(printable(hit.snippet[start:end]), bold=True)
        at = end
    return text + printable(hit.snippet[at:])


def _hits_json(found: Search) -> dict[str, Any]:
    hits = [{"ref": h.vector.ref, "model": h.vector.model, **asdict(h)} for h in found.hits]
    for hit in hits:
        del hit["vector"]
    return {"total": found.total, "hits": hits}


@options.verb("show")
@options.ref
@options.plot("its norm, dose and diagnostics by layer")
@options.model
@options.store
@options.json
def show_command(ref: str, plot_file: Path | None, model: str | None, store: Store) -> None:
    """Show everything about a vector.

    Its model, layers with norms and doses, recipe with prompts or operands, and lineage.
    """
    record = store.record(ref, model)
    lineage = store.lineage(ref, model)
    calibration, beside = store.results.in_use(record)
    if plot_file is not None:
        from steerlab.plots import figures
        from steerlab.plots.values import profiles

        output.save_plot(figures.layer_profile(record.ref, profiles(record)), plot_file)
    if output.asked("json"):
        chosen = calibration.to_json() if calibration is not None else None
        others = [other.to_json() for other in beside]
        found = {"lineage": asdict(lineage), "calibration": chosen, "calibrations_beside": others}
        output.print_json({**record.to_json(), **found})
        return
    evaluations = store.results.evaluations(ref, model=model, limit=1)
    _print_head(record, calibration, beside, next(iter(evaluations), None))
    _print_layers(record)
    if calibration is not None:
        output.response(calibration, record.ref)
    _print_recipe(record)
    print_lineage(lineage)


def _print_head(
    record: Record,
    calibration: Calibration | None,
    beside: Sequence[Calibration],
    evaluation: Evaluation | None,
) -> None:
    model = record.model
    precision = f", {model.dtype}" if model.dtype else ""
    software = ", ".join(f"{k} {v}" for k, v in record.software.items())
    output.title(record.ref)
    output.fields(
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
            *_verdict(calibration),
            *(("also", other.at) for other in beside),
            *_evaluated(evaluation),
            ("made", f"{record.created[:19].replace('T', ' ')} UTC with {software}"),
            ("digest", record.digest),
        ]
    )


def _verdict(calibration: Calibration | None) -> list[tuple[str, str]]:
    """What a calibration found, and its evidence in lines below."""
    if calibration is None:
        return []
    from steerlab.evaluation.calibration.curve import findings

    says, *evidence = findings(calibration)
    return [("calibrated", says), *(("", f"· {line}") for line in evidence)]


def _evaluated(evaluation: Evaluation | None) -> list[tuple[str, str]]:
    """What the newest evaluation claims; a report has all of its figures."""
    if evaluation is None:
        return []
    from steerlab.evaluation.generalization.verdict import verdict

    says = [line for line in verdict(evaluation) if "shown" in line or "refuted" in line]
    head = f"on suite {evaluation.suite}, {output.minute(evaluation.created)}; `report` has all"
    return [("evaluated", head), *(("", f"· {line}") for line in says)]


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
    output.table(columns, rows, right=columns)
    click.echo(output.dose_legend(len(rows), summed=record.summed))


def _print_recipe(record: Record) -> None:
    from steerlab.core.recipe import Contrast, Expression

    recipe = record.recipe
    if isinstance(recipe, Contrast):
        click.echo()
        above, below, _ = recipe.sides
        for positive, negative in zip_longest(above, below):
            if positive is not None:
                output.hanging("+ ", str(positive), fg="green")
            if negative is not None:
                output.hanging("- ", str(negative), fg="red")
        if (named := recipe.prompt_set) is not None:
            click.echo(f"prompts of {printable(named.path)}, sha256 {named.digest[:16]}")
        if recipe.baseline:
            click.echo(f"minus the mean of {count(len(recipe.baseline), 'baseline prompt')}")
    elif isinstance(recipe, Expression):
        rows = [[operand.ref, operand.digest[:16]] for operand in recipe.operands]
        click.echo()
        output.table(["operand", "digest"], rows)


@options.verb("models")
@options.store
@options.json
def models_command(store: Store) -> None:
    """List the models that have vectors."""
    output.show(store.models(), _print_models, _models_json)


def _models_json(models: Sequence[StoredModel]) -> list[dict[str, Any]]:
    return [{"name": m.name, "vectors": m.vectors, **asdict(m.identity)} for m in models]


def _print_models(models: Sequence[StoredModel]) -> None:
    if not models:
        output.say("no vectors are stored, so no models are known")
        return
    rows = [
        [
            m.name,
            m.identity.source,
            m.identity.architecture,
            *map(str, (m.identity.n_layers, m.identity.d_model, m.vectors)),
            (m.identity.fingerprint or "-")[:12],
        ]
        for m in models
    ]
    columns = ["name", "source", "architecture", "layers", "d_model", "vectors", "weights"]
    output.table(columns, rows, right=["layers", "d_model", "vectors"], wrap=["name", "source"])
