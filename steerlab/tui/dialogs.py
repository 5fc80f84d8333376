"""Dialogs over a screen; each closes with a value, or None if it is cancelled."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, Select, Static

from steerlab.core.display import printable
from steerlab.core.recipe import check_name
from steerlab.core.run import POSITIONS
from steerlab.errors import SteerlabError
from steerlab.tui.fields import Tick, field, number_of
from steerlab.tui.setup import Setup

Answer = TypeVar("Answer")


class Dialog(ModalScreen["Answer | None"], Generic[Answer]):
    """A box with fields; Enter accepts, Esc cancels."""

    DEFAULT_CSS = """
    Dialog { align: center middle; }
    Dialog > VerticalScroll { width: 76; max-width: 100%; height: auto; max-height: 100%; }
    Dialog > VerticalScroll { border: round $accent; background: $surface; padding: 0 1; }
    Dialog .field { height: 1; margin: 0 0 0 0; }
    Dialog .field Label { width: 8; color: $text-muted; }
    Dialog .field Input, Dialog .field Select { width: 1fr; }
    Dialog .about { color: $text-muted; }
    Dialog .warning { color: $text-warning; }
    Dialog .problem { color: $text-error; }
    Dialog .buttons { height: 1; align-horizontal: right; margin: 1 0 0 0; }
    Dialog .buttons Button { margin: 0 0 0 2; }
    Dialog.-short .buttons { margin: 0; }
    """
    VERTICAL_BREAKPOINTS = [(0, "-short"), (20, "-tall")]  # noqa: RUF012 - as Textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "cancel"),
        Binding("enter", "accept", "accept", show=False),
    ]
    HEADING = ""
    VERB = "OK"

    def compose(self) -> ComposeResult:
        """Heading, fields, buttons."""
        with VerticalScroll(can_focus=False) as box:
            box.border_title = self.HEADING
            yield from self.fields()
            yield Static("", classes="problem", markup=False)
            with Horizontal(classes="buttons"):
                yield Button(self.VERB, variant="primary", compact=True, id="accept")
                yield Button("Cancel", compact=True, id="cancel")

    def fields(self) -> ComposeResult:
        """The widgets between heading and buttons."""
        yield from ()

    def answer(self) -> Answer:
        """The value of the fields; raises SteerlabError or ValueError for invalid ones."""
        raise NotImplementedError

    def value(self, name: str) -> str:
        """The text of a field."""
        return self.query_one(f"#{name}", Input).value.strip()

    @on(Input.Submitted)
    @on(Button.Pressed, "#accept")
    def action_accept(self) -> None:
        """Close with the answer, or show why it is invalid."""
        try:
            answer = self.answer()
        except (SteerlabError, ValueError) as error:
            self.query_one(".problem", Static).update(printable(str(error)))
            return
        self.dismiss(answer)

    @on(Button.Pressed, "#cancel")
    def cancel(self) -> None:
        """Close without an answer."""
        self.dismiss(None)


@dataclass(frozen=True)
class Naming:
    """Name, tags and note of a vector to save."""

    name: str
    tags: tuple[str, ...] = ()
    note: str = ""


class SaveDialog(Dialog[Naming]):
    """Name, tags and note of a composition; warnings are shown before it is saved."""

    HEADING = "save the vector"
    VERB = "Save"

    def __init__(
        self, name: str, about: str, warnings: Sequence[str], taken: Collection[str]
    ) -> None:
        super().__init__()
        self.suggested, self.about, self.warnings, self.taken = name, about, warnings, taken

    def fields(self) -> ComposeResult:
        """Summary, warnings, name, tags and note."""
        yield Static(printable(self.about, newlines=True), classes="about", markup=False)
        for warning in self.warnings:
            yield Static(f"! {printable(warning)}", classes="warning", markup=False)
        yield field("name", Input(self.suggested, id="name", compact=True))
        yield field("tags", Input(placeholder="separated by spaces", id="tags", compact=True))
        yield field("note", Input(id="note", compact=True))
        yield Static(id="taken", classes="about")

    @on(Input.Changed, "#name")
    def say_if_taken(self, event: Input.Changed) -> None:
        """Say that a taken name makes a new version."""
        taken = event.value.strip() in self.taken
        self.query_one("#taken", Static).update(
            "the name is taken: this saves its next version" if taken else ""
        )

    def answer(self) -> Naming:
        """The checked name, the tags and the note."""
        return Naming(
            check_name(self.value("name")), tuple(self.value("tags").split()), self.value("note")
        )


class TextDialog(Dialog[Answer]):
    """Asks for a text, from which `take` reads the answer; it raises SteerlabError for a bad one.

    about: lines above the field. hint: shown in it while it is empty.
    """

    def __init__(
        self,
        heading: str,
        verb: str,
        label: str,
        take: Callable[[str], Answer],
        text: str = "",
        *,
        about: Sequence[str],
        hint: str = "",
    ) -> None:
        self.HEADING, self.VERB = heading, verb
        super().__init__()
        self.label, self.take, self.text = label, take, text
        self.about, self.hint = about, hint

    def fields(self) -> ComposeResult:
        """What is asked for, and the field."""
        for line in self.about:
            yield Static(printable(line), classes="about", markup=False)
        yield field(self.label, Input(self.text, placeholder=self.hint, id="text", compact=True))

    def answer(self) -> Answer:
        """What the text means."""
        return self.take(self.value("text"))


class Confirm(Dialog[bool]):
    """Asks before something that can't be undone."""

    def __init__(self, question: str, verb: str) -> None:
        self.VERB = verb
        super().__init__()
        self.question = question

    def fields(self) -> ComposeResult:
        """The question."""
        yield Static(printable(self.question, newlines=True), markup=False)

    def answer(self) -> bool:
        """Yes."""
        return True


