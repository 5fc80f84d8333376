"""generate and sweep."""

from __future__ import annotations

import pytest

from steerlab import Lab, LanguageModel, steering
from steerlab.cli import ExitCode
from steerlab.core.results import Calibration
from tests.saved import save_model

KEYS = {"prompt", "seed", "vector", "layers", "coefficient", "dose", "text", "finish"}


@pytest.fixture(scope="module")
def lm(model_dir):
    return LanguageModel.load(str(model_dir))


def test_baseline_and_steered_are_what_python_writes(cli, store, lm):
    data = cli("generate", "Hello there", "-v", "love", "-c", "0.5", "-n", "6", "--json").data
    assert all(set(cell) == KEYS for cell in data)
    assert [cell["vector"] for cell in data] == [None, "love.v1"]
    assert [cell["coefficient"] for cell in data] == [0, 0.5]
    assert [cell["layers"] for cell in data] == [[], [1, 2]]
    love = store.load("love")
    assert data[1]["dose"] == love.dose(0.5)
    assert data[0]["text"] == lm.generate("Hello there", max_new_tokens=6).text
    with steering(lm, love, coefficient=0.5):
        assert data[1]["text"] == lm.generate("Hello there", max_new_tokens=6).text


def test_the_model_is_the_vectors_own(cli):
    result = cli("generate", "Hi", "-v", "love - anger", "-c", "0.3", "-n", "2", "--json")
    assert result.data[1]["vector"] == "love.v1 - anger.v1"
    assert result.err == ""


def test_doses_are_met_with_their_sign(cli):
    data = cli("generate", "Hi", "-v", "love", "-d", "-0.2,0.3", "-n", "2", "--json").data
    assert [cell["dose"] for cell in data] == pytest.approx([0, -0.2, 0.3])


def test_without_a_strength_the_coefficient_is_one(cli):
    data = cli("generate", "Hi", "-v", "love", "-n", "2", "--json").data
    assert [cell["coefficient"] for cell in data] == [0, 1]


def test_a_strength_that_nobody_chose_is_a_warning_where_it_is_large(cli, store):
    store.save("strong", 3 * store.load("love"))
    err = cli("generate", "Hi", "-v", "strong", "-n", "2").err
    assert "has no calibrated strength here, and c 1 is dose +2." in err
    assert "give --dose 0.15" in err
    assert "calibrated" not in cli("generate", "Hi", "-v", "strong", "-n", "2", "-c", "1").err


def test_options_reach_the_generation(cli, lm, store):
    options = ["--temperature", "0.9", "--top-p", "0.8", "--top-k", "50", "--seed", "4"]
    options += ["--repetition-penalty", "1.2", "--chat", "--positions", "generated"]
    data = cli("generate", "Hi", "-v", "love", "-n", "5", *options, "--json").data
    sampling = {"temperature": 0.9, "top_p": 0.8, "top_k": 50, "repetition_penalty": 1.2}
    with steering(lm, store.load("love"), positions="generated"):
        expected = lm.generate("Hi", max_new_tokens=5, chat=True, seed=4, **sampling)
    assert data[1]["text"] == expected.text
    assert data[1]["seed"] == 4


def test_prompts_times_settings_in_order(cli):
    options = ["-v", "love", "-c", "-1,0,1", "-n", "2", "--no-baseline", "--json"]
    data = cli("generate", "one", "two", *options).data
    assert [(c["prompt"], c["coefficient"]) for c in data] == [
        (prompt, c) for prompt in ("one", "two") for c in (-1, 0, 1)
    ]


def test_text_stands_under_what_it_is(cli):
    result = cli("generate", "Hello there", "-v", "love", "-c", "0.5,1e5", "-n", "3")
    lines = result.out.splitlines()
    assert lines[0] == "── baseline"
    assert lines[1].startswith("Hello there")
    headings = [line for line in lines if line.startswith("── ")]
    assert headings[1].startswith("── love.v1  c +0.5  dose +")
    assert headings[2].startswith("── love.v1  c +1e+05  dose +")
    assert len(headings[2]) < 50


