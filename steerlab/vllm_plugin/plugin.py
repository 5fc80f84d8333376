"""The entry point of vLLM's plugin; without STEERLAB_STORE it does nothing.

vLLM calls `register` in each of its processes. It has no hooks for what steering needs, so a few
of its functions are wrapped: where a request is read, where a worker makes its runner, and where
compiled graphs get their name in the cache.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from steerlab.errors import SteerlabError
from steerlab.models.waiting import inherited
from steerlab.serving.extractions import in_thread
from steerlab.serving.pathless import pathless

if TYPE_CHECKING:
    from steerlab.vllm_plugin.admission import Admission

_SALT = "steerlab 1"
"""Changes with what the plugin adds to compiled graphs."""


def register() -> None:
    """Let this process of vLLM serve steered requests, if STEERLAB_STORE names a store."""
    if "STEERLAB_STORE" not in os.environ:
        return
    os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
    from vllm.config import VllmConfig
    from vllm.v1.engine.input_processor import InputProcessor
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    if is_active():
        return
    _wrap(VllmConfig, "compute_hash", _compute_hash)
    _wrap(WorkerWrapperBase, "init_device", _init_device)
    _wrap(InputProcessor, "__init__", _init_processor)
    _wrap(InputProcessor, "process_inputs", _process_inputs)


def is_active() -> bool:
    """Whether `register` has done its work in this process."""
    from vllm.v1.engine.input_processor import InputProcessor

    return hasattr(InputProcessor.process_inputs, "__wrapped__")


def _wrap(cls: type, name: str, around: Any) -> None:
    """Replace a method by `around(method, self, *args, **kwargs)`."""
    method = getattr(cls, name)

    @functools.wraps(method)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> Any:
        return around(method, self, *args, **kwargs)

    setattr(cls, name, wrapped)


def _compute_hash(method: Any, self: Any, *args: Any, **kwargs: Any) -> str:
    own = f"{_SALT} {method(self, *args, **kwargs)}"
    return hashlib.sha256(own.encode()).hexdigest()[:10]


def _init_device(method: Any, self: Any) -> None:
    from steerlab.vllm_plugin.worker import steer_runner

    method(self)
    steer_runner(self.worker.model_runner)


def _init_processor(method: Any, self: Any, vllm_config: Any, *args: Any, **kwargs: Any) -> None:
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels

    from steerlab.vllm_plugin.admission import Admission, ServedModel

    for name in os.environ.keys() - inherited().keys():  # vLLM starts other processes
        del os.environ[name]
    method(self, vllm_config, *args, **kwargs)
    of = vllm_config.model_config
    served = ServedModel(of.model, of.revision, of.trust_remote_code)
    self.steerlab = Admission(os.environ["STEERLAB_STORE"], served)
    _check_early(self.steerlab)
    _resolve_in_threads(self.steerlab)
    _wrap(OpenAIServingModels, "show_available_models", _without_paths)


async def _without_paths(method: Any, self: Any) -> Any:
    """The list of models, which would tell the directory of each."""
    found = await method(self)
    for card in found.data:
        card.root = card.root and pathless(card.root, card.root)
    return found


def _resolve_in_threads(admission: Admission) -> None:
    """Find the vectors of a request, which may take seconds, before it holds up others."""
    from vllm.entrypoints.openai.chat_completion.serving import OpenAIServingChat
    from vllm.entrypoints.openai.completion.serving import OpenAIServingCompletion
    from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses

    async def create(method: Any, self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        asked = (request.model_extra or {}).get(
            "steering", (request.vllm_xargs or {}).get("steering")
        )
        if asked is not None:
            with suppress(SteerlabError):  # refused below
                await in_thread(admission.steering, asked)
        return await method(self, request, *args, **kwargs)

    _wrap(OpenAIServingChat, "create_chat_completion", create)
    _wrap(OpenAIServingCompletion, "create_completion", create)
    _wrap(OpenAIServingResponses, "create_responses", create)


def _check_early(admission: Admission) -> None:
    """Take the field `steering` too, and refuse bad ones while the status can be 400.

    Once a stream has begun it can't be any more.
    """
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    def to_sampling_params(method: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
        params = method(self, *args, **kwargs)
        own = {name: v for name, v in (self.model_extra or {}).items() if name == "steering"}
        if own or params.extra_args:
            params.extra_args = {**(params.extra_args or {}), **own}
            with _bad_requests(admission):
                admission.steering(params.extra_args.get("steering"))
        return params

    for kind in (ChatCompletionRequest, CompletionRequest, ResponsesRequest):
        _wrap(kind, "to_sampling_params", to_sampling_params)


@contextmanager
def _bad_requests(admission: Admission) -> Iterator[None]:
    """Turn our errors into what vLLM answers with 400."""
    from vllm.exceptions import VLLMValidationError

    try:
        yield
    except SteerlabError as error:
        raise VLLMValidationError(admission.told(error), parameter="steering") from error


def _process_inputs(method: Any, self: Any, *args: Any, **kwargs: Any) -> Any:
    from steerlab.vllm_plugin.admission import admit

    request = method(self, *args, **kwargs)
    with _bad_requests(self.steerlab):
        admit(self.steerlab, request)
    return request
