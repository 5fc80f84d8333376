"""Slips that once cost something."""

from __future__ import annotations

import pytest

from steerlab.cli import ExitCode
from steerlab.files.prompts import read_lines


@pytest.fixture
def names(store):
    def now():
        return sorted(vector.ref for vector in store.list(every_version=True))

    return now


def test_removing_several_is_all_or_nothing(cli, names):
    before = names()
    assert cli("remove", "front", "love").code == ExitCode.STORE
    assert cli("remove", "front", "nolove").code == ExitCode.NOT_FOUND
    assert names() == before


def test_removing_a_vector_with_all_that_was_made_from_it_needs_no_force(cli, names):
    assert cli("remove", "love", "love", "warm").code == ExitCode.OK
    assert names() == ["anger.v1", "front.v1"]


def test_two_formulas_never_become_versions_of_one_derived_name(cli, names):
    assert cli("compose", "love - (anger - warm)").code == ExitCode.OK
    before = names()
    clash = cli("compose", "love - anger - warm")
    assert clash.code == ExitCode.BAD_INPUT
    assert "--as" in clash.err
    assert names() == before
    assert cli("compose", "love - anger - warm", "--as", "other").code == ExitCode.OK


def test_prompt_files_break_at_line_ends_only(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffHello\u2028there\x0cof mine\r\n\nand you\n".encode())
    assert read_lines(path) == ["Hello\u2028there\x0cof mine", "and you"]


def test_extracting_the_same_again_is_already_stored(cli, names, model_dir):
    before = names()
    pairs = ["--positive", "so good", "--negative", "so bad", "--model", model_dir, "--layer", 1]
    assert cli("extract", "mood", *pairs).code == ExitCode.OK
    assert cli("extract", "mood", *pairs).code == ExitCode.OK
    assert names() == sorted([*before, "mood.v1"])


def test_the_tui_needs_a_terminal(cli):
    result = cli("tui")
    assert result.code == ExitCode.USAGE
    assert "needs a terminal" in result.err


@pytest.mark.parametrize("negative", ["so good", "so bad good"])
def test_a_vector_of_zeros_is_refused(cli, model_dir, names, negative):
    before = names()
    result = cli(
        *("extract", "mood", "--positive", "so good", "--negative", negative, "--read", "0"),
        *("--model", model_dir, "--layer", 1),
    )
    assert result.code == ExitCode.BAD_INPUT
    assert "direction is zero" in result.err
    assert names() == before


def test_a_vector_that_can_not_work_is_stored_with_a_warning(cli, model_dir):
    words = "one token long"
    result = cli(
        *("extract", "mood", "--positive", "a", "--negative", "b"),
        *("--model", model_dir, "--layer", 1),
    )
    assert result.code == ExitCode.OK
    assert words in result.err


def test_extract_says_which_token_it_read(cli, model_dir):
    where = ("--model", model_dir, "--layer", 1)
    made = cli("extract", "mood", "--positive", "so good", "--negative", "so bad", *where)
    assert made.code == ExitCode.OK
    assert "read the prompts' last token: 'd'" in made.err
    quiet = cli("extract", "mood", "--positive", "so good", "--negative", "so bad", *where, "-q")
    assert "read the" not in quiet.err


def test_undecided_layers_are_named_and_can_be_left_out(cli, model_dir):
    made = ("extract", "mood", "--method", "pca", "--model", model_dir, "--layers", "all")
    pairs = ("--positive", "one good", "--negative", "two good")  # layer 0 reads the same token
    refused = cli(*made, *pairs)
    assert refused.code == ExitCode.BAD_INPUT
    assert "at layer 0, " in refused.err
    kept = cli(*made, *pairs, "--skip-undecided")
    assert kept.code == ExitCode.OK
    assert "layer 0 left out" in kept.err


def test_a_chat_answer_begins_after_a_blank_line(cli, model_dir):
    made = cli("generate", "hello", "--chat", "--model", model_dir, "-n", 3)
    assert "hello\n\n" in made.out


def test_a_setting_that_adds_nothing_is_called_baseline(cli):
    made = cli("generate", "hello", "-v", "love", "-c", 0, "-n", 3)
    assert "baseline: love.v1 adds nothing at c 0" in made.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["generate", "Hi", "-v", "love", "--vector", "anger"], "--vector is given more than once"),
        (["generate", "Hi", "-v", "love", "-c", "1", "-c", "2"], "--coefficient=-1,1 lists"),
        (["list", "--tag", "a", "--tag", "b"], "--tag is given more than once"),
        (
            ["compose", "love", "-", "anger", "--as", "a", "--as", "b"],
            "--as is given more than once",
        ),
    ],
)
def test_an_option_that_holds_one_value_is_not_given_twice(cli, names, words, said):
    before, refused = names(), cli(*words)
    assert refused.code == ExitCode.USAGE
    assert said in refused.err
    assert names() == before


