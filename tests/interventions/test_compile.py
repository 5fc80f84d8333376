"""torch.compile: steered exactly, compiled or not, and never by half."""

from __future__ import annotations

import copy
import shutil
import threading

import numpy as np
import pytest
import torch

from steerlab import Injection, compilable, steering
from steerlab.errors import ModelError, SteeringError
from steerlab.models.cache import cache_argument
from steerlab.models.recording import record
from steerlab.models.unembedding import logits
from tests.tiny import tiny_lm, tiny_model
from tests.watching import hooks_on, planted, watching

IDS = torch.tensor([[1, 40, 77, 12, 205, 9, 133]])
BACKENDS = [
    "eager",
    pytest.param(
        "inductor",
        marks=[
            pytest.mark.campaign,
            pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's, of its own parts
            pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler"),
        ],
    ),
]


@pytest.fixture(autouse=True)
def forget_graphs():
    yield
    torch._dynamo.reset()


@pytest.fixture(
    params=[
        "compile()",
        "blocks",
        pytest.param("torch.compile", marks=pytest.mark.campaign),
        pytest.param("forward", marks=pytest.mark.campaign),
    ]
)
def way(request):
    """Ways to compile a model; each returns what to call."""

    def compiled(model, backend="eager"):
        if request.param == "compile()":
            model.compile(backend=backend)
        elif request.param == "torch.compile":
            return torch.compile(model, backend=backend)
        elif request.param == "forward":
            model.forward = torch.compile(model.forward, backend=backend)
        else:
            for block in model.model.layers:
                block.compile(backend=backend)
        return model

    return compiled


@torch.no_grad()
def text(model):
    ids = IDS
    cache = None
    written = []
    for _ in range(4):
        output = model(ids, use_cache=True, **{NAME: cache})
        cache, ids = output.past_key_values, output.logits[:, -1:].argmax(-1)
        written.append(output.logits[:, -1])
    return torch.cat(written)


NAME = cache_argument(tiny_model())
"""How the installed transformers calls the argument that takes a cache."""


def texts(lm, model, injections):
    found = []
    for one in injections:
        with steering(lm, one):
            found.append(text(model))
    return found


def same(found, expected):
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def asked(lm):
    v, w = planted(lm, 1, 2, norm=6.0), planted(lm, 0, 3, norm=6.0, seed=1)
    return [
        Injection(v, 1.0),
        Injection(w, -2.0),
        Injection(v, 1.0, "continuation"),
        Injection(v, 1.0, rows=(0,)),
        Injection(planted(lm, rows=3), 1.0),
    ]


class TestCompiledBefore:
    """Graphs that were made without the steering."""

    def test_every_pass_is_steered(self, way):
        lm = tiny_lm()
        plain, expected = text(lm.model), texts(lm, lm.model, asked(lm))
        model = way(lm.model)
        same([text(model)], [plain])
        same(texts(lm, model, asked(lm)), expected)
        same([text(model)], [plain])
        assert hooks_on(lm.model) == 0

    def test_compiling_inside_the_block(self, way):
        lm = tiny_lm()
        plain, expected = text(lm.model), texts(lm, lm.model, asked(lm)[:1])
        with steering(lm, asked(lm)[0]):
            model = way(lm.model)
            same([text(model)], expected)
        same([text(model)], [plain])

    def test_other_threads_go_on(self):
        lm = tiny_lm()
        lm.model.compile(backend="eager")
        plain, found = text(lm.model), []
        with steering(lm, planted(lm)):
            thread = threading.Thread(target=lambda: found.append(text(lm.model)))
            thread.start()
            thread.join(60)
            text(lm.model)
        same(found, [plain])

    def test_a_pass_that_misses_a_block_is_an_error(self):
        lm = tiny_lm()
        v, config = planted(lm, 1, 2), lm.model.model.config
        with (
            pytest.raises(SteeringError, match="did not come through block 2"),
            steering(lm, v, allow_other_weights=True),
        ):
            text(lm.model), setattr(config, "num_hidden_layers", 2), text(lm.model)


class TestReading:
    """What hooks read of a model that torch.compile has compiled."""

    def test_extraction_unembedding_and_scores(self):
        pairs = [("love is all", "hate is all")]
        plain, compiled = tiny_lm(), tiny_lm()
        compiled.model.compile(backend="eager")
        text(compiled.model)
        assert compiled.extract(pairs, layers=[1, 2]) == plain.extract(pairs, layers=[1, 2])
        inside = np.random.default_rng(0).standard_normal((2, plain.d_model))
        np.testing.assert_allclose(logits(compiled, inside), logits(plain, inside))
        scores = [lm.next_log_probs(["a", "bc"]) for lm in (compiled, plain)]
        np.testing.assert_allclose(*scores, atol=1e-5)

    def test_a_block_that_is_skipped_is_named(self):
        lm = tiny_lm()
        lm.model.model.config.num_hidden_layers = 2
        with pytest.raises(ModelError, match="did not come through block 2"):
            record(lm.model, lm.blocks, [1, 2], [2])