def test_audited_texts_have_their_tokens_below_changed_ones_marked(cli):
    options = ["-v", "love", "-c", "0.5", "-n", "3", "--positions", "generated", "--audit"]
    lines = cli("generate", "Hi\x1b", *options).out.splitlines()
    (baseline, said), (steered, what) = [(i, s) for i, s in enumerate(lines) if s.startswith("──")]
    assert (said, what[:26]) == ("── baseline", "── love.v1  c +0.5  dose +")
    assert lines[steered - 2] == "unsteered: no token was changed"
    assert lines[steered - 3].startswith(r"·H·i·\x1b → ·")
    assert lines[-2].startswith(r"·H·i█\x1b → █")
    assert "changed: 3 of 6 tokens, positions 2-4, layers 1-2, ‖Δ‖ 0." in lines[-1]
    assert "█" not in "".join(lines[baseline:steered])


def test_audited_json_has_every_pass_layer_and_position(cli, store):
    data = cli("generate", "Hi", "-v", "love", "-c", "0.5", "-n", "3", "--audit", "--json").data
    assert all(set(cell) == KEYS | {"audit"} for cell in data)
    assert data[0]["audit"]["changes"] == []
    audit = data[1]["audit"]
    assert len(audit["tokens"]) == 5
    assert [(c["pass"], c["layer"], c["positions"]) for c in audit["changes"]] == [
        (number, layer, positions)
        for number, positions in enumerate(([0, 1], [2], [3]))
        for layer in (1, 2)
    ]
    sizes = {b: 0.5 * norm for b, norm in store.load("love").norms().items()}
    for change in audit["changes"]:
        assert change["norms"] == pytest.approx([sizes[change["layer"]]] * len(change["norms"]))


def test_in_a_terminal_changed_tokens_are_on_colour(cli, monkeypatch):
    monkeypatch.setattr("steerlab.cli._color", lambda: True)
    out = cli("generate", "Hi", "-v", "love", "-n", "2", "--audit", "--no-baseline").out
    assert "\x1b[38;5;16m\x1b[48;5;202m█H\x1b[0m" in out


def test_without_a_vector_it_just_writes(cli, model_dir, lm):
    result = cli("generate", "Hi", "-n", "4", "--model", model_dir)
    assert result.out.startswith(f"── baseline\nHi{lm.generate('Hi', max_new_tokens=4).text}"[:14])


def test_front_vectors_generate(cli):
    data = cli("generate", "Hello there", "-v", "front", "-n", "2", "--json").data
    assert data[1]["layers"] == [1]


def test_layers_that_are_lacking_are_made(cli):
    data = cli("generate", "Hi", "-v", "warm", "--layers", "3", "-n", "2", "--json").data
    assert data[1]["layers"] == [3]
    assert data[1]["vector"] == "warm.v1"


def test_text_from_a_prompt_cant_control_the_terminal(cli, model_dir):
    result = cli("generate", "\x1b[31mred\x07[bold]", "-n", "2", "--model", model_dir)
    assert "\x1b" not in result.out
    assert r"\x1b[31mred\x07[bold]" in result.out


@pytest.mark.parametrize(
    ("code", "arguments", "says"),
    [
        (3, ["hi", "-v", "lvoe"], "did you mean love?"),
        (4, ["hi", "-v", "love -"], "it stops too early (column 7)"),
        (2, ["hi", "-v", "love", "-c", "nan"], "not finite"),
        (2, ["hi", "-v", "love", "-c", "1,inf"], "not finite"),
        (2, ["hi", "-v", "love", "-d", "1e999"], "not finite"),
        (2, ["hi", "-v", "love", "-c", ""], "not a list of numbers"),
        (2, ["hi", "-v", "love", "-c", "1", "-d", "1"], "not both"),
        (2, ["hi", "-c", "1"], "give --vector"),
        (2, ["hi", "--layers", "1"], "give --vector"),
        (2, ["hi", "-n", "0"], "--max-new-tokens"),
        (2, ["hi", "--positions", "middle"], "--positions"),
        (2, [], "Missing argument 'PROMPT...'"),
        (4, ["hi", "-v", "love - love", "-d", "0.1"], "the vector is zero"),
    ],
)
def test_what_is_refused_before_a_model_is_loaded(refused, monkeypatch, code, arguments, says):
    monkeypatch.setattr(LanguageModel, "load", None)
    assert says in refused(ExitCode(code), "generate", *arguments)


