"""Generation on transformers' own loop: seeded for each row, streamed, and cancellable."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from steerlab.core.completion import Completion, Finish
from steerlab.core.sampling import Sampling
from steerlab.errors import SteeringError
from steerlab.models.blocks import input_device
from steerlab.models.fast_layers import packing
from steerlab.progress import ShouldStop

OnText = Callable[[int, str], None]
_FIRST_CANDIDATES = 64  # enough of the vocabulary for top-p in most steps; else eight times more
_BLOCK = 64  # tokens whose largest logit stands for them
_AT_ONCE = 16  # rows whose logits stay in a core's cache


def numbered(on_text: OnText | None, rows: Sequence[int]) -> OnText | None:
    """on_text for a part of a batch, whose rows have other numbers in the whole."""
    if on_text is None:
        return None
    return lambda row, piece: on_text(rows[row], piece)


def run(
    model: Any,
    tokenizer: Any,
    prompt_ids: Sequence[Sequence[int]],
    sampling: Sampling,
    seeds: Sequence[int],
    *,
    on_text: OnText | None = None,
    should_stop: ShouldStop | None = None,
    use_cache: bool = True,
) -> list[Completion]:
    """Continue a batch of token sequences; the completions' prompts are left empty.

    seeds: one a row. A row gives the same text as alone, whatever its batch: padding is on the
    left and masked, penalties ignore it, and each row draws from its own seed.
    Raises SteeringError when logits become NaN or infinite.
    """
    from transformers import LogitsProcessorList, StoppingCriteriaList

    ids, mask = _left_padded(prompt_ids, _pad_id(model))
    streamer = _Streamer(tokenizer, prompt_ids, end_ids(model), on_text)
    sampler = Sampler(sampling, seeds, mask, input_device(model))
    stopping = _Cancelled(should_stop) if should_stop is not None else None
    with packing(model, len(ids), sampling.max_new_tokens):
        _generate(
            model,
            ids,
            mask,
            {"max_new_tokens": sampling.max_new_tokens, "use_cache": use_cache},
            logits_processor=LogitsProcessorList([sampler]),
            stopping_criteria=StoppingCriteriaList([stopping] if stopping else []),
            streamer=streamer,
        )
    cancelled = stopping is not None and stopping.fired
    return streamer.completions(cancelled)


def greedy_log_probs(model: Any, prompt_ids: Sequence[Sequence[int]], steps: int) -> Tensor:
    """Log-probabilities of the next tokens of greedy texts: (steps, batch, vocab) float32.

    On the CPU. Fewer steps where all texts end earlier.
    Raises SteeringError when logits become NaN or infinite.
    """
    ids, mask = _left_padded(prompt_ids, _pad_id(model))
    wanted = {"max_new_tokens": steps, "output_logits": True, "return_dict_in_generate": True}
    found = [logits.float() for logits in _generate(model, ids, mask, wanted).logits]
    for step, logits in enumerate(found, 1):
        check_logits(logits, step)
    return torch.log_softmax(torch.stack(found), dim=-1).cpu()


def _generate(model: Any, ids: Tensor, mask: Tensor, settings: dict[str, Any], **hooks: Any) -> Any:
    """Run transformers' loop with our settings and none of the checkpoint's."""
    from transformers import GenerationConfig

    config = GenerationConfig(
        do_sample=False,  # a Sampler has already chosen; argmax takes its choice
        eos_token_id=end_ids(model) or None,
        pad_token_id=_pad_id(model),
        **settings,
    )
    device = input_device(model)
    return _with_settings(model, GenerationConfig()).generate(
        input_ids=ids.to(device),
        attention_mask=mask.to(device),
        generation_config=config,
        **hooks,
    )


def _with_settings(model: Any, settings: Any) -> Any:
    """The same model, with another generation config to fill unset options from.

    It shares everything with the model, whose own config is left alone: another thread may read
    it meanwhile.
    """
    view = object.__new__(type(model))
    view.__dict__.update(model.__dict__, generation_config=settings)
    return view


def end_ids(model: Any) -> list[int]:
    """The token ids that end a text, from the model's generation config."""
    value = model.generation_config.eos_token_id
    return (
        [] if value is None else [int(v) for v in (value if isinstance(value, list) else [value])]
    )


def _pad_id(model: Any) -> int:
    pad = model.generation_config.pad_token_id
    return int(pad) if pad is not None else next(iter(end_ids(model)), 0)