class TestPrepared:
    @pytest.mark.parametrize("backend", BACKENDS)
    def test_graphs_are_steered_as_they_are(self, way, backend):
        lm = tiny_lm()
        plain, expected = text(lm.model), texts(lm, lm.model, asked(lm))
        compilable(lm)
        assert torch.equal(text(lm.model), plain)
        model = way(lm.model, backend)
        same([text(model)], [plain])
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        same(texts(lm, model, asked(lm)[:2]), expected[:2])
        same([text(model)], [plain])
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
        same(texts(lm, model, asked(lm)), expected)
        same([text(model)], [plain])

    def test_uncompiled_it_is_exact(self):
        lm = tiny_lm()
        compilable(lm)
        v = planted(lm)
        with torch.no_grad(), watching(lm.model) as watch, steering(lm, v, 1.7):
            lm.model(IDS)
        added = torch.from_numpy(1.7 * v.float32()[2].astype("float64")).float()
        assert torch.equal(watch.inputs[2][0], watch.outputs[1][0] + added)

    def test_audited_it_is_measured_uncompiled(self):
        lm = tiny_lm()
        compilable(lm)
        with steering(lm, planted(lm, norm=3.0)):
            steered = text(lm.model)
        with steering(lm, planted(lm, norm=3.0), audit=True) as applied:
            same([text(lm.model)], [steered])
        assert applied.audit.norms() == pytest.approx(dict.fromkeys(range(10), 3.0), rel=1e-5)

    def test_steerings_nest(self):
        lm = tiny_lm()
        v, w = planted(lm), planted(lm, seed=1)
        with steering(lm, [v, w]):
            expected = text(lm.model)
        compilable(lm)
        compilable(lm)  # the second time, it does nothing
        with steering(lm, v), steering(lm, w):
            same([text(lm.model)], [expected])

    def test_another_thread_is_not_steered(self):
        lm = tiny_lm()
        plain = text(lm.model)
        compilable(lm)
        lm.model.compile(backend="eager")
        found = []
        with steering(lm, planted(lm)):
            steered = text(lm.model)
            threads = [
                threading.Thread(target=lambda: found.append(text(lm.model))) for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            again = [text(lm.model) for _ in range(4)]
            for thread in threads:
                thread.join(60)
        same(found, [plain] * 4)
        same(again, [steered] * 4)

    def test_a_copy_is_not_steered(self):
        lm = tiny_lm()
        plain = text(lm.model)
        compilable(lm)
        with steering(lm, planted(lm)):
            text(lm.model)
            twin = copy.deepcopy(lm.model)
        assert torch.equal(text(twin), plain)

    def test_one_that_never_ran(self):
        lm = tiny_lm()
        compilable(lm)
        with pytest.raises(SteeringError, match="never fired"), steering(lm, planted(lm)):
            pass

    def test_one_that_is_lost_in_rounding(self):
        lm = tiny_lm()
        lm.model.to(torch.bfloat16)
        compilable(lm)
        with pytest.raises(SteeringError, match="changed nothing"), steering(lm, planted(lm), 1e-9):
            text(lm.model)

    def test_a_pass_that_comes_around_the_model_is_an_error(self):
        lm = tiny_lm()
        compilable(lm)
        with pytest.raises(SteeringError, match="run that model"), steering(lm, planted(lm)):
            text(lm.model), lm.model.model(IDS)

    def test_a_pass_that_broke_off_holds_nobody_up(self):
        lm = tiny_lm()
        compilable(lm)

        def interrupt(*_):
            raise KeyboardInterrupt

        handle = lm.model.model.norm.register_forward_pre_hook(interrupt)
        found = []
        with pytest.raises(KeyboardInterrupt), steering(lm, planted(lm)):
            text(lm.model)
        handle.remove()
        thread = threading.Thread(target=lambda: found.append(text(lm.model)))
        thread.start()
        thread.join(60)
        same(found, [text(lm.model)])

    def test_the_state_dict_is_as_before(self):
        lm = tiny_lm()
        before = set(lm.model.state_dict())
        compilable(lm)
        assert set(lm.model.state_dict()) == before
