"""Feeding hostile files to a reader, case by case, and watching what it does.

Each case is made from (seed, reader, number) alone, so that any of them can be had again:
`python -m tests.fuzz --case READER NUMBER`.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from steerlab.errors import SteerlabError
from tests.fuzz.readers import ACCEPTED, READERS, Reader, checked

PATIENCE = 10.0
"""Seconds after which a case hangs."""

ROOM = 100_000_000
"""Bytes of memory that a case may take beyond twice its file."""


class Hang(BaseException):
    """A case that took longer than PATIENCE."""


@dataclass
class Tally:
    """What became of the cases of a reader. failures: (number, kind, what happened)."""

    reader: str
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    memory: int = 0
    failures: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def cases(self) -> int:
        return self.outcomes.total()

    def count(self, kind: str) -> int:
        """How many failures of a kind: crash, hang, memory, outside."""
        return sum(found == kind for _, found, _ in self.failures)

    def add(self, other: Tally) -> None:
        """Take in what another run over the same reader found."""
        self.outcomes += other.outcomes
        self.slowest = max(self.slowest, other.slowest)
        self.memory = max(self.memory, other.memory)
        self.failures += other.failures


def case(seed: int, reader: Reader, number: int) -> bytes:
    """The file of one case."""
    return reader.make(Random(f"{seed}/{reader.name}/{number}"))


def run(name: str, numbers: Iterable[int], directory: Path, seed: int) -> Tally:
    """Feed a reader; `directory` is where its files go, and the only place it may write to."""
    reader = READERS[name]
    tally = Tally(name)
    path = directory / f"case{reader.suffix}"
    if name == "tui memory":
        path = directory / "tui.json"
    with contextlib.suppress(SteerlabError):  # what is imported or compiled at first use
        path.write_bytes(case(seed, reader, 0))
        reader.read(path)
    for number in numbers:
        data = case(seed, reader, number)
        path.write_bytes(data)
        one(tally, number, reader, path, len(data))
    return tally


def one(tally: Tally, number: int, reader: Reader, path: Path, size: int) -> None:
    """Feed one case and note what happened."""
    reset_peak()
    before, start = peak(), time.perf_counter()
    try:
        with watched(path.parent) as offences, patience(), scratch(path.parent) as left:
            reader.read(path)
        outcome = ACCEPTED
    except SteerlabError as error:
        try:
            outcome = checked(error)
        except AssertionError as broken:
            outcome = "crash"
            tally.failures.append((number, "crash", str(broken)))
    except Hang:
        outcome = "hang"
        tally.failures.append((number, "hang", f"more than {PATIENCE:.0f} s"))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        outcome = "crash"
        tally.failures.append((number, "crash", _short(error)))
    tally.slowest = max(tally.slowest, time.perf_counter() - start)
    tally.outcomes[outcome] += 1
    grown = peak() - before
    tally.memory = max(tally.memory, grown - size)
    if grown > 2 * size + ROOM:
        tally.failures.append((number, "memory", f"{grown / 1e6:.0f} MB for {size} bytes"))
    if offences or left:
        tally.failures.append((number, "outside", f"{offences[:3]} {left[:3]}"))


def _short(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {error!s:.300}"


@contextlib.contextmanager
def patience() -> Iterator[None]:
    """Raise Hang where the block takes too long; where it never gets back to Python, die."""

    def ring(number: int, frame: FrameType | None) -> None:
        raise Hang

    old = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    faulthandler.dump_traceback_later(6 * PATIENCE, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@contextlib.contextmanager
def scratch(directory: Path) -> Iterator[list[str]]:
    """Have temporary files made below a directory; what is left of them once the block ends."""
    place, old, left = directory / "scratch", tempfile.tempdir, list[str]()
    place.mkdir(exist_ok=True)
    tempfile.tempdir = str(place)
    try:
        yield left
    finally:
        tempfile.tempdir = old
        left += [f"left in the temporary directory: {found.name}" for found in place.iterdir()]
        shutil.rmtree(place)


def reset_peak() -> None:
    """Let the kernel forget this process's high-water mark; Linux can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The most memory that this process held since, in bytes."""
    try:
        status = Path("/proc/self/status").read_bytes()
        at = status.index(b"VmHWM:") + 6
        return int(status[at : status.index(b"kB", at)]) * 1024
    except (OSError, ValueError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


_RUNS = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn"}
_RUNS |= {"pickle.find_class", "ctypes.dlopen", "socket.connect"}
_WRITES = {"os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
_WRITES |= {"os.truncate", "os.chmod", "os.chown", "shutil.rmtree"}
_WATCHING: list[tuple[Path, list[str]]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook, which stays for good: it looks on only while a case is read."""
    if not _WATCHING:
        return
    directory, offences = _WATCHING[-1]
    if event in _RUNS:
        offences.append(f"{event} {arguments!r:.200}")
    elif event in _WRITES:
        paths = [_whole(p, arguments[-1]) for p in arguments if isinstance(p, str | bytes | Path)]
        offences += [f"{event} {p!r}" for p in paths if _outside(p, directory)]
    elif event == "open":
        path, mode, flags = arguments
        writes = any(c in str(mode or "") for c in "wax+") or flags & 3
        if writes and _outside(path, directory):
            offences.append(f"open {path!r} {mode}")


def _whole(path: str | bytes | Path, descriptor: object) -> str:
    """A path that may be relative to an open directory, as the calls of `shutil.rmtree` are."""
    text = os.fsdecode(path)
    if isinstance(descriptor, int) and descriptor >= 0 and not os.path.isabs(text):
        return os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), text)
    return text


def _outside(path: object, directory: Path) -> bool:
    if not isinstance(path, str | bytes | Path):
        return False
    text = path.decode(errors="replace") if isinstance(path, bytes) else str(path)
    allowed = (f"{directory}", "/dev/null", "/proc/self", *_cache())
    return not (text.startswith(allowed) and ".." not in text)


def _cache() -> list[str]:
    """The user's cache, where the directions of a store are kept for `similar`."""
    found = os.environ.get("STEERLAB_CACHE")
    return [found] if found else []


@contextlib.contextmanager
def watched(directory: Path) -> Iterator[list[str]]:
    """What is written outside of a directory meanwhile, and code that is run."""
    if _audit not in _HOOKED:
        sys.addaudithook(_audit)
        _HOOKED.append(_audit)
    offences: list[str] = []
    _WATCHING.append((directory, offences))
    try:
        yield offences
    finally:
        _WATCHING.pop()


_HOOKED: list[object] = []
