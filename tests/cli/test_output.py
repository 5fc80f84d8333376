"""Tables, numbers and text, in a pipe and in a terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest

from steerlab.cli import output, progress
from steerlab.core import display
from steerlab.core.display import printable, size_text


def table(capsys, monkeypatch, room, rows, **options):
    monkeypatch.setattr(output, "width", lambda: room)
    columns = ["name", "n", "text"]
    output.table(columns, rows, right=["n"], **options)
    return capsys.readouterr().out.splitlines()


def test_columns_are_aligned_and_nothing_trails(capsys, monkeypatch):
    rows = [["a", "1", "x y"], ["bcd", "-10", ""]]
    assert table(capsys, monkeypatch, None, rows) == [
        "name    n  text",
        "a       1  x y",
        "bcd   -10",
    ]


def test_ideographs_are_two_wide(capsys, monkeypatch):
    lines = table(capsys, monkeypatch, None, [["漢字漢", "1", "x"], ["abcdef", "1", "x"]])
    assert lines[1:] == ["漢字漢  1  x", "abcdef  1  x"]


def test_a_pipe_has_no_width(capsys, monkeypatch):
    lines = table(capsys, monkeypatch, None, [["a", "1", "word " * 100]], wrap=["text"])
    assert len(lines) == 2


def test_text_is_folded_between_words(capsys, monkeypatch):
    rows = [["a", "1", "one two three four five"]]
    assert table(capsys, monkeypatch, 24, rows, wrap=["text"]) == [
        "name  n  text",
        "a     1  one two three",
        "         four five",
    ]


def test_long_words_are_broken(capsys, monkeypatch):
    lines = table(capsys, monkeypatch, 24, [["a", "1", "see " + "x" * 30]], wrap=["text"])
    assert lines[1:] == ["a     1  see", " " * 9 + "x" * 15, " " * 9 + "x" * 15]


def test_text_is_cut_where_asked(capsys, monkeypatch):
    lines = table(capsys, monkeypatch, 20, [["a", "1", "one two three four"]], cut=["text"])
    assert lines[1] == "a     1  one two th…"
    assert max(map(len, lines)) == 20


@pytest.mark.parametrize("room", [1, 10, 20, 40])
def test_numbers_are_never_cut(capsys, monkeypatch, room):
    rows = [["a name that is long", "123.456", "and some text"]]
    lines = table(capsys, monkeypatch, room, rows, wrap=["name"], cut=["text"])
    assert "123.456" in lines[1]


def test_numbers_are_short_and_even():
    assert [display.number(x) for x in (66.0, 65.94, 109.2, 0.4, 0.0, None)] == [
        "66.0",
        "65.9",
        "109",
        "0.400",
        "0",
        "-",
    ]
    assert [display.signed_dose(x) for x in (0.15, -0.2, 0, None, 35311.7, 1e-9, -1e300)] == [
        "+0.15",
        "-0.20",
        "0",
        "-",
        "+3.5e+04",
        "+1e-09",
        "-1e+300",
    ]
    assert [display.signed(x) for x in (0, 2, -0.31499, 1e39)] == ["0", "+2", "-0.315", "+1e+39"]


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (93_400_000, "93.4 MB"),
        (12_345_678_901, "12.3 GB"),
    ],
)
def test_bytes_are_said_as_people_say_them(size, said):
    assert size_text(size) == said


def test_escapes_become_visible():
    assert printable("a\x1b[0m\u202e\x9b\n") == r"a\x1b[0m\u202e\x9b\n"
    assert printable("a\nb\r", newlines=True) == "a\nb\\r"
    assert printable("ärgstes 漢字 [bold]") == "ärgstes 漢字 [bold]"


def in_terminal(store: Path, *arguments, columns=60, code=0, stdout=None, **environment) -> str:
    """What a command prints in a terminal of its own; stdout: where that goes instead."""
    pty = pytest.importorskip("pty")
    main, follower = pty.openpty()
    names = ("TERM", "COLUMNS", "NO_COLOR", "FORCE_COLOR")
    env = {k: v for k, v in os.environ.items() if k not in names}
    env |= {"TERM": "xterm", "COLUMNS": str(columns), "LINES": "30"} | environment
    env["STEERLAB_STORE"] = str(store)
    command = [sys.executable, "-m", "steerlab", *arguments]
    out = follower if stdout is None else stdout
    process = subprocess.Popen(command, stdin=follower, stdout=out, stderr=follower, env=env)
    os.close(follower)
    shown = b""
    try:
        while chunk := os.read(main, 65536):
            shown += chunk
    except OSError:  # Linux ends a terminal so
        pass
    finally:
        os.close(main)
    assert process.wait(timeout=60) == code, shown
    return shown.decode()


def test_a_terminal_gets_colour_and_its_width(store):
    shown = in_terminal(store.path, "list")
    assert "\x1b[1mname" in shown
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert all(len(line) <= 60 for line in plain)
    assert "…" in shown


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_is_left_out_on_request(store, environment):
    assert "\x1b" not in in_terminal(store.path, "show", "love", **environment)


def test_a_bar_makes_way_for_what_is_printed_and_comes_back_with_progress(monkeypatch):
    now, shown = [10.0], Mock()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = progress.Bar("verifying", shown)
    bar.hide()
    shown.stop.assert_called_once_with()
    bar(1, 3)
    shown.start.assert_not_called()  # another problem may be printed right away
    now[0] += 1
    bar(2, 3)
    shown.start.assert_called_once_with()
    assert [call.kwargs["completed"] for call in shown.update.call_args_list] == [1, 2]
    silent = progress.Bar("verifying", None)
    silent.hide()
    silent(1, 3)


@pytest.mark.parametrize("columns", [90, 40])
def test_generate_streams_beside_or_below_the_baseline(store, columns):
    options = ["-v", "love", "-c", "0.3", "-n", "4"]
    shown = in_terminal(store.path, "generate", "Hi there", *options, columns=columns)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    headings = [line for line in plain.splitlines() if "love.v1  c +0.3" in line]
    assert headings
    assert all(("baseline" in line) == (columns == 90) for line in headings)
    assert "Hi there" in plain


@pytest.mark.parametrize("room", [None, 80])
def test_a_note_of_megabytes_is_printed_in_one_go(monkeypatch, capsys, room):
    """It took minutes, as each letter was measured with all before it."""
    monkeypatch.setattr(output, "width", lambda: room)
    note = "0" * 2_000_000
    output.fields([("tags", "a"), ("note", note)])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "tags  a"
    assert "".join(line[6:] for line in lines) == note
    assert max(map(len, lines)) == (room or 6 + len(note))
