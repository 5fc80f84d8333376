"""OpenAI's bodies: what a request asks for, and the shape of answers; needs no torch."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerlab.core.sampling import Sampling
from steerlab.errors import BadOption
from steerlab.serving.request import MOST, Steer, parse_steering

CHAT_TOKENS = 512
"""New tokens of an answer where a request names no limit."""

_LIMITS = ("max_tokens", "max_completion_tokens")
_TOKENS = 16  # of a completion, as OpenAI's
_MOST_TEXTS = 128
_LIKELIEST = 20
_STOPS = 16
_NEUTRAL: dict[str, tuple[Any, ...]] = {  # taken at these values alone
    "frequency_penalty": (0, None),
    "presence_penalty": (0, None),
    "logit_bias": ({}, None),
    "best_of": (1, None),
    "suffix": ("", None),
    "response_format": ({"type": "text"}, None),
    "tools": ([], None),
    "tool_choice": ("none", "auto", None),
    "modalities": (["text"], None),
}
_IGNORED = {"user", "store", "metadata", "service_tier", "safety_identifier", "prompt_cache_key"}


class BadRequest(BadOption):
    """A request that is refused. field: the one at fault."""

    def __init__(self, message: str, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UnknownModel(BadRequest):
    """A request for a model that is not served here."""


@dataclass(frozen=True)
class Request:
    """What one request asks for.

    prompts: texts, token ids, or the messages of one chat. n: texts for each. seed: of the
    first; text i of a prompt draws from seed + i. is_limited: whether the request says how many
    tokens to write; if not, fewer are written where the model has no room for the usual number.
    logprobs: likeliest tokens to tell of each; None tells nothing.
    """

    model: str
    chat: bool
    prompts: tuple[Any, ...]
    sampling: Sampling
    is_limited: bool = True
    n: int = 1
    seed: int = 0
    stop: tuple[str, ...] = ()
    stream: bool = False
    with_usage: bool = False
    logprobs: int | None = None
    echo: bool = False
    steers: tuple[Steer, ...] = ()
    monitor: tuple[str, ...] = ()


def loads(body: bytes) -> Mapping[str, Any]:
    """The object of a JSON body; BadRequest for anything else."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise BadRequest(f"the body is a JSON object, not {type(found).__name__}")
    return found


def parse(body: Mapping[str, Any], served: str, *, chat: bool) -> Request:
    """Read the body of a completion or a chat completion; BadRequest names what is wrong.

    served: the model's name; `served:love` adds the vector love at its operating point.
    """
    fields = _Fields(body)
    model = fields.text("model")
    if model != served and not model.startswith(f"{served}:"):
        raise UnknownModel(f"there is no model {model[:80]!r} here: this is {served}", "model")
    monitored = fields.texts("steering_monitor", MOST, f"names up to {MOST} vectors")
    steers = _steers(model[len(served) + 1 :], fields.take("steering"))
    prompts = _messages(fields.take("messages")) if chat else _prompts(fields.take("prompt"))
    n = fields.whole("n", 1, least=1, most=_MOST_TEXTS)
    if n * len(prompts) > _MOST_TEXTS:
        raise BadRequest(
            f"one request can ask for at most {_MOST_TEXTS} texts, not {n * len(prompts)}", "n"
        )
    stream = fields.flag("stream")
    request = Request(
        model=model,
        chat=chat,
        prompts=prompts,
        sampling=_sampling(fields, chat),
        is_limited=any(body.get(name) is not None for name in _LIMITS),
        n=n,
        seed=fields.whole("seed", secrets.randbelow(2**31), least=-(2**63), most=2**64),
        stop=fields.texts("stop", _STOPS, f"is a text or up to {_STOPS}, none empty"),
        stream=stream,
        with_usage=_with_usage(fields.take("stream_options"), stream),
        logprobs=_logprobs(fields, chat),
        echo=False if chat else fields.flag("echo"),
        steers=steers,
        monitor=tuple(dict.fromkeys(monitored)),
    )
    fields.check_rest()
    return request


def _steers(named: str, field: Any) -> tuple[Steer, ...]:
    """The vectors in the model's name and in the field, together."""
    steers = (*parse_steering(named or None), *parse_steering(field))
    if len(steers) > MOST:
        raise BadRequest(f"a request can add at most {MOST} vectors", "steering")
    return steers


