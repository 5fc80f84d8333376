"""Whose steering it is: the context's that entered it, and never another's by chance."""

from __future__ import annotations

import asyncio
import copy
import io
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from steerlab import LanguageModel, steering
from steerlab.errors import SteeringError
from steerlab.models.interventions import is_steered
from tests.tiny import tiny_lm, tiny_model
from tests.watching import N_LAYERS, hooks_on, planted, shared

IDS = torch.tensor([[1, 40, 77, 12, 205, 9, 133]])
LONG = 20  # seconds after which a thread that should have ended hangs


@torch.no_grad()
def plain_text(lm):
    return lm.model.generate(IDS, attention_mask=torch.ones_like(IDS), max_new_tokens=4).tolist()


def our_text(lm):
    return lm.generate("abc", max_new_tokens=4).token_ids


class Work:
    """Texts of one model: unsteered, and under two vectors."""

    def __init__(self, lm, text):
        self.lm, self.text = lm, text
        self.vectors = [None, planted(lm, 1, 2, norm=9.0), planted(lm, 1, 2, norm=9.0, seed=1)]
        self.expected = [self.write(kind) for kind in range(3)]
        assert len({str(text) for text in self.expected}) == 3

    def write(self, kind):
        if kind == 0:
            return self.text(self.lm)
        with steering(self.lm if self.text is our_text else self.lm.model, self.vectors[kind]):
            return self.text(self.lm)

    def is_right(self, job):
        return self.write(job % 3) == self.expected[job % 3]

    async def is_right_in_between(self, job):
        kind = job % 3
        if kind == 0:
            await asyncio.sleep(0)
            return self.text(self.lm) == self.expected[0]
        with steering(self.lm, self.vectors[kind]):
            await asyncio.sleep(0)
            found = self.text(self.lm)
            await asyncio.sleep(0)
        return found == self.expected[kind]


@pytest.fixture(params=[our_text, plain_text], ids=["LanguageModel", "plain"])
def work(request):
    return Work(shared(), request.param)


class TestThreads:
    def test_mixed_on_one_model(self, work):
        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(work.is_right, range(18)))
        assert hooks_on(work.lm.model) == 0

    def test_a_baseline_beside_a_steered_thread(self, work):
        steered, done = threading.Event(), threading.Event()
        thread = threading.Thread(target=self.hold, args=(work, steered, done))
        thread.start()
        assert steered.wait(LONG)
        assert work.write(0) == work.expected[0]
        assert not is_steered(work.lm.model)
        done.set()
        thread.join(LONG)
        assert not thread.is_alive()

    def hold(self, work, steered, done):
        with steering(work.lm.model, work.vectors[1]):
            assert work.text(work.lm) == work.expected[1]
            steered.set()
            done.wait(LONG)

    def test_a_new_thread_is_unsteered_inside_the_block(self, work):
        found = []
        with steering(work.lm, work.vectors[1]):
            thread = threading.Thread(target=lambda: found.append(work.write(0)))
            thread.start()
            thread.join(LONG)
            assert work.text(work.lm) == work.expected[1]
        assert found == [work.expected[0]]

    def test_wrappers_of_one_model_share_its_lock(self):
        lm = shared()
        again = LanguageModel(lm.model, lm.tokenizer, source="again")
        assert again.lock is lm.lock
        assert tiny_lm().lock is not lm.lock

    def test_the_settings_of_the_model_are_left_alone_meanwhile(self):
        lm = shared()
        own, seen = lm.model.generation_config, []
        lm.generate("abc", on_text=lambda *_: seen.append(lm.model.generation_config))
        assert seen
        assert all(config is own for config in seen)


class TestTasks:
    async def test_mixed_on_one_model(self, work):
        right = await asyncio.gather(*[work.is_right_in_between(job) for job in range(12)])
        assert all(right)
        assert hooks_on(work.lm.model) == 0

    async def test_to_thread_takes_the_steering_along(self, work):
        with steering(work.lm, work.vectors[1]):
            found = await asyncio.wait_for(asyncio.to_thread(work.text, work.lm), LONG)
            assert is_steered(work.lm.model)
        assert found == work.expected[1]
        assert await asyncio.to_thread(work.text, work.lm) == work.expected[0]

    async def test_several_threads_under_one_steering(self, work):
        with steering(work.lm, work.vectors[1], 1.0, "generated"):
            expected = work.text(work.lm)
            found = await asyncio.gather(*[asyncio.to_thread(work.text, work.lm) for _ in range(6)])
        assert found == [expected] * 6

    async def test_a_task_that_outlives_the_block_is_unsteered_after_it(self, work):
        left = asyncio.Event()

        async def later():
            await left.wait()
            return work.text(work.lm)

        with steering(work.lm, work.vectors[1]):
            task = asyncio.create_task(later())
            assert work.text(work.lm) == work.expected[1]
        left.set()
        assert await task == work.expected[0]


