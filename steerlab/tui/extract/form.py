"""The form of an extraction: name, two lists of prompts, method, layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text
from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Button, Checkbox, Input, Select, Static, TextArea

from steerlab.core.display import count, printable
from steerlab.core.notation import layers_of
from steerlab.core.prompts import check_prompts, check_text, read_of
from steerlab.core.recipe import Contrast, check_name
from steerlab.core.record import check_labels
from steerlab.errors import BadPrompts, SteerlabError
from steerlab.extraction.methods import METHODS, check_method
from steerlab.files.location import expanded
from steerlab.files.prompts import Prompts, read_pairs
from steerlab.tui.fields import field, number_of
from steerlab.tui.model_loading import MODEL
from steerlab.tui.notices import reporting_errors

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab

BREAK = "⏎"
"""Shown for a line break inside a prompt, because each line of a list is one prompt."""

ABOUT = {
    "mean_difference": "mean of the pairs' differences",
    "actadd": "one pair; added at the first tokens",
    "pca": "first principal component of the differences",
    "probe": "weights of a classifier of + against −",
    "mean_centred": "mean of + minus mean of a baseline",
    "random": "random control with the pairs' norm",
}
_PICTURES = {code: 0x2400 + code for code in range(32)} | {127: 0x2421}
_HINTS = {
    "name": "such as calm",
    "file": "pairs as .jsonl, .json, .csv or .toml",
    "layers": "the middle layer",
    "read": "last, mean or an index",
    "seed": "a whole number",
    "tags": "separated by spaces",
    "note": "optional",
}


@dataclass(frozen=True)
class Draft:
    """Every field as typed."""

    name: str = ""
    positive: str = ""
    negative: str = ""
    file: str = ""
    method: str = METHODS[0]
    seed: str = ""
    layers: str = ""
    read: str = "last"
    chat: bool = False
    tags: str = ""
    note: str = ""


@dataclass(frozen=True)
class Order:
    """What to extract and the name to save it under. layers: None for the middle layer."""

    name: str
    recipe: Contrast
    layers: Any
    tags: tuple[str, ...]
    note: str


class PromptList(TextArea):
    """Numbered prompts, one per line; pair i is line i of both lists."""

    @dataclass
    class Scrolled(Message):
        """The focused list was scrolled to this line."""

        side: PromptList
        line: float

    def __init__(self, text: str, placeholder: str, **kwargs: Any) -> None:
        super().__init__(
            text,
            soft_wrap=False,
            show_line_numbers=True,
            highlight_cursor_line=False,
            placeholder=placeholder,
            **kwargs,
        )

    @property
    def prompts(self) -> tuple[str, ...]:
        """The lines as prompts, spaces included; empty lines at the end are dropped."""
        return prompts_of(self.text)

    def get_line(self, line_index: int) -> Text:
        """The line with control characters as pictures: none may reach the terminal."""
        return Text(self.document.get_line(line_index).translate(_PICTURES), end="", no_wrap=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Post the position, so that the other list can follow."""
        super().watch_scroll_y(old_value, new_value)
        if self.has_focus:
            self.post_message(self.Scrolled(self, new_value))


