"""steerlab report: a page, with texts from the store or written for it."""

from __future__ import annotations

import re
import shlex

import pytest

from steerlab import LanguageModel, Store
from steerlab.cli import ExitCode
from steerlab.core.results import Calibration
from steerlab.report.examples import PROMPTS
from steerlab.report.page import snippets

SHORT = {"max_new_tokens": 3, "temperature": 0.0}


@pytest.fixture
def brief(monkeypatch):
    monkeypatch.setattr("steerlab.report.examples.SAMPLING", SHORT)


def strengths(text: str) -> list[str]:
    part = text[text.index("What it does to text") :]
    found = re.findall(r'<span class="strength">(?:dose )?([^<]+)<', part)
    return [x.replace("−", "-") for x in found]


def test_without_texts_they_are_written_baseline_in_the_middle(cli, tmp_path, brief):
    file = tmp_path / "love.html"
    result = cli("report", "love", "--html", file)
    assert result.code == ExitCode.OK, result.err
    assert result.out == ""
    assert f"wrote {file}" in result.err
    text = file.read_text("utf-8")
    assert strengths(text) == ["-0.20", "-0.10", "baseline", "+0.10", "+0.20"] * len(PROMPTS)
    assert "written for this page, layers 1-2" in text


def test_prompts_and_doses_can_be_given(cli, tmp_path, brief):
    file = tmp_path / "love.html"
    cli("report", "love", "--html", file, "--prompt", "One <b>", "--doses", "0.3,-0.3", "-q")
    text = file.read_text("utf-8")
    assert strengths(text) == ["-0.30", "baseline", "+0.30"]
    assert "One &lt;b&gt;" in text


def test_texts_that_are_kept_are_not_written_again(cli, tmp_path, monkeypatch):
    cli("sweep", "love", "--layers", "1,2", "--doses", "-0.2,0,0.2", "-n", "3")
    monkeypatch.setattr(LanguageModel, "generate", None)
    file = tmp_path / "love.html"
    assert cli("report", "love", "--html", file).code == ExitCode.OK
    text = file.read_text("utf-8")
    assert "sweep 1, layer 2" in text
    assert strengths(text) == ["-0.20", "baseline", "+0.20"]


def test_without_a_model_there_is_a_page_all_the_same(cli, tmp_path, monkeypatch):
    monkeypatch.setattr(LanguageModel, "load", None)
    file = tmp_path / "warm.html"
    file.write_text("before")
    assert cli("report", "warm", "--html", file, "--no-model").code == ExitCode.OK
    assert "No texts are stored" in file.read_text("utf-8")


def test_what_cant_be_is_one_line_before_any_work(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(LanguageModel, "load", None)
    file = tmp_path / "x.html"
    for code, words, arguments in (
        (ExitCode.USAGE, "must end in .html", ["love", "--html", tmp_path / "x.pdf"]),
        (ExitCode.USAGE, "there is no directory", ["love", "--html", tmp_path / "no" / "x.html"]),
        (ExitCode.USAGE, "Missing option '--html'", ["love"]),
        (
            ExitCode.USAGE,
            "leave out --no-model",
            ["love", "--html", file, "--no-model", "--doses", "1"],
        ),
        (ExitCode.NOT_FOUND, "lvoe", ["lvoe", "--html", file]),
    ):
        assert words in refused(code, "report", *arguments)
    assert not file.exists()


@pytest.mark.parametrize("layer", [None, 2, 3])  # 3 has to be made from the recipe
def test_the_lines_for_python_steer(store, layer, capsys):
    record = store.record("love")
    made = Calibration(record.digest, True, layer, 0.2, 1.0, (-0.2, 0.2)) if layer else None
    code = snippets(record, made)["python"]
    assert ("at_layers" in code) == (layer == 3)
    exec(code, found := {})
    assert found["vector"].layers == ((layer,) if layer else (1, 2))
    assert capsys.readouterr().out.strip()


def test_the_lines_for_the_shell_work(cli, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    generate, export, take = snippets(store.record("warm"))["shell"].splitlines()
    for line in (generate, export):
        _, *arguments = shlex.split(line, comments=True)
        assert cli(*arguments).code == ExitCode.OK
    monkeypatch.setenv("STEERLAB_STORE", str(tmp_path / "elsewhere"))
    assert cli(*shlex.split(take, comments=True)[1:]).code == ExitCode.OK
    assert Store(tmp_path / "elsewhere").names() == ["warm"]
