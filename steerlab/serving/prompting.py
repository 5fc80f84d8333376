"""From a prompt of a request to token ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steerlab.core.prompts import Conversation
from steerlab.errors import SteeringError

if TYPE_CHECKING:
    from steerlab.models.language_model import LanguageModel


def prompt_ids(lm: LanguageModel, prompt: Any, *, chat: bool, bos: bool) -> list[int]:
    """Token ids of a text, of token ids (as they are), or of the messages of a chat.

    bos: the prompt has to begin with BOS. Raises SteeringError for token ids that do not.
    """
    if not isinstance(prompt, list):
        return lm.tokens(Conversation(prompt) if chat else prompt, chat=chat, bos=bos)
    if bos and prompt[:1] != lm.tokens("a", bos=True)[:1]:
        raise SteeringError(
            "a front vector starts at the BOS token, but the token ids do not begin with it"
        )
    return list(prompt)
