"""The readers of what comes from strangers: how each is fed, and what has to hold afterwards."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from random import Random
from zlib import crc32

from steerlab.core.record import Record
from steerlab.errors import CorruptPayload, SteerlabError
from steerlab.files import payload
from steerlab.registry import Store
from steerlab.registry.sqlite_errors import Damaged
from steerlab.registry.transfer.import_plan import Import
from steerlab.registry.upkeep.verify import Damage
from tests.fuzz import archives, foreign, hostile, payloads, textfiles

ACCEPTED = "accepted"


class Broken(AssertionError):
    """A property that has to hold does not."""


@dataclass(frozen=True)
class Reader:
    """make: a case's bytes. read: takes the file; raises what it refuses with, or Broken."""

    name: str
    suffix: str
    make: Callable[[Random], bytes]
    read: Callable[[Path], object]


def checked(error: SteerlabError) -> str:
    """The name of a refusal's class; its message has to be one line that a person can read."""
    text = str(error)
    if not text or "\n" in text or len(text) > 2000:
        raise Broken(f"a message of {len(text)} characters: {text[:300]!r}") from error
    return type(error).__name__


def read_payload(path: Path) -> None:
    """All ways to read a payload; what is accepted is the same after it was written again."""
    records = payload.read_records(path)
    wanted = {key: [f.layer for f in record.layers] for key, record in records.items()}
    payload.read_arrays(path, wanted)
    with contextlib.suppress(SteerlabError):
        payload.read(path)
    entries = payload.read_all(path)
    if list(records.values()) != [record for record, _ in entries]:
        raise Broken("read_records and read_all differ")
    again = path.with_name("again")
    again.write_bytes(payload.encode(entries))
    if payload.read_all(again) != entries:
        raise Broken("it is not the same once written again")


def read_known(path: Path) -> None:
    """What is read of vectors whose records are known is theirs, whatever became of the file."""
    read = 0
    for record, vector in payloads.entries():
        (found,) = payload.read_known(path, [(record.story, record)])
        read += found is not None
        if found is not None and (found, found.ref) != (vector, record.ref):
            raise Broken(f"{record.ref} is read wrong")
    if not read:
        raise CorruptPayload("it holds none of them as it should")


def import_payload(path: Path) -> None:
    """Import into a store that has vectors: all or nothing, and the store is sound after it."""
    store = Store(_copy_of_store(path.parent))
    before = [s.ref for s in store.list(every_version=True)]
    try:
        found = store.transfer.import_(path)
    except SteerlabError:
        if [s.ref for s in store.list(every_version=True)] != before or _bad(store):
            raise Broken("a refused import left something") from None
        raise
    _imported(store, found, path)


def _imported(store: Store, found: Sequence[Import], path: Path) -> None:
    _sound(store)
    for entry in found:
        store.load(entry.ref, entry.model)
    records = _records(store)
    store.upkeep.rebuild()
    if _records(store) != records:
        raise Broken("rebuild gives other records than the import")
    _sound(store)
    _printed(store, [entry.ref for entry in found], path.read_bytes())


def import_archive(path: Path) -> None:
    """Import an archive: all or nothing, and nothing but the store is touched."""
    store = Store(_copy_of_store(path.parent))
    with _untouched(store, path.parent):
        found = store.transfer.import_(path)
    _imported(store, found, path)


def restore_archive(path: Path) -> None:
    """Restore into a new place, or over a store: what is there can be read, or rebuilt."""
    store = Store(_copy_of_store(path.parent))
    over = crc32(path.read_bytes()) % 2 == 0
    if not over:
        shutil.rmtree(store.path)
    aside: Path | None = None
    try:
        with _untouched(store, path.parent):
            aside = store.transfer.restore(path, force=over)
            if aside is not None:
                if _contents(aside) != _contents(_template(path.parent)):
                    raise Broken("the store that was moved aside is another")
                shutil.rmtree(aside)
        _restored(store, path)
    finally:
        shutil.rmtree(store.path, ignore_errors=True)


def _restored(store: Store, path: Path) -> None:
    """A registry is taken as it is: it is read, or refused and made anew of the payloads."""
    with contextlib.redirect_stderr(io.StringIO()):  # what was left out
        with contextlib.suppress(Damaged):
            store.verify()
        refs = list[str]()
        with contextlib.suppress(Damaged):
            refs += [s.ref for s in store.list()]
        _printed(store, refs, path.read_bytes())
        store.upkeep.rebuild()
    lies = (Damage.ALTERED, Damage.OPERAND)  # in payloads, which a restore takes as they are
    found = [f.problem for f in store.verify() if f.damage not in lies and not _claimed(f.problem)]
    if found:
        raise Broken(f"verify, once rebuilt: {found}")
    store.save("new", payloads.vector(9))


