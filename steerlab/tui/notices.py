"""What widgets and workers have to tell the user: messages that the app shows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from textual.message import Message
from textual.message_pump import MessagePump

from steerlab.errors import SteerlabError

Severity = Literal["information", "warning", "error"]


@dataclass
class Notice(Message):
    """One line for the user: the app shows it, as text and never as markup."""

    text: str
    severity: Severity = "information"


def notify(
    node: MessagePump,
    text: str,
    severity: Literal["information", "warning", "error"] = "information",
) -> None:
    """Give the app a line to show; from any thread.

    Textual ends a message's way at its sender's parent, and takes for the sender of what a
    worker posts whoever happened to start the worker: so it is named here.
    """
    node.post_message(Notice(text, severity).set_sender(node))


@contextmanager
def reporting_errors(node: MessagePump) -> Iterator[None]:
    """Errors inside become Notice: a worker ends in a message, never in a dead screen."""
    try:
        yield
    except SteerlabError as error:
        notify(node, str(error), "error")
    except MemoryError:
        notify(node, "out of memory: a smaller model or shorter texts fit", "error")
    except Exception as error:
        if os.environ.get("STEERLAB_DEBUG"):
            raise
        text = f"internal error, {type(error).__name__}: {error} (STEERLAB_DEBUG=1 shows where)"
        notify(node, text, "error")
