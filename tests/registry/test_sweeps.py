"""Sweeps, calibrations and evaluations: kept once, found by vector, alive after a rebuild."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import text

from steerlab.core.cell import Cell, MetricValue
from steerlab.core.operation import ADD
from steerlab.core.results import Calibration, Evaluation, Measured
from steerlab.core.sampling import Sampling
from steerlab.core.setting import BASELINE
from steerlab.core.sweep import Sweep, SweepPlan
from steerlab.errors import BadOption, NotFound, StoreError
from steerlab.registry import Store
from tests.registry.samples import TINY, restored, swept_setting, vector
from tests.registry.test_runs import run

SETTINGS = (BASELINE, *(swept_setting(b, d, 10 * d, None) for b in (2, 3) for d in (-0.2, 0.2)))
PLAN = Sweep(
    plan_digest="a" * 64,
    expression="love - 0.5*anger",
    digest="b" * 64,
    model=TINY.source,
    model_key="llama/6/8/f1",
    strength="dose",
    settings=SETTINGS,
    prompts=("I think\x00 [b]you[/b]", "I feel \N{GRINNING FACE}"),
    seeds=(7, -1, 2**62),
    sampling=Sampling(temperature=0.7),
)


def cell(key, **more) -> Cell:
    setting, prompt, seed = key
    return Cell(*key, f" text {setting.layer} {len(prompt)} {seed}\x1b", "stop", 3, **more)


CELLS = [cell(key) for key in PLAN.planned()]


@pytest.fixture
def swept(family) -> Store:
    """A store with half of the cells of a sweep."""
    family.sweeps.add(family.sweeps.begin(PLAN), CELLS[::2])
    return family


def test_a_plan_is_begun_once(family):
    first = family.sweeps.begin(PLAN)
    assert (first, first.done, first.total, first.cells) == (PLAN, 0, 30, ())
    family.sweeps.add(first, CELLS[:4])
    again = family.sweeps.begin(replace(PLAN, expression="(love) - anger/2"))
    assert again.id == first.id
    assert again.cells == tuple(CELLS[:4])
    assert family.sweeps.begin(replace(PLAN, plan_digest="c" * 64)).id != first.id


def test_cells_come_back_in_the_plans_order_each_once(swept):
    sweep = swept.sweeps.get(1)
    assert list(sweep.cells) == CELLS[::2]
    assert swept.sweeps.add(sweep, [replace(c, text="another") for c in CELLS[::-1]]) == 15
    assert list(swept.sweeps.get(1).cells) == [
        c if i % 2 == 0 else replace(c, text="another") for i, c in enumerate(CELLS)
    ]
    assert swept.sweeps.get(1).done == 30


def test_what_is_not_whole_is_refused_with_its_batch(swept):
    with pytest.raises(StoreError, match="finish_whole"):
        swept.sweeps.add(swept.sweeps.get(1), [CELLS[1], replace(CELLS[3], finish="cancelled")])
    assert list(swept.sweeps.get(1).cells) == CELLS[::2]


def test_metrics_of_a_cell_are_kept_and_replaced(swept):
    sweep = swept.sweeps.get(1)
    values = {
        c.key: MetricValue(i / 2) if i else MetricValue(math.nan, "no words")
        for i, c in enumerate(sweep.cells)
    }
    swept.sweeps.measure(sweep, "fluency", values)
    swept.sweeps.measure(sweep, "length", {CELLS[2].key: MetricValue(3.0)})
    swept.sweeps.measure(sweep, "length", {CELLS[2].key: MetricValue(4.0, "ignored")})
    found = swept.sweeps.get(1)
    assert {c.key: c.metrics["fluency"] for c in found.cells} == values
    assert found.cells[0].metrics["fluency"] == MetricValue(None, "no words")
    assert found.cells[1].metrics["length"] == MetricValue(4.0)
    assert found.metrics == ("fluency", "length")


def test_sweeps_are_found_by_every_vector_they_name_newest_first(swept):
    other = swept.sweeps.begin(replace(PLAN, plan_digest="c" * 64, expression="love"))
    assert [s.id for s in swept.sweeps.list()] == [other.id, 1]
    assert [(s.id, s.done) for s in swept.sweeps.list("love")] == [(other.id, 0), (1, 15)]
    assert [s.id for s in swept.sweeps.list("tiny_1.anger.v1")] == [1]
    assert list(swept.sweeps.list("warm")) == []
    assert [s.id for s in swept.sweeps.list(limit=1, before=swept.sweeps.list()[0])] == [1]


def test_a_sweep_is_forgotten_whole(swept):
    swept.sweeps.measure(swept.sweeps.get(1), "m", {CELLS[0].key: MetricValue(1.0)})
    swept.sweeps.remove(1)
    for action in (swept.sweeps.get, swept.sweeps.remove):
        with pytest.raises(NotFound, match="there is no sweep 1"):
            action(1)
    with closing(sqlite3.connect(swept.path / "registry.db")) as raw:
        for table in ("cell", "cell_metric", "sweep_setting", "sweep_prompt", "sweep_seed"):
            assert raw.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)


def test_a_removed_vector_leaves_its_sweeps(swept):
    swept.remove("love", force=True)
    assert swept.sweeps.get(1).done == 15


def test_lone_surrogates_are_refused_in_one_line(swept):
    with pytest.raises(StoreError, match="not Unicode"):
        swept.sweeps.add(swept.sweeps.get(1), [replace(CELLS[1], text="\ud800")])


WORKS = Calibration("d" * 64, True, 2, 0.2, 1.5, (-0.1, 0.25), {"curve": [[0.1, 2.0]]})


def calibrated(store: Store) -> Calibration:
    return store.results.save_calibration(replace(WORKS, digest=store.record("love").digest))


def evaluated(store: Store) -> Evaluation:
    values = (
        Measured("statements", "vader", "dose +0.15", 0.5, 0.2, 0.7, 40),
        Measured("", "kl", "control", math.nan, n=3),
    )
    digest = store.record("love").digest
    versions = {"torch": "2", "steerlab": "0"}
    made = Evaluation(digest, "styles", "e" * 64, "tiny", "llama/6/8/f1", versions, values)
    return store.results.save_evaluation(made)


def test_calibrations_and_evaluations_come_back_newest_first(family):
    first, second, evaluation = calibrated(family), calibrated(family), evaluated(family)
    nowhere = family.results.save_calibration(Calibration("0" * 64, False, data=None))
    assert (first.safe, first.data) == (WORKS.safe, WORKS.data)
    assert [c.id for c in family.results.calibrations()] == [nowhere.id, second.id, first.id]
    assert family.results.calibration("love") == second
    assert family.results.calibration("love").id == second.id
    assert family.results.calibration("anger") is None
    assert family.results.calibrations()[0] == nowhere
    assert (
        list(family.results.evaluations("love"))
        == list(family.results.evaluations())
        == [evaluation]
    )
    assert evaluation.values[1].estimate is None
    assert list(family.results.evaluations("anger")) == []


def test_a_calibration_is_whole():
    with pytest.raises(BadOption, match="has a layer"):
        Calibration("d" * 64, True, 2)
    with pytest.raises(BadOption, match="from low to high"):
        replace(WORKS, safe=(0.2, -0.2))


def fill(store: Store) -> None:
    sweep = store.sweeps.begin(PLAN)
    store.sweeps.add(sweep, CELLS)
    store.sweeps.measure(sweep, "fluency", {c.key: MetricValue(1.5) for c in CELLS})
    calibrated(store)
    evaluated(store)


def kept(store: Store) -> list[object]:
    sweeps = [store.sweeps.get(s.id) for s in store.sweeps.list("love") if s.id is not None]
    cells = [c for s in sweeps for c in s.cells]
    return [
        sweeps,
        cells,
        [*store.results.calibrations("love")],
        [*store.results.evaluations("love")],
    ]


def test_a_rebuild_keeps_them_and_links_them_again(family):
    fill(family)
    before = kept(family)
    family.upkeep.rebuild()
    assert kept(family) == before
    assert all(before)
    with closing(sqlite3.connect(family.path / "registry.db")) as raw:
        for table in ("calibration", "evaluation"):
            query = f"SELECT name FROM vector JOIN {table} ON vector.id = vector_id"
            assert raw.execute(query).fetchall() == [("love",)]


def test_a_damaged_registry_gives_back_what_can_be_read(family):
    fill(family)
    before = kept(family)
    damage(family, "direction")
    assert Store(family.path).upkeep.rebuild() == 4
    assert kept(Store(family.path)) == before


def test_cells_whose_sweep_can_not_be_read_are_left_out(family):
    fill(family)
    damage(family, "sweep_prompt")
    store = Store(family.path)
    assert store.upkeep.rebuild() == 4
    assert [s.done for s in store.sweeps.list()] == [0]
    assert store.results.calibration("love") is not None


def damage(store: Store, table: str) -> None:
    """Overwrite a table's first page."""
    file = store.path / "registry.db"
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("PRAGMA journal_mode = DELETE")
        named = "SELECT rootpage FROM sqlite_master WHERE name = ?"
        (page,) = raw.execute(named, (table,)).fetchone()
        (size,) = raw.execute("PRAGMA page_size").fetchone()
    data = bytearray(file.read_bytes())
    data[(page - 1) * size : (page - 1) * size + 64] = b"\xff" * 64
    file.write_bytes(data)


