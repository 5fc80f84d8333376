"""The HTTP side: routes, errors in OpenAI's shape, and who may ask."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from aiohttp import web

from steerlab import errors
from steerlab.serving import openai
from steerlab.serving.answering import Answering, News, prepare
from steerlab.serving.engine import Busy, Engine
from steerlab.serving.extractions import Extractions, in_thread
from steerlab.serving.metrics import exposition
from steerlab.serving.pathless import pathless
from steerlab.serving.request import parse_steering
from steerlab.serving.resolving import resolve
from steerlab.web.guard import check_site

if TYPE_CHECKING:
    from steerlab.core.recipe import Contrast
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab

BODY_LIMIT = 2**20
"""Bytes of a request's body."""

_LISTED = 500  # vectors in /v1/models
_LOG = logging.getLogger("steerlab.serving")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_STATUS: tuple[tuple[type[errors.SteerlabError], int, str], ...] = (
    (openai.UnknownModel, 404, "model_not_found"),
    (errors.NotFound, 400, "vector_not_found"),
    (errors.ModelMismatch, 400, "model_mismatch"),
    (errors.BadExpression, 400, "bad_expression"),
    (errors.Cancelled, 503, "stopping"),
    (errors.StoreError, 500, "store"),
    (errors.CorruptPayload, 500, "store"),
    (errors.ModelError, 500, "model"),
    (errors.SteerlabError, 400, "bad_request"),
)


