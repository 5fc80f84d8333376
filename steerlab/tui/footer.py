"""The footer: rebuilt when its keys change, not whenever the focus moves."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Footer


class KeyFooter(Footer):
    """Textual's footer, which keeps its widgets while it shows the same keys.

    Rebuilding at every focus took a tenth of the app's work, and a click that met it was lost.
    """

    _composed: list[tuple[Binding, bool, str]] | None = None

    def _keys(self) -> list[tuple[Binding, bool, str]]:
        """What it shows: bindings, whether they are enabled, and their tooltips."""
        palette = self.app.COMMAND_PALETTE_BINDING
        return [
            (active.binding, active.enabled, active.tooltip)
            for key, active in self.screen.active_bindings.items()
            if active.binding.show or key == palette
        ]

    def compose(self) -> ComposeResult:
        """Compose the keys, and keep which they are."""
        self._composed = self._keys()
        yield from super().compose()

    async def recompose(self) -> None:
        """Rebuild, if other keys are to be shown."""
        if not self.children or self._composed != self._keys():
            await super().recompose()
