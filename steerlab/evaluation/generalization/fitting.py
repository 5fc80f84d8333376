"""Fitting a suite to a model and a vector, before any text is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from steerlab.core.vector import SteeringVector
from steerlab.evaluation.generalization.suite import Style, Suite

if TYPE_CHECKING:
    from steerlab.evaluation.metrics.items import ContrastItem
    from steerlab.models.language_model import LanguageModel

T = TypeVar("T")


def fitted(
    lm: LanguageModel, suite: Suite, vector: SteeringVector, new_tokens: int
) -> tuple[Suite, list[str]]:
    """The suite without what does not fit, and a note on everything that was left out.

    Left out are chat messages for a model without a chat template, facts whose answer is not
    one token, and prompts shorter than a front vector.
    Raises BadPrompts for a prompt that is too long for the model.
    """
    from steerlab.evaluation.metrics.predictions import single_token

    notes: list[str] = []
    styles = [_style(lm, style, vector, new_tokens, notes) for style in suite.styles]
    facts = single_token(lm, suite.facts)
    if len(facts) < len(suite.facts):
        left = len(suite.facts) - len(facts)
        notes.append(
            f"{left} of {len(suite.facts)} facts were left out: their answer is not a single token"
        )
    facts = longer(lm, facts, vector, "facts", notes, lambda fact: fact.prompt)
    neutral = longer(lm, suite.neutral, vector, "neutral prompts", notes, str)
    kept = tuple(style for style in styles if style.prompts or style.items)
    return replace(suite, styles=kept, facts=tuple(facts), neutral=tuple(neutral)), notes


def _style(
    lm: LanguageModel, style: Style, vector: SteeringVector, new_tokens: int, notes: list[str]
) -> Style:
    if style.chat and not getattr(lm.tokenizer, "chat_template", None):
        notes.append(f"{style.name} was left out: the model has no chat template")
        return replace(style, prompts=(), items=())
    prompts = longer(lm, style.prompts, vector, style.name, notes, str, chat=style.chat)
    if prompts:
        lm.check_length([lm.tokens(prompt, chat=style.chat) for prompt in prompts], new_tokens)
    items = longer(lm, style.items, vector, style.name, notes, beginning, chat=style.chat)
    return replace(style, prompts=tuple(prompts), items=tuple(items))


def beginning(item: ContrastItem) -> str:
    """The prompt of an item; empty for token ids."""
    return item.prompt if isinstance(item.prompt, str) else ""


def longer(
    lm: LanguageModel,
    found: Sequence[T],
    vector: SteeringVector,
    what: str,
    notes: list[str],
    prompt: Callable[[T], str],
    *,
    chat: bool = False,
) -> list[T]:
    """Those whose prompt is at least as long as a front vector; all for other vectors."""
    if vector.scope != "front":
        return list(found)
    span = max(len(rows) for rows in vector.directions.values())
    kept = [x for x in found if len(lm.tokens(prompt(x), chat=chat, bos=True)) >= span]
    if len(kept) < len(found):
        left = len(found) - len(kept)
        notes.append(f"{left} of {len(found)} {what} were left out: shorter than the front vector")
    return kept
