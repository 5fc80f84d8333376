"""Whether steering a model does what was asked, seen by raw hooks and a decoding of our own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from steerlab import Injection, LanguageModel, SteeringVector, steering
from steerlab.errors import SteerlabError
from steerlab.models.blocks import find_blocks
from steerlab.models.generation import end_ids
from steerlab.models.identity import identify
from tests.watching import amount, due, planted

POSITIONS = ("all", "prompt", "generated", "continuation")
TEXTS = ["abcde fgh", "xy", "abcde g"]  # two begin alike
LAYER = 2
STRENGTH = 1.7
NEW = 3


def judge(lm: LanguageModel, positions: tuple[str, ...] = POSITIONS) -> str:
    """ "right", and what is refused; raises AssertionError where something is wrong."""
    refused: dict[str, list[str]] = {}

    def attempt(what: str, check: Callable[..., None], *args: Any) -> None:
        try:
            check(*args)
        except SteerlabError as error:
            refused.setdefault(one_line(error), []).append(what)

    v = planted(lm, LAYER)
    check_one_pass(lm, v)
    check_reading(lm)
    check_nothing_added(lm, v)
    for use_cache in (True, False):
        judged = Decoding(lm, v, use_cache)
        judged.check_unsteered()
        for where in positions:
            attempt(f"{where}{' with a cache' * use_cache}", judged.check, where)
        attempt(f"rows{' with a cache' * use_cache}", judged.check_one_row)
    return "; ".join(["right", *(f"{', '.join(k)} refused: {why}" for why, k in refused.items())])


def judge_plain_module(model: nn.Module) -> None:
    """A model that LanguageModel refuses is steered rightly, or refused, as a plain module too."""
    try:
        parent, blocks = find_blocks(model)
        identity = identify(model, parent, blocks)
    except SteerlabError:
        return
    v = SteeringVector({LAYER: np.ones(identity.d_model)}, model=identity)
    ids = torch.arange(3, 9)[None]
    for positions in POSITIONS:
        try:
            steered = steering(model, v, STRENGTH, positions)
            with steered, Watched(blocks[LAYER]) as watched, torch.no_grad():
                model(input_ids=ids)
        except SteerlabError:
            continue
        watched.check(v, positions, [(6, 6)])


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def stream(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    hidden: Tensor = args[0] if args else kwargs["hidden_states"]
    return hidden


@dataclass
class Watched:
    """What comes to a block, and what is left of it after every hook: one pair a pass."""

    block: nn.Module
    before: list[Tensor] = field(default_factory=list)
    after: list[Tensor] = field(default_factory=list)

    def __enter__(self) -> Watched:
        def seen(by: list[Tensor]) -> Callable[..., None]:
            return lambda _, args, kwargs: by.append(stream(args, kwargs).clone())

        hang = self.block.register_forward_pre_hook
        self._stack = ExitStack()
        self._stack.callback(hang(seen(self.before), with_kwargs=True, prepend=True).remove)
        self._stack.callback(hang(seen(self.after), with_kwargs=True).remove)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def check(
        self,
        v: SteeringVector,
        positions: str,
        spans: list[tuple[int, int]],
        strength: float = STRENGTH,
    ) -> None:
        """spans: for each pass, tokens of the prompt, and tokens read when it is over."""
        for (n, end), before, after in zip(spans, self.before, self.after, strict=True):
            mask = torch.tensor(due(positions, n, end - before.shape[1], end))[:, None]
            wanted = torch.where(mask, before + amount(v, strength, before.dtype), before)
            assert torch.equal(after, wanted), f"{positions}: other positions in the pass to {end}"


@torch.no_grad()
def check_one_pass(lm: LanguageModel, v: SteeringVector) -> None:
    """h' = h + c·v where it is added, and nothing in earlier layers."""
    ids = torch.tensor([lm.tokens(TEXTS[0])])
    plain = seen_in(lm, ids)
    with steering(lm, v, STRENGTH):
        steered = seen_in(lm, ids)
    for b in plain.keys() & set(range(LAYER)):
        assert torch.equal(plain[b], steered[b]), f"layer {b} has changed"
    wanted = plain[LAYER] + amount(v, STRENGTH, plain[LAYER].dtype)
    assert torch.equal(steered[LAYER], wanted), "something else was added"
    last = max(plain)
    assert not torch.equal(plain[last], steered[last]), "later layers know nothing"


def seen_in(lm: LanguageModel, ids: Tensor) -> dict[int, Tensor]:
    """The input of every block in one pass."""
    found: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for b, block in enumerate(lm.blocks):

            def hook(_: nn.Module, args: Any, kwargs: Any, b: int = b) -> None:
                found[b] = stream(args, kwargs).clone()

            stack.callback(block.register_forward_pre_hook(hook, with_kwargs=True).remove)
        lm.model(input_ids=ids, use_cache=False)
    return found


