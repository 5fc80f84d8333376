"""Weights in oneDNN's order for the length of a batch: the same numbers, dropped at its end."""

from __future__ import annotations

import contextvars
import gc
import threading
import weakref

import pytest
import torch
from torch import nn

from steerlab import Lab, LanguageModel
from steerlab.errors import Cancelled
from steerlab.evaluation.calibration.calibrate import calibrate
from steerlab.evaluation.generalization.evaluate import evaluate
from steerlab.evaluation.generalization.plan import EvaluationPlan
from steerlab.interventions.runtime import TransformersRuntime
from steerlab.models import fast_layers, packing, products
from steerlab.models.fast_layers import use_fast_products
from steerlab.models.packing import Packing, is_packed
from steerlab.models.products import PLAIN, ROWS, Choice, packed_gains
from tests.evaluation.planted import pairs, planted_lm
from tests.models.test_fast_layers import everywhere, fast_modules, skip_unless_onednn_has
from tests.tiny import tiny_model, tiny_tokenizer

SUITE = """
styles.x.prompts = ["A man ", "A cat "]
[off_target]
facts = []
neutral = ["The map ", "A box "]
off_topic = ["A text of no great length."]
"""
PROMPTS = ["hello", "a longer prompt", "x", "one more", "last"]


@pytest.fixture(autouse=True)
def gaining(monkeypatch):
    """Every layer, however small, is fast, and packed for every number of rows."""
    monkeypatch.setattr(fast_layers, "_SMALLEST", 1)
    monkeypatch.setattr(fast_layers, "_known_gains", {})
    monkeypatch.setattr(fast_layers, "packed_gains", lambda *_: (True,) * len(ROWS))
    monkeypatch.setattr(products, "measure", lambda of: everywhere("flipped", of[0][0].dtype))
    monkeypatch.setattr(products, "_remembered", dict)
    monkeypatch.setattr(packing, "_free_memory", lambda: 2**30)


@pytest.fixture(params=["llama", "gpt2"])
def lm(request, tmp_path):
    tiny_model(request.param).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    return LanguageModel.load(str(tmp_path))


@pytest.fixture
def layer():
    model = nn.Sequential(nn.Linear(32, 48))
    use_fast_products(model)
    return model[0]


@pytest.fixture
def products_taken(monkeypatch):
    """Of each product of a packed layer, its number of rows."""
    taken = []

    def product(x, weight, bias):
        taken.append(len(x))
        return real(x, weight, bias)

    real = products.PRODUCTS["onednn"]
    monkeypatch.setitem(products.PRODUCTS, "onednn", product)
    return taken


def packed(model, rows=5, passes=64):
    return fast_layers.packing(model, rows, passes)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 17, 130])
def test_a_packed_layer_gives_what_it_gives(layer, products_taken, rows, dtype):
    skip_unless_onednn_has(dtype)
    layer.to(dtype)
    layer.choice = everywhere("flipped", dtype)
    x = torch.randn(rows, 1, 32, dtype=dtype)
    plain = layer(x)
    with packed(layer):
        found = layer(x)
    assert products_taken == [rows]
    assert found.shape == plain.shape
    assert torch.allclose(found, plain, atol=1e-5 if dtype is torch.float32 else 0.05)
    assert torch.equal(layer(x), plain)


def test_a_batch_writes_the_same_texts(lm, products_taken, monkeypatch):
    found = lm.generate(PROMPTS, max_new_tokens=32, temperature=0.8, top_p=0.9)
    assert set(products_taken) >= {5}
    assert not is_packed()
    monkeypatch.setattr(fast_layers, "_PASSES", 1000)
    assert found == lm.generate(PROMPTS, max_new_tokens=32, temperature=0.8, top_p=0.9)


def test_few_rows_and_short_texts_are_not_packed(lm, products_taken):
    lm.generate(PROMPTS[:4], max_new_tokens=32)
    lm.generate(PROMPTS, max_new_tokens=31)
    assert not products_taken


def test_a_copy_is_made_only_where_memory_has_room(lm, monkeypatch):
    size = sum(layer.weight.nbytes for layer in fast_modules(lm.model))
    monkeypatch.setattr(packing, "_free_memory", lambda: 4 * size)
    with packed(lm.model):
        assert is_packed()
    monkeypatch.setattr(packing, "_free_memory", lambda: 4 * size - 1)
    with packed(lm.model):
        assert not is_packed()


def test_free_memory_is_what_a_container_leaves(monkeypatch, tmp_path):
    monkeypatch.undo()
    whole = packing._free_memory()
    assert whole > 2**20
    monkeypatch.setattr(packing, "_GROUP", tmp_path)
    for most, left in (("max", None), ("2000", 1500), ("9" * 18, None)):
        (tmp_path / "memory.max").write_text(most)
        (tmp_path / "memory.current").write_text("500")
        found = packing._free_memory()
        assert found == left if left else found > 2**20
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("3000")
    (tmp_path / "memory/memory.usage_in_bytes").write_text("2900")
    assert packing._free_memory() == 100


def test_free_memory_is_what_the_process_s_own_group_leaves(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr(packing, "_GROUP", tmp_path)
    monkeypatch.setattr(packing, "_OWN", tmp_path / "own")
    (tmp_path / "own").write_text("4:memory:/slurm/job_1\n3:cpuset:/\n0::/user.slice/a.scope\n")
    for folder, most, used, left in (
        ("user.slice", "memory.max", "memory.current", 3000),
        ("user.slice/a.scope", "memory.max", "memory.current", 2000),
        ("memory/slurm/job_1", "memory.limit_in_bytes", "memory.usage_in_bytes", 1000),
    ):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / most).write_text(str(left + 500))
        (tmp_path / folder / used).write_text("500")
        assert packing._free_memory() == left


