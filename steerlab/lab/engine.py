"""A model that runs elsewhere: texts by OpenAI's API, from `steerlab serve` or vLLM's plugin.

Needs no torch. The engine resolves the vectors by name in a store of its own, or the same one.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from steerlab.core.cell import Key
from steerlab.core.completion import Completion, Finish
from steerlab.core.notation import layer_numbers, span
from steerlab.core.run import Positions
from steerlab.core.sampling import Sampling
from steerlab.core.setting import Setting, is_front
from steerlab.errors import BadOption, Incompatible, ModelError
from steerlab.progress import ShouldStop

if TYPE_CHECKING:
    import aiohttp

    from steerlab.core.recipe import ModelIdentity
    from steerlab.models.generation import OnText

_ROWS = 64  # at once: engines make their own batches
_SILENCE = 300.0  # seconds in which nothing comes, after which an engine is given up


class ModelElsewhere:
    """What a lab asks of a model that it can't run itself.

    identity: as far as is known: that of the vectors, which an engine with another one refuses.
    """

    def __init__(self, identity: ModelIdentity) -> None:
        self.identity, self.source, self.n_layers = identity, identity.source, identity.n_layers

    def layers(self, choice: Any = None) -> list[int]:
        """As `LanguageModel.layers`."""
        return layer_numbers(choice, self.n_layers, self.source)

    def reextract(self, recipe: Any, layers: list[int]) -> NoReturn:
        """Refuse: vectors are extracted where the model is at hand."""
        raise Incompatible(
            f"the vector has no layer {span(layers)}, and an engine makes none: "
            "choose among those that it has (layers), or extract it there first"
        )


class EngineRuntime:
    """A `Runtime` over a server's URL, such as http://127.0.0.1:8100.

    The key is in STEERLAB_API_KEY. Raises ModelError where no engine answers, or it refuses.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1") + "/v1"

    def batch_rows(self, prompts: Sequence[str], new_tokens: int) -> int:
        """How many rows to ask for at once."""
        return _ROWS

    def generate(
        self,
        rows: Sequence[Key],
        sampling: Sampling,
        *,
        positions: Positions = "all",
        bos: bool = False,
        allow_other_weights: bool = False,
        audit: bool = False,
        on_text: OnText | None = None,
        should_stop: ShouldStop | None = None,
    ) -> list[Completion]:
        """Continue each row's prompt under its setting, with its seed; see `Runtime`."""
        if audit:
            raise BadOption("an engine does not tell what it changes: --audit needs the model here")
        if allow_other_weights:
            raise BadOption("an engine refuses vectors of other weights")
        if bos or is_front(setting for setting, _, _ in rows):
            raise Incompatible("vectors of scope front are not written by an engine")
        bodies = [_body(row, sampling, positions) for row in rows]
        path = "/chat/completions" if sampling.chat else "/completions"
        return asyncio.run(self._all(path, bodies, on_text, should_stop or (lambda: False)))

    def logits(self, rows: Sequence[Any], **options: Any) -> NoReturn:
        """Refuse: no logits come over the API."""
        raise ModelError("this engine gives no logits: measure with the model here")

    async def _all(
        self, path: str, bodies: Sequence[Any], on_text: OnText | None, stop: ShouldStop
    ) -> list[Completion]:
        import aiohttp

        key = os.environ.get("STEERLAB_API_KEY")
        async with aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=_SILENCE),
        ) as session:
            try:
                model = await self._model(session)
                pace = _Pace(stop)
                async with asyncio.TaskGroup() as tasks:
                    texts = []
                    for row, body in enumerate(bodies):
                        hear = partial(on_text, row) if on_text is not None else None
                        asked = {"model": model, **body}
                        text = self._write(session, path, asked, hear, pace)
                        texts.append(tasks.create_task(text))
            except* aiohttp.ClientError as failed:
                error = failed.exceptions[0]
                raise ModelError(
                    f"no engine answers at {self.url} ({error}): start one with `steerlab serve`"
                ) from None
            except* ModelError as failed:
                raise failed.exceptions[0] from None
        return [text.result() for text in texts]

    async def _model(self, session: aiohttp.ClientSession) -> str:
        """What the engine calls its model."""
        async with session.get(f"{self.url}/models") as answer:
            found = await self._checked(answer)
        try:
            return str(found["data"][0]["id"])
        except (KeyError, IndexError, TypeError):
            raise self._unreadable from None

    async def _write(
        self,
        session: aiohttp.ClientSession,
        path: str,
        body: Any,
        hear: Callable[[str], object] | None,
        pace: _Pace,
    ) -> Completion:
        """One row's text, as far as it came."""
        text, tokens, pieces = "", 0, 0
        finish: Finish = "cancelled"
        async with session.post(f"{self.url}{path}", json=body) as answer:
            if answer.status != 200:
                await self._checked(answer)
            async for event in self._events(answer):
                if "error" in event:
                    raise ModelError(f"{self.url}: {event['error'].get('message')}")
                tokens = (event.get("usage") or {}).get("completion_tokens", tokens)
                for choice in event.get("choices") or ():
                    piece = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
                    text += piece
                    if piece and hear is not None:
                        hear(piece)
                    if (reason := choice.get("finish_reason")) is not None:
                        finish = "length" if reason == "length" else "stop"
                pieces += 1
                if finish == "cancelled" and pace.stops(pieces):
                    break
        return Completion("", text, (), finish, told=tokens)

    async def _events(self, answer: aiohttp.ClientResponse) -> AsyncIterator[Any]:
        """The JSON of each server-sent event, up to [DONE]."""
        async for line in answer.content:
            data = line.decode(errors="replace").strip().removeprefix("data:").strip()
            if line.startswith(b"data:") and data != "[DONE]":
                try:
                    yield json.loads(data)
                except ValueError:
                    raise self._unreadable from None

    @property
    def _unreadable(self) -> ModelError:
        return ModelError(
            f"{self.url} does not answer as OpenAI's API does: give the URL of `steerlab serve` or "
            "of vLLM with steerlab's plugin"
        )

    async def _checked(self, answer: aiohttp.ClientResponse) -> Any:
        """The body of an answer; ModelError with the engine's reason for a refusal."""
        found = await answer.read()
        try:
            body = json.loads(found)
            if answer.status == 200:
                return body
            reason = body["error"]["message"]
        except (ValueError, KeyError, TypeError):
            if answer.status == 200:
                raise self._unreadable from None
            reason = f"status {answer.status}"
        raise ModelError(f"{self.url}: {reason}")