class OptionsDialog(Dialog[Setup]):
    """Layers, positions, sampling, seed and chat template."""

    DEFAULT_CSS = "OptionsDialog .field Label { width: 25; }"
    HEADING = "options"
    NUMBERS: ClassVar[dict[str, tuple[str, type]]] = {
        "max_new_tokens": ("new tokens", int),
        "temperature": ("temperature (0: greedy)", float),
        "top_p": ("top-p (1: off)", float),
        "top_k": ("top-k (0: off)", int),
        "repetition_penalty": ("repetition penalty", float),
        "seed": ("seed", int),
    }

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.setup = setup

    def fields(self) -> ComposeResult:
        """One option per line."""
        layers = Input(self.setup.layers, placeholder="the vector's own", id="layers", compact=True)
        yield field("layers", layers)
        choice = Select(
            [(name, name) for name in POSITIONS],
            value=self.setup.positions,
            allow_blank=False,
            compact=True,
            id="positions",
        )
        yield field("positions", choice)
        yield field("chat template", Tick("prompts are messages", self.setup.chat, id="chat"))
        accepted = "vectors of models of the same shape"
        others = Tick(accepted, self.setup.allow_other_weights, id="allow_other_weights")
        yield field("other weights", others)
        for name, (label, _) in self.NUMBERS.items():
            value = getattr(self.setup, name)
            yield field(label, Input(f"{value:g}", id=name, compact=True))

    def answer(self) -> Setup:
        """The setup with these options; raises for invalid ones."""
        values: dict[str, Any] = {
            name: number_of(self.value(name), label, kind)
            for name, (label, kind) in self.NUMBERS.items()
        }
        values["layers"] = self.value("layers")
        values["positions"] = self.query_one("#positions", Select).value
        for name in ("chat", "allow_other_weights"):
            values[name] = self.query_one(f"#{name}", Tick).value
        setup = replace(self.setup, **values)
        setup.check()
        return setup
