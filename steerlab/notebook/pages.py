"""Values as notebooks show them: HTML that is escaped and runs no script, light and dark."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, singledispatch
from importlib.resources import files
from typing import TYPE_CHECKING

from steerlab.core.display import count, marked_words, number, signed_dose, strength_text
from steerlab.core.notation import span
from steerlab.core.record import Record
from steerlab.core.results import Calibration, Evaluation
from steerlab.core.sweep import Sweep
from steerlab.core.vector import SteeringVector
from steerlab.errors import CorruptPayload
from steerlab.evaluation.calibration.curve import Curve, Point, findings
from steerlab.evaluation.generalization.verdict import verdict as evaluation_verdict
from steerlab.evaluation.inspection.difference import Difference
from steerlab.evaluation.inspection.inspect import Inspection
from steerlab.notebook.compare import Comparison
from steerlab.notebook.figures import figure, grid_of, short
from steerlab.plots.generalization import tables
from steerlab.plots.values import legends, profiles, vector_profiles

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.figure import Figure

    from steerlab.core.cell import Cell as Text
    from steerlab.core.setting import Setting
    from steerlab.evaluation.inspection.logit_lens import TokenLogit
    from steerlab.plots.values import Profile
    from steerlab.registry import Store

MOST = 50
"""Rows of a table that are shown."""
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Shaded:
    """A number on colour: share from -1 (cool) to 1 (warm)."""

    text: str
    share: float

    @property
    def percent(self) -> int:
        """How strong the colour is; 0 for a number that is unknown."""
        return round(60 * abs(self.share)) if self.share == self.share else 0


@dataclass(frozen=True)
class Marked:
    """A text in pieces, each with whether it differs from the baseline's text."""

    pieces: Sequence[tuple[str, bool]]


Cell = str | Shaded | Marked


