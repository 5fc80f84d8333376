"""steerlab chat: a conversation with a vector on."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output, types
from steerlab.cli.generate import heading
from steerlab.cli.progress import Interrupt, interruptible, load
from steerlab.core.display import printable
from steerlab.core.notation import layers_text
from steerlab.errors import BadOption, SteerlabError

if TYPE_CHECKING:
    from steerlab.core.completion import Completion
    from steerlab.core.run import Run
    from steerlab.core.sampling import Sampling
    from steerlab.lab.chat import Chat, OnPiece
    from steerlab.lab.lab import Lab

HELP = """\
/steer love - anger   steer with a vector or an expression from now on
/dose 0.2             at this strength, relative to the residual stream
/off                  steer no longer
/baseline             what the model answers to the last message unsteered
/new                  begin another conversation
/help                 this list
/quit                 end, as Ctrl-D does; Ctrl-C stops an answer"""


@options.verb("chat")
@options.vector
@click.option("-d", "--dose", type=types.NUMBER, help="Strength (default: as calibrated).")
@options.no_keep
@options.steering
@options.writing(200, template=False)
@options.seed
@options.lab
@options.quiet
def chat_command(
    expression: str | None,
    dose: float | None,
    no_keep: bool,
    where: dict[str, Any],
    sampling: Sampling,
    seed: int,
    lab: Lab,
) -> None:
    """Talk with a chat model while a vector steers it.

    \b
    steerlab chat -v love --dose 0.2
    steerlab chat -v "love - anger" < questions.txt

    A line is a message, or a command such as /dose 0.3, /steer anger, /off, /baseline; /help
    lists them. Answers are written with the model's chat template. Ctrl-C stops an answer and
    keeps what came, Ctrl-D ends. From a pipe, each line is a message. What was said is kept as a
    run after every answer, and a change of the steering begins another.
    """
    from steerlab.lab.chat import Chat

    if dose is not None and expression is None:
        raise click.UsageError("which vector? give --vector EXPR")
    talk = _Talk(Chat(lab, sampling, seed=seed, **where), keep=not no_keep)
    load(lab, None if expression is None else lab.evaluate(expression))
    if expression is not None:
        talk.chat.steer(expression, dose)
    talk.tell()
    asking = sys.stdin.isatty()
    try:
        for line in _typed() if asking else sys.stdin:
            try:
                if talk.take(line.strip()):
                    break
            except SteerlabError as error:
                if not asking:
                    raise
                output.warn(str(error))
    finally:
        talk.close()


class _Talk:
    """What lines do to a conversation."""

    def __init__(self, chat: Chat, *, keep: bool) -> None:
        self.chat, self.keep = chat, keep
        self.run: Run | None = None
        self.commands: dict[str, Callable[[str], object]] = {
            "steer": self._steer,
            "dose": self._dose,
            "off": self._off,
            "baseline": self._baseline,
            "new": lambda _: self.close(),
            "help": lambda _: click.echo(HELP, err=True),
        }

    def take(self, line: str) -> bool:
        """Answer a message or obey a command; True if that ends the conversation."""
        name, _, rest = line.removeprefix("/").partition(" ")
        if not line.startswith("/"):
            if line:
                self._write(lambda *feed: self.chat.say(line, *feed))
            return False
        if name in ("quit", "exit", "q"):
            return True
        if name not in self.commands:
            raise BadOption(f"there is no command /{name}: /help lists them")
        self.commands[name](rest.strip())
        return False

    def tell(self) -> None:
        """Say what is on."""
        from steerlab.lab.operating_point import beyond_safe

        setting = self.chat.setting
        layers = f"  {layers_text(setting.layers)}" if setting.layers else ""
        output.say(f"── {heading(setting)}{layers}")
        if text := beyond_safe(self.chat.calibration, setting.layers, setting.dose):
            output.warn(text)

    def close(self) -> None:
        """Say which run holds what was said, and begin anew."""
        self._say_kept()
        self.chat.restart()

    def _say_kept(self) -> None:
        if self.run is not None:
            output.say(f"kept as run {self.run.id}")
        self.run = None

    def _save(self) -> None:
        """Keep what was said so far as a run: the terminal may be closed at any time."""
        runs, run = self.chat.lab.store.runs, self.chat.run() if self.keep else None
        if run is not None:
            self.run = runs.save(run) if self.run is None else runs.replace(self.run, run)

    def _steer(self, expression: str) -> None:
        if not expression:
            raise BadOption("which vector? /steer EXPR")
        self._changed(lambda: self.chat.steer(expression))

    def _dose(self, text: str) -> None:
        (dose,) = types.finite(text, [text], "a dose")
        self._changed(lambda: self.chat.at_dose(dose))

    def _off(self, _: str) -> None:
        self._changed(self.chat.off)

    def _changed(self, change: Callable[[], object]) -> None:
        """Change the steering; what was said under the former one is a run of its own."""
        change()
        if self.run is not None:
            self._say_kept()
            self.chat.kept()
        self.tell()

    def _baseline(self, _: str) -> None:
        output.say("── baseline")
        self._write(self.chat.unsteered)

    def _write(self, write: Callable[[OnPiece, Interrupt], Completion]) -> None:
        """Print a text as it is written; Ctrl-C stops it."""
        with interruptible() as stop:
            made = write(lambda piece: click.echo(printable(piece, newlines=True), nl=False), stop)
        click.echo()
        self._save()
        if not made.text:
            output.say("the model ended its answer at once: the message is left out")
        if stop.fired and not sys.stdin.isatty():
            stop.check("cancelled; the text so far is kept")


def _typed() -> Iterator[str]:
    """Lines from a terminal, with a history across sessions; Ctrl-C drops a line."""
    with _history():
        while True:
            try:
                yield input("> ")
            except EOFError:
                click.echo()
                return
            except KeyboardInterrupt:
                click.echo()


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Readline's editing and history, where Python has readline."""
    try:
        import readline
    except ImportError:
        yield
        return
    from steerlab.files.location import cache_directory

    file = cache_directory() / "chat_history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(0o600)
            readline.write_history_file(file)
