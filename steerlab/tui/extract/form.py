"""The form of an extraction: name, two lists of prompts, method, layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Button, Input, Select, Static

from steerlab.core.display import count, printable
from steerlab.core.notation import layers_of
from steerlab.core.prompts import check_prompts, check_texts, read_of
from steerlab.core.recipe import Contrast, check_name
from steerlab.core.record import check_labels
from steerlab.errors import BadPrompts, SteerlabError
from steerlab.extraction.methods import METHODS, check_method
from steerlab.files.contrast import ContrastSet, PairsOptions, columns_of, read_pairs
from steerlab.files.location import expanded
from steerlab.tui.extract.prompt_list import PromptList, lines_of, prompts_of
from steerlab.tui.fields import Tick, field, number_of
from steerlab.tui.model_loading import MODEL
from steerlab.tui.notices import reporting_errors
from steerlab.tui.workers import answer

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab

ABOUT = {
    "mean_difference": "mean of the pairs' differences",
    "actadd": "one pair; added at the first tokens",
    "pca": "first principal component of the differences",
    "probe": "weights of a classifier of + against −",
    "mean_centred": "mean of + minus mean of a baseline",
    "random": "random control with the pairs' norm",
    "difference_of_means": "mean of + minus mean of −, unpaired",
}
FEW = 1000
"""Up to so many prompts of a file can be edited here."""

_HINTS = {
    "name": "such as calm",
    "file": "a contrast file",
    "columns": "found by their names",
    "layers": "the middle layer",
    "read": "last, mean, user_last, assistant_mean, answer_letter, an index",
    "seed": "a whole number",
    "tags": "separated by spaces",
    "note": "optional",
}


@dataclass(frozen=True)
class Draft:
    """Every field as typed. loaded: prompts of a file that the lists show and can't edit."""

    name: str = ""
    positive: str = ""
    negative: str = ""
    file: str = ""
    columns: str = ""
    method: str = METHODS[0]
    seed: str = ""
    layers: str = ""
    read: str = "last"
    chat: bool = False
    tags: str = ""
    note: str = ""
    loaded: ContrastSet | None = None


@dataclass(frozen=True)
class Order:
    """What to extract and the name to save it under. layers: None for the middle layer."""

    name: str
    recipe: Contrast
    layers: Any
    tags: tuple[str, ...]
    note: str


