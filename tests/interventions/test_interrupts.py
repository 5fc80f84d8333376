"""Ctrl-C at any moment leaves no hook, no lock and no settings behind."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from contextlib import suppress
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch.utils.hooks import RemovableHandle

from steerlab import Injection, steering
from steerlab.core.setting import Setting
from steerlab.interventions.runtime import TransformersRuntime
from steerlab.models import interventions, unembedding
from steerlab.models.inference import eval_mode
from steerlab.models.interrupts import Uninterrupted, attached
from steerlab.models.interventions import is_steered, is_steered_by_row
from steerlab.models.runtime import Row
from tests.tiny import tiny_lm
from tests.watching import hooks_on, planted

swallowed = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
IDS = torch.tensor([[1, 40, 77, 12, 205, 9, 133]])


@pytest.fixture(autouse=True)
def interruptible():
    """Python's own handler: a shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupter:
    """Sends SIGINT at a random moment of what runs in the main thread."""

    def __init__(self, longest):
        self.random, self.longest = random.Random(0), longest
        self.go, self.came, self.end = threading.Event(), False, False
        self.before = signal.signal(signal.SIGINT, self.interrupt)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def interrupt(self, *_):
        self.came = True
        raise KeyboardInterrupt

    def run(self):
        while True:
            self.go.wait()
            self.go.clear()
            if self.end:
                return
            time.sleep(self.random.uniform(0, self.longest))
            os.kill(os.getpid(), signal.SIGINT)

    def during(self, work):
        """Run work over and over until an interrupt came; Python swallows one in a finalizer."""
        self.came = False
        with suppress(KeyboardInterrupt):
            self.go.set()
            while not self.came:
                work()

    def stop(self):
        self.end = True
        self.go.set()
        self.thread.join(60)
        signal.signal(signal.SIGINT, self.before)


def left_behind(times):
    """How often an interrupt left something of ours on a model."""
    lm = tiny_lm()
    v, own = planted(lm, 0, 1, 2, 3), lm.model.generation_config
    stance = torch._dynamo.eval_frame._stance

    @torch.no_grad()
    def work():
        with steering(lm, v, 1.0, "generated"):
            lm.model.model(IDS)

    def write():
        with steering(lm, v):
            lm.generate("a", max_new_tokens=1)

    work(), write()
    start = time.perf_counter()
    work()
    interrupter = Interrupter(2 * (time.perf_counter() - start))
    found = []
    for n in range(times):
        interrupter.during(write if n % 5 == 0 else work)
        ok = (
            hooks_on(lm.model) == 0
            and not is_steered(lm.model)
            and lm.model.generation_config is own
            and torch._dynamo.eval_frame._stance == stance
        )
        if not ok:
            found.append(n)
        assert lm.lock.acquire(blocking=False)
        lm.lock.release()
    interrupter.stop()
    return found


@swallowed
def test_some_hundred_interrupts():
    assert left_behind(200) == []


def test_an_interrupt_before_anything_was_opened_is_what_is_raised(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    lm = tiny_lm()
    monkeypatch.setattr(Uninterrupted, "__enter__", interrupted)
    with pytest.raises(KeyboardInterrupt), steering(lm, planted(lm)):
        pass
    assert not is_steered(lm.model)


OURS = ("contextlib", "interrupts", "uncompiled", "inference", "hooks", "hooked", "active")


def interrupt(number, work):
    """Run work, with an interrupt at the nth moment when Python looks for one in our code.

    It looks at the entrance of a function, and after a call of one that is written in C. Only
    modules that change a model count. Returns the interrupt; None if there are fewer moments.
    """
    left = number

    def profile(frame, event, _):
        nonlocal left
        if event in ("call", "c_return") and Path(frame.f_code.co_filename).stem in OURS:
            left -= 1
            if left == 0:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)

    sys.setprofile(profile)
    try:
        work()
    except KeyboardInterrupt as error:
        return error
    finally:
        sys.setprofile(None)
    return None


def check_as_before(lm):
    """Nothing is left on a model that was in training."""
    assert hooks_on(lm.model) == 0
    assert not is_steered(lm.model)
    assert not is_steered_by_row(lm.model)
    assert torch._dynamo.eval_frame._stance.stance == "default"
    assert all(module.training for module in lm.model.modules())


def steer_rows(lm):
    with steering(lm.model, Injection(planted(lm, 2), 1.0, "all", rows=(0,))):
        lm.model(IDS)


def narrow(lm):
    row = Row([10, 11, 12], 1, 0, 2, Setting())
    TransformersRuntime(lm)._narrowed(IDS, [row])


WORK = {
    "steering": steer_rows,
    "narrowed logits": narrow,
    "recording": lambda lm: lm.record("abc", [1]),
    "final norm": lambda lm: unembedding._after_the_blocks(lm, np.ones((1, lm.d_model))),
    "scale of the logits": lambda lm: unembedding._scale(lm, unembedding._head(lm)),
}
works = pytest.mark.parametrize("work", WORK.values(), ids=WORK.keys())


