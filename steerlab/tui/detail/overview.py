"""Overview: recipe, prompts and layers; tags and note can be edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Input, Label
from textual.worker import Worker

from steerlab.core.display import printable, signed_dose
from steerlab.core.recipe import Contrast, Expression
from steerlab.errors import CorruptPayload, NotFound
from steerlab.tui.detail.pane import Pane
from steerlab.tui.notices import notify, reporting_errors
from steerlab.tui.partial_refresh import FixedInput, Paragraph

if TYPE_CHECKING:
    from steerlab.core.record import Record
    from steerlab.core.results import Calibration
    from steerlab.registry import Summary


LEGEND = {
    "agreement": "agreement: share of pairs that point the same way",
    "separability": "separability: AUC of + against −",
}


@dataclass(frozen=True)
class Known:
    """A record. damage: why its payload can't be read; empty if it can."""

    record: Record
    calibration: Calibration | None
    beside: Sequence[Calibration]
    damage: str = ""


class Field(FixedInput):
    """Tags or note: Enter saves, Esc restores."""

    HELP = "Enter saves the text with the vector, Esc restores the saved one."

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "restore", "restore", tooltip="restore the saved text")
    ]

    stored = ""

    def take(self, text: str) -> None:
        """Show the saved text, unless the field is being edited."""
        changed, self.stored = text != self.stored, text
        if changed or not self.has_focus:
            self.value = text
            self.cursor_position = 0

    def on_focus(self) -> None:
        """Move the cursor to the end; without focus the beginning is shown."""
        self.cursor_position = len(self.value)

    def on_blur(self) -> None:
        """Show the beginning again."""
        self.cursor_position = 0

    def action_restore(self) -> None:
        """Restore the saved text and leave the field."""
        self.value = self.stored
        self.screen.focus_next()


class Overview(Pane):
    """Recipe, layers, tags and note of a vector."""

    DEFAULT_CSS = """
    Overview .edit { height: 1; }
    Overview .edit Label { width: 6; color: $text-muted; }
    Overview .edit Input { width: 1fr; }
    Overview #damage { color: $text-error; }
    Overview Static { height: auto; }
    """

    def compose(self) -> ComposeResult:
        """Head, editable fields, and recipe."""
        yield Paragraph(id="damage")
        yield Paragraph(id="head")
        for name, hint in (("tags", "separated by spaces"), ("note", "a note")):
            with Horizontal(classes="edit"):
                yield Label(name)
                yield Field(placeholder=hint, id=name, compact=True, select_on_focus=False)
        yield Paragraph(id="recipe")

    def read(self, summary: Summary, worker: Worker[None]) -> Known:
        """The record, and whether its payload is intact."""
        store = self.lab.store
        record = store.record(summary.qualified)
        calibration, beside = store.results.in_use(record)
        try:
            store.load(summary.qualified)
        except (CorruptPayload, NotFound) as error:
            return Known(record, calibration, beside, str(error))
        return Known(record, calibration, beside)

    def draw(self, found: Known) -> None:
        """Show all of it."""
        record, summary = found.record, self.summary
        damage = self.query_one("#damage", Paragraph)
        damage.display = bool(found.damage)
        if found.damage:
            damage.show(Content(printable(f"✗ {found.damage}")))
        self.query_one("#head", Paragraph).show(
            Content("\n").join([head(record), Content(calibrated(found.calibration, found.beside))])
        )
        self.query_one("#tags", Field).take(printable(" ".join(record.tags)))
        self.query_one("#note", Field).take(printable(record.note))
        self.query_one("#recipe", Paragraph).show(recipe(record))
        if summary is not None:
            self.post_message(self.Damaged(summary.id, bool(found.damage)))

    @on(Input.Submitted)
    def _edited(self, event: Input.Submitted) -> None:
        event.stop()
        if self.summary is not None and isinstance(event.input, Field):
            if event.value != event.input.stored:
                self.store(event.input.id or "", self.summary.qualified, event.value)
            self.screen.focus_next()

    @work(thread=True, group="edit")
    def store(self, what: str, ref: str, text: str) -> None:
        """Save tags or note."""
        with reporting_errors(self):
            if what == "note":
                self.lab.store.note(ref, text)
            else:
                before, after = self.lab.store.record(ref).tags, text.split()
                self.lab.store.tag(ref, add=after, remove=set(before) - set(after))
            notify(self, f"saved {what} of {ref}")
            self.post_message(self.Changed(ref))


