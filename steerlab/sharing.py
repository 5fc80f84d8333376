"""Which prompts share a beginning long enough to compute it once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

_WINDOW = 256  # a group never holds more prompts; keeps the search linear in their number


@dataclass(frozen=True)
class Group:
    """Prompts (by index) whose first `prefix` tokens are the same."""

    prefix: int
    members: tuple[int, ...]


def group_by_prefix(prompts: Sequence[Sequence[int]]) -> list[Group]:
    """Split prompts into groups so that computing each group's prefix once saves most tokens.

    Sorted, prompts with a common beginning are neighbours; the best split into runs follows
    from `best[j] = max over i of best[i] + (j - i - 1) * common(i, j)`. Every prompt keeps at
    least one token of its own, so that its last position is computed for it.
    """
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    ordered = [prompts[i] for i in order]
    links = [_common(a, b) for a, b in pairwise(ordered)]
    best, start, shared = [0], [0], [0]
    for j in range(1, len(ordered) + 1):
        common = len(ordered[j - 1]) - 1
        options = [(best[j - 1], j - 1, 0)]
        for i in range(j - 2, max(j - 1 - _WINDOW, -1), -1):
            common = min(common, links[i], len(ordered[i]) - 1)
            if common <= 0:
                break
            options.append((best[i] + (j - i - 1) * common, i, common))
        value, i, prefix = max(options, key=lambda option: option[0])
        best.append(value)
        start.append(i)
        shared.append(prefix)
    groups = []
    j = len(ordered)
    while j > 0:
        groups.append(Group(shared[j], tuple(order[start[j] : j])))
        j = start[j]
    return groups[::-1]


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    for n, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return n
    return min(len(a), len(b))
