"""The workbench: vectors, details of one, and the lab, on one screen."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal
from textual.widgets import Input, Static, TextArea

from steerlab.core.display import printable
from steerlab.tui.detail import Detail, Pane
from steerlab.tui.expression_line import ExpressionLine
from steerlab.tui.footer import KeyFooter
from steerlab.tui.help import Helpful
from steerlab.tui.setup import Setup
from steerlab.tui.workbench.browser import Browser
from steerlab.tui.workbench.keys import KEYS
from steerlab.tui.workbench.lab_panel import LabPanel
from steerlab.tui.workbench.prompt import Prompt
from steerlab.tui.workbench.table import VectorTable

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab
    from steerlab.tui.extract.form import Draft
    from steerlab.tui.sweep.screen import Promoted

GREETING = "⏎ steers with a vector · ^g generates · x extracts · ^p finds all · ? lists keys"
"""Shown until the first generation."""

EMPTY = """\
No vectors here yet.

x        extract one from contrast prompts
ctrl+n   make the starter vectors (downloads 93 MB once, then takes half a minute)
ctrl+q   quit, then `steerlab import FILE`"""


class Workbench(Helpful[None]):
    """Browse, compose, steer."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (64, "-medium"), (110, "-wide")]  # noqa: RUF012 - as Textual declares it
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (18, "-low"), (32, "-tall")]  # noqa: RUF012 - as above
    HELP = """\
Enter on a vector puts it on the steer line. ctrl+g continues the prompt without and with it, side \
by side. ctrl+s saves the expression on the steer line. Tab moves between regions, Esc goes back \
to the vectors, and ctrl+p finds every command by name."""
    BINDINGS: ClassVar[list[BindingType]] = KEYS

    def __init__(self, lab: Lab, setup: Setup, *, greet: bool = False, place: str = "") -> None:
        super().__init__(classes="at-table")
        self.lab = lab
        self._first, self._place = setup, place
        self.greets = greet
        self._draft: Draft | None = None

    def compose(self) -> ComposeResult:
        """Vectors on the left, details on the right, the lab below."""
        with Horizontal(id="upper"):
            yield Browser(self.lab, id="browse")
            yield Detail(self.lab, id="detail")
        yield LabPanel(self.lab, self._first, id="lab")
        if self.greets:
            yield Static(GREETING, id="greeting", markup=False)
        yield KeyFooter()

    def on_mount(self) -> None:
        """Focus the vectors."""
        self.table.focus()

    @property
    def browser(self) -> Browser:
        """Filter and table."""
        return self.query_one(Browser)

    @property
    def table(self) -> VectorTable:
        """The table of vectors."""
        return self.browser.table

    @property
    def detail(self) -> Detail:
        """Details of the vector under the cursor."""
        return self.query_one(Detail)

    @property
    def lab_panel(self) -> LabPanel:
        """The lab."""
        return self.query_one(LabPanel)

    # the vectors

    @on(Browser.Surveyed)
    def _take_names(self, event: Browser.Surveyed) -> None:
        self.query_one(ExpressionLine).show_names(event.names)

    @on(Browser.Listed)
    def _show_listed(self, event: Browser.Listed) -> None:
        if event.found and self._place:
            self.browser.locate(self._place, quietly=True)
        self._place = ""
        if event.filtered and not event.found:
            self.detail.show_empty("No vectors match the filter. Esc clears it.")
        elif not event.found:
            self.detail.show_empty(EMPTY)

    @on(Browser.StoreChanged)
    def _store_changed(self) -> None:
        self.detail.reread()

    @on(Browser.Located)
    def _show_located(self, event: Browser.Located) -> None:
        """Show a vector that is not listed: an older version, or filtered out."""
        self.detail.show(event.summary)

    @on(VectorTable.Highlighted)
    def _highlight(self, event: VectorTable.Highlighted) -> None:
        self.detail.show(event.summary)

    @on(VectorTable.Chosen)
    def _choose(self, event: VectorTable.Chosen) -> None:
        """Put the vector on the steer line, or the sum of the marked ones."""
        names = [self.browser.name_of(s) for s in self.table.marked or [event.summary]]
        line = self.query_one(ExpressionLine)
        if len(names) > 1:
            line.text = " + ".join(names)
        else:
            line.put(names[0])

    @on(ExpressionLine.Saved)
    def _show_saved(self, event: ExpressionLine.Saved) -> None:
        self.notify(printable(event.text), markup=False)
        self.browser.follow()
        self.browser.locate(event.ref)

    def at_hand(self) -> tuple[list[str], str]:
        """The marked vectors or the one under the cursor; and the expression that is meant.

        That is the steer line's where the lab has the focus.
        """
        current = [self.table.current] if self.table.current is not None else []
        names = [self.browser.name_of(summary) for summary in self.table.marked or current]
        typed = self.query_one(ExpressionLine).text.strip()
        return names, typed if typed and self.has_class("at-lab") else " + ".join(names)

    # details

    @on(Pane.Jump)
    def _jump(self, event: Pane.Jump) -> None:
        self.browser.locate(event.ref)

    @on(Pane.Replay)
    def _replay(self, event: Pane.Replay) -> None:
        if not self.lab_panel.say_if_busy():
            self.lab_panel.replay(event.run)
            self.action_go("lab")

    @on(Pane.Damaged)
    def _damaged(self, event: Pane.Damaged) -> None:
        self.table.flag(event.id, damaged=event.damaged)

    @on(LabPanel.Finished)
    @on(Pane.Changed)
    def _changed(self) -> None:
        self.browser.follow()

    @on(LabPanel.Finished)
    def _be_at_home(self) -> None:
        """Drop the hint of a first session: its reader generates."""
        self.greets = False
        self.query("#greeting").remove()

    def action_tab(self, name: str) -> None:
        """Show a tab of the details."""
        self.detail.switch(name)

    # the lab

    def action_generate(self) -> None:
        """Continue the prompt without and with the vector."""
        line = self.query_one(ExpressionLine)
        if not line.text.strip() and self.table.current is not None:
            line.put(self.browser.name_of(self.table.current))
        if self.has_class("-tiny") and not self.has_class("at-lab"):
            self._show_region("lab")
            self.lab_panel.focus_texts()
        self.lab_panel.generate()

    # other screens

    def action_extract(self) -> None:
        """Extract a vector from contrast prompts."""
        from steerlab.tui.extract.screen import ExtractScreen

        screen = ExtractScreen(self.lab, self._draft)

        def done(ref: str | None) -> None:
            self._draft = screen.draft if ref is None else None
            if ref is not None:
                self._show_saved(ExpressionLine.Saved(ref, f"saved as {ref}"))

        self.app.push_screen(screen, done)

    def action_sweep(self) -> None:
        """Sweep layers and doses: a heatmap of texts."""
        from steerlab.tui.sweep.screen import SweepScreen

        setup = self.lab_panel.setup
        if not setup.expression and self.table.current is not None:
            self.query_one(ExpressionLine).put(self.browser.name_of(self.table.current))
            setup = self.lab_panel.setup

        def promote(cell: Promoted | None) -> None:
            if cell is not None:
                self.lab_panel.use(replace(setup, **asdict(cell)))
                self.action_go("lab")

        self.app.push_screen(
            SweepScreen(
                self.lab,
                setup.expression,
                setup.prompt,
                names=self.query_one(ExpressionLine).suggester.names,
                positions=setup.positions,
                seed=setup.seed,
                sampling=setup.sampling,
            ),
            promote,
        )

    def action_health(self) -> None:
        """Verify the store, collect its garbage, back it up."""
        from steerlab.tui.health.screen import HealthScreen

        self.app.push_screen(HealthScreen(self.lab))

    # moving between regions

    async def action_at(self, region: str, action: str) -> None:
        """Run an action of a region, wherever the focus is."""
        await self.query_one(f"#{region}").run_action(action)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave a slash to text fields."""
        return action != "focus_filter" or not isinstance(self.focused, Input | TextArea)

    def action_focus_filter(self) -> None:
        """Go to the filter."""
        self._show_region("table")
        self.set_focus(self.browser.filter)  # at once: it gets the next key

    def action_back(self) -> None:
        """Stop generating, else clear the filter, else go back to the vectors."""
        if self.lab_panel.cancel():
            return
        box = self.browser.filter
        if box.value and (box.has_focus or self.table.has_focus):
            box.value = ""
        self.action_go("table")

    def action_go(self, region: str) -> None:
        """Go to a region; a small terminal shows only the focused one."""
        self._show_region(region)
        if region == "table":
            self.set_focus(self.table)
        elif region == "detail":
            self.detail.focus_inside()
        else:
            self.set_focus(self.query_one(Prompt))

    def _show_region(self, region: str) -> None:
        for name in ("table", "detail", "lab"):
            self.set_class(name == region, f"at-{name}")

    def on_descendant_focus(self, event: events.DescendantFocus) -> None:
        """Remember which region has the focus."""
        for name, region in (("detail", "#detail"), ("lab", "#lab"), ("table", "#browse")):
            if self.query_one(region) in event.widget.ancestors_with_self:
                self._show_region(name)
