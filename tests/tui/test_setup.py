"""What is set up in the lab strip, as a value: kept, remembered, and typed as a command."""

import shlex
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.cli.forms import CommandLine
from steerlab.core.display import differing
from steerlab.core.run import Generation, Run
from steerlab.core.sampling import Sampling
from steerlab.errors import BadOption
from steerlab.tui.generation_text import heading, headings
from steerlab.tui.setup import COLUMNS, Pin, Setup, from_memory, setup_of

GENERATE = CommandLine().verb("generate")


def test_columns_stand_from_minus_to_plus_around_the_baseline():
    shares = {n: Setup("love", columns=n).shares for n in COLUMNS}
    assert shares == {2: (0, 1), 3: (-1, 0, 1), 5: (-1, -0.5, 0, 0.5, 1)}
    assert Setup("").shares == (0,)


@given(expression=st.text(max_size=20), prompt=st.text(min_size=1, max_size=30))
def test_the_command_survives_a_shell(expression, prompt):
    setup = Setup(f"love{expression}", prompt, dose=-0.25, columns=3, temperature=0.7, chat=True)
    words = shlex.split(setup.command(GENERATE, "some model"))
    assert words[-1] == prompt
    assert (words[-2] == "--") == prompt.startswith("-")
    assert f"--vector=love{expression}".rstrip() in words
    assert "--dose=0.25,-0.25" in words
    assert {"--temperature=0.7", "--chat", "--model=some model"} <= set(words)


def test_the_command_says_nothing_of_what_is_as_usual():
    assert (
        Setup("love").command(GENERATE)
        == "steerlab generate --vector=love --dose=0.2 'I think you are a'"
    )


def test_each_setting_has_a_command_of_its_own():
    pins = (Pin("joy -- x", None, 2.0), Pin("love", 0.1, 1.0, "21"))
    lines = Setup("love", pinned=pins, columns=5).command(GENERATE).splitlines()
    prompt = "'I think you are a'"
    assert lines == [
        f"steerlab generate '--vector=joy -- x' --coefficient=2 {prompt}",
        f"steerlab generate --vector=love --dose=0.1 --layers=21 --no-baseline {prompt}",
        f"steerlab generate --vector=love --dose=0.2 --no-baseline {prompt}",
    ]


def test_a_kept_run_gives_back_its_setup():
    generations = tuple(Generation(c, c / 5, "x") for c in (-2.0, 0.0, 2.0))
    run = Run(
        "love", "hi", "m", generations, layers="15", seed=3, sampling=Sampling(temperature=0.5)
    )
    setup = setup_of(run)
    assert (setup.columns, setup.dose, setup.coefficient) == (3, 0.4, 2.0)
    assert (setup.layers, setup.seed, setup.temperature) == ("15", 3, 0.5)


def test_a_run_that_was_steered_the_other_way_gives_back_its_sign():
    run = Run("love", "hi", "m", (Generation(0.0, 0.0, "x"), Generation(-2.0, -0.4, "y")))
    setup = setup_of(run)
    assert (setup.columns, setup.dose, setup.coefficient) == (2, -0.4, -2.0)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"columns": 4, "positions": "nowhere", "prompt": 3, "seed": "x", "chat": 1, "strange": []},
        {"dose": None, "temperature": True, "top_p": [1]},
    ],
)
def test_what_is_remembered_wrongly_takes_its_default(values):
    assert from_memory(values) == Setup()


def test_what_is_remembered_comes_back():
    setup = Setup("a + b", "p", 0.1, layers="3", positions="prompt", columns=5, temperature=1)
    assert from_memory(vars(setup)) == setup


@pytest.mark.parametrize(
    "options", [{"top_p": 0}, {"temperature": -1}, {"max_new_tokens": 0}, {"layers": "x"}]
)
def test_an_option_out_of_range_is_refused_before_a_model_is_loaded(options):
    with pytest.raises(BadOption):
        Setup("love", **options).check()


def test_headings():
    assert heading(0, 0) == "baseline"
    assert heading(-1.5, -0.2) == "c -1.5  dose -0.20"
    assert heading(2, None) == "c +2  dose ?"


def test_texts_with_settings_of_their_own_are_headed_by_vector_and_layers():
    texts = [Generation(0.0, 0.0, ""), Generation(1.0, 0.1, ""), Generation(2.0, 0.2, "")]
    run = Run("love", "hi", "m", tuple(texts), layers="21")
    assert headings(run) == ["baseline", "c +1  dose +0.10", "c +2  dose +0.20"]
    texts[1] = Generation(1.0, 0.1, "", expression="joy", layers="2:4")
    assert headings(replace(run, generations=tuple(texts))) == [
        "baseline", "joy layers 2:4  c +1  dose +0.10", "love layer 21  c +2  dose +0.20",
    ]  # fmt: skip
    texts[1] = Generation(1.0, 0.1, "", expression="love", layers="21")  # leave room for the dose
    assert headings(replace(run, generations=tuple(texts))) == headings(
        replace(run, generations=(texts[0], replace(texts[1], expression="", layers=""), texts[2]))
    )


def test_words_that_the_baseline_lacks_differ():
    assert differing(["a", "warm", "red", "house"], ["a", "cold", "red", "house"]) == [
        False,
        True,
        False,
        False,
    ]


def test_the_summary_leaves_the_layer_to_the_strength_line():
    assert Setup(layers="21").summary() == "40 tokens · greedy"
    assert Setup().summary() == "40 tokens · greedy"
