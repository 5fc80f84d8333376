"""Comparing log-probabilities and greedy texts of steerlab with those of another program."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from steerlab.conformance.targets import TARGETS, missing
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, Incompatible, ModelError
from steerlab.interop.foreign import shortened
from steerlab.interventions.hooks import steering
from steerlab.models.generation import end_ids
from steerlab.models.inference import log_probs
from steerlab.models.language_model import LanguageModel
from steerlab.models.loading import location_of
from steerlab.progress import Progress

TOLERANCE = 1e-4
"""Largest difference of a log-probability at which a program agrees, over the whole vocabulary.

Float32 itself is up to 1.1e-4 off float64 there, for SmolLM2 and its 49,152 tokens, and half as
much over the LIKELIEST.
"""

LIKELIEST = 1000
"""Next tokens after each token over which a difference is told beside that over all."""

PROMPTS = (
    "I think you are a",
    "The weather in the mountains was",
    "Dear neighbour, I am writing to you because",
    "def mean(values):\n    ",
)

Verdict = Literal["agrees", "differs", "missing", "refused", "failed"]


class Answer(NamedTuple):
    """What a program says after a prompt: its greedy text, and log-probabilities.

    log_probs: of the next token after each token of the prompt and of our text: (tokens, vocab).
    """

    text: list[int]
    log_probs: Tensor


@dataclass(frozen=True)
class Case:
    """What a program is given: the model's files, whether it is steered, and what it is asked.

    vector: with its coefficient multiplied in. directory: empty, for files. location: of the
    model's files. ends: the tokens that end a text. asked: prompts, each with our text.
    new_tokens: of a greedy text, at most.
    """

    vector: SteeringVector
    steered: bool
    directory: Path
    location: str
    revision: str | None
    ends: Sequence[int]
    asked: Sequence[tuple[list[int], list[int]]]
    new_tokens: int

    def answered(
        self,
        greedy: Callable[[list[int]], list[int]],
        log_probs: Callable[[list[int]], Tensor],
    ) -> list[Answer]:
        """The answers of a program that takes one prompt at a time."""
        return [Answer(greedy(prompt), log_probs([*prompt, *text])) for prompt, text in self.asked]


class Difference(NamedTuple):
    """Largest differences of log-probabilities; infinite where one is NaN or lacking.

    whole: over the whole vocabulary. likeliest: over the LIKELIEST next tokens by ours.
    """

    whole: float = 0.0
    likeliest: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """How a program compares.

    unsteered, steered: largest difference of a log-probability, over all tokens of the prompts and
    our texts, and all that may follow each. equal: greedy texts that are the same, of `texts`.
    unsteered_likeliest, steered_likeliest: over the LIKELIEST that may follow.
    why: of a refusal, how to install what is missing, or what explains a difference.
    """

    target: str
    verdict: Verdict
    unsteered: float | None = None
    steered: float | None = None
    unsteered_likeliest: float | None = None
    steered_likeliest: float | None = None
    equal: int = 0
    texts: int = 0
    why: str = ""


@dataclass(frozen=True)
class Conformance:
    """The outcomes, and the largest change of a log-probability by the vector itself."""

    effect: float
    outcomes: tuple[Outcome, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; a difference that is no number is null."""
        outcomes = [
            {k: None if v == float("inf") else v for k, v in asdict(outcome).items()}
            for outcome in self.outcomes
        ]
        return {"effect": self.effect, "tolerance": TOLERANCE, "outcomes": outcomes}

    @property
    def agrees(self) -> bool:
        """Whether something was compared, and nothing differs."""
        verdicts = {outcome.verdict for outcome in self.outcomes}
        return "agrees" in verdicts and not verdicts & {"differs", "failed"}


def conform(
    lm: LanguageModel,
    vector: SteeringVector,
    coefficient: float,
    targets: Sequence[str],
    *,
    prompts: Sequence[str] = PROMPTS,
    new_tokens: int = 16,
    progress: Progress | None = None,
) -> Conformance:
    """Run prompts through steerlab and through other programs, steered and not.

    lm: in float32; its files are what the others load.
    progress: called with (targets done, targets).
    Raises BadOption for a vector that changes too little to tell, or that other programs lack.
    """
    steered = coefficient * vector
    if steered.scope != "broadcast":
        raise Incompatible(f"{vector} is added to the first tokens alone, as no other program does")
    if lm.model.dtype != torch.float32:
        raise BadOption(f"{lm.source} is in {lm.model.dtype}: compare it with --dtype float32")
    if "/" not in (location := location_of(lm.source)) and not Path(location).is_dir():
        raise ModelError(f"{lm.source} is in memory alone: save it to a directory first")
    ids = [lm.tokens(prompt) for prompt in prompts]
    lm.check_length(ids, new_tokens)
    ours = [_ours(lm, prompts, ids, of, new_tokens) for of in (None, steered)]
    effect = max(_effect(lm, ids, ours[1]), default=0.0)
    if effect < 100 * TOLERANCE:
        raise BadOption(
            f"{vector} at coefficient {coefficient:g} changes log-probabilities by at most "
            f"{effect:.1g}, too little to compare: choose a larger --dose"
        )
    outcomes = []
    for done, name in enumerate(targets):
        if progress is not None:
            progress(done, len(targets))
        outcomes.append(_outcome(name, lm, steered, ids, ours, new_tokens))
    return Conformance(effect, tuple(outcomes))


