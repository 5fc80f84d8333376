"""vLLM's plugin without vLLM: what is added to which token, and what is refused."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from steerlab import Store
from steerlab.errors import BadOption, Incompatible, ModelError, ModelMismatch, NotFound
from steerlab.interventions.injection import Injection
from steerlab.vllm_plugin import worker
from steerlab.vllm_plugin.admission import Admission, ServedModel, admit
from steerlab.vllm_plugin.bank import Bank, Scheduled, steered
from steerlab.vllm_plugin.plugin import register
from steerlab.vllm_plugin.steering import KEY, Steering, summed
from steerlab.vllm_plugin.worker import _hook, check_supported
from tests.tiny import tiny_lm

PROMPT = 5


def ones(positions="all", *layers, size=1.0):
    return Steering(positions, {b: np.full(4, size, "<f4") for b in layers or (1,)})


def scheduled(steering, first, tokens):
    return Scheduled(steering and steering.to_message(), first, tokens, PROMPT)


def bank_of(requests=3, layers=(0, 1, 2)):
    return Bank(layers, 4, requests=requests, tokens=16)


@pytest.mark.parametrize(
    ("positions", "where"),
    [
        ("all", range(9)),
        ("prompt", range(5)),
        ("generated", range(4, 9)),
        ("continuation", range(5, 9)),
    ],
)
def test_positions_are_absolute_however_a_text_is_cut_into_passes(positions, where):
    for cuts in ((0, 9), (0, 3, 9), (0, 4, 5, 6, 9), tuple(range(10))):
        found = []
        for first, stop in pairwise(cuts):
            begin, end = steered(scheduled(ones(positions), first, stop - first))
            found += range(first + begin, first + end)
        assert found == list(where)


def test_tokens_of_a_pass_get_their_own_rows_and_no_others():
    bank = bank_of()
    love, calm = ones("all", 1, size=2.0), ones("generated", 1, 2, size=-3.0)
    bank.prepare([scheduled(love, 7, 1), scheduled(None, 0, 3), scheduled(calm, 3, 4)])
    expected = torch.zeros(10, 4)
    expected[0], expected[5:8] = 2.0, -3.0
    hidden = torch.randn(10, 4)  # two tokens of padding
    assert torch.equal(bank.add_to(hidden, 1), hidden + expected)
    expected[0] = 0
    assert torch.equal(bank.add_to(hidden, 2), hidden + expected)
    assert bank.active == {1, 2}
    assert not bank.acts_at(0)


def test_an_unsteered_pass_after_a_steered_one_is_left_alone():
    bank = bank_of()
    bank.prepare([scheduled(ones(), 0, 3)])
    bank.prepare([scheduled(None, 0, 3)])
    assert not bank.active
    hidden = torch.randn(3, 4)
    assert torch.equal(bank.add_to(hidden, 1), hidden)


def test_nothing_is_copied_while_passes_read_the_same_rows():
    bank, love = bank_of(), ones("generated", 1, size=2.0)
    bank.prepare([scheduled(love, 0, 5), scheduled(None, 0, 2)])
    bank.prepare([scheduled(love, 5, 1), scheduled(None, 2, 1)])
    written = bank.slots._version
    bank.prepare([scheduled(love, 6, 1), scheduled(None, 3, 1)])
    assert bank.slots._version == written
    assert bank.add_to(torch.zeros(2, 4), 1)[:, 0].tolist() == [2, 0]
    bank.prepare([scheduled(None, 3, 1), scheduled(love, 6, 1)])
    assert bank.add_to(torch.zeros(2, 4), 1)[:, 0].tolist() == [0, 2]


def test_a_slot_that_is_taken_acts_where_its_new_rows_do():
    bank = bank_of(requests=1)
    for layer in (1, 2, 1):
        bank.prepare([scheduled(ones("all", layer), 0, 1)])
        assert bank.active == {layer}
        assert bank.add_to(torch.zeros(1, 4), layer)[0, 0] == 1


def test_the_op_of_compiled_graphs_adds_what_the_bank_adds():
    bank = bank_of()
    worker._BANKS.append(bank)
    number, hidden = len(worker._BANKS) - 1, torch.randn(3, 4)
    op = torch.ops.steerlab.steer.default
    assert torch.equal(op(hidden, number, 1), hidden)
    bank.prepare([scheduled(ones(), 0, 3)])
    assert torch.equal(op(hidden, number, 1), hidden + 1)
    torch.library.opcheck(op, (hidden, number, 1))


def test_slots_are_used_again_and_never_taken_from_a_running_request():
    bank = bank_of(requests=2)
    made = [ones("all", 1 + n % 2, size=n + 1.0) for n in range(6)]
    for n in (0, 1, 2, 0, 3, 4, 5, 0):
        one, two = made[n], made[(n + 1) % 6]
        bank.prepare([scheduled(one, 0, 1), scheduled(two, 0, 1)])
        for layer in (1, 2):
            added = bank.add_to(torch.zeros(2, 4), layer)[:, 0].tolist()
            assert added == [s.rows[layer][0] if layer in s.rows else 0 for s in (one, two)]


def test_a_pipeline_stage_adds_what_its_own_layers_get():
    bank = bank_of(layers=(2, 3))
    bank.prepare([scheduled(ones("all", 0, 2), 0, 2)])
    assert bank.active == {2}


class Block(nn.Module):
    def forward(self, positions, hidden_states, residual=None):
        return hidden_states, residual


def test_the_hook_adds_to_hidden_states_and_not_to_the_residual():
    bank, block = bank_of(), Block()
    block.register_forward_pre_hook(_hook(block, bank, 0, 1), with_kwargs=True)
    hidden, residual = torch.randn(2, 4), torch.randn(2, 4)
    bank.prepare([scheduled(None, 0, 2)])
    assert block(None, hidden, residual)[0] is hidden
    bank.prepare([scheduled(ones(), 0, 2)])
    for found in (block(None, hidden, residual), block(None, hidden_states=hidden)):
        assert torch.equal(found[0], hidden + 1)
    assert block(None, hidden, residual)[1] is residual
    with pytest.raises(ModelError, match="no hidden_states"):
        _hook(nn.Linear(1, 1), bank, 0, 1)


def test_fingerprints_tell_apart_positions_layers_and_values():
    several = [ones(), ones("prompt"), ones("all", 2), ones("all", 1, 2), ones(size=2.0)]
    assert len({s.fingerprint for s in several}) == len(several)
    for one in several:
        assert Steering.from_message(one.to_message()).fingerprint == one.fingerprint


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def vector(lm):
    return lm.extract((["good", "nice"], ["bad", "dull"]), layers=[1, 2])


@pytest.fixture
def admission(tmp_path, lm, vector):
    store = Store(tmp_path / "store")
    store.save("love", vector)
    return Admission(str(tmp_path / "store"), lm)


def request_of(steering, salt=None, **extra):
    params = SimpleNamespace(extra_args={"steering": steering, **extra})
    return SimpleNamespace(sampling_params=params, cache_salt=salt, lora_request=None)


def test_vectors_of_a_request_add_up_and_round_once(vector):
    found = summed([Injection(vector, 0.3), Injection(vector[1], -1.0)])
    rows = vector.float32()
    exact = 0.3 * rows[1][0].astype(float) - rows[1][0]
    assert found.rows[1].tobytes() == exact.astype("<f4").tobytes()
    assert summed([Injection(vector, 0.0), Injection(vector, 0.0, "prompt")]) is None
    with pytest.raises(Incompatible, match="positions"):
        summed([Injection(vector), Injection(vector, 1.0, "prompt")])


def test_vectors_of_the_first_tokens_are_refused_with_what_serves_them(lm):
    front = lm.extract([("Love", "Hate")], method="actadd", layers=[1])
    with pytest.raises(Incompatible, match="--engine transformers"):
        summed([Injection(front)])


def test_a_request_carries_what_it_adds_and_a_cache_of_its_own(admission, vector):
    plain, steered_, salted = request_of(None), request_of("love dose=0.2"), request_of("love", "a")
    for request in (plain, steered_, salted):
        admit(admission, request)
    assert plain.cache_salt is None
    assert KEY not in plain.sampling_params.extra_args
    made = Steering.from_message(steered_.sampling_params.extra_args[KEY])
    c = vector.coefficient(0.2)
    np.testing.assert_allclose(made.rows[2], c * vector.directions[2][0], rtol=1e-6)
    assert steered_.cache_salt == made.fingerprint
    assert salted.cache_salt.endswith("a")
    assert len(salted.cache_salt) == 65


def test_objects_may_come_as_json_text(admission):
    text = admission.steering("love dose=0.2 layers=2")
    for value in ('{"vector": "love", "dose": 0.2, "layers": 2}', ["love dose=0.2 layers=2"]):
        assert admission.steering(value).fingerprint == text.fingerprint


def deep(levels):
    found = []
    for _ in range(levels):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("value", "error", "said"),
    [
        ("lov", NotFound, "did you mean love"),
        ("love dose=0.2 dose=0.1", BadOption, "more than once"),
        ("{love", BadOption, "neither a text nor JSON"),
        ("love positions=here", BadOption, "positions are"),
        (3, BadOption, "steering is a text"),
        (["love"] * 1000, BadOption, "16 vectors"),
        (deep(100_000), BadOption, "nested too deeply"),
    ],
)
def test_bad_steering_is_refused_with_the_reason(admission, value, error, said):
    with pytest.raises(error, match=said):
        admit(admission, request_of(value))


def test_clients_can_neither_forge_rows_nor_steer_a_lora(admission):
    with pytest.raises(Incompatible, match="not for clients"):
        admit(admission, request_of(None, **{KEY: {}}))
    request = request_of("love")
    request.lora_request = object()
    with pytest.raises(Incompatible, match="LoRA"):
        admit(admission, request)


def test_vectors_saved_while_it_runs_are_there(admission, vector):
    with pytest.raises(NotFound):
        admission.steering("joy")
    Store(admission.lab.store_path).save("joy", 2 * vector)
    assert admission.steering("joy") is not None


def test_vectors_of_another_model_are_refused(admission):
    admission.lab = type(admission.lab)(admission.lab.store_path, tiny_lm(seed=1))
    with pytest.raises(ModelMismatch, match="other weights"):
        admission.steering("love")


def test_the_served_model_is_known_by_its_files_and_makes_layers_if_small(tmp_path, lm, vector):
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    served = ServedModel(str(tmp_path / "model"), None, False)
    assert vector.model.has_weights_of(served.identity)
    store = Store(tmp_path / "store")
    store.save("love", vector)
    admission = Admission(str(tmp_path / "store"), served)
    made = admission.steering("love layers=3 coefficient=1").rows
    exact = lm.reextract(vector.recipe, [3]).directions[3][0]
    np.testing.assert_allclose(made[3], exact, rtol=1e-4, atol=1e-6)
    served.is_small = False
    with pytest.raises(Incompatible, match="has no layer 0"):
        admission.steering("love layers=0")


def runner_of(**changed):
    parallel = {"use_ubatching": False, "prefill_context_parallel_size": 1}
    config = {"speculative_config": None, "kv_transfer_config": None}
    parallel |= {k: v for k, v in changed.items() if k in parallel}
    config |= {k: v for k, v in changed.items() if k in config}
    made = SimpleNamespace(**config, parallel_config=SimpleNamespace(**parallel))
    return SimpleNamespace(vllm_config=made, _prepare_inputs=None)


def test_ways_to_run_a_model_whose_tokens_cannot_be_placed_are_refused():
    check_supported(runner_of())
    for changed, said in (
        ({"speculative_config": object()}, "speculative"),
        ({"kv_transfer_config": object()}, "KV transfer"),
        ({"use_ubatching": True}, "microbatches"),
        ({"prefill_context_parallel_size": 2}, "context parallelism"),
    ):
        with pytest.raises(ModelError, match=said):
            check_supported(runner_of(**changed))


def test_without_a_store_the_plugin_does_nothing(monkeypatch):
    monkeypatch.delenv("STEERLAB_STORE", raising=False)
    register()  # would import vllm
