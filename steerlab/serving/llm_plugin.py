"""A plugin for `llm`: `llm -m steerlab/smollm2 -o vector "love - anger" -o dose 0.2 "Hello"`.

Models are the embedded one and those that the store has vectors of, run in this process.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import llm
from pydantic import Field

from steerlab.errors import SteerlabError

if TYPE_CHECKING:
    from steerlab.serving.app import Server

_STEERING = ("vector", "dose", "coefficient", "layers", "positions")
_SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "seed", "stop")


@llm.hookimpl  # type: ignore[untyped-decorator, unused-ignore]
def register_models(register: Any) -> None:
    """Called by llm."""
    for source in _sources():
        register(Steered(source))


def _sources() -> list[str]:
    from steerlab.registry import Store

    stored: list[str] = []
    with suppress(SteerlabError):  # a damaged store keeps nobody from other models
        stored = [identity.source for _, identity, _ in Store().models()]
    return list(dict.fromkeys(["smollm2", *stored]))


class Steered(llm.Model):  # type: ignore[misc, unused-ignore]
    """A model whose answers are steered by stored vectors."""

    can_stream = True

    class Options(llm.Options):  # type: ignore[misc, unused-ignore]
        """What `-o` takes."""

        vector: str | None = Field(None, description="A stored vector or an expression.")
        dose: float | None = Field(None, description="Strength; without one, as calibrated.")
        coefficient: float | None = Field(None, description="Instead of a dose.")
        layers: str | None = Field(None, description="Such as 15, 10,15 or 10:20.")
        positions: str | None = Field(None, description="all, prompt, generated, continuation.")
        max_tokens: int | None = Field(None, description="New tokens at most.")
        temperature: float = Field(0.0, description="0 is greedy.")
        top_p: float | None = Field(None, description="1 is off.")
        top_k: int | None = Field(None, description="0 is off.")
        seed: int | None = Field(None, description="Of the sampling.")
        stop: str | None = Field(None, description="Ends the text.")
        chat: bool = Field(True, description="False continues the prompt, without a template.")

    def __init__(self, source: str) -> None:
        self.model_id, self.source = f"steerlab/{source}", source
        self._server: Server | None = None

    def execute(self, prompt: Any, stream: bool, response: Any, conversation: Any) -> Iterator[str]:
        """The pieces of an answer; raises ModelError with the reason for what is refused."""
        body = self._body(prompt)
        loop = asyncio.new_event_loop()
        with closing(loop):
            pieces = self._pieces(body, prompt.options.chat, response)
            try:
                while True:
                    yield loop.run_until_complete(anext(pieces))
            except StopAsyncIteration:
                return
            except SteerlabError as error:
                raise llm.ModelError(str(error)) from None
            finally:
                loop.run_until_complete(pieces.aclose())

    async def _pieces(self, body: dict[str, Any], chat: bool, response: Any) -> AsyncGenerator[str]:
        async with self._served().answering(body, chat=chat) as found:
            async for _, news in found.written():
                found.answer.texts[0].add(news)
                yield news.text
        response.set_usage(input=found.answer.prompt_tokens, output=found.answer.tokens)

    def _body(self, prompt: Any) -> dict[str, Any]:
        options = prompt.options.model_dump(exclude_none=True)
        steering = {name: options[name] for name in _STEERING if name in options}
        if steering and "vector" not in steering:
            raise llm.ModelError("which vector? give -o vector EXPR")
        said = [(m.role, "".join(_text(part) for part in m.parts)) for m in prompt.messages]
        chat = [{"role": role, "content": text} for role, text in said]
        asked = {"messages": chat} if options["chat"] else {"prompt": "\n".join(t for _, t in said)}
        sampling = {name: options[name] for name in _SAMPLING if name in options}
        return {"model": self.source, "steering": steering or None, **asked, **sampling}

    def _served(self) -> Server:
        from steerlab.serving.in_process import started

        if self._server is None:
            self._server = started(self.source)
        return self._server


def _text(part: Any) -> str:
    if not hasattr(part, "text"):
        raise llm.ModelError("only texts can be read")
    return str(part.text)
