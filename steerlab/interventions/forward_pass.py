"""ForwardPass: where `positions` are in one forward pass, and which row is whose prompt."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from steerlab.core.display import count
from steerlab.errors import SteeringError
from steerlab.interventions.generate_call import GenerateCall
from steerlab.interventions.sequence import Rows, Sequences
from steerlab.interventions.unchanged import Unchanged


@dataclass(eq=False)
class ForwardPass:
    """One pass through the blocks.

    batch, cached: rows of the pass, and tokens before it. call: the `generate` around it.
    shape: rows and tokens of the pass as the model was called, where known.
    positions: (batch or 1, seq), -1 on padding.
    lengths: tokens of each row's prompt, or of each token's: (batch or 1, 1 or seq).
    told: whether the caller said where the prompt ends. prefill: whether it holds prompt.
    ids: (batch, seq), where known. rows: the tokens as bytes, of a pass without a cache.
    unplaced: why the pass can't be placed at all; "" if it can.
    mixed: why its rows may not be those of the cache; "" if they are.
    unchanged: the rows of its texts that are still to be changed.
    entered: layers whose block it has gone through so far.
    changes: layer -> ‖h' - h‖ at each token, (batch, seq); of an audited steering.
    """

    batch: int = 0
    cached: int = 0
    positions: Tensor | None = None
    lengths: Tensor | None = None
    sequences: Sequences | None = None
    call: GenerateCall | None = None
    told: bool = False
    prefill: bool = False
    ids: Tensor | None = None
    rows: Rows | None = None
    unplaced: str = ""
    mixed: str = ""
    shape: tuple[int, int] | None = None
    unchanged: Unchanged = field(default_factory=Unchanged)
    entered: set[int] = field(default_factory=set)
    changes: dict[int, Tensor] = field(default_factory=dict)
    _found: dict[str, Tensor | None] = field(default_factory=dict)

    def where(self, positions: str) -> Tensor | None:
        """Where `positions` are: None (nowhere) or (batch or 1, seq) bool.

        For "front", absolute positions, -1 on padding.
        """
        if positions not in self._found:
            self._found[positions] = self._where(positions)
        return self._found[positions]

    def prompts(self) -> int:
        """How many prompts the caller gave.

        Raises SteeringError where rows can't be told apart.
        """
        if problem := self.rows_problem():
            raise SteeringError(f"{problem}: steer all rows alike")
        return self._prompts()

    def copies(self) -> int:
        """Rows of each prompt: beams, return sequences. They follow one another.

        Raises as `prompts`.
        """
        return self.batch // self.prompts()

    def rows_problem(self) -> str:
        """Why it is unknown which row is whose prompt; "" if it is known."""
        if self.call is not None and self.call.prompts is None:
            return (
                "this model has a generate of its own, which does not tell which row of a batch "
                "is whose prompt"
            )
        if self.sequences is not None and self.sequences.packed:
            return "a row of the batch holds several requests"
        if self.batch % self._prompts() and not self.mixed:
            return (
                f"the batch has {count(self.batch, 'row')} for {count(self._prompts(), 'prompt')}, "
                "so it is unknown which row is whose"
            )
        return self.mixed

    def _prompts(self) -> int:
        if self.call is not None:
            assert self.call.prompts is not None
            return self.call.prompts
        return self.batch if self.sequences is None else self.sequences.batch

    def check_front(self, spans: Tensor, starts: Tensor, start_ids: set[int]) -> None:
        """Raise SteeringError if a front vector does not fit the prompt.

        spans: (batch or 1,) rows of the front vector of each prompt, 0 for none.
        starts: (batch or 1,) bool, whether it adds something to the very first token.
        start_ids: the tokens that a prompt may begin with; empty if that is unknown.
        """
        assert self.lengths is not None
        lengths = self.lengths.amin(dim=-1).to(spans.device)
        short = lengths < spans
        if bool(short.any()):
            n, rows = (int(x.expand_as(short)[short][0]) for x in (lengths, spans))
            raise SteeringError(
                f"the prompt has {count(n, 'token')} and the front vector covers {rows}: use a "
                "longer prompt"
            )
        if self.cached == 0 and bool(
            (self._bare(start_ids, spans.device) & (spans > 0) & ~starts).any()
        ):
            raise SteeringError(
                "a front vector starts at the BOS token, but a prompt does not begin with "
                "it: put the model's BOS in front (LanguageModel.generate does)"
            )

    def _where(self, positions: str) -> Tensor | None:
        if self.unplaced:
            raise SteeringError(f"{self.unplaced}: steer at positions='all'")
        assert self.positions is not None
        assert self.lengths is not None
        assert self.sequences is not None
        later = self.sequences.decoding and self.cached > 0
        if positions == "front":
            return None if later else self.positions
        self._check_known(positions, self.sequences)
        now, length = self.positions, self.lengths.to(self.positions.device)
        if positions == "prompt":
            return None if later and not self.told else (now >= 0) & (now < length)
        if positions == "generated":
            return now >= (length - 1).clamp(min=0)
        return (now >= 0) & (now >= length)  # continuation

    def _check_known(self, positions: str, sequences: Sequences) -> None:
        ambiguous = sequences.ambiguous
        if positions == "generated" and sequences.in_chunks:
            ambiguous = "the prompt came in several chunks"
        if ambiguous and not self.told:
            raise SteeringError(
                f"{ambiguous}, so where the prompt ended is unknown: "
                "pass prompt_length to steering(...)"
            )

    def _bare(self, start_ids: set[int], device: torch.device) -> Tensor:
        """For each prompt, whether it is known not to begin with BOS: (batch or 1,) bool."""
        if self.ids is None or not self.prefill or not start_ids or self.positions is None:
            return torch.zeros(1, dtype=torch.bool, device=device)
        first = self.positions.expand(len(self.ids), -1) == 0
        known = torch.isin(self.ids, torch.tensor(sorted(start_ids), device=first.device))
        return (first & ~known).any(dim=-1).to(device)