@contextlib.contextmanager
def _untouched(store: Store, directory: Path) -> Iterator[None]:
    """Whatever the block does, only the store changes; where it is refused, not even that."""
    around, before = _around(store, directory), _contents(store.path)
    refused = True
    try:
        yield
        refused = False
    except SteerlabError as error:
        if _contents(store.path) != before:
            raise Broken("what was refused changed the store") from error
        raise
    finally:
        if _around(store, directory) != around:
            changed = sorted(_around(store, directory).items() ^ around.items())
            raise Broken(f"outside of the store (refused: {refused}): {changed[:4]}")


def _around(store: Store, directory: Path) -> dict[str, tuple[int, int]]:
    """What lies in a directory beside the store: name -> size and time of change."""
    found = {}
    for place, directories, files in os.walk(directory):
        inside = Path(place) == store.path.parent
        directories[:] = [d for d in directories if not (inside and d == store.path.name)]
        for name in (*directories, *files):
            status = os.lstat(os.path.join(place, name))
            changed = 0 if name in directories else status.st_mtime_ns
            found[os.path.join(place, name)] = status.st_size, changed
    return found


def _contents(directory: Path) -> dict[str, bytes]:
    files = (p for p in directory.rglob("*") if p.is_file() and p.name != ".lock")
    return {str(p.relative_to(directory)): p.read_bytes() for p in files}


def adopt_payload(path: Path) -> None:
    """A payload that lies in a store without a row: rebuild takes it or leaves it out."""
    store = Store(_copy_of_store(path.parent))
    (store.path / "payloads" / "zz").mkdir()
    shutil.copyfile(path, store.path / "payloads" / "zz" / path.name)
    with contextlib.redirect_stderr(io.StringIO()):  # what was left out
        store.upkeep.rebuild()
    hurt = [f.ref for f in store.verify() if f.ref in ("tiny_1.love.v1", "tiny_1.anger.v1")]
    if hurt or not {"love", "anger", "warm"} <= {*store.names()}:
        raise Broken(f"it took the place of {hurt}")
    _printed(store, [s.ref for s in store.list()], path.read_bytes())


def _sound(store: Store) -> None:
    if bad := _bad(store):
        raise Broken(f"verify: {bad}")


def _bad(store: Store) -> list[str]:
    """What verify finds but lineage that a stranger's recipe merely claims."""
    return [f.problem for f in store.verify() if not _claimed(f.problem)]


def _claimed(problem: str) -> bool:
    return any(c in problem for c in ("it can't be re-evaluated", "gives other bytes"))


def _records(store: Store) -> list[Record]:
    """All that is stored, whatever the store calls its models."""
    found = [store.record(s.qualified) for s in store.list(every_version=True)]
    return sorted(found, key=lambda record: (record.digest, record.ref))


_SGR = re.compile(r"\x1b\[[0-9;]*m")


def _printed(store: Store, refs: list[str], data: bytes) -> None:
    """What the command line says of a store: no error that is a bug, nothing to obey.

    For one file in ten only, as it takes long.
    """
    if crc32(data) % 10:
        return
    from steerlab.cli import ExitCode, run

    verbs = [["list", "--all-versions"], ["models"], ["search", "love"], ["verify"], ["doctor"]]
    verbs += [[verb, ref] for ref in refs[:2] for verb in ("show", "log", "tree", "similar")]
    for verb in verbs:
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = run([*verb, "--store", str(store.path)])
        text = _SGR.sub("", out.getvalue())
        if code == ExitCode.INTERNAL or "Traceback" in text:
            raise Broken(f"{verb}: {text[-500:]}")
        if obeyed := {c for c in text if not c.isprintable()} - {"\n"}:
            raise Broken(f"{verb} prints {obeyed}")


@cache
def _template(directory: Path) -> Path:
    store = Store(directory / "template")
    love = store.save("love", payloads.vector(1))
    anger = store.save("anger", payloads.vector(2))
    store.save("warm", love - anger)
    return store.path


def _copy_of_store(directory: Path) -> Path:
    target = directory / "store"
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(_template(directory), target))


