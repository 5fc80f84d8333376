"""RunningBatch: rows that join and leave between passes, over one cache.

Transformers' own continuous batching gave the same texts but 32.6 s for 16 requests of 40 tokens
on one core, where a plain batch took 6.6 s; it also has one sampling for all. Here rows share a
cache padded on the left; a row's positions and mask are its own, so its text is what it is alone.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from steerlab.core.sampling import Sampling
from steerlab.errors import ModelError
from steerlab.interventions.by_row import RowHooks
from steerlab.models.blocks import input_device
from steerlab.models.cache import cache_argument
from steerlab.models.generation import end_ids, greedy_log_probs
from steerlab.models.language_model import LanguageModel
from steerlab.serving.job import Job, TokenLog, Written
from steerlab.serving.row import Row, choose_tokens, token_log

CHUNK = 512
"""Prompt tokens that one pass reads, so that a long prompt lets other texts go on."""


class Joining:
    """Rows whose prompts are being read, in passes of their own; copies of a prompt are read once.

    readers: the rows that the passes hold. reader_of: each row's place among them.
    """

    def __init__(self, rows: list[Row], cache: Any) -> None:
        self.rows, self.cache = rows, cache
        places: dict[Any, int] = {}
        self.reader_of = [places.setdefault(row.job.prompt_key, len(places)) for row in rows]
        self.readers = [rows[self.reader_of.index(place)] for place in range(len(places))]
        self.width = max(len(row.job.ids) for row in rows)
        self.read = 0
        self.logs: list[list[TokenLog]] = [[] for _ in self.readers]
        self.ids = torch.zeros(len(self.readers), self.width, dtype=torch.long)
        for own, row in zip(self.ids, self.readers, strict=True):
            own[self.width - len(row.job.ids) :] = torch.tensor(row.job.ids)

    @property
    def is_read(self) -> bool:
        """Whether the prompts are read to their ends."""
        return self.read == self.width


class RunningBatch:
    """The rows that are being written. Hold the model's lock around `read` and `step`."""

    def __init__(self, lm: LanguageModel, hooks: RowHooks) -> None:
        self.lm, self.hooks, self.rows = lm, hooks, list[Row]()
        self.cache: Any = None
        self.ends = set(end_ids(lm.model))
        self.device = input_device(lm.model)
        name = cache_argument(lm.model)
        if name is None:
            raise ModelError(f"{lm.source} takes no cache that could be shared: it can't be served")
        self._cache_name: str = name
        self._takes = set(inspect.signature(lm.model.forward).parameters)

    def joining(self, jobs: Sequence[Job]) -> Joining:
        """Begin to read the prompts of some jobs."""
        from transformers import DynamicCache

        return Joining([Row(self.lm, job, self.ends) for job in jobs], DynamicCache())

    def read(self, joining: Joining) -> None:
        """Read the next tokens of prompts; at their ends, choose first tokens and join."""
        start, rows = joining.read, joining.readers
        stop = min(start + max(1, CHUNK // len(rows)), joining.width)
        starts = torch.tensor([joining.width - len(row.job.ids) for row in rows])
        positions = torch.arange(start, stop) - starts.unsqueeze(1)  # (rows, seq)
        echo = any(row.job.echo and row.job.logprobs is not None for row in rows)
        mask = torch.arange(stop) >= starts.unsqueeze(1)
        ids = joining.ids[:, start:stop]
        logits = self._forward(rows, joining.cache, ids, positions, mask, keep=0 if echo else 1)
        if echo:
            self._note_prompts(joining, logits, start)
        joining.read = stop
        if joining.is_read:
            self._join(joining, logits[:, -1])

    def step(self) -> None:
        """Read one token of each row and choose the next."""
        lengths = torch.tensor([row.length for row in self.rows]).unsqueeze(1)
        width = self.cache.get_seq_length()
        mask = torch.arange(width + 1) >= width - lengths
        ids = torch.tensor([[row.next] for row in self.rows])
        logits = self._forward(self.rows, self.cache, ids, lengths, mask, keep=1, decoding=True)
        for row, values in zip(self.rows, self.hooks.projections, strict=True):
            row.length += 1
            row.take_scores(values)
        going = [i for i, row in enumerate(self.rows) if not row.job.done]
        choose_tokens([self.rows[i] for i in going], logits[going, -1])
        self.prune()

    def prune(self) -> None:
        """Let go of rows that are done, and of columns that no row needs any more."""
        keep = [i for i, row in enumerate(self.rows) if not (row.job.done or row.job.cancelled)]
        if len(keep) == len(self.rows):
            return
        self.rows = [self.rows[i] for i in keep]
        if not self.rows:
            self.cache = None
            return
        width = max(row.length for row in self.rows)
        chosen = torch.tensor(keep, device=self.device)
        for layer in self.cache.layers:
            layer.keys = layer.keys.index_select(0, chosen)[:, :, -width:].clone()
            layer.values = layer.values.index_select(0, chosen)[:, :, -width:].clone()

    def _join(self, joining: Joining, logits: Tensor) -> None:
        for row, place in zip(joining.rows, joining.reader_of, strict=True):
            row.length = len(row.job.ids)
            row.steering.follow(joining.readers[place].steering)
            if joining.logs[place]:
                row.tell_prompt(joining.logs[place])
        if len(joining.readers) < len(joining.rows):
            chosen = torch.tensor(joining.reader_of, device=self.device)
            joining.cache.batch_select_indices(chosen)
            logits = logits[chosen]
        choose_tokens(joining.rows, logits)
        if self.cache is None:
            self.cache = joining.cache
        else:
            width = max(self.cache.get_seq_length(), joining.width)
            for mine, new in zip(self.cache.layers, joining.cache.layers, strict=True):
                mine.keys = torch.cat([_wider(mine.keys, width), _wider(new.keys, width)])
                mine.values = torch.cat([_wider(mine.values, width), _wider(new.values, width)])
        self.rows += joining.rows
        self.prune()

    def _note_prompts(self, joining: Joining, logits: Tensor, start: int) -> None:
        """Note the log-probabilities of prompt tokens: column i tells of token i + 1."""
        logs = torch.log_softmax(logits.float(), dim=-1)
        for row, own, found in zip(joining.readers, logs, joining.logs, strict=True):
            if not row.job.echo or row.job.logprobs is None:
                continue
            first = joining.width - len(row.job.ids)
            for column in range(max(start, first), start + len(own)):
                if column == first:
                    found.append(TokenLog(row.job.ids[0]))
                if (at := column + 1 - first) < len(row.job.ids):
                    found.append(token_log(own[column - start], row.job.ids[at], row.job.logprobs))

    @torch.no_grad()
    def _forward(
        self,
        rows: Sequence[Row],
        cache: Any,
        ids: Tensor,
        positions: Tensor,
        mask: Tensor,
        *,
        keep: int,
        decoding: bool = False,
    ) -> Tensor:
        """Logits (rows, seq or keep, vocab) of a pass; keep: of its last columns, 0 for all."""
        arguments: dict[str, Any] = {
            "input_ids": ids.to(self.device),
            "attention_mask": mask.long().to(self.device),
            self._cache_name: cache,
            "use_cache": True,
        }
        if "position_ids" in self._takes:
            arguments["position_ids"] = positions.clamp(min=0).to(self.device)
        if keep and "logits_to_keep" in self._takes:
            arguments["logits_to_keep"] = keep
        steered = [row.steering for row in rows]
        where = positions.to(self.device)
        found: Tensor = self.hooks.run(steered, where, decoding=decoding, **arguments).logits
        return found


def _wider(values: Tensor, width: int) -> Tensor:
    """Keys or values (rows, heads, seq, d_head), padded on the left to `width` columns."""
    return pad(values, (0, 0, width - values.shape[2], 0))


def check_rows(lm: LanguageModel, hooks: RowHooks) -> None:
    """Raise ModelError unless a row that others join gives what it gives alone; tried unsteered.

    Models that keep a part of the past elsewhere than in keys and values do not.
    """
    prompts, steps = ([3, 4, 5], [3] * 11), 4
    alone = [greedy_log_probs(lm.model, [ids], steps)[:, 0] for ids in prompts]
    limit = 1e-3 if lm.model.dtype in (torch.float32, torch.float64) else 0.25
    try:
        found = _together(lm, hooks, [(prompts[i], len(alone[i])) for i in (0, 1, 0)])
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise ModelError(f"{lm.source} can't be served: its cache is of its own kind") from error
    for place, logs in zip((0, 1, 0), found, strict=True):
        pairs = zip(alone[place], logs, strict=False)
        if any(abs(float(row[log.token]) - (log.logprob or 0.0)) > limit for row, log in pairs):
            raise ModelError(f"{lm.source} can't be served: its rows depend on one another")


def _together(
    lm: LanguageModel, hooks: RowHooks, texts: Sequence[tuple[list[int], int]]
) -> list[list[TokenLog]]:
    """The log-probabilities of greedy texts, (prompt, new tokens), that join one by one."""
    batch, found = RunningBatch(lm, hooks), [list[TokenLog]() for _ in texts]

    def heard(job: Job, news: Written) -> None:
        found[job.index].extend(news.logs)

    for index, (ids, steps) in enumerate(texts):
        job = Job(tuple(ids), Sampling(steps), 0, heard, logprobs=0, index=index)
        joining = batch.joining([job])
        while not joining.is_read:
            batch.read(joining)
        if batch.rows:
            batch.step()
    while batch.rows:
        batch.step()
    return found
