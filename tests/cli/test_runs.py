"""steerlab runs, and generate --keep."""

from dataclasses import replace

import pytest

from steerlab.core.run import Generation, Run
from steerlab.core.sampling import Sampling


@pytest.fixture
def kept(store) -> Run:
    texts = (Generation(0.0, 0.0, " plain"), Generation(-2.0, -0.4, " warm\n[b]\x1b[31m"))
    return store.runs.save(
        Run("love - anger", "I think\nyou", "tiny", texts, sampling=Sampling(temperature=0.7))
    )


def test_generate_keeps_its_texts_when_asked(cli, store, model_dir):
    options = ["-v", "love - 0.5*anger", "-c", "-1,1", "-n", "3", "--layers", "1:2", "--keep"]
    result = cli("generate", "hi", "you", *options)
    assert "kept as run 2" in result.err
    second, first = store.runs.list()
    assert (first.prompt, second.prompt) == ("hi", "you")
    assert [g.coefficient for g in first.generations] == [0, -1, 1]
    assert (first.layers, first.sampling.max_new_tokens) == ("1:2", 3)
    assert len(store.runs.list("anger")) == 2
    assert not cli("generate", "hi", "-n", "1", "--model", str(model_dir)).err.count("kept")


def test_runs_are_listed_in_a_table(cli, kept):
    lines = cli("runs").out.splitlines()
    assert lines[0].split() == ["run", "when", "expression", "dose", "prompt", "text"]
    assert "love - anger" in lines[1]
    assert "-0.40" in lines[1]
    assert "I think you" in lines[1]
    assert "\x1b" not in lines[1]
    assert cli("runs", "love").out.splitlines() == lines
    assert "no runs are kept" in cli("runs", "warm").err


def test_a_run_is_shown_whole_rated_and_removed(cli, kept):
    shown = cli("runs", str(kept.id), "--best", "1").out
    assert "── 1  c -2  dose -0.40  * best" in shown
    assert "I think\nyou warm\n[b]\\x1b[31m" in shown
    assert cli("runs", "1", "--json").data["best"] == 1
    assert [run["id"] for run in cli("runs", "--json").data] == [1]
    assert cli("runs", "1", "--remove").out == "removed run 1\n"
    assert cli("runs", "--json").data == []


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["9"], 3, "there is no run 9"),
        (["nobody"], 3, "no vector called nobody"),
        (["--remove"], 2, "which run?"),
        (["1", "--best", "7"], 4, "texts 0 to 1"),
    ],
)
def test_what_can_not_be_is_one_line(cli, kept, arguments, code, line):
    result = cli("runs", *arguments)
    assert result.code == code
    assert line in result.err


def test_the_words_that_steering_changed_are_marked(cli, store, kept):
    run = store.runs.get(1)
    texts = (Generation(0.0, 0.0, " a calm sea"), Generation(1.0, 0.2, " a wild sea"))
    number = store.runs.save(replace(run, generations=texts)).id
    assert cli("runs", number, "--diff").out.splitlines()[-1].endswith(" a [wild] sea")
    assert " a calm sea" in cli("runs", number, "--diff").out
    alone = store.runs.save(replace(run, generations=texts[1:])).id
    assert "has no baseline" in cli("runs", alone, "--diff").err
    assert "which run?" in cli("runs", "--diff").err
