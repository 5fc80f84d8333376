"""The expression line: the vector to steer with, completed and checked as it is typed."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.content import Content
from textual.message import Message
from textual.suggester import Suggester
from textual.widgets import Input, Label, Static
from textual.worker import Worker

from steerlab.core.display import printable
from steerlab.core.notation import derived_name, span
from steerlab.core.recipe import FUNCTIONS
from steerlab.errors import BadExpression, NotFound, SteerlabError
from steerlab.tui.dialogs import Naming, SaveDialog
from steerlab.tui.notices import notify, reporting_errors
from steerlab.tui.workers import answer

if TYPE_CHECKING:
    from steerlab.core.results import Calibration
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab

PATIENCE = 0.4
"""Seconds without a key press before a mistake is reported."""

LONG = 1.0
"""Seconds after which a save that is usually instant reports that it is waiting."""

LABEL = 9  # width of a line's label

_UNFINISHED = ("stops too early", "was never closed", "is a number, not a vector")
_OPEN = ("+", "-", "*", "/", "(", ",")


@dataclass(frozen=True)
class Meaning:
    """The value of a text on the line.

    vector: None for a text without one; `problem` says why, `column` (from 1) where.
    unfinished: the text is the beginning of an expression.
    extends: the vector can be made at other layers too, as far as that was asked.
    calibration: the vector's; None if there is none, or it found no effect. here: layer as typed
        -> the calibration that counts there.
    cosines: operand -> mean cosine over layers between it and the result.
    """

    text: str
    vector: SteeringVector | None = None
    cosines: Sequence[tuple[str, float]] = ()
    warnings: Sequence[str] = ()
    problem: str = ""
    column: int | None = None
    unfinished: bool = False
    extends: bool = False
    calibration: Calibration | None = None
    here: Mapping[str, Calibration] = field(default_factory=dict)


def meaning_of(lab: Lab, text: str, names: Sequence[str], *, extends: bool = False) -> Meaning:
    """Evaluate a text against the store. names: sorted, to recognise unfinished names."""
    if not text.strip():
        return Meaning(text)
    from steerlab.core.expression import composition_warnings
    from steerlab.core.syntax import parse

    try:
        vector = lab.evaluate(text)
        parsed = parse(text)
        operands = {ref: lab.evaluate(ref) for ref in parsed.refs}
    except SteerlabError as error:
        reason = getattr(error, "reason", "") or str(error)
        return Meaning(
            text,
            problem=reason,
            column=getattr(error, "column", None),
            unfinished=_is_beginning(text, error, names),
        )
    cosines = [(ref, _cosine(vector, operand)) for ref, operand in operands.items()]
    alone = len(operands) == 1 and parsed.refs[0] == text.strip()
    return Meaning(
        text,
        vector,
        () if alone else cosines,
        composition_warnings(parsed, vector, operands),
        extends=extends and lab.extends(vector),
        calibration=lab.calibration_of(vector),
        here={str(b): c for b, c in lab.store.results.by_layer(vector.digest).items()},
    )


def _cosine(a: SteeringVector, b: SteeringVector) -> float:
    found = list(a.cosines(b).values())
    return sum(found) / len(found) if found else 0.0


def _is_beginning(text: str, error: SteerlabError, names: Sequence[str]) -> bool:
    """Whether the text may be completed: it ends in an operator or in part of a name."""
    if isinstance(error, BadExpression):
        open_end = any(why in error.reason for why in _UNFINISHED)
        return open_end or text.rstrip().endswith(_OPEN)
    word = last_word(text)
    if not isinstance(error, NotFound) or not word or text != text.rstrip():
        return False
    if "." in word:  # a version or a model's vector: smollm2.lo, love.v
        return error.column == len(text) - len(word) + 1 and word.endswith((".", ".v"))
    return error.column == len(text) - len(word) + 1 and bool(completion(word, names))


def last_word(text: str) -> str:
    """The name at the end of a text; empty after an operator."""
    found = re.search(r"[^\W\d][\w.]*$", text)
    return found.group() if found else ""


def completion(word: str, names: Sequence[str]) -> str | None:
    """The first of the sorted names, else of the functions, that starts with the word."""
    place = bisect_left(names, word)
    if place < len(names) and names[place].startswith(word):
        return names[place]
    return next((f"{name}(" for name in FUNCTIONS if name.startswith(word)), None)


class _Names(Suggester):
    """Completes the last word from the store's names."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(use_cache=False, case_sensitive=True)
        self.names = names

    async def get_suggestion(self, value: str) -> str | None:
        word = last_word(value)
        found = completion(word, self.names) if word else None
        return value + found[len(word) :] if found else None


