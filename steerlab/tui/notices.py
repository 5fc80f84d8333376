"""Messages from widgets and workers that the app shows to the user."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from textual.message import Message
from textual.message_pump import MessagePump
from textual.types import NoActiveAppError

from steerlab.errors import SteerlabError

Severity = Literal["information", "warning", "error"]


@dataclass
class Notice(Message):
    """A line for the user; the app shows it as text, never as markup.

    shown: a screen has shown it already, so that the app need not.
    """

    text: str
    severity: Severity = "information"
    shown: bool = False


def notify(node: MessagePump, text: str, severity: Severity = "information") -> None:
    """Post a line for the app to show; from any thread.

    The sender is set because Textual stops a message at its sender's parent, and takes for the
    sender of a worker's message whoever started the worker.
    """
    node.post_message(Notice(text, severity).set_sender(node))


@contextmanager
def reporting_errors(node: MessagePump) -> Iterator[None]:
    """Post errors inside as notices, so that a worker never fails silently."""
    try:
        yield
    except SteerlabError as error:
        notify(node, str(error), "error")
    except NoActiveAppError:
        pass  # a worker was late: the app has closed
    except MemoryError:
        notify(node, "out of memory: try a smaller model or shorter texts", "error")
    except Exception as error:
        if os.environ.get("STEERLAB_DEBUG"):
            raise
        text = f"internal error, {type(error).__name__}: {error}"
        notify(node, f"{text} (STEERLAB_DEBUG=1 shows the traceback)", "error")