def read_pairs(path: Path) -> None:
    """Accepted pairs are texts, in lists of one length, and the same once written again."""
    from steerlab.core.prompts import Turns
    from steerlab.files.contrast import read_pairs

    found = read_pairs(path)
    if not found.said or "\n" in found.said or not found.said.isprintable():
        raise Broken(f"what was understood is no line: {found.said[:300]!r}")
    if found.paired and found.negative and len(found.negative) != len(found.positive):
        raise Broken("pairs of unequal length")
    for prompt in (*found.positive, *found.negative):
        str(prompt).encode()
        if not str(prompt).strip():
            raise Broken("a blank prompt")
    if not found.paired or any(isinstance(p, Turns) for p in found.positive):
        return
    again = path.with_name("again.json")
    again.write_text(json.dumps({"positive": found.positive, "negative": found.negative}))
    if (once := read_pairs(again)) != replace(found, said=once.said):
        raise Broken("the pairs are not the same once written again")


def read_items(path: Path) -> None:
    """Accepted items are texts, and the same once written again."""
    from steerlab.files.contrast import read_items

    found = read_items(path)
    again = path.with_name("again.json")
    again.write_text(json.dumps(found))
    if read_items(again) != found:
        raise Broken("the items are not the same once written again")
    _texts(found)


def read_lines(path: Path) -> None:
    """Accepted prompts are texts of one line."""
    from steerlab.evaluation.metrics.scorers import scorer
    from steerlab.files.prompts import read_lines

    found = read_lines(path)
    _texts(found)
    if any("\n" in line or not line.strip() for line in found):
        raise Broken("a prompt that is no line")
    scorer(f"keywords:{path}").score("love and joy")


def read_suite(path: Path) -> None:
    """An accepted suite has a digest, and its texts are texts."""
    from steerlab.evaluation.generalization.suite import suite

    found = suite(path)
    _texts([found.digest, *(p for style in found.styles for p in (style.name, *style.prompts))])


def read_memory(path: Path) -> None:
    """The terminal UI's file is read without a word, and written again within its bounds."""
    from steerlab.tui.memory import Memory

    os.environ["STEERLAB_CONFIG"] = str(path.parent)
    Memory.load().save()
    if Memory.load() != Memory.load():
        raise Broken("it remembers other things each time")


def read_expression(path: Path) -> None:
    """An accepted expression is the same once written again, and computes or is refused."""
    from steerlab.core.expression import evaluate
    from steerlab.core.syntax import parse

    parsed = parse(path.read_bytes().decode(errors="surrogateescape"))
    if parse(str(parsed)) != parsed:
        raise Broken("the expression is not the same once written again")
    evaluate(parsed, lambda ref: payloads.vector(len(ref)))


def _texts(tree: object) -> None:
    for container, key in hostile.places([tree]):
        if isinstance(container[key], str):
            container[key].encode()


def _expression(random: Random) -> bytes:
    text = random.choice(hostile.EXPRESSIONS)
    at = random.randrange(len(text) + 1)
    piece = random.choice((hostile.text(random), random.choice(hostile.EXPRESSIONS)))
    return (text[:at] + piece + text[at:]).encode(errors="surrogatepass")


def _texts_reader(name: str, what: str, suffix: str, read: Callable[[Path], object]) -> Reader:
    return Reader(name, suffix, partial(textfiles.file, what=what, suffix=suffix), read)


_SUFFIXES = (".jsonl", ".json", ".csv", ".toml")

PAYLOADS = (
    Reader("payload", ".safetensors", lambda random: payloads.forged(random)[0], read_payload),
    Reader("known", ".safetensors", payloads.tampered, read_known),
    Reader("import", ".safetensors", payloads.friendly, import_payload),
    Reader("rebuild", ".safetensors", lambda random: payloads.forged(random)[0], adopt_payload),
)
ARCHIVES = (
    Reader("import .tar", ".tar", archives.forged, import_archive),
    Reader("restore .tar", ".tar", archives.forged, restore_archive),
)
TEXTS = (
    *(
        _texts_reader(f"pairs {s}", "pairs", s, read_pairs)
        for s in (".jsonl", ".json", ".csv", ".toml")
    ),
    *(
        _texts_reader(f"items {s}", "items", s, read_items)
        for s in (".jsonl", ".json", ".csv", ".toml")
    ),
    *(_texts_reader(f"suite {s}", "suite", s, read_suite) for s in (".jsonl", ".toml")),
    _texts_reader("prompts", "lines", ".txt", read_lines),
    Reader(
        "tui memory", ".json", partial(textfiles.file, what="memory", suffix=".json"), read_memory
    ),
    Reader("expression", ".txt", _expression, read_expression),
)
FOREIGN = tuple(
    Reader(f"foreign {name}", suffix, make, foreign.read)
    for name, (suffix, make) in foreign.MAKERS.items()
)
READERS = {reader.name: reader for reader in (*PAYLOADS, *ARCHIVES, *TEXTS, *FOREIGN)}