def head(record: Record) -> Content:
    """The recipe in words, the model and the layers."""
    model = record.model
    precision = f" · {model.dtype}" if model.dtype else ""
    shape = f"{model.n_layers} layers of {model.d_model}"
    lines = [
        Content(printable(str(record.recipe))),
        Content.styled(
            printable(f"{model.source} · {model.architecture} · {shape}{precision}"), "dim"
        ),
        *layers(record),
    ]
    return Content("\n").join(lines)


def calibrated(found: Calibration | None, beside: Sequence[Calibration] = ()) -> str:
    """Where and how strongly a vector works, in a line; then other layers where it does."""
    return "\n".join([_calibrated(found), *(f"and {other.at}" for other in beside)])


def _calibrated(found: Calibration | None) -> str:
    if found is None:
        return "not calibrated: c finds where and how strongly it works"
    if not found.works or found.safe is None:
        return "calibrated: not shown to work"
    dose, low, high = map(signed_dose, (found.dose, *found.safe))
    return f"calibrated: layer {found.layer} · dose {dose} · safe {low} to {high}"


_SUMS = {True: "norm of the layers' sum up to it,", False: "norm of each layer alone (old record)"}


def legend(record: Record) -> str:
    """What the figures of the layers mean, in one line."""
    measured = {name for facts in record.layers for name in facts.diagnostics}
    what = "norm" if len(record.layers) == 1 else _SUMS[record.summed]
    parts = [f"dose/c: {what} relative to the residual stream"]
    return " · ".join(parts + [text for name, text in LEGEND.items() if name in measured])


def layers(record: Record) -> list[Content]:
    """Norms, doses and figures of the extraction, one line per layer."""
    names = sorted({name for facts in record.layers for name in facts.diagnostics})
    doses = record.doses()
    columns = [
        "layer",
        "norm",
        "residual",
        "dose/c",
        *(printable(name.replace("_", " ")) for name in names),
    ]
    rows = [
        [
            str(facts.layer),
            _short(facts.norm),
            _short(facts.residual_norm),
            _short(doses[facts.layer]),
            *(_short(facts.diagnostics.get(name)) for name in names),
        ]
        for facts in record.layers
    ]
    if len(rows) == 1:  # narrower than a table
        return [Content(" · ".join(map(" ".join, zip(columns, rows[0], strict=True))))]
    heads = list(zip(*(name.rpartition(" ")[::2] for name in columns), strict=True))
    heads = heads if any(heads[0]) else heads[1:]  # two lines, so that rows fit a narrow pane
    widths = [max(map(len, cells)) for cells in zip(*heads, *rows, strict=True)]
    lines = [Content.styled(_line(head, widths), "dim") for head in heads]
    return [*lines, *(Content(_line(row, widths)) for row in rows)]


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def recipe(record: Record) -> Content:
    """Prompts or operands; then date, software, digest and a legend."""
    made, lines = record.recipe, list[Content]()
    if isinstance(made, Contrast):
        above, below, baseline = made.sides
        for positive, negative in zip_longest(above, below):
            if positive is not None:
                lines.append(_prompt("+ ", str(positive), "$text-success"))
            if negative is not None:
                lines.append(_prompt("− ", str(negative), "$text-error"))
        lines += [_prompt("  ", str(prompt), "") for prompt in baseline]
        if (named := made.prompt_set) is not None:
            lines.append(_prompt("  ", f"prompts of {named.path}", ""))
    elif isinstance(made, Expression):
        lines += [
            Content(printable(f"{operand.ref}  {operand.digest[:16]}")) for operand in made.operands
        ]
    software = ", ".join(f"{name} {version}" for name, version in record.software.items())
    when = record.created[:16].replace("T", " ")
    lines.append(Content.styled(printable(f"made {when} UTC with {software}"), "dim"))
    lines.append(Content.styled(f"digest {record.digest}", "dim"))
    lines.append(Content.styled(legend(record), "dim"))
    return Content("\n").join(lines)


def _prompt(sign: str, text: str, style: str) -> Content:
    return Content.assemble((sign, style), printable(text))