@dataclass(frozen=True)
class Table:
    """A table; the first column names its rows. Of many rows the first are shown.

    prose: cells hold sentences, not numbers. of: how many rows there are, if not all are here.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    prose: bool = False
    of: int = 0

    @property
    def shown(self) -> Sequence[Sequence[Cell]]:
        """The first rows."""
        return self.rows[:MOST]

    @property
    def more(self) -> str:
        """How many rows are not shown; empty if all are."""
        left = max(len(self.rows), self.of) - MOST
        return f"and {left} more" if left > 0 else ""


@dataclass(frozen=True)
class Page:
    """What is shown of a value: a title, facts, sentences, a picture and tables."""

    title: str
    about: str = ""
    facts: Sequence[tuple[str, str]] = ()
    lines: Sequence[str] = ()
    picture: Figure | None = None
    tables: Sequence[Table] = field(default=())


def html(value: object) -> str:
    """A value as HTML; all names, notes and texts are escaped."""
    return render(page(value))


def render(shown: Page) -> str:
    """A page as HTML."""
    from markupsafe import Markup

    from steerlab.plots.drawing import inline_svg

    drawn = None
    if shown.picture is not None:
        drawn = Markup(inline_svg(shown.picture, f"steerlab-{next(_numbers)}"))
    return _template().render(page=shown, picture=drawn)


@cache
def _template() -> Template:
    from steerlab.report.page import environment

    source = files("steerlab.notebook").joinpath("value.html").read_text("utf-8")
    return environment().from_string(source)


@singledispatch
def page(value: object) -> Page:
    """What is shown of a value."""
    from steerlab.registry import Store

    if isinstance(value, Store):
        return _store(value)
    from steerlab.core.completion import Completion

    assert isinstance(value, Completion)
    return Page("completion", value.finish, lines=[value.prompt + value.text])


def _store(store: Store) -> Page:
    rows = [
        (v.qualified, span(v.layers), number(v.dose), v.recipe, ", ".join(v.tags), v.note)
        for v in store.list(sort="name", limit=MOST)
    ]
    head = ("vector", "layers", "dose of 1", "recipe", "tags", "note")
    total = len(store)
    return Page(
        str(store.path), count(total, "vector"), tables=[Table(head, rows, prose=True, of=total)]
    )


@page.register
def _(value: SteeringVector) -> Page:
    facts = [("recipe", str(value.recipe)), *_facts(value)]
    about = f"steering vector for {value.model.source}"
    return Page(str(value), about, facts, tables=[_by_layer(vector_profiles(value))])


@page.register
def _(value: Record) -> Page:
    facts = [("recipe", str(value.recipe)), *_facts(value), ("stored", f"{value.created[:19]} UTC")]
    facts += [("tags", ", ".join(value.tags))] if value.tags else []
    facts += [("note", value.note)] if value.note else []
    about = f"stored steering vector for {value.model.source}"
    return Page(value.ref, about, facts, tables=[_by_layer(profiles(value))])


def _facts(value: SteeringVector | Record) -> Iterator[tuple[str, str]]:
    yield "scope", value.scope
    yield "norm", number(value.norm, 4)
    yield "digest", short(value.digest)


def _by_layer(found: Sequence[Profile]) -> Table:
    """A row for each layer, a column for each quantity."""
    known = [dict(zip(profile.layers, profile.values, strict=True)) for profile in found]
    layers = sorted({layer for values in known for layer in values})
    rows = [[str(b), *(number(values.get(b)) for values in known)] for b in layers]
    names = [profile.name for profile in found]
    legend = "; ".join(legends([name.replace(" ", "_") for name in names]))
    return Table(("layer", *names), rows, legend)


@page.register
def _(value: Calibration) -> Page:
    title, made = f"calibration of {short(value.digest)}", value.created[:19]
    try:
        points = Curve.of(value).points
        (says, *evidence), picture = findings(value), figure(value)
    except CorruptPayload as error:
        return Page(title, made, lines=[str(error)])
    head = ("dose", "c", "effect", "95% interval", "random, ± sd", "KL", "sound")
    return Page(
        title,
        made,
        (),
        [f"It {says}.", *evidence],
        picture,
        [Table(head, [_point(p) for p in points])],
    )


def _point(point: Point) -> tuple[str, ...]:
    effect, random = point.effect, point.controls
    return (
        signed_dose(point.dose),
        f"{point.coefficient:+.3g}",
        f"{effect.mean:+.2f}",
        f"{effect.low:+.2f} to {effect.high:+.2f}",
        f"{random.mean:+.2f} ± {random.sd:.2f}",
        number(point.cost.kl, 2),
        "yes" if point.sound else "no",
    )


@page.register
def _(value: Evaluation) -> Page:
    shown = [
        Table(
            ("style", "metric", *found.settings),
            [(*key, *(" ".join(cell) for cell in cells)) for key, cells in found.rows.items()],
            found.caption,
        )
        for found in tables(value)
    ]
    about = f"suite {value.suite}, {value.model}"
    title = f"evaluation of {short(value.digest)}"
    return Page(title, about, lines=evaluation_verdict(value), tables=shown)


@page.register
def _(value: Difference) -> Page:
    names = ("cosine", "norm_a", "norm_b", "b_in_a", "a_in_b")
    rows = [[str(x.layer), *(number(getattr(x, name)) for name in names)] for x in value.layers]
    head = ("layer", "cosine", "norm of a", "norm of b", "b in a", "a in b")
    owners = {" ": "both", "-": "a", "+": "b"}
    made = [(owners[line.sign], line.label, line.text) for line in value.recipe]
    recipes = Table(("in", "what", "how it was made"), made, prose=True)
    facts = [("a", value.a), ("b", value.b)]
    return Page("difference", facts=facts, tables=[Table(head, rows), recipes])


@page.register
def _(value: Inspection) -> Page:
    near = [(n.ref, f"{n.cosine:+.2f}", span(n.layers)) for n in value.neighbours]
    lens = [(str(x.layer), _tokens(x.promoted), _tokens(x.suppressed)) for x in value.lens]
    operands = [
        (ref, *(f"layer {b}: {cosine:+.2f}" for b, cosine in cosines.items()))
        for ref, cosines in value.operands.items()
    ]
    shown = [_by_layer(vector_profiles(value.vector))]
    shown += [Table(("layer", "promotes", "suppresses"), lens, prose=True)] if lens else []
    shown += [Table(("neighbour", "cosine", "layers"), near)] if near else []
    shown += [Table(("operand", "cosine"), operands)] if operands else []
    return Page(
        value.name,
        f"inspection, {value.vector.model.source}",
        [("recipe", str(value.recipe))],
        value.notes,
        tables=shown,
    )


def _tokens(found: Sequence[TokenLogit]) -> str:
    return " ".join(f"{token.text} ({token.logit:+.1f})" for token in found)


@page.register
def _(value: Sweep) -> Page:
    shown = []
    if value.cells and value.layers:
        grid = grid_of(value)
        rows: list[tuple[Cell, ...]] = [
            (str(layer), *(Shaded(grid.shown(x), grid.share(x)) for x in values))
            for layer, values in zip(grid.layers, grid.values, strict=True)
        ]
        shown.append(Table((f"layer \\ {grid.strength}", *grid.columns), rows, grid.title))
    texts = [
        (_setting(cell.setting), cell.prompt, str(cell.seed), cell.text) for cell in value.cells
    ]
    shown.append(Table(("setting", "prompt", "seed", "text"), texts, prose=True))
    return Page(f"sweep of {value.expression}", value.model, tables=shown)


def _setting(setting: Setting) -> str:
    """Layer and strength of a cell; "baseline" for none."""
    if setting.layer is None or not setting.coefficient:
        return "baseline"
    return f"layer {span(setting.layers)}, {strength_text(setting)}"


@page.register
def _(value: Comparison) -> Page:
    head = ("prompt", *(strength_text(setting) for setting in value.settings))
    rows: list[tuple[Cell, ...]] = [(row[0].prompt, *_against_baseline(row)) for row in value.rows]
    about = "words that differ from the baseline are marked" if _baseline(value.rows) else ""
    return Page(value.label, about, tables=[Table(head, rows, prose=True)])


def _against_baseline(row: Sequence[Text]) -> list[Marked]:
    baseline = next((cell.text for cell in row if cell.setting.is_baseline), None)
    return [Marked(marked_words(cell.text, baseline)) for cell in row]


def _baseline(rows: Sequence[Sequence[Text]]) -> bool:
    return any(cell.setting.is_baseline for row in rows for cell in row)
