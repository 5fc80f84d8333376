"""Row: one text while it is written in a running batch."""

from __future__ import annotations

import torch
from torch import Tensor

from steerlab.errors import SteeringError
from steerlab.interventions.by_row import RowSteering
from steerlab.models.generation import GrowingText, check_logits, choose, draws, penalise
from steerlab.models.language_model import LanguageModel
from steerlab.serving.job import Finish, Job, TokenLog, Written


class Row:
    """One text: its tokens so far, its steering and its random numbers.

    length: tokens that the cache holds of it. next: the token that the next pass reads.
    """

    def __init__(self, lm: LanguageModel, job: Job, ends: set[int]) -> None:
        self.job, self._ends = job, ends
        self.names = list(job.watched)
        watched = [(b, torch.from_numpy(v).float()) for b, v in job.watched.values()]
        self.steering = RowSteering(job.injections, len(job.ids), watched)
        self.length, self.next = 0, job.ids[-1]
        self.draws = draws([job.seed], job.sampling.max_new_tokens)[0]
        self.tokens: list[int] = []
        self._text = GrowingText(lm.tokenizer, job.ids)
        self._held = ""  # text that may be the beginning of a stop string
        self._scores_due = False
        self._finish: Finish | None = None

    def tell_prompt(self, logs: list[TokenLog]) -> None:
        """Tell the log-probabilities of the prompt's tokens."""
        self.job.heard(self.job, Written(logs=tuple(logs)))

    def fail(self, error: Exception) -> None:
        """End the text with an error."""
        self.job.done = True
        self.job.heard(self.job, Written(tokens=len(self.tokens), error=error))

    def take(self, token: int, log: TokenLog | None) -> None:
        """Add a token that was chosen; the row is done if it was the last one."""
        if self.steering.problem is not None:
            self.fail(self.steering.problem)
            return
        self.next = token
        self.tokens.append(token)
        self._text.add(token, token in self._ends)
        full = len(self.tokens) >= self.job.sampling.max_new_tokens
        finish: Finish | None = "stop" if token in self._ends else "length" if full else None
        piece = self._held + self._text.new_text(final=finish is not None)
        text, stopped = self._until_stop(piece, final=finish is not None)
        self._finish = "stop" if stopped else finish
        # the last token is read once more if its projections are asked for
        self._scores_due = bool(self.names) and token not in self._ends
        self.job.done = self._finish is not None and not self._scores_due
        logs = () if log is None else (log,)
        told = self._finish if self.job.done else None
        self.job.heard(self.job, Written(text, len(self.tokens), logs, None, told))

    def take_scores(self, values: dict[int, Tensor]) -> None:
        """Tell the projections of the token that was just read."""
        if not self._scores_due:
            return
        scores = {name: round(float(values[i]), 6) for i, name in enumerate(self.names)}
        self.job.done = self._finish is not None
        news = Written("", len(self.tokens), (), scores, self._finish)
        self.job.heard(self.job, news)

    def _until_stop(self, text: str, *, final: bool) -> tuple[str, bool]:
        """What can be told of a text, and whether a stop string came."""
        found = [at for stop in self.job.stop if (at := text.find(stop)) >= 0]
        if found:
            return text[: min(found)], True
        held = 0 if final else max((_overlap(text, stop) for stop in self.job.stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False


def _overlap(text: str, stop: str) -> int:
    """The longest end of a text that a stop string begins with."""
    sizes = range(min(len(text), len(stop) - 1), 0, -1)
    return next((n for n in sizes if text.endswith(stop[:n])), 0)


def choose_tokens(rows: list[Row], logits: Tensor) -> None:
    """Give each row its next token of logits (rows, vocab); rows without one fail by themselves."""
    logits = logits.float()
    for row, own in zip(rows, logits, strict=True):
        try:
            check_logits(own.unsqueeze(0), len(row.tokens) + 1)
        except SteeringError as error:
            row.fail(error)
    alive = [i for i, row in enumerate(rows) if not row.job.done]
    chosen = _chosen([rows[i] for i in alive], logits[alive])
    wanted = [i for i in alive if rows[i].job.logprobs is not None]
    logs = dict(zip(wanted, torch.log_softmax(logits[wanted], -1), strict=True))
    for i, token in zip(alive, chosen, strict=True):
        log = token_log(logs[i], token, rows[i].job.logprobs or 0) if i in logs else None
        rows[i].take(token, log)


def _chosen(rows: list[Row], logits: Tensor) -> list[int]:
    """One token a row, those of one sampling together."""
    found = logits.argmax(-1)
    groups: dict[tuple[float, ...], list[int]] = {}
    for i, row in enumerate(rows):
        s = row.job.sampling
        if s.repetition_penalty != 1:
            seen = torch.tensor([[*row.job.ids, *row.tokens]], device=logits.device)
            penalise(seen, logits[i : i + 1], s.repetition_penalty)
            found[i] = logits[i].argmax()
        if s.temperature > 0:
            groups.setdefault((s.temperature, s.top_p, s.top_k), []).append(i)
    for members in groups.values():
        sampling = rows[members[0]].job.sampling
        points = torch.stack([rows[i].draws[len(rows[i].tokens)] for i in members])
        scores = logits[members] / sampling.temperature
        found[members] = choose(scores, points.to(logits.device), sampling)
    return [int(token) for token in found]


def token_log(logs: Tensor, token: int, top: int) -> TokenLog:
    """The log-probability of a token, and those of the `top` likeliest; logs: (vocab,)."""
    values, ids = logs.topk(top)
    best = dict(zip(ids.tolist(), values.tolist(), strict=True))
    return TokenLog(token, float(logs[token]), best)
