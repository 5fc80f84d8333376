"""Groups of prompts whose common prefix is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

_MOST = 256  # prompts of a group, which is computed as one batch
_OPTIONS = 32  # ways to split a set of prompts that are remembered; few are ever needed


@dataclass(frozen=True)
class Group:
    """Prompts (by index) whose first `prefix` tokens are the same."""

    prefix: int
    members: tuple[int, ...]


class _Split(NamedTuple):
    """Groups of some prompts, the tokens that they save, and the prompts in none of them."""

    saved: int
    left: tuple[int, ...]
    groups: tuple[Group, ...]


def group_by_prefix(prompts: Sequence[Sequence[int]]) -> list[Group]:
    """Split prompts into groups so that computing each group's prefix once saves most tokens.

    Every prompt keeps at least one token of its own, so that its last position is computed.
    Sorted prompts with a common prefix are neighbours, and nested prefixes form a tree. At each
    node, the prompts that are in no group yet become one, or are left to a shorter prefix.
    """
    own = [tuple(prompt[:-1]) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda i: own[i])
    open_nodes: list[
        tuple[int, list[_Split]]
    ] = []  # (length of the prefix, ways to split its prompts)
    for place, i in enumerate(order):
        following = own[order[place + 1]] if place + 1 < len(order) else None
        link = -1 if following is None else in_common(own[i], following)
        done = [_Split(0, (i,), ())]
        while open_nodes and open_nodes[-1][0] > link:
            prefix, splits = open_nodes.pop()
            done = _closed(prefix, _both(splits, done))
        if open_nodes and open_nodes[-1][0] == link:
            done = _both(open_nodes.pop()[1], done)
        open_nodes.append((link, done))
    if not open_nodes:
        return []
    best = open_nodes[0][1][0]
    return [*best.groups, *(Group(0, (i,)) for i in best.left)]


def _both(some: Sequence[_Split], others: Sequence[_Split]) -> list[_Split]:
    """Every way to split two sets of prompts."""
    return _worthwhile(
        [
            _Split(a.saved + b.saved, a.left + b.left, a.groups + b.groups)
            for a in some
            for b in others
        ]
    )


def _closed(prefix: int, splits: Sequence[_Split]) -> list[_Split]:
    """The splits, and those in which the ungrouped prompts become a group with this prefix."""
    found = list(splits)
    for saved, left, groups in splits:
        if prefix > 0 and len(left) > 1:
            starts = range(0, len(left), _MOST)
            made = tuple(Group(prefix, left[at : at + _MOST]) for at in starts)
            gain = sum(prefix * (len(group.members) - 1) for group in made)
            found.append(_Split(saved + gain, (), groups + made))
    return _worthwhile(found)


def _worthwhile(splits: list[_Split]) -> list[_Split]:
    """The splits that save most, and each that leaves more prompts than all that save more."""
    splits.sort(key=lambda split: (-split.saved, -len(split.left)))
    kept: list[_Split] = []
    for split in splits:
        if not kept or len(split.left) > len(kept[-1].left):
            kept.append(split)
    return kept[:_OPTIONS]


def in_common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens both begin with."""
    for n, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return n
    return min(len(a), len(b))
