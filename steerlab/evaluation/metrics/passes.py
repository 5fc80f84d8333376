"""Forward passes for metrics: rows under different settings in one batch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Unpack

from torch import Tensor

from steerlab.core.run import Positions
from steerlab.core.setting import Setting
from steerlab.errors import BadOption, Cancelled, SteeringError
from steerlab.interventions.runtime import TransformersRuntime
from steerlab.models.blocks import input_device
from steerlab.models.interventions import is_steered
from steerlab.models.runtime import Row
from steerlab.progress import Watch

if TYPE_CHECKING:
    from steerlab.models.language_model import LanguageModel

_TOKENS = {"cpu": 2048}  # with padding; more is no faster on a CPU
_TOKENS_ACCELERATOR = 16384
_LAYER_TOKENS = {"cpu": 128}  # of one layer, for a batch of their own
_LAYER_TOKENS_ACCELERATOR = 4096
_LOGITS = {"cpu": 2**25}  # entries: 128 MiB of float32
_LOGITS_ACCELERATOR = 2**28


class How(Watch, total=False):
    """The options that all metrics share.

    positions: as for `Injection`; default "all". allow_other_weights: as for `steering`.
    should_stop: asked before every batch. progress: called with (rows done, all rows).
    """

    positions: Positions
    allow_other_weights: bool


def logits(
    lm: LanguageModel, rows: Sequence[Row], **how: Unpack[How]
) -> Iterator[tuple[int, int, Tensor]]:
    """Logits of every row at its columns, in the order that is fastest.

    Yields (index of the row, first column, (columns, vocab) float32), several times for a row
    whose logits exceed the memory set aside for them. A row that is, or begins, another one under
    an equal setting is computed with it; all coefficients of 0 are equal. Rows are padded on the
    right, where a causal model never looks, and the LM head gets only the columns to return.
    Raises Cancelled, ModelError for a head that can't be reached, and SteeringError inside
    `with steering(...)`, where there is no baseline.
    """
    if is_steered(lm.model):
        raise SteeringError(
            "the model is already steered, so there is no baseline to compare with: measure "
            "outside of `with steering(...)`, and pass the vector in a Setting"
        )
    places = _places(rows)
    stop, progress = how.get("should_stop"), how.get("progress")
    runtime, done = TransformersRuntime(lm), 0
    for batch in _batches(lm, list(places)):
        if stop is not None and stop():
            raise Cancelled("cancelled: nothing was measured")
        found = runtime.logits(
            [piece for _, piece in batch],
            positions=how.get("positions", "all"),
            allow_other_weights=how.get("allow_other_weights", False),
        )
        for (whole, piece), values in zip(batch, found, strict=True):
            for index in places[whole]:
                first, end = max(rows[index].first, piece.first), min(rows[index].stop, piece.stop)
                if first < end:
                    yield index, first, values[first - piece.first : end - piece.first]
            done += len(places[whole]) * (piece.stop == whole.stop)
        if progress is not None:
            progress(done, len(rows))


def _places(rows: Sequence[Row]) -> dict[Row, list[int]]:
    """The rows to compute, each with the indices of the rows whose logits it gives.

    In descending order of what they read, a row comes next to the one that it begins.
    """
    alike: dict[tuple[Setting, int], dict[Row, list[int]]] = {}
    for index, row in enumerate(map(_settled, rows)):
        same = alike.setdefault((row.setting, row.prompt_length), {})
        same.setdefault(row, []).append(index)
    found: dict[Row, list[int]] = {}
    for same in alike.values():
        order = sorted(same, key=lambda row: (row.ids, row.stop), reverse=True)
        whole = order[0]
        for row in order:
            whole = whole if _begins(row, whole) else row
            found.setdefault(whole, []).extend(same[row])
    return found


def _begins(row: Row, whole: Row) -> bool:
    """Whether one row is the beginning of another, and its columns are among the other's."""
    inside = whole.first <= row.first and row.stop <= whole.stop
    return inside and whole.ids[: len(row.ids)] == row.ids


def _settled(row: Row) -> Row:
    """The row as far as its logits depend on it; a coefficient of 0 is the baseline."""
    if not row.setting.is_baseline:
        return replace(row, ids=row.ids[: max(row.stop, row.prompt_length)])
    return Row(row.ids[: row.stop], 0, row.first, row.stop, Setting())


_Batch = list[tuple[Row, Row]]
"""Rows, each with its piece in this batch."""


def _batches(lm: LanguageModel, rows: Sequence[Row]) -> Iterator[_Batch]:
    """Batches of rows of similar length, within the limits on tokens and logits.

    Rows of one layer go together, equal ones in turn: blocks below it run once for equal rows.
    """
    device = input_device(lm.model).type
    room = _LOGITS.get(device, _LOGITS_ACCELERATOR) // vocabulary(lm)
    most = _TOKENS.get(device, _TOKENS_ACCELERATOR)
    enough = _LAYER_TOKENS.get(device, _LAYER_TOKENS_ACCELERATOR)
    batch: _Batch = []
    wanted = width = layer = 0
    pieces = [(row, piece) for row in rows for piece in _pieces(row, max(room, 1))]
    for row, piece in sorted(pieces, key=_order):
        columns = piece.stop - piece.first
        wider = max(width, piece.stop)
        apart = _first_layer(row) != layer and width * len(batch) >= enough
        full = wanted + columns > room or wider * (len(batch) + 1) > most
        if batch and (apart or full):
            yield batch
            batch, wanted, wider = [], 0, piece.stop
        width, layer = wider, _first_layer(row)
        batch.append((row, piece))
        wanted += columns
    if batch:
        yield batch


def _order(row_and_piece: tuple[Row, Row]) -> tuple[int, int, tuple[int, ...]]:
    row, piece = row_and_piece
    return -_first_layer(row), -piece.stop, row.ids


def _first_layer(row: Row) -> int:
    """The first layer that is steered; of the baseline, one above all others."""
    return min(row.setting.layers, default=sys.maxsize)


def _pieces(row: Row, room: int) -> Iterator[Row]:
    """The row in pieces of at most `room` columns."""
    for first in range(row.first, row.stop, room):
        stop = min(first + room, row.stop)
        yield Row(row.ids, row.prompt_length, first, stop, row.setting)


def vocabulary(lm: LanguageModel) -> int:
    """The number of tokens that the model's head scores."""
    weight = getattr(lm.model.get_output_embeddings(), "weight", None)
    return int(weight.shape[0]) if weight is not None else len(lm.tokenizer)


def check_next(how: How) -> None:
    """Raise BadOption for positions that can't act on the very next token."""
    if how.get("positions") == "continuation":
        raise BadOption(
            "positions='continuation' begins after the next token, which is therefore the "
            "baseline's: measure at 'all', 'prompt' or 'generated'"
        )
