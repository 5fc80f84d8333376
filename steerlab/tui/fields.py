"""Fields of forms and dialogs: a label and its widget, and the number that was typed."""

from __future__ import annotations

from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Checkbox, Label

from steerlab.core.display import printable
from steerlab.errors import BadOption


class Tick(Checkbox):
    """A checkbox that looks ticked or not without colours: [✓] or [ ]."""

    DEFAULT_CSS = """
    Tick { border: none; padding: 0; height: 1; background: transparent; }
    Tick > .toggle--label { color: $text-muted; }
    Tick.-on > .toggle--label { color: $text; }
    Tick:focus > .toggle--label { text-style: reverse; }
    """

    def __init__(self, label: str, value: bool = False, *, id: str | None = None) -> None:
        super().__init__(Content(printable(label)), value, compact=True, id=id)

    @property
    def _button(self) -> Content:
        return Content.assemble("[", ("✓" if self.value else " ", "bold $text-success"), "]")


def field(
    label: str, *widgets: Widget, classes: str = "field", id: str | None = None
) -> Horizontal:
    """A label and its widgets on one line; the label's id is that of the first, with -label."""
    return Horizontal(Label(label, id=f"{widgets[0].id}-label"), *widgets, classes=classes, id=id)


def number_of(text: str, name: str, kind: type[int] | type[float]) -> float | int:
    """The number that was typed; raises BadOption with the name of its field."""
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise BadOption(f"{name} must be {what}, not {text!r}") from None
