"""The settings of the next texts: an expression, a prompt, a strength, and all other options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Label

from steerlab.core.display import count
from steerlab.core.notation import span
from steerlab.errors import BadOption
from steerlab.files.location import expanded
from steerlab.tui.dialogs import OptionsDialog, TextDialog
from steerlab.tui.expression_line import ExpressionLine, Meaning
from steerlab.tui.notices import notify
from steerlab.tui.setup import COLUMNS, MOST_PINNED, Setup
from steerlab.tui.workbench.prompt import Prompt
from steerlab.tui.workbench.strength import Strength

if TYPE_CHECKING:
    from steerlab.core.results import Calibration
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab


class Settings(Vertical):
    """Three lines that are typed in, and a `Setup` of all settings.

    meaning: of the expression, as last checked. prompts: a list to step through.
    """

    DEFAULT_CSS = "Settings { height: auto; }"

    @dataclass
    class Changed(Message):
        """Options that the panel's title names have changed."""

    @dataclass
    class Agreed(Message):
        """The expression was checked, and the strength fits it."""

    def __init__(self, lab: Lab, setup: Setup, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lab, self.options = lab, setup
        self.meaning = Meaning("")
        self.prompts: Sequence[str] = ()
        self._calibrated_layers = ""  # set by a calibration, not by the user

    def compose(self) -> ComposeResult:
        """Expression, prompt, strength."""
        yield ExpressionLine(self.lab, self.options.expression)
        with Horizontal(classes="line", id="prompt-line"):
            yield Label("prompt", classes="label", id="prompt-label")
            yield Prompt(self.options.prompt)
        yield Strength(self.options.dose, self.options.coefficient, self.options.layers)

    def on_mount(self) -> None:
        """Show the options."""
        self.use(self.options)

    @property
    def setup(self) -> Setup:
        """All settings as one value."""
        strength = self.query_one(Strength)
        dose, coefficient = strength.chosen
        return replace(
            self.options,
            expression=self.query_one(ExpressionLine).text.strip(),
            prompt=self.query_one(Prompt).text,
            dose=dose,
            coefficient=coefficient,
            layers=strength.where,
        )

    @property
    def known(self) -> SteeringVector | None:
        """The vector of the expression, if it is evaluated already."""
        typed = self.query_one(ExpressionLine).text.strip()
        return self.meaning.vector if self.meaning.text.strip() == typed else None

    def use(self, setup: Setup) -> None:
        """Apply all settings."""
        self.options = setup
        line, prompt = self.query_one(ExpressionLine), self.query_one(Prompt)
        if line.text.strip() != setup.expression:
            line.text = setup.expression
        if prompt.text != setup.prompt:
            prompt.text = setup.prompt
        strength = self.query_one(Strength)
        strength.where = setup.layers
        strength.set(setup.dose, setup.coefficient)
        self._agree()
        self.post_message(self.Changed())

    # a strength that fits the vector

    @on(ExpressionLine.Checked)
    def _follow_vector(self, event: ExpressionLine.Checked) -> None:
        """Fit the strength to the vector: keep the dose if it has one, else the coefficient.

        A calibrated vector acts at its calibrated layer, unless another was chosen; one chosen
        in the table, not typed or replayed, starts with the calibrated strength too.
        """
        line = self.query_one(ExpressionLine)
        if event.meaning.text != line.text:
            return  # the text has changed since
        self.meaning = event.meaning
        if event.meaning.vector is not None:
            chosen = line.chosen == event.meaning.text
            self._begin_at(event.meaning.calibration, chosen)
        line.chosen = ""
        self._agree()
        self.post_message(self.Agreed())

    def _begin_at(self, calibration: Calibration | None, chosen: bool) -> None:
        """Take the layer of a calibration, or drop that of another vector's.

        chosen: in the table, so that the strength is taken as well.
        """
        setup = self.setup
        if not chosen and setup.layers not in ("", self._calibrated_layers):
            return  # the user's own choice
        before, self._calibrated_layers = self._calibrated_layers, ""
        if calibration is not None:
            self._calibrated_layers = str(calibration.layer)
            setup = replace(setup, layers=self._calibrated_layers)
            if chosen:
                coefficient = calibration.coefficient or 0.0
                setup = replace(setup, dose=calibration.dose, coefficient=coefficient)
        elif before and setup.layers == before:
            setup = replace(setup, layers="")
        if setup != self.setup:
            self.use(setup)

    @on(Strength.Changed)
    def _agree(self) -> None:
        """Show where the vector acts, and the dose of a coefficient and the safe doses there."""
        vector, found = self.meaning.vector, self.meaning.calibration
        strength = self.query_one(Strength)
        stored = span(vector.layers) if vector is not None else ""
        own = stored if found is None else str(found.layer)  # as `Lab.operating_point`
        strength.place(strength.where, own)
        if vector is None:
            return
        layers = strength.where or own
        here = self.meaning.here.get(layers)
        strength.safe = here.safe if here is not None else None
        if here is not None and here.dose and here.coefficient:
            strength.follow(here.dose / here.coefficient)
        elif layers == stored:
            strength.follow(vector.dose(1.0))
        else:  # the vector there, and so its length, is made when a text is
            strength.follow(None, dosed=vector.dose(1.0) is not None)

    def action_layer(self, step: int) -> None:
        """Steer at the next layer, up or down."""
        vector = self.meaning.vector
        if vector is None:
            notify(self, "no vector on the steer line: Enter on one puts it there", "warning")
            return
        own, found = span(vector.layers), self.meaning.calibration
        now = self.setup.layers or (own if found is None else str(found.layer))
        if not now.isdecimal():
            notify(self, f"layers {now} are several: type others on the strength line", "warning")
            return
        layer = str(min(max(int(now) + step, 0), vector.model.n_layers - 1))
        unsaid = layer == own and found is None  # else it means where it works
        self.use(replace(self.setup, layers="" if unsaid else layer))

    # options and columns

    def action_options(self) -> None:
        """Layers, positions, sampling, seed, chat template."""

        def take(setup: Setup | None) -> None:
            if setup is not None:
                self.use(setup)

        self.app.push_screen(OptionsDialog(self.setup), take)

    def action_columns(self) -> None:
        """Switch between two texts (baseline and c), three and five (from -c to +c)."""
        setup = self.setup
        following = COLUMNS[(COLUMNS.index(setup.columns) + 1) % len(COLUMNS)]
        self.use(replace(setup, columns=following, pinned=()))
        notify(self, f"{following} texts side by side, starting with the next generation")

    def action_pin(self) -> None:
        """Keep this vector, strength and layer as a column of the next texts, beside others."""
        setup = self.setup
        if not setup.expression:
            notify(self, "no vector on the steer line: Enter on one puts it there", "warning")
        elif setup.pin in setup.pinned:
            notify(self, "this setting has a column already: change it first", "warning")
        elif len(setup.pinned) == MOST_PINNED:
            notify(self, f"{MOST_PINNED} settings are kept: T drops them", "warning")
        else:
            self.use(replace(setup, pinned=(*setup.pinned, setup.pin)))
            notify(self, f"{setup.pin} has a column: change the setting and generate to compare")

    def action_unpin(self) -> None:
        """Drop the columns that were kept."""
        dropped = count(len(self.setup.pinned), "column")
        self.use(replace(self.setup, pinned=()))
        notify(self, f"dropped {dropped}")

    # a list of prompts

    def action_prompts(self) -> None:
        """Load a list of prompts from a file."""

        def take(prompts: Sequence[str] | None) -> None:
            if prompts:
                self.prompts = prompts
                self.use(replace(self.setup, prompt=prompts[0]))
                self._count_prompts(0)

        about = ["A text file, one prompt a line; n and p step through them."]
        self.app.push_screen(TextDialog("prompts", "Load", "file", _prompts_in, about=about), take)

    def action_prompt(self, step: int) -> None:
        """Take the next prompt of the list."""
        if not self.prompts:
            notify(self, "no list of prompts: L loads one", "warning")
            return
        now = self.query_one(Prompt).text
        place = self.prompts.index(now) + step if now in self.prompts else 0
        place %= len(self.prompts)
        self.use(replace(self.setup, prompt=self.prompts[place]))
        self._count_prompts(place)

    def _count_prompts(self, place: int) -> None:
        self.query_one("#prompt-label", Label).update(f"p {place + 1}/{len(self.prompts)}"[:8])


def _prompts_in(path: str) -> Sequence[str]:
    """The prompts of a file; raises BadPrompts for one that has none."""
    from steerlab.files.prompts import read_lines

    if not path:
        raise BadOption("name a file of prompts")
    return read_lines(expanded(path))
