"""What can go wrong, as one tree; every message says what, why and what to do next.

SteerlabError
├── NotFound          no vector, model, layer or file of that name
├── NameTaken         a name that is in use, or can't be used as one
├── Incompatible      vectors of different models or scopes, layers that don't fit
├── BadVector         an array that can't be a steering vector (NaN, wrong shape)
├── BadExpression     text that is not an expression; knows its column
├── BadPrompts        contrast prompts that can't be used; knows file and line
├── BadOption         an option outside its range
├── CorruptPayload    a file that is not, or no longer, what it says
├── ModelMismatch     a vector met a model that it was not made for
├── ModelError        a model that can't be loaded, has no causal head, or breaks
├── SteeringError     steering that would silently do nothing, or can't be right
├── Cancelled         stopped on request, before there was a result
└── StoreError        the store can't be opened, read or written
"""

from __future__ import annotations


class SteerlabWarning(UserWarning):
    """Something that is done as asked, but may be worth less than it seems."""


class SteerlabError(Exception):
    """Base of every error meant for a user: one line, no traceback needed."""


class NotFound(SteerlabError):
    """Nothing of that name; the message offers the closest ones.

    column: where an expression names it, from 1; None outside expressions.
    reason: the message without the column.
    """

    column: int | None = None
    reason: str = ""


class NameTaken(SteerlabError):
    """A name that is already in use or is reserved."""


class Incompatible(SteerlabError):
    """Vectors that can't be combined: other model, other scope, no common layer."""


class BadVector(SteerlabError):
    """An array that can't be a steering vector."""


_LONGEST = 300  # characters of a message that quotes what somebody wrote


class BadExpression(SteerlabError):
    """Text that is not a vector expression.

    reason: the message without the column; what it quotes is cut where it is long. column: where
        it goes wrong, counted from 1; None when it is no single place. text: the expression.
    """

    def __init__(self, message: str, *, text: str = "", column: int | None = None) -> None:
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST // 2]}…{message[-_LONGEST // 2 :]}"
        super().__init__(message if column is None else f"{message} (column {column})")
        self.reason, self.text, self.column = message, text, column


class BadPrompts(SteerlabError):
    """Contrast prompts that can't be used."""


class BadOption(SteerlabError):
    """An option or argument outside its range."""


class CorruptPayload(SteerlabError):
    """A payload file that is cut short, altered, or not a steerlab payload at all."""


class ModelMismatch(SteerlabError):
    """A vector applied to a model that it was not made for."""


class ModelError(SteerlabError):
    """A model that can't be found, loaded or run."""


class SteeringError(SteerlabError):
    """Steering that never fired, changed nothing, or broke the model's output."""


class Cancelled(SteerlabError):
    """Stopped on request, before there was a result to keep."""


class StoreError(SteerlabError):
    """A store that can't be opened, read or written."""
