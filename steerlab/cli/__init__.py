"""The command line: thin verbs over the same calls that Python and the TUI use.

A verb is imported when it is run, so `steerlab --help` imports click alone. A verb's file has
its name or its family's (`SECTIONS` says which); `options`, `output` and `progress` are what
verbs share.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from enum import IntEnum
from importlib import import_module

import click

from steerlab import errors
from steerlab.core.version import __version__

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Make and combine": {
        "extract": ("extract", "Make a vector from contrast prompts."),
        "compose": ("compose", "Compute an expression of stored vectors: love - anger."),
        "rederive": ("recipes", "Recompute a composition with the newest operands."),
        "port": ("recipes", "Make a vector on another model, from its recipe."),
        "add": ("compose", "Add vectors: compose a + b + …"),
        "scale": ("compose", "Multiply a vector: compose FACTOR * a."),
        "negate": ("compose", "Reverse a vector: compose -a."),
    },
    "Steer": {
        "generate": ("generate", "Generate text with a vector, beside the baseline."),
        "chat": ("chat", "Talk with a chat model while a vector steers it."),
        "sweep": ("sweep", "Compare layers x strengths x prompts in one batch."),
        "demo": ("demo", "See it work: love - anger on a real model."),
        "tui": ("tui", "Browse vectors and steer in the terminal."),
        "serve": ("serve", "Serve a model over OpenAI's API, steered by stored vectors."),
        "bench": ("bench", "Measure how fast a model is on this machine."),
    },
    "Know whether it works": {
        "calibrate": ("calibrate", "Find the layer and dose at which a vector works."),
        "evaluate": (
            "evaluate",
            "Measure whether a vector works on other texts, and what it costs.",
        ),
        "check": ("evaluate", "Run stored evaluations again and report what changed."),
        "benchmark": ("benchmark", "Measure the starter concepts on a model."),
        "inspect": ("inspect", "Explain a direction."),
        "diff": ("compare", "Compare two vectors side by side."),
        "report": ("report", "Write a page about a vector."),
    },
    "Browse and describe": {
        "list": ("browse", "List the stored vectors."),
        "search": ("browse", "Find vectors by words in names, prompts, notes and tags."),
        "show": ("browse", "Show everything about a vector."),
        "log": ("lineage", "Show a name's history, or what can be undone."),
        "tree": ("lineage", "Show a vector's lineage."),
        "similar": ("compare", "List a vector's nearest neighbours."),
        "map": ("compare", "Map the vectors of a model in two dimensions."),
        "models": ("browse", "List the models that have vectors."),
        "runs": ("runs", "List stored texts, or show one run."),
        "sweeps": ("runs", "List stored sweeps, or show one."),
        "tag": ("edit", "Add or remove tags."),
        "note": ("edit", "Write a vector's note."),
        "rename": ("edit", "Give a vector another name."),
        "remove": ("edit", "Remove a vector from the store."),
        "undo": ("edit", "Undo the last tag, note, rename or remove."),
    },
    "Look after the store": {
        "verify": ("upkeep", "Check every payload and recompute every composition."),
        "doctor": ("upkeep", "Report problems with the store, and how to fix them."),
        "du": ("upkeep", "Show how much disk space vectors take."),
        "rebuild": ("upkeep", "Restore the registry from the payload files."),
        "gc": ("upkeep", "Delete files that no vector needs."),
        "backup": ("transfer", "Write the whole store to one file, while it is in use."),
        "restore": ("transfer", "Restore a backup."),
        "import": ("transfer", "Import vectors, from files of other programs too."),
        "export": ("transfer", "Write vectors to a file, for other programs too."),
    },
    "Steer in other programs": {
        "bake": ("bake", "Write a model with the steering in its weights."),
        "conform": ("conform", "Compare steering here with steering in other programs."),
    },
}
_HOMES = {name: entry for verbs in SECTIONS.values() for name, entry in verbs.items()}
_OTHER_WORDS = {
    **dict.fromkeys(("delete", "del", "rm", "drop"), "remove"),
    **dict.fromkeys(("create", "new", "train", "make"), "extract"),
    **dict.fromkeys(("info", "describe", "view", "cat"), "show"),
    **dict.fromkeys(("combine", "subtract"), "compose"),
    **dict.fromkeys(("rate", "ui"), "tui"),
    "steer": "generate",
    "ls": "list",
    "mv": "rename",
    "find": "search",
    "history": "log",
}
"""What people call a verb elsewhere, and its name here."""


class ExitCode(IntEnum):
    """The exit codes of the process; scripts may rely on them."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    BAD_INPUT = 4
    MODEL = 5
    STORE = 6
    INTERNAL = 70
    CANCELLED = 130


_CODES: tuple[tuple[type[errors.SteerlabError], ExitCode], ...] = (
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.ModelMismatch, ExitCode.MODEL),
    (errors.ModelError, ExitCode.MODEL),
    (errors.SteeringError, ExitCode.MODEL),
    (errors.StoreError, ExitCode.STORE),
    (errors.CorruptPayload, ExitCode.STORE),
    (errors.Cancelled, ExitCode.CANCELLED),
    (errors.SteerlabError, ExitCode.BAD_INPUT),
)