def test_a_backup_has_them(family, tmp_path):
    fill(family)
    assert kept(restored(family, tmp_path)) == kept(family)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE sweep SET plan_digest = 'abc'",
        "UPDATE sweep SET strength = 'weight'",
        "UPDATE sweep SET positions = 'somewhere'",
        "UPDATE sweep SET created = '2024-01-01'",
        "UPDATE sweep SET temperature = 'hot'",
        "UPDATE sweep SET chat = 2",
        "INSERT INTO sweep SELECT 9, plan_digest, created, expression, digest, model, model_key, "
        "strength, positions, chat, max_new_tokens, temperature, top_p, top_k, "
        "repetition_penalty FROM sweep",
        "UPDATE sweep_setting SET layer = NULL WHERE ordinal = 1",
        "UPDATE sweep_setting SET layer = 1, strength = 0 WHERE ordinal = 1",
        "UPDATE sweep_setting SET layer = 2, strength = -0.2 WHERE ordinal = 2",
        "INSERT INTO sweep_setting (sweep_id, ordinal, strength, coefficient, dose)"
        " VALUES (1, 9, 0.0, 0.0, 0.0)",
        "UPDATE sweep_setting SET operation = ''",
        "UPDATE sweep_setting SET positions = 'somewhere'",
        "UPDATE calibration SET operation = NULL",
        "UPDATE evaluation SET parameters = NULL",
        "UPDATE sweep_setting SET dose = 'much'",
        "UPDATE cell SET finish = 'cancelled'",
        "UPDATE cell SET tokens = -1",
        "UPDATE cell SET setting = 99",
        "UPDATE cell SET prompt = 99",
        "UPDATE cell SET seed = 99",
        "UPDATE cell SET setting = 1, prompt = 1, seed = 7",
        "UPDATE cell_metric SET reason = 'why'",
        "UPDATE cell_metric SET cell_id = 999",
        "UPDATE cell_metric SET value = 'x'",
        "UPDATE calibration SET layer = NULL",
        "UPDATE calibration SET works = 7",
        "UPDATE calibration SET safe_low = 9.0",
        "UPDATE calibration SET safe_low = NULL, works = 0",
        "UPDATE calibration SET dose = 'x'",
        "UPDATE evaluation SET suite_digest = 'x'",
        "UPDATE evaluation SET digest = 'x'",
        "UPDATE evaluation_value SET low = 9.0 WHERE ordinal = 0",
        "UPDATE evaluation_value SET n = -1",
        "UPDATE evaluation_value SET metric = ''",
    ],
)
def test_the_schema_refuses(family, change):
    fill(family)
    with pytest.raises(StoreError, match="constraint"), family._database.writing() as work:
        work.connection.execute(text(change))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "either coefficients or doses"),
        ({"doses": [1], "coefficients": [1]}, "either coefficients or doses"),
        ({"doses": [math.nan]}, "finite"),
        ({"doses": [1], "prompts": []}, "a prompt and a seed"),
        ({"doses": [1], "seeds": []}, "a prompt and a seed"),
        ({"doses": [1], "positions": "here"}, "positions are"),
    ],
)
def test_a_plan_that_can_not_be_is_refused(options, says):
    with pytest.raises(BadOption, match=says):
        SweepPlan(vector(), **{"prompts": ["Hi"], **options})


def test_what_a_plan_says_twice_counts_once():
    plan = SweepPlan("love", "Hi", doses=[0.1, 0, -0.0, 0.1], seeds=[2, 1, 2])
    assert (plan.prompts, plan.doses, plan.seeds) == (("Hi",), (0.1, 0.0), (2, 1))
    assert math.copysign(1, plan.doses[1]) == 1


def test_what_is_stored_says_which_operation_was_used(family):
    fill(family)
    family.runs.save(run())
    with family._database.reading() as connection:
        for table in ("run", "generation", "sweep_setting", "calibration", "evaluation"):
            query = text(f"SELECT DISTINCT operation, parameters, condition FROM {table}")
            assert connection.execute(query).all() == [("add", "{}", None)]
    (sweep,) = family.sweeps.list()
    assert {setting.operation for setting in sweep.settings} == {ADD}
    assert family.runs.list()[0].operation == ADD
    assert family.results.calibrations()[0].operation == ADD
    assert family.results.evaluations()[0].operation == ADD
