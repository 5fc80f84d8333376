"""Answering: one request with its texts, from the moment that it is understood."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from steerlab.core.display import count
from steerlab.core.prompts import Conversation
from steerlab.core.sampling import Sampling
from steerlab.errors import SteeringError
from steerlab.serving.answers import Answer, Text
from steerlab.serving.engine import Counts
from steerlab.serving.job import Job, Written
from steerlab.serving.openai import Request
from steerlab.serving.resolving import resolve, watched

if TYPE_CHECKING:
    from steerlab.core.recipe import ModelIdentity
    from steerlab.interventions.injection import Injection
    from steerlab.lab.lab import Lab
    from steerlab.models.language_model import LanguageModel


class News:
    """What comes of the jobs of one request: from the model's thread to the one of asyncio."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[Job, Written]] = asyncio.Queue()

    def put(self, job: Job, news: Written) -> None:
        """Called in the model's thread."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (job, news))

    async def get(self) -> tuple[Job, Written]:
        """The next news; counts them."""
        job, news = await self._queue.get()
        self.counts.texts += news.finish is not None
        self.counts.failed += news.error is not None
        return job, news


@dataclass
class Answering:
    """One request that is being answered."""

    answer: Answer
    jobs: list[Job]
    news: News

    async def written(self) -> AsyncIterator[tuple[int, Written]]:
        """What comes of the texts, until all are finished; raises the first error of one."""
        left = len(self.jobs)
        while left:
            job, news = await self.news.get()
            if news.error is not None:
                raise news.error
            left -= news.finish is not None
            yield job.index, news

    async def finished(self) -> Answer:
        """The answer when all texts are written; raises the first error of one."""
        async for index, news in self.written():
            self.answer.texts[index].add(news)
        return self.answer


def prepare(
    lab: Lab, lm: LanguageModel, here: ModelIdentity, request: Request, news: News
) -> Answering:
    """Find the vectors, read the prompts and make the jobs of a request.

    here: the identity of the model. Raises SteerlabError for whatever is refused.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        resolved = resolve(lab, here, request.steers)
        scores = watched(lab, here, request.monitor)
    ids = [
        tuple(_prompt_ids(lm, prompt, chat=request.chat, bos=resolved.is_front))
        for prompt in request.prompts
    ]
    sampling = _fitting(lm, request, max(map(len, ids)))
    lm.check_length(ids, sampling.max_new_tokens)
    _check_places(resolved.injections, min(map(len, ids)), sampling.max_new_tokens)
    every = [(prompt, copy) for prompt in ids for copy in range(request.n)]
    jobs = [
        Job(
            prompt,
            sampling,
            request.seed + copy,
            news.put,
            request.stop,
            request.logprobs,
            request.echo,
            resolved.injections,
            scores,
            index,
        )
        for index, (prompt, copy) in enumerate(every)
    ]
    texts = [Text(_echoed(lm, job)) for job in jobs]
    answer = Answer(request, resolved, lm.tokenizer, texts, sum(map(len, ids)))
    return Answering(answer, jobs, news)


def _prompt_ids(lm: LanguageModel, prompt: Any, *, chat: bool, bos: bool) -> list[int]:
    """Token ids of a text, of token ids (as they are), or of the messages of a chat.

    bos: the prompt has to begin with BOS. Raises SteeringError for token ids that do not.
    """
    if not isinstance(prompt, list):
        return lm.tokens(Conversation(prompt) if chat else prompt, chat=chat, bos=bos)
    if bos and prompt[:1] != lm.tokens("a", bos=True)[:1]:
        raise SteeringError(
            "a front vector starts at the BOS token, but the token ids do not begin with it"
        )
    return prompt


def _fitting(lm: LanguageModel, request: Request, longest: int) -> Sampling:
    """The request's sampling; as many tokens as fit after its longest prompt if it named none."""
    from steerlab.models.blocks import context_of

    context, wanted = context_of(lm.model), request.sampling.max_new_tokens
    if request.is_limited or context is None:
        return request.sampling
    return replace(request.sampling, max_new_tokens=max(1, min(wanted, context - longest)))


def _echoed(lm: LanguageModel, job: Job) -> str:
    return str(lm.tokenizer.decode(job.ids, skip_special_tokens=True)) if job.echo else ""


def _check_places(injections: Sequence[Injection], shortest: int, new_tokens: int) -> None:
    """Raise SteeringError if a vector finds no place in prompts and texts of these lengths."""
    for one in injections:
        rows = max(map(len, one.vector.directions.values()))
        if one.place == "front" and rows > shortest:
            raise SteeringError(
                f"the prompt has {count(shortest, 'token')} and the front vector covers {rows}: "
                "use a longer prompt"
            )
        if one.place == "continuation" and new_tokens == 1:
            raise SteeringError(
                "no position is 'continuation' in a text of one token, which is not read any "
                "more: ask for at least two, or steer at 'generated'"
            )
