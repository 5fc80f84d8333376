"""A power cut: what a disk may hold when the system calls of a writer stop, at its worst.

A kill loses nothing that was written, so it notices no missing fsync. Here the calls of a
writer are replayed on a model of a disk that keeps only what it must: the bytes of a file as of
its last fsync, the names in a directory as of the directory's.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.registry.tracing import Call

_BLOCK = 4096
_WRITING = ("write", "pwrite64", "writev", "pwritev", "ftruncate", "sendfile", "copy_file_range")
WAYS = ("nothing unsynced is kept", "names are kept, bytes are zeros", "what is kept is chance")


@dataclass(eq=False)
class Node:
    """A file or a directory: as programs see it, and as it surely is on the disk."""

    data: bytes = b""
    synced: bytes = b""
    names: dict[str, Node] | None = None
    synced_names: dict[str, Node] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Node:
        """What lies on a real disk, all of it synced."""
        if path.is_dir():
            names = {child.name: cls.read(child) for child in path.iterdir()}
            return cls(names=names, synced_names=dict(names))
        return cls(path.read_bytes(), path.read_bytes())

    def sync(self) -> None:
        self.synced = self.data
        self.synced_names = dict(self.names or {})


class Disk:
    """A directory whose every change is watched."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self.top = Node.read(root)

    def watch(self, call: Call, result: int) -> bool:
        """Take in what a call did; returns whether it did anything to the disk."""
        if result < 0 or any(path.endswith("-shm") for path in call.paths):
            return False  # the -shm file is memory, made anew after any crash
        name = call.name.removesuffix("2").removesuffix("at")
        if name == "open":
            return bool(call.arguments[2] & (os.O_CREAT | os.O_TRUNC)) and self._open(call)
        if name in _WRITING:
            return self._write(call)
        change = {
            "fsync": self._sync,
            "fdatasync": self._sync,
            "mkdir": self._mkdir,
            "unlink": self._unlink,
            "rmdir": self._unlink,
            "rename": self._rename,
            "link": self._link,
        }.get(name)
        if change is not None:
            change(*call.paths)
        return change is not None

    def _place(self, path: str) -> tuple[dict[str, Node], str]:
        parts = os.path.relpath(path, self.root).split(os.sep)
        node = self.top
        for part in parts[:-1]:
            assert node.names is not None
            node = node.names[part]
        assert node.names is not None
        return node.names, parts[-1]

    def _node(self, path: str) -> Node | None:
        if path == self.root:
            return self.top
        names, name = self._place(path)
        return names.get(name)

    def _open(self, call: Call) -> bool:
        names, name = self._place(call.paths[0])
        new = name not in names
        if new:
            names[name] = Node()
        elif call.arguments[2] & os.O_TRUNC:
            names[name].data = b""
        return new or bool(call.arguments[2] & os.O_TRUNC)

    def _write(self, call: Call) -> bool:
        path = call.paths[-1]
        node = self._node(path)
        if node is None:  # it was deleted while it was open
            return False
        node.data = Path(path).read_bytes()
        return True

    def _sync(self, path: str) -> None:
        node = self._node(path)
        if node is not None:
            node.sync()

    def _mkdir(self, path: str) -> None:
        names, name = self._place(path)
        names[name] = Node(names={})

    def _unlink(self, path: str) -> None:
        names, name = self._place(path)
        names.pop(name, None)

    def _rename(self, old: str, new: str) -> None:
        names, name = self._place(old)
        there, called = self._place(new)
        if there.get(called) is not names[name]:  # two names of one file: nothing happens
            there[called] = names.pop(name)

    def _link(self, old: str, new: str) -> None:
        names, name = self._place(old)
        there, called = self._place(new)
        there[called] = names[name]

    def after_a_cut(self, target: Path, way: str, seed: int) -> None:
        """Write what is left of the directory to another one."""
        keep = {
            WAYS[0]: (lambda node: node.synced_names, lambda node: node.synced),
            WAYS[1]: (lambda node: node.names or {}, _zeros),
            WAYS[2]: _chance(random.Random(seed)),
        }[way]
        _materialize(self.top, target, *keep)


def _materialize(
    node: Node,
    target: Path,
    names: Callable[[Node], dict[str, Node]],
    data: Callable[[Node], bytes],
) -> None:
    target.mkdir()
    for name, child in names(node).items():
        if name.endswith("-shm"):
            continue
        if child.names is not None:
            _materialize(child, target / name, names, data)
        else:
            (target / name).write_bytes(data(child))


def _zeros(node: Node) -> bytes:
    """The length that programs saw, with zeros where nothing was synced."""
    return node.synced[: len(node.data)].ljust(len(node.data), b"\0")


def _chance(
    luck: random.Random,
) -> tuple[Callable[[Node], dict[str, Node]], Callable[[Node], bytes]]:
    """Each name and each block as it was synced, or as it is, by the toss of a coin."""

    def names(node: Node) -> dict[str, Node]:
        now, before = node.names or {}, node.synced_names
        tossed = {n: luck.choice((now, before)).get(n) for n in sorted({*now, *before})}
        return {name: child for name, child in tossed.items() if child is not None}

    def data(node: Node) -> bytes:
        return b"".join(luck.choice(pair) for pair in _blocks(node))

    return names, data


def _blocks(node: Node) -> Iterator[tuple[bytes, bytes]]:
    for start in range(0, max(len(node.data), len(node.synced)), _BLOCK):
        end = start + _BLOCK
        yield node.data[start:end], node.synced[start:end]
