"""Verb: what a command takes, as plain values for a form, and the words of its command line."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from steerlab.errors import BadOption

Value = str | bool


@dataclass(frozen=True)
class Field:
    """An argument or an option.

    option: such as --doses; empty for an argument. several: words, those with spaces in quotes;
    an option is given once for each. default: what the command takes by itself; None leaves it
    out. loads: about how the model is loaded.
    """

    name: str
    option: str = ""
    kind: Literal["text", "flag", "choice"] = "text"
    help: str = ""
    default: str = ""
    choices: tuple[str, ...] = ()
    several: bool = False
    required: bool = False
    loads: bool = False

    @property
    def label(self) -> str:
        """The name of the field."""
        return self.option.lstrip("-") if self.option else self.name.rstrip("_")

    def words(self, value: Value) -> list[str]:
        """The words of a command line; raises BadOption for one that is missing or ill quoted."""
        if isinstance(value, bool):
            return [self.option] if value else []
        text = value.strip()
        if not text:
            if self.required:
                raise BadOption(f"{self.label} is missing: {self.help or 'type it'}")
            return []
        found = self._split(text) if self.several else [text]
        return [f"{self.option}={word}" for word in found] if self.option else found

    def _split(self, text: str) -> list[str]:
        try:
            return shlex.split(text)
        except ValueError:
            raise BadOption(f"{self.label}: a quote is not closed") from None


@dataclass(frozen=True)
class Verb:
    """A command.

    about: one line. text: how it works. has_store: it takes --store. interactive: it talks with
    its user, and needs the terminal for itself.
    """

    name: str
    about: str
    text: str
    fields: tuple[Field, ...]
    has_store: bool = True
    interactive: bool = False

    def words(self, values: Mapping[str, Value]) -> list[str]:
        """The command line after the program, options first; raises BadOption."""
        given = [(field, values.get(field.name, "")) for field in self.fields]
        options = [word for field, value in given if field.option for word in field.words(value)]
        plain = [word for field, value in given if not field.option for word in field.words(value)]
        apart = ["--"] if any(word.startswith("-") for word in plain) else []
        return [self.name, *options, *apart, *plain]


class Verbs(Protocol):
    """The commands that there are."""

    @property
    def summaries(self) -> Mapping[str, str]:
        """Name -> one line, in the order of `steerlab --help`."""

    def verb(self, name: str) -> Verb:
        """A command with its fields."""


def first_values(verb: Verb, refs: Sequence[str], expression: str) -> dict[str, Value]:
    """What the fields begin with: the vectors at hand, and the expression made of them."""
    first = refs[0] if refs else ""
    values: dict[str, Value] = {"refs": shlex.join(refs), "expression": expression}
    values |= dict.fromkeys(("ref", "a", "old"), first)
    if verb.name == "report" and first:
        values["file"] = f"{first.rpartition('.')[2]}.html"
    return {name: value for name, value in values.items() if value}
