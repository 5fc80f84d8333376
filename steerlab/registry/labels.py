"""Label files: the names, versions, tags and notes that changed since a vector was saved.

While registry.db is sound, its rows are authoritative; a lost registry is rebuilt from payloads and
label files. A payload file holds the labels that its vectors were saved with and is never
rewritten, so a new vector needs no label file: a save takes 7 fsyncs, SQLite's 5 among them.
`labels/ab/<story>.json` holds the labels of one vector, and overrides its payload. Revision 0100
shared `<story>.many.json` between vectors whose payloads held no labels.
A vector that was removed from a shared payload file has a `Removed` in place of labels.

A change is staged durably in `labels/new` before COMMIT, so that a full disk refuses it, and
moved into place after COMMIT. The next writer finishes what a dead one left staged.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from steerlab.core.record import (
    Labels,
    canonical_json,
    check_labels,
    checked_edits,
    labels_from_json,
)
from steerlab.errors import CorruptPayload, SteerlabError
from steerlab.files import durable, header
from steerlab.files.limits import from_json
from steerlab.registry.ports import Writing

FOLDER = "labels"
SUFFIX = ".json"
FORMAT = 1

_STAGED = f"{FOLDER}/new"
_STORY = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Removed:
    """Stands for the labels of a vector that was removed from a shared payload file."""

    payload: str
    edits: int = 0

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"removed_from": self.payload, "edits": self.edits}


Said = Mapping[str, Labels | Removed]
"""Story -> the content of its label file."""


@dataclass
class Known:
    """What the label files of a store say; shared: those of several vectors, by revision 0100."""

    own: dict[str, Labels | Removed] = field(default_factory=dict)
    shared: dict[str, Labels | Removed] = field(default_factory=dict)

    def __contains__(self, story: str) -> bool:
        return story in self.own or story in self.shared

    def of(self, story: str, initial: Labels | None) -> Labels | Removed | None:
        """What holds for a vector; initial: the labels in its payload, if it has any."""
        return self.own.get(story) or initial or self.shared.get(story)


def renew(directory: Path, found: Mapping[str, Labels], work: Writing) -> None:
    """Replace the label files of vectors that come back; new ones have none yet."""
    returning = {s: new for s, new in found.items() if _own(directory, s).exists()}
    if returning:
        change(directory, returning, work)


def change(directory: Path, found: Said, work: Writing) -> None:
    """Stage new labels, to be moved into place once the transaction is durable."""
    staged = directory / _STAGED / f"{secrets.token_hex(8)}{SUFFIX}"
    durable.write(staged, _encoded(found, directory))
    work.undo.append(partial(staged.unlink, missing_ok=True))
    work.on_commit.append(partial(_put_in_place, directory, staged, found))


def finish(directory: Path, rows: Mapping[str, Labels], staged: Path) -> None:
    """Finish a change that a dead writer left staged, with the labels in rows; needs the lock."""
    known = {
        story: rows.get(story, labels)
        for story, labels in _read(staged).items()
        if story in rows or isinstance(labels, Removed)
    }
    _put_in_place(directory, None, known)
    staged.unlink(missing_ok=True)


def staged(directory: Path) -> list[Path]:
    """The staged changes, usually none."""
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(directory / _STAGED))
        return [directory / _STAGED / name for name in names if name.endswith(SUFFIX)]
    return []


def stories(staged: Path) -> list[str]:
    """The stories of a staged change; none if it can't be read."""
    with contextlib.suppress(SteerlabError):
        return list(_read(staged))
    return []


def label_files(directory: Path) -> Iterator[Path]:
    """Every label file, in a fixed order, without staged changes."""
    for path in sorted((directory / FOLDER).glob(f"*/*{SUFFIX}")):
        if path.parent.name != "new" and not path.name.startswith("."):
            yield path


def read_all(directory: Path, problems: list[str] | None = None) -> Known:
    """The labels in all label files of a store.

    problems: gets a line for each unreadable file; None leaves out staged changes.
    """
    known = Known()
    for path in [*label_files(directory), *(staged(directory) if problems is not None else ())]:
        try:
            said = _read(path)
        except SteerlabError as error:
            if problems is not None:
                problems.append(str(error))
            continue
        alone = path.name.removesuffix(SUFFIX) in said or path.parent.name == "new"
        (known.own if alone else known.shared).update(said)
    return known


def mend(directory: Path, wanted: Mapping[str, Labels], initial: Mapping[str, Labels]) -> None:
    """Write the labels that neither a label file nor the payload file has.

    initial: the labels in payload files.
    """
    known = read_all(directory)
    wrong = {s: w for s, w in wanted.items() if known.of(s, initial.get(s)) != w}
    _put_in_place(directory, None, wrong)


def unneeded(directory: Path, stories: Iterable[str], paths: Iterable[str]) -> Iterator[Path]:
    """Label files without any of these stories or payload files."""
    known, used = set(stories), set(paths)
    for path in label_files(directory):
        with contextlib.suppress(SteerlabError):
            if not any(
                s in known or (isinstance(labels, Removed) and labels.payload in used)
                for s, labels in _read(path).items()
            ):
                yield path


def parsed(data: bytes, what: object) -> dict[str, Labels | Removed]:
    """Parse a label file; raises CorruptPayload if it is invalid."""
    try:
        found = from_json(data.decode())
        if type(found["format"]) is not int or not 1 <= found["format"] <= FORMAT:
            raise CorruptPayload("it is of a format that this steerlab does not read")
        return {_story(s): _labels(labels) for s, labels in found["labels"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, SteerlabError) as error:
        raise CorruptPayload(f"{what} is no label file: {str(error)[:200]}") from None


def _labels(data: Any) -> Labels | Removed:
    if isinstance(data, dict) and isinstance(data.get("removed_from"), str):
        return Removed(data["removed_from"], checked_edits(data.get("edits", 0)))
    labels = labels_from_json(data)
    check_labels(labels.tags, labels.note)
    return replace(labels, tags=tuple(sorted(set(labels.tags))))


def _story(text: str) -> str:
    if not _STORY.fullmatch(text):
        raise ValueError(f"{text[:40]!r} is no story")
    return text


def _read(path: Path) -> dict[str, Labels | Removed]:
    return parsed(header.read_plain(path), path)


def _encoded(found: Said, directory: Path) -> bytes:
    """The bytes of a label file. directory: the store whose unknown keys are kept."""
    labels = {s: {**_unknown(directory, s), **own.to_json()} for s, own in found.items()}
    return canonical_json({"format": FORMAT, "labels": labels}).encode()


def _unknown(directory: Path, story: str) -> dict[str, Any]:
    """The keys in a label that only a later version of the program knows."""
    try:
        found = from_json(header.read_plain(_own(directory, story)).decode())
        data = dict(found["labels"][story])
    except (ValueError, TypeError, KeyError, SteerlabError):
        return {}
    known = {*Labels.__dataclass_fields__, "removed_from"}
    return {key: value for key, value in data.items() if key not in known}


def _put_in_place(directory: Path, staged: Path | None, found: Said) -> None:
    """Write each label file, then delete the staged change.

    A change of one vector is linked: it is in both places until the new one is durable.
    """
    for story, labels in found.items():
        path = _own(directory, story)
        durable.make_directory(path.parent)
        if staged is not None and len(found) == 1 and durable.link(staged, path):
            continue
        durable.write(path, _encoded({story: labels}, directory))
    if staged is not None:
        staged.unlink(missing_ok=True)


def _own(directory: Path, story: str) -> Path:
    return directory.joinpath(FOLDER, story[:2], f"{story}{SUFFIX}")
