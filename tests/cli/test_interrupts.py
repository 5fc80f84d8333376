"""Ctrl-C: what came so far is shown, nothing is left behind, the exit code is 130."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from steerlab import LanguageModel
from steerlab.cli import ExitCode, progress


@pytest.fixture
def ctrl_c(monkeypatch):
    """Ctrl-C is pressed after a number of tokens."""

    def press_after(tokens: int) -> None:
        asked = []

        def call(self):
            asked.append(None)
            if len(asked) == tokens:
                signal.raise_signal(signal.SIGINT)
            return self.fired

        monkeypatch.setattr(progress.Interrupt, "__call__", call)

    return press_after


def test_generate_shows_what_came(cli, ctrl_c):
    ctrl_c(3)
    result = cli("generate", "Hi", "-v", "love", "--dose", "0.1", "-n", "50", "--json")
    assert result.code == ExitCode.CANCELLED
    assert {cell["finish"] for cell in json.loads(result.out)} == {"cancelled"}
    assert result.err == "steerlab: cancelled; the results so far are shown\n"


def test_generate_prints_what_came(cli, ctrl_c):
    ctrl_c(1)
    result = cli("generate", "Hi there", "-v", "love", "-n", "50")
    assert result.code == ExitCode.CANCELLED
    assert result.out.count("Hi there") == 2


@pytest.mark.filterwarnings("always::steerlab.errors.SteerlabWarning")
def test_generate_keeps_a_text_in_which_nothing_was_due_yet(cli, ctrl_c):
    ctrl_c(1)
    result = cli("generate", "Hi there", "-v", "love", "--positions", "continuation", "-n", "50")
    assert result.code == ExitCode.CANCELLED
    assert result.out.count("Hi there") == 2
    assert "note: 1 text ended at the first token, so no position was 'continuation'" in result.err


def test_sweep_shows_what_came(cli, ctrl_c):
    ctrl_c(2)
    result = cli("sweep", "love", "-n", "50")
    assert result.code == ExitCode.CANCELLED
    assert "baseline" in result.out
    assert len(result.out.splitlines()) == 11  # prompt, header, baseline, 2 layers x 4 doses


def test_the_handler_is_taken_off(cli, ctrl_c):
    before = signal.getsignal(signal.SIGINT)
    ctrl_c(1)
    cli("generate", "Hi", "-v", "love", "-n", "5")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_press_stops_at_once():
    with progress.interruptible() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_extract_stores_nothing(cli, store, model_dir, monkeypatch):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    names = store.names()
    monkeypatch.setattr(LanguageModel, "reextract", pressed)
    pair = ["--positive", "a", "--negative", "b"]
    result = cli("extract", "x", *pair, "--model", model_dir)
    assert (result.code, result.out) == (ExitCode.CANCELLED, "")
    assert result.err.strip() == "steerlab: cancelled"
    assert store.names() == names


def test_loading_can_be_cancelled(cli, monkeypatch):
    def pressed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(LanguageModel, "load", pressed)
    result = cli("generate", "Hi", "-v", "love")
    assert (result.code, result.out) == (130, "")
    assert result.err.strip() == "steerlab: cancelled"


def test_ctrl_c_while_python_exits_leaves_no_traceback():
    program = (
        "import atexit, os, signal, sys; from steerlab.cli import main\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['steerlab', '--version']\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.startswith("steerlab")
    assert done.stderr == ""
    assert done.returncode == -signal.SIGINT
