"""The app: a table of vectors, what is known of one, and a strip to steer with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual import on, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.message import Message
from textual.widgets import DataTable, Footer, Input, Label, Static
from textual.worker import Worker, get_current_worker

from steerlab.errors import BadExpression, SteerlabError
from steerlab.notation import derived_name, printable, span
from steerlab.recipe import Contrast

if TYPE_CHECKING:
    from steerlab.lab import Lab
    from steerlab.record import Record
    from steerlab.registry import Summary
    from steerlab.vector import SteeringVector

PROMPT = "I think you are a"
DOSE = "0.2"
COLUMNS = ("name", "layers", "norm", "made")


class SteerlabApp(App[None]):
    """Browse, compose, steer. The model is loaded when a text is first asked for."""

    TITLE = "steerlab"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+g,f5", "generate", "generate", priority=True),
        Binding("ctrl+s", "save", "save", priority=True),
        Binding("slash", "focus_filter", "filter"),
        Binding("escape", "cancel", "stop", priority=True),
        Binding("ctrl+q", "quit", "quit", priority=True),
    ]

    @dataclass
    class Listed(Message):
        """The store was read."""

        vectors: Sequence[Summary]

    @dataclass
    class Described(Message):
        """A vector's record was read."""

        record: Record

    @dataclass
    class Checked(Message):
        """What the expression line means: a vector, or why it is none yet."""

        vector: SteeringVector | None
        problem: str

    @dataclass
    class Wrote(Message):
        """A piece of text: column 0 is the baseline, column 1 the steered one."""

        column: int
        text: str

    @dataclass
    class Said(Message):
        """Something for the status line."""

        text: str

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        self.vectors: Sequence[Summary] = ()
        self.texts = ["", ""]

    def compose(self) -> ComposeResult:
        """Vectors left, what is known of one right, the lab below."""
        with Horizontal(id="upper"):
            with Vertical(id="browse"):
                yield Input(placeholder="/ filter by name, tag, prompt or note", id="filter")
                yield DataTable(id="vectors", cursor_type="row", zebra_stripes=True)
            with VerticalScroll(id="about", can_focus=False):
                yield Static(id="record", markup=False)
        with Vertical(id="lab"):
            with Horizontal(classes="line"):
                yield Label("steer")
                yield Input(placeholder="love - 0.5*anger  (Enter on a vector)", id="expression")
            yield Static(id="meaning", markup=False)
            with Horizontal(classes="line"):
                yield Label("prompt")
                yield Input(PROMPT, id="prompt")
                yield Label("dose", id="dose-label")
                yield Input(DOSE, id="dose", type="number")
            with Horizontal(id="texts"):
                for name in ("baseline", "steered"):
                    with VerticalScroll(id=f"{name}-box") as box:
                        box.border_title = name
                        yield Static(id=name, markup=False)
        yield Static(
            "Enter puts a vector on the line, ctrl+g writes with it", id="status", markup=False
        )
        yield Footer()

    def on_mount(self) -> None:
        """Paint first; read the store afterwards, in a thread."""
        table = self.query_one("#vectors", DataTable)
        for column in COLUMNS:
            table.add_column(column, key=column)
        table.focus()
        self.read_store("")

    # the store

    @work(thread=True, exclusive=True, group="store")
    def read_store(self, text: str) -> None:
        """List the vectors that fit the filter."""
        try:
            found = self.lab.store.list(text=text or None, sort="name")
        except SteerlabError as error:
            self.post_message(self.Said(str(error)))
            return
        self.post_message(self.Listed(found))

    @on(Listed)
    def show_list(self, event: Listed) -> None:
        """Fill the table; names are text, never markup."""
        self.vectors = event.vectors
        table = self.query_one("#vectors", DataTable)
        table.clear()
        for vector in event.vectors:
            cells = (vector.name, span(vector.layers), f"{vector.norm:.3g}", vector.recipe)
            table.add_row(*(Text(printable(cell)) for cell in cells), key=vector.qualified)
        if not event.vectors and not self.query_one("#filter", Input).value:
            self.query_one("#record", Static).update(
                "No vectors here yet. Leave with ctrl+q and make one:\n\n"
                'steerlab extract calm --positive "I feel calm" --negative "I feel tense"\n\n'
                "or see it work: steerlab demo"
            )

    @on(Input.Changed, "#filter")
    def filter_list(self, event: Input.Changed) -> None:
        """Filter as you type."""
        self.read_store(event.value)

    @on(DataTable.RowHighlighted)
    def describe(self, event: DataTable.RowHighlighted) -> None:
        """Show what is known of the vector under the cursor."""
        if event.row_key is not None and event.row_key.value is not None:
            self.read_record(event.row_key.value)

    @work(thread=True, exclusive=True, group="record")
    def read_record(self, ref: str) -> None:
        """Read one record."""
        try:
            self.post_message(self.Described(self.lab.store.record(ref)))
        except SteerlabError as error:
            self.post_message(self.Said(str(error)))

    @on(Described)
    def show_record(self, event: Described) -> None:
        """Recipe, norms, doses, prompts."""
        self.query_one("#record", Static).update(describe_record(event.record))

    @on(DataTable.RowSelected)
    def use(self, event: DataTable.RowSelected) -> None:
        """Enter on a vector: its name goes behind an open operator, or takes the line's place."""
        name = str(event.row_key.value).split(".")[-2]
        line = self.query_one("#expression", Input)
        before = line.value.rstrip()
        line.value = f"{before} {name}" if before.endswith(("+", "-", "*", "(", ",")) else name

    # the expression line

    @on(Input.Changed, "#expression")
    def check(self, event: Input.Changed) -> None:
        """Say what the line means while it is typed."""
        self.evaluate(event.value)

    @work(thread=True, exclusive=True, group="check")
    def evaluate(self, text: str) -> None:
        """Compute the expression, or say why it can't be."""
        if not text.strip():
            self.post_message(self.Checked(None, ""))
            return
        try:
            self.post_message(self.Checked(self.lab.evaluate(text), ""))
        except SteerlabError as error:
            unfinished = isinstance(error, BadExpression) and "stops too early" in str(error)
            self.post_message(self.Checked(None, "…" if unfinished else str(error)))

    @on(Checked)
    def show_meaning(self, event: Checked) -> None:
        """Norm and dose of what is typed, or the problem with it."""
        meaning = self.query_one("#meaning", Static)
        meaning.set_class(event.vector is None, "problem")
        if event.vector is None:
            meaning.update(printable(event.problem))
            return
        vector = event.vector
        dose = vector.dose(1.0)
        per_unit = f"  dose {dose:.2f} per unit of c" if dose is not None else ""
        meaning.update(f"layers {span(vector.layers)}  norm {vector.norm:.4g}{per_unit}")

    def action_save(self) -> None:
        """Store what the expression line says, under a name derived from it."""
        self.save(self.query_one("#expression", Input).value)

    @work(thread=True, exclusive=True, group="save")
    def save(self, text: str) -> None:
        """Evaluate and store."""
        try:
            stored, new = self.lab.keep(derived_name(text), self.lab.evaluate(text))
        except SteerlabError as error:
            self.post_message(self.Said(str(error)))
            return
        self.post_message(self.Said(f"{'stored' if new else 'already stored'} as {stored}"))
        self.call_from_thread(self.read_store, self.query_one("#filter", Input).value)

    # writing

    def action_generate(self) -> None:
        """Write the prompt's continuation twice: baseline and steered."""
        if any(w.group == "write" and w.is_running for w in self.workers):
            return
        self.texts = ["", ""]
        for name in ("baseline", "steered"):
            self.query_one(f"#{name}", Static).update("")
        self.write(
            self.query_one("#expression", Input).value,
            self.query_one("#prompt", Input).value,
            self.query_one("#dose", Input).value,
        )

    @work(thread=True, group="write")
    def write(self, expression: str, prompt: str, dose: str) -> None:
        """Load the model if need be, then generate both rows as one batch."""
        worker = get_current_worker()
        try:
            self._write(worker, expression, prompt, float(dose or 0))
        except ValueError:
            self.post_message(self.Said(f"the dose {dose!r} is not a number such as 0.2"))
        except SteerlabError as error:
            self.post_message(self.Said(str(error)))
        except Exception as error:  # a worker ends in a message, never in a dead screen
            self.post_message(self.Said(f"internal error, {type(error).__name__}: {error}"))

    def _write(self, worker: Worker[None], expression: str, prompt: str, dose: float) -> None:
        from steerlab.lab import Setting

        vector = self.lab.evaluate(expression)
        coefficient = vector.coefficient(dose)
        if not self.lab.is_loaded:
            self.post_message(self.Said(f"loading {self.lab.source or vector.model.source} …"))
        self.lab.load(vector, self._loading)

        def on_text(column: int, text: str) -> None:
            self.post_message(self.Wrote(column, text))

        self.post_message(self.Said("writing …"))
        cells = self.lab.compare(
            [prompt],
            [Setting(), Setting(vector, coefficient)],
            on_text=on_text,
            should_stop=lambda: worker.is_cancelled,
        )
        stopped = "stopped" if cells[0].completion.finish == "cancelled" else "done"
        self.post_message(self.Said(f"{stopped}: c {coefficient:+.3g}, dose {dose:+.2f}"))

    def _loading(self, what: str, done: int, total: int) -> None:
        percent = f" {100 * done // total}%" if total > 1 else ""
        self.post_message(self.Said(f"{what} the embedded model{percent} …"))

    @on(Wrote)
    def show_text(self, event: Wrote) -> None:
        """Let a column grow."""
        self.texts[event.column] += event.text
        name = ("baseline", "steered")[event.column]
        prompt = Text(printable(self.query_one("#prompt", Input).value, newlines=True), "dim")
        text = prompt.append(printable(self.texts[event.column], newlines=True), "not dim")
        self.query_one(f"#{name}", Static).update(text)
        self.query_one(f"#{name}-box", VerticalScroll).scroll_end(animate=False)

    @on(Said)
    def show_status(self, event: Said) -> None:
        """One line of news."""
        self.query_one("#status", Static).update(printable(event.text))

    def action_cancel(self) -> None:
        """Stop writing and keep what came; otherwise go back to the table."""
        running = [w for w in self.workers if w.group == "write" and w.is_running]
        for worker in running:
            worker.cancel()
        if not running:
            self.query_one("#vectors", DataTable).focus()

    def action_focus_filter(self) -> None:
        """Go to the filter."""
        self.query_one("#filter", Input).focus()


def describe_record(record: Record) -> Text:
    """A record in a few lines, as text."""
    text = Text(record.ref, style="bold")
    text.append(f"  {printable(record.model.source)}\n", "not bold")
    text.append(f"{printable(str(record.recipe))}\n", "not bold")
    doses = record.doses()
    for facts in record.layers:
        dose = doses[facts.layer]
        shown = f"  dose {dose:.2f} per unit" if dose is not None else ""
        text.append(f"layer {facts.layer}  norm {facts.norm:.4g}{shown}\n", "not bold")
    if record.tags or record.note:
        text.append(
            f"{printable(' '.join(record.tags))}  {printable(record.note)}\n", "not bold dim"
        )
    if isinstance(record.recipe, Contrast):
        for index, positive in enumerate(record.recipe.positive):
            text.append("\n+ ", "not bold green").append(printable(positive), "not bold")
            if record.recipe.negative:
                negative = printable(record.recipe.negative[index])
                text.append("\n− ", "not bold red").append(negative, "not bold")
    return text
