"""The README's table of other programs, from what `steerlab conform` measured.

steerlab conform love --dose 0.15 --json | python -m tests.conformance.table
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

README = Path(__file__).parents[2] / "README.md"
HEAD = (
    "| program | what it is given | unsteered | steered | steered, likeliest | equal texts | |\n"
    "|---|---|---|---|---|---|---|\n"
)
NUMBERS = ("unsteered", "steered", "steered_likeliest")
GIVEN = {
    "hook": "a forward hook of plain torch",
    "peft": "a BEFT adapter (`export --to peft`)",
    "bake": "a checkpoint (`bake`), in transformers",
    "lm-eval": "a `.pt` for `--model steered` (`export --to lm-eval`)",
    "llama.cpp": "a GGUF control vector, float32 weights and cache",
    "vllm": "the checkpoint of `bake`",
}


def table(found: dict[str, Any]) -> str:
    """Markdown of what `conform --json` printed, with its verdicts."""
    rows = []
    for outcome in found["outcomes"]:
        name = outcome["target"]
        assert outcome["verdict"] in ("agrees", "differs"), outcome
        numbers = [f"{outcome[key]:.2e}" for key in NUMBERS]
        texts = f"{outcome['equal']} of {outcome['texts']}"
        cells = (name, GIVEN[name], *numbers, texts, outcome["verdict"])
        rows.append(f"| {' | '.join(cells)} |\n")
    assert len(rows) == len(GIVEN), "run it where all programs are installed"
    return HEAD + "".join(rows)


def replaced(page: str, new: str) -> str:
    """The page with its table replaced."""
    return re.sub(rf"{re.escape(HEAD)}(\|.*\n)*", lambda _: new, page)


if __name__ == "__main__":
    README.write_text(replaced(README.read_text("utf-8"), table(json.load(sys.stdin))), "utf-8")
