"""From prompts to token ids: chat templates, BOS, what a tokenizer adds; and tokens as text."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from steerlab.core.display import printable
from steerlab.core.prompts import (
    Continued,
    Conversation,
    Prompt,
    Read,
    Span,
    Turns,
    check_text,
    turns_of,
)
from steerlab.errors import BadPrompts, ModelError
from steerlab.models.prefix_groups import in_common

_PROBE = "steerlab7f3a"  # words that no template holds
_LETTERS = (re.compile(r"\(([A-Za-z])\)"), re.compile(r"^\W*([A-Za-z])(?=\s*$|\n|[).:,*\]])"))


def token_ids(
    tokenizer: Any,
    prompt: Continued,
    *,
    source: str,
    chat: bool = False,
    bos: bool = False,
) -> list[int]:
    """Token ids of one prompt, without tokens (as EOS) that the tokenizer adds at the end.

    chat: in the chat template, up to where the answer starts or, of turns with one, goes on;
    otherwise turns are paragraphs of a plain text. bos: begin
    with exactly one BOS (the end-of-text token, if there is no BOS). source: of the model, for
    messages. Raises BadPrompts for an empty prompt and for a conversation outside a chat,
    ModelError for a template that fails or leaves the prompt out.
    """
    if isinstance(prompt, Conversation):
        if not chat:
            raise BadPrompts("a conversation needs the chat template: give chat=True")
        text = _in_chat(tokenizer, prompt, source) + prompt.answer
    else:
        turns = turns_of(prompt)
        check_text(turns.user, "the prompt")
        text = _text(tokenizer, turns, source, chat) + turns.answer
    ids = _encoded(tokenizer, text, chat)
    start = _start_id(tokenizer, source) if bos else None
    if start is not None and ids[:1] != [start]:
        ids = [start, *ids]
    if not ids:
        raise BadPrompts("the prompt is empty: the model needs at least one token")
    return ids


def token_span(
    tokenizer: Any, prompt: Prompt, read: Read, *, source: str, chat: bool = False
) -> Span:
    """The tokens of a prompt that one of TURN_READS means, in the ids of `token_ids`.

    A token that holds the end of one turn and the beginning of the next is read as of both.
    Raises BadPrompts for a prompt without them.
    """
    turns = turns_of(prompt)
    before = _text(tokenizer, turns, source, chat)
    whole = before + turns.answer
    ids = _encoded(tokenizer, whole, chat)

    def shared(end: int) -> tuple[int, int]:
        head = _encoded(tokenizer, whole[:end], chat)
        return in_common(head, ids), len(head)

    def token_before(end: int) -> Span:
        same, length = shared(end)
        at = same - (same == length)
        return at, at + 1

    if read == "user_last":
        marked = _text(tokenizer, replace(turns, user=_PROBE), source, chat)
        after = marked.rpartition(_PROBE)[2].strip()  # which may hold the user's words too
        told = before.rstrip().removesuffix(after).rstrip()
        if not told.endswith(turns.user.strip()):
            raise ModelError(f"the chat template of {source} changes the blanks of a user's turn")
        return token_before(len(told))
    if read == "answer_letter":
        found = next(filter(None, (letter.search(turns.answer) for letter in _LETTERS)), None)
        if found is None:
            raise BadPrompts(f"there is no answer letter, such as (A), in {turns.answer[:60]!r}")
        return token_before(len(before) + found.end(1))
    start = shared(len(before))[0]
    if not turns.answer.strip() or start == len(ids):
        raise BadPrompts(f"{turns.user[:60]!r} has no answer whose tokens could be read")
    return start, len(ids)


def _encoded(tokenizer: Any, text: str, chat: bool) -> list[int]:
    if not chat:
        return _plain(tokenizer, text)
    return [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]


def _text(tokenizer: Any, turns: Turns, source: str, chat: bool) -> str:
    """All that stands before the answer."""
    if chat:
        return _in_chat(tokenizer, Conversation.of(turns), source)
    before = f"{turns.system}\n\n{turns.user}" if turns.system else turns.user
    apart = not turns.answer or before[-1:].isspace() or turns.answer[0].isspace()
    return before if apart else f"{before}\n"


def space_token(tokenizer: Any) -> int | None:
    """The token of a single space; None if the tokenizer has none."""
    ids = tokenizer(" ", add_special_tokens=False)["input_ids"]
    return int(ids[-1]) if ids else None


def token_text(tokenizer: Any, token: int) -> str:
    """A token as distinct, legible text: `␣love` is not `love`, a newline is `\\n`.

    Incomplete characters are shown as the tokenizer spells their bytes.
    """
    text = str(tokenizer.decode([token]))
    piece = str(tokenizer.convert_ids_to_tokens(token) or f"<{token}>")
    if "\ufffd" in text or not text:
        text = piece
    elif piece.startswith("▁") and not text.startswith(" "):  # SentencePiece drops it alone
        text = f" {text}"
    return printable(text.replace(" ", "␣"))


def _plain(tokenizer: Any, prompt: str) -> list[int]:
    ids = [int(i) for i in tokenizer(prompt)["input_ids"]]
    if not ids or ids[-1] not in tokenizer.all_special_ids:
        return ids
    own = [int(i) for i in tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    if not own:
        return ids[: ids[0] == tokenizer.bos_token_id]
    if ids[-len(own) :] == own:
        return ids
    ends = [end for end in range(len(own), len(ids) + 1) if ids[end - len(own) : end] == own]
    return ids[: ends[0]] if ends else ids


def _in_chat(tokenizer: Any, chat: Conversation, source: str) -> str:
    """All that stands before the answer."""
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(f"{source} has no chat template: leave out chat")
    problems = []
    for shape in (str, _parts):  # templates of multimodal models want parts
        try:
            probe = _rendered(tokenizer, [("user", shape(_PROBE))], source)
        except ModelError as error:
            problems.append(error)
            continue
        if _PROBE in probe and str(_parts(_PROBE)[0]) not in probe:
            said = [(role, shape(words)) for role, words in chat.asked]
            text = _rendered(tokenizer, said, source)
            missing = _left_out(text, chat)
            if "system" in missing:
                raise ModelError(f"the chat template of {source} leaves out the system prompt")
            if not missing:
                return text
            break
    if len(problems) == 2:
        raise problems[0]
    raise ModelError(
        f"the chat template of {source} leaves out or changes the user's words: leave out chat, "
        "or give the tokenizer another template"
    )


def _left_out(text: str, chat: Conversation) -> set[str]:
    """Whose words a template left out; it may leave out thoughts of earlier answers."""
    kept = _without_spaces(text)
    said = ((role, _without_spaces(words)) for role, words in chat.asked if role != "assistant")
    return {role for role, words in said if words not in kept}


def _without_spaces(text: str) -> str:
    return "".join(text.split())  # templates strip prompts


def _parts(prompt: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": prompt}]


def _rendered(tokenizer: Any, said: list[tuple[str, Any]], source: str) -> str:
    messages = [{"role": who, "content": content} for who, content in said]
    try:
        return str(
            tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        )
    except Exception as error:  # a template raises what it likes
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"the chat template of {source} fails: {why}") from None


def _start_id(tokenizer: Any, source: str) -> int:
    for name in ("bos_token_id", "eos_token_id"):
        if (value := getattr(tokenizer, name, None)) is not None:
            return int(value)
    raise ModelError(f"{source} has neither a BOS nor an end-of-text token: actadd needs one")
