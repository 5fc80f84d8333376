"""Products of a linear layer, and which of them is fastest on this processor.

`F.linear` leaves a CPU's memory and cores unused at few rows. The same product asked for in parts,
the other way round, or of oneDNN, takes half the time or less; which one depends on the number of
rows, the shapes, the processor and torch. The weights stay as they are.

Copies of weights in oneDNN's own order take less time still from 3 rows on (an EPYC 9004, SmolLM2's
shapes, float32, one thread: 0.55 of these products at 3 rows, 0.64 at 4 and 8, 0.83 at 16, 0.80 at
52, 0.87 at 128), and 1.6 of it at 1 and 2 rows. On two threads they gain nothing at 3 and
4 rows either. So larger batches hold them while they run: see `packing`.
"""

from __future__ import annotations

import json
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

from steerlab.errors import StoreError
from steerlab.files import durable
from steerlab.files.location import cache_directory
from steerlab.models.packing import pack
from steerlab.models.threads import HELD_UP
from steerlab.models.waiting import spinning

ROWS = (1, 2, 4, 16, 60, 128)
"""Numbers of rows with a choice of their own; others take what the next larger one takes.

64 rows would show less of the many numbers below: a multiple of 16 is where oneDNN is fastest the
other way round.
"""

PLAIN = "plain"
_TRIES = 6
_MANY = 64  # rows whose products take long enough to be timed less often
_PARTS = (64, 48, 32, 24, 16, 12, 8, 6, 4, 3, 2)  # of a weight, for a batch of products
_GAIN = 0.92  # of the plain product's time: what is no faster stays plain
_clock = (
    time.thread_time  # on Windows too coarse
    if time.get_clock_info("thread_time").resolution < 1e-6
    else time.perf_counter
)
BATCHES = (16, 32, 64, 128)
"""Numbers of rows to choose a batch from; more would hold much memory in logits."""
_ENOUGH = 1.1  # of the least time a row, for a smaller batch that is stored more often
_TELLING = 0.1  # seconds from which on the share off the core says something
_PACKED = 4  # sets of weights of which copies are measured: more than a cache holds
_HOPELESS = 1.3  # times the fastest, after which a product is not tried again

_as_it_is = torch.autocast("cpu", enabled=False)  # a caller's autocast makes every product wrong

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""x (rows, d_in), weight (d_out, d_in), bias (d_out,) or None -> (rows, d_out), contiguous."""


def _flipped(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _turned(weight @ x.t(), bias)


def _batched(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A batch of products of parts of the weight, which run on all cores; F.linear's do not."""
    parts = _parts(weight.shape[0])
    product = torch.bmm(weight.view(parts, -1, weight.shape[1]), x.t().expand(parts, -1, -1))
    return _turned(product.view(-1, len(x)), bias)


@cache
def _parts(d_out: int) -> int:
    return next((parts for parts in _PARTS if d_out % parts == 0), 1)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _pointwise()(x, weight, bias, "none", [], "")  # type: ignore[no-any-return]


