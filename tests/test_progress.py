"""Progress in notebooks: one bar for work that was given no callback, and none in scripts."""

from __future__ import annotations

import sys
import types
from functools import partial

import pytest
import tqdm.auto

from steerlab.progress import in_notebook, with_bar

MADE = []


class Bar:
    def __init__(self, desc, **how):
        self.desc, self.n, self.total, self.closed = desc, 0, None, False
        MADE.append(self)

    def update(self, more):
        assert not self.closed
        self.n += more

    def set_description(self, text, refresh=True):
        self.desc = text

    def close(self):
        self.closed = True


@with_bar("working")
def work(steps, *, progress=None):
    for i in range(steps):
        if progress is not None:
            progress(i + 1, steps)
    return progress is not None


@with_bar("loading")
def load(*, progress=None):
    progress("reading", 3, 4)
    return work(2)


@with_bar("failing")
def fail(*, progress=None):
    raise KeyboardInterrupt


@pytest.fixture
def notebook(monkeypatch):
    MADE.clear()
    kernel = types.SimpleNamespace(kernel=1)
    fake = types.SimpleNamespace(get_ipython=lambda: kernel)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setattr(tqdm.auto, "tqdm", Bar)


def test_scripts_are_quiet(monkeypatch):
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert not in_notebook()
    assert work(3) is False
    fake = types.SimpleNamespace(get_ipython=lambda: None)
    monkeypatch.setitem(sys.modules, "IPython", fake)
    assert not in_notebook()


def test_a_notebook_has_a_bar(notebook):
    assert work(3) is True
    (bar,) = MADE
    assert (bar.desc, bar.n, bar.total, bar.closed) == ("working", 3, 3, True)


def test_a_callback_replaces_it(notebook):
    seen = []
    assert work(2, progress=lambda *at: seen.append(at))
    assert seen == [(1, 2), (2, 2)]
    assert MADE == []


def test_work_within_work_has_no_second_bar(notebook):
    assert load() is False
    (bar,) = MADE
    assert (bar.desc, bar.n, bar.total) == ("reading", 3, 4)
    assert work(1) is True  # and after it there may be one again


def test_an_interrupt_leaves_no_bar(notebook):
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert MADE[0].closed
    assert work(1)


def test_a_notebook_without_widgets_has_a_bar_of_text(monkeypatch, capsys):
    kernel = types.SimpleNamespace(kernel=1, config={"IPKernelApp": {}})
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: kernel))
    monkeypatch.setattr(tqdm.auto, "tqdm", partial(tqdm.auto.tqdm, mininterval=0))
    assert work(3)
    assert "Warning" not in capsys.readouterr().err
