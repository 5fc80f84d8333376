"""Jobs: the texts that a request asks for, and what comes back of each; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from steerlab.core.sampling import Sampling
from steerlab.errors import ModelError, SteerlabError

if TYPE_CHECKING:
    from steerlab.interventions.injection import Injection

Finish = Literal["stop", "length"]


@dataclass(frozen=True)
class TokenLog:
    """The log-probability of a token, and those of the likeliest in its place, by token id.

    logprob: None for the first token of a prompt.
    """

    token: int
    logprob: float | None = None
    top: Mapping[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """What a pass added to a text.

    text: in whole characters, without what may still become a stop string. tokens: how many the
    text has so far. logs: of new tokens. scores: projections of one token by vector, in doses.
    """

    text: str = ""
    tokens: int = 0
    logs: tuple[TokenLog, ...] = ()
    scores: Mapping[str, float] | None = None
    finish: Finish | None = None
    error: Exception | None = None


@dataclass(eq=False)
class Job:
    """One text to write.

    ids: the prompt. watched: name -> (layer, direction scaled to doses). logprobs: how many of
    the likeliest tokens to tell of each; None tells nothing. echo: tell the prompt's too. heard:
    called with (job, news) in the thread of the model. done: whether its last news was told.
    """

    ids: tuple[int, ...]
    sampling: Sampling
    seed: int
    heard: Callable[[Job, Written], object]
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    echo: bool = False
    injections: tuple[Injection, ...] = ()
    watched: Mapping[str, Any] = field(default_factory=dict)
    index: int = 0
    cancelled: bool = False
    done: bool = False

    @property
    def most_tokens(self) -> int:
        """The longest that prompt and text can become."""
        return len(self.ids) + self.sampling.max_new_tokens

    @property
    def prompt_key(self) -> Hashable:
        """Equal for jobs of one request with the same prompt, which are read once."""
        return self.ids, self.heard, tuple(map(id, self.injections))


def fail_all(jobs: Iterable[Job], error: Exception) -> None:
    """End the texts of a pass that could not be run."""
    told = error if isinstance(error, SteerlabError) else ModelError(f"the pass failed: {error}")
    for job in jobs:
        if not job.done:
            job.done = True
            job.heard(job, Written(error=told))
