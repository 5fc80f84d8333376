"""Batches: texts for rows of prompt, seed and setting, in as few batches as memory allows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from steerlab.core.cell import Cell, Key
from steerlab.core.run import Positions
from steerlab.core.sampling import Sampling
from steerlab.core.setting import BASELINE
from steerlab.progress import Progress, ShouldStop, Ticker

if TYPE_CHECKING:
    from steerlab.core.completion import Completion
    from steerlab.models.generation import OnText
    from steerlab.models.runtime import Runtime


def write(
    runtime: Runtime,
    rows: Sequence[Key],
    sampling: Sampling,
    *,
    positions: Positions = "all",
    bos: bool = False,
    allow_other_weights: bool = False,
    audit: bool = False,
    size: int | None = None,
    on_text: OnText | None = None,
    should_stop: ShouldStop | None = None,
    progress: Progress | None = None,
) -> Iterator[dict[int, Cell]]:
    """Write a text for each row; equal rows are written once.

    Yields the cells of each batch by the place of their row. A text does not depend on its batch.

    bos: begin every prompt with BOS, as is done wherever a front vector is compared: what
        differs is then the steering alone.
    audit: measure what is changed in each text; the cells have it.
    size: rows of a batch; None takes what is fastest, as far as memory goes.
    on_text(place, piece): called as the texts grow. should_stop: asked after every token; the
        texts that it cuts off have finish "cancelled", and no other batch follows.
    progress: called with (tokens done, tokens to do at most).
    """
    places: dict[Key, list[int]] = {}
    for place, (setting, prompt, seed) in enumerate(rows):
        written = BASELINE if setting.is_baseline else setting
        places.setdefault((written, prompt, seed), []).append(place)
    unique, steps = list(places), sampling.max_new_tokens
    prompts = list(dict.fromkeys(prompt for _, prompt, _ in unique))
    size = size or runtime.batch_rows(prompts, steps)
    total = math.ceil(len(unique) / size) * steps
    for number, start in enumerate(range(0, len(unique), size)):
        batch = unique[start : start + size]
        ticker = Ticker(should_stop, progress, number * steps, total)
        hear = None if on_text is None else _spread(on_text, batch, places)
        texts = runtime.generate(
            batch,
            sampling,
            positions=positions,
            bos=bos,
            allow_other_weights=allow_other_weights,
            audit=audit,
            on_text=hear,
            should_stop=ticker,
        )
        yield {
            place: _cell(rows[place], t)
            for row, t in zip(batch, texts, strict=True)
            for place in places[row]
        }
        if ticker.stopped:
            return


def _cell(row: Key, made: Completion) -> Cell:
    ids = made.token_ids
    return Cell(*row, made.text, made.finish, made.tokens, token_ids=ids, audit=made.audit)


def _spread(on_text: OnText, batch: Sequence[Key], places: Mapping[Key, Sequence[int]]) -> OnText:
    """Say a piece of a row's text for every place that the row stands at."""

    def hear(row: int, piece: str) -> None:
        for place in places[batch[row]]:
            on_text(place, piece)

    return hear
