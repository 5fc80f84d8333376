"""The recipe of a vector that was extracted from contrast prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from steerlab.core.prompts import Prompt, PromptSet, Read, Turns, describe_read, turns_of


@dataclass(frozen=True)
class Contrast:
    """Made from contrast prompts by an extraction method.

    negative is empty for methods that need none; baseline holds the prompts whose mean
    `mean_centred` subtracts. systems, answers: the other turns of all prompts, positive, negative,
    then baseline; empty if they have none. prompt_ids: the token ids of all prompts in that
    order, as the model read them; empty before extraction, and for vectors of earlier
    versions, which keep only the ids that were read, in positive_ids and negative_ids.
    spans: the tokens read of each prompt, where `read` depends on its turns.
    prompt_set: names the prompts of a large set, which are not held here.
    """

    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()
    method: str = "mean_difference"
    read: Read = "last"
    chat: bool = False
    seed: int | None = None
    baseline: tuple[str, ...] = ()
    positive_ids: tuple[tuple[int, ...], ...] = ()
    negative_ids: tuple[tuple[int, ...], ...] = ()
    prompt_ids: tuple[tuple[int, ...], ...] = ()
    systems: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    spans: tuple[tuple[int, ...], ...] = ()
    prompt_set: PromptSet | None = None

    @classmethod
    def of(
        cls,
        positive: Sequence[Prompt],
        negative: Sequence[Prompt] = (),
        baseline: Sequence[Prompt] = (),
        **how: Any,
    ) -> Contrast:
        """The recipe of prompts in turns; how: method, read, chat and seed."""
        sides = [[turns_of(p) for p in side] for side in (positive, negative, baseline)]
        every = [turns for side in sides for turns in side]
        users = [tuple(turns.user for turns in side) for side in sides]
        systems, answers = (tuple(t.system for t in every), tuple(t.answer for t in every))
        how |= {"systems": systems if any(systems) else ()}
        how |= {"answers": answers if any(answers) else ()}
        return cls(users[0], users[1], baseline=users[2], **how)

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        """All prompts: positive, negative, then baseline."""
        users = (*self.positive, *self.negative, *self.baseline)
        if not (self.systems or self.answers):
            return users
        systems, answers = (x or ("",) * len(users) for x in (self.systems, self.answers))
        return tuple(map(Turns, users, systems, answers))

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many positive, negative and baseline prompts are held here."""
        return len(self.positive), len(self.negative), len(self.baseline)

    @property
    def sides(self) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...], tuple[Prompt, ...]]:
        """The positive, the negative and the baseline prompts."""
        (one, two, _), every = self.sizes, self.prompts
        return every[:one], every[one : one + two], every[one + two :]

    @property
    def pairs(self) -> tuple[tuple[Prompt, Prompt], ...]:
        """The contrast pairs; none where negatives are missing, or no partners of positives."""
        positive, negative, _ = self.sides
        return tuple(zip(positive, negative, strict=True)) if self.is_paired else ()

    @property
    def is_paired(self) -> bool:
        """Whether prompt i of both sides belong together."""
        return bool(self.counts[1]) and self.method != "difference_of_means"

    @property
    def counts(self) -> tuple[int, int]:
        """How many positive and negative prompts there are, here or in the set it names."""
        if self.prompt_set is not None:
            return self.prompt_set.positive, self.prompt_set.negative
        return self.sizes[:2]

    @property
    def ids_read(self) -> tuple[tuple[int, ...], ...]:
        """The token ids that were read of each prompt; empty if they are unknown."""
        if self.spans:
            places = zip(self.prompt_ids, self.spans, strict=True)
            return tuple(ids[slice(*span)] for ids, span in places)
        return tuple(_read_of(ids, self) for ids in self.prompt_ids) or (
            *self.positive_ids,
            *self.negative_ids,
        )

    def without_ids(self) -> Contrast:
        """The recipe in words alone, for another tokenizer."""
        named = self.prompt_set and replace(self.prompt_set, ids_digest="")
        return replace(
            self, positive_ids=(), negative_ids=(), prompt_ids=(), spans=(), prompt_set=named
        )

    def without_prompts(self) -> Contrast:
        """The recipe as it is stored if its set holds the prompts; else itself."""
        if self.prompt_set is None:
            return self
        bare = replace(self.without_ids(), positive=(), negative=(), systems=(), answers=())
        return replace(bare, prompt_set=self.prompt_set)

    def part(self, start: int, stop: int) -> Contrast:
        """The recipe of these prompts of each side."""
        one, two, three = self.sizes
        ranges = [(0, one), (one, one + two), (one + two, one + two + three)]
        chosen = [i for low, high in ranges for i in range(low, high)[start:stop]]
        lists: dict[str, Any] = {
            name: tuple(values[i] for i in chosen)
            for name in ("systems", "answers", "prompt_ids", "spans")
            if (values := getattr(self, name))
        }
        for side in ("positive", "negative", "baseline"):
            lists[side] = getattr(self, side)[start:stop]
        return replace(self, **lists)

    def __str__(self) -> str:
        count, others = self.counts
        what = "contrast pair" if others else "prompt"
        read = "" if self.method == "actadd" else f", {describe_read(self.read)}"
        chat = ", chat template" if self.chat else ""
        if others and not self.is_paired:
            return f"{count} against {others} prompts, {self.method}{read}{chat}"
        return f"{count} {what}{'s' * (count != 1)}, {self.method}{read}{chat}"


def _read_of(ids: tuple[int, ...], recipe: Contrast) -> tuple[int, ...]:
    if recipe.method == "actadd":
        return ids
    if recipe.read == "mean":
        return ids[1:]
    return ids[-1 if recipe.read == "last" else int(recipe.read) :][:1]
