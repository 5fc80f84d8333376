"""extract."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from steerlab import LanguageModel
from steerlab.cli import ExitCode

PAIR = ["--positive", "I feel calm", "--negative", "I feel tense"]


@pytest.fixture
def extract(cli, model_dir):
    return lambda *arguments: cli("extract", *arguments, "--model", model_dir)


def test_it_stores_what_python_extracts(extract, store, model_dir):
    result = extract("calm", *PAIR, "--tag", "mood", "--note", "a note")
    assert result.code == ExitCode.OK, result.err
    assert result.out.startswith(
        "calm.v1  1 contrast pair, mean_difference, last token\nlayer 2, norm "
    )
    lm = LanguageModel.load(str(model_dir))
    assert store.load("calm") == lm.extract([("I feel calm", "I feel tense")])
    assert (store.record("calm").tags, store.record("calm").note) == (("mood",), "a note")


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ([], (2,)),
        (["--layer", "0"], (0,)),
        (["--layers", "1,3"], (1, 3)),
        (["--layers", "1:3"], (1, 2)),
        (["--layers", "::2"], (0, 2)),
        (["--layers", "all"], (0, 1, 2, 3)),
    ],
)
def test_layers(extract, store, options, layers):
    assert extract("calm", *PAIR, *options).code == ExitCode.OK
    assert store.load("calm").layers == layers


@pytest.mark.parametrize("method", ["mean_difference", "actadd", "pca", "probe", "random"])
def test_methods(extract, store, method):
    more = ["--seed", "3"] if method == "random" else []
    pairs = PAIR if method == "actadd" else [*PAIR, "--positive", "so calm", "--negative", "so mad"]
    result = extract("calm", *pairs, "--method", method, *more)
    assert result.code == ExitCode.OK, result.err
    assert store.record("calm").recipe.method == method


def test_mean_centred_on_a_file(extract, store, tmp_path):
    (tmp_path / "plain.csv").write_text("positive\nthe table\na chair\n")
    options = ["--method", "mean_centred", "--positive", "I feel calm", "--baseline", "plain.csv"]
    assert extract("calm", *options).code == ExitCode.OK
    assert store.record("calm").recipe.baseline == ("the table", "a chair")


@pytest.mark.parametrize("read", ["last", "mean", "-2", "9"])
def test_reads(extract, store, read):
    assert extract("calm", *PAIR, "--read", read).code == ExitCode.OK
    assert str(store.record("calm").recipe.read) == read


def test_chat(extract, store):
    assert extract("calm", *PAIR, "--chat").code == ExitCode.OK
    assert store.record("calm").recipe.chat


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.jsonl", '{"positive": "so good", "negative": "so bad"}\n'),
        ("p.json", '[{"positive": "so good", "negative": "so bad"}]'),
        ("p.csv", "positive,negative\nso good,so bad\n"),
        ("p.toml", 'positive = ["so good"]\nnegative = ["so bad"]\n'),
    ],
)
def test_pairs_from_a_file(extract, store, tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert extract("x", "--pairs", name).code == ExitCode.OK
    recipe = store.record("x").recipe
    assert (recipe.positive, recipe.negative) == (("so good",), ("so bad",))


def test_json_is_the_record(extract, store):
    data = extract("calm", *PAIR, "--json").data
    assert data == json.loads(json.dumps(store.record("calm").to_json()))


def test_a_taken_name_gets_its_next_version(extract, store):
    before = store.load("love")
    assert "love.v2" in extract("love", *PAIR).out
    assert store.load("love.v1") == before


def test_json_and_quiet_narrate_nothing(extract):
    assert extract("a", *PAIR, "--json").err == ""
    assert extract("b", *PAIR, "-q").err == ""


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.jsonl", '{"positive": "a", "negative": "b"}\n{"positive":\n', "line 2: not JSON"),
        ("p.jsonl", '{"positive": "a"}\n{"positive": "a", "negative": "b"}\n', "line 1"),
        ("p.jsonl", "[1]\n", "entry 1: expected"),
        ("p.json", '{"positive": 3}', "entry 1: the positive prompt is"),
        ("p.csv", "good,bad,odd\na,b,c\n", "it has good, bad, odd; name two columns"),
        ("p.csv", "positive,negative\na,\n", "line 2"),
        ("p.toml", "positive = [\n", "not TOML"),
        ("p.csv", "a\n", "holds no prompts"),
        ("p.jsonl", "", "is empty"),
        ("p.json", '{"positive": ["a", "b"], "negative": ["c"]}', "2 positive but 1 negative"),
    ],
)
def test_a_pairs_file_that_is_not_what_it_says(refused, tmp_path, name, text, says):
    (tmp_path / name).write_text(text)
    line = refused(ExitCode.BAD_INPUT, "extract", "x", "--pairs", name)
    assert says in line
    assert name in line


def test_a_pairs_file_that_is_not_there_or_not_text(refused, tmp_path):
    assert "no pairs file" in refused(ExitCode.NOT_FOUND, "extract", "x", "--pairs", "no.csv")
    (tmp_path / "p.csv").write_bytes(b"positive\n\xff\xfe\n")
    line = refused(ExitCode.BAD_INPUT, "extract", "x", "--pairs", "p.csv")
    assert "line 2: not UTF-8" in line


@pytest.mark.parametrize(
    ("code", "options", "says"),
    [
        (4, ["--positive", "a", "--positive", "b", "--negative", "c"], "2 positive but 1 negative"),
        (4, ["--positive", "a"], "mean_difference needs negative prompts too"),
        (4, ["--positive", "a", "--method", "mean_centred"], "needs prompts to be centred on"),
        (4, [*PAIR, "--baseline", "plain.csv"], "baseline prompts are for mean_centred"),
        (4, [*PAIR, *PAIR, "--method", "actadd"], "actadd takes one pair of prompts, not 2"),
        (4, [*PAIR, "--method", "random", "--seed", str(2**63)], "a seed is a whole number"),
        (4, [*PAIR, "--tag", " "], "a tag can't be empty"),
        (4, [*PAIR, "--note", "\udcff"], "the note holds bytes that are not Unicode text"),
        (4, ["--positive", " ", "--negative", "c"], "positive prompt 1 is empty"),
        (4, ["--positive", "a", "--negative", ""], "negative prompt 1 is empty"),
        (4, [*PAIR, "--method", "random"], "seed"),
        (4, [*PAIR, "--read", "middle"], "middle"),
        (2, [], "give prompts by"),
        (2, [*PAIR, "--pairs", "p.csv"], "give prompts by"),
        (2, [*PAIR, "--layer", "1", "--layers", "1,2"], "not both"),
        (2, [*PAIR, "--layers", "3:1"], "as layers: write 15"),
        (2, [*PAIR, "--layers", "1:3:0"], "as layers: write 15"),
        (2, [*PAIR, "--layers", "a"], "as layers: write 15"),
        (2, [*PAIR, "--method", "magic"], "--method"),
    ],
)
def test_bad_prompts_and_options_are_refused_before_a_model_is_loaded(
    refused, monkeypatch, tmp_path, code, options, says
):
    monkeypatch.setattr(LanguageModel, "load", None)
    (tmp_path / "plain.csv").write_text("positive\nthe table\n")
    assert says in refused(ExitCode(code), "extract", "x", *options)


def test_a_store_that_cant_be_written_is_refused_before_a_model_is_loaded(
    refused, store, monkeypatch, tmp_path
):
    monkeypatch.setattr(LanguageModel, "load", None)
    shutil.copytree(store.path, tmp_path / "newer")
    with closing(sqlite3.connect(tmp_path / "newer" / "registry.db")) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
        raw.commit()
    line = refused(ExitCode.STORE, "extract", "x", *PAIR, "--store", "newer")
    assert "newer steerlab" in line


def test_a_model_that_cant_be_found_leaves_no_store_behind(refused, tmp_path):
    options = ["--store", "fresh", "--model", tmp_path / "none"]
    refused(ExitCode.MODEL, "extract", "x", *PAIR, *options)
    assert not (tmp_path / "fresh").exists()


@pytest.mark.parametrize("name", ["unit", "v2", "lambda", "a-b", "x" * 81, "\x1b[1m"])
def test_a_name_that_cant_be_one_is_refused_first(refused, name):
    assert "can't name a vector" in refused(ExitCode.BAD_INPUT, "extract", name, *PAIR)


@pytest.mark.parametrize("layer", ["4", "-1", "99"])
def test_a_layer_that_does_not_exist(refused, model_dir, layer):
    options = ["--layer", layer, "--model", model_dir]
    line = refused(ExitCode.NOT_FOUND, "extract", "x", *PAIR, *options)
    assert f"has no layer {layer}: its layers are 0 to 3" in line


def test_a_model_that_cant_be_found(refused, tmp_path):
    line = refused(ExitCode.MODEL, "extract", "x", *PAIR, "--model", tmp_path / "none")
    assert "there is no model directory" in line
    (tmp_path / "empty").mkdir()
    line = refused(ExitCode.MODEL, "extract", "x", *PAIR, "--model", tmp_path / "empty")
    assert "holds no transformers model" in line


def test_a_model_without_a_causal_head(refused, tmp_path, capsys):
    from transformers import CLIPTextConfig

    CLIPTextConfig().save_pretrained(tmp_path / "clip")
    capsys.readouterr()
    line = refused(ExitCode.MODEL, "extract", "x", *PAIR, "--model", tmp_path / "clip")
    assert "no causal head" in line


def test_options_of_loading_reach_the_model(extract, store, refused):
    options = ("--dtype", "bfloat16", "--device", "cpu", "--plain")
    assert extract("calm", *PAIR, *options).code == ExitCode.OK
    assert store.record("calm").model.dtype == "bfloat16"
    assert extract("calm", *PAIR, "--device", "abacus").code == ExitCode.BAD_INPUT


QUESTIONS = (
    '{"question": "Tea?\\n (A) yes\\n (B) no", "answer_matching_behavior": "(A)", '
    '"answer_not_matching_behavior": "(B)"}\n'
) * 2


class TestContrastFiles:
    def test_what_was_understood_is_said_before_it_runs(self, extract, store, tmp_path):
        (tmp_path / "q.jsonl").write_text(QUESTIONS)
        result = extract("tea", "--pairs", "q.jsonl", "--read", "answer_letter")
        assert result.code == ExitCode.OK, result.err
        assert result.err.startswith(
            "q.jsonl: 2 pairs, question + answer_matching_behavior against "
            "answer_not_matching_behavior, answers in the assistant's turn; in the chat template\n"
        )
        assert "read the prompts' answer letter: 'A', 'B'" in result.err
        recipe = store.record("tea").recipe
        assert recipe.chat
        assert recipe.answers == ("(A)", "(A)", "(B)", "(B)")

    def test_without_the_template(self, extract, store, tmp_path):
        (tmp_path / "q.jsonl").write_text(QUESTIONS)
        options = ["--pairs", "q.jsonl", "--read", "assistant_mean", "--no-chat"]
        assert extract("tea", *options).code == ExitCode.OK
        assert not store.record("tea").recipe.chat

    def test_unpaired_sets_give_a_difference_of_means(self, extract, store, tmp_path):
        (tmp_path / "up.txt").write_text("so good\nso kind\nso fine\n")
        (tmp_path / "down.txt").write_text("so bad\nso cruel\n")
        result = extract("x", "--pairs", "up.txt", "--against", "down.txt")
        assert result.code == ExitCode.OK, result.err
        assert result.err.startswith("up.txt: 3 against 2 prompts, unpaired")
        assert store.record("x").recipe.method == "difference_of_means"
        assert result.out.startswith("x.v1  3 against 2 prompts, difference_of_means")

    def test_typed_sets_may_differ_in_length_if_asked(self, extract, store):
        sides = ["--positive", "a", "--positive", "b", "--negative", "c"]
        assert extract("x", *sides, "--method", "difference_of_means").code == ExitCode.OK
        assert store.record("x").recipe.counts == (2, 1)

    def test_a_persona_with_suffixes(self, extract, store, tmp_path):
        (tmp_path / "s.json").write_text('["I went", "We are"]')
        words = ["--positive-word", "kind", "--negative-word", "cruel", "--suffixes", "s.json"]
        result = extract("x", "--template", "You are {}.", *words)
        assert result.code == ExitCode.OK, result.err
        assert store.record("x").recipe.positive == ("You are kind.",) * 2

    def test_columns(self, extract, store, tmp_path):
        (tmp_path / "p.csv").write_text("a,b,c\none,two,three\n")
        assert extract("x", "--pairs", "p.csv", "--columns", "c, a").code == ExitCode.OK
        assert store.record("x").recipe.positive == ("three",)

    def test_recipes_replay(self, cli, extract, store, tmp_path):
        (tmp_path / "q.jsonl").write_text(QUESTIONS)
        for read in ("user_last", "assistant_mean", "answer_letter"):
            pairs = ["--pairs", "q.jsonl", "--columns",
                     "answer_matching_behavior,answer_not_matching_behavior"]  # fmt: skip
            turn = ["--pairs-format", "pairs", "--turn", "user"] if read == "user_last" else []
            assert extract(read, *pairs, *turn, "--read", read).code == ExitCode.OK
        result = cli("verify", "--recipes")
        assert result.code == ExitCode.OK, result.err

    def test_a_large_set_is_named_by_its_recipe(self, cli, extract, store, tmp_path, monkeypatch):
        from steerlab.files.contrast import reader

        monkeypatch.setattr(reader, "EMBEDDED", 3)
        (tmp_path / "p.csv").write_text("good,bad\na day,a night\nso warm,so cold\n")
        made = extract("good", "--pairs", "p.csv")
        assert made.code == ExitCode.OK, made.err
        assert "keeps the set's path and digest; --embed-prompts keeps it whole" in made.err
        assert store.record("good").recipe.prompt_set.positive == 2
        assert "p.csv, sha256" in cli("show", "good").out
        assert cli("verify", "--recipes").code == ExitCode.OK
        assert extract("whole", "--pairs", "p.csv", "--embed-prompts").code == ExitCode.OK
        assert store.record("whole").recipe.positive == ("a day", "so warm")
        assert store.load("whole") == store.load("good")

    def test_ctrl_c_says_that_a_large_set_goes_on(self, extract, monkeypatch):
        from steerlab.extraction import runner

        def interrupted(*_, **__):
            raise KeyboardInterrupt

        monkeypatch.setattr(LanguageModel, "reextract", interrupted)
        assert "goes on" not in extract("x", *PAIR).err
        monkeypatch.setattr(runner, "LARGE", 1)
        result = extract("x", *PAIR)
        assert result.code == ExitCode.CANCELLED
        assert "stopped: the same command goes on where it was" in result.err

    @pytest.mark.parametrize(
        "options",
        [
            ["--template", "so {}"],
            ["--pairs", "p.csv", "--positive-word", "a", "--negative-word", "b"],
            [*PAIR, "--columns", "a,b"],
            [*PAIR, "--questions", "q.txt"],
        ],
    )
    def test_options_that_clash(self, refused, options):
        assert "give" in refused(ExitCode.USAGE, "extract", "x", *options)


@pytest.mark.parametrize(
    ("pairs", "options", "said"),
    [
        (1, (), "steerlab calibrate x.v1 --items FILE finds where it works\n"),
        (1, ("--method", "actadd"), "steerlab calibrate x.v1 --items FILE finds where it works\n"),
        (3, (), "calibrate x.v1 finds where it works; 3 pairs may be too few to tell, 16 usually"),
        (3, ("--method", "difference_of_means"), "x.v1 --items FILE finds where it works\n"),
    ],
)
def test_the_calibration_that_is_proposed_is_not_refused(extract, pairs, options, said):
    prompts = [
        word for n in range(pairs) for word in ("--positive", f"{n} yes", "--negative", f"{n} no")
    ]
    assert said in extract("x", *prompts, *options).err


def test_no_calibration_is_proposed_for_a_control(extract):
    assert "calibrate" not in extract("x", *PAIR, "--method", "random").err