class ExtractForm(Vertical):
    """All fields; `order()` reads and checks them."""

    @dataclass
    class Submitted(Message):
        """Enter was pressed in a field: extract."""

    @dataclass
    class Counted(Message):
        """How many prompts there are. fits: the method can use them."""

        text: str
        fits: bool

    @dataclass
    class _Named(Message):
        """What saving under a name will do."""

        name: str
        text: str

    @dataclass
    class _Loaded(Message):
        """The prompts of a file."""

        prompts: Prompts

    def __init__(self, lab: Lab, draft: Draft) -> None:
        super().__init__()
        self.lab, self.first = lab, draft

    def compose(self) -> ComposeResult:
        """Name, the two lists, then everything else in four rows."""
        draft = self.first
        options = [(f"{name}: {about}", name) for name, about in ABOUT.items()]
        method = Select(options, value=draft.method, allow_blank=False, compact=True, id="method")
        with Horizontal(classes="row"):
            yield self._field("name")
            yield Static(id="naming", classes="field", markup=False)
        with Horizontal(id="lists"):
            yield PromptList(draft.positive, "I feel calm\none prompt per line", id="positive")
            yield PromptList(draft.negative, "I feel tense\nits opposite here", id="negative")
        with Horizontal(classes="row"):
            yield self._field("file", Button("Load", id="load", compact=True))
        with Horizontal(classes="row"):
            yield field("method", method, classes="field wide")
            yield self._field("seed")
        with Horizontal(classes="row"):
            yield self._field("layers")
            yield self._field("read")
            yield Checkbox("chat template", draft.chat, compact=True, id="chat")
        with Horizontal(classes="row"):
            yield self._field("tags")
            yield self._field("note")

    def _field(self, name: str, *more: Button) -> Horizontal:
        value, hint = getattr(self.first, name), _HINTS[name]
        box = Input(value, placeholder=hint, id=name, compact=True)
        return field(name, box, *more, id=f"{name}-field")

    def on_mount(self) -> None:
        """Set headings and counts for the draft."""
        self.query_one("#positive").border_title = "+ positive"
        self._follow_method()

    # what the fields say

    def draft(self) -> Draft:
        """Every field as typed."""
        values: dict[str, Any] = {
            box.id: box.value
            for box in self.query(Input)
            if box.id in {field.name for field in fields(Draft)}
        }
        for side in self.query(PromptList):
            values[str(side.id)] = side.text
        return Draft(**values, method=self.method, chat=self.query_one("#chat", Checkbox).value)

    @property
    def method(self) -> str:
        """The selected method."""
        return str(self.query_one("#method", Select).value)

    def order(self) -> Order:
        """The extraction to run; raises SteerlabError after focusing the field to correct."""
        draft = self.draft()
        above, below = prompts_of(draft.positive), prompts_of(draft.negative)
        centred = draft.method == "mean_centred"
        with self._mended_at("name"):
            check_name(draft.name.strip())
        with self._mended_at("positive"):
            check_prompts(above, None if centred or not below else below)
        with self._mended_at("seed"):
            typed = draft.method == "random" and draft.seed.strip()
            seed = int(number_of(typed, "the seed", int)) if typed else None
        recipe = Contrast(
            above,
            () if centred else below,
            draft.method,
            read_of(draft.read.strip() or "last"),
            draft.chat,
            seed,
            below if centred else (),
        )
        with (
            self._mended_at("positive" if below else "negative", BadPrompts),
            self._mended_at("read"),
        ):
            check_method(replace(recipe, seed=0))
        with self._mended_at("seed"):
            check_method(recipe)
        with self._mended_at("layers"):
            layers = layers_of(draft.layers) if draft.layers.strip() else None
        tags, note = tuple(draft.tags.split()), draft.note.strip()
        with self._mended_at("note"):
            check_labels(tags, note)
        return Order(draft.name.strip(), recipe, layers, tags, note)

    @contextmanager
    def _mended_at(self, name: str, errors: type[SteerlabError] = SteerlabError) -> Iterator[None]:
        try:
            yield
        except errors:
            self.query_one(f"#{name}").focus()
            raise

    # live

    def _show_naming(self, text: str, *, problem: bool = False) -> None:
        """Show beside the name what saving will do, or why the name is invalid."""
        line = self.query_one("#naming", Static)
        line.update(printable(text))
        line.set_class(problem, "problem")

    @on(Input.Changed, "#name")
    def _check_name(self, event: Input.Changed) -> None:
        name = event.value.strip()
        self._show_naming("")
        try:
            if name:
                self._look_up(check_name(name))
        except SteerlabError as error:
            self._show_naming(str(error), problem=True)

    @work(thread=True, exclusive=True, group="name")
    def _look_up(self, name: str) -> None:
        """Look up whether the name is taken for the model that will be used."""
        with reporting_errors(self):
            source, store = self.lab.source or MODEL, self.lab.store
            models = {m for m, identity, _ in store.models() if source in (m, identity.source)}
            found = [s for s in store.list(name=name) if s.model in models]
            text = f"taken: saves as {name}.v{found[0].version + 1}" if found else "a new name"
            self.post_message(self._Named(name, text))

    @on(_Named)
    def _show_named(self, event: _Named) -> None:
        if event.name == self.query_one("#name", Input).value.strip():
            self._show_naming(event.text)

    @on(TextArea.Changed)
    def recount(self) -> None:
        """Count the prompts and post Counted."""
        above, below = (len(side.prompts) for side in self.query(PromptList))
        self.post_message(self.Counted(*counted(above, below, self.method)))

    @on(Select.Changed, "#method")
    def _follow_method(self) -> None:
        title = "· baseline" if self.method == "mean_centred" else "− negative"
        self.query_one("#negative").border_title = title
        self.query_one("#seed-field").display = self.method == "random"
        self.recount()

    @on(PromptList.Scrolled)
    def _scroll_together(self, event: PromptList.Scrolled) -> None:
        event.stop()
        for side in self.query(PromptList):
            if side is not event.side:
                side.scroll_to(y=event.line, animate=False)

    # doing

    @on(Input.Submitted)
    def _submit(self, event: Input.Submitted) -> None:
        event.stop()
        if event.input.id == "file":
            self.load_pairs()
        else:
            self.post_message(self.Submitted())

    @on(Button.Pressed, "#load")
    def load_pairs(self) -> None:
        """Load the named pairs file; without a name, focus the field."""
        box = self.query_one("#file", Input)
        if path := box.value.strip():
            self._load_file(expanded(path))
        else:
            box.focus()

    @work(thread=True, exclusive=True, group="file")
    def _load_file(self, path: Path) -> None:
        with reporting_errors(self):
            self.post_message(self._Loaded(read_pairs(path)))

    @on(_Loaded)
    def _fill(self, event: _Loaded) -> None:
        """Fill the lists, unless a prompt is one that no line can hold."""
        with reporting_errors(self):
            prompts, first = event.prompts, self.query_one("#positive", PromptList)
            above, below = lines_of(prompts.positive), lines_of(prompts.negative)
            first.load_text(above)
            self.query_one("#negative", PromptList).load_text(below)
            first.focus()


