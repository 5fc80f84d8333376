"""A child process under ptrace: every system call that touches a directory can be its last.

Nothing has to be installed: `ptrace` is called through ctypes, and PTRACE_GET_SYSCALL_INFO
(Linux 5.3) says which call a stop is about on any machine. Letting a call fail, or write only
half of its bytes, sets registers, which is done for x86_64 alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_TRACEME, _POKEUSER, _CONT, _SYSCALL, _SETOPTIONS = 0, 6, 7, 24, 0x4200
_GET_SYSCALL_INFO = 0x420E
_TRACESYSGOOD, _EXITKILL = 1, 0x100000
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_ENTRY, _EXIT = 1, 2
_RAX, _RDX, _ORIG_RAX = 80, 96, 120  # offsets in struct user of x86_64

MARK = "/steerlab-mark/"
"""A path that is looked for to tell the parent something: it is no file anywhere."""

# number on x86_64, on aarch64 (None: not there), where its paths are: p a path, f a descriptor,
# a a directory's descriptor and a path
_CALLS = {
    "write": (1, 64, "f"),
    "pwrite64": (18, 68, "f"),
    "writev": (20, 66, "f"),
    "pwritev": (296, 70, "f"),
    "open": (2, None, "p"),
    "openat": (257, 56, "a"),
    "fsync": (74, 82, "f"),
    "fdatasync": (75, 83, "f"),
    "truncate": (76, 45, "p"),
    "ftruncate": (77, 46, "f"),
    "fallocate": (285, 47, "f"),
    "unlink": (87, None, "p"),
    "unlinkat": (263, 35, "a"),
    "rename": (82, None, "pp"),
    "renameat": (264, 38, "aa"),
    "renameat2": (316, 276, "aa"),
    "link": (86, None, "pp"),
    "linkat": (265, 37, "aa"),
    "symlink": (88, None, ".p"),
    "mkdir": (83, None, "p"),
    "mkdirat": (258, 34, "a"),
    "rmdir": (84, None, "p"),
    "chmod": (90, None, "p"),
    "fchmod": (91, 52, "f"),
    "fchmodat": (268, 53, "a"),
    "fchown": (93, 55, "f"),
    "utimensat": (280, 88, "a"),
    "fcntl": (72, 25, "f"),
    "flock": (73, 32, "f"),
    "sendfile": (40, 71, "f"),
    "copy_file_range": (326, 285, "..f"),
    "ioctl": (16, 29, "f"),
    "access": (21, None, "p"),
    "faccessat": (269, 48, "a"),
    "faccessat2": (439, 439, "a"),
    "close": (3, 57, "f"),
}
_ASKING = ("access", "faccessat", "faccessat2")
UNWATCHED = ("close", "ioctl", *_ASKING)
"""Calls that are followed, but change nothing on a disk: no points of their own."""
WRITES = ("write", "pwrite64")


class _Info(ctypes.Structure):
    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("number", ctypes.c_uint64),  # at the exit: what the call returned
        ("arguments", ctypes.c_uint64 * 6),
    )


class Untraceable(Exception):
    """Processes can't be traced here; says why."""


@dataclass(frozen=True)
class Call:
    """A system call about to be made, or a mark: `name` is then "mark" and `paths` its text."""

    name: str
    paths: tuple[str, ...]
    arguments: tuple[int, ...]
    pid: int

    def data(self) -> bytes:
        """What a write is about to write."""
        return _bytes(self.pid, self.arguments[1], self.arguments[2])

    def __str__(self) -> str:
        return f"{self.name}({', '.join(Path(p).name for p in self.paths)})"


@dataclass(frozen=True)
class Kill:
    """A fate: SIGKILL before the call, or when `half` of the bytes of a write are written."""

    half: bool = False


Fate = Kill | int | None
"""What becomes of a call: a kill, an error (its errno), or None, nothing unusual."""


def mark(text: str) -> None:
    """In the child: tell the parent something in between its system calls."""
    os.access(MARK + text[:200].replace("\0", " "), os.F_OK)


def follow(
    work: Callable[[], object],
    root: Path,
    fate: Callable[[Call], Fate],
    after: Callable[[Call, int], object] | None = None,
) -> int:
    """Run `work` in a forked child; returns its wait status.

    fate: asked before every call that touches `root`, and at every mark. after: told what the
    calls returned. Raises Untraceable, or AssertionError with the traceback of `work`.
    """
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        _work_and_exit(work, into)
    os.close(into)
    with os.fdopen(out) as said:
        status = _trace(child, os.path.realpath(root), fate, after)
        problem = said.read()
    if problem == "untraceable":
        raise Untraceable(f"ptrace is not allowed on {platform.machine()} here")
    assert not problem, problem
    return status


