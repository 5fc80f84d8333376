"""steerlab bench: figures of this machine, for people and programs."""

from __future__ import annotations

import pytest

from steerlab.cli import ExitCode


def test_both_precisions_are_measured_and_compared(cli, model_dir):
    data = cli("bench", "--model", model_dir, "-n", 2, "--json").data
    assert data["model"] == str(model_dir)
    assert data["machine"].keys() == {"processor", "threads", "torch"}
    auto, half = data["precisions"]
    assert (auto["dtype"], half["dtype"]) == ("float32", "bfloat16")
    assert auto["log_prob_difference"] is None
    assert 0 < half["log_prob_difference"] < 1
    for found in (auto, half):
        assert found["tokens_per_second"].keys() == {"1", "2", "16"}
        rates = [*found["tokens_per_second"].values(), found["prompts_per_second"]]
        assert all(rate > 0 for rate in (*rates, found["load_seconds"]))


def test_a_precision_is_measured_once_where_auto_takes_it(cli, model_dir):
    options = ("--model", model_dir, "-n", 1, "--json")
    assert len(cli("bench", *options, "--dtype", "auto").data["precisions"]) == 1
    both = cli("bench", *options, "--dtype", "float32").data["precisions"]
    assert [found["log_prob_difference"] for found in both] == [None, 0.0]


def test_a_table_for_people(cli, model_dir):
    shown = cli("bench", "--model", model_dir, "-n", 1).out.splitlines()
    assert shown[0].startswith(f"{model_dir} on ")
    assert [column in shown[1] for column in ("1 row", "2 rows", "16 rows", "load")] == [True] * 4
    assert shown[2].startswith("float32 (auto)")
    assert shown[3].startswith("bfloat16")


@pytest.mark.parametrize(("arguments", "why"), [(("--dtype", "int3"), "int3"), (("-n", "0"), "0")])
def test_wrong_options_are_refused(refused, arguments, why):
    assert why in refused(ExitCode.USAGE, "bench", *arguments)


def test_a_model_that_is_not_there_is_refused(refused):
    assert "no model directory" in refused(ExitCode.MODEL, "bench", "--model", "./nowhere")
