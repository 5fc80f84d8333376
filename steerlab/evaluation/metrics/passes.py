"""Forward passes for metrics: rows under different settings in one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

import torch
from torch import Tensor, nn

from steerlab.core.run import Positions
from steerlab.core.setting import Setting
from steerlab.errors import BadOption, Cancelled, ModelError, SteeringError
from steerlab.interventions.hooks import Injection, steering
from steerlab.models.blocks import input_device
from steerlab.models.interventions import begin_prompt, is_steered
from steerlab.progress import Watch

if TYPE_CHECKING:
    from steerlab.models.language_model import LanguageModel

_TOKENS = {"cpu": 2048}  # with padding; more is no faster on a CPU
_TOKENS_ACCELERATOR = 16384
_LOGITS = {"cpu": 2**25}  # entries: 128 MiB of float32
_LOGITS_ACCELERATOR = 2**28


class How(Watch, total=False):
    """The options that all metrics share.

    positions: as for `Injection`; default "all". allow_other_weights: as for `steering`.
    should_stop: asked before every batch. progress: called with (rows done, all rows).
    """

    positions: Positions
    allow_other_weights: bool


@dataclass(frozen=True)
class Row:
    """One sequence under one setting, and the columns to return logits of.

    ids: token ids; column i predicts token i + 1. Columns first <= i < stop are returned.
    prompt_length: tokens of the prompt, for positions that depend on it.
    """

    ids: tuple[int, ...]
    prompt_length: int
    first: int
    stop: int
    setting: Setting

    def injection(self, row: int, positions: Positions) -> Injection | None:
        """What steers the row in a batch; None if it would act after the last token."""
        vector = self.setting.vector
        if vector is None:
            return None
        late = positions == "continuation" and vector.scope != "front"
        if late and self.stop <= self.prompt_length:
            return None
        return Injection(vector, self.setting.coefficient, positions, rows=(row,))


def is_front(settings: Sequence[Setting]) -> bool:
    """Whether a setting has a front vector, so that every sequence must begin with BOS."""
    return any(s.vector is not None and s.vector.scope == "front" for s in settings)


def logits(
    lm: LanguageModel, rows: Sequence[Row], **how: Unpack[How]
) -> Iterator[tuple[int, int, Tensor]]:
    """Logits of every row at its columns, in the order that is fastest.

    Yields (index of the row, first column, (columns, vocab) float32), several times for a row
    whose logits exceed the memory set aside for them. Equal rows are computed once, among them
    all with a coefficient of 0. Rows are padded on the right, where a causal model never looks,
    and the LM head gets only the columns to return.
    Raises Cancelled, ModelError for a head that can't be reached, and SteeringError inside
    `with steering(...)`, where there is no baseline.
    """
    if is_steered(lm.model):
        raise SteeringError(
            "the model is already steered, so there is no baseline to compare with: measure "
            "outside of `with steering(...)`, and pass the vector in a Setting"
        )
    places: dict[Row, list[int]] = {}
    for index, row in enumerate(rows):
        places.setdefault(_settled(row), []).append(index)
    stop, progress = how.get("should_stop"), how.get("progress")
    done = 0
    for batch in _batches(lm, list(places)):
        if stop is not None and stop():
            raise Cancelled("cancelled: nothing was measured")
        found = _forward(lm, batch, how)
        for (whole, piece), values in zip(batch, found, strict=True):
            for index in places[whole]:
                yield index, piece.first, values
            done += len(places[whole]) * (piece.stop == whole.stop)
        if progress is not None:
            progress(done, len(rows))


def _settled(row: Row) -> Row:
    """The row as far as its logits depend on it; a coefficient of 0 is the baseline."""
    if not row.setting.is_baseline:
        return row
    return Row(row.ids[: row.stop], 0, row.first, row.stop, Setting())


_Batch = list[tuple[Row, Row]]
"""Rows, each with its piece in this batch."""


def _batches(lm: LanguageModel, rows: Sequence[Row]) -> Iterator[_Batch]:
    """Batches of rows of similar length, within the limits on tokens and logits."""
    device = input_device(lm.model).type
    room = _LOGITS.get(device, _LOGITS_ACCELERATOR) // vocabulary(lm)
    most = _TOKENS.get(device, _TOKENS_ACCELERATOR)
    batch: _Batch = []
    wanted = width = 0
    pieces = [(row, piece) for row in rows for piece in _pieces(row, max(room, 1))]
    for row, piece in sorted(pieces, key=lambda pair: -pair[1].stop):
        columns = piece.stop - piece.first
        if batch and (wanted + columns > room or width * (len(batch) + 1) > most):
            yield batch
            batch, wanted = [], 0
        width = width if batch else piece.stop  # the longest comes first
        batch.append((row, piece))
        wanted += columns
    if batch:
        yield batch


def _pieces(row: Row, room: int) -> Iterator[Row]:
    """The row in pieces of at most `room` columns."""
    for first in range(row.first, row.stop, room):
        stop = min(first + room, row.stop)
        yield Row(row.ids, row.prompt_length, first, stop, row.setting)


def vocabulary(lm: LanguageModel) -> int:
    """The number of tokens that the model's head scores."""
    weight = getattr(lm.model.get_output_embeddings(), "weight", None)
    return int(weight.shape[0]) if weight is not None else len(lm.tokenizer)


@torch.no_grad()
def _forward(lm: LanguageModel, batch: _Batch, how: How) -> Sequence[Tensor]:
    """The logits of each piece in one steered pass: (columns, vocab) float32."""
    pieces = [piece for _, piece in batch]
    found = [piece.injection(row, how.get("positions", "all")) for row, piece in enumerate(pieces)]
    lm.check_length([piece.ids[: piece.stop] for piece in pieces])
    ids = torch.zeros(len(pieces), max(piece.stop for piece in pieces), dtype=torch.long)
    for row, piece in enumerate(pieces):
        ids[row, : piece.stop] = torch.tensor(piece.ids[: piece.stop])
    with steering(
        lm,
        [injection for injection in found if injection is not None],
        prompt_length=[piece.prompt_length for piece in pieces],
        allow_other_weights=how.get("allow_other_weights", False),
    ):
        begin_prompt(lm.model)
        values = _narrowed(lm, ids.to(input_device(lm.model)), pieces)  # (columns, vocab)
    return torch.split(values.float(), [piece.stop - piece.first for piece in pieces])


def _narrowed(lm: LanguageModel, ids: Tensor, pieces: Sequence[Row]) -> Tensor:
    """Logits at the pieces' columns, with everything that the model does after its head."""
    rows = [row for row, piece in enumerate(pieces) for _ in range(piece.first, piece.stop)]
    columns = [column for piece in pieces for column in range(piece.first, piece.stop)]
    fired = False

    def narrow(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        nonlocal fired
        fired = True
        return (args[0][rows, columns].unsqueeze(0), *args[1:])  # (1, columns, d_model)

    handle = lm.model.get_output_embeddings().register_forward_pre_hook(narrow)
    try:
        found: Tensor = lm.model(input_ids=ids, use_cache=False).logits
    finally:
        handle.remove()
    if not fired or found.shape[:2] != (1, len(rows)):
        raise ModelError(f"{lm.source} does not compute its logits from its output embeddings")
    return found[0]


def check_next(how: How) -> None:
    """Raise BadOption for positions that can't act on the very next token."""
    if how.get("positions") == "continuation":
        raise BadOption(
            "positions='continuation' begins after the next token, which is therefore the "
            "baseline's: measure at 'all', 'prompt' or 'generated'"
        )
