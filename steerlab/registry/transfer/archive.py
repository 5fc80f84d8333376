"""Archives: many vectors, or a whole store, in one file.

An archive is an uncompressed tar (ustar) of plain files: `payloads/…/<digest>.safetensors`,
`results/…/<sha256>.json`, `registry.db` and `labels/…/<story>.json` for a whole store, and last
`SHA256SUMS`. `tar` unpacks it to a directory that is a store, and `sha256sum -c SHA256SUMS` checks
that.

Headers are parsed by `tarfile.TarInfo.frombuf`, one at a time. `tarfile.open` does not serve for
files of strangers: it reads extended headers of any size into memory, and takes a damaged header
for the end of the archive.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from steerlab.core.display import printable
from steerlab.errors import CorruptPayload, NotFound, SteerlabError, StoreError
from steerlab.files import durable
from steerlab.progress import Progress

SUFFIX = ".tar"
REGISTRY = "registry.db"
SUMS = "SHA256SUMS"

_FILE = re.compile(
    r"(payloads(/[^/.\\][^/\\]*)+\.safetensors|(labels|results)(/[^/.\\][^/\\]*)+\.json)"
)
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_LARGEST_USTAR = 8**11  # bytes; the size of a larger file needs GNU's format
_COPY_AGAIN = "copy it here again"
_NOTHING = "nothing was taken from it"


class Writer:
    """Writes an archive; the same files give the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sums: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._sums

    def add(self, name: str, data: bytes) -> None:
        """Add a file; raises StoreError for a name that no archive can hold."""
        self._add(name, len(data), io.BytesIO(data), "memory")

    def add_file(self, name: str, source: Path) -> None:
        """Add a copy of a file, a piece at a time."""
        with _opened(source) as file:
            self._add(name, os.fstat(file.fileno()).st_size, file, source)

    def finish(self) -> None:
        """Add the checksums and the end mark."""
        self.add(SUMS, b"".join(map(_line, self._sums.items())))
        self._file.write(bytes(2 * _BLOCK))

    def _add(self, name: str, size: int, source: BinaryIO, what: object) -> None:
        header = _header(name, size)
        if header is None or name in self._sums:
            raise StoreError(f"an archive can't hold a file called {printable(name)}")
        self._file.write(header)
        done, digest = 0, hashlib.sha256()
        while chunk := _read(source, _CHUNK, what):
            self._file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
        if done != size:
            raise StoreError(f"{printable(name)} changed while it was read: try again")
        self._file.write(bytes(-size % _BLOCK))
        self._sums[name] = digest.hexdigest()


def check_target(target: Path, *, force: bool = False) -> None:
    """Raise StoreError if `target` is a directory, or exists and `force` is not set."""
    try:
        taken = target.is_dir() or (target.exists() and not force)
    except OSError as error:
        raise StoreError(f"can't write {target}: {error.strerror or error}") from None
    if taken:
        raise StoreError(f"{target} exists: choose another name, or delete it first")


@contextlib.contextmanager
def create(target: Path, *, force: bool = False) -> Iterator[Writer]:
    """Write an archive: whole and durable when the block ends without an error, else absent.

    force: replace an existing file. Raises StoreError if there is one, or nothing can be
    written.
    """
    check_target(target, force=force)
    with durable.writing(target) as file:
        writer = Writer(file)
        yield writer
        writer.finish()


def is_archive(path: Path) -> bool:
    """Whether a file is an archive rather than a payload, judging by its first bytes.

    Raises NotFound if there is no such file, StoreError if it is no plain file or unreadable.
    """
    with _opened(path) as file:
        start = file.read(_BLOCK)
    return start[257:262] == b"ustar" and start[8:9] != b"{"  # there a payload's header begins


def can_hold(name: str) -> bool:
    """Whether a file of this name can be in an archive."""
    return _header(name, 0) is not None


def unpack(
    path: Path, place: Callable[[str], Path], progress: Progress | None = None
) -> Iterator[tuple[str, Path]]:
    """Write each file of an archive to the new path that `place` gives for its name.

    Yields (name, path) once a file is written; the archive is known to be whole only after the
    last. Holds a piece of a file in memory. progress: called with (bytes read, all).
    Raises CorruptPayload for anything but an archive that is just as it was written.
    """
    sums: dict[str, str] = {}
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        while (info := _next(file, size, path)).name != SUMS:
            if info.name in sums:
                raise CorruptPayload(f"{path} holds {info.name} twice: {_NOTHING}")
            target = place(info.name)
            sums[info.name] = _copy(file, info.size, target)
            yield info.name, target
            if progress is not None:
                progress(file.tell(), size)
        _compare(file, info.size, sums, path)