class _Fields:
    """The fields of a body, taken one by one; what is left is refused."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._left = dict(body)

    def take(self, name: str) -> Any:
        return self._left.pop(name, None)

    def text(self, name: str) -> str:
        value = self.take(name)
        if not isinstance(value, str) or not value:
            raise BadRequest(f"{name} is a text", name)
        return value

    def texts(self, name: str, most: int, what: str) -> tuple[str, ...]:
        """A text or a list of them. what: that is told of anything else."""
        value = self.take(name)
        several = [] if value is None else value if isinstance(value, list) else [value]
        if len(several) > most or not all(isinstance(one, str) and one for one in several):
            raise BadRequest(f"{name} {what}", name)
        return tuple(several)

    def flag(self, name: str) -> bool:
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            raise BadRequest(f"{name} is true or false", name)
        return bool(value)

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        value = self.take(name)
        if value is None:
            return default
        if type(value) is not int or not least <= value <= most:
            raise BadRequest(f"{name} is a whole number from {least} to {most}", name)
        return value

    def number(self, name: str, default: float) -> float:
        value = self.take(name)
        if value is None:
            return default
        if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
            raise BadRequest(f"{name} is a number", name)
        return float(value)

    def check_rest(self) -> None:
        for name, value in self._left.items():
            if name in _IGNORED or (name in _NEUTRAL and value in _NEUTRAL[name]):
                continue
            known = "has no effect here, so it is refused" if name in _NEUTRAL else "is not known"
            raise BadRequest(f"{name[:80]} {known}", name[:80])


def _sampling(fields: _Fields, chat: bool) -> Sampling:
    default = CHAT_TOKENS if chat else _TOKENS
    wanted = default
    for name in _LIMITS:
        wanted = fields.whole(name, wanted, least=1, most=2**31)
    try:
        return Sampling(
            wanted,
            temperature=fields.number("temperature", 1.0),
            top_p=fields.number("top_p", 1.0),
            top_k=max(fields.whole("top_k", 0, least=-1, most=2**31), 0),
            repetition_penalty=fields.number("repetition_penalty", 1.0),
            chat=chat,
        )
    except BadRequest:
        raise
    except BadOption as error:
        raise BadRequest(str(error)) from None


def _logprobs(fields: _Fields, chat: bool) -> int | None:
    if not chat:
        found = fields.whole("logprobs", -1, least=-1, most=_LIKELIEST)
        return None if found < 0 else found
    wanted = fields.flag("logprobs")
    top = fields.whole("top_logprobs", 0, least=0, most=_LIKELIEST)
    return top if wanted else None


def _prompts(value: Any) -> tuple[Any, ...]:
    several = value if isinstance(value, list) else [value]
    if several and all(map(_is_id, several)):
        several = [several]
    for one in several:
        ids = isinstance(one, list) and one and all(map(_is_id, one))
        if not ids and not (isinstance(one, str) and one):
            raise BadRequest(
                "prompt is a text, token ids, or a list of these, none empty", "prompt"
            )
    if not several:
        raise BadRequest("prompt is empty", "prompt")
    return tuple(several)


def _is_id(value: Any) -> bool:
    return type(value) is int


def _messages(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list) or not value:
        raise BadRequest('messages are such as [{"role": "user", "content": "hi"}]', "messages")
    return (tuple(map(_message, value)),)


def _message(value: Any) -> tuple[str, str]:
    role, content = (
        (value.get("role"), value.get("content")) if isinstance(value, dict) else ("", "")
    )
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        texts = [part for part in parts if isinstance(part, str)]
        content = "".join(texts) if len(texts) == len(content) else None
    if role not in ("system", "developer", "user", "assistant") or not isinstance(content, str):
        raise BadRequest(
            "a message has a role (system, user or assistant) and a text as content", "messages"
        )
    return ("system" if role == "developer" else role), content


def _with_usage(value: Any, stream: bool) -> bool:
    if value is None:
        return False
    if not stream or not isinstance(value, dict):
        raise BadRequest("stream_options is an object, and goes with stream", "stream_options")
    return bool(value.get("include_usage"))


def error_body(message: str, kind: str, code: str, field: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": field, "code": code}}
