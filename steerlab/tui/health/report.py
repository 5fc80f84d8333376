"""Report: labelled entries that wrap beside their labels, as `doctor` prints them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Static

from steerlab.core.display import printable, some
from steerlab.registry.upkeep.doctor import Problem

_NAMED = 30  # vectors named for each problem


@dataclass(frozen=True)
class Entry:
    """A label and its text. kind: the label's style, "wrong", "well" or none."""

    label: str
    text: str
    kind: str = ""


class Report(Vertical):
    """A column of entries, shown as plain text."""

    DEFAULT_CSS = """
    Report { height: auto; }
    Report Row { height: auto; }
    Report .label { width: 10; padding-right: 1; text-align: right; color: $text-muted; }
    Report .said { width: 1fr; }
    Report .wrong { color: $text-error; text-style: bold; }
    Report .well { color: $text-success; text-style: bold; }
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._rows: list[Row] = []

    @property
    def entries(self) -> Sequence[Entry]:
        """The entries shown."""
        return [row.entry for row in self._rows]

    def show(self, entries: Sequence[Entry]) -> None:
        """Show these entries; unchanged rows are not drawn again."""
        if not self.is_attached:  # the app is closing
            return
        for row, entry in zip(self._rows, entries, strict=False):
            row.show(entry)
        for row in self._rows[len(entries) :]:
            row.remove()
        new = [Row(entry) for entry in entries[len(self._rows) :]]
        self._rows = [*self._rows[: len(entries)], *new]
        self.mount_all(new)


class Row(Horizontal):
    """One entry."""

    def __init__(self, entry: Entry) -> None:
        super().__init__()
        self.entry = entry
        self._label = Static(entry.label, markup=False, classes=f"label {entry.kind}")
        self._said = Static(printable(entry.text), markup=False, classes="said")

    def compose(self) -> ComposeResult:
        """The label and the text beside it."""
        yield self._label
        yield self._said

    def show(self, entry: Entry) -> None:
        """Show another entry."""
        if entry == self.entry:
            return
        self.entry = entry
        self._label.set_classes(f"label {entry.kind}")
        self._label.update(entry.label)
        self._said.update(printable(entry.text))


def of_problems(problems: Iterable[Problem]) -> list[Entry]:
    """Each problem, the vectors that have it, and the command that fixes it."""
    found = []
    for problem in problems:
        label = "wrong" if problem.wrong else "note"
        found.append(Entry(label, problem.what, "wrong" if problem.wrong else ""))
        if problem.refs:
            found.append(Entry("of", some(problem.refs, _NAMED)))
        found.append(Entry("do", problem.fix))
    return found
