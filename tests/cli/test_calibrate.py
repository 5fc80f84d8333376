"""steerlab calibrate: a table, a verdict, and what generate and show make of it."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace

import pytest

from steerlab import Lab, LanguageModel, Store
from steerlab.cli import ExitCode, progress, run
from steerlab.cli.calibrate import _sound
from steerlab.core.recipe import Imported
from steerlab.core.results import Calibration
from steerlab.core.vector import SteeringVector
from steerlab.evaluation.calibration.curve import (
    Controls,
    Cost,
    Curve,
    Limits,
    Point,
    findings,
)
from steerlab.evaluation.statistics import Estimate
from tests.cli.conftest import Result
from tests.evaluation.planted import pairs, planted_lm

QUICK = ("--doses", "0.1,0.2", "--controls", 5, "--max-fluency", 100, "--max-kl", 5)
QUICK = (*QUICK, "--min-distinct", 0)


@pytest.fixture(scope="session")
def planted_dir(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "planted"
    lm = planted_lm()
    lm.model.save_pretrained(directory)
    lm.tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def kind(store, planted_dir):
    """A vector that works, of a model of its own; stored at layer 1 alone."""
    lab = Lab(store, LanguageModel.load(str(planted_dir)))
    return lab.extract("kind", pairs(8), layers=1)


@pytest.fixture(scope="module")
def _calibrated(_filled, planted_dir, tmp_path_factory):
    path = tmp_path_factory.mktemp("calibrated") / "store"
    shutil.copytree(_filled, path)
    Lab(Store(path), LanguageModel.load(str(planted_dir))).extract("kind", pairs(8), layers=1)
    assert run(["calibrate", "kind", *map(str, QUICK), "--store", str(path)]) == ExitCode.OK
    return path


@pytest.fixture
def calibrated(store, _calibrated):
    """The calibration of `kind`, found, in a store of its own."""
    shutil.copytree(_calibrated, store.path, dirs_exist_ok=True)
    return store.results.calibration("kind")


@pytest.fixture
def items(tmp_path):
    made = [{"prompt": "abc ", "positive": f"x{i}", "negative": f"y{i}"} for i in range(4)]
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(map(json.dumps, made)))
    return path


def test_what_works_is_kept_and_used_by_generate_and_show(cli, store, kind):
    result = cli("calibrate", "kind", *QUICK)
    assert result.code == ExitCode.OK, result.err
    found = store.results.calibration("kind")
    assert found.works
    lines = result.out.splitlines()
    says, *evidence = lines[lines.index("") :][-len(findings(found)) :]
    assert says.startswith(f"kind.v1 works: layer {found.layer}, dose +0.20 (c ")
    assert evidence == [f"  · {line}" for line in findings(found)[1:]]
    assert [line.split()[0] for line in lines if line.startswith(("+0", "-0"))] == [
        *("-0.20", "-0.10", "+0.10", "+0.20")
    ]
    written = cli("generate", "Hi", "-v", "kind", "-n", 2, "--json")
    assert written.data[1]["layers"] == [found.layer]
    assert written.data[1]["coefficient"] == pytest.approx(found.coefficient)
    assert f"kind.v1 as calibrated: layer {found.layer}, dose +0.20" in written.err
    shown = cli("show", "kind")
    assert f"calibrated  works: layer {found.layer}" in shown.out
    assert all(f"            · {line}\n" in shown.out for line in findings(found)[1:])
    assert cli("show", "kind", "--json").data["calibration"]["layer"] == found.layer
    own = cli("generate", "Hi", "-v", "kind", "-n", 2, "-c", 1, "--layers", 1, "--json")
    assert own.data[1]["layers"] == [1]
    assert "calibrated" not in own.err


@pytest.mark.parametrize("strength", [("-c", 0.5), ("-d", 0.15), ("-d", "0.15,-0.15")])
def test_a_strength_of_ones_own_acts_at_the_calibrated_layer(cli, store, calibrated, strength):
    found = calibrated
    written = cli("generate", "Hi", "-v", "kind", "-n", 2, *strength, "--json")
    assert {tuple(cell["layers"]) for cell in written.data[1:]} == {(found.layer,)}
    assert f"kind.v1 at its calibrated layer: layer {found.layer}" in written.err
    assert cli("generate", "Hi", "-v", "kind", "-n", 2, *strength, "--keep").code == ExitCode.OK
    assert store.runs.list(limit=1)[0].layers == str(found.layer)


def test_a_calibration_says_before_it_begins_what_stays_in_use(cli, calibrated, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("steerlab.evaluation.calibration.calibrate.calibrate", stopped)
    replaced = f"kind.v1 works at layer {calibrated.layer}, dose +0.20: that stays in use"
    other = str(calibrated.layer - 1)
    assert replaced in cli("calibrate", "kind", "--layers", other).err
    assert replaced not in cli("calibrate", "kind", "--layers", other, "--no-save").err
    assert replaced not in cli("calibrate", "kind", "--layers", calibrated.layer).err
    assert replaced not in cli("calibrate", "kind").err


def test_a_calibration_at_another_layer_stands_beside_the_first(cli, store, calibrated):
    other = calibrated.layer - 1
    done = cli("calibrate", "kind", "--layers", other, *QUICK)
    assert f"--layers {other} uses it; without --layers, layer {calibrated.layer} is" in done.err
    assert store.results.calibration("kind") == calibrated
    beside = store.results.by_layer(calibrated.digest)[other]
    plain = cli("generate", "Hi", "-v", "kind", "-n", 2, "--json").data[1]
    assert (plain["layers"], plain["dose"]) == ([calibrated.layer], pytest.approx(0.2))
    there = cli("generate", "Hi", "-v", "kind", "-n", 2, "--layers", other, "--json").data[1]
    assert there["layers"] == [other]
    assert there["dose"] == pytest.approx(beside.dose)
    assert f"also        layer {other}, dose" in cli("show", "kind").out
    assert cli("show", "kind", "--json").data["calibrations_beside"][0]["layer"] == other
    assert f"{beside.dose:+.2f} at {other}" not in cli("list").out


@pytest.mark.parametrize("copy", ["imported", "kind[1]"])
def test_a_copy_that_keeps_its_layer_does_not_show_what_works_elsewhere(
    cli, store, calibrated, copy
):
    """It has the digest of `kind`, and so its calibrations; generate steers at its own layer."""
    if copy == "imported":
        kind = store.load("kind")
        store.save("copy", SteeringVector(kind.directions, model=kind.model, recipe=Imported("x")))
    else:
        cli("compose", copy, "--as", "copy")
    assert store.record("copy").digest == calibrated.digest
    assert calibrated.layer != 1
    written = cli("generate", "Hi", "-v", "copy", "-n", 2, "--json").data[1]
    assert (written["layers"], written["coefficient"]) == ([1], 1)
    rows = {line.split()[0]: line for line in cli("list").out.splitlines()}
    assert f"at {calibrated.layer}" in rows["kind"]
    assert f"at {calibrated.layer}" not in rows["copy"]
    assert "calibrated" not in cli("show", "copy").out
    assert cli("show", "copy", "--json").data["calibration"] is None
    data = {**calibrated.data, "candidates": [1], "layers": []}
    found = replace(calibrated, id=None, created="", layer=1, data=data)
    store.results.save_calibration(found)
    assert f"at {calibrated.layer}" in cli("list", "kind").out
    assert f"{found.dose:+.2f} at 1" in cli("list", "copy").out
    shown = cli("show", "copy").out
    assert f"layer 1, dose {found.dose:+.2f}" in shown
    assert f"layer {calibrated.layer}, dose" not in shown


def test_few_pairs_are_said_before_they_take_minutes(cli, kind, items, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("steerlab.evaluation.calibration.calibrate.calibrate", stopped)
    said = "8 contrast pairs may be too few to tell whether it works"
    assert said not in cli("calibrate", "kind").err
    monkeypatch.setattr("steerlab.evaluation.statistics.RELIABLE", 9)
    early = cli("calibrate", "kind").err
    assert early.index(said) < early.index("this takes minutes")
    assert said not in cli("calibrate", "kind", "--items", items).err


def test_a_strength_outside_the_safe_range_is_said(cli, calibrated):
    low, high = calibrated.safe
    inside = cli("generate", "Hi", "-v", "kind", "-n", 2, "-d", f"{low},{high}")
    assert "outside the safe range" not in inside.err
    outside = cli("generate", "Hi", "-v", "kind", "-n", 2, "-d", f"{high},{high + 0.3}")
    assert outside.code == ExitCode.OK
    assert outside.err.count("outside the safe range") == 1


def test_more_items_are_kept_with_the_calibration(cli, store, kind, tmp_path, refused):
    file = tmp_path / "more.jsonl"
    lines = [{"prompt": "", "positive": a, "negative": b} for a, b in pairs(5, seed=9)]
    file.write_text("\n".join(map(json.dumps, lines)))
    early = cli("calibrate", "kind", "--more", file)
    assert early.code == ExitCode.NOT_FOUND
    assert "no calibration that works" in early.err
    cli("calibrate", "kind", *QUICK)
    first = store.results.calibration("kind")
    result = cli("calibrate", "kind", "--more", file)
    assert result.code == ExitCode.OK, result.err
    assert "13 of 13 held-out items moved the right way" in result.out
    assert "5 of them added later" in cli("show", "kind").out
    assert store.results.calibration("kind").dose == first.dose


@pytest.mark.parametrize(
    "given",
    [
        *("--layers=1", "--items=more.jsonl", "--doses=0.1", "--metric=vader", "--seed=0"),
        *("--prompts=more.jsonl", "--controls=20", "--max-kl=0.5", "--max-fluency=9"),
        "--min-distinct=0.1",
    ],
)
def test_more_refuses_what_it_would_ignore(refused, monkeypatch, tmp_path, given):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.jsonl").write_text("{}")
    said = refused(ExitCode.USAGE, "calibrate", "kind", "--more", "more.jsonl", given)
    assert "--more keeps layer, dose and controls" in said
    option = given.partition("=")[0]
    assert f"leave out {option} (see" in said


def test_json_holds_the_whole_curve(cli, store, kind):
    data = cli("calibrate", "kind", *QUICK, "--json", "--no-save").data
    assert data["works"]
    assert [point["dose"] for point in data["data"]["points"]] == [-0.2, -0.1, 0.1, 0.2]
    assert store.results.calibration("kind") is None


def test_what_does_not_work_is_a_result_that_generate_ignores(cli, store, items):
    result = cli("calibrate", "love", "--items", items, *QUICK)
    assert result.code == ExitCode.OK, result.err
    assert result.out.splitlines()[-1].startswith("love.v1 is not shown to work: no dose beats")
    assert not store.results.calibration("love").works
    assert cli("generate", "Hi", "-v", "love", "-n", 2, "--json").data[1]["coefficient"] == 1
    assert "is not shown to work" in cli("show", "love").out


def test_a_curve_is_read_from_the_store(cli, store, items):
    cli("calibrate", "warm", "--items", items, *QUICK)
    curve = Curve.of(store.results.calibration("warm"))
    assert curve.items == 4
    assert not curve.crossed


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("love",), ExitCode.BAD_INPUT, "no held-out items: love.v1 has only 2 contrast pairs"),
        (("front",), ExitCode.BAD_INPUT, "no held-out items"),
        (("love", "--items", "none.jsonl"), ExitCode.NOT_FOUND, "no items file"),
        (("love", "--layers", "3"), ExitCode.BAD_INPUT, "no held-out items"),
        (("love", "--doses", "0"), ExitCode.BAD_INPUT, "doses must be above 0"),
        (("love", "--metric", "nope"), ExitCode.USAGE, "nope"),
        (("love", "--prompts", "x.txt"), ExitCode.USAGE, "--metric"),
        (("nobody",), ExitCode.NOT_FOUND, "nobody"),
    ],
)
def test_bad_input_is_one_line(refused, arguments, code, words, capsys):
    arguments = ("calibrate", *arguments, "-q")
    assert words in refused(code, *arguments)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: not JSON"),
        ("[]", "line 2: expected"),
        ('{"prompt": "a", "positive": "b"}', "line 2: the negative prompt is missing"),
        ('{"prompt": 1, "positive": "b", "negative": "c"}', "line 2: the prompt is not text"),
        ('{"positive": "b", "negative": "b"}', "line 2: positive and negative are the same"),
    ],
)
def test_a_broken_line_is_named(refused, tmp_path, line, words):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"prompt": "a", "positive": "b", "negative": "c"}\n' + line)
    assert words in refused(ExitCode.BAD_INPUT, "calibrate", "love", "--items", path, "-q")


def test_ctrl_c_leaves_nothing(cli, store, kind, monkeypatch):
    asked = []

    def call(self):
        asked.append(None)
        if len(asked) == 30:
            signal.raise_signal(signal.SIGINT)
        return self.fired

    monkeypatch.setattr(progress.Interrupt, "__call__", call)
    result: Result = cli("calibrate", "kind", *QUICK)
    assert result.code == ExitCode.CANCELLED
    assert result.out == ""
    assert store.results.calibrations() == []


def test_generate_says_that_nothing_was_shown_where_a_calibration_failed(cli, store):
    love = store.load("love")
    store.results.save_calibration(Calibration(love.digest, works=False, data=None))
    said = "love.v1 is not shown to work at any strength: c 1, which nothing chose, is dose"
    assert said in cli("generate", "Hi", "-v", "love", "-n", 2).err
    assert said not in cli("generate", "Hi", "-v", "love", "-n", 2, "-d", 0.1).err


@pytest.mark.parametrize(
    ("cost", "said"),
    [
        (Cost(0.1, 1.2, 0.95), "no: fresh texts"),  # their intervals reach beyond
        (Cost(0.1), "no"),  # no text was written: a weaker dose was beyond the limit on KL
        (Cost(None), "no"),
        (Cost(0.1, 1.2, 0.0), "no"),
        (Cost(0.6), "no"),
    ],
)
def test_fresh_texts_decide_only_where_there_are_any(cost, said):
    effect = Estimate(0.0)
    point = Point(0.2, 1.0, effect, Controls(0.0, 1.0, 8), None, cost, sound=False)
    assert _sound(point, Limits()) == said
    assert _sound(replace(point, sound=True), Limits()) == "yes"