def _work_and_exit(work: Callable[[], object], into: int) -> None:
    """In the child: stop until the parent follows, work, and go without any clean-up."""
    try:
        if _libc().ptrace(_TRACEME, 0, 0, 0):
            os.write(into, b"untraceable")
            os._exit(8)
        os.kill(os.getpid(), signal.SIGSTOP)
        work()
    except BaseException:
        os.write(into, traceback.format_exc().encode()[-60_000:])
        os._exit(7)
    os._exit(0)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    return libc


def _trace(
    child: int,
    root: str,
    fate: Callable[[Call], Fate],
    after: Callable[[Call, int], object] | None,
) -> int:
    libc, info = _libc(), _Info()
    names = _names()
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        return status
    libc.ptrace(_SETOPTIONS, child, 0, _TRACESYSGOOD | _EXITKILL)
    call: Call | None = None
    verdict: Fate = None
    passing = 0
    while True:
        libc.ptrace(_SYSCALL, child, 0, passing)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            return status
        passing = 0
        if os.WSTOPSIG(status) != _SYSCALL_STOP:
            passing = os.WSTOPSIG(status)
            continue
        if libc.ptrace(_GET_SYSCALL_INFO, child, ctypes.sizeof(info), ctypes.byref(info)) <= 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise Untraceable("this kernel has no PTRACE_GET_SYSCALL_INFO (Linux 5.3)")
        if info.op == _ENTRY:
            known = names.get(info.number)
            call = _call(child, known, tuple(info.arguments), root) if known else None
            verdict = fate(call) if call else None
            if verdict is not None:
                _prepare(libc, child, call, verdict)
        elif info.op == _EXIT and call is not None:
            if isinstance(verdict, Kill):
                os.kill(child, signal.SIGKILL)
            elif verdict is not None:
                libc.ptrace(_POKEUSER, child, _RAX, ctypes.c_void_p(-verdict))
            if after is not None:
                after(call, ctypes.c_int64(info.number).value)
            call = verdict = None


def _prepare(libc: ctypes.CDLL, child: int, call: Call | None, verdict: Kill | int) -> None:
    """At the entry of a call: kill, make it write less, or make it a call that does not exist."""
    assert call is not None
    if verdict == Kill():
        os.kill(child, signal.SIGKILL)
    elif isinstance(verdict, Kill):
        libc.ptrace(_POKEUSER, child, _RDX, call.arguments[2] // 2)
    else:
        libc.ptrace(_POKEUSER, child, _ORIG_RAX, ctypes.c_void_p(-1))


def _names() -> dict[int, tuple[str, str]]:
    place = {"x86_64": 0, "aarch64": 1}.get(platform.machine())
    if sys.platform != "linux" or place is None:
        raise Untraceable(f"the system calls of {sys.platform} on {platform.machine()} are unknown")
    found = {}
    for name, numbers in _CALLS.items():
        number = numbers[place]
        if number is not None:
            found[int(number)] = (name, str(numbers[2]))
    return found


def settable() -> bool:
    """Whether calls can be made to fail here, or to write half."""
    return platform.machine() == "x86_64"


def _call(child: int, known: tuple[str, str], arguments: tuple[int, ...], root: str) -> Call | None:
    """The call, if it touches the directory or is a mark."""
    name, places = known
    paths, at = [], 0
    for kind in places:
        if kind == "p":
            paths.append(_string(child, arguments[at]))
        elif kind == "f":
            paths.append(_opened(child, arguments[at]))
        elif kind == "a":
            path = _string(child, arguments[at + 1])
            here = "" if path.startswith("/") else _opened(child, arguments[at])
            paths.append(os.path.join(here, path))
            at += 1
        at += 1
    if name in _ASKING:
        text = paths[0].removeprefix(MARK)
        return Call("mark", (text,), arguments, child) if text != paths[0] else None
    if not any(path == root or path.startswith(f"{root}/") for path in paths):
        return None
    return Call(name, tuple(paths), arguments, child)


def _opened(child: int, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{child}/fd/{ctypes.c_int32(descriptor).value}")
    except OSError:  # AT_FDCWD, or not open
        return os.readlink(f"/proc/{child}/cwd")


def _string(child: int, address: int) -> str:
    found = b""
    while b"\0" not in found:
        found += _bytes(child, address + len(found), 256 - (address + len(found)) % 256)
    return os.fsdecode(found.partition(b"\0")[0])


def _bytes(child: int, address: int, count: int) -> bytes:
    with open(f"/proc/{child}/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        found = b""
        while len(found) < count:
            part = memory.read(count - len(found))
            if not part:
                raise OSError(errno.EIO, f"can't read the memory of process {child}")
            found += part
        return found