class Verbs(click.Group):
    """A group that knows its help text and imports a command when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of the sections."""
        return list(_HOMES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import the module that a verb lives in."""
        if name not in _HOMES:
            return None
        module = import_module(f"steerlab.cli.{_HOMES[name][0]}")
        command: click.Command = getattr(module, f"{name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, but suggest the closest verbs for an unknown one.

        `help VERB` is `VERB --help`. Options before the verb become defaults of those after it.
        """
        if args[:1] == ["help"]:
            if args[1:2] in ([], ["help"]):
                click.echo(ctx.get_help())
                ctx.exit()
            args = [args[1], "--help"]
        if args and args[0] not in _HOMES and not args[0].startswith("-"):
            import difflib

            meant = _OTHER_WORDS.get(args[0])
            close = [meant] if meant else difflib.get_close_matches(args[0], _HOMES, n=3)
            hint = f": did you mean {' or '.join(close)}?" if close else ""
            ctx.fail(f"there is no command {args[0]!r}{hint}")
        name, command, rest = super().resolve_command(ctx, args)
        given = {f"--{key}": value for key, value in ctx.params.items() if value is not None}
        if name is not None and command is not None and given:
            known = {opt: p.name for p in command.params for opt in p.opts if opt in given}
            for option in given.keys() - known.keys():
                ctx.fail(f"{name} takes no {option}")
            ctx.default_map = {name: {known[opt]: value for opt, value in given.items()}}
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs in sections, without importing any of them."""
        for section, verbs in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name, text) for name, (_, text) in verbs.items()])


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="The store: --store, then STEERLAB_STORE, then ./store, then your data directory. "
    'Tab completion: eval "$(_STEERLAB_COMPLETE=bash_source steerlab)", or zsh_source, or '
    "fish_source. In Python: `from steerlab.vectors import love`; `import steerlab` and "
    "`help(steerlab)` say more.",
)
@click.option("--store", metavar="DIRECTORY", help="The store; also after the command.")
@click.option("--model", metavar="NAME", help="The model; also after the command.")
@click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")
def cli(store: str | None, model: str | None) -> None:
    """Where steering vectors live: a registry, an algebra and a lab.

    \b
    steerlab demo                               see it work on a real model
    steerlab list                               what is stored
    steerlab compose love - anger               combine vectors
    steerlab generate "I think you are a" -v love --dose 0.15
    steerlab help compose                       what a command takes
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; every expected error is one line on stderr."""
    try:
        result = cli.main(
            None if arguments is None else list(arguments),
            prog_name="steerlab",
            standalone_mode=False,
            color=_color(),
        )
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return ExitCode.USAGE
    except Exception as error:
        return _failed(error)
    except KeyboardInterrupt:
        return _failed(click.Abort())
    return int(result) if isinstance(result, int) else ExitCode.OK


def _color() -> bool | None:
    """False to leave colour out; None to use it in terminals."""
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _failed(error: Exception) -> ExitCode:
    """Print one line about an error and return its exit code."""
    match error:
        case BrokenPipeError():  # the reader is done: `steerlab list | head`
            _drop_output()
            return ExitCode.FAILED
        case click.Abort():
            return _line(ExitCode.CANCELLED, str(error) or "cancelled")
        case click.UsageError():
            command = error.ctx.command_path if error.ctx is not None else "steerlab"
            text = error.format_message().rstrip(".")
            return _line(ExitCode.USAGE, f"{text} (see {command} --help)")
        case click.ClickException():
            return _line(ExitCode.FAILED, error.format_message())
        case errors.SteerlabError():
            code = next(code for kind, code in _CODES if isinstance(error, kind))
            return _line(code, str(error))
        case OSError():
            _drop_output()  # stdout itself may have failed
            where = f": {error.filename}" if error.filename else ""
            return _line(ExitCode.FAILED, f"{error.strerror or error}{where}")
    if os.environ.get("STEERLAB_DEBUG"):
        raise error
    text = f"internal error, {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return _line(ExitCode.INTERNAL, f"{text} (this is a bug; STEERLAB_DEBUG=1 shows where)")


def _line(code: ExitCode, text: str) -> ExitCode:
    from steerlab.core.display import printable

    plain = " ".join(printable(text, newlines=True).split())
    label = click.style("steerlab:", fg="red", bold=True)
    click.echo(f"{label} {plain}", err=True, color=_color())
    return code


def _drop_output() -> None:
    """Discard what stdout still buffers, so that the interpreter exits quietly."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main() -> None:
    """The console script."""
    closed = sys.stdout is None  # `steerlab list >&-`
    _make_writable()
    code = run()
    if closed and code == ExitCode.OK:
        code = _line(ExitCode.FAILED, "standard output is closed: nothing was printed")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # another Ctrl-C while Python exits: no traceback
    sys.exit(code)


def _make_writable() -> None:
    """Open closed streams on nothing; write what a console's code page lacks as escapes."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
