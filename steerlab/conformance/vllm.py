"""An unmodified vLLM that runs the checkpoint of `bake`.

It has no steering of its own, and needs other versions of libraries than steerlab does, so it runs
in the Python that STEERLAB_VLLM_PYTHON names.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import torch

from steerlab.conformance import vllm_worker
from steerlab.conformance.conform import Answer, Case
from steerlab.conformance.transformers_model import checkpoint
from steerlab.errors import ModelError

_SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_PLUGINS": "",  # none: ours would load the checkpoint, which has no tokenizer
    "HF_HUB_OFFLINE": "1",
}


def answers(case: Case) -> list[Answer]:
    """By a process of vLLM; raises ModelError with the reason if it fails."""
    location = checkpoint(case) if case.steered else case.location
    asked, told, log = (case.directory / name for name in ("asked.json", "told.npz", "log"))
    how = {"model": location, "ends": list(case.ends), "new_tokens": case.new_tokens}
    asked.write_text(json.dumps({**how, "asked": case.asked}))
    python = os.environ.get("STEERLAB_VLLM_PYTHON", sys.executable)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [python, "-I", vllm_worker.__file__, asked, told],
            env={**_SETTINGS, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # written late, it would follow the reason in the log
            stderr=file,
            start_new_session=True,
        )
    with process:
        try:
            while process.poll() is None and not told.exists():  # it may hang or fail as it ends
                time.sleep(0.1)
        finally:  # its engine and workers may be left
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    if not told.exists():
        raise ModelError(f"vLLM does not run the model: {_reason(log.read_text(errors='replace'))}")
    with np.load(told) as found:
        return [
            Answer(found[f"text {n}"].tolist(), torch.from_numpy(found[f"log_probs {n}"]))
            for n in range(len(case.asked))
        ]


def _reason(log: str) -> str:
    """The last error in a log, which may have several lines; else its last line."""
    lines = log.strip().splitlines() or ["it ended"]
    errors = (n for n, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line))
    last = max(errors, default=len(lines) - 1)
    return " ".join(line.strip() for line in lines[last:])[:300]
