"""Sweeps that are kept: they go on where they ended, and come out as if in one go."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace

import pytest

from steerlab import Lab, LanguageModel, Store
from steerlab.core.cell import Cell, MetricValue
from steerlab.core.recipe import Imported, ModelIdentity
from steerlab.core.sampling import Sampling
from steerlab.core.sweep import Sweep, SweepPlan, _plan_digest
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, Incompatible
from steerlab.lab.sweeps import run_sweep
from steerlab.lab.workers import WorkerShard
from steerlab.models.batch_size import fitting, row_bytes
from tests.saved import ANGER, LOVE
from tests.tiny import tiny_lm

PROMPTS = ("Hello there", "What a day it is")
PLAN = SweepPlan(
    "love - anger",
    PROMPTS,
    layers=[0, 2],
    doses=[-0.2, 0, 0.2],
    seeds=[3, 4],
    sampling=Sampling(max_new_tokens=6, temperature=1.0),
)
TOTAL = 5 * 2 * 2
SHORT = replace(PLAN.sampling, max_new_tokens=1)


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def _filled(lm, tmp_path_factory):
    lab = Lab(Store(tmp_path_factory.mktemp("sweeping") / "store"), lm)
    lab.extract("love", LOVE, layers=[1, 2])
    lab.extract("anger", ANGER, layers=[1, 2])
    return lab.store.path


@pytest.fixture
def bench(_filled, lm, tmp_path) -> Lab:
    shutil.copytree(_filled, tmp_path / "store")
    return Lab(Store(tmp_path / "store"), lm)


@pytest.fixture
def rows(monkeypatch) -> list[int]:
    """How many rows each `generate` had."""
    counted: list[int] = []
    generate = LanguageModel.generate

    def counting(self, prompts, **options):
        counted.append(len(prompts))
        return generate(self, prompts, **options)

    monkeypatch.setattr(LanguageModel, "generate", counting)
    return counted


def test_it_writes_what_the_labs_sweep_writes(bench):
    vector = bench.evaluate("love - anger")
    cells = bench.sweep(
        vector, [0, 2], PROMPTS, doses=PLAN.doses, seeds=PLAN.seeds, **PLAN.sampling.options()
    )
    swept = run_sweep(bench, PLAN, rows=7)
    assert (swept.done, swept.total, swept.id) == (TOTAL, TOTAL, 1)
    assert [(c.prompt, c.seed, c.text) for c in swept.cells] == [
        (c.prompt, c.seed, c.text) for c in cells
    ]
    for ours, theirs in zip(swept.cells, cells, strict=True):
        assert ours.setting.coefficient == theirs.setting.coefficient
        assert ours.setting.dose == theirs.setting.dose
        assert ours.tokens == len(theirs.token_ids)
        shown = {**theirs.to_json(), "vector": "love - anger" if theirs.setting.layers else None}
        assert ours.to_json() == shown


def test_the_same_plan_again_writes_nothing(bench, rows):
    first = run_sweep(bench, PLAN)
    rows.clear()
    found = []
    again = run_sweep(bench, PLAN, on_start=found.append)
    assert rows == []
    assert again == first
    (there,) = found
    assert again.cells == first.cells == there.cells
    assert [s.layers for s in there.settings] == [(), (0,), (0,), (2,), (2,)]
    shuffled = replace(PLAN, layers=[2, 0], doses=[0.2, 0, -0.2], prompts=PROMPTS[::-1])
    assert run_sweep(bench, shuffled).id == first.id
    value = replace(PLAN, vector=bench.evaluate("love - anger"))
    assert run_sweep(bench, value).id == first.id
    assert rows == []


@pytest.mark.parametrize(
    "change",
    [
        {"vector": "love"},
        {"layers": [2]},
        {"doses": [-0.2, 0, 0.3]},
        {"prompts": PROMPTS[:1]},
        {"seeds": [3]},
        {"positions": "generated"},
        {"sampling": replace(SHORT, temperature=0.5)},
        {"sampling": replace(SHORT, chat=True)},
        {"sampling": replace(SHORT, max_new_tokens=5)},
        {"doses": (), "coefficients": [-0.2, 0, 0.2]},
    ],
    ids=str,
)
def test_another_plan_is_another_sweep(bench, change):
    first = run_sweep(bench, replace(PLAN, sampling=SHORT))
    other = run_sweep(bench, replace(PLAN, **{"sampling": SHORT, **change}))
    assert other.id != first.id
    assert other.done == other.total


def test_sweeps_of_earlier_releases_go_on():
    model = ModelIdentity("m", "llama", 4, 2, "f", None, "float32", "t", "c")
    vector = SteeringVector({1: [1.0, 0.5]}, model=model, recipe=Imported("x"))
    sampling = Sampling(max_new_tokens=5, top_k=3)
    plan = SweepPlan("v", ["b", "a"], [1], doses=[0.2, 0, -0.1], seeds=[2, 1], sampling=sampling)
    digest = _plan_digest(plan, vector, model, [1])
    assert digest == "558b736fd1082a09f7582d37670b9cdbaeede5682a550a19d55da064ab87d1e9"


def test_a_baseline_is_written_once_a_prompt_and_seed(bench, rows):
    swept = run_sweep(bench, PLAN)
    baselines = [cell for cell in swept.cells if cell.setting.layer is None]
    assert [(c.prompt, c.seed) for c in baselines] == [(p, s) for p in PROMPTS for s in (3, 4)]
    assert rows == [TOTAL]
    assert swept.baseline(swept.cells[7]) == swept.cells[5]


def test_what_is_cancelled_goes_on_with_whole_cells_only(bench, rows):
    whole = run_sweep(bench, PLAN, keep=False)
    asked = []

    def stop():
        asked.append(None)
        return len(asked) == 10  # in the second batch

    cut = run_sweep(bench, PLAN, rows=6, should_stop=stop)
    assert {c.finish for c in cut.cells[:]} > {"cancelled"}
    kept = bench.store.sweeps.get(cut.id)
    assert list(kept.cells) == [c for c in cut.cells if c.finish != "cancelled"]
    assert 6 <= kept.done < TOTAL
    rows.clear()
    resumed = run_sweep(bench, PLAN, rows=6)
    assert sum(rows) == TOTAL - kept.done
    assert resumed.cells == whole.cells


def test_nothing_is_kept_where_it_is_not_asked_for(bench):
    swept = run_sweep(bench, PLAN, keep=False)
    assert (swept.id, swept.done) == (None, TOTAL)
    assert not bench.store.sweeps.list()


def test_a_front_vector_sweeps_too(bench, lm):
    bench.extract("front", [("Love", "Hate")], layers=1, method="actadd")
    plan = SweepPlan("front", PROMPTS, coefficients=[0, 1], sampling=Sampling(max_new_tokens=3))
    cells = bench.sweep(
        bench.store.load("front"), 1, PROMPTS, coefficients=[0, 1], max_new_tokens=3
    )
    assert [c.text for c in run_sweep(bench, plan).cells] == [c.text for c in cells]


def test_what_can_not_be_swept_is_refused_and_begins_nothing(bench):
    with pytest.raises(Incompatible, match="selects its layers"):
        run_sweep(bench, replace(PLAN, vector="love[1]"))
    with pytest.raises(BadOption, match="has to be kept"):
        run_sweep(bench, PLAN, keep=False, shard=WorkerShard(0, 2))
    assert not bench.store.sweeps.list()


def test_texts_grow_and_progress_is_told(bench):
    heard, told = {}, []
    swept = run_sweep(
        bench,
        PLAN,
        rows=8,
        on_text=lambda place, piece: heard.__setitem__(place, heard.get(place, "") + piece),
        progress=lambda *done: told.append(done),
    )
    assert heard == {i: c.text for i, c in enumerate(swept.cells) if c.text}
    assert told == sorted(told)
    assert {total for _, total in told} == {3 * 6}


class Words:
    """Counts words beside the baseline's, fails on some texts, and remembers what it saw."""

    name = "words"

    def __init__(self) -> None:
        self.seen: list[int] = []

    def __call__(self, model, sweep, cells):
        self.seen.append(len(cells))
        if len(cells) > 1 and any(cell.seed == 4 for cell in cells):
            raise ValueError("not together")
        if cells[0].seed == 4 and cells[0].prompt == PROMPTS[1]:
            raise ValueError("not this one")
        return [MetricValue(len(c.text) - len(sweep.baseline(c).text)) for c in cells]


