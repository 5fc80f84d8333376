"""PositionTracker: places every forward pass of a model in the sequences that it continues."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerlab.core.display import count
from steerlab.errors import BadOption, SteeringError
from steerlab.interventions.forward_pass import ForwardPass
from steerlab.interventions.generate_call import GenerateCall, running_generate
from steerlab.interventions.layout import Layout, flat_mask, lay_out
from steerlab.interventions.sequence import Extension, KnownSequences, Rows, Sequences
from steerlab.interventions.unchanged import Unchanged
from steerlab.models.cache import Past, caches_in, past_of

_SEVERAL = "several tokens came in one decoding step (speculative decoding?)"
_MIXED = (
    "the attention_mask shows other lengths for the rows of this cache than earlier passes (were "
    "they reordered?)"
)
_OWN_WAY = "a generate goes on with a cache of earlier passes, in a way of its own"
_FORKED = (
    "two passes without a cache go on from the same tokens, so which of them continues the "
    "prompt is unknown (enter steering(...) anew for each prompt)"
)


class PositionTracker:
    """Knows the current pass of every thread, and the sequences that passes continue.

    Positions count real tokens: padding has none, the first real token is at position 0. They
    follow from the cache length and the mask, never from the length of the pass, so they are
    right when decoding with or without a cache, and in chunked prefills.

    prompt_length: tokens of the prompts, for all or for each; None reads them off the passes.
    placing: False if nobody will ask where positions are, which saves working it out.
    """

    def __init__(self, prompt_length: int | Sequence[int] | None, *, placing: bool) -> None:
        self.given = None if prompt_length is None else _checked(prompt_length)
        self.placing = placing
        self.known = KnownSequences()
        self._local = threading.local()
        self._unreached: set[Sequences] = set()  # whose prompt, as given, is not over yet

    @property
    def now(self) -> ForwardPass | None:
        """The pass that this thread is in; None outside of the model's own forward."""
        return getattr(self._local, "now", None)

    @property
    def unchanged(self) -> Unchanged:
        """The rows still to be changed of texts whose sequence is unknown."""
        if not hasattr(self._local, "unchanged"):
            self._local.unchanged = Unchanged()
        return self._local.unchanged  # type: ignore[no-any-return]  # a threading.local's

    def begin(self, given: Mapping[str, Any], outer: Mapping[str, Any]) -> None:
        """A pass begins. given, outer: the arguments of the module that runs the blocks, and
        those of the model around it, which has token ids where the module gets embeddings.
        """
        now = self._placed(given, outer) if self.placing else ForwardPass()
        now.shape = _shape(given, outer)
        if now.sequences is not None:
            now.unchanged = now.sequences.unchanged
        else:
            several = now.shape is not None and now.shape[1] > 1
            if several and not past_of(given).length:
                self._local.unchanged = Unchanged()  # a new prompt
            now.unchanged = self.unchanged
        self._local.now = now

    def end(self, output: Any) -> ForwardPass | None:
        """The pass is over; output: of the module that runs the blocks, None if it failed."""
        now = self.now
        self._local.now = None
        if now is not None and now.sequences is not None and output is not None:
            caches = caches_in(output)
            self.known.remember_caches(caches, now.sequences)
            if not caches and now.rows is not None:
                self.known.remember_tokens(now.rows, now.sequences)
        return now

    def current(self) -> ForwardPass:
        """The pass that this thread is in; SteeringError outside of the model's own forward."""
        if self.now is None:
            raise SteeringError(
                "the blocks ran outside of the model's own forward pass, so positions are unknown: "
                "steer at positions='all'"
            )
        return self.now

    def check_prompt_length(self) -> None:
        """Raise SteeringError if some sequence ended before the prompt did, as it was given."""
        if self._unreached:
            raise SteeringError(
                f"prompt_length={self.given} contradicts what was run: a sequence ended before "
                "it had so many tokens"
            )

    def forget(self) -> None:
        """Treat the next pass as a new prompt, even if it begins like the last one."""
        self.known.forget_tokens()
        self._local.unchanged = Unchanged()

    def _placed(self, given: Mapping[str, Any], outer: Mapping[str, Any]) -> ForwardPass:
        ids, tokens = _tokens(given, outer)
        if tokens is None:
            return ForwardPass(
                unplaced="the model was called with neither input_ids nor inputs_embeds"
            )
        past, (batch, seq) = past_of(given), tokens.shape[:2]
        now = ForwardPass(batch, past.length, ids=ids, call=running_generate())
        known = self._continued(now, given, past, tokens if ids is None else ids)
        padding = None if known is None else _for_batch(known.padding, batch)
        layout = lay_out(given, past, (batch, seq), tokens.device, padding)
        now.positions, now.unplaced = layout.positions, now.unplaced or layout.problem
        if not now.unplaced:
            self._note(now, known, layout, past.length + seq)
        if now.sequences is not None:
            self.known.remember_caches(past.caches, now.sequences)
            self._set_lengths(now, now.sequences, layout)
        return now

    def _continued(
        self, now: ForwardPass, given: Mapping[str, Any], past: Past, tokens: Tensor
    ) -> Sequences | None:
        """The sequences that a pass goes on with; None if it begins new ones."""
        if past.cached:
            return self.known.of_cache(past.caches) if past.length else None
        if given.get("use_cache") is True:
            return None
        mask = flat_mask(given)
        fits = mask is not None and mask.shape == tokens.shape[:2]
        now.rows = Rows.of(tokens, mask if fits else None, given.get("use_cache"))
        extension = self.known.extended_by(now.rows)
        if extension is None or extension.sequences.is_new_to(now.call or GenerateCall()):
            return None
        return self._extended(now, extension, tokens.shape[1])

    def _extended(self, now: ForwardPass, extension: Extension, seq: int) -> Sequences:
        sequences = extension.sequences
        if extension.forked and self.given is None:
            now.unplaced = _FORKED
        if seq - extension.width > 1:
            sequences.ambiguous = _SEVERAL
        if len(sequences.lengths) > 1 and extension.rows != list(range(now.batch)):
            # rows were dropped, or are beams, which share a prompt
            sequences.lengths = sequences.lengths[extension.rows]
            sequences.padding = sequences.padding[extension.rows]
        sequences.decoding = True
        return sequences

    def _note(
        self, now: ForwardPass, known: Sequences | None, layout: Layout, columns: int
    ) -> None:
        """Decide whether a pass is prefill or decoding, and how long its prompts are."""
        if known is not None and known.packed:
            now.unplaced = "the rows of this cache hold several requests"
        elif known is not None and now.cached and not _are_the_same(known, now, layout, columns):
            now.unplaced = now.mixed = _MIXED
        elif known is None:
            now.sequences = self._begun(now, layout, columns)
        else:
            now.sequences = known
            if now.cached:
                _go_on(known, now, layout.ends(), columns)
        if now.sequences is not None and now.call is not None and now.call.identity is not None:
            now.sequences.call = now.call.identity
        now.prefill = now.sequences is not None and not now.sequences.decoding

    def _begun(self, now: ForwardPass, layout: Layout, columns: int) -> Sequences:
        """Sequences of which nothing was seen before."""
        ends, seq = layout.ends(), columns - now.cached
        sequences = Sequences(now.batch, ends, columns - ends, columns, packed=layout.packed)
        call = now.call or GenerateCall()
        if now.cached and seq == 1 and not (call.prefilling or columns <= call.width):
            # entered in mid-generation: what is cached is prompt
            sequences.begin(ends - 1, now.cached)
            sequences.decoding = True
        elif call.guesses and 0 < call.width < columns:
            sequences.columns, sequences.ambiguous = call.width, _SEVERAL
        return sequences

    def _set_lengths(self, now: ForwardPass, sequences: Sequences, layout: Layout) -> None:
        """Where the prompts of the pass end: as it was told, or as the passes show."""
        lengths = _for_batch(sequences.lengths, now.batch)
        if lengths is None:
            now.unplaced = (
                f"the batch went from {count(sequences.batch, 'row')} to {now.batch}, so which row "
                "goes on with which is unknown"
            )
            return
        now.told = self.given is not None
        if self.given is not None:
            now.lengths = self._given_lengths(now, layout, self.given)
            self._check_given(now, sequences, layout)
        else:
            now.lengths = layout.request_lengths() if layout.packed else lengths

    def _given_lengths(self, now: ForwardPass, layout: Layout, given: list[int]) -> Tensor:
        lengths = torch.tensor(given).reshape(-1, 1)
        if len(lengths) == 1:
            return lengths
        if layout.packed:
            requests = layout.requests()
            if len(requests) == 1 and int(requests.max()) + 1 == len(lengths):
                return lengths.flatten()[requests.cpu()]
        elif len(lengths) == now.prompts():
            return lengths.repeat_interleave(now.copies(), dim=0)
        raise SteeringError(
            f"prompt_length has {len(lengths)} entries, but the batch has "
            f"{count(now.batch, 'row')}: give one, or one for each prompt"
        )

    def _check_given(self, now: ForwardPass, sequences: Sequences, layout: Layout) -> None:
        """Note whether a prompt, as given, is over; raise if `generate` was given another."""
        assert now.lengths is not None
        ends = layout.request_lengths() if layout.packed else layout.ends()
        lengths = now.lengths.to(ends.device)
        if (
            now.prefill
            and now.call is not None
            and now.call.whole
            and bool((ends != lengths).any())
        ):
            raise SteeringError(
                f"prompt_length={self.given} contradicts the prompt that generate was given, of "
                f"{ends.flatten().tolist()} tokens"
            )
        self._unreached.discard(sequences)
        if bool((ends < lengths).any()):
            self._unreached.add(sequences)