def _left_padded(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    rows = [torch.tensor(list(prompt)) for prompt in prompts]
    how: dict[str, Any] = {"batch_first": True, "padding_side": "left"}
    mask = pad_sequence([torch.ones_like(row) for row in rows], **how)
    return pad_sequence(rows, padding_value=pad, **how), mask


class Sampler:
    """A logits processor that chooses one token a row, reproducibly, and masks out the rest.

    Unlike the stock processors, it makes rows independent of their batch: the repetition penalty
    ignores padding, and each row draws from its own seed.
    """

    def __init__(
        self, sampling: Sampling, seeds: Sequence[int], mask: Tensor, device: torch.device
    ) -> None:
        self.sampling = sampling
        self.prompt_mask = mask.to(device)
        self.step = 0
        if sampling.temperature > 0:
            self.draws = draws(seeds, sampling.max_new_tokens).to(device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """scores: (batch, vocab) float32 logits, which it overwrites: new ones of their size cost
        a tenth of a step. Returns 0 at the choice, -inf elsewhere.
        """
        check_logits(scores, self.step + 1)
        if self.sampling.repetition_penalty != 1:
            self._penalise(input_ids, scores)
        if self.sampling.temperature > 0:
            scores.div_(self.sampling.temperature)
            chosen = choose(scores, self.draws[:, self.step], self.sampling)
            scores.fill_(-torch.inf).scatter_(1, chosen.unsqueeze(1), 0.0)
        self.step += 1
        return scores

    def _penalise(self, input_ids: Tensor, scores: Tensor) -> None:
        """Penalty of arXiv 1909.05858 over the row's own tokens."""
        width = self.prompt_mask.shape[1]
        prompt = input_ids[:, :width]
        own = torch.where(self.prompt_mask.bool(), prompt, prompt[:, -1:])
        seen = torch.cat([own, input_ids[:, width:]], dim=1)
        penalise(seen, scores, self.sampling.repetition_penalty)


def penalise(seen: Tensor, scores: Tensor, penalty: float) -> None:
    """Apply the repetition penalty to the tokens seen, (rows, any), in scores (rows, vocab)."""
    values = scores.gather(1, seen)
    scores.scatter_(1, seen, torch.where(values < 0, values * penalty, values / penalty))


def check_logits(logits: Tensor, new_token: int) -> None:
    """Raise SteeringError for logits (batch, vocab) that no token can be chosen from."""
    top = logits.amax(dim=-1)  # NaN wins a maximum
    # equal logits are left of a residual stream whose norm overflowed
    if not bool((torch.isfinite(top) & (top > logits.amin(dim=-1))).all()):
        raise SteeringError(
            f"the model's logits became NaN or infinite at new token {new_token}: "
            "the coefficient is too large for it"
        )


def choose(logits: Tensor, draws: Tensor, sampling: Sampling) -> Tensor:
    """Sample by inverting the cumulative distribution at `draws` (uniform in [0, 1)).

    logits: (batch, vocab). Returns (batch,) token ids. top_k and top_p keep the same tokens as
    transformers' warpers; the vocabulary is sorted only as far as the kept mass needs.
    """
    if logits.is_cpu and len(logits) > _AT_ONCE:
        parts = zip(torch.split(logits, _AT_ONCE), torch.split(draws, _AT_ONCE), strict=True)
        return torch.cat([choose(*part, sampling) for part in parts])
    vocab = logits.shape[-1]
    if sampling.top_k:
        return _drawn(*_largest(logits, min(sampling.top_k, vocab)), draws, sampling.top_p)
    if sampling.top_p == 1:
        mass = torch.softmax(logits, dim=-1, dtype=torch.float64).cumsum(dim=-1)
        point = (draws * mass[:, -1]).unsqueeze(1)
        return torch.searchsorted(mass, point, right=True).squeeze(1).clamp(max=vocab - 1)
    top = logits.amax(dim=-1, keepdim=True)
    mass = (logits - top).exp_().sum(dim=-1, keepdim=True)  # float64 took a tenth of a sweep
    whole = top.double() + mass.double().log()
    return _nucleus(logits, draws, sampling.top_p, whole, _FIRST_CANDIDATES)


def _nucleus(logits: Tensor, draws: Tensor, top_p: float, whole: Tensor, size: int) -> Tensor:
    """Sample by top-p from the `size` most likely tokens, or more for rows that need more.

    whole: (batch, 1) log of the mass of the whole vocabulary. A last column holds the log of the
    remaining mass, so that probabilities stay those of the whole vocabulary.
    """
    if size >= logits.shape[-1]:
        return _drawn(*logits.sort(dim=-1, descending=True), draws, top_p)
    logs, ids = _largest(logits, size)
    shares = (logs.double() - whole).exp().sum(dim=-1, keepdim=True)
    rest = whole + torch.log((1 - shares).clamp(min=0))
    found = _drawn(
        torch.cat([logs.double(), rest], dim=-1),
        torch.cat([ids, ids[:, -1:]], dim=-1),
        draws,
        top_p,
    )
    lacking = (shares < top_p).squeeze(1)
    if bool(lacking.any()):
        rows = logits[lacking], draws[lacking], top_p, whole[lacking]
        found[lacking] = _nucleus(*rows, 8 * size)
    return found


def _drawn(logs: Tensor, ids: Tensor, draws: Tensor, top_p: float) -> Tensor:
    """The tokens at `draws` among candidates in descending order; (batch, candidates) both."""
    mass = torch.softmax(logs, dim=-1, dtype=torch.float64)
    before = mass.cumsum(dim=-1) - mass
    mass = mass.masked_fill(before >= top_p, 0.0)  # the token that crosses top_p stays
    total = mass.cumsum(dim=-1)
    point = (draws * total[:, -1]).unsqueeze(1)
    picked = torch.searchsorted(total, point, right=True)
    last = (mass > 0).sum(dim=-1, keepdim=True) - 1
    return ids.gather(1, torch.minimum(picked, last)).squeeze(1)


def _largest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """`topk`, by way of the blocks of the vocabulary whose largest logits are the largest."""
    batch, vocab = logits.shape
    if vocab % _BLOCK or 4 * count * _BLOCK > vocab:
        return logits.topk(count, dim=-1)
    blocks = logits.reshape(batch, -1, _BLOCK)
    best = blocks.amax(dim=-1).topk(count, dim=-1).indices.sort(dim=-1).values  # (batch, count)
    some = blocks.gather(1, best.unsqueeze(2).expand(-1, -1, _BLOCK)).flatten(1)
    logs, places = some.topk(count, dim=-1)
    return logs, best.gather(1, places // _BLOCK) * _BLOCK + places % _BLOCK


def draws(seeds: Sequence[int], steps: int) -> Tensor:
    """(rows, steps) uniform numbers; equal seeds give equal rows."""
    streams = {}
    for seed in set(seeds):
        generator = torch.Generator().manual_seed(seed % 2**63)
        streams[seed] = torch.rand(steps, generator=generator, dtype=torch.float64)
    return torch.stack([streams[seed] for seed in seeds])


class _Cancelled:
    """A stopping criterion that asks should_stop() after every token."""

    def __init__(self, should_stop: ShouldStop) -> None:
        self.should_stop = should_stop
        self.fired = False

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self.fired = self.fired or self.should_stop()
        return torch.full((len(input_ids),), self.fired, dtype=torch.bool, device=input_ids.device)


class _Streamer:
    """Collects the tokens of each row and emits them as text, in whole characters."""

    def __init__(
        self,
        tokenizer: Any,
        prompts: Sequence[Sequence[int]],
        ends: list[int],
        on_text: OnText | None,
    ) -> None:
        self.ends = set(ends)
        self.rows = [GrowingText(tokenizer, prompt) for prompt in prompts]
        self.on_text = on_text
        self.started = False

    def put(self, value: Tensor) -> None:
        """Called by `generate`: first with the prompt, then with one token a row."""
        if not self.started:
            self.started = True
            return
        for index, (row, token) in enumerate(zip(self.rows, value.tolist(), strict=True)):
            if row.ended:
                continue
            row.add(token, token in self.ends)
            if self.on_text is not None and (piece := row.new_text()):
                self.on_text(index, piece)

    def end(self) -> None:
        """Called by `generate` at the end: emit what was held back."""
        for index, row in enumerate(self.rows):
            if self.on_text is not None and (piece := row.new_text(final=True)):
                self.on_text(index, piece)

    def completions(self, cancelled: bool) -> list[Completion]:
        """One completion a row; their prompts are empty."""
        return [row.completion(cancelled) for row in self.rows]


class GrowingText:
    """The tokens of one row; decoded after the end of the prompt, so that spaces come out right."""

    def __init__(self, tokenizer: Any, prompt: Sequence[int]) -> None:
        self.tokenizer = tokenizer
        self.context = list(prompt[-4:])
        self.tokens: list[int] = []
        self.ended = False
        self.settled = 0  # tokens whose text was emitted for good
        self.given = 0  # characters emitted of what follows them

    def add(self, token: int, ends: bool) -> None:
        """Add a token; ends: whether it is the last one."""
        self.tokens.append(token)
        self.ended = ends

    def new_text(self, *, final: bool = False) -> str:
        """Text not emitted yet; an unfinished character is held back until it is whole."""
        before = [*self.context, *self.tokens[: self.settled]][-8:]
        text = self._decode(before, self.tokens[self.settled :])
        if text.endswith("\ufffd") and not final:
            return ""
        piece, self.given = text[self.given :], len(text)
        if len(self.tokens) - self.settled > 16:
            self.settled, self.given = len(self.tokens), 0
        return piece

    def completion(self, cancelled: bool) -> Completion:
        """The text so far; its prompt is empty."""
        finish: Finish = "stop" if self.ended else "cancelled" if cancelled else "length"
        return Completion("", self._decode(self.context, self.tokens), tuple(self.tokens), finish)

    def _decode(self, before: list[int], tokens: list[int]) -> str:
        def text(ids: list[int]) -> str:
            return str(
                self.tokenizer.decode(
                    ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
                )
            )

        prefix = text(before)
        whole = text([*before, *tokens])
        return whole[len(prefix) :] if whole.startswith(prefix) else text(tokens)
