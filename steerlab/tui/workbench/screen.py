"""The workbench: vectors, details of one, and the lab, on one screen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import events, on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Footer, Input, TextArea
from textual.worker import Worker

from steerlab.core.display import count, printable, some
from steerlab.core.notation import derived_name
from steerlab.tui.detail import Detail, Pane
from steerlab.tui.dialogs import (
    Confirm,
    ModelDialog,
    Naming,
    OptionsDialog,
    RenameDialog,
    SaveDialog,
)
from steerlab.tui.help import HELP_KEY, Helpful
from steerlab.tui.notices import notify, reporting_errors
from steerlab.tui.setup import COLUMNS, Setup
from steerlab.tui.workbench.browser import Browser
from steerlab.tui.workbench.expression_line import ExpressionLine, Meaning
from steerlab.tui.workbench.lab_panel import LabPanel, Prompt
from steerlab.tui.workbench.table import VectorTable

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab
    from steerlab.registry import Summary
    from steerlab.tui.extract.form import Draft
    from steerlab.tui.sweep.screen import Promoted

EMPTY = """\
No vectors here yet.

x        extract one from contrast prompts
ctrl+n   make the starter vectors (downloads 93 MB once, then takes half a minute)
ctrl+q   quit, then `steerlab import FILE`"""

LONG = 1.0
"""Seconds after which a save that is usually instant reports that it is waiting."""


class Workbench(Helpful[None]):
    """Browse, compose, steer."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (64, "-medium"), (110, "-wide")]  # noqa: RUF012 - as Textual declares it
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (18, "-low"), (32, "-tall")]  # noqa: RUF012 - as above
    HELP = """\
Enter on a vector puts it on the steer line. ctrl+g continues the prompt without and with it, side \
by side. ctrl+s saves the expression on the steer line. Tab moves between regions, Esc goes back \
to the vectors, and ctrl+p finds every command by name."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+g,f5", "generate", "generate", key_display="^g", priority=True),
        HELP_KEY,
        Binding(
            "slash", "focus_filter", "filter", priority=True
        ),  # at once, for the letters that follow
        Binding("ctrl+s", "save", "save", priority=True),
        Binding("x", "extract", "extract"),
        Binding("w", "sweep", "sweep"),
        Binding("ctrl+o", "options", "options", priority=True),
        Binding("ctrl+t", "columns", "texts", priority=True),
        Binding("escape", "back", "stop, or go back to the vectors", show=False),
        Binding("f2", "go('table')", "go to the vectors", show=False),
        Binding("f3", "go('detail')", "go to the details", show=False),
        Binding("f4", "go('lab')", "go to the lab", show=False),
        *(
            Binding(str(number), f"tab('{name}')", f"show {name}", show=False)
            for number, name in enumerate(Detail.TABS, 1)
        ),
        Binding("r", "rename", "rename", show=False),
        Binding("delete", "remove", "remove", show=False),
        Binding("y", "copy_command", "copy as a command", show=False),
        Binding("h", "health", "health of the store", show=False),
        Binding("m", "model", "choose the model", show=False),
        Binding("ctrl+n", "starter", "make the starter vectors", show=False),
    ]

    @dataclass
    class Stored(Message):
        """A vector was saved, or was stored already."""

        name: str
        text: str

    def __init__(self, lab: Lab, setup: Setup) -> None:
        super().__init__(classes="at-table")
        self.lab = lab
        self._first = setup
        self._models = 1
        self._draft: Draft | None = None

    def compose(self) -> ComposeResult:
        """Vectors on the left, details on the right, the lab below."""
        with Horizontal(id="upper"):
            yield Browser(self.lab, id="browse")
            yield Detail(self.lab, id="detail")
        yield LabPanel(self.lab, self._first, id="lab")
        yield Footer()

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
        self._models = event.models
        self.query_one(ExpressionLine).show_names(event.names)

    @on(Browser.Listed)
    def _show_listed(self, event: Browser.Listed) -> None:
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
        names = [self._called(summary) for summary in self.table.marked or [event.summary]]
        line = self.query_one(ExpressionLine)
        if len(names) > 1:
            line.text = " + ".join(names)
        else:
            line.put(names[0])

    def _called(self, summary: Summary) -> str:
        return f"{summary.model}.{summary.name}" if self._models > 1 else summary.name

    # details

    @on(Pane.Jump)
    def _jump(self, event: Pane.Jump) -> None:
        self.browser.locate(event.ref)

    @on(Pane.Replay)
    def _replay(self, event: Pane.Replay) -> None:
        if self.lab_panel.busy:
            notify(self, "still generating: Esc stops it", "warning")
            return
        self.lab_panel.replay(event.run)
        self._focus("lab")

    @on(Pane.Damaged)
    def _damaged(self, event: Pane.Damaged) -> None:
        self.table.flag(event.id, event.reason)

    @on(LabPanel.Finished)
    @on(Pane.Changed)
    def _changed(self) -> None:
        self.browser.follow()

    def action_tab(self, name: str) -> None:
        """Show a tab of the details."""
        self.detail.switch(name)

    # the lab

    def action_generate(self) -> None:
        """Continue the prompt without and with the vector."""
        line = self.query_one(ExpressionLine)
        if not line.text.strip() and self.table.current is not None:
            line.put(self._called(self.table.current))  # the current vector
        if self.has_class("-tiny") and not self.has_class("at-lab"):
            self._show_region("lab")
            self.lab_panel.focus_texts()
        self.lab_panel.generate()

    def action_options(self) -> None:
        """Layers, positions, sampling, seed, chat template."""
        self.app.push_screen(OptionsDialog(self.lab_panel.setup), self._take_options)

    def _take_options(self, setup: Setup | None) -> None:
        if setup is not None:
            self.lab_panel.use(setup)

    def action_model(self) -> None:
        """Choose the model that generates."""
        if self.lab_panel.busy:
            notify(self, "still generating: Esc stops it", "warning")
            return
        stored = [model.identity.source for model in self.lab.store.models()]
        self.app.push_screen(ModelDialog(self.lab.source, stored), self._take_model)

    def _take_model(self, source: str | None) -> None:
        if source is not None and (source or None) != self.lab.source:
            self.lab.use(source or None)
            notify(self, f"generating with {source or 'the model of each vector'} from now on")

    def action_columns(self) -> None:
        """Switch between two texts (baseline and c), three and five (from -c to +c)."""
        setup = self.lab_panel.setup
        following = COLUMNS[(COLUMNS.index(setup.columns) + 1) % len(COLUMNS)]
        self.lab_panel.use(replace(setup, columns=following))
        self.notify(f"{following} texts side by side, starting with the next generation", timeout=3)

    def action_copy_command(self) -> None:
        """Copy the `steerlab generate` command for the same texts."""
        command = self.lab_panel.setup.command(self.lab.source)
        self.app.copy_to_clipboard(command)
        self.notify(printable(command), title="copied", timeout=10, markup=False)

    # composing

    def action_save(self) -> None:
        """Ask for a name, then save the expression on the steer line."""
        meaning = self.query_one(ExpressionLine).meaning
        if meaning.vector is None or meaning.text != self.query_one(ExpressionLine).text:
            why = meaning.problem or "the steer line is empty: type an expression"
            notify(self, why, "warning")
            return
        self.app.push_screen(self._save_dialog(meaning), self._save)

    def _save_dialog(self, meaning: Meaning) -> SaveDialog:
        from steerlab.tui.workbench.expression_line import described

        names = self.query_one(ExpressionLine).suggester.names
        name = derived_name(meaning.text)
        about = f"{meaning.text}\n{described(meaning).plain.split('!')[0].strip()}"
        return SaveDialog(name, about, meaning.warnings, names)

    def _save(self, naming: Naming | None) -> None:
        if naming is not None:
            worker = self.store(self.query_one(ExpressionLine).text, naming)
            self.set_timer(LONG, partial(self._say_storing, worker, naming.name))

    def _say_storing(self, worker: Worker[None], name: str) -> None:
        if not worker.is_finished:
            notify(self, f"saving {name} … another process may be writing to the store")

    @work(thread=True, group="save")
    def store(self, text: str, naming: Naming) -> None:
        """Evaluate and save."""
        with reporting_errors(self):
            vector = self.lab.evaluate(text)
            store, name = self.lab.store, naming.name
            stored, new = store.keep(name, vector, tags=naming.tags, note=naming.note)
            verb = "saved as" if new else "already saved as"
            self.post_message(self.Stored(naming.name, f"{verb} {stored}"))

    @on(Stored)
    def _show_stored(self, event: Stored) -> None:
        self.notify(printable(event.text), markup=False)
        self.browser.follow()
        self.browser.locate(event.name)

    def action_rename(self) -> None:
        """Ask for a new name for all versions of the vector."""
        summary = self.table.current
        if summary is not None:

            def rename(new: str | None) -> None:
                if new and new != summary.name:
                    self.change("renamed", f"{summary.model}.{summary.name}", new)

            self.app.push_screen(RenameDialog(summary.name), rename)

    def action_remove(self) -> None:
        """Ask, then remove the marked vectors or the one under the cursor."""
        chosen = self.browser.chosen()
        if not chosen:
            return
        names = some([summary.ref for summary in chosen])
        question = f"Remove {names}? Their files are deleted; this can't be undone."

        def remove(sure: bool | None) -> None:
            if sure:
                youngest_first = sorted(chosen, key=lambda s: s.created, reverse=True)
                self.change("removed", *(summary.qualified for summary in youngest_first))

        self.app.push_screen(Confirm(question, "Remove"), remove)

    @work(thread=True, group="save")
    def change(self, what: str, *refs: str) -> None:
        """Rename (old, new) or remove (refs) in the store."""
        with reporting_errors(self):
            if what == "renamed":
                new = self.lab.store.rename(*refs)
                notify(self, f"renamed {refs[0]} to {new}")
            else:
                for ref in refs:
                    self.lab.store.remove(ref)
                notify(self, f"removed {', '.join(refs)}")
        self.app.call_from_thread(self.browser.follow)

    # other screens

    def action_extract(self) -> None:
        """Extract a vector from contrast prompts."""
        from steerlab.tui.extract.screen import ExtractScreen

        screen = ExtractScreen(self.lab, self._draft)

        def done(ref: str | None) -> None:
            self._draft = screen.draft if ref is None else None
            if ref is not None:
                self._show_stored(self.Stored(ref, f"saved as {ref}"))

        self.app.push_screen(screen, done)

    def action_sweep(self) -> None:
        """Sweep layers and doses: a heatmap of texts."""
        from steerlab.tui.sweep.screen import SweepScreen

        setup = self.lab_panel.setup
        if not setup.expression and self.table.current is not None:
            self.query_one(ExpressionLine).put(self._called(self.table.current))
            setup = self.lab_panel.setup

        def promote(cell: Promoted | None) -> None:
            if cell is not None:
                self.lab_panel.use(_promoted(setup, cell))
                self._focus("lab")

        self.app.push_screen(
            SweepScreen(
                self.lab,
                setup.expression,
                setup.prompt,
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

    @work(thread=True, exclusive=True, group="starter")
    def make_starters(self) -> None:
        """Extract the starter vectors on the embedded model."""
        from steerlab.lab import starter

        with reporting_errors(self):
            notify(self, "making the starter vectors: loading smollm2 …")
            if self.lab.source is None:
                self.lab.source = "smollm2"
            made = starter.ensure(
                self.lab, made=lambda name: self.app.call_from_thread(self.browser.follow)
            )
            notify(self, f"made {count(len(made), 'starter vector')}")

    def action_starter(self) -> None:
        """Make the starter vectors: love, anger, joy and others."""
        self.make_starters()

    # moving between regions

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
        self._focus("table")

    def action_go(self, region: str) -> None:
        """Go to a region."""
        self._focus(region)

    def _focus(self, region: str) -> None:
        """Focus a region; a small terminal shows only the focused one."""
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


def _promoted(setup: Setup, cell: Promoted) -> Setup:
    """The setup with the settings of a sweep's cell."""
    return replace(
        setup,
        expression=cell.expression,
        prompt=cell.prompt,
        layers=cell.layers,
        dose=cell.dose,
        coefficient=cell.coefficient,
        seed=cell.seed,
    )
