"""Activations of a large set on disk: memory stays constant, and stopped work goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from steerlab.errors import StoreError
from steerlab.extraction.readings import Array, Readings

WINDOW = 100
"""Prompts of each side that are read at once; a stopped extraction repeats at most so many."""

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
            with _held(path):
                if delete:
                    shutil.rmtree(path)
            found[path] = sum(file.st_size for file in files)
    return found


@contextlib.contextmanager
def spooled(
    directory: Path, sizes: tuple[int, int, int], layers: Sequence[int], d_model: int
) -> Iterator[Spool]:
    """A spool in a directory, which goes on after windows of the same work that are there.

    Only one process has it open. It is removed when the block ends without an error, or empty.
    """
    with _held(directory):
        try:
            spool = Spool(directory, sizes, layers, d_model)
        except OSError as error:
            raise StoreError(f"can't use {directory}: {error.strerror or error}") from None
        try:
            yield spool
            spool.digests.clear()
        finally:
            if not spool.digests:
                shutil.rmtree(directory, ignore_errors=True)


class Spool:
    """Windows of activations of three sides (positive, negative, baseline), in order.

    sizes: prompts of each side; window w has rows w * WINDOW to (w + 1) * WINDOW of each. It is an
    npz file, written whole: "values/layer" has the rows of its sides, "norms/layer" the norms of
    all tokens there, in float32, as models compute them. digests: of the windows' token ids.
    """

    def __init__(
        self, directory: Path, sizes: tuple[int, int, int], layers: Sequence[int], d_model: int
    ) -> None:
        self.directory, self.sizes, self.layers, self.d_model = directory, sizes, layers, d_model
        self.digests: list[str] = []
        self._check_room()
        with contextlib.suppress(StoreError):  # to a gap
            while True:
                self.digests.append(str(self._array(len(self.digests), "ids")))
        self.keep(len(self.digests))

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
        del self.digests[windows:]
        kept = [self.directory / "lock", *map(self._path, range(windows))]
        for path in sorted({*self.directory.iterdir()}.difference(kept), reverse=True):
            if path.is_file():
                path.unlink()

    def add(self, found: Readings, digest: str) -> None:
        """Append a window: rows of the sides that it has, and the norms of its tokens."""
        window = len(self.digests)
        arrays = {f"values/{b}": found.values[b] for b in self.layers}
        arrays |= {f"norms/{b}": found.sizes[b] for b in self.layers}
        new = self.directory / "new"
        try:
            with open(new, "wb") as file:
                floats = {name: array.astype("<f4") for name, array in arrays.items()}
                np.savez(file, ids=np.array(digest), **floats)  # type: ignore[arg-type]
                file.flush()
                os.fsync(file.fileno())
            os.replace(new, self._path(window))
        except OSError as error:
            raise StoreError(f"can't write {self.directory}: {error.strerror or error}") from None
        self.digests.append(digest)

    def rows(self, layer: int, side: int) -> Iterator[Array]:
        """The activations of one side at a layer, window by window: (n, d_model) each."""
        return (sides[side] for sides in self._sides(layer))

    def pairs(self, layer: int) -> Iterator[tuple[Array, Array]]:
        """The positive and negative activations of a layer, window by window."""
        return ((positive, negative) for positive, negative, _ in self._sides(layer))

    def median_norm(self, layer: int) -> float | None:
        """The median norm of all tokens at a layer; None without any."""
        norms = np.concatenate([*self._arrays(f"norms/{layer}")])
        if not len(norms):
            return None
        middle = [(len(norms) - 1) // 2, len(norms) // 2]
        norms.partition(middle)  # in its place: there may be many
        return float(norms[middle].astype(np.float64).mean())

    def _rows(self, window: int) -> list[int]:
        """How many rows each side has in a window."""
        return [max(min(size - window * WINDOW, WINDOW), 0) for size in self.sizes]

    def _sides(self, layer: int) -> Iterator[list[Array]]:
        for window, values in enumerate(self._arrays(f"values/{layer}")):
            yield np.split(values.astype(np.float64), np.cumsum(self._rows(window))[:-1])

    def _arrays(self, name: str) -> Iterator[NDArray[np.float32]]:
        return (self._array(window, name) for window in range(len(self.digests)))

    def _array(self, window: int, name: str) -> NDArray[Any]:
        path = self._path(window)
        try:
            with np.load(path) as file:
                found: NDArray[Any] = file[name]
                return found
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise StoreError(f"can't read {path}: {error}; delete it, and extract again") from None

    def _path(self, window: int) -> Path:
        return self.directory / f"{window:08}.npz"

    def _check_room(self) -> None:
        needed = 4 * sum(self.sizes) * len(self.layers) * self.d_model
        held = sum(file.stat().st_size for file in self.directory.iterdir())
        free = shutil.disk_usage(self.directory).free
        if needed - held > free:
            raise StoreError(
                f"{self.directory} has room for {free / 1e9:.1f} GB, and the activations take "
                f"{needed / 1e9:.1f} GB: choose fewer layers, or another STEERLAB_CACHE"
            )


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Hold a directory, which is made if it is missing; StoreError if another process does."""
    from filelock import FileLock, Timeout

    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = FileLock(directory / "lock", timeout=0, fallback_to_soft=False)
        lock.acquire()
    except Timeout:
        raise StoreError(
            "another process extracts the same prompts at the same layers: wait for it"
        ) from None
    except OSError as error:
        raise StoreError(f"can't write {directory}: {error.strerror or error}") from None
    try:
        yield
    finally:
        lock.release()