class _Pace:
    """Asks whether to stop as a batch does: once a token of the text that is furthest."""

    def __init__(self, should_stop: ShouldStop) -> None:
        self.should_stop, self.pieces, self.stopped = should_stop, 0, False

    def stops(self, pieces: int) -> bool:
        """Whether a text of so many pieces shall end."""
        while self.pieces < pieces and not self.stopped:
            self.pieces += 1
            self.stopped = self.should_stop()
        return self.stopped


def _body(row: Key, sampling: Sampling, positions: Positions) -> dict[str, Any]:
    setting, prompt, seed = row
    asked = (
        {"messages": [{"role": "user", "content": prompt}]} if sampling.chat else {"prompt": prompt}
    )
    options = sampling.options()
    del options["chat"]
    return {
        **asked,
        "max_tokens": options.pop("max_new_tokens"),
        **options,
        "seed": seed,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_steering(setting, positions),
    }


def _steering(setting: Setting, positions: Positions) -> dict[str, Any]:
    """The field of a request; its layers are said, so that no calibration chooses others."""
    if setting.is_baseline:
        return {}
    vector = setting.vector  # None where the engine makes the layer, from the name
    asked = {
        "vector": setting.label if vector is None else str(vector),
        "coefficient": setting.coefficient,
        "layers": list(setting.layers),
        "positions": positions,
        "digest": None if vector is None else vector.digest,
    }
    return {"steering": asked}
