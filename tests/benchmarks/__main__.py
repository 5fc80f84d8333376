"""Run all benchmarks, or those named.

startup, loading, decoding, fast_layers, busy, extraction, large_sets, sweep, metrics, tui, serving;
and by name alone, as it makes two stores of 100,000 vectors (in minutes, kept where
STEERLAB_LARGE says), large; and vllm_plugin, which needs a vLLM (STEERLAB_VLLM_PYTHON).
"""

import os
import sys
from importlib import import_module
from pathlib import Path

from tests.benchmarks.timing import HEADER

NAMES = (
    "startup", "loading", "decoding", "fast_layers", "busy", "extraction", "large_sets", "sweep",
    "metrics", "tui", "serving",
)  # fmt: skip

if __name__ == "__main__":
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    asked = sys.argv[1:] or NAMES
    if unknown := set(asked) - {path.stem for path in Path(__file__).parent.glob("*.py")}:
        sys.exit(f"{__doc__}\nno benchmark {', '.join(sorted(unknown))}")
    print(HEADER)
    for name in asked:
        for ratio in import_module(f"tests.benchmarks.{name}").run():
            print(ratio.row(), flush=True)