@contextlib.contextmanager
def called(file: Path, name: str) -> Iterator[None]:
    """Replace a temporary path in errors by the name that the user knows."""
    try:
        yield
    except SteerlabError as error:
        if str(file) == name:
            raise
        raise type(error)(str(error).replace(str(file), name)) from None


def _next(file: BinaryIO, size: int, path: Path) -> tarfile.TarInfo:
    """The next header: of a plain file that may be in an archive and fits into it."""
    block = file.read(_BLOCK)
    if len(block) < _BLOCK or not any(block):
        raise CorruptPayload(
            f"{path} is cut short: the checksums at its end are missing; {_COPY_AGAIN}"
        )
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        where = file.tell() - _BLOCK
        raise CorruptPayload(
            f"{path} is damaged: no file begins at byte {where}; {_COPY_AGAIN}"
        ) from None
    name, left = printable(info.name[:100]), size - file.tell()
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise CorruptPayload(f"{path} holds {name}, which is not a plain file: {_NOTHING}")
    if not _belongs(info.name):
        raise CorruptPayload(f"{path} holds {name}, which has no place in a store: {_NOTHING}")
    if not 0 <= info.size <= left:
        raise CorruptPayload(
            f"{path} is cut short or damaged: {name} should have {info.size} bytes, {left} are "
            f"left; {_COPY_AGAIN}"
        )
    return info


def _copy(file: BinaryIO, size: int, target: Path) -> str:
    """Write the next `size` bytes to a new file; returns their SHA-256."""
    digest = hashlib.sha256()
    with open(target, "xb") as copy:
        for start in range(0, size, _CHUNK):
            chunk = file.read(min(_CHUNK, size - start))
            digest.update(chunk)
            copy.write(chunk)
    file.seek(-size % _BLOCK, os.SEEK_CUR)
    return digest.hexdigest()


def _compare(file: BinaryIO, size: int, sums: dict[str, str], path: Path) -> None:
    """Refuse checksums, the next `size` bytes, that are not those of the files in their order."""
    lines = [_line(item) for item in sums.items()]
    found = file.read(min(size, sum(map(len, lines)) + 1)).splitlines(keepends=True)
    for name, line, said in zip(sums, lines, found, strict=False):
        if said != line:
            raise CorruptPayload(
                f"{path} was altered: {name} does not match its checksum; {_COPY_AGAIN}, or "
                "unpack it with tar and import the payloads that are whole"
            )
    if len(found) != len(lines):
        raise CorruptPayload(f"{path} was altered: it holds other files than its checksums name")


def _belongs(name: str) -> bool:
    return name in (REGISTRY, SUMS) or (name.isprintable() and bool(_FILE.fullmatch(name)))


def _header(name: str, size: int) -> bytes | None:
    """The header of a file: mode 644, no owner, the year 1970; None for a name it can't hold."""
    info = tarfile.TarInfo(name)
    info.size = size
    large = size >= _LARGEST_USTAR
    with contextlib.suppress(ValueError):
        header = info.tobuf(
            tarfile.GNU_FORMAT if large else tarfile.USTAR_FORMAT, "utf-8", "strict"
        )
        if _belongs(name) and len(header) == _BLOCK:
            return header
    return None


def _line(item: tuple[str, str]) -> bytes:
    """A file's line in SHA256SUMS, as `sha256sum` writes it."""
    name, digest = item
    return f"{digest}  {name}\n".encode()


def _read(file: BinaryIO, size: int, what: object) -> bytes:
    try:
        return file.read(size)
    except OSError as error:
        raise StoreError(f"can't read {what}: {error.strerror}") from None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a FIFO would wait for ever
            raise StoreError(f"can't read {path}: it is no plain file")
        file = open(path, "rb")  # noqa: SIM115  # closed below, whatever the caller does
    except FileNotFoundError:
        raise NotFound(f"no file {path}") from None
    except OSError as error:
        raise StoreError(f"can't read {path}: {error.strerror}") from None
    with file:
        yield file