def _are_the_same(known: Sequences, now: ForwardPass, layout: Layout, columns: int) -> bool:
    """Whether the rows of a known cache have as many tokens in it as earlier passes showed."""
    before = _for_batch(known.padding, now.batch)
    if before is None:
        return True  # refused for that
    before = before.to(layout.positions.device)  # (batch or 1, 1)
    if torch.equal(layout.positions[:, -1:], columns - 1 - before):
        return True  # as in nearly every pass
    own = (layout.positions >= 0).sum(dim=-1, keepdim=True)
    before = before.clamp(max=now.cached)
    after = torch.where(own > 0, columns - layout.ends(), before + columns - now.cached)
    known.padding = before + columns - now.cached - own
    return bool((after == known.padding).all())


def _go_on(sequences: Sequences, now: ForwardPass, ends: Tensor, columns: int) -> None:
    """A pass on a cache whose sequences are known."""
    seq = columns - now.cached
    call = now.call or GenerateCall()
    if call.prefilling:
        if sequences.is_new_to(call):
            sequences.unchanged = Unchanged()
        # of a cache that ends with a prompt, the last position was taken for its last one
        sequences.in_chunks, sequences.ambiguous = now.cached == sequences.columns, ""
        sequences.begin(ends, columns)
    elif sequences.is_new_to(call):
        sequences.ambiguous = _OWN_WAY
    elif now.cached < sequences.columns:
        _cut_back(sequences, ends, columns, several=seq > 1)
    elif not sequences.decoding and seq > 1:
        sequences.begin(ends, columns)
        sequences.in_chunks = True
    else:
        if seq > 1:
            sequences.ambiguous = _SEVERAL
        sequences.decoding = True


