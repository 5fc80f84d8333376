"""One file for many: the archives in which vectors and whole stores travel.

An archive is an uncompressed tar (ustar) of plain files: `payloads/…/<digest>.safetensors`,
for a whole store also `registry.db`, and last `SHA256SUMS`, so that nothing can be missing or
altered unnoticed. Any tar unpacks it to a directory that is a store, and `sha256sum -c
SHA256SUMS` checks it there.

Reading takes nothing on trust: headers are read here one by one, a plain file of such a name is
taken, and a link, a device, a name that leads elsewhere or a size that the file can't have
refuses the archive.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
import tarfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from steerlab.core.display import printable
from steerlab.errors import CorruptPayload, NotFound, StoreError
from steerlab.files.durable import TEMPORARY_PREFIX, make_directory, sync_directory
from steerlab.progress import Progress

SUFFIX = ".tar"
REGISTRY = "registry.db"
SUMS = "SHA256SUMS"

_PAYLOAD = re.compile(r"payloads(/[^/.\\][^/\\]*)+\.safetensors")
_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20
_LARGEST_USTAR = 8**11  # bytes; a larger file needs GNU's way to write a size
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.DIRTYPE: "a directory",
}


class Writer:
    """An archive that is being written; the same files give the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sums: dict[str, str] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._sums

    def add(self, name: str, data: bytes) -> None:
        """Add a file; raises StoreError for a name that no archive can hold."""
        self._add(name, len(data), [data])

    def add_file(self, name: str, source: Path) -> None:
        """Add a copy of a file, a piece at a time."""
        with _opened(source) as file:
            size = os.fstat(file.fileno()).st_size
            self._add(name, size, _pieces(file, source))

    def finish(self) -> None:
        """Add the checksums and the end mark."""
        sums = _sums(self._sums)
        self._add(SUMS, len(sums), [sums])
        self._file.write(bytes(2 * _BLOCK))

    def _add(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        if not _belongs(name) or name in self._sums:
            raise StoreError(f"an archive can't hold a file called {printable(name)}")
        self._file.write(_header(name, size))
        done, digest = 0, hashlib.sha256()
        for chunk in chunks:
            self._file.write(chunk)
            digest.update(chunk)
            done += len(chunk)
        if done != size:
            raise StoreError(f"{printable(name)} changed while it was read: try again")
        self._file.write(bytes(-size % _BLOCK))
        self._sums[name] = digest.hexdigest()


def check_target(target: Path, *, force: bool = False) -> None:
    """Raise StoreError where no archive can go: a directory, or a file that is to stay."""
    try:
        taken = target.is_dir() or (target.exists() and not force)
    except OSError as error:
        raise StoreError(f"can't write {target}: {error.strerror or error}") from None
    if taken:
        raise StoreError(f"{target} exists: choose another name, or delete it first")


@contextlib.contextmanager
def create(target: Path, *, force: bool = False) -> Iterator[Writer]:
    """A new archive: whole and durable at its place when the block ends, or not there at all.

    force: replace a file that is there. Raises StoreError where one is, or nothing can be
    written.
    """
    check_target(target, force=force)
    temporary = target.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}")
    try:
        make_directory(target.parent)
        with open(temporary, "xb") as file:
            writer = Writer(file)
            yield writer
            writer.finish()
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_directory(target.parent)
    except OSError as error:
        raise StoreError(f"can't write {target}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_archive(path: Path) -> bool:
    """Whether a file is an archive rather than a payload, by what is in it.

    Raises NotFound if there is no such file, StoreError if it is no plain file or unreadable.
    """
    with _opened(path) as file:
        start = file.read(_BLOCK)
    return start[257:262] == b"ustar" and start[8:9] != b"{"  # there a payload's header begins


def can_hold(name: str) -> bool:
    """Whether a file of this name can be in an archive."""
    try:
        return _belongs(name) and bool(_header(name, 0))
    except StoreError:
        return False


def unpack(
    path: Path, place: Callable[[str], Path], progress: Progress | None = None
) -> Iterator[tuple[str, Path]]:
    """Write each file of an archive to the new path that `place` gives for its name, in turn.

    Yields (name, path) once a file is written; only after the last is it known that the archive
    is whole. Memory: a piece of a file. progress: called with (bytes read, bytes).
    Raises CorruptPayload for anything but an archive that is just as it was written.
    """
    sums: dict[str, str] = {}
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        while (info := _next(file, size, path)).name != SUMS:
            if info.name in sums:
                raise CorruptPayload(f"{path} holds {info.name} twice: nothing was taken from it")
            target = place(info.name)
            sums[info.name] = _copy(file, info.size, target)
            yield info.name, target
            if progress is not None:
                progress(file.tell(), size)
        _compare(file, info.size, sums, path)


def _pieces(file: BinaryIO, source: Path) -> Iterator[bytes]:
    try:
        while piece := file.read(_CHUNK):
            yield piece
    except OSError as error:
        raise StoreError(f"can't read {source}: {error.strerror}") from None


def _copy(file: BinaryIO, size: int, target: Path) -> str:
    digest = hashlib.sha256()
    with open(target, "xb") as copy:
        for start in range(0, size, _CHUNK):
            chunk = file.read(min(_CHUNK, size - start))
            digest.update(chunk)
            copy.write(chunk)
    file.seek(-size % _BLOCK, os.SEEK_CUR)
    return digest.hexdigest()


def _next(file: BinaryIO, size: int, path: Path) -> tarfile.TarInfo:
    """The next header, of a plain file that may be in an archive and fits into it."""
    block = file.read(_BLOCK)
    if len(block) < _BLOCK or not any(block):
        raise CorruptPayload(
            f"{path} is cut short: the checksums at its end are missing; copy it here again"
        )
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        where = file.tell() - _BLOCK
        raise CorruptPayload(
            f"{path} is damaged: no file begins at byte {where}; copy it here again"
        ) from None
    name = printable(info.name[:100])
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        kind = _KINDS.get(info.type, f"an entry of type {info.type!r}")
        raise CorruptPayload(
            f"{path} holds {kind}, {name}, where only plain files may be: nothing was taken from it"
        )
    if not _belongs(info.name):
        raise CorruptPayload(
            f"{path} holds {name}, which has no place in a store: nothing was taken from it"
        )
    left = size - file.tell()
    if not 0 <= info.size <= left:
        raise CorruptPayload(
            f"{path} is cut short or damaged: {name} should have {info.size} bytes, {left} are "
            "left; copy it here again"
        )
    return info


def _compare(file: BinaryIO, left: int, sums: dict[str, str], path: Path) -> None:
    """Refuse checksums that are not those of the files, in their order; `left` bytes of them."""
    for name, digest in sums.items():
        true = _line(name, digest)
        said = file.read(min(left, len(true)))
        left -= len(said)
        if not said:
            raise _other_files(path)
        if said != true:
            raise CorruptPayload(
                f"{path} was altered: {name} does not match its checksum; copy it here again, or "
                "unpack it with tar and import the payloads that are whole"
            )
    if left:
        raise _other_files(path)


def _other_files(path: Path) -> CorruptPayload:
    return CorruptPayload(f"{path} was altered: it holds other files than its checksums name")


def _belongs(name: str) -> bool:
    return name in (REGISTRY, SUMS) or (name.isprintable() and bool(_PAYLOAD.fullmatch(name)))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)  # mode 644, no owner, the year 1970
    info.size = size
    try:
        if size < _LARGEST_USTAR:
            header = info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict")
        else:
            header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "strict")
    except ValueError:
        header = b""
    if len(header) != _BLOCK:
        raise StoreError(f"an archive can't hold a name as long as {printable(name)}")
    return header


def _sums(sums: dict[str, str]) -> bytes:
    return b"".join(_line(name, digest) for name, digest in sums.items())


def _line(name: str, digest: str) -> bytes:
    """As sha256sum writes it."""
    return f"{digest}  {name}\n".encode()


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
