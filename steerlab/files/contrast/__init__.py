"""Contrast files: sets of prompts in the shapes that people have them in, recognised by content.

`table` makes columns of a file (JSON, JSON lines, TOML, or text with separators), `shapes` finds
the contrast in them, and `reader` joins that with templates, questions and suffixes.
"""

from steerlab.files.contrast.reader import (
    ContrastSet,
    PairsOptions,
    columns_of,
    read_items,
    read_pairs,
    read_texts,
    with_prompts,
)

__all__ = [
    "ContrastSet",
    "PairsOptions",
    "columns_of",
    "read_items",
    "read_pairs",
    "read_texts",
    "with_prompts",
]
