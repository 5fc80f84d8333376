"""The extraction screen: from contrast prompts to a stored vector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.message import Message
from textual.widgets import Button, Footer, Input, ProgressBar, Static
from textual.worker import Worker, get_current_worker

from steerlab.errors import Cancelled
from steerlab.files.location import expanded
from steerlab.files.prompts import Prompts, read_pairs
from steerlab.tui.extract.form import Draft, ExtractForm, Order
from steerlab.tui.help import HELP_KEY
from steerlab.tui.model_loading import MODEL, load_model
from steerlab.tui.notices import notify, reporting_errors
from steerlab.tui.work_screen import WorkScreen

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
        Binding("ctrl+g,f5", "extract", "extract", key_display="^g"),
        HELP_KEY,
        Binding("ctrl+l", "load", "load pairs"),
        Binding("escape", "leave", "stop / back"),
    ]

    @dataclass
    class Named(Message):
        """What saving under a name will do."""

        name: str
        text: str

    @dataclass
    class Loaded(Message):
        """The prompts of a file."""

        prompts: Prompts

    @dataclass
    class Read(Message):
        """Progress in prompts."""

        done: int
        total: int

    @dataclass
    class Ended(Message):
        """The worker ended. ref: of the stored vector, if there is one."""

        ref: str | None

    def __init__(self, lab: Lab, draft: Draft | None = None) -> None:
        super().__init__()
        self.lab = lab
        self.draft = draft if draft is not None else Draft()

    def compose(self) -> ComposeResult:
        """The form, then the button and the status, which never scroll away."""
        with VerticalScroll(id="body", can_focus=False):
            yield ExtractForm(self.draft)
        with Horizontal(id="state"):
            yield Button("Extract", variant="primary", compact=True, id="go")
            yield Static(id="status", markup=False)
            yield ProgressBar(show_eta=False, show_percentage=False, id="progress")
        yield Footer()

    def on_mount(self) -> None:
        """Focus the name."""
        self.query_one("#name", Input).focus()

    @property
    def form(self) -> ExtractForm:
        """The form."""
        return self.query_one(ExtractForm)

    # while typing

    @on(ExtractForm.NameTyped)
    def _look_up(self, event: ExtractForm.NameTyped) -> None:
        self.look_up(event.name)

    @work(thread=True, exclusive=True, group="name")
    def look_up(self, name: str) -> None:
        """Look up whether the name is taken for the model that will be used."""
        with reporting_errors(self):
            source = self.lab.source or MODEL
            store = self.lab.store
            models = {m for m, identity, _ in store.models() if source in (m, identity.source)}
            found = [s for s in store.list(name=name) if s.model in models]
            text = f"taken: saves as {name}.v{found[0].version + 1}" if found else "a new name"
            self.post_message(self.Named(name, text))

    @on(Named)
    def _show_naming(self, event: Named) -> None:
        if event.name == self.query_one("#name", Input).value.strip():
            self.form.show_naming(event.text)

    @on(ExtractForm.Counted)
    def _show_count(self, event: ExtractForm.Counted) -> None:
        if self._worker is None:
            source = self.lab.source or MODEL
            self._say(f"{event.text} · on {source}", problem=not event.fits)

    @on(ExtractForm.LoadPairs)
    def _load(self, event: ExtractForm.LoadPairs) -> None:
        self.load_file(expanded(event.path))

    @work(thread=True, exclusive=True, group="file")
    def load_file(self, path: Path) -> None:
        """Read a pairs file."""
        with reporting_errors(self):
            self.post_message(self.Loaded(read_pairs(path)))

    @on(Loaded)
    def _show_loaded(self, event: Loaded) -> None:
        with reporting_errors(self):
            self.form.fill(event.prompts)

    def action_load(self) -> None:
        """Load the pairs file named in the form."""
        self.form.load_pairs()

    # extracting

    @on(ExtractForm.Submitted)
    @on(Button.Pressed, "#go")
    def action_extract(self) -> None:
        """Check the form, then load the model, read the prompts and store the vector."""
        if self._worker is not None:
            return
        with reporting_errors(self):
            order = self.form.order()
            self._show_progress()
            self._worker = self.extract(order)

    @work(thread=True, group="extract", exit_on_error=False)
    def extract(self, order: Order) -> None:
        """Extract in a thread; always ends with Ended."""
        worker, ref = get_current_worker(), None
        try:
            with reporting_errors(self):
                ref = self._extract(worker, order)
        finally:
            self.post_message(self.Ended(ref))

    def _extract(self, worker: Worker[None], order: Order) -> str | None:
        from steerlab.extraction.methods import problems

        try:
            vector = self._read(worker, order)
        except Cancelled:
            notify(self, "stopped: nothing was stored")
            return None
        stored, _ = self.lab.store.keep(order.name, vector, tags=order.tags, note=order.note)
        for problem in problems(stored):
            notify(self, problem, "warning")
        return self._ref_of(order.name, stored)

    def _ref_of(self, name: str, stored: SteeringVector) -> str:
        """The ref, qualified with the model if the store has several."""
        store = self.lab.store
        if len(store.models()) == 1:
            return str(stored.ref)
        versions = store.list(name=name, model=stored.model, every_version=True)
        return next(s.qualified for s in versions if s.ref == stored.ref)

    def _read(self, worker: Worker[None], order: Order) -> SteeringVector:
        def on_progress(done: int, total: int) -> None:
            self.post_message(self.Read(done, total))

        def say(text: str) -> None:
            self.post_message(self.Status(text))

        model = load_model(self.lab, None, say)
        say("reading the prompts …")
        watch: Watch = {"progress": on_progress, "should_stop": lambda: worker.is_cancelled}
        vector = model.reextract(order.recipe, order.layers, **watch)
        if worker.is_cancelled:
            raise Cancelled("cancelled after the last prompt")
        return vector

    @on(Read)
    def _show_read(self, event: Read) -> None:
        self._show_progress(event.done, event.total)
        self._say(f"{event.done} of {event.total} prompts read")

    @on(Ended)
    def _end(self, event: Ended) -> None:
        self._worker = None
        self._hide_progress()
        if event.ref is not None:
            self.leave(event.ref)
        else:
            self.form.recount()

    # leaving

    def leave(self, result: str | None) -> None:
        """Close, with the form kept in `draft`."""
        self.draft = self.form.draft()
        super().leave(result)
