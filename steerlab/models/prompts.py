"""From prompts to token ids: chat templates, BOS, what a tokenizer adds; and tokens as text."""

from __future__ import annotations

from typing import Any

from steerlab.core.display import printable
from steerlab.core.recipe import check_text
from steerlab.errors import BadPrompts, ModelError

_PROBE = "steerlab7f3a"  # words that no template holds


def token_ids(
    tokenizer: Any, prompt: str, *, source: str, chat: bool = False, bos: bool = False
) -> list[int]:
    """Token ids of one prompt, without tokens (as EOS) that the tokenizer adds at the end.

    chat: as a user's message in the chat template, up to where the answer starts. bos: begin
    with exactly one BOS (the end-of-text token, if there is no BOS). source: of the model, for
    messages. Raises BadPrompts for an empty prompt, ModelError for a template that fails or
    leaves the prompt out.
    """
    check_text(prompt, "the prompt")
    ids = _in_chat(tokenizer, prompt, source) if chat else _plain(tokenizer, prompt)
    start = _start_id(tokenizer, source) if bos else None
    if start is not None and ids[:1] != [start]:
        ids = [start, *ids]
    if not ids:
        raise BadPrompts("the prompt is empty: the model needs at least one token")
    return ids


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


def _in_chat(tokenizer: Any, prompt: str, source: str) -> list[int]:
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(f"{source} has no chat template: leave out chat")
    problems = []
    for shape in (str, _parts):  # templates of multimodal models want parts
        try:
            probe = _rendered(tokenizer, shape(_PROBE), source)
        except ModelError as error:
            problems.append(error)
            continue
        if _PROBE in probe and str(_parts(_PROBE)[0]) not in probe:
            text = _rendered(tokenizer, shape(prompt), source)
            if _without_spaces(prompt) in _without_spaces(text):
                return [int(i) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]
            break
    if len(problems) == 2:
        raise problems[0]
    raise ModelError(
        f"the chat template of {source} leaves out or changes the user's words: leave out chat, "
        "or give the tokenizer another template"
    )


def _without_spaces(text: str) -> str:
    return "".join(text.split())  # templates strip prompts


def _parts(prompt: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": prompt}]


def _rendered(tokenizer: Any, content: str | list[dict[str, str]], source: str) -> str:
    messages = [{"role": "user", "content": content}]
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
