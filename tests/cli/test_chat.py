"""chat: a conversation with a vector on, typed or piped."""

from __future__ import annotations

import io
import signal
from itertools import chain

import pytest

from steerlab import LanguageModel, steering
from steerlab.cli import ExitCode, chat, progress
from steerlab.core.prompts import Conversation


@pytest.fixture
def piped(cli, monkeypatch, model_dir):
    def call(text, *arguments):
        monkeypatch.setattr("sys.stdin", io.StringIO(text))
        return cli("chat", "-n", "4", "--model", model_dir, *arguments)

    return call


@pytest.fixture
def typed(cli, monkeypatch, model_dir):
    """Lines as they are typed in a terminal; an exception is a key."""

    def call(lines, *arguments):
        terminal = io.StringIO()
        terminal.isatty = lambda: True
        monkeypatch.setattr("sys.stdin", terminal)
        keys = chain(lines, [EOFError()])

        def read(prompt):
            key = next(keys)
            if isinstance(key, BaseException):
                raise key
            return key

        monkeypatch.setattr("builtins.input", read)
        return cli("chat", "-n", "4", "--model", model_dir, *arguments)

    return call


def test_answers_are_what_python_writes_and_see_what_was_said(piped, store, model_dir):
    result = piped("Hi there\n\nGo on\n", "-v", "love", "--dose", "0.2")
    lm, love = LanguageModel.load(str(model_dir)), store.load("love")
    with steering(lm, love, dose=0.2):
        one = lm.generate("Hi there", chat=True, max_new_tokens=4).text
        said = (("user", "Hi there"), ("assistant", one), ("user", "Go on"))
        two = lm.generate(Conversation(said), chat=True, max_new_tokens=4).text
    assert result.out == f"{one}\n{two}\n"
    run = store.runs.get(1)
    assert run.prompt == f"user: Hi there\nassistant: {one}\nuser: Go on"
    assert [(g.text, g.dose) for g in run.generations] == [(two, pytest.approx(0.2))]
    assert (run.expression, run.layers, run.sampling.chat) == ("love", "1,2", True)
    assert "kept as run 1" in result.err


def test_commands_change_the_steering_and_each_has_its_run(piped, store):
    said = "Hi\n/dose 0.3\nHi\n/baseline\n/steer 0.1*anger\nHi\n/off\nHi\n/quit\nHi\n"
    result = piped(said, "-v", "love", "-d", "0.1")
    assert result.code == ExitCode.OK
    runs = store.runs.list()[::-1]
    assert [run.expression for run in runs] == ["love", "love", "0.1*anger", ""]
    assert [len(run.generations) for run in runs] == [1, 2, 1, 1]
    assert runs[1].generations[0].coefficient == 0
    assert runs[1].generations[1].dose == pytest.approx(0.3)
    assert runs[3].prompt.count("user: Hi") == 4
    assert "── 0.1 * anger.v1  c +1" in result.err
    assert "── baseline" in result.err


def test_new_forgets_and_nothing_is_kept_unless_wanted(piped, store):
    piped("Hi\n/new\nGo on\n")
    assert [run.prompt for run in store.runs.list()] == ["user: Go on", "user: Hi"]
    result = piped("Hi\n", "--no-keep")
    assert len(store.runs.list()) == 2
    assert "kept" not in result.err


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("/foo", "there is no command /foo: /help lists them"),
        ("/steer nolove", "no vector called nolove"),
        ("/steer", "which vector? /steer EXPR"),
        ("/dose much", "'much' is not a dose"),
        ("/dose 0.2", "no vector is on: /steer EXPR turns one on"),
        ("/baseline", "nothing was answered yet"),
    ],
)
def test_a_slip_ends_a_script_and_is_a_line_in_a_terminal(piped, typed, line, why):
    result = piped(f"{line}\nHi\n")
    assert result.code in (ExitCode.BAD_INPUT, ExitCode.NOT_FOUND)
    assert (result.out, why in result.err) == ("", True)
    result = typed([line, "Hi"])
    assert result.code == ExitCode.OK
    assert result.out.strip()
    assert f"warning: {why}" in result.err


def test_keys_of_a_terminal(typed, store, monkeypatch, tmp_path):
    monkeypatch.setenv("STEERLAB_CACHE", str(tmp_path / "cache"))
    asked = []

    def stop(self):
        asked.append(None)
        if len(asked) == 2:
            signal.raise_signal(signal.SIGINT)
        return self.fired

    monkeypatch.setattr(progress.Interrupt, "__call__", stop)
    result = typed([KeyboardInterrupt(), "Hi", "/help"])
    assert result.code == ExitCode.OK
    (run,) = store.runs.list()
    assert run.generations[0].finish == "cancelled"  # what came is the answer
    assert run.generations[0].tokens == 2
    assert chat.HELP in result.err


def test_what_was_said_is_kept_before_the_conversation_ends(typed, store):
    """A closed terminal or a kill then loses nothing that was answered."""
    seen = []

    def lines():
        for line in ("Hi", "Go on", "/baseline"):
            yield line
            seen.append(store.runs.list())

    result = typed(lines())
    assert [[run.id for run in runs] for runs in seen] == [[1], [1], [1]]
    assert [runs[0].prompt.count("user: ") for runs in seen] == [1, 2, 2]
    assert [len(runs[0].generations) for runs in seen] == [1, 1, 2]
    assert result.err.count("kept as run 1") == 1


def test_a_dose_needs_a_vector(refused):
    assert "which vector? give --vector EXPR" in refused(ExitCode.USAGE, "chat", "-d", "0.1")