class ExpressionLine(Vertical):
    """An input, and the value of its text in the line below."""

    HELP = """\
A vector expression: names of stored vectors with + - * /, numbers, parentheses, \
unit(a), mean(a, b), project(a, b), reject(a, b), love[10:20] for layers, love.v1 for a version.
→ accepts the completion. The line below shows norm, layers and dose, or the mistake. The dose is \
the length that coefficient c adds, relative to the median residual stream."""

    DEFAULT_CSS = """
    ExpressionLine { height: auto; }
    ExpressionLine .line { height: 1; }
    ExpressionLine .label { width: 9; color: $text-muted; }
    ExpressionLine Input { width: 1fr; }
    ExpressionLine #meaning { height: 1; color: $text-muted; }
    ExpressionLine #meaning { text-wrap: nowrap; text-overflow: ellipsis; }
    ExpressionLine #meaning.problem { color: $text-warning; }
    """

    @dataclass
    class Checked(Message):
        """The line's text was evaluated."""

        meaning: Meaning

    @dataclass
    class Saved(Message):
        """A vector was saved, or was stored already."""

        ref: str
        text: str

    def __init__(
        self, lab: Lab, text: str = "", names: Sequence[str] = (), *, extends: bool = False
    ) -> None:
        super().__init__(id="steer")
        self.lab, self.extends = lab, extends
        self.suggester = _Names(names)
        self.meaning = Meaning("")
        self.chosen = ""
        self._first = text

    def compose(self) -> ComposeResult:
        """The input, and its meaning below."""
        with Horizontal(classes="line"):
            yield Label("steer", classes="label")
            yield Input(
                self._first,
                placeholder="love - 0.5*anger   (or Enter on a vector above)",
                suggester=self.suggester,
                select_on_focus=False,
                compact=True,
                id="expression",
            )
        yield Static(id="meaning", markup=False)

    @property
    def text(self) -> str:
        """The text of the input."""
        return self.query_one(Input).value

    @text.setter
    def text(self, value: str) -> None:
        line = self.query_one(Input)
        line.value = value
        line.cursor_position = len(value)

    def put(self, name: str) -> None:
        """Append a name after a trailing operator, else replace the text.

        `chosen` holds the text until it is checked.
        """
        before = self.text.rstrip()
        self.text = self.chosen = f"{before} {name}" if before.endswith(_OPEN) else name
        self.check(self.text)  # an equal text sends no Changed

    def show_names(self, names: Sequence[str]) -> None:
        """Complete from these sorted names, and check the text again."""
        self.suggester.names = names
        self.check(self.text)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self.check(event.value)

    @work(thread=True, exclusive=True, group="check")
    def check(self, text: str) -> None:
        """Evaluate the text in a thread."""
        try:
            meaning = meaning_of(self.lab, text, self.suggester.names, extends=self.extends)
        except Exception as error:  # typing must never end the app
            meaning = Meaning(text, problem=f"internal error, {type(error).__name__}: {error}")
        answer(self, self.post_message, self.Checked(meaning))

    @on(Checked)
    def _checked(self, event: Checked) -> None:
        if event.meaning.text != self.text:
            event.stop()
            return
        self.meaning = event.meaning
        typing = event.meaning.unfinished and self.query_one(Input).has_focus
        if event.meaning.problem and not typing:
            self._draw(Content("…"))
            self.set_timer(PATIENCE, self._complain)
        else:
            self._draw(described(event.meaning))

    @on(Input.Blurred)
    def _left(self) -> None:
        """Say what an unfinished text lacks; one that ends in an operator waits for a vector."""
        if not self.text.rstrip().endswith(_OPEN):
            self._complain()

    def action_save(self) -> None:
        """Ask for a name, then save the expression."""
        meaning = self.meaning
        if meaning.vector is None or meaning.text != self.text:
            why = meaning.problem or "the steer line is empty: type an expression"
            notify(self, why, "warning")
            return
        about = f"{meaning.text}\n{described(meaning).plain.split('!')[0].strip()}"
        name, taken = derived_name(meaning.text), self.suggester.names
        self.app.push_screen(SaveDialog(name, about, meaning.warnings, taken), self._save)

    def _save(self, naming: Naming | None) -> None:
        if naming is not None:
            worker = self._store(self.text, naming)
            self.set_timer(LONG, partial(self._say_storing, worker, naming.name))

    def _say_storing(self, worker: Worker[None], name: str) -> None:
        if not worker.is_finished:
            notify(self, f"saving {name} … another process may be writing to the store")

    @work(thread=True, group="save")
    def _store(self, text: str, naming: Naming) -> None:
        """Evaluate and save."""
        from steerlab.registry.keep import keep

        with reporting_errors(self):
            vector, name = self.lab.evaluate(text), naming.name
            store = self.lab.store
            stored, new = keep(store, name, vector, tags=naming.tags, note=naming.note)
            verb = "saved as" if new else "already saved as"
            self.post_message(self.Saved(name, f"{verb} {stored}").set_sender(self))

    def _complain(self) -> None:
        """Show the mistake if the text is still the same."""
        if self.meaning.text == self.text and self.meaning.problem:
            self._draw(pointed(self.meaning, self.query_one("#meaning").size.width), problem=True)

    def _draw(self, text: Content, *, problem: bool = False) -> None:
        line = self.query_one("#meaning", Static)
        line.set_class(problem, "problem")
        line.update(text, layout=False)