class ExtractForm(Vertical):
    """All fields; `order()` reads and checks them."""

    def __init__(self, lab: Lab, draft: Draft) -> None:
        super().__init__()
        self.lab, self.first = lab, draft
        self.loaded, self._file = draft.loaded, (draft.file, draft.columns)

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
            yield self._field("columns")
        yield Static(id="understood", markup=False)
        with Horizontal(classes="row"):
            yield field("method", method, classes="field wide")
            yield self._field("seed")
        with Horizontal(classes="row"):
            yield self._field("layers")
            yield self._field("read")
            yield Tick("chat template", draft.chat, id="chat")
        with Horizontal(classes="row"):
            yield self._field("tags")
            yield self._field("note")

    def _field(self, name: str, *more: Button) -> Horizontal:
        value, hint = getattr(self.first, name), _HINTS[name]
        box = Input(value, placeholder=hint, id=name, compact=True)
        return field(name, box, *more, id=f"{name}-field")

    def on_mount(self) -> None:
        """Set headings for the draft."""
        self.query_one("#positive").border_title = "+ positive"
        self._show_loaded(self.loaded.said if self.loaded else "")
        self._follow_method()

    # what the fields say

    def draft(self) -> Draft:
        """Every field as typed."""
        values: dict[str, Any] = {
            box.id: box.value
            for box in self.query(Input)
            if box.id in {field.name for field in fields(Draft)}
        }
        values["loaded"] = self.loaded
        for side in self.query(PromptList):
            values[str(side.id)] = side.text
        return Draft(**values, method=self.method, chat=self.query_one("#chat", Tick).value)

    @property
    def method(self) -> str:
        """The selected method."""
        return str(self.query_one("#method", Select).value)

    def order(self) -> Order:
        """The extraction to run; raises SteerlabError after focusing the field to correct."""
        draft = self.draft()
        loaded = draft.loaded or ContrastSet(prompts_of(draft.positive), prompts_of(draft.negative))
        above, below = loaded.positive, loaded.negative
        centred = draft.method == "mean_centred"
        with self._mended_at("name"):
            check_name(draft.name.strip())
        if not centred:
            with self._mended_at("method"):
                loaded.check_method(draft.method)
        with self._mended_at("positive"):
            if draft.method == "difference_of_means":
                check_texts(above, "positive")
                check_texts(below, "negative", least=0)
            else:
                check_prompts(above, None if centred or not below else below)
        with self._mended_at("seed"):
            typed = draft.method == "random" and draft.seed.strip()
            seed = int(number_of(typed, "the seed", int)) if typed else None
        recipe = Contrast.of(
            above,
            () if centred else below,
            below if centred else (),
            method=draft.method,
            read=read_of(draft.read.strip() or "last"),
            chat=draft.chat,
            seed=seed,
        )
        recipe = replace(recipe, prompt_set=None if centred else loaded.named)
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
            answer(self, self._show_named, name, text)

    def _show_named(self, name: str, text: str) -> None:
        if name == self.query_one("#name", Input).value.strip():
            self._show_naming(text)

    def count(self) -> tuple[str, bool]:
        """A line on how many prompts there are, and whether the method can use them."""
        above, below = (len(side.prompts) for side in self.query(PromptList))
        if self.loaded is not None:
            above, below = len(self.loaded.positive), len(self.loaded.negative)
        return counted(above, below, self.method)

    @on(Select.Changed, "#method")
    def _follow_method(self) -> None:
        title = "· baseline" if self.method == "mean_centred" else "− negative"
        self.query_one("#negative").border_title = title
        self.query_one("#seed-field").display = self.method == "random"

    @on(PromptList.Scrolled)
    def _scroll_together(self, event: PromptList.Scrolled) -> None:
        event.stop()
        for side in self.query(PromptList):
            if side is not event.side:
                side.scroll_to(y=event.line, animate=False)

    # doing

    @on(Input.Submitted, "#file,#columns")
    def _name_file(self, event: Input.Submitted) -> None:
        event.stop()  # elsewhere Enter extracts
        self.load_pairs()

    @on(Button.Pressed, "#load")
    def load_pairs(self) -> None:
        """Load the named pairs file; without a name, focus the field."""
        box = self.query_one("#file", Input)
        if path := box.value.strip():
            with reporting_errors(self):
                self._load_file(
                    expanded(path),
                    PairsOptions(
                        columns=columns_of(self.query_one("#columns", Input).value),
                        unpaired=self.method == "difference_of_means",
                    ),
                )
        else:
            box.focus()

    @work(thread=True, exclusive=True, group="file")
    def _load_file(self, path: Path, options: PairsOptions) -> None:
        with reporting_errors(self):
            answer(self, self._fill, read_pairs(path, options))

    def _fill(self, prompts: ContrastSet) -> None:
        """Fill the lists; they can be edited if each line can hold a prompt, and there are few."""
        with reporting_errors(self):
            sides = (prompts.positive, prompts.negative)
            fixed = prompts.has_turns or not prompts.paired or len(prompts.positive) > FEW
            texts = [lines_of(list(map(str, side[:FEW])), fixed=fixed) for side in sides]
            self.loaded = prompts if fixed else None
            for side, text in zip(self.query(PromptList), texts, strict=True):
                side.load_text(text)
            if not prompts.paired:
                self.query_one("#method", Select).value = "difference_of_means"
            if prompts.has_turns:
                self.query_one("#chat", Tick).value = True
            self._show_loaded(prompts.said)
            self.query_one("#positive").focus()

    def _show_loaded(self, said: str) -> None:
        """Say what was understood of the file; what it holds is edited there if not here."""
        line = self.query_one("#understood", Static)
        line.update(said)
        line.display = bool(said)
        for side in self.query(PromptList):
            side.read_only = self.loaded is not None

    @on(Input.Changed, "#file,#columns")
    def _forget_file(self) -> None:
        """Another file or column was typed: what was loaded is no more what the form means."""
        typed = (self.query_one("#file", Input).value, self.query_one("#columns", Input).value)
        if typed == self._file:
            return
        self._file = typed
        if self.loaded is not None:
            self.loaded = None
            for side in self.query(PromptList):
                side.load_text("")
        self._show_loaded("")


def counted(above: int, below: int, method: str) -> tuple[str, bool]:
    """A line on how many prompts there are, and whether the method can use them."""
    if not (above or below):
        return "no prompts yet: type one per line, or load a file", True
    if method == "difference_of_means":
        return f"{above} against {below} prompts", bool(above and below)
    if method == "mean_centred":
        return f"{count(above, 'prompt')}, centred on {below}", bool(above and below)
    if above != below:
        return f"{above} positive, {below} negative: pairs need the same number", False
    if method == "actadd" and above > 1:
        return f"{above} pairs: actadd takes one", False
    return count(above, "pair"), True
