"""Activations of a large set on disk: memory stays constant, and stopped work goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from steerlab.errors import StoreError
from steerlab.extraction.readings import Array, Readings

WINDOW = 100
"""Prompts of each side that are read at once; a stopped extraction repeats at most so many."""

_STATE = "state.json"
_STALE = 7 * 24 * 3600.0  # seconds


def abandoned(directory: Path, *, delete: bool) -> dict[Path, int]:
    """Extractions there that were stopped over a week ago, and their sizes in bytes.

    delete: delete them. Those that a process has open are left out.
    """
    found: dict[Path, int] = {}
    for path in sorted(directory.glob("*/")):
        with contextlib.suppress(OSError, StoreError):
            files = [file.stat() for file in path.iterdir() if file.name != "lock"]
            newest = max((file.st_mtime for file in files), default=path.stat().st_mtime)
            if time.time() - newest < _STALE:
                continue
            with open(path / "lock", "ab") as lock:
                _hold(lock)
                if delete:
                    shutil.rmtree(path)
            found[path] = sum(file.st_size for file in files)
    return found


class Spool:
    """Windows of activations of three sides (positive, negative, baseline), in order.

    sizes: prompts of each side; window w has rows w * WINDOW to (w + 1) * WINDOW of each. Values
    are float32, as models compute them. A directory that holds windows of the same work goes on
    after them. Only one process has it open. It is removed when its block ends without an error,
    or empty.
    """

    def __init__(
        self, directory: Path, sizes: tuple[int, int, int], layers: Sequence[int], d_model: int
    ) -> None:
        self.directory, self.sizes, self.layers, self.d_model = directory, sizes, layers, d_model
        self.digests: list[str] = []  # of the windows' token ids
        self.norms: list[int] = []  # how many norms each window has of one layer

    def __enter__(self) -> Spool:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.directory / "lock", "wb")
            _hold(self._lock)
            self._check_room()
            self._values, self._norms = (self._opened(name) for name in ("values", "norms"))
            self._resume()
        except BaseException as error:
            self._close()
            if isinstance(error, OSError):
                why = error.strerror or error
                raise StoreError(f"can't write {self.directory}: {why}") from None
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self._close()
        if kind is None or not self.digests:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _close(self) -> None:
        for name in ("_values", "_norms", "_lock"):
            if (file := getattr(self, name, None)) is not None:
                file.close()

    @property
    def windows(self) -> range:
        """The windows that are still to be read."""
        return range(len(self.digests), -(-max(self.sizes) // WINDOW))

    @property
    def done(self) -> int:
        """How many prompts have been read."""
        return sum(min(size, len(self.digests) * WINDOW) for size in self.sizes)

    def keep(self, windows: int) -> None:
        """Drop all windows but the first ones."""
        self.digests, self.norms = self.digests[:windows], self.norms[:windows]
        for name, end in self._ends().items():
            getattr(self, name).truncate(end)
            getattr(self, name).seek(0, os.SEEK_END)

    def add(self, found: Readings, digest: str) -> None:
        """Append a window: rows of the sides that it has, and the norms of its tokens."""
        rows = self._rows(len(self.digests))
        cuts = np.cumsum(rows)[:-1]
        counts = {len(found.sizes[b]) for b in self.layers}
        try:
            for side in range(len(rows)):
                for layer in self.layers:
                    part = np.split(found.values[layer], cuts)[side]
                    self._values.write(part.astype("<f4").tobytes())
            for layer in self.layers:
                self._norms.write(found.sizes[layer].astype("<f4").tobytes())
            for file in (self._values, self._norms):
                file.flush()
                os.fsync(file.fileno())
            self.digests.append(digest)
            self.norms.append(counts.pop())
            self._write_state()
        except OSError as error:
            raise StoreError(f"can't write {self.directory}: {error.strerror or error}") from None

    def rows(self, layer: int, side: int) -> Iterator[Array]:
        """The activations of one side at a layer, window by window: (n, d_model) each."""
        start = 0
        for window in range(len(self.digests)):
            rows = self._rows(window)
            before = sum(rows[:side]) * len(self.layers) + rows[side] * self.layers.index(layer)
            yield self._read(self._values, start + before * self.d_model, rows[side])
            start += sum(rows) * len(self.layers) * self.d_model

    def pairs(self, layer: int) -> Iterator[tuple[Array, Array]]:
        """The positive and negative activations of a layer, window by window."""
        return zip(self.rows(layer, 0), self.rows(layer, 1), strict=True)

    def median_norm(self, layer: int) -> float | None:
        """The median norm of all tokens at a layer, exactly; None without any."""
        n = sum(self.norms)
        if not n:
            return None
        return (self._nth(layer, (n - 1) // 2) + self._nth(layer, n // 2)) / 2

    def _nth(self, layer: int, n: int) -> float:
        """The n-th smallest norm: the bits of positive floats are ordered as they are."""
        prefix = 0
        for shift in (16, 0):
            counts = np.zeros(1 << 16, dtype=np.int64)
            for bits in self._norm_bits(layer):
                chosen = bits if shift else bits[bits >> 16 == prefix]
                counts += np.bincount(chosen >> shift & 0xFFFF, minlength=1 << 16)
            below = np.cumsum(counts)
            digit = int(np.searchsorted(below, n, side="right"))
            n -= int(below[digit - 1]) if digit else 0
            prefix = prefix << 16 | digit
        return float(np.array([prefix], dtype="<u4").view("<f4")[0])

    def _norm_bits(self, layer: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
        start, index = 0, self.layers.index(layer)
        for count in self.norms:
            self._norms.seek(4 * (start + count * index))
            yield np.frombuffer(self._norms.read(4 * count), "<u4").astype(np.int64)
            start += count * len(self.layers)

    def _rows(self, window: int) -> list[int]:
        """How many rows each side has in a window."""
        return [max(min(size - window * WINDOW, WINDOW), 0) for size in self.sizes]

    def _read(self, file: BinaryIO, start: int, rows: int) -> Array:
        file.seek(4 * start)
        data = np.frombuffer(file.read(4 * rows * self.d_model), "<f4")
        return data.reshape(rows, self.d_model).astype(np.float64)

    # files

    def _check_room(self) -> None:
        needed = 4 * sum(self.sizes) * len(self.layers) * self.d_model
        held = self.directory / "values"
        free = shutil.disk_usage(self.directory).free
        if needed - (held.stat().st_size if held.exists() else 0) > free:
            raise StoreError(
                f"{self.directory} has room for {free / 1e9:.1f} GB, and the activations take "
                f"{needed / 1e9:.1f} GB: choose fewer layers, or another STEERLAB_CACHE"
            )

    def _opened(self, name: str) -> BinaryIO:
        path = self.directory / name
        path.touch()
        return open(path, "r+b")

    def _resume(self) -> None:
        """Take up what is there, up to the last window that was written whole."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            state = json.loads((self.directory / _STATE).read_text())
            self.digests, self.norms = list(map(str, state["digests"])), list(state["norms"])
        ends = self._ends()
        for name, end in ends.items():
            if getattr(self, name).seek(0, os.SEEK_END) < end:
                self.digests, self.norms = [], []
        self.keep(len(self.digests))

    def _ends(self) -> dict[str, int]:
        """Where the windows end in each file, in bytes."""
        rows = sum(sum(self._rows(window)) for window in range(len(self.digests)))
        size = 4 * len(self.layers)
        return {"_values": size * rows * self.d_model, "_norms": size * sum(self.norms)}

    def _write_state(self) -> None:
        state = {"digests": self.digests, "norms": self.norms}
        new = self.directory / f"{_STATE}.new"
        new.write_text(json.dumps(state))
        os.replace(new, self.directory / _STATE)


def _hold(lock: BinaryIO) -> None:
    """Raise StoreError if another process holds this lock."""
    try:
        import fcntl  # not on Windows

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        return
    except BlockingIOError:
        raise StoreError(
            "another process extracts the same prompts at the same layers: wait for it"
        ) from None
