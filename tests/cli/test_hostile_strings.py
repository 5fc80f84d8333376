"""What a file says of itself is printed, never obeyed, by any verb, in a pipe and a terminal."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from steerlab import cli as command_line
from steerlab.cli import ExitCode, run
from steerlab.cli.output import print_json
from steerlab.registry import Store
from tests.cli.test_output import in_terminal
from tests.fuzz.stranger import EVIL, OBEYED, SHORT, TEXT, fill, write

OWN = re.compile(r"\x1b\[[0-9;]*m")
REFS = ("contrast", "array", "made", "orphan")
VERBS = [
    *(["list"], ["list", "--all-versions", "--json"], ["list", "needle"], ["models"]),
    *(["models", "--json"], ["search", "needle"], ["search", "needle", "--json"], ["map"]),
    *([verb, ref] for verb in ("show", "log", "tree", "similar") for ref in REFS),
    *([verb, "made", "--json"] for verb in ("show", "log", "tree", "similar")),
    *(["inspect", ref, "--no-model"] for ref in ("contrast", "made")),
    *(["diff", "contrast", "array"], ["runs"], ["runs", "1"], ["runs", "2"], ["runs", "--json"]),
    *(["verify"], ["verify", "--json"], ["doctor"], ["doctor", "--json"], ["du"], ["gc"]),
    *(["du", "--json"], ["sweeps"], ["compose", "contrast + array", "--dry-run"]),
    *(["compose", "contrast + orphan", "--as", "both"], ["show", TEXT], ["search", TEXT]),
    *(["list", TEXT], ["compose", TEXT], ["tag", "contrast", TEXT], ["note", "made", TEXT]),
    *(["rename", "array", "thing"], ["rename", "made", SHORT], ["remove", "contrast"]),
    *(["show", "contrast", "--model", SHORT], ["show", "contrast", "--store", SHORT]),
    *(["export", "made", f"{OBEYED}out.safetensors"], ["import", f"{OBEYED}out.safetensors"]),
    *(["import", f"{OBEYED}nowhere"], ["backup", f"{OBEYED}backup"], ["rebuild"], [SHORT]),
    *(["list", "--sort", SHORT], ["extract", "x", "--pairs", f"{SHORT}.json"], ["list"]),
    *(["evaluate", "contrast", "--suite", SHORT], ["calibrate", SHORT], ["report", SHORT]),
    *(["rederive", "made"], ["port", "made", "--model", SHORT], ["remove", "made", "--force"]),
]


@pytest.fixture
def store(tmp_path, monkeypatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STEERLAB_STORE", str(tmp_path / "store"))
    store = Store(tmp_path / "store")
    fill(store, tmp_path / "evil.safetensors")
    return store


def check(text: str) -> None:
    """Nothing but line ends and the program's own colours."""
    assert OBEYED not in text
    assert {c for c in OWN.sub("", text) if not c.isprintable()} <= {"\n"}


@pytest.mark.parametrize("colour", [None, True], ids=["pipe", "terminal"])
def test_every_verb_prints_text_and_obeys_none(store, capsys, monkeypatch, colour):
    monkeypatch.setattr(command_line, "_color", lambda: colour)
    if colour:
        monkeypatch.setattr("steerlab.cli.output.width", lambda: 90)
    shown = ""
    for verb in VERBS:
        code = run(verb)
        out, err = capsys.readouterr()
        assert code != ExitCode.INTERNAL, (verb, err)
        assert "Traceback" not in err
        check(out + err)
        shown += out
        if "--json" in verb and code in (ExitCode.OK, ExitCode.FAILED):
            json.loads(out)
    assert r"\x1b[35;5mevil" in shown
    assert "[@click=app.quit]" in shown
    assert ("\x1b[1m" in shown) == bool(colour)


@pytest.mark.parametrize("verb", [["list"], ["show", "contrast"]], ids=lambda v: v[0])
def test_a_terminal_is_told_nothing(store, verb):
    check(in_terminal(store.path, *verb, columns=100).replace("\r\n", "\n"))


def test_what_is_imported_and_left_out_is_said_as_text(store, capsys):
    assert run(["import", "evil.safetensors", "--store", "another"]) == ExitCode.OK
    junk = store.path / "payloads" / "aa" / f"{OBEYED}\x9b1m[red].safetensors"
    junk.parent.mkdir(exist_ok=True)
    junk.write_bytes(b"junk")
    shutil.copy("evil.safetensors", junk.with_name("twice.safetensors"))
    for verb in (["rebuild"], ["gc", "--grace", "0"], ["doctor"], ["verify"]):
        run(verb)
    out, err = capsys.readouterr()
    check(out + err)
    assert "left out" in err


def test_json_for_programs_says_the_same(capsys):
    print_json({EVIL: [TEXT, "漢 é \U0001f469\u200d\U0001f467 \U000e0001"]})
    out = capsys.readouterr().out
    check(out)
    assert "漢 é" in out
    assert json.loads(out) == {EVIL: [TEXT, "漢 é \U0001f469\u200d\U0001f467 \U000e0001"]}


def test_a_plot_holds_the_names_as_text(store, tmp_path, capsys):
    for verb in (["show", "contrast"], ["tree", "made"]):
        assert run([*verb, "--plot", "plot.svg"]) == ExitCode.OK, capsys.readouterr().err
        assert OBEYED not in Path("plot.svg").read_text("utf-8")
    check("".join(capsys.readouterr()))


def test_payload_names_never_lead_out_of_the_store(store, tmp_path):
    inside = {p for p in tmp_path.rglob("*") if store.path not in p.parents}
    assert {p.name for p in inside} == {"store", "evil.safetensors"}
    write(tmp_path / "evil.safetensors")
    assert all(os.path.realpath(p).startswith(str(store.path)) for p in store.path.rglob("*"))
    assert "pwned" not in os.listdir(sys.path[0] or ".")
