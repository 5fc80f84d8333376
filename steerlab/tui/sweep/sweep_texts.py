"""The texts of a sweep as they are generated, and their metrics."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from steerlab.core.cell import Cell, Key
from steerlab.core.setting import BASELINE, Setting
from steerlab.core.sweep import Sweep
from steerlab.evaluation.metrics.texts import Metric
from steerlab.plots.sweep_grid import heat_grid, values_of
from steerlab.plots.values import HeatGrid


class SweepTexts:
    """The texts of a sweep of one seed, first those that are stored."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.texts = {cell.key: cell.text for cell in sweep.cells}
        self._known: dict[str, Metric] = {}

    def write(self, key: Key, piece: str) -> None:
        """Append to a text."""
        self.texts[key] = self.texts.get(key, "") + piece

    def finish(self) -> None:
        """Mark all texts as complete: those without a token are empty."""
        for key in self.sweep.planned():
            self.texts.setdefault(key, "")

    def setting(self, row: int, column: int) -> Setting:
        """The setting of a cell of the grid; at strength 0 the baseline."""
        strength = self.sweep.strengths[column]
        layer = self.sweep.layers[row] if strength else None
        return next(s for s in self.sweep.settings if (s.layer, s.strength) == (layer, strength))

    def text(self, prompt: int, setting: Setting = BASELINE) -> str | None:
        """The text of a prompt and setting; None before its first token."""
        return self.texts.get((setting, self.sweep.prompts[prompt], self.sweep.seeds[0]))

    def grid(self, metric: Metric) -> HeatGrid:
        """The metric of the texts so far by layer and strength, averaged over prompts."""
        cells = [Cell(*key, text, "length", 0) for key, text in self.texts.items()]
        written = self.sweep.with_cells(cells)
        values = values_of(written, self._remembering(metric))
        return heat_grid(written, metric, [value for value, _ in values])

    def _remembering(self, metric: Metric) -> Metric:
        """The metric, which scores a text once: few have grown since the last frame."""
        if metric.name not in self._known:
            remembered = lru_cache(maxsize=2 * self.sweep.total)(metric.function)
            self._known[metric.name] = replace(metric, function=remembered)
        return self._known[metric.name]