@pytest.mark.parametrize(
    ("code", "arguments", "says"),
    [
        (5, ["hi", "-v", "love", "-c", "1e39"], "logits became NaN or infinite"),
        (4, ["", "-v", "love"], "the prompt is empty"),
        (3, ["hi", "-v", "love", "--layers", "9"], "has no layer 9: its layers are 0 to 3"),
        (4, ["hi", "-v", "love", "--temperature", "nan"], "temperature"),
        (4, ["hi", "-v", "love", "--temperature", "-1"], "temperature"),
        (4, ["hi", "-v", "love", "--top-p", "0"], "top_p"),
        (4, ["hi", "-v", "love", "--repetition-penalty", "inf"], "repetition_penalty"),
        (4, ["hi", "-v", "love", "-n", "500"], "do not fit into the 128 positions"),
        (5, ["x", "-v", "love", "-c", "1e-12"], "changed nothing"),
    ],
)
def test_what_a_model_refuses(refused, code, arguments, says):
    assert says in refused(ExitCode(code), "generate", *arguments)


def test_a_prompt_shorter_than_a_front_tensor(refused, cli, model_dir):
    pair = ["--positive", "a long prompt", "--negative", "b"]
    cli("extract", "long", *pair, "--method", "actadd", "--layer", "1", "--model", model_dir)
    line = refused(ExitCode.MODEL, "generate", "hi", "-v", "long")
    assert "front" in line


def test_vectors_of_another_model_are_refused_unless_asked_for(cli, refused, other_dir):
    line = refused(ExitCode.MODEL, "generate", "hi", "-v", "love", "--model", other_dir)
    assert "--other-weights" in line
    options = ["-v", "love", "--model", other_dir, "--other-weights", "-n", "2"]
    assert cli("generate", "hi", *options).code == ExitCode.OK


def test_vectors_of_another_shape_are_refused(refused, tmp_path, capsys):
    wide = save_model(tmp_path / "wide", hidden_size=64)
    capsys.readouterr()
    line = refused(
        ExitCode.MODEL, "generate", "hi", "-v", "love", "--model", wide, "--other-weights"
    )
    assert "does not fit" in line


def test_the_named_model_decides_between_vectors_of_one_name(cli, both_models, other_dir, refused):
    data = cli("generate", "hi", "-v", "love", "--model", other_dir, "-n", "2", "--json").data
    assert data[1]["vector"] == "love.v1"
    assert "several models" in refused(ExitCode.BAD_INPUT, "generate", "hi", "-v", "love")


def test_sweep_is_layers_times_doses_with_one_baseline(cli):
    options = ["--layers", "1,3", "--doses", "-0.2,0,0.2", "-n", "3"]
    data = cli("sweep", "love", *options, "--prompt", "one", "--prompt", "two", "--json").data
    assert all(set(cell) == KEYS for cell in data)
    assert [(c["prompt"], c["layers"]) for c in data] == [
        (prompt, layers) for prompt in ("one", "two") for layers in ([], [1], [1], [3], [3])
    ]
    assert [c["dose"] for c in data[:5]] == pytest.approx([0, -0.2, 0.2, -0.2, 0.2])
    assert {c["vector"] for c in data} == {None, "love.v1"}


