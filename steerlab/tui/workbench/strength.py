"""The strength of steering: a slider, its dose and its coefficient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget
from textual.widgets import Input, Label

from steerlab.tui.partial_refresh import FixedInput
from steerlab.tui.setup import DOSE

LIMIT, LIMIT_C = 0.5, 4.0
"""The slider's ends as dose and coefficient: texts break beyond. Larger values can be typed."""


class Slider(Widget, can_focus=True):
    """A line from -1 to 1 with a knob that keys and the mouse move."""

    HELP = """\
The strength of steering. ← → move a little, page up/down a lot, 0 is off, - reverses the sign.
═ marks the calibrated range in which texts stay fluent. dose: the length of c × vector, relative \
to the median residual stream; c: the coefficient."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left", "move(-1)", "weaker", system=True),
        Binding("right", "move(1)", "stronger", system=True),
        Binding("pagedown", "move(-5)", "much weaker", show=False, system=True),
        Binding("pageup", "move(5)", "much stronger", show=False, system=True),
        Binding("minus", "flip", "reverse", tooltip="reverse the steering"),
        Binding("0", "zero", "turn the steering off", show=False),
    ]

    DEFAULT_CSS = """
    Slider { height: 1; width: 1fr; min-width: 9; color: $text-muted; }
    Slider:focus { color: $text; background: $boost; }
    """

    value: reactive[float] = reactive(0.0)
    safe: reactive[tuple[float, float] | None] = reactive(None)
    """The calibrated range in which texts stay fluent."""

    @dataclass
    class Moved(Message):
        """The knob was moved. value: between -1 and 1."""

        value: float

    def render(self) -> Text:
        """◂──══┼━━●═──▸: filled from 0 to the knob, doubled in the safe range."""
        cells = max(3, self.size.width - 2)
        middle, knob = cells // 2, self._cell(cells, self.value)
        low, high = sorted((middle, knob))
        line = ["─"] * cells
        if self.safe is not None:
            first, last = (self._cell(cells, end) for end in self.safe)
            line[first : last + 1] = "═" * (last + 1 - first)
        line[low : high + 1] = "━" * (high + 1 - low)
        line[middle] = "┼"
        beyond = abs(self.value) > 1
        line[knob] = "◆" if beyond else "●"
        ends = ("◂", "▸")
        return Text(f"{ends[0]}{''.join(line)}{ends[1]}", no_wrap=True)

    def _cell(self, cells: int, value: float) -> int:
        share = (max(-1.0, min(1.0, value)) + 1) / 2
        return round(share * (cells - 1))

    def _set(self, value: float) -> None:
        value = round(max(-1.0, min(1.0, value)), 6)
        self.value = value
        self.post_message(self.Moved(value))

    def action_move(self, steps: int) -> None:
        """Move by steps of a fiftieth."""
        self._set(round(self.value * 50) / 50 + steps / 50)

    def action_flip(self) -> None:
        """Reverse the sign."""
        self._set(-self.value)

    def action_zero(self) -> None:
        """No steering."""
        self._set(0.0)

    def _at(self, x: int) -> float:
        cells = max(3, self.size.width - 2)
        return 2 * (x - 1) / (cells - 1) - 1

    def on_mouse_down(self, event: events.MouseDown) -> None:
        """Move the knob to the mouse."""
        self.capture_mouse()
        self._set(self._at(event.x))

    def on_mouse_move(self, event: events.MouseMove) -> None:
        """Drag the knob."""
        if self.app.mouse_captured is self:
            self._set(self._at(event.x))

    def on_mouse_up(self) -> None:
        """Release the knob."""
        self.release_mouse()


class Strength(Horizontal):
    """Slider, dose, coefficient and layer; changing one of the first three changes the others.

    The dose stays when the vector changes, because equal coefficients of two vectors are not
    comparable. A vector without a dose has only its coefficient.
    safe: the signed doses between which a calibration found fluent texts, drawn as ═.
    where: its layers as typed; empty for the vector's own.
    """

    DEFAULT_CSS = """
    Strength { height: 1; }
    Strength Label.unit { width: auto; padding: 0 1; color: $text-muted; }
    .-tiny Strength .layers { display: none; }
    """

    @dataclass
    class Changed(Message):
        """The strength changed."""

    def __init__(self, dose: float | None, coefficient: float, layers: str = "") -> None:
        super().__init__(classes="line")
        self.dose = DOSE if dose is None else dose
        self.coefficient = coefficient
        self.per_unit: float | None = None
        self.dosed = dose is not None
        self.safe: tuple[float, float] | None = None
        self.where = layers

    def compose(self) -> ComposeResult:
        """The slider, then the numbers."""
        yield Label("strength", classes="label")
        yield Slider()
        for name, unit in (("dose", "dose"), ("coefficient", "c")):
            yield Label(unit, classes="unit")
            yield FixedInput(id=name, compact=True, restrict=r"[-+.0-9e]*", placeholder="-")
        yield Label("layer", classes="unit layers")
        yield FixedInput(
            self.where,
            id="layers",
            classes="layers",
            compact=True,
            restrict=r"[0-9:, al]*",
            placeholder="own",
        )

    def on_mount(self) -> None:
        """Draw the strength."""
        self._draw()

    @property
    def chosen(self) -> tuple[float | None, float]:
        """(dose, coefficient); the dose is None if only the coefficient counts."""
        return (self.dose if self.dosed else None, self.coefficient)

    def follow(self, per_unit: float | None, *, dosed: bool = False) -> None:
        """Take the dose of coefficient 1 for the current vector; None if unknown.

        dosed: it has a dose that is only not known yet, so that a dose stays.
        """
        self.per_unit = per_unit or None
        self.dosed = self.per_unit is not None or (dosed and self.dosed)
        self._agree()

    def place(self, layers: str, own: str) -> None:
        """Show where the vector acts. own: its own layers, for an empty `layers`."""
        self.where = layers
        box = self.query_one("#layers", Input)
        box.placeholder = own or "own"
        if not box.has_focus:
            box.value = layers

    def set(self, dose: float | None, coefficient: float) -> None:
        """Set the strength; a dose takes precedence."""
        self.dosed = dose is not None
        self.dose = self.dose if dose is None else dose
        self.coefficient = coefficient
        self._agree()

    def _agree(self) -> None:
        if self.dosed and self.per_unit:
            self.coefficient = self.dose / self.per_unit
        self._draw()

    @on(Slider.Moved)
    def _slid(self, event: Slider.Moved) -> None:
        event.stop()
        self._choose(event.value * (LIMIT if self.dosed else LIMIT_C), by_dose=self.dosed)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        if not event.input.has_focus:
            return
        if event.input.id == "layers":
            self.where = event.value.strip()
            self.post_message(self.Changed())
            return
        number = _number(event.value)
        event.input.set_class(number is None, "-invalid")
        if number is not None:
            self._choose(number, by_dose=event.input.id == "dose")

    def _choose(self, value: float, *, by_dose: bool) -> None:
        if by_dose:
            self.dose = value
        else:
            self.coefficient = value
            self.dose = value * self.per_unit if self.per_unit else self.dose
        self.dosed = by_dose or self.per_unit is not None
        self._agree()
        self.post_message(self.Changed())

    def on_descendant_blur(self) -> None:
        """Replace invalid input with the current value."""
        self._draw()

    def _draw(self) -> None:
        """Show the strength in every field without focus."""
        if not self.is_mounted:
            return
        slider = self.query_one(Slider)
        slider.value = self.dose / LIMIT if self.dosed else self.coefficient / LIMIT_C
        safe = self.safe if self.dosed else None
        slider.safe = None if safe is None else (safe[0] / LIMIT, safe[1] / LIMIT)
        known = self.per_unit is not None or not self.dosed
        self._show("dose", self.dose if self.dosed else None)
        self._show("coefficient", self.coefficient if known else None)

    def _show(self, name: str, value: float | None) -> None:
        box = self.query_one(f"#{name}", Input)
        if not box.has_focus:
            box.value = "" if value is None else f"{value:+.3g}"
            box.remove_class("-invalid")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
