"""Items of likelihood metrics: token ids, split into context and the tokens to score."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from steerlab.core.display import printable
from steerlab.errors import BadPrompts
from steerlab.models.prefix_groups import in_common

if TYPE_CHECKING:
    from steerlab.core.prompts import Prompt
    from steerlab.models.language_model import LanguageModel

Tokens = tuple[int, ...]
Text = str | Tokens
"""A text, or its token ids."""


@dataclass(frozen=True)
class Continuation:
    """Token ids: the first `start` (at least one) are context, the rest are scored."""

    ids: Tokens
    start: int

    def __post_init__(self) -> None:
        if not 0 < self.start < len(self.ids):
            raise BadPrompts(
                f"{self.start} of {len(self.ids)} tokens are context: at least one must be, and "
                "at least one must be left to score"
            )

    @property
    def count(self) -> int:
        """Number of tokens scored."""
        return len(self.ids) - self.start


@dataclass(frozen=True)
class ContrastItem:
    """A prompt with a positive and a negative continuation.

    All three are texts, or all three token ids. An empty prompt stands for BOS; without a BOS
    token, the first token of each continuation is context and is not scored.
    """

    prompt: Text
    positive: Text
    negative: Text


@dataclass(frozen=True)
class Fact:
    """A prompt with one right next token; `answer` includes the blank before it."""

    prompt: str
    answer: str


def continuation(
    lm: LanguageModel, prompt: Text, text: Text, *, chat: bool = False, bos: bool = False
) -> Continuation:
    """Tokenize prompt + text as a whole, and split the tokens between the two.

    The split is at the first token that differs from those of the prompt alone, so a token that
    straddles the boundary is scored. In a chat the prompt ends with the template's opening of
    the answer, and the text is tokenized as what follows it. Token ids are concatenated.
    chat, bos: as for `LanguageModel.tokens`. Raises BadPrompts if no token is left to score.
    """
    whole, start = _joined(lm, prompt, text, chat, bos)
    if not start:  # no context: use BOS, or else the first token
        begin = getattr(lm.tokenizer, "bos_token_id", None)
        whole = whole if begin is None or whole[:1] == [begin] else [int(begin), *whole]
        start = 1
    if start >= len(whole):
        raise BadPrompts(f"{_shown(text)} adds no token to score to {_shown(prompt)}")
    return Continuation(tuple(whole), start)


def contrast(
    lm: LanguageModel, item: ContrastItem, *, chat: bool = False, bos: bool = False
) -> tuple[Continuation, Continuation]:
    """The item's two continuations, scored after the same context."""
    sides = [
        continuation(lm, item.prompt, text, chat=chat, bos=bos)
        for text in (item.positive, item.negative)
    ]
    start = min(side.start for side in sides)
    positive, negative = (Continuation(side.ids, start) for side in sides)
    return positive, negative


def items_of_pairs(
    lm: LanguageModel, pairs: Iterable[tuple[Prompt, Prompt]], *, chat: bool = False
) -> list[ContrastItem]:
    """Contrast items of contrast pairs: the tokens that both begin with are the prompt.

    At least one token of each is scored. chat: each is a user's message.
    Raises BadPrompts for a pair of equal prompts.
    """
    return [_item_of(lm, *pair, chat, number) for number, pair in enumerate(pairs, 1)]


def _item_of(
    lm: LanguageModel, positive: Prompt, negative: Prompt, chat: bool, number: int
) -> ContrastItem:
    one, two = (tuple(lm.tokens(text, chat=chat)) for text in (positive, negative))
    if one == two:
        raise BadPrompts(f"the prompts of pair {number} are the same: {_shown(str(positive))}")
    start = min(in_common(one, two), len(one) - 1, len(two) - 1)
    return ContrastItem(one[:start], one[start:], two[start:])


def _joined(
    lm: LanguageModel, prompt: Text, text: Text, chat: bool, bos: bool
) -> tuple[list[int], int]:
    """Token ids of prompt + text, and the number of them that are context."""
    if not isinstance(prompt, str) or not isinstance(text, str):
        if isinstance(prompt, str) or isinstance(text, str):
            raise BadPrompts("prompt and continuation must be both texts, or both token ids")
        begin = lm.tokens("", bos=True) if bos else []
        prompt = prompt if list(prompt[:1]) == begin else (*begin, *prompt)
        return [*prompt, *text], len(prompt)
    if chat:
        before = lm.tokens(prompt, chat=True, bos=bos)
        after = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*before, *map(int, after)], len(before)
    whole = lm.tokens(prompt + text, bos=bos)
    before = lm.tokens(prompt, bos=bos) if prompt or bos else []
    return whole, in_common(before, whole)


def _shown(text: Text) -> str:
    """A text as quoted in errors."""
    return repr(printable(text)[:60]) if isinstance(text, str) else f"{len(text)} token ids"