def test_metrics_are_measured_once_and_kept(bench):
    run_sweep(bench, PLAN, rows=6)
    words = Words()
    swept = run_sweep(bench, PLAN, rows=6, metrics=[words])
    for cell in swept.cells:
        value = cell.metrics["words"]
        if (cell.prompt, cell.seed) == (PROMPTS[1], 4):
            assert value == MetricValue(None, "ValueError: not this one")
        else:
            assert value.value == len(cell.text) - len(swept.baseline(cell).text)
    words.seen.clear()
    assert run_sweep(bench, PLAN, metrics=[words]).cells == swept.cells
    assert words.seen == []
    loose = run_sweep(bench, PLAN, metrics=[words], keep=False)
    assert loose.cells == swept.cells


def test_processes_that_share_a_sweep_write_each_cell_once(bench, rows, tmp_path):
    """As many threads, each with its own lab, stand for the processes."""
    whole = run_sweep(bench, PLAN, keep=False)
    rows.clear()
    barrier = threading.Barrier(3)

    class Meeting(WorkerShard):
        def wait(self):
            barrier.wait(timeout=300)

    labs = [Lab(bench.store.path, tiny_lm()) for _ in range(3)]
    begin = labs[0].store.sweeps.begin

    def slowly(sweep):  # what the others have stored by then must not change this one's share
        time.sleep(0.5)
        return begin(sweep)

    labs[0].store.sweeps.begin = slowly
    results = {}

    def work(index):
        results[index] = run_sweep(
            labs[index], PLAN, rows=3, metrics=[Words()], shard=Meeting(index, 3)
        )

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(rows) == TOTAL
    for swept in results.values():
        assert [c.text for c in swept.cells] == [c.text for c in whole.cells]
        assert all("words" in c.metrics for c in swept.cells)