def _cut_back(sequences: Sequences, ends: Tensor, columns: int, *, several: bool) -> None:
    """A pass on a cache that was cropped into its prompt: another prompt begins like it."""
    if several:
        sequences.begin(ends, columns)
        sequences.in_chunks, sequences.ambiguous, sequences.unchanged = False, "", Unchanged()
    else:
        sequences.ambiguous = "the cache was cropped into the prompt, and one token came"


def _tokens(
    given: Mapping[str, Any], outer: Mapping[str, Any]
) -> tuple[Tensor | None, Tensor | None]:
    """The token ids of a pass as far as known, and what has their shape in front."""
    ids, embeddings = given.get("input_ids"), given.get("inputs_embeds")
    if ids is not None and not ids.is_floating_point():
        return ids, ids
    embeddings = embeddings if ids is None else ids
    above = outer.get("input_ids")
    # ids rather than embeddings: kernels round these by the length of the pass
    if isinstance(above, Tensor) and (embeddings is None or above.shape == embeddings.shape[:2]):
        return above, above if embeddings is None else embeddings
    return None, embeddings


def _shape(given: Mapping[str, Any], outer: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and tokens of a pass, as the model was called; None if it got neither."""
    for arguments in (outer, given):
        for name in ("input_ids", "inputs_embeds"):
            tokens = arguments.get(name)
            if isinstance(tokens, Tensor) and tokens.ndim >= 2:
                return tokens.shape[0], tokens.shape[1]
    return None


def _for_batch(values: Tensor, batch: int) -> Tensor | None:
    """One value a row for a batch of as many rows, or of several times as many; (n, 1)."""
    if len(values) in (1, batch):
        return values
    copies, rest = divmod(batch, len(values))
    return None if rest else values.repeat_interleave(copies, dim=0)


def _checked(prompt_length: int | Sequence[int]) -> list[int]:
    values = np.atleast_1d(np.asarray(prompt_length))
    if values.ndim != 1 or not values.size or values.dtype.kind not in "iu" or values.min() < 0:
        raise BadOption(
            f"prompt_length is a number of tokens, or one for each prompt, not {prompt_length!r}"
        )
    return [int(n) for n in values]