def test_a_copy_that_memory_refuses_is_not_made(layer, monkeypatch):
    def refused(weight):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(packing, "pack", refused)
    with packed(layer):
        assert not is_packed()
        layer(torch.ones(3, 32))


def test_weights_names_and_identity_are_the_same_meanwhile(lm):
    before = {name: weight.clone() for name, weight in lm.model.state_dict().items()}
    identity = lm.identity
    with packed(lm.model):
        assert is_packed()
        assert lm.identity == identity
        state = lm.model.state_dict()
    assert list(state) == list(before)
    assert all(torch.equal(state[name], before[name]) for name in before)


@torch.no_grad()
def test_a_weight_that_changes_meanwhile_is_not_computed_from_its_copy(layer):
    x = torch.ones(3, 32)
    with packed(layer):
        layer.weight.zero_()
        assert torch.equal(layer(x), layer.bias.expand(3, -1))
        layer.weight.data = torch.ones(48, 32)
        assert torch.allclose(layer(x), 32 + layer.bias)
        layer.weight = nn.Parameter(torch.zeros(48, 32))
        assert torch.equal(layer(x), layer.bias.expand(3, -1))


def test_other_threads_do_not_see_it(layer):
    seen = []
    with packed(layer):
        thread = threading.Thread(target=lambda: seen.append(is_packed()))
        thread.start()
        thread.join()
    assert seen == [False]


def test_nothing_keeps_a_copy_after_its_end(layer):
    def fail():
        copies.append(weakref.ref(packing.packed(layer, layer.weight).copy))
        contexts.append(contextvars.copy_context())  # as a task that is started meanwhile has
        raise KeyError

    copies, contexts = [], []
    with pytest.raises(KeyError), packed(layer):
        fail()
    assert not is_packed()
    assert not contexts[0].run(is_packed)
    gc.collect()
    assert copies[0]() is None


def test_a_batch_within_takes_the_copy_that_is_there(lm, monkeypatch):
    with packed(lm.model):
        monkeypatch.setattr(fast_layers, "Packing", lambda layers: pytest.fail("copied twice"))
        lm.generate(PROMPTS, max_new_tokens=32)
        assert is_packed()


@pytest.mark.parametrize("work", ["calibrate", "evaluate"])
def test_long_work_holds_one_copy_all_along(work, tmp_path, monkeypatch):
    lm, seen, copies = planted_lm(), [], [Packing]
    use_fast_products(lm.model)

    def logits(self, rows, **options):
        seen.append(is_packed())
        if len(seen) == 4:
            raise Cancelled("enough")
        return real(self, rows, **options)

    real = TransformersRuntime.logits
    monkeypatch.setattr(TransformersRuntime, "logits", logits)
    monkeypatch.setattr(fast_layers, "Packing", lambda layers: copies.pop()(layers))
    (tmp_path / "suite.toml").write_text(SUITE)
    plan = EvaluationPlan(suites=(str(tmp_path / "suite.toml"),), max_new_tokens=4, seeds=1)
    lab, vector = Lab(tmp_path / "store", lm), lm.extract(pairs(8), layers=3)
    with pytest.raises(Cancelled):
        calibrate(lab, vector) if work == "calibrate" else evaluate(lab, vector, plan)
    assert seen == [True] * 4
    assert not is_packed()


def test_a_layer_of_another_precision_is_not_packed(layer):
    with packed(layer.to(torch.bfloat16)):
        assert not is_packed()


class TestGains:
    @pytest.fixture(autouse=True)
    def clock(self, monkeypatch, tmp_path):
        monkeypatch.setenv("STEERLAB_CACHE", str(tmp_path))
        self.faster = {1: 2.0, 2: 1.0, 4: 0.9, 16: 0.93, 60: 0.5, 128: 1.0}  # packed, of now

        def seconds(product, xs, weights):
            (x,) = xs.values()
            return self.faster[len(x)] if weights[0].is_mkldnn else 1.0

        monkeypatch.setattr(products, "_seconds", seconds)
        self.weights = [[torch.randn(64, 32)] for _ in range(3)]

    def gains(self):
        return packed_gains("64x32", self.weights, Choice((PLAIN,) * len(ROWS)))

    def test_a_copy_is_taken_where_it_gains_enough(self):
        assert self.gains() == (False, False, True, False, True, False)

    def test_the_callers_autocast_changes_nothing(self):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert self.gains() == (False, False, True, False, True, False)

    def test_a_machine_measures_once(self, monkeypatch, tmp_path):
        monkeypatch.undo()
        monkeypatch.setenv("STEERLAB_CACHE", str(tmp_path))
        found = self.gains()
        monkeypatch.setattr(products, "_packed_gains", lambda *_: pytest.fail("measured again"))
        assert self.gains() == found

    def test_what_is_not_there_or_wrong_is_never_taken(self, monkeypatch):
        monkeypatch.setattr(products, "_onednn", lambda x, w, b: torch.zeros(len(x), 64))
        assert not any(self.gains())

        def gone(weight):
            raise NotImplementedError

        monkeypatch.setattr(products, "pack", gone)
        assert products._packed_gains(self.weights, everywhere(PLAIN)) == [False] * len(ROWS)


def test_an_interrupt_between_two_layers_keeps_nothing(layer, monkeypatch):
    def stopped(weight):
        raise KeyboardInterrupt

    monkeypatch.setattr(packing, "pack", stopped)
    with pytest.raises(KeyboardInterrupt), packed(layer):
        pytest.fail("packed")
    assert not is_packed()
    assert Packing([]).remove() is None
