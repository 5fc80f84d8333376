"""steerlab benchmark: one table, or JSON."""

from __future__ import annotations

import pytest

from steerlab.cli import ExitCode
from steerlab.evaluation import benchmark as module
from tests.evaluation.measurements import calibration, evaluation


@pytest.fixture(autouse=True)
def calibrated(monkeypatch):
    def made(lab, vector, **how):
        fails = {"reason": "no dose beats its control"} if "anger" in vector.ref else {}
        return calibration(vector.digest, **fails)

    monkeypatch.setattr(module, "calibrate", made)


def test_a_table_with_a_row_for_each_concept(cli, store, model_dir):
    result = cli("benchmark", "joy", "anger", "--no-evaluate", "--model", model_dir)
    assert result.code == ExitCode.OK, result.err
    rows = {line.split()[0]: line.split() for line in result.out.splitlines() if ".v" in line}
    assert rows["joy.v1"][:4] == ["joy.v1", "2", "+0.20", "+4.00"]
    assert "fails" in next(row for name, row in rows.items() if name.startswith("anger"))
    assert "joy.v1 works: layer 2" in result.err
    assert store.results.calibration("joy").works


def test_json_and_what_is_no_concept(cli, model_dir, refused):
    data = cli("benchmark", "joy", "--no-evaluate", "--json", "-q", "--model", model_dir).data
    assert [(row["vector"], row["works"]) for row in data] == [("joy.v1", True)]
    assert "no starter concept lvoe" in refused(ExitCode.NOT_FOUND, "benchmark", "lvoe")


def test_a_suite_is_evaluated_on(cli, model_dir, refused, monkeypatch):
    plans = []

    def evaluate(lab, vector, plan, **how):
        plans.append(plan)
        return evaluation(vector.digest)

    monkeypatch.setattr(module, "evaluate", evaluate)
    assert cli("benchmark", "joy", "--suite", "statements", "--model", model_dir).code == 0
    assert [plan.suites for plan in plans] == [("statements",)]
    assert "no suite" in refused(ExitCode.NOT_FOUND, "benchmark", "--suite", "statemnts")
    said = refused(ExitCode.USAGE, "benchmark", "--suite", "narrative", "--no-evaluate")
    assert "--suite is to evaluate on" in said
