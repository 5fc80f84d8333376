"""Loading a transformers model by name; failures are explained in one line."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from steerlab.errors import BadOption, ModelError
from steerlab.models import embedded
from steerlab.progress import Loading, in_notebook

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LAYOUTS = (None, "fast", "plain")


def load_model(
    source: str,
    *,
    device: str | None,
    dtype: str | None,
    device_map: str | Mapping[str, Any] | None,
    revision: str | None,
    trust_remote_code: bool,
    layout: str | None,
    progress: Loading | None,
) -> tuple[Any, str]:
    """The model in evaluation mode, and the location of its tokenizer."""
    from transformers import AutoModelForCausalLM

    if layout not in _LAYOUTS:
        raise BadOption(f"no layout {layout!r}: there are fast (the default) and plain")
    location = location_of(source, progress)
    device = device or _best_device()
    _check_device(device)
    options: dict[str, Any] = {
        "dtype": _dtype(dtype, on_cpu=device == "cpu" and device_map is None),
        "revision": revision,
        "trust_remote_code": trust_remote_code,
        "output_loading_info": True,
    }
    if device_map is not None:
        options["device_map"] = device_map
    elif device != "cpu":
        options["device_map"] = {"": device}
    with _explained(source), _no_bar_of_weights():
        model, info = AutoModelForCausalLM.from_pretrained(location, **options)
    missing = sorted(info.get("missing_keys") or [])
    if missing:
        raise ModelError(
            f"{source} is not a complete causal language model: its checkpoint lacks {missing[0]}"
            + (f" and {len(missing) - 1} more weights" if len(missing) > 1 else "")
        )
    model.eval()
    if device == "cpu" and device_map is None and layout != "plain":
        from steerlab.models.fast_layers import use_fast_products
        from steerlab.models.threads import dismiss_team, follow

        use_fast_products(model)
        follow(model)
        dismiss_team()
    return model, location


def location_of(source: str, progress: Loading | None = None) -> str:
    """Where transformers finds a model: a directory or a hub id; fetches the embedded one."""
    return str(embedded.checkpoint(progress)) if source == embedded.ALIAS else source


def hush() -> None:
    """Silence the libraries' progress bars and warnings; front ends draw their own."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    for name in ("transformers", "huggingface_hub", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextmanager
def _no_bar_of_weights() -> Iterator[None]:
    """No bar of transformers while weights are read, but in notebooks; downloads keep theirs."""
    from huggingface_hub.constants import HF_HUB_DISABLE_PROGRESS_BARS
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers.utils import logging as transformers_logging

    asked_for = HF_HUB_DISABLE_PROGRESS_BARS is False
    if asked_for or in_notebook() or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    downloads = not are_progress_bars_disabled()
    transformers_logging.disable_progress_bar()
    if downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()
        if not downloads:
            disable_progress_bars()


def load_tokenizer(location: str, revision: str | None, trust_remote_code: bool) -> Any:
    """The tokenizer of a loaded model."""
    from transformers import AutoTokenizer

    with _explained(location):
        return AutoTokenizer.from_pretrained(
            location, revision=revision, trust_remote_code=trust_remote_code
        )


def _best_device() -> str:
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _check_device(device: str) -> None:
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise BadOption(f"no device {device!r}: try cpu, cuda, cuda:1 or mps") from None
    usable = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not usable.get(kind, True):
        raise BadOption(f"this machine (or this build of torch) has no {kind} device: use cpu")


def _dtype(name: str | None, *, on_cpu: bool) -> Any:
    if name is None or name == "auto":
        # SmolLM2's log-probabilities differ by 0.4 in bfloat16, which moves verdicts
        return torch.float32 if on_cpu else "auto"
    if name not in _DTYPES:
        raise BadOption(f"no dtype {name!r}: there are {', '.join(_DTYPES)}")
    return _DTYPES[name]


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turn what loading raises into a ModelError of one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(_explanation(source, error)) from None


def _explanation(source: str, error: Exception) -> str:
    text = str(error)
    if re.search(r"gated repo|\b40[13] Client Error", text):
        return f"{source} is gated or private: accept its terms, then log in with `hf auth login`"
    if "trust_remote_code" in text:
        return f"{source} brings its own code: read it, then pass --trust-remote-code to run it"
    if "Unrecognized configuration class" in text:
        return f"{source} has no causal head: steerlab steers models that write text"
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return f"{source} does not fit in memory: try --dtype bfloat16 or --device-map auto"
    if isinstance(error, OSError) or "Unrecognized model" in text:
        return _not_found(source)
    return f"{source} can't be loaded: {_first_line(text) or type(error).__name__}"


def _not_found(source: str) -> str:
    path = Path(source)
    if source and path.is_dir():
        return f"{source} is a directory, but holds no transformers model that can be loaded"
    if path.is_absolute() or source.startswith("."):
        return f"there is no model directory {source}"
    return (
        f"there is no model {source!r} here or on the hub (or the hub can't be reached): "
        "give a directory, a hub id such as Qwen/Qwen2.5-0.5B-Instruct, or smollm2"
    )


def _first_line(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return (" ".join(text.split()) if line.endswith(":") else line)[:200]