def _ours(
    lm: LanguageModel,
    prompts: Sequence[str],
    ids: Sequence[list[int]],
    vector: SteeringVector | None,
    new_tokens: int,
) -> list[Answer]:
    with steering(lm, [] if vector is None else [vector]):
        texts = [list(t.token_ids) for t in lm.generate(prompts, max_new_tokens=new_tokens)]
        return [
            Answer(text, log_probs(lm, [*prompt, *text]))
            for prompt, text in zip(ids, texts, strict=True)
        ]


def _effect(
    lm: LanguageModel, ids: Sequence[list[int]], steered: Sequence[Answer]
) -> Iterator[float]:
    """Largest change of a log-probability by the steering, prompt by prompt."""
    for prompt, ours in zip(ids, steered, strict=True):
        yield difference(log_probs(lm, [*prompt, *ours.text]), ours.log_probs).whole


def difference(theirs: Tensor, ours: Tensor) -> Difference:
    """The largest differences of log-probabilities (tokens, vocab).

    theirs: may have columns beyond ours, of tokens that only fill up its table.
    """
    if len(theirs) != len(ours) or theirs.shape[-1] < ours.shape[-1]:
        return Difference(float("inf"), float("inf"))
    apart = (theirs[:, : ours.shape[-1]] - ours).abs().nan_to_num(nan=float("inf"))
    likely = ours.topk(min(LIKELIEST, ours.shape[-1])).indices
    return Difference(float(apart.max()), float(apart.gather(-1, likely).max()))


def _outcome(
    name: str,
    lm: LanguageModel,
    vector: SteeringVector,
    ids: Sequence[list[int]],
    ours: Sequence[Sequence[Answer]],
    new_tokens: int,
) -> Outcome:
    if why := missing(name):
        return Outcome(name, "missing", why=why)
    answers: Callable[[Case], list[Answer]]
    answers = resolve_name(f"steerlab.conformance.{TARGETS[name].answers}")
    source, revision = location_of(lm.source), lm.identity.revision or None
    found, equal = [], 0
    try:
        for own, steered in zip(ours, (False, True), strict=True):
            asked = [(prompt, answer.text) for prompt, answer in zip(ids, own, strict=True)]
            rest = revision, end_ids(lm.model), asked, new_tokens
            with tempfile.TemporaryDirectory(prefix="steerlab-conform-") as directory:
                theirs = answers(Case(vector, steered, Path(directory), source, *rest))
            found.append(_largest(theirs, own))
            equal += sum(a.text == b.text for a, b in zip(theirs, own, strict=True))
    except Incompatible as error:
        return Outcome(name, "refused", why=str(error))
    except Exception as error:  # of another program, which may raise anything
        return Outcome(name, "failed", why=f"{type(error).__name__}: {shortened(error)}")
    plain, changed = found
    texts = 2 * len(ids)
    within = max(plain.whole, changed.whole) <= TOLERANCE
    verdict: Verdict = "agrees" if within and equal == texts else "differs"
    return Outcome(
        name,
        verdict,
        plain.whole,
        changed.whole,
        plain.likeliest,
        changed.likeliest,
        equal,
        texts,
        _explained(plain, changed),
    )


def _explained(unsteered: Difference, steered: Difference) -> str:
    """What explains a difference above the tolerance; empty if nothing here does."""
    if unsteered.whole > TOLERANCE:
        return "it differs without steering too: other weights or arithmetic"
    if steered.whole > TOLERANCE >= steered.likeliest:
        return (
            f"it agrees over the {LIKELIEST} likeliest tokens: float32 itself may be as far off "
            "float64 at unlikely ones (1.1e-4 for SmolLM2)"
        )
    return ""


def _largest(theirs: Sequence[Answer], ours: Sequence[Answer]) -> Difference:
    """The largest differences over all prompts with our texts."""
    found = [difference(a.log_probs, b.log_probs) for a, b in zip(theirs, ours, strict=True)]
    return Difference(*map(max, zip(*found, strict=True)))