def described(meaning: Meaning) -> Content:
    """Norm, layers, dose, cosines, and the first warning."""
    indent = " " * LABEL
    if meaning.unfinished:
        return Content(f"{indent}…")
    if meaning.vector is None:
        return Content()
    vector = meaning.vector
    dose, layer, found = vector.dose(1.0), span(vector.layers), meaning.calibration
    if found is not None and found.dose and found.coefficient and layer != str(found.layer):
        layer = f"{layer}, calibrated at {found.layer}"
        dose = found.dose / found.coefficient
    parts = [f"norm {vector.norm:.4g}", f"layer {layer}"]
    parts += [f"dose {dose:.2f} per c"] if dose is not None else ["dose unknown"]
    parts += [f"cos {printable(ref)} {cosine:+.2f}" for ref, cosine in meaning.cosines]
    text = Content(indent + "  ".join(parts))
    if meaning.warnings:
        text = text.append(Content.styled(f"  ! {printable(meaning.warnings[0])}", "bold"))
    return text


def pointed(meaning: Meaning, width: int) -> Content:
    """The problem, with a ^ under its column."""
    reason = printable(meaning.problem)
    if meaning.column is None:
        return Content(" " * LABEL + reason)
    place = LABEL + meaning.column - 1
    if place + 2 + len(reason) <= width or place < LABEL + 4:
        return Content(" " * place + f"^ {reason}")
    room = place - 1
    if len(reason) <= room - LABEL:
        return Content(f"{reason:>{room}} ^")
    return Content(" " * LABEL + f"column {meaning.column}: {reason}")
