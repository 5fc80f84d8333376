"""Ctrl-C at any moment leaves no hook, no lock and no settings behind."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from contextlib import suppress

import pytest
import torch

from steerlab import steering
from steerlab.interventions.interrupts import Uninterrupted
from steerlab.models.interventions import is_steered
from tests.tiny import tiny_lm
from tests.watching import hooks_on, planted

swallowed = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
IDS = torch.tensor([[1, 40, 77, 12, 205, 9, 133]])


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
        self.thread.join(10)
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


@swallowed
@pytest.mark.campaign
def test_ten_thousand_interrupts():
    assert left_behind(10_000) == []


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
