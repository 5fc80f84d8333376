"""Overview: the recipe with its prompts, the layers, and tags and note, which can be edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.widgets import Input, Label
from textual.worker import Worker

from steerlab.core.display import printable
from steerlab.core.recipe import Contrast, Expression
from steerlab.errors import CorruptPayload, NotFound
from steerlab.tui.detail.pane import Pane
from steerlab.tui.notices import notify, reporting_errors
from steerlab.tui.partial_refresh import FixedInput, Paragraph

if TYPE_CHECKING:
    from steerlab.core.record import Record
    from steerlab.registry import Summary


@dataclass(frozen=True)
class Known:
    """A record, and what is wrong with its payload, if anything is."""

    record: Record
    damage: str = ""


class Field(FixedInput):
    """A tag or note line: Enter stores it, Esc puts back what was there."""

    HELP = "Enter stores what is typed here with the vector, Esc leaves it as it was."

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "restore", "leave as it was")]

    stored = ""

    def take(self, text: str) -> None:
        """Show what is stored, unless somebody is typing."""
        changed, self.stored = text != self.stored, text
        if changed or not self.has_focus:
            self.value = text
            self.cursor_position = 0

    def on_focus(self) -> None:
        """Go on typing at the end; while nobody does, the beginning is what is seen."""
        self.cursor_position = len(self.value)

    def on_blur(self) -> None:
        """Show the beginning again."""
        self.cursor_position = 0

    def action_restore(self) -> None:
        """Back to what is stored, and out of the field."""
        self.value = self.stored
        self.screen.focus_next()


class Overview(Pane):
    """What a vector is made of."""

    DEFAULT_CSS = """
    Overview .edit { height: 1; }
    Overview .edit Label { width: 6; color: $text-muted; }
    Overview .edit Input { width: 1fr; }
    Overview #damage { color: $text-error; }
    Overview Static { height: auto; }
    """

    def compose(self) -> ComposeResult:
        """Head, the lines that can be edited, and the recipe."""
        yield Paragraph(id="damage")
        yield Paragraph(id="head")
        for name, hint in (("tags", "separated by spaces"), ("note", "a note")):
            with Horizontal(classes="edit"):
                yield Label(name)
                yield Field(placeholder=hint, id=name, compact=True, select_on_focus=False)
        yield Paragraph(id="recipe")

    def read(self, summary: Summary, worker: Worker[None]) -> Known:
        """The record; the payload too, as only that shows whether it is sound."""
        store = self.lab.store
        record = store.record(summary.qualified)
        try:
            store.load(summary.qualified)
        except (CorruptPayload, NotFound) as error:
            return Known(record, str(error))
        return Known(record)

    def draw(self, found: Known) -> None:
        """Show it all."""
        from steerlab.tui.detail import Detail

        record, summary = found.record, self.summary
        damage = self.query_one("#damage", Paragraph)
        damage.display = bool(found.damage)
        if found.damage:
            damage.show(Content(printable(f"✗ {found.damage}")))
        self.query_one("#head", Paragraph).show(head(record))
        self.query_one("#tags", Field).take(printable(" ".join(record.tags)))
        self.query_one("#note", Field).take(printable(record.note))
        self.query_one("#recipe", Paragraph).show(recipe(record))
        if summary is not None:
            self.post_message(Detail.Damaged(summary.id, found.damage))

    @on(Input.Submitted)
    def _edited(self, event: Input.Submitted) -> None:
        event.stop()
        if self.summary is not None and isinstance(event.input, Field):
            if event.value != event.input.stored:
                self.store(event.input.id or "", self.summary.qualified, event.value)
            self.screen.focus_next()

    @work(thread=True, group="edit")
    def store(self, what: str, ref: str, text: str) -> None:
        """Store tags or note."""
        from steerlab.tui.detail import Detail

        with reporting_errors(self):
            if what == "note":
                self.lab.store.note(ref, text)
            else:
                before, after = self.lab.store.record(ref).tags, text.split()
                self.lab.store.tag(ref, add=after, remove=set(before) - set(after))
            notify(self, f"{what} of {ref} stored")
            self.post_message(Detail.Changed(ref))


def head(record: Record) -> Content:
    """Recipe in words, the model, and a table of layers."""
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


def layers(record: Record) -> list[Content]:
    """Norms, dose and what was measured at extraction: in one line, or in one a layer."""
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
    if len(rows) == 1:  # a table of one line is wider than most terminals leave it
        return [Content(" · ".join(map(" ".join, zip(columns, rows[0], strict=True))))]
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = [_line(columns, widths), *(_line(row, widths) for row in rows)]
    return [Content.styled(lines[0], "dim"), *map(Content, lines[1:])]


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))


def recipe(record: Record) -> Content:
    """Prompts or operands, then when and with what it was made."""
    made, lines = record.recipe, list[Content]()
    if isinstance(made, Contrast):
        for index, positive in enumerate(made.positive):
            lines.append(_prompt("+ ", positive, "$text-success"))
            if made.negative:
                lines.append(_prompt("− ", made.negative[index], "$text-error"))
        lines += [_prompt("  ", prompt, "") for prompt in made.baseline]
    elif isinstance(made, Expression):
        lines += [
            Content(printable(f"{operand.ref}  {operand.digest[:16]}")) for operand in made.operands
        ]
    software = ", ".join(f"{name} {version}" for name, version in record.software.items())
    when = record.created[:16].replace("T", " ")
    lines.append(Content.styled(printable(f"made {when} UTC with {software}"), "dim"))
    lines.append(Content.styled(f"digest {record.digest}", "dim"))
    return Content("\n").join(lines)


def _prompt(sign: str, text: str, style: str) -> Content:
    return Content.assemble((sign, style), printable(text))
