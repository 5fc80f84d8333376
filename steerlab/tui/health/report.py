"""Report: labelled entries that wrap beside their labels, as `doctor` prints them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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
    Report .row { height: auto; }
    Report .label { width: 10; padding-right: 1; text-align: right; color: $text-muted; }
    Report .said { width: 1fr; }
    Report .wrong { color: $text-error; text-style: bold; }
    Report .well { color: $text-success; text-style: bold; }
    """

    entries: Sequence[Entry] = ()

    def show(self, entries: Sequence[Entry]) -> None:
        """Show these entries, unless they are shown already or the app is closing."""
        if not self.is_attached or entries == self.entries:
            return
        self.entries = entries
        self.remove_children()
        self.mount_all(
            Horizontal(
                Static(entry.label, markup=False, classes=f"label {entry.kind}"),
                Static(printable(entry.text), markup=False, classes="said"),
                classes="row",
            )
            for entry in entries
        )


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