class Server:
    """Answers requests by an engine and a store.

    name: of the model. host: listened on; loopback answers to loopback names alone. api_key:
    what requests have to bring; None for none.
    """

    def __init__(
        self, lab: Lab, engine: Engine, name: str, *, host: str, api_key: str | None = None
    ) -> None:
        self.lab, self.engine, self.name = lab, engine, name
        self._host, self._key = host, api_key
        self._identity: Any = None
        lab.extraction = Extractions(self._extracted)
        self.requests: dict[tuple[str, int], int] = {}

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._told, self._guard], client_max_size=BODY_LIMIT)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._model_entry)
        app.router.add_post("/v1/completions", self._completions)
        app.router.add_post("/v1/chat/completions", self._chat)
        return app

    # who may ask, and what goes wrong

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests without the key, or from pages of other sites (DNS rebinding)."""
        check_site(request, self._host)
        if self._key is not None:
            given = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(errors="replace"), self._key.encode()):
                raise web.HTTPUnauthorized(text="an API key is needed: Authorization: Bearer KEY")
        return await handler(request)

    @web.middleware
    async def _told(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer errors in OpenAI's shape, and count."""
        try:
            response = await handler(request)
        except web.HTTPException as error:
            kind = {401: "authentication_error", 403: "permission_error"}
            text = error.text or error.reason
            body = openai.error_body(
                text, kind.get(error.status, "invalid_request_error"), error.reason.lower()
            )
            response = web.json_response(body, status=error.status)
        except Exception as error:
            response = self._failure(error)
        resource = request.match_info.route.resource
        where = "other" if resource is None else resource.canonical
        key = (where, response.status)
        self.requests[key] = self.requests.get(key, 0) + 1
        return response

    # routes

    async def _health(self, request: web.Request) -> web.Response:
        ready = self.engine.model.done() and self.engine.model.exception() is None
        return web.json_response({"status": "ready" if ready else "loading"})

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            text=exposition(self.engine, self.requests),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    async def _models(self, request: web.Request) -> web.Response:
        """The model, and the model steered by each stored vector; answers while it loads."""
        names: list[str] = []
        with suppress(errors.SteerlabError):
            names = await asyncio.to_thread(self._vectors)
        listed = [_entry(f"{self.name}:{name}", self.name) for name in names]
        return web.json_response({"object": "list", "data": [_entry(self.name), *listed]})

    async def _model_entry(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name == self.name:
            return web.json_response(_entry(name))
        if name.startswith(f"{self.name}:"):
            lm = await self._loaded()
            steers = parse_steering(name[len(self.name) + 1 :])
            await in_thread(resolve, self.lab, await self._here(lm), steers)
            return web.json_response(_entry(name, self.name))
        raise web.HTTPNotFound(text=f"there is no model {name[:80]!r} here: this is {self.name}")

    def _extracted(self, recipe: Contrast, layers: list[int]) -> SteeringVector:
        """The vector of a recipe, read between the passes of the batch."""
        with self.engine.guest() as watch:
            return self.engine.model.result().reextract(recipe, layers, **watch)

    def _vectors(self) -> list[str]:
        stored = self.lab.stored_model()
        return [] if stored is None else [*self.lab.store.names(stored)][:_LISTED]

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=False)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        return await self._answer(request, chat=True)

    # answering

    @asynccontextmanager
    async def answering(self, body: Mapping[str, Any], *, chat: bool) -> AsyncIterator[Answering]:
        """Read a request and queue its texts; what is not written at the end is called off."""
        wanted = openai.parse(body, self.name, chat=chat)
        lm = await self._loaded()
        here = await self._here(lm)
        heard = News(self.engine.counts)
        with self.engine.arriving():
            found = await in_thread(prepare, self.lab, lm, here, wanted, heard)
            self.engine.submit(found.jobs)
        try:
            yield found
        finally:
            self.engine.cancel(found.jobs)

    async def _answer(self, request: web.Request, *, chat: bool) -> web.StreamResponse:
        try:
            body = await request.read()
        except web.RequestPayloadError:
            raise web.HTTPBadRequest(text="the body can't be decoded") from None
        async with self.answering(openai.loads(body), chat=chat) as found:
            if found.answer.request.stream:
                return await self._stream(request, found)
            return web.json_response((await found.finished()).whole())

    async def _loaded(self) -> Any:
        """The model; waits until it is there."""
        return await asyncio.shield(asyncio.wrap_future(self.engine.model))

    async def _here(self, lm: Any) -> Any:
        if self._identity is None:
            self._identity = await asyncio.to_thread(lambda: lm.identity)
        return self._identity

    async def _stream(self, request: web.Request, found: Answering) -> web.StreamResponse:
        """Server-sent events; an error before the first of them is an answer of its own."""
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        try:
            async for index, news in found.written():
                chunk = found.answer.chunk(index, news)
                found.answer.texts[index].add(news)
                if not response.prepared:
                    await response.prepare(request)
                await _send(response, json.dumps(chunk))
        except errors.SteerlabError as error:
            if not response.prepared:
                raise
            await _send(response, json.dumps(self._error_of(error)[1]))
            return response
        if found.answer.request.with_usage:
            await _send(response, json.dumps(found.answer.last()))
        await _send(response, "[DONE]")
        return response

    # errors

    def _error_of(self, error: Exception) -> tuple[int, dict[str, Any]]:
        """Status and body of an error; it tells no path."""
        if isinstance(error, Busy):
            return 429, openai.error_body(str(error), "rate_limit_error", "queue_full")
        if isinstance(error, errors.SteerlabError):
            status, code = next((s, c) for kind, s, c in _STATUS if isinstance(error, kind))
            kind = "invalid_request_error" if status < 500 else "server_error"
            source = self.lab.model.source if self.lab.is_loaded else self.lab.source
            text = pathless(str(error), self.lab.store_path, source)
            return status, openai.error_body(text, kind, code, getattr(error, "field", None))
        _LOG.exception("a request failed", exc_info=error)
        text = f"internal error, {type(error).__name__} (this is a bug)"
        return 500, openai.error_body(text, "server_error", "internal")

    def _failure(self, error: Exception) -> web.Response:
        """The answer to a request that failed."""
        status, body = self._error_of(error)
        headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Busy) else {}
        return web.json_response(body, status=status, headers=headers)


async def _send(response: web.StreamResponse, data: str) -> None:
    await response.write(f"data: {data}\n\n".encode())


def _entry(name: str, parent: str | None = None) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "steerlab", "parent": parent}
