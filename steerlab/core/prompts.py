"""Prompts: plain texts or turns of a chat, and which of their tokens are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from steerlab.errors import BadPrompts

Read = str | int
"""What is read of a prompt: "last", "mean" (all but position 0), an index, or one of TURN_READS."""

TURN_READS = {
    "user_last": "last token of the user's turn",
    "assistant_mean": "mean of the assistant's tokens",
    "answer_letter": "answer letter",
}
"""Reads whose place depends on a prompt's turns, in words."""

Span = tuple[int, int]
"""The tokens that are read of a prompt: from the first to before the second."""


@dataclass(frozen=True, slots=True)
class Turns:
    """A prompt in turns: the user's, a system prompt before it, and the answer's beginning."""

    user: str
    system: str = ""
    answer: str = ""

    def __str__(self) -> str:
        parts = {"system": self.system, "user": self.user, "assistant": self.answer}
        return "\n".join(f"{who}: {text}" for who, text in parts.items() if text)


Prompt = str | Turns
"""A plain text, which is the user's turn in a chat, or several turns."""

ROLES = ("system", "user", "assistant")
"""Who speaks in a conversation."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """All that was said in a chat, as (role, words); what is written next is the answer.

    A last message of the assistant is the answer's beginning and is continued.
    Raises BadPrompts for an unknown role, words that are not text, or no message of the user.
    """

    messages: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        for number, (role, words) in enumerate(self.messages, 1):
            if role not in ROLES:
                raise BadPrompts(f"message {number} is of {role!r}: a role is {', '.join(ROLES)}")
            check_text(words, f"message {number}")
        if not any(role == "user" for role, _ in self.messages):
            raise BadPrompts("a conversation needs a message of the user")

    def __str__(self) -> str:
        return "\n".join(f"{role}: {words}" for role, words in self.messages)

    @classmethod
    def of(cls, prompt: Prompt) -> Conversation:
        """A text or turns as messages."""
        turns = turns_of(prompt)
        said = zip(ROLES, (turns.system, turns.user, turns.answer), strict=True)
        return cls(tuple((role, words) for role, words in said if words or role == "user"))

    @property
    def answer(self) -> str:
        """The answer's beginning, which is continued; mostly empty."""
        role, words = self.messages[-1]
        return words if role == "assistant" else ""

    @property
    def asked(self) -> tuple[tuple[str, str], ...]:
        """The messages before the answer."""
        return self.messages[:-1] if self.messages[-1][0] == "assistant" else self.messages


Continued = Prompt | Conversation
"""What a model can be asked to continue."""


def turns_of(prompt: Prompt) -> Turns:
    """A prompt as turns."""
    return prompt if isinstance(prompt, Turns) else Turns(prompt)


@dataclass(frozen=True)
class PromptSet:
    """Prompts that a recipe names instead of holding them.

    path: the file, or a data set's id. how: options of reading it, as "key=value". digest:
    sha256 of the prompts; ids_digest: of their token ids, empty before extraction.
    positive, negative: how many there are.
    """

    path: str
    digest: str
    positive: int
    negative: int
    how: tuple[str, ...] = ()
    ids_digest: str = ""


def describe_read(read: Read) -> str:
    """`read` in words: "last token", "mean of tokens", "token 3"."""
    known = {"last": "last token", "mean": "mean of tokens", **TURN_READS}
    return known.get(str(read), f"token {read}")


def read_of(text: str) -> Read:
    """`read` as it is typed: a token index where the text is a whole number."""
    try:
        return int(text)
    except ValueError:
        return text.strip()


def check_prompts(positive: Sequence[Prompt], negative: Sequence[Prompt] | None = None) -> None:
    """Raise BadPrompts for an empty list, an empty prompt or lists of unequal length."""
    for side in (positive, negative):
        if isinstance(side, str):
            raise BadPrompts("prompts are given as a list of texts, not as one text")
    if positive and negative is not None and len(positive) != len(negative):
        raise BadPrompts(
            f"{len(positive)} positive but {len(negative)} negative prompts: they are read as "
            "pairs, so give as many of one as of the other (or use difference_of_means)"
        )
    check_texts(positive, "positive")
    check_texts(negative or (), "negative", least=0)


def check_texts(prompts: Sequence[Prompt], sign: str, least: int = 1) -> None:
    """Raise BadPrompts for fewer prompts than `least`, and for one that is empty or not text."""
    if len(prompts) < least:
        raise BadPrompts(f"no {sign} prompts: give at least one")
    for number, prompt in enumerate(prompts, 1):
        turns = turns_of(prompt)
        for text in (turns.user, turns.system, turns.answer):
            check_text(text, f"{sign} prompt {number}")
        if not turns.user.strip():
            raise BadPrompts(f"{sign} prompt {number} is empty")


def check_text(prompt: object, what: str) -> None:
    """Raise BadPrompts for anything but Unicode text."""
    if not isinstance(prompt, str):
        raise BadPrompts(f"{what} is not text but {prompt!r:.60}")
    if not prompt.isprintable() and any("\ud800" <= c <= "\udfff" for c in prompt):
        raise BadPrompts(f"{what} holds bytes that are not Unicode text")