def test_sweep_equals_python(cli, store, model_dir, lm):
    options = ["--layers", "0,2", "--coefficients", "-0.5,0.5", "--prompt", "Hi there", "-n", "4"]
    data = cli("sweep", "love - anger", *options, "--seeds", "2", "--seed", "7", "--json",
               "--temperature", "1").data  # fmt: skip
    lab = Lab(store, lm)
    cells = lab.sweep(
        store.evaluate("love - anger"),
        [0, 2],
        ["Hi there"],
        coefficients=[-0.5, 0.5],
        seeds=[7, 8],
        max_new_tokens=4,
        temperature=1,
    )
    assert [cell.to_json() for cell in cells] == data


def test_sweep_prints_a_block_for_each_prompt(cli, tmp_path):
    (tmp_path / "p.txt").write_text("one\n\ntwo\n")
    result = cli("sweep", "love", "--prompts", "p.txt", "--coefficients", "-0.1,0,0.1", "-n", "3")
    blocks = [block.splitlines() for block in result.out.split("\n\n")]
    assert [block[0] for block in blocks] == ["one", "two"]
    for block in blocks:
        assert block[1].split() == ["layer", "c", "dose", "text"]
        assert block[2].split()[:3] == ["-", "0", "baseline"]
        assert [row.split()[:2] for row in block[3:]] == [
            [layer, c] for layer in "12" for c in ("-0.1", "+0.1")
        ]
    assert "compare layers at equal dose" in result.err


def test_sweep_has_defaults(cli):
    data = cli("sweep", "love", "-n", "1", "--json").data
    assert {c["prompt"] for c in data} == {"I think you are a"}
    doses = pytest.approx([0, *[-0.2, -0.1, 0.1, 0.2] * 2])
    assert [c["dose"] for c in data] == doses


@pytest.mark.parametrize(
    ("code", "arguments", "says"),
    [
        (2, ["love", "--doses", "inf"], "not finite"),
        (2, ["love", "--doses", ""], "not a list of numbers"),
        (2, ["love", "--doses", "1", "--coefficients", "1"], "not both"),
        (2, ["love", "--seeds", "3"], "give a --temperature"),
        (2, [], "Missing argument"),
        (3, ["love", "-", "agner"], "did you mean anger? (column 8)"),
        (3, ["love", "--prompts", "none.txt"], "no prompts file none.txt"),
        (4, ["love", "--prompts", "empty.txt"], "holds no prompt"),
        (4, ["love", "--prompts", "bytes.txt"], "not UTF-8"),
    ],
)
def test_what_sweep_refuses_before_a_model_is_loaded(
    refused, monkeypatch, tmp_path, code, arguments, says
):
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff")
    monkeypatch.setattr(LanguageModel, "load", None)
    assert says in refused(ExitCode(code), "sweep", *arguments)


def test_sweep_cant_remake_what_selects_its_layers(refused):
    line = refused(ExitCode.BAD_INPUT, "sweep", "love[1]", "--layers", "1,3")
    assert "selects its layers itself" in line


def test_no_chat_template_is_one_line(refused, tmp_path, capsys):
    from tests.tiny import tiny_lm

    lm = tiny_lm()
    lm.model.save_pretrained(tmp_path / "plain")
    tokenizer = lm.tokenizer.__class__(
        tokenizer_object=lm.tokenizer.backend_tokenizer, bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(tmp_path / "plain")
    capsys.readouterr()
    line = refused(ExitCode.MODEL, "generate", "hi", "--chat", "--model", tmp_path / "plain")
    assert "no chat template" in line


def test_what_works_at_the_layer_that_is_asked_for_is_not_said_to_fail(cli, store):
    one = store.save("one", store.load("love")[1])
    point = 0.3, 0.7, (0.0, 0.9)
    for made in (
        Calibration(one.digest, True, 1, *point),
        Calibration(one.digest, False, data={"candidates": [2, 3]}),
    ):
        store.results.save_calibration(made)
    at = ["-v", "one", "--layers", 1, "--max-new-tokens", 1]
    assert "as calibrated" in (said := cli("generate", "I am", *at).err)
    assert "not shown" not in said
    store.results.save_calibration(Calibration(one.digest, False, data={"candidates": [1]}))
    assert "not shown to work at any strength" in cli("generate", "I am", *at).err
