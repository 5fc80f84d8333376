"""The texts of a sweep as they are generated, and their metrics."""

from __future__ import annotations

from collections.abc import Sequence

from steerlab.evaluation.metrics.texts import Metric
from steerlab.plots.grid import Grid, Values


class SweepTexts:
    """Texts of one seed by index: all settings of the grid for the first prompt, and so on."""

    def __init__(self, grid: Grid, prompts: Sequence[str]) -> None:
        self.grid = grid
        self.prompts = tuple(prompts)
        self.texts: dict[int, str] = {}
        self._scores: dict[tuple[str, int], tuple[str, str | None, float]] = {}

    def write(self, index: int, piece: str) -> None:
        """Append to a text."""
        self.texts[index] = self.texts.get(index, "") + piece

    def finish(self) -> None:
        """Mark all texts as complete: those without a token are empty."""
        for index in range(len(self.prompts) * len(self.grid.settings)):
            self.texts.setdefault(index, "")

    def text(self, prompt: int, place: int | None) -> str | None:
        """The text of a prompt and setting; None before its first token."""
        return None if place is None else self.texts.get(self._index(prompt, place))

    def score(self, metric: Metric, prompt: int, place: int | None) -> float | None:
        """The metric of a text so far; None before its first token."""
        text, baseline = self.text(prompt, place), self.text(prompt, self.grid.baseline)
        if text is None or place is None:
            return None
        key = (metric.name, self._index(prompt, place))
        baseline = baseline if metric.compares else None
        known = self._scores.get(key)
        if known is None or known[:2] != (text, baseline):
            known = self._scores[key] = (text, baseline, metric.score(text, baseline))
        return known[2]

    def values(self, metric: Metric) -> Values:
        """The metric by layer and strength, averaged over prompts."""
        places = range(len(self.grid.settings))
        prompts = range(len(self.prompts))
        found = {place: [self.score(metric, p, place) for p in prompts] for place in places}
        return self.grid.means(
            {place: [v for v in scores if v is not None] for place, scores in found.items()}
        )

    def _index(self, prompt: int, place: int) -> int:
        return prompt * len(self.grid.settings) + place
