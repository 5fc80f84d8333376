"""The form of a verb: a line for each field, the help of one, and the command line it makes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping

from textual import events, on
from textual.app import ComposeResult
from textual.containers import Vertical, VerticalScroll
from textual.widget import Widget
from textual.widgets import Checkbox, Input, Select, Static

from steerlab.core.display import printable
from steerlab.core.verb import Field, Value, Verb
from steerlab.errors import SteerlabError
from steerlab.tui.fields import Tick
from steerlab.tui.fields import field as labelled


class VerbForm(Vertical):
    """Fields that scroll; below them what the focused one is for, and the command so far."""

    DEFAULT_CSS = """
    VerbForm #fields { height: 1fr; scrollbar-size-vertical: 1; }
    VerbForm .field { height: 1; }
    VerbForm .field Label { width: 20; color: $text-muted; text-wrap: nowrap; }
    VerbForm .field Label { text-overflow: ellipsis; }
    VerbForm .field.required Label { color: $text-accent; }
    VerbForm .field Input, VerbForm .field Select { width: 1fr; }
    VerbForm .field Checkbox { width: 1fr; text-overflow: ellipsis; text-wrap: nowrap; }
    VerbForm #hint { height: 1; color: $text-muted; text-overflow: ellipsis; text-wrap: nowrap; }
    VerbForm #command { height: auto; max-height: 2; color: $text-accent; }
    VerbForm #command.problem { color: $text-warning; }
    """

    def __init__(self, verb: Verb, values: Mapping[str, Value]) -> None:
        super().__init__()
        self.verb, self.first = verb, values

    def compose(self) -> ComposeResult:
        """A line for each field."""
        with VerticalScroll(id="fields", can_focus=False):
            for one in self.verb.fields:
                classes = "field required" if one.required else "field"
                yield labelled(one.label, self._widget(one), classes=classes)
        yield Static(id="hint", markup=False)
        yield Static(id="command", markup=False)

    def _widget(self, one: Field) -> Widget:
        value, name = self.first.get(one.name, ""), f"field-{one.name}"
        if one.kind == "flag":
            return Tick(one.help, bool(value), id=name)
        if one.kind == "choice":
            pairs = [(choice, choice) for choice in one.choices]
            chosen = value if value in one.choices else Select.NULL
            return Select(pairs, value=chosen, prompt="-", compact=True, id=name)
        hint = one.default or one.help
        return Input(str(value), placeholder=hint, compact=True, id=name)

    def on_mount(self) -> None:
        """Show the command, and go to the first field that needs a value."""
        self._show()
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        empty = (f for f in self.verb.fields if f.required and not self.first.get(f.name))
        first = next(empty, next(iter(self.verb.fields), None))
        if first is not None:
            self.query_one(f"#field-{first.name}").focus()

    def words(self) -> list[str]:
        """The command line after the program; raises BadOption."""
        return self.verb.words(dict(self._values()))

    def _values(self) -> Iterator[tuple[str, Value]]:
        for one in self.verb.fields:
            widget = self.query_one(f"#field-{one.name}")
            if isinstance(widget, Select):
                yield one.name, "" if widget.value is Select.NULL else str(widget.value)
            else:
                assert isinstance(widget, Input | Checkbox)
                yield one.name, widget.value

    @on(Input.Changed)
    @on(Checkbox.Changed)
    @on(Select.Changed)
    def _show(self) -> None:
        """Show the command that the fields mean, or what is missing."""
        line = self.query_one("#command", Static)
        try:
            text, problem = f"$ steerlab {shlex.join(self.words())}", False
        except SteerlabError as error:
            text, problem = str(error), True
        line.set_class(problem, "problem")
        line.update(printable(text))

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Say what the field is for."""
        name = (event.widget.id or "").removeprefix("field-")
        found = next((f for f in self.verb.fields if f.name == name), None)
        if found is not None:
            several = " Several: words; those with spaces in quotes." if found.several else ""
            default = f" Default: {found.default}." if found.default else ""
            self.query_one("#hint", Static).update(printable(found.help + several + default))