def test_options_that_add_up_are_given_as_often_as_wanted(cli):
    for words in ("compose love --as kept --tag a --tag b", "tag love x --remove --remove"):
        assert cli(*words.split()).code == ExitCode.OK


def test_h_after_two_dashes_is_text(cli, store):
    assert cli("note", "love", "--", "-h").code == ExitCode.OK
    assert store.record("love").note == "-h"


@pytest.mark.parametrize(
    "words",
    [["undo"], ["runs"], ["sweeps"], ["list", "--layer"], ["list", "--limit"], ["log", "--limit"]],
    ids=" ".join,
)
def test_a_number_that_sqlite_lacks_does_not_blame_the_store(refused, words):
    assert "a number is too large" in refused(ExitCode.STORE, *words, 2**63)


def test_a_store_without_a_name_is_not_the_working_directory(refused, store):
    assert "is empty" in refused(ExitCode.USAGE, "list", "--store", "")
    assert "is empty" in refused(ExitCode.USAGE, "--store", "", "list")
    file = store.path / "registry.db"
    assert "is a file" in refused(ExitCode.USAGE, "list", "--store", file)


@pytest.mark.parametrize(
    "verb", [["import"], ["export", "love"], ["backup"], ["restore"]], ids=lambda verb: verb[0]
)
def test_an_empty_path_is_not_the_working_directory(refused, verb):
    """A shell's variable that was never set: `steerlab import "$FILES"`."""
    assert "is empty" in refused(ExitCode.USAGE, *verb, "")


def test_an_empty_name_is_refused_rather_than_derived(refused, store):
    assert "can't name a vector ''" in refused(ExitCode.BAD_INPUT, "compose", "2*love", "--as", "")
    assert len(store.list(every_version=True)) == 4


@pytest.mark.parametrize("hours", ["nan", "inf", "1e308", "-1", "an"])
def test_an_impossible_time_of_grace_is_refused(refused, hours):
    assert "--grace" in refused(ExitCode.USAGE, "gc", "--grace", hours)


def test_a_path_with_a_line_break_is_one_line(cli, tmp_path):
    err = cli("list", "--store", tmp_path / "a\nb").err
    assert "a\\nb yet" in err
    assert err.count("\n") == 3


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["compose", "love - anger", "--name", "x"], "--as"),
        (["import", "x.gguf", "--name", "x"], "--as"),
        (["generate", "Hi", "-v", "love", "--strength", "0.2"], "--dose"),
        (["sweep", "love", "--alpha", "0.2"], "--doses"),
        (["generate", "Hi", "--max-tokens", "4"], "--max-new-tokens"),
        (["export", "love", "x", "--format", "gguf"], "--to"),
    ],
)
def test_an_option_of_other_programs_suggests_ours(cli, typed, meant):
    result = cli(*typed)
    assert result.code == ExitCode.USAGE
    assert f"Did you mean '{meant}'?" in result.err
