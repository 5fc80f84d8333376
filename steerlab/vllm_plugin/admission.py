"""Admitting requests: from a text such as "love dose=0.2" to what is added, or a refusal."""

from __future__ import annotations

import json
from collections.abc import Hashable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from steerlab.errors import BadOption, Incompatible, SteerlabError
from steerlab.lab.engine import ModelElsewhere
from steerlab.lab.lab import Lab
from steerlab.serving.extractions import Extractions
from steerlab.serving.pathless import pathless
from steerlab.serving.request import MOST, parse_steering
from steerlab.serving.resolving import resolve
from steerlab.vllm_plugin.steering import KEY, Steering, summed

if TYPE_CHECKING:
    from steerlab.models.language_model import LanguageModel

_REMEMBERED = 256
_SMALL = 1_000_000_000  # parameters: seconds on a CPU, in which other requests wait


class ServedModel(ModelElsewhere):
    """The model that other processes run, known by its files; source, revision: of these.

    It is loaded here for a moment, to be identified; and again to make the layer at which a vector
    was calibrated, if that is not stored and the model is small.
    """

    def __init__(self, source: str, revision: str | None, trust_remote_code: bool) -> None:
        self._of: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
        model = self._loaded(source, dtype="bfloat16", layout="plain")
        self.is_small = sum(p.numel() for p in model.model.parameters()) <= _SMALL
        super().__init__(model.identity)

    def reextract(self, recipe: Any, layers: list[int]) -> Any:
        """The vector of a recipe at these layers; Incompatible for a large model."""
        if not self.is_small:
            return super().reextract(recipe, layers)
        return self._loaded(self.source).reextract(recipe, layers)

    def _loaded(self, source: str, **how: Any) -> LanguageModel:
        from steerlab.models.language_model import LanguageModel

        return LanguageModel.load(source, device="cpu", **self._of, **how)


class Admission:
    """Reads the `steering` of requests with the names of a store, as it is at that moment."""

    def __init__(self, store: str, model: Any) -> None:
        self.lab = Lab(store, model)
        self.lab.extraction = Extractions(model.reextract)
        self._remembered = lru_cache(_REMEMBERED)(self._resolved)
        self.lab.store.names()  # a store that can't be read is told at start

    def steering(self, value: Any) -> Steering | None:
        """What a request's `steering` adds; None for nothing.

        value: as `parse_steering` takes it; objects may come as JSON text, since `vllm_xargs` holds
            texts and numbers alone. Raises SteerlabError.
        """
        if value is None:
            return None
        entries = value if isinstance(value, list) else [value]
        try:
            key = json.dumps([_read(entry) for entry in entries[: MOST + 1]], default=repr)
        except RecursionError:
            raise BadOption("steering is nested too deeply") from None
        return self._remembered(key, self.lab.store.listing.stamp())

    def told(self, error: SteerlabError) -> str:
        """What a client is told of an error: no paths of this machine."""
        return pathless(str(error), self.lab.store_path, self.lab.model.source)

    def _resolved(self, key: str, stamp: Hashable) -> Steering | None:
        steers = parse_steering(json.loads(key))
        return summed(resolve(self.lab, self.lab.model.identity, steers).injections)


def _read(entry: Any) -> Any:
    """An entry, read if it is an object as JSON."""
    if not (isinstance(entry, str) and entry.lstrip().startswith("{")):
        return entry
    try:
        return json.loads(entry)
    except ValueError:
        raise BadOption(f"steering is neither a text nor JSON: {entry[:60]!r}") from None


def admit(admission: Admission, request: Any) -> None:
    """Put what a request adds into it, and keep its cached prefixes apart from all others.

    request: an EngineCoreRequest. Raises SteerlabError.
    """
    params = request.sampling_params
    extra = (params and params.extra_args) or {}
    if KEY in extra:
        raise Incompatible(f"{KEY!r} is not for clients: send steering")
    steering = admission.steering(extra.get("steering"))
    if steering is None:
        return
    if request.lora_request is not None:
        raise Incompatible("steering and a LoRA together are not served: vectors belong to a model")
    params.extra_args = {**extra, KEY: steering.to_message()}
    request.cache_salt = f"{steering.fingerprint}{request.cache_salt or ''}"
