"""What --help says, what Tab completes, what the README lists."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from click.shell_completion import BashComplete

from steerlab import __version__
from steerlab.cli import SECTIONS, ExitCode, cli, run

VERBS = {name: entry for verbs in SECTIONS.values() for name, entry in verbs.items()}
README = Path(__file__).parents[2] / "README.md"


def command_of(name):
    return cli.get_command(click.Context(cli), name)


def printed(capsys, *arguments):
    assert run(list(arguments)) == ExitCode.OK
    return capsys.readouterr().out


def test_help_lists_every_verb_with_its_line(capsys):
    text = printed(capsys, "--help")
    for name, (_, line) in VERBS.items():
        assert re.search(rf"^  {name} +{re.escape(line)}$", text, re.M), name
    for section in SECTIONS:
        assert f"{section}:" in text
    assert printed(capsys, "-h") == text


def test_help_is_a_verb_after_any_option(capsys):
    compose = printed(capsys, "compose", "--help")
    assert printed(capsys, "--store", "anywhere", "help", "compose") == compose
    for words in (["help"], ["help", "help"], ["--store", "anywhere", "help"]):
        assert printed(capsys, *words) == printed(capsys, "--help")


def test_version(capsys):
    assert printed(capsys, "--version") == f"steerlab {__version__}\n"


@pytest.mark.parametrize("name", VERBS)
def test_the_line_is_the_docstrings_first(name):
    command = command_of(name)
    assert command.name == name
    assert command.help.splitlines()[0] == VERBS[name][1]


@pytest.mark.parametrize("name", VERBS)
def test_help_of_a_verb_explains_every_option(capsys, name):
    text = printed(capsys, name, "--help")
    for parameter in command_of(name).params:
        if isinstance(parameter, click.Option):
            assert all(option in text for option in parameter.opts), parameter.opts
            plain = parameter.show_default or isinstance(parameter.type, click.Choice)
            assert parameter.help or plain, parameter.opts


@pytest.mark.parametrize("name", VERBS)
def test_examples_in_help_are_commands(name):
    for line in command_of(name).help.splitlines():
        if line.strip().startswith("steerlab "):
            assert line.split()[1] in VERBS


def test_every_command_has_a_section():
    modules = {entry[0] for entry in VERBS.values()}
    found = set()
    for module in modules:
        source = (Path(__file__).parents[2] / "steerlab" / "cli" / f"{module}.py").read_text()
        found |= set(re.findall(r'@options\.verb\(\s*"(\w+)"', source))
    assert found == set(VERBS)


def test_the_readme_lists_every_verb():
    rows = [line for line in README.read_text("utf-8").splitlines() if line.startswith("| `")]
    listed = {verb for row in rows for verb in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert listed == set(VERBS)


def test_an_unknown_verb_offers_the_closest(refused):
    assert "did you mean compose?" in refused(ExitCode.USAGE, "compse", "love")
    assert "did you mean list?" in refused(ExitCode.USAGE, "lst")
    assert "did you mean remove?" in refused(ExitCode.USAGE, "delete", "love")
    assert "did you mean generate?" in refused(ExitCode.USAGE, "steer", "love")
    assert "there is no command 'xyzzy' (see" in refused(ExitCode.USAGE, "xyzzy")
    assert "--wrong" in refused(ExitCode.USAGE, "--wrong")
    assert "--wrong" in refused(ExitCode.USAGE, "list", "--wrong")


def test_no_arguments_show_the_help(capsys):
    assert run([]) == ExitCode.USAGE
    assert "Make and combine" in "".join(capsys.readouterr())


def completed(*words):
    complete = BashComplete(cli, {}, "steerlab", "_STEERLAB_COMPLETE")
    return [item.value for item in complete.get_completions(list(words[:-1]), words[-1])]


def test_tab_completes_verbs():
    assert completed("com") == ["compose"]
    assert {"list", "show", "extract"} <= {*completed("")}


@pytest.mark.parametrize("verb", ["show", "compose", "tag", "rename", "remove", "export", "sweep"])
def test_tab_completes_names(store, verb):
    assert completed(verb, "l") == ["love"]
    assert completed(verb, "") == ["anger", "front", "love", "warm"]


def test_tab_completes_the_last_word_of_an_expression(store):
    assert completed("generate", "-v", "love - an") == ["love - anger"]
    assert completed("compose", "love", "-", "w") == ["warm"]


def test_tab_completes_models_and_choices(store):
    assert completed("list", "--model", "t") == ["tiny"]
    assert completed("list", "--kind", "c") == ["contrast"]


def test_tab_looks_into_the_named_store(store, tmp_path):
    assert completed("show", "--store", str(tmp_path / "none"), "") == []
    assert completed("show", "--store", str(store.path), "w") == ["warm"]


def test_tab_is_silent_where_a_store_is_broken(store):
    for file in store.path.glob("registry.db*"):
        file.unlink()
    (store.path / "registry.db").write_bytes(b"no database" * 1000)
    assert completed("show", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_printed(monkeypatch, capsys, shell):
    monkeypatch.setenv("_STEERLAB_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit) as caught:
        run([])
    assert caught.value.code == 0
    assert "_STEERLAB_COMPLETE" in capsys.readouterr().out
