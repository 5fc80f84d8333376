"""The threads of a pass: all of them, and one for a while after other work held a pass up."""

import os
import subprocess
import sys
import threading

import pytest
import torch

from steerlab import LanguageModel
from steerlab.models import threads
from tests.tiny import tiny_lm


@pytest.fixture
def clocks(monkeypatch):
    """The time, and the time on a core, as a test sets them."""
    now = {"time": 100.0, "core": 100.0}
    monkeypatch.setattr(threads.time, "perf_counter", lambda: now["time"])
    monkeypatch.setattr(threads, "_clock", lambda: now["core"])
    monkeypatch.setattr(threads, "machine", threads._Machine())
    return now


@pytest.fixture
def counted(clocks):
    """A model whose passes take a second; how many threads each had."""
    model, before = torch.nn.Linear(2, 2), torch.get_num_threads()
    torch.set_num_threads(4)
    threads.follow(model)
    seen = []

    def run(_, args):
        seen.append(torch.get_num_threads())
        clocks["time"] += 1
        clocks["core"] += model.on_core

    model.register_forward_pre_hook(run)
    model.on_core, model.seen = 1.0, seen
    yield model
    torch.set_num_threads(before)


def run(model, passes=1):
    for _ in range(passes):
        model(torch.zeros(1, 2))


def test_a_pass_that_is_held_up_is_followed_by_passes_on_one_thread(counted, clocks):
    run(counted, 2)
    counted.on_core = 0.5
    run(counted)
    clocks["time"] -= 0.9  # as if passes were short
    run(counted)
    assert counted.seen == [4, 4, 4, 1]
    assert torch.get_num_threads() == 4


def test_all_threads_are_tried_again_and_later_each_time(clocks):
    machine = threads._Machine()
    rests = []
    for _ in range(6):
        machine.note(clocks["time"], 0.5)
        rests.append(machine.busy_until - clocks["time"])
        clocks["time"] = machine.busy_until + 0.1
    assert rests == [0.25, 0.5, 1.0, 2.0, 4.0, 4.0]
    clocks["time"] += 10
    machine.note(clocks["time"], 0.02)
    machine.note(clocks["time"], 0.5)
    assert machine.busy_until - clocks["time"] == 0.25


def test_one_good_pass_after_a_rest_does_not_make_the_next_rest_short(clocks):
    machine = threads._Machine()
    machine.note(100.0, 0.5)
    machine.note(100.3, 0.5)
    machine.note(100.81, 0.0)  # a thread that slept is let run at once
    machine.note(100.9, 0.5)
    assert machine.busy_until == pytest.approx(100.9 + 1.0)


def test_threads_come_back_after_an_error(counted, clocks):
    counted.on_core = 0.0
    run(counted)
    clocks["time"] -= 0.9
    with pytest.raises(RuntimeError):
        counted(torch.zeros(1, 3))
    assert counted.seen == [4, 1]
    assert torch.get_num_threads() == 4


def test_a_pass_that_is_interrupted_gives_its_threads_back_with_the_next_or_at_the_end(counted):
    def interrupt(*_):
        raise KeyboardInterrupt

    threads.machine.busy_until = 1000.0
    handle = counted.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(counted)
    handle.remove()
    assert torch.get_num_threads() == 1
    run(counted)
    assert torch.get_num_threads() == 4
    handle = counted.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(counted)
    threads.dismiss_team()
    assert torch.get_num_threads() == 4


def test_passes_within_passes_and_in_other_threads_are_their_own(clocks):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        outer = torch.nn.Sequential(inner := torch.nn.Linear(2, 2))
        threads.follow(outer)
        threads.follow(inner)
        threads.machine.busy_until = clocks["time"] + 1
        seen = []
        inner.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
        run(outer)
        other = threading.Thread(target=run, args=(outer,))
        other.start()
        other.join()
        assert seen == [1, 1]
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_model_that_the_user_brought_or_wants_plain_is_left(tmp_path, monkeypatch):
    lm = tiny_lm()
    assert not lm.model._forward_pre_hooks
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    plain = LanguageModel.load(str(tmp_path), layout="plain")
    assert not plain.model._forward_pre_hooks
    assert LanguageModel.load(str(tmp_path)).model._forward_pre_hooks


def torchs_own_differ(model, rows):
    """Whether torch's own products of these layers have other bits on one thread than on two."""
    for layer in (m for m in model.modules() if isinstance(m, torch.nn.Linear)):
        x, found = torch.randn(rows, layer.in_features), []
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(torch.nn.functional.linear(x, layer.weight))
        if not torch.equal(*found):
            return True
    return False


@pytest.mark.smollm2
def test_one_thread_gives_the_bits_of_two(smollm2):
    """Where torch's own products do: on an EPYC without AVX-512 they don't, and may be chosen."""
    before, block = torch.get_num_threads(), smollm2.model.model.layers[0]
    generator = torch.Generator().manual_seed(0)
    try:
        for rows, length in ((1, 1), (1, 9), (1, 300), (2, 40), (3, 7), (5, 1), (16, 20), (60, 5)):
            ids = torch.randint(0, 49_000, (rows, length), generator=generator)
            found = []
            for count in (1, 2):
                torch.set_num_threads(count)
                with torch.inference_mode():
                    found.append(smollm2.model(ids, use_cache=False).logits)
            same = torch.equal(*found)
            assert same or torchs_own_differ(block, rows * length), (rows, length)
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(sys.platform != "linux", reason="teams are those of GNU's OpenMP")
def test_a_thread_leaves_no_team_behind():
    code = """
import os, threading, torch
torch.set_num_threads(2)
from tests.tiny import tiny_lm
lm, big = tiny_lm(), torch.randn(512, 512)
lm.model.register_forward_hook(lambda *_: (big @ big, None)[1])
lm.generate("a", max_new_tokens=2)  # the tokenizer has threads too
def count():
    return len(os.listdir("/proc/self/task"))
before = count()
big @ big
print(count() - before)
lm.generate("a", max_new_tokens=2)
print(count() - before)
def write():
    lm.generate("a", max_new_tokens=2)
    print(count() - before - 1)
thread = threading.Thread(target=write)
thread.start()
thread.join()
"""
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "0", "0"]
