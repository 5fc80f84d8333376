"""Tokens: which tokens a direction promotes and suppresses; comes with the evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.widgets import Static
from textual.worker import Worker

from steerlab.tui.detail.pane import Pane

if TYPE_CHECKING:
    from steerlab.registry import Summary

TEXT = """\
Here will stand which tokens this direction promotes and suppresses, read through the model's \
unembedding. It comes with the evaluation (`steerlab inspect`); until then there is nothing \
to see here."""


class Tokens(Pane):
    """Says what will stand here, and when."""

    def compose(self) -> ComposeResult:
        """One paragraph."""
        yield Static(TEXT, classes="quiet", markup=False)

    def read(self, summary: Summary, worker: Worker[None]) -> None:
        """Nothing is known yet."""

    def draw(self, found: None) -> None:
        """The paragraph is the same for every vector."""
