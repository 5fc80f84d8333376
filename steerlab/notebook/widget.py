"""Playground: the Python side of the widget; imports anywidget."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import anywidget
from traitlets import Bool, Float, Unicode

from steerlab.core.display import signed_dose
from steerlab.errors import SteerlabError
from steerlab.interventions.hooks import steering
from steerlab.interventions.injection import Injection

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab
    from steerlab.lab.operating_point import OperatingPoint

_FILES = files("steerlab.notebook")


class Playground(anywidget.AnyWidget):  # type: ignore[misc]  # it has no annotations
    """A prompt with two texts, the baseline's and the steered one.

    low, high: the safe doses by calibration; equal if they are unknown.
    """

    _esm = _FILES.joinpath("widget.js").read_text("utf-8")
    _css = _FILES.joinpath("widget.css").read_text("utf-8")
    expression = Unicode().tag(sync=True)
    prompt = Unicode().tag(sync=True)
    dose = Float().tag(sync=True)
    low = Float(0.0).tag(sync=True)
    high = Float(0.0).tag(sync=True)
    baseline = Unicode().tag(sync=True)
    steered = Unicode().tag(sync=True)
    about = Unicode().tag(sync=True)
    error = Unicode().tag(sync=True)
    running = Bool(False).tag(sync=True)

    def __init__(self, lab: Lab, *, max_new_tokens: int, **state: Any) -> None:
        super().__init__(**state)
        self._lab, self._steps = lab, max_new_tokens
        self._task: asyncio.Task[None] | None = None
        self.on_msg(self._asked)

    def _asked(self, _: Any, content: Any, __: Any) -> None:
        """A message of the page: "stop", or what to run anew with."""
        before, self._task = self._task, None
        if before is not None:
            before.cancel()
        if isinstance(content, dict):
            for name in ("expression", "prompt", "dose"):
                setattr(self, name, content.get(name, getattr(self, name)))
            self._task = asyncio.ensure_future(self._run(before))

    async def _run(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self.error, self.baseline, self.steered, self.running = "", "", "", True
        try:
            await self._write()
        except SteerlabError as error:
            self.error = str(error)
        finally:
            self.running = False

    async def _write(self) -> None:
        vector = self._lab.evaluate(self.expression)
        point = self._lab.operating_point(vector)
        self._say(point)
        lm, loop = self._lab.load(vector), asyncio.get_running_loop()
        coefficient = point.vector.coefficient(self.dose) if self.dose else 0.0

        def hear(row: int, piece: str) -> None:
            with suppress(RuntimeError):  # the loop is closed: the kernel ends
                loop.call_soon_threadsafe(self._add, row, piece)

        with steering(lm, Injection(point.vector, coefficient, rows=(1,))):
            made = await lm.agenerate([self.prompt] * 2, max_new_tokens=self._steps, on_text=hear)
        self.baseline, self.steered = (one.text for one in made)

    def _add(self, row: int, piece: str) -> None:
        name = "steered" if row else "baseline"
        setattr(self, name, getattr(self, name) + piece)

    def _say(self, point: OperatingPoint) -> None:
        found = point.calibration
        self.low, self.high = found.safe if found is not None and found.safe else (0.0, 0.0)
        safe = "not calibrated: no safe range is known"
        if self.low < self.high:
            safe = f"safe doses {signed_dose(self.low)} to {signed_dose(self.high)}"
        several = "s" * (len(point.vector.layers) > 1)
        layers = ", ".join(map(str, point.vector.layers[:8]))
        self.about = f"layer{several} {layers}; {safe}"
