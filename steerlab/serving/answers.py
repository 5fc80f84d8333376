"""Answers in OpenAI's shapes, whole or in chunks."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from steerlab.serving.job import TokenLog, Written
from steerlab.serving.openai import Request
from steerlab.serving.resolving import Resolved


@dataclass
class Text:
    """One text as far as it is known. prompt: what echo puts in front."""

    prompt: str = ""
    text: str = ""
    tokens: int = 0
    logs: list[TokenLog] = field(default_factory=list)
    scores: list[Mapping[str, float]] = field(default_factory=list)
    finish: str | None = None
    begun: bool = False

    def add(self, news: Written) -> None:
        """Add what a pass wrote."""
        self.begun = True
        self.text += news.text
        self.tokens = news.tokens
        self.logs += news.logs
        self.scores += [] if news.scores is None else [news.scores]
        self.finish = news.finish


class Answer:
    """One answer: its texts as far as they are written, and the bodies that tell of them.

    prompt_tokens: of all prompts.
    """

    def __init__(
        self,
        request: Request,
        resolved: Resolved,
        tokenizer: Any,
        texts: list[Text],
        prompt_tokens: int,
    ) -> None:
        self.request, self.tokenizer = request, tokenizer
        self.texts, self.prompt_tokens = texts, prompt_tokens
        self._kind = "chat.completion" if request.chat else "text_completion"
        self._id = f"{'chatcmpl' if request.chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._created = int(time.time())
        self._steering: dict[str, Any] = {}
        if resolved.told:
            self._steering["steering"] = list(resolved.told)
        if resolved.warnings:
            self._steering["steering_warnings"] = list(resolved.warnings)

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(text.tokens for text in self.texts)

    def whole(self) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        choices = [self._choice(index, text) for index, text in enumerate(self.texts)]
        return self._body(self._kind, choices) | self._usage() | self._steering

    def chunk(self, index: int, news: Written) -> dict[str, Any]:
        """One chunk of a stream, of news that its text does not have yet."""
        so_far = self.texts[index]
        choice: dict[str, Any] = {"index": index, "finish_reason": news.finish}
        first = not so_far.begun
        text = so_far.prompt + news.text if first else news.text
        offset = 0 if first else len(so_far.prompt) + len(so_far.text)
        if self.request.chat:
            role = {"role": "assistant"} if first else {}
            choice["delta"] = {**role, "content": text} if text or first else {}
        else:
            choice["text"] = text
        choice["logprobs"] = self._logprobs(news.logs, offset)
        if news.scores is not None:
            choice["steering_scores"] = [dict(news.scores)]
        return self._body(self._chunks, [choice]) | (self._steering if first else {})

    def last(self) -> dict[str, Any]:
        """The chunk that tells usage, with no choices."""
        return self._body(self._chunks, []) | self._usage()

    @property
    def _chunks(self) -> str:
        return f"{self._kind}.chunk" if self.request.chat else self._kind

    def _usage(self) -> dict[str, Any]:
        counts = {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        }
        return {"usage": counts}

    def _body(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": kind,
            "created": self._created,
            "model": self.request.model,
            "choices": choices,
        }

    def _choice(self, index: int, text: Text) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": index, "finish_reason": text.finish}
        if self.request.chat:
            choice["message"] = {"role": "assistant", "content": text.text}
        else:
            choice["text"] = text.prompt + text.text
        choice["logprobs"] = self._logprobs(text.logs)
        if self.request.monitor:
            choice["steering_scores"] = [dict(scores) for scores in text.scores]
        return choice

    def _logprobs(self, logs: Sequence[TokenLog], offset: int = 0) -> dict[str, Any] | None:
        """offset: characters of the text before these tokens."""
        if self.request.logprobs is None or not logs:
            return None
        if self.request.chat:
            return {"content": [self._entry(log.token, log) for log in logs]}
        tokens = [self._spelled(log.token) for log in logs]
        ends = [offset]
        for token in tokens:
            ends.append(ends[-1] + len(token))
        return {
            "tokens": tokens,
            "token_logprobs": [log.logprob for log in logs],
            "top_logprobs": [self._top(log) for log in logs],
            "text_offset": ends[:-1],
        }

    def _top(self, log: TokenLog) -> dict[str, float] | None:
        if log.logprob is None:
            return None
        found: dict[str, float] = {}
        for token, value in log.top.items():
            found.setdefault(self._spelled(token), value)  # the likeliest of those spelled alike
        return found

    def _entry(self, token: int, log: TokenLog) -> dict[str, Any]:
        top = [self._one(one, value) for one, value in log.top.items()]
        return {**self._one(token, log.logprob), "top_logprobs": top}

    def _one(self, token: int, value: float | None) -> dict[str, Any]:
        spelled = self._spelled(token)
        part = "\ufffd" in spelled  # of a character: its bytes are not known here
        return {
            "token": spelled,
            "logprob": value,
            "bytes": None if part else list(spelled.encode()),
        }

    def _spelled(self, token: int) -> str:
        return str(self.tokenizer.decode([token]))