def check_nothing_added(lm: LanguageModel, v: SteeringVector) -> None:
    """A coefficient of 0 is the baseline."""
    plain = lm.generate(TEXTS[:2], max_new_tokens=NEW)
    with steering(lm, v, 0.0):
        assert lm.generate(TEXTS[:2], max_new_tokens=NEW) == plain, "c = 0 is not the baseline"


def check_reading(lm: LanguageModel) -> None:
    """What is read of several prompts is what is read of each."""
    prompts = [lm.tokens(text) for text in TEXTS]
    together = lm.read_tokens(prompts, [LAYER], "last").values[LAYER]
    alone = torch.stack([lm.record(text, LAYER)[LAYER][-1] for text in TEXTS])
    close = torch.allclose(torch.tensor(together).float(), alone, atol=1e-4, rtol=1e-3)
    assert close, "prompts that are read together give something else than alone"


class Decoding:
    """Texts of one model, greedy, with or without a cache."""

    def __init__(self, lm: LanguageModel, v: SteeringVector, use_cache: bool) -> None:
        self.lm, self.v = lm, v
        self.given = False
        self.how = {"max_new_tokens": NEW, "use_cache": use_cache}
        self.plain = self.texts()

    def texts(self) -> list[tuple[int, ...]]:
        """The new tokens of the first two texts, as one batch."""
        return [made.token_ids for made in self.lm.generate(TEXTS[:2], **self.how)]

    def check_unsteered(self) -> None:
        # RoBERTa's positions begin elsewhere where they are not given, as generate gives them
        self.given = self.plain != [self.by_hand(text) for text in TEXTS[:2]]
        wanted = [self.by_hand(text) for text in TEXTS[:2]]
        assert self.plain == wanted, "the unsteered text is another than by hand"

    def by_hand(self, text: str, *steered: Any) -> tuple[int, ...]:
        return decoded(self.lm, text, *steered, given=self.given)

    def check(self, positions: str) -> None:
        """Each pass is steered where it should be, alone and in a padded batch."""
        alone = [self.alone(positions, text) for text in TEXTS[:2]]
        wanted = [self.by_hand(text, self.v, positions) for text in TEXTS[:2]]
        assert alone == wanted, f"{positions}: other texts than by hand"
        with steering(self.lm, self.v, STRENGTH, positions):
            assert self.texts() == alone, f"{positions}: a row is not what it is alone"

    def alone(self, positions: str, text: str) -> tuple[int, ...]:
        watched = Watched(self.lm.blocks[LAYER])
        with steering(self.lm, self.v, STRENGTH, positions), watched:
            made = self.lm.generate(text, **self.how).token_ids
        n = len(self.lm.tokens(text))
        watched.check(self.v, positions, [(n, n + step) for step in range(len(made))])
        return made

    def check_one_row(self) -> None:
        """Steering row 1 leaves row 0 as it was."""
        with steering(self.lm, Injection(self.v, STRENGTH, "generated", rows=(1,))):
            found = self.texts()
        assert found[0] == self.plain[0], "the other row is steered"
        wanted = self.by_hand(TEXTS[1], self.v, "generated")
        assert found[1] == wanted, "the row is not steered"


@torch.no_grad()
def decoded(
    lm: LanguageModel,
    text: str,
    v: SteeringVector | None = None,
    positions: str = "all",
    *,
    given: bool,
) -> tuple[int, ...]:
    """The greedy text by plain passes without a cache, a raw hook adding c·v.

    given: whether to give the position ids.
    """
    ids = list(lm.tokens(text))
    n, ends = len(ids), set(end_ids(lm.model))

    def add(_: nn.Module, args: Any, kwargs: Any) -> Any:
        hidden = stream(args, kwargs)
        if v is not None:
            mask = torch.tensor(due(positions, n, 0, len(ids)))[:, None]
            hidden = torch.where(mask, hidden + amount(v, STRENGTH, hidden.dtype), hidden)
        return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

    handle = lm.blocks[LAYER].register_forward_pre_hook(add, with_kwargs=True)
    try:
        while len(ids) < n + NEW and not ends & set(ids[n:]):
            places = {"position_ids": torch.arange(len(ids))[None]} if given else {}
            logits = lm.model(input_ids=torch.tensor([ids]), use_cache=False, **places).logits
            ids.append(int(logits[0, -1].argmax()))
    finally:
        handle.remove()
    return tuple(ids[n:])