def prompts_of(text: str) -> tuple[str, ...]:
    """The prompts of a list: its lines without empty ones at the end."""
    lines = text.split("\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return tuple(line.replace(BREAK, "\n") for line in lines)


def lines_of(prompts: Sequence[str]) -> str:
    """Inverse of `prompts_of`; raises BadPrompts for a prompt that no line can hold."""
    for number, prompt in enumerate(prompts, 1):
        check_text(prompt, f"prompt {number}")
        if BREAK in prompt or len(prompt.replace("\n", BREAK).splitlines()) > 1:
            raise BadPrompts(
                f"prompt {number} contains a character that ends a line here: "
                "use `steerlab extract --pairs` for this file"
            )
    return "\n".join(prompt.replace("\n", BREAK) for prompt in prompts)


def counted(above: int, below: int, method: str) -> tuple[str, bool]:
    """A line on how many prompts there are, and whether the method can use them."""
    if not (above or below):
        return "no prompts yet: type one per line, or load a file", True
    if method == "mean_centred":
        return f"{count(above, 'prompt')}, centred on {below}", bool(above and below)
    if above != below:
        return f"{above} positive, {below} negative: pairs need the same number", False
    if method == "actadd" and above > 1:
        return f"{above} pairs: actadd takes one", False
    return count(above, "pair"), True