@swallowed
@works
@pytest.mark.campaign
@torch.no_grad()
def test_an_interrupt_at_each_moment(work):
    lm = tiny_lm()
    lm.model.train()
    work(lm)
    number = 1
    while interrupt(number, lambda: work(lm)):
        check_as_before(lm)
        number += 1
    assert number > 30


@works
@torch.no_grad()
def test_an_interrupt_when_a_hook_is_on(work, monkeypatch):
    lm = tiny_lm()
    lm.model.train()
    work(lm)
    made = RemovableHandle.__init__

    def interrupted(self, *args, **kwargs):
        made(self, *args, **kwargs)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RemovableHandle, "__init__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        work(lm)
    check_as_before(lm)


@swallowed
@torch.no_grad()
def test_an_interrupt_at_the_entrance_leaves_nothing_while_its_traceback_is_kept():
    lm = tiny_lm()
    rows = Injection(planted(lm, 2), 1.0, "all", rows=(0,))
    entered, number = 0, 1

    def enter():
        nonlocal entered
        with steering(lm, rows):
            entered += 1
            lm.model(IDS)

    while entered < 5:  # Python swallows an interrupt in a finalizer, so a few come that far
        before, kept = entered, interrupt(number, enter)
        if entered == before:
            assert (hooks_on(lm.model), is_steered(lm.model)) == (0, False), kept
        number += 1
    assert number > 90


def test_a_steering_that_another_context_drops_is_over():
    lm = tiny_lm()
    kept = [steering(lm, planted(lm, 2))]
    Context().run(kept[0].__enter__)
    assert hooks_on(lm.model) > 0
    kept.clear()  # a warning about an error in a finalizer would be one here
    assert hooks_on(lm.model) == 0


def test_a_steering_that_an_interrupt_kept_from_ending_is_forgotten():
    lm = tiny_lm()
    rows = Injection(planted(lm, 2), 1.0, "all", rows=(0,))
    kept = steering(lm, rows)
    kept.__enter__()
    assert is_steered_by_row(lm.model)
    del kept  # its finalizer
    assert not is_steered(lm.model)
    assert not is_steered_by_row(lm.model)
    with steering(lm, rows):
        assert len(interventions._active.get()) == 1
        lm.generate("a", max_new_tokens=1)
    assert interventions._active.get() == ()


@swallowed
@pytest.mark.campaign
def test_ten_thousand_interrupts():
    assert left_behind(10_000) == []


class Done:
    """Something done once; `open` holds what was not taken back."""

    open: ClassVar[list] = []

    def __init__(self, fail=False):
        self.open.append(self)
        if fail:
            self.remove()
            raise RuntimeError("the second fails")

    def remove(self):
        if self in self.open:
            self.open.remove(self)


class TestAttached:
    def test_an_interrupt_at_each_moment(self):
        def work():
            with attached(Done, Done, Done):
                assert len(Done.open) == 3

        number = 1
        while interrupt(number, work):
            assert Done.open == [], number
            number += 1
        assert number > 20

    def test_what_was_done_before_an_error_is_taken_back(self):
        with pytest.raises(RuntimeError, match="second"), attached(Done, partial(Done, fail=True)):
            pass
        assert Done.open == []

    def test_modes_of_training(self):
        model = torch.nn.Sequential(torch.nn.Dropout(), torch.nn.Dropout())
        model[1].eval()

        def work():
            with eval_mode(model):
                assert not any(module.training for module in model.modules())

        number = 1
        while interrupt(number, work):
            assert [module.training for module in model.modules()] == [True, True, False]
            number += 1
        assert number > 20


class TestUninterrupted:
    def test_the_interrupt_comes_at_the_end(self):
        done = []
        with pytest.raises(KeyboardInterrupt), Uninterrupted():
            signal.raise_signal(signal.SIGINT), done.append(True)
        assert done

    def test_a_handler_of_the_users_own_is_called_and_kept(self):
        seen = []
        before = signal.signal(signal.SIGINT, lambda *_: seen.append(True))
        try:
            with Uninterrupted(), Uninterrupted():
                signal.raise_signal(signal.SIGINT)
                assert not seen
            assert seen == [True]
            signal.raise_signal(signal.SIGINT)
            assert seen == [True, True]
        finally:
            signal.signal(signal.SIGINT, before)

    def test_ignored_stays_ignored(self):
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with Uninterrupted():
                signal.raise_signal(signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGINT, before)

    def test_in_another_thread_it_does_nothing(self):
        handlers = []

        def run():
            with Uninterrupted():
                handlers.append(signal.getsignal(signal.SIGINT))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert handlers == [signal.getsignal(signal.SIGINT)]
