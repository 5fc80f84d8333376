"""Small apps around single widgets, and how tests wait for them."""

import asyncio
from collections.abc import Callable

from textual.app import App, ComposeResult
from textual.message import Message
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Static


class Host(App[None]):
    """An app around one widget; `heard` are the messages that reached it."""

    def __init__(self, widget: Widget, css: str = "") -> None:
        type(self).CSS = css
        super().__init__()
        self.widget = widget
        self.heard: list[Message] = []

    def compose(self) -> ComposeResult:
        yield self.widget

    async def on_event(self, event):
        await super().on_event(event)

    async def _dispatch_message(self, message: Message) -> None:
        self.heard.append(message)
        await super()._dispatch_message(message)

    def heard_of(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.heard if isinstance(message, kind)]


async def until(pilot: Pilot, true: Callable[[], object], seconds: float = 20) -> None:
    """Wait for what workers bring; not for an idle app, which a generation never leaves."""
    for looks in range(round(seconds / 0.02)):
        if true():
            return
        await asyncio.sleep(min(0.02, 0.001 * (looks + 1)))  # most comes at once
    raise AssertionError("it never came true")


def text_of(widget: Widget, selector: str) -> str:
    """The plain text of a Static."""
    found = widget.query_one(selector, Static)
    visual = found.render()
    return getattr(visual, "plain", str(visual))
