"""Contrast items of files."""

from __future__ import annotations

from pathlib import Path

from steerlab.core.prompts import check_text
from steerlab.errors import BadPrompts
from steerlab.files.contrast.shapes import column_of, column_texts
from steerlab.files.contrast.table import Table, parse
from steerlab.files.prompts import read_text


def read_items(path: Path) -> list[dict[str, str]]:
    """Read contrast items: a prompt and two ways to go on, the first with more of the quality.

    The file has columns prompt, positive and negative, in any syntax that pairs may have. A
    prompt may be missing: the continuations then begin the text. Blanks count.
    Raises NotFound, or BadPrompts with the line that is not what it should be.
    """
    table = parse(read_text(path, "items"), path)
    if not isinstance(table, Table):
        raise BadPrompts(f"{path} holds no item: it has {table.names}")
    up, down = (column_texts(table, column_of(table, side)) for side in ("positive", "negative"))
    name = table.find("prompt")
    prompts = [None] * len(up) if name is None else table.columns[name]
    if not len(up) == len(down) == len(prompts):
        raise BadPrompts(f"{path}: positive, negative and prompt differ in their number")
    for row, prompt in enumerate(prompts):
        if prompt is not None:
            check_text(prompt, f"{table.place(row)}: the prompt")
        if up[row] == down[row]:
            raise BadPrompts(f"{table.place(row)}: positive and negative are the same")
    return [
        {"prompt": prompt or "", "positive": one, "negative": other}
        for prompt, one, other in zip(prompts, up, down, strict=True)
    ]