def test_two_who_write_the_same_plan_at_once_do_not_disturb_each_other(bench):
    labs = [Lab(bench.store.path, tiny_lm()) for _ in range(2)]
    threads = [threading.Thread(target=run_sweep, args=(lab, PLAN)) for lab in labs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert run_sweep(bench, PLAN).cells == run_sweep(bench, PLAN, keep=False).cells


def killed(lab: Lab, batches: int, tokens: int) -> None:
    """In a child process: sweep, and die by SIGKILL so many tokens into a batch, or in a commit.

    tokens: below 0, so many statements into the next transaction instead.
    """
    begun = 0

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    add = lab.store.sweeps.add

    def counted(sweep: Sweep, cells: Sequence[Cell]) -> int:
        nonlocal begun
        added = add(sweep, cells)
        begun += 1
        if begun == batches and tokens < 0:
            connect = sqlite3.connect

            def dying(*arguments, **options):
                connection = connect(*arguments, **options)
                left = [-tokens]

                def trace(statement: str) -> None:
                    left[0] -= statement.startswith(("BEGIN IMMEDIATE", "INSERT", "COMMIT"))
                    if left[0] <= 0:
                        die()

                connection.set_trace_callback(trace)
                return connection

            sqlite3.connect = dying  # type: ignore[assignment]
        return added

    asked = [0]

    def stop() -> bool:
        asked[0] += begun >= batches
        if 0 <= tokens < asked[0]:
            die()
        return False

    lab.store.sweeps.add = counted  # type: ignore[method-assign]
    run_sweep(lab, PLAN, rows=1, should_stop=stop)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_ten_times_it_still_comes_out_whole(bench):
    whole = run_sweep(bench, PLAN, keep=False)
    chance = random.Random(7)
    kills = 0
    for _ in range(10):
        tokens = chance.randrange(-3, 5)
        batches = chance.randrange(1, 3) if tokens < 0 else chance.randrange(3)
        child = os.fork()
        if child == 0:
            try:
                killed(bench, batches, tokens)
            finally:
                os._exit(7)
        kills += os.WIFSIGNALED(os.waitpid(child, 0)[1])
        for sweep in bench.store.sweeps.list():
            texts = {c.key: c for c in bench.store.sweeps.get(sweep.id).cells}
            assert texts == {c.key: c for c in whole.cells if c.key in texts}
    assert kills == 10, kills
    assert run_sweep(bench, PLAN, rows=3).cells == whole.cells
    with closing(sqlite3.connect(bench.store.path / "registry.db")) as raw:
        assert raw.execute("SELECT count(*) FROM cell").fetchone() == (TOTAL,)
    assert bench.store.verify() == []


def test_a_batch_fits_into_memory(lm):
    row = row_bytes(lm, prompt_tokens=10, new_tokens=40)
    cache = 2 * 4 * 2 * 8 * 4 * 50  # keys and values, layers, heads, width, bytes, tokens
    assert row > cache
    assert row_bytes(lm, 10, 80) - row == 2 * 4 * 2 * 8 * 4 * 40
    assert [fitting(room, 10, 256) for room in (5, 95, 10**9)] == [1, 9, 256]
