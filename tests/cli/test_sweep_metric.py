"""sweep --metric: a grid above the texts, a value in every cell."""

import math

import pytest

from steerlab.evaluation.metrics.texts import METRICS

GRID = ["--layers", "1,3", "--doses", "-0.2,0,0.2", "-n", "4"]


def test_cells_carry_the_value_of_their_text(cli):
    prompts = ["--prompt", "one", "--prompt", "two"]
    data = cli("sweep", "love", *GRID, *prompts, "--metric", "shared", "--json").data
    plain = {c["prompt"]: c["text"] for c in data if c["vector"] is None}
    for cell in data:
        value = METRICS["shared"].score(cell["text"], plain[cell["prompt"]])
        assert cell["metric"] == "shared"
        assert cell["value"] == (None if math.isnan(value) else value)


def test_without_a_metric_there_is_no_value(cli):
    assert "value" not in cli("sweep", "love", *GRID, "--json").data[0]


def test_the_grid_holds_means_over_prompts_and_seeds(cli):
    options = [*GRID, "--prompt", "one", "--prompt", "two", "--seeds", "2", "--temperature", "1"]
    data = cli("sweep", "love", *options, "--metric", "length", "--json").data
    result = cli("sweep", "love", *options, "--metric", "length")
    grid, *blocks = result.out.split("\n\n")
    title, heading, *rows = grid.splitlines()
    assert title.startswith("length: ")
    assert heading.split() == ["layer", "-0.20", "0", "+0.20"]
    assert [row.split()[0] for row in rows] == ["1", "3"]
    for row, layer in zip(rows, (1, 3), strict=True):
        for text, dose in zip(row.split()[1:], (-0.2, 0, 0.2), strict=True):
            values = [
                cell["value"]
                for cell in data
                if cell["dose"] == pytest.approx(dose) and (not dose or cell["layers"] == [layer])
            ]
            assert len(values) == 4
            assert float(text) == pytest.approx(sum(values) / 4, abs=0.05)
    assert [block.splitlines()[0] for block in blocks] == ["one", "two"]
    assert "random directions" in result.err


def test_coefficients_have_a_grid_too(cli):
    out = cli("sweep", "love", "--coefficients", "-1,1", "--metric", "shared", "-n", "2").out
    assert out.splitlines()[1].split() == ["layer", "-1", "+1"]
    assert out.splitlines()[2].split() == ["1", "–", "–"]  # there is no baseline to share with


def test_an_unknown_metric_is_refused_with_those_there_are(cli):
    result = cli("sweep", "love", "--metric", "beauty")
    assert result.code == 2
    assert "distinct-2" in result.err


def test_a_metric_may_be_a_pattern_or_a_function(cli, tmp_path):
    data = cli("sweep", "love", *GRID, "--metric", "regex:[aeiou]", "--json").data
    for cell in data:
        assert cell["value"] == sum(c in "aeiou" for c in cell["text"])
        assert cell["metric"] == "regex:[aeiou]"
    result = cli("sweep", "love", *GRID, "--metric", "builtins:len")
    assert result.out.startswith("builtins:len: ")


def test_a_scorer_that_fails_says_why_and_the_sweep_goes_on(cli):
    data = cli("sweep", "love", *GRID, "--metric", "math:sqrt", "--json").data
    assert len(data) == 5
    assert {cell["value"] for cell in data} == {None}
    assert all(cell["reason"].startswith("TypeError: ") for cell in data)
    result = cli("sweep", "love", *GRID, "--metric", "math:sqrt")
    assert result.code == 0
    assert "5 texts have no value: TypeError: must be real number" in result.err
