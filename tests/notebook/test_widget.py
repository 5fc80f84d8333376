"""The Python side of the widget: both texts, the safe range, stopping, and errors."""

from __future__ import annotations

import asyncio
import builtins

import pytest

from steerlab import Lab, Store, playground, steering
from steerlab.core.results import Calibration
from steerlab.errors import BadOption
from tests.saved import LOVE
from tests.tiny import tiny_lm


def test_without_anywidget_the_error_says_what_to_install(monkeypatch):
    there = builtins.__import__

    def lacking(name, *rest):
        if name == "anywidget" or name == "steerlab.notebook.widget":
            raise ImportError(name)
        return there(name, *rest)

    monkeypatch.setattr(builtins, "__import__", lacking)
    with pytest.raises(BadOption, match=r"pip install 'steerlab\[notebook\]'"):
        playground(None)


def test_a_model_comes_first():
    pytest.importorskip("anywidget")
    with pytest.raises(BadOption, match="playground takes a LanguageModel or a Lab first"):
        playground("love", tiny_lm())


@pytest.fixture
def widget(tmp_path):
    pytest.importorskip("anywidget")
    lab = Lab(Store(tmp_path / "store"), tiny_lm())
    lab.extract("love", LOVE, layers=[1])
    return playground(lab, "love", "Hello", dose=1.0, max_new_tokens=6)


async def test_it_writes_both_texts(widget):
    lm, love = widget._lab.model, widget._lab.store["love"]
    widget._asked(None, {}, [])
    await widget._task
    assert widget.baseline == lm.generate("Hello", max_new_tokens=6).text
    with steering(lm, love, dose=1.0):
        assert widget.steered == lm.generate("Hello", max_new_tokens=6).text
    assert widget.about == "layer 1; not calibrated: no safe range is known"
    assert not widget.running
    c = love.coefficient(0.2)
    made = Calibration(love.digest, True, 1, 0.2, c, (-0.1, 0.2))
    widget._lab.store.results.save_calibration(made)
    widget._asked(None, {}, [])
    await widget._task
    assert (widget.low, widget.high) == (-0.1, 0.2)
    widget._asked(None, {"prompt": "Ho", "dose": -0.1}, [])
    await widget._task
    assert (widget.prompt, widget.dose) == ("Ho", -0.1)
    assert widget.baseline == lm.generate("Ho", max_new_tokens=6).text


async def test_it_stops_and_tells_errors(widget):
    widget._steps = 100
    widget._asked(None, {}, [])
    first = widget._task
    await asyncio.sleep(0.05)
    widget.expression = "lvoe"
    widget._asked(None, {}, [])
    await widget._task
    assert first.cancelled()
    assert "love" in widget.error
    widget.expression = "love"
    widget._asked(None, {}, [])
    stopped = widget._task
    await asyncio.sleep(0.05)
    widget._asked(None, "stop", [])
    with pytest.raises(asyncio.CancelledError):
        await stopped
    assert not widget.running
    assert not any(block._forward_pre_hooks for block in widget._lab.model.blocks)
