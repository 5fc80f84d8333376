"""Fields of forms and dialogs: a label and its widget, and the number that was typed."""

from __future__ import annotations

from textual.containers import Horizontal
from textual.widget import Widget
from textual.widgets import Label

from steerlab.errors import BadOption


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
