"""An unmodified vLLM that serves the checkpoint of `bake`.

It has no steering of its own, and needs other versions of libraries than steerlab does, so it runs
in the Python that STEERLAB_VLLM_PYTHON names.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from steerlab.conformance import baked, vllm_worker
from steerlab.conformance.conform import Case, Session
from steerlab.errors import ModelError

_CONTEXT = 2048
_SETTINGS = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "ERROR", "HF_HUB_OFFLINE": "1"}


@contextmanager
def session(case: Case, steered: bool) -> Iterator[Session]:
    """A process of vLLM, and an end of it."""
    location = baked.checkpoint(case) if steered else case.location
    python = os.environ.get("STEERLAB_VLLM_PYTHON", sys.executable)
    log = case.directory / "log"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [python, "-I", vllm_worker.__file__, location, str(_CONTEXT)],
            env={**_SETTINGS, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        threading.Thread(target=_end, args=(process,), daemon=True).start()
        try:
            yield _Session(process, case)
        finally:
            process.kill()


def _end(process: Any) -> None:
    """Once a process has ended, end its engine and workers, which hold its output open."""
    process.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


class _Session:
    """A `Session` over the lines of a process."""

    def __init__(self, process: Any, case: Case) -> None:
        self.process, self.case = process, case

    def log_probs(self, ids: Sequence[int]) -> Tensor:
        """Of all tokens of the prompt, and of the first new one."""
        data = base64.b64decode(self._asked(ids, 1, True)["log_probs"])
        found = np.frombuffer(data, "<f4").reshape(len(ids), -1)
        return torch.from_numpy(found.copy())

    def greedy(self, ids: Sequence[int], new_tokens: int) -> list[int]:
        """As it answers a request."""
        return [int(token) for token in self._asked(ids, new_tokens, False)["tokens"]]

    def _asked(self, ids: Sequence[int], new_tokens: int, log_probs: bool) -> dict[str, Any]:
        asked = {"ids": list(ids), "new_tokens": new_tokens, "log_probs": log_probs}
        line = json.dumps({**asked, "ends": list(self.case.ends)})
        with contextlib.suppress(BrokenPipeError):  # it has ended: the log says why
            print(line, file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("answer "):
                answer: dict[str, Any] = json.loads(line.removeprefix("answer "))
                return answer
        log = (self.case.directory / "log").read_text(errors="replace")
        raise ModelError(f"vLLM does not run the model: {_reason(log)}")


def _reason(log: str) -> str:
    """The last error in a log, which may have several lines; else its last line."""
    lines = log.strip().splitlines() or ["it ended"]
    errors = (n for n, line in enumerate(lines) if re.match(r"[\w.]*(Error|Exception)\b", line))
    last = max(errors, default=len(lines) - 1)
    return " ".join(line.strip() for line in lines[last:])[:300]
