"""The extraction screen: from contrast prompts to a stored vector."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Button, Input, Select, TextArea
from textual.worker import Worker

from steerlab.errors import Cancelled
from steerlab.tui.extract.form import Draft, ExtractForm, Order
from steerlab.tui.footer import KeyFooter
from steerlab.tui.help import HELP_KEY
from steerlab.tui.model_loading import MODEL, load_model
from steerlab.tui.notices import notify, reporting_errors
from steerlab.tui.work_screen import WorkScreen
from steerlab.tui.workers import is_stopping

if TYPE_CHECKING:
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab
    from steerlab.progress import Watch


class ExtractScreen(WorkScreen[str | None]):
    """A form and a worker; closes with the ref of the stored vector, or None.

    draft: the form as it was left, for the next ExtractScreen.
    """

    CSS_PATH = "extract.tcss"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (70, "-wide")]  # noqa: RUF012 - as Textual declares it
    HELP = """\
Extracts a vector from contrast prompts: the model's activations on the left ones minus those on \
the right ones. Line i of both lists is a pair; ⏎ is a line break inside a prompt. ctrl+g \
extracts, ctrl+l loads a file of pairs, Esc stops or goes back. The form is kept."""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+g,f5", "extract", "extract", key_display="^g", tooltip="extract the vector"),
        HELP_KEY,
        Binding("ctrl+l", "load", "load pairs", tooltip="load a file of pairs"),
        Binding("escape", "leave", "stop / back", tooltip="stop, or go back"),
    ]

    def __init__(self, lab: Lab, draft: Draft | None = None) -> None:
        super().__init__()
        self.lab = lab
        self.draft = draft if draft is not None else Draft()

    def compose(self) -> ComposeResult:
        """The form, then the button and the status, which never scroll away."""
        yield self.title_line("extract a vector", "from contrast prompts")
        with VerticalScroll(id="body", can_focus=False):
            yield ExtractForm(self.lab, self.draft)
        button = Button("Extract", variant="primary", compact=True, id="go")
        yield from self.state(button)
        yield KeyFooter()

    def on_mount(self) -> None:
        """Focus the name."""
        self.query_one("#name", Input).focus()
        self._show_count()

    @property
    def form(self) -> ExtractForm:
        """The form."""
        return self.query_one(ExtractForm)

    @on(TextArea.Changed)
    @on(Select.Changed)
    def _show_count(self) -> None:
        if not self.busy:
            text, fits = self.form.count()
            self._say(f"{text} · on {self.lab.source or MODEL}", problem=not fits)

    def action_load(self) -> None:
        """Load the pairs file named in the form."""
        self.form.load_pairs()

    # extracting

    @on(Input.Submitted)
    @on(Button.Pressed, "#go")
    def action_extract(self) -> None:
        """Check the form, then load the model, read the prompts and store the vector."""
        if not self.busy:
            with reporting_errors(self):
                self.begin(partial(self._extract, self.form.order()))

    def _extract(self, order: Order, worker: Worker[None]) -> str | None:
        from steerlab.extraction.methods import problems
        from steerlab.extraction.runner import LARGE
        from steerlab.registry.keep import keep

        try:
            vector = self._read(worker, order)
        except Cancelled:
            large = len(order.recipe.prompts) > LARGE
            more = "; the same extraction goes on where it was" if large else ""
            notify(self, f"stopped: nothing was stored{more}")
            return None
        stored, _ = keep(self.lab.store, order.name, vector, tags=order.tags, note=order.note)
        for problem in problems(stored):
            notify(self, problem, "warning")
        store, ref = self.lab.store, str(stored.ref)
        return store.qualified(ref, stored.model) if len(store.models()) > 1 else ref

    def _read(self, worker: Worker[None], order: Order) -> SteeringVector:
        def on_progress(done: int, total: int) -> None:
            self.post_progress(done, total, f"{done} of {total} prompts read")

        model = load_model(self.lab, None, self.post_status)
        self.post_status("reading the prompts …")
        watch: Watch = {"progress": on_progress, "should_stop": lambda: is_stopping(worker)}
        vector = model.reextract(order.recipe, order.layers, **watch)
        if is_stopping(worker):
            raise Cancelled("cancelled after the last prompt")
        return vector

    def ended(self, result: str | None, *, stopped: bool) -> None:
        """Close with the ref of the vector, if there is one."""
        if result is not None:
            self.leave(result)
        else:
            self._show_count()

    # leaving

    def leave(self, result: str | None) -> None:
        """Close, with the form kept in `draft`."""
        self.draft = self.form.draft()
        super().leave(result)