class TestLeaving:
    def test_in_another_thread(self):
        lm = shared()
        context = steering(lm, planted(lm))
        context.__enter__()
        our_text(lm)
        with ThreadPoolExecutor(1) as pool:
            error = pool.submit(context.__exit__, None, None, None).exception(LONG)
        assert isinstance(error, SteeringError)
        assert "another thread or task" in str(error)
        assert hooks_on(lm.model) == 0
        assert not is_steered(lm.model)
        with ThreadPoolExecutor(1) as pool:  # nothing is held
            assert pool.submit(our_text, lm).result(LONG) == our_text(lm)

    async def test_in_a_copy_of_the_context(self):
        lm = shared()
        context = steering(lm, planted(lm))
        context.__enter__()
        with pytest.raises(SteeringError, match="another thread or task"):
            await asyncio.to_thread(context.__exit__, None, None, None)
        assert hooks_on(lm.model) == 0
        assert not is_steered(lm.model)

    async def test_in_another_task(self):
        lm = shared()
        context = steering(lm, planted(lm))

        async def enter():
            context.__enter__()

        await asyncio.create_task(enter())
        with pytest.raises(SteeringError, match="another thread or task"):
            context.__exit__(None, None, None)
        assert hooks_on(lm.model) == 0

    def test_in_another_order(self):
        work = Work(shared(), our_text)
        one, two = (steering(work.lm, v) for v in work.vectors[1:])
        one.__enter__()
        two.__enter__()
        our_text(work.lm)
        one.__exit__(None, None, None)
        assert our_text(work.lm) == work.expected[2]
        two.__exit__(None, None, None)
        assert our_text(work.lm) == work.expected[0]
        assert hooks_on(work.lm.model) == 0

    def test_a_block_that_nobody_leaves(self):
        lm = shared()
        context = steering(lm, planted(lm))
        context.__enter__()
        del context
        assert hooks_on(lm.model) == 0
        assert not is_steered(lm.model)

    def test_as_a_decorator(self):
        work = Work(shared(), our_text)
        steered = steering(work.lm, work.vectors[1])(our_text)
        assert steered(work.lm) == steered(work.lm) == work.expected[1]
        assert our_text(work.lm) == work.expected[0]


def through_torch_save(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


class TestCopies:
    @pytest.mark.parametrize(
        "duplicate",
        [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), through_torch_save],
        ids=["deepcopy", "pickle", "torch.save"],
    )
    @pytest.mark.parametrize("positions", ["all", "generated"])
    def test_a_copy_is_not_steered(self, duplicate, positions):
        lm = shared()
        with torch.no_grad():
            plain = lm.model(IDS).logits
            with steering(lm, planted(lm), 5.0, positions):
                twin = duplicate(lm.model)
                assert not torch.equal(lm.model(IDS).logits, plain)
                assert not is_steered(twin)
                assert torch.equal(twin(IDS).logits, plain)
            assert torch.equal(twin(IDS).logits, plain)
            assert twin.generate(IDS, max_new_tokens=3).shape == (1, 10)

    def test_a_copy_can_be_steered_by_itself(self):
        lm = shared()
        v = planted(lm)
        with torch.no_grad(), steering(lm, v, 5.0):
            twin = copy.deepcopy(lm)
            steered = lm.model(IDS).logits
            with steering(twin, v, 5.0):
                assert torch.equal(twin.model(IDS).logits, steered)

    def test_a_block_or_a_list_of_blocks_that_is_copied(self):
        lm = shared()
        with torch.no_grad(), steering(lm, planted(lm), 5.0):
            layers = copy.deepcopy(lm.model.model.layers)
            lm.model(IDS)
        other = tiny_model()
        other.model.layers = layers
        with torch.no_grad():
            assert torch.equal(other(IDS).logits, lm.model(IDS).logits)


class TestSteeredThroughAnotherWrapper:
    def test_it_is_known_of_the_blocks(self):
        lm = shared()
        inner = lm.model.model
        with steering(inner, planted(lm), allow_other_weights=True):
            assert is_steered(lm.model)
            assert is_steered(inner)
            our_text(lm)
        assert not is_steered(lm.model)


@pytest.mark.campaign
class TestCrowd:
    async def test_two_hundred_tasks_and_eight_threads(self):
        work = Work(tiny_lm(), our_text)
        plain = Work(work.lm, plain_text)
        with ThreadPoolExecutor(8) as pool:
            loop = asyncio.get_running_loop()
            threads = [loop.run_in_executor(pool, plain.is_right, job) for job in range(240)]
            tasks = [work.is_right_in_between(job) for job in range(200)]
            right = await asyncio.gather(*tasks, *threads)
        assert right.count(False) == 0
        assert hooks_on(work.lm.model) == 0


def test_every_layer_has_its_hooks_off_after_a_block():
    lm = shared()
    with steering(lm, planted(lm, *range(N_LAYERS))):
        our_text(lm)
        assert hooks_on(lm.model) == N_LAYERS + 4
    assert hooks_on(lm.model) == 0
