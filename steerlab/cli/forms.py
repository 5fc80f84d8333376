"""What the verbs take, read from their click commands, for the forms of the terminal UI."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from inspect import cleandoc
from typing import Any

import click

from steerlab.cli import SECTIONS, cli
from steerlab.core.verb import Field, Verb

HIDDEN = ("store_path", "json", "quiet", "yes")
"""Parameters that the terminal UI sets: it has a store, and shows what people read."""

LOADS = frozenset(
    ("source", "device", "dtype", "device_map", "revision", "blocks", "layout", "trust_remote_code")
)
INTERACTIVE = ("chat",)
WHOLE = ("expression", "text")
"""Arguments that take any number of words and mean them as one text."""


ARGUMENTS = {
    "expression": "Stored vectors and + - * /: love - 0.5*anger",
    "ref": "A stored vector, or one of its versions: love.v1",
    "refs": "Stored vectors.",
    "a": "A stored vector.",
    "b": "The vector to compare it with.",
    "old": "The name that it has.",
    "new": "The name that it gets.",
    "name": "The name to store it under.",
    "factor": "A number.",
    "tags": "Tags, separated by spaces.",
    "text": "Words, such as parts of a name or a note.",
    "words": "Words that names, prompts, notes or tags have.",
    "which": "A number, or a vector; empty lists all.",
    "names": "Suites; empty means all that were stored.",
    "concepts": "Starter concepts; empty means all.",
    "path": "The file or directory to write.",
    "paths": "Files to read.",
    "backup": "The backup to restore.",
}
"""What arguments are: click knows only their names."""


class CommandLine:
    """All verbs of `steerlab`; the file of one is imported when its form is opened."""

    @property
    def summaries(self) -> Mapping[str, str]:
        """Name -> one line."""
        return {name: text for verbs in SECTIONS.values() for name, (_, text) in verbs.items()}

    @lru_cache  # noqa: B019 - there is one of these in a process
    def verb(self, name: str) -> Verb:
        """A verb with its fields: arguments, options, then those of loading a model."""
        context = click.Context(cli)
        command = cli.get_command(context, name)
        assert command is not None, name
        fields = [_field(p) for p in command.params if p.name not in HIDDEN]
        fields.sort(key=lambda field: (field.loads, bool(field.option)))
        return Verb(
            name,
            self.summaries[name],
            _text(command),
            tuple(fields),
            has_store=any(p.name == "store_path" for p in command.params),
            interactive=name in INTERACTIVE,
        )


def _field(parameter: click.Parameter) -> Field:
    name = parameter.name or ""
    plain: dict[str, Any] = {"name": name, "required": parameter.required}
    if isinstance(parameter, click.Argument):
        several = parameter.nargs == -1 and name not in WHOLE
        return Field(help=ARGUMENTS.get(name, ""), several=several, **plain)
    assert isinstance(parameter, click.Option)
    plain |= {
        "option": max(parameter.opts, key=len),
        "help": parameter.help or "",
        "several": parameter.multiple,
        "loads": name in LOADS,
    }
    if parameter.is_flag:
        return Field(kind="flag", **plain)
    if isinstance(parameter.type, click.Choice):
        return Field(kind="choice", choices=tuple(map(str, parameter.type.choices)), **plain)
    return Field(default=_default(parameter), **plain)


def _default(option: click.Option) -> str:
    """A default that is worth showing."""
    known = option.default
    return str(known) if isinstance(known, int | float | str) and known != "" else ""


def _text(command: click.Command) -> str:
    """The help of a command, without click's marks for paragraphs that keep their lines."""
    return cleandoc((command.help or "").replace("\b", ""))