def _onednn_flipped(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _turned(_pointwise()(weight, x, None, "none", [], ""), bias)


def _turned(product: Tensor, bias: Tensor | None) -> Tensor:
    turned = product.t().contiguous()
    return turned if bias is None else turned.add_(bias)


def _pointwise() -> Any:
    return torch.ops.mkldnn._linear_pointwise.default


PRODUCTS: Mapping[str, Product] = {
    PLAIN: linear,
    "flipped": _flipped,
    "batched": _batched,
    "onednn": _onednn,
    "onednn flipped": _onednn_flipped,
}
_NAMES = list(PRODUCTS)


@dataclass(frozen=True)
class Choice:
    """The names of the products to take, one for each of `ROWS`, for weights of one dtype."""

    names: tuple[str, ...]
    dtype: torch.dtype = torch.float32

    def at(self, rows: int) -> Product:
        """The product to take for so many rows."""
        return PRODUCTS[self.names[place(rows)]]

    @property
    def is_plain(self) -> bool:
        """Whether nothing is faster than the plain product."""
        return set(self.names) <= {PLAIN}


@cache
def place(rows: int) -> int:
    """Which of `ROWS` stands for so many rows."""
    return min(bisect_left(ROWS, rows), len(ROWS) - 1)


@torch.no_grad()
@_as_it_is  # type: ignore[untyped-decorator]
def measure(weights: Sequence[Sequence[Tensor]]) -> Choice:
    """The fastest products for a model's weights.

    weights: sets of one weight of each shape, (d_out, d_in) each. A run takes the next set, which
    so comes from memory as in a forward pass. The time of this thread alone counts, its share of
    a product where others take part; other work adds the moments in which it spins for them.
    """
    sets = cycle(weights)
    names = tuple(_fastest(sets, rows) for rows in ROWS)
    return Choice(names, weights[0][0].dtype)


def _fastest(sets: Iterator[Sequence[Tensor]], rows: int) -> str:
    some = next(sets)
    xs = {width: _rows(rows, width, some[0].dtype) for width in {w.shape[1] for w in some}}
    # the first product of a shape is slow in oneDNN, which writes its code for it
    right = [n for n, p in PRODUCTS.items() if all(_is_right(p, xs[w.shape[1]], w) for w in some)]
    best = dict.fromkeys(right, float("inf"))
    for _ in range(_TRIES if rows < _MANY else _TRIES // 2):
        for name in [n for n in best if not _is_hopeless(best, n)]:
            best[name] = min(best[name], _seconds(PRODUCTS[name], xs, next(sets)))
    steady = (n for n in sorted(best, key=best.__getitem__) if _is_steady(PRODUCTS[n], rows, some))
    fastest = next(steady, PLAIN)
    gains = best[fastest] < _GAIN * best[PLAIN]
    return fastest if gains or not _is_steady(PRODUCTS[PLAIN], rows, some) else PLAIN


def _rows(rows: int, width: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(rows)).to(dtype)


def _is_hopeless(best: Mapping[str, float], name: str) -> bool:
    return float("inf") > best[name] > _HOPELESS * min(best.values())


def _is_right(product: Product, x: Tensor, weight: Tensor, copy: Tensor | None = None) -> bool:
    """Whether a product, of a copy if there is one, is there and gives what the plain one gives."""
    try:
        found, plain = product(x, weight if copy is None else copy, None), linear(x, weight)
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    tolerance = 1e-4 if weight.dtype is torch.float32 else 0.05
    size = float(plain.abs().max())
    return found.shape == plain.shape and float((found - plain).abs().max()) <= tolerance * size


def _is_steady(product: Product, most: int, weights: Sequence[Tensor]) -> bool:
    """Whether one thread gives the same bits as all do, for numbers of rows up to `most`."""
    threads = torch.get_num_threads()
    for weight in weights if threads > 1 else ():
        for rows in {most, most - 1, most // 2 + 1, most // 3 + 1} - {0}:
            x = _rows(rows, weight.shape[1], weight.dtype)
            together = product(x, weight, None)
            try:
                torch.set_num_threads(1)
                if not torch.equal(together, product(x, weight, None)):
                    return False
            finally:
                torch.set_num_threads(threads)
    return True


def _seconds(product: Product, xs: Mapping[int, Tensor], weights: Sequence[Tensor]) -> float:
    start = _clock()
    for weight in weights:
        product(xs[weight.shape[1]], weight, None)
    return _clock() - start


def chosen(groups: Mapping[str, Sequence[Sequence[Tensor]]]) -> dict[str, Choice]:
    """The choice for each group of weights (see `measure`), measured once on a machine.

    groups: by names that tell shapes, orientation and dtype. Choices are remembered in the user's
    cache for this processor, torch and number of threads.
    """
    measures = {name: partial(_names, of) for name, of in groups.items()}
    found = _once(measures, partial(_has_one_a_place, kinds=_NAMES))
    return {name: Choice(tuple(found[name]), of[0][0].dtype) for name, of in groups.items()}


def fastest_batch(name: str, weights: Sequence[Sequence[Tensor]], choice: Choice) -> int:
    """The number of rows, one of BATCHES, beyond which a row takes hardly less time.

    Measured once on a machine, for weights as in `chosen`.
    """
    key = f"rows of {name}, {' '.join(choice.names)}"
    return int(_once({key: partial(_fastest_batch, weights, choice)}, BATCHES.__contains__)[key])


def packed_gains(
    name: str, weights: Sequence[Sequence[Tensor]], choice: Choice
) -> tuple[bool, ...]:
    """For each of `ROWS`, whether packed weights are faster than the choice (see `packing`).

    Measured once on a machine, for weights as in `chosen`.
    """
    key = f"packed {name}, {' '.join(choice.names)}"
    measures = {key: partial(_packed_gains, weights, choice)}
    return tuple(_once(measures, partial(_has_one_a_place, kinds=(False, True)))[key])


@torch.no_grad()
@_as_it_is  # type: ignore[untyped-decorator]
def _packed_gains(weights: Sequence[Sequence[Tensor]], choice: Choice) -> list[bool]:
    try:
        pairs = [(some, [pack(weight) for weight in some]) for some in weights[:_PACKED]]
    except (AttributeError, NotImplementedError, RuntimeError):
        return [False] * len(ROWS)
    return [_gains(pairs, rows, choice.at(rows)) for rows in ROWS]


def _gains(pairs: Sequence[tuple[Sequence[Tensor], list[Tensor]]], rows: int, now: Product) -> bool:
    some, copies = pairs[0]
    xs = {width: _rows(rows, width, some[0].dtype) for width in {w.shape[1] for w in some}}
    if not all(_is_right(_onednn, xs[w.shape[1]], w, c) for w, c in zip(some, copies, strict=True)):
        return False
    of_now = of_packed = float("inf")
    for _, (weights, packed) in zip(range(_TRIES), cycle(pairs), strict=False):
        of_now = min(of_now, _seconds(now, xs, weights))
        of_packed = min(of_packed, _seconds(_onednn, xs, packed))
    return of_packed < _GAIN * of_now and _is_steady(_onednn, rows, copies)


def _names(weights: Sequence[Sequence[Tensor]]) -> list[str]:
    return list(measure(weights).names)


@torch.no_grad()
@_as_it_is  # type: ignore[untyped-decorator]
def _fastest_batch(weights: Sequence[Sequence[Tensor]], choice: Choice) -> int:
    sets = cycle(weights)
    of_row = dict.fromkeys(BATCHES, float("inf"))
    for _ in range(_TRIES):
        for rows in BATCHES:
            some = next(sets)
            xs = {w.shape[1]: _rows(rows, w.shape[1], choice.dtype) for w in some}
            of_row[rows] = min(of_row[rows], _seconds(choice.at(rows), xs, some) / rows)
    return next(rows for rows in BATCHES if of_row[rows] <= _ENOUGH * min(of_row.values()))


def _once(
    measures: Mapping[str, Callable[[], object]], is_valid: Callable[[Any], bool]
) -> dict[str, Any]:
    """What each of these measured, now or earlier; beside other work it is not remembered."""
    if not measures:
        return {}
    known = _remembered()
    machine: dict[str, Any] = known.setdefault(_machine(), {})
    missing = {name: call for name, call in measures.items() if not is_valid(machine.get(name))}
    start, on_core = time.perf_counter(), _clock()
    machine |= {name: call() for name, call in missing.items()}
    wall = time.perf_counter() - start
    busy = wall > _TELLING and 1 - (_clock() - on_core) / wall > HELD_UP
    if missing and not busy:
        with suppress(StoreError):  # measured again next time
            durable.write(_path(), json.dumps(known, indent=1).encode())
    return machine


def _path() -> Path:
    return cache_directory() / "products.json"


def _remembered() -> dict[str, Any]:
    with suppress(OSError, ValueError, RecursionError):
        state = _path().stat()
        return _read(_path(), (state.st_mtime_ns, state.st_size, state.st_ino))
    return {}


@lru_cache(maxsize=1)
def _read(path: Path, _: tuple[int, ...]) -> dict[str, Any]:
    """What a file of choices holds; read again when it has changed."""
    found = json.loads(path.read_text("utf-8"))
    sound = isinstance(found, dict) and all(isinstance(part, dict) for part in found.values())
    return found if sound else {}


def _has_one_a_place(found: object, kinds: Sequence[object]) -> bool:
    """Whether something is a list with one of these for each of `ROWS`."""
    return (
        isinstance(found, list) and len(found) == len(ROWS) and all(one in kinds for one in found)
    )


def _machine() -> str:
    """Processor, torch and threads: what a choice holds for."""
    capability, threads = torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    of = f"{processor()}, {capability}, torch {torch.__version__}, {threads} threads"
    return f"{of}, {spinning()}"


def processor() -> str:
    """The name of this machine's processor."""
    import platform

    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
        for wanted in ("model name", "CPU part"):
            for line in lines:
                if line.startswith(wanted):
                    return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
