"""The fields of `steerlab serve` in vLLM's own HTTP server, as ASGI middleware."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from steerlab.errors import BadOption
from steerlab.vllm_plugin.plugin import is_active

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_PATHS = ("/v1/completions", "/v1/chat/completions", "/v1/responses")
_FIELDS = ("steering", "steering_monitor")
_MOST = 2**20
"""Bytes of a body, as of `steerlab serve`."""


class SteeringFields:
    """Reads the vector of a model "smollm2:love", and bounds bodies; the plugin reads `steering`.

    Raises BadOption where the plugin is not active: requests would be answered unsteered.
    """

    def __init__(self, app: App) -> None:
        if not is_active():
            raise BadOption("steerlab's plugin is not active in this vLLM: set STEERLAB_STORE")
        self.app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if not _may_steer(scope):
            await self.app(scope, receive, send)
            return
        try:
            body = await _read(receive)
            body = with_vector(body) if scope["path"] in _PATHS else unsteered(body)
        except BadOption as error:
            await _refuse(send, str(error))
            return
        headers = [(k, v) for k, v in scope["headers"] if k.lower() != b"content-length"]
        length = (b"content-length", str(len(body)).encode())
        pending = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self.app({**scope, "headers": [*headers, length]}, replay, send)


def with_vector(body: bytes) -> bytes:
    """A body whose `model` has lost its vector to `steering`; vLLM says what is wrong with others.

    Raises BadOption for what only the transformers engine does.
    """
    fields = _object(body)
    if fields.get("steering_monitor"):
        raise BadOption("steering_monitor needs `--engine transformers`: vLLM keeps no stream")
    model = fields.get("model")
    if not isinstance(model, str) or ":" not in model:
        return body
    fields["model"], _, vector = model.partition(":")
    asked = fields.get("steering")
    asked = [] if asked is None else asked if isinstance(asked, list) else [asked]
    return json.dumps({**fields, "steering": [vector, *asked]}).encode()


def unsteered(body: bytes) -> bytes:
    """A body for a route that does not steer; BadOption if it asks to."""
    fields = _object(body)
    if found := [name for name in _FIELDS if fields.get(name)]:
        raise BadOption(f"{found[0]} is not read here, but at {', '.join(_PATHS)}")
    return body


def _may_steer(scope: Message) -> bool:
    """Whether a request has a body of fields: a route that ignores them would not steer."""
    if scope["type"] != "http" or scope.get("method", "POST") != "POST":
        return False
    kinds = [value for name, value in scope["headers"] if name.lower() == b"content-type"]
    return scope["path"] in _PATHS or any(b"json" in kind.lower() for kind in kinds)


def _object(body: bytes) -> dict[str, Any]:
    """The fields of a body; none if it is no JSON object, of which vLLM says what is wrong."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


async def _read(receive: Receive) -> bytes:
    """The whole body; BadOption for one that is too long or broken off."""
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise BadOption("the request was broken off")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _MOST:
            raise BadOption(f"a body has at most {_MOST // 2**20} MiB")
    return body


async def _refuse(send: Send, reason: str) -> None:
    error = {"message": reason, "type": "invalid_request_error", "param": "steering", "code": 400}
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 400, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"error": error}).encode()})
