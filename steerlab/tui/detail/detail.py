"""The details of one vector, in tabs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.containers import Container
from textual.content import Content
from textual.timer import Timer
from textual.widgets import Static, Tab, Tabs

from steerlab.core.display import printable
from steerlab.core.notation import span
from steerlab.tui.detail.pane import Pane
from steerlab.tui.partial_refresh import Frame

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab
    from steerlab.registry import Summary

REST = 0.2
"""Seconds that the cursor rests on a vector before it is read; keys come faster than that."""


class Detail(Frame):
    """Tabs about the vector under the cursor; each is built when it is first opened."""

    TABS: ClassVar[tuple[str, ...]] = (
        "overview",
        "lineage",
        "tokens",
        "neighbours",
        "curves",
        "runs",
    )
    HELP = """\
The details of the vector under the cursor. 1 to 6 (in the table) or ← → (on the tabs) choose a \
tab. The overview edits tags and note."""

    DEFAULT_CSS = """
    Detail { border: round $panel; border-title-color: $text-accent; padding: 0 1; }
    Detail:focus-within { border: round $accent; }
    Detail Tabs { height: 2; }
    Detail Tab { padding: 0 1 0 0; }
    Detail Tab:last-child { padding: 0; }
    Detail #panes { height: 1fr; }
    Detail #empty { height: 1fr; color: $text-muted; padding: 1 1; }
    """

    def __init__(self, lab: Lab, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.lab = lab
        self.summary: Summary | None = None
        self._age = 0
        self._shown: dict[str, tuple[int, int]] = {}
        self._timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """The tabs and the open pane."""
        yield Tabs(*(Tab(name.capitalize(), id=name) for name in self.TABS))
        yield Container(id="panes")
        yield Static(id="empty", markup=False)

    def on_mount(self) -> None:
        """Hide the text for an empty table."""
        self.query_one("#empty").display = False

    @property
    def open_tab(self) -> str:
        """The name of the open tab."""
        return self.query_one(Tabs).active or self.TABS[0]

    def show(self, summary: Summary | None) -> None:
        """Show a vector once the cursor rests on it."""
        self.summary = summary
        self._age += 1
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(REST, self._fill)

    def show_empty(self, text: str) -> None:
        """Show a text instead of a vector."""
        self.show(None)
        self.query_one("#empty", Static).update(text)

    def reread(self) -> None:
        """Read the open tab again after a change of the store."""
        self._age += 1
        self._fill()

    def switch(self, name: str) -> None:
        """Open a tab."""
        self.query_one(Tabs).active = name

    def focus_inside(self) -> None:
        """Focus the open pane if it takes the focus, else the tabs."""
        pane = self._pane(self.open_tab)
        (pane if pane is not None and pane.focusable else self.query_one(Tabs)).focus()

    @on(Tabs.TabActivated)
    def _opened(self, event: Tabs.TabActivated) -> None:
        event.stop()
        self._fill()

    def _pane(self, name: str) -> Pane | None:
        found = self.query(f"#pane-{name}")
        return found.first(Pane) if found else None

    def _fill(self) -> None:
        """Read the open tab unless it is up to date."""
        if not self.is_attached:  # the app is closing
            return
        summary, name = self.summary, self.open_tab
        self.query_one("#empty").display = summary is None
        self.query_one("#panes").display = self.query_one(Tabs).display = summary is not None
        if summary is None:
            self.border_title = ""
            return
        where = f"layer {span(summary.layers)}"
        with self.border_only(0):
            self.border_title = Content(printable(f"{summary.ref} · {summary.model} · {where}"))
        pane = self._pane(name) or self._build(name)
        for other in self.query(Pane):
            other.display = other is pane
        if self._shown.get(name) != (summary.id, self._age):
            self._shown[name] = (summary.id, self._age)
            pane.show(summary)

    def _build(self, name: str) -> Pane:
        pane = pane_class(name)(self.lab, id=f"pane-{name}")
        self.query_one("#panes").mount(pane)
        return pane


def pane_class(name: str) -> type[Pane]:
    """The class of a tab, imported when it is first opened."""
    from importlib import import_module

    module = import_module(f"steerlab.tui.detail.{name}")
    found: type[Pane] = getattr(module, name.capitalize())
    return found
