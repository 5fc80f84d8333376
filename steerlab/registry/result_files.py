"""Result files: what was measured of vectors, kept where a lost registry is rebuilt from.

`results/ab/<sha256>.json` holds one calibration or evaluation, named by its content, written once
before its row and never changed. Without its registry a store has its results from these.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from steerlab.core.operation import Operation
from steerlab.core.record import canonical_json
from steerlab.core.results import Calibration, Evaluation, Measured
from steerlab.errors import CorruptPayload, SteerlabError
from steerlab.files import durable, header
from steerlab.files.limits import from_json
from steerlab.registry.ports import Writing

FOLDER = "results"
SUFFIX = ".json"
FORMAT = 1

Result = Calibration | Evaluation
_KINDS = {"calibration": Calibration, "evaluation": Evaluation}


def key(made: Result) -> tuple[str, str, str]:
    """The identity of a stored result: kind, digest and time."""
    return type(made).__name__, made.digest, made.created


def encoded(made: Result) -> bytes:
    """The bytes of a result file."""
    data = made.to_json()
    del data["id"]
    return canonical_json({"format": FORMAT, type(made).__name__.lower(): data}).encode()


def path_of(data: bytes) -> str:
    """results/ab/<sha256 of its bytes>.json"""
    name = sha256(data).hexdigest()
    return f"{FOLDER}/{name[:2]}/{name}{SUFFIX}"


def write(directory: Path, made: Result, work: Writing) -> None:
    """Write a result durably, before its row is; undone with the transaction."""
    data = encoded(made)
    file = directory / path_of(data)
    if not file.exists():
        work.undo.append(partial(file.unlink, missing_ok=True))
        durable.write(file, data)


def mend(directory: Path, wanted: Iterable[Result]) -> None:
    """Write the results that no file holds."""
    known = {key(made) for made in read_all(directory, [])}
    for made in wanted:
        if key(made) not in known:
            data = encoded(made)
            durable.write(directory / path_of(data), data)


def result_files(directory: Path) -> Iterator[Path]:
    """Every result file, in a fixed order."""
    for path in sorted((directory / FOLDER).glob(f"*/*{SUFFIX}")):
        if not path.name.startswith("."):
            yield path


def read_all(directory: Path, problems: list[str]) -> Iterator[Result]:
    """The results of all files; problems gets a line for each file that is damaged."""
    for path in result_files(directory):
        try:
            data = header.read_plain(path)
            if (directory / path_of(data)).name != path.name:
                raise CorruptPayload(f"{path} was altered: it does not match its name")
            yield parsed(data, path)
        except SteerlabError as error:
            problems.append(str(error))


def parsed(data: bytes, what: object) -> Result:
    """Parse a result file; raises CorruptPayload if it is invalid.

    Numbers are checked by the constraints of the tables.
    """
    try:
        found = from_json(data.decode())
        if found.pop("format") != FORMAT:
            raise CorruptPayload("it is of a format that this steerlab does not read")
        ((kind, values),) = found.items()
        return _made(_KINDS[kind], values)
    except (ValueError, TypeError, KeyError, AttributeError, SteerlabError) as error:
        raise CorruptPayload(f"{what} is no result file: {str(error)[:200]}") from None


def _made(cls: type[Result], values: dict[str, Any]) -> Result:
    operation = Operation(values.pop("operation"), tuple(sorted(values.pop("parameters").items())))
    texts = [field.name for field in fields(cls) if field.type == "str"]
    if not all(isinstance(values[name], str) for name in texts):
        raise ValueError(f"{', '.join(texts)} have to be text")
    if cls is Calibration:
        if (safe := values.pop("safe")) is not None:
            low, high = safe
            safe = low, high
        return Calibration(**values, operation=operation, safe=safe)
    measured = tuple(Measured(**value) for value in values.pop("values"))
    if not isinstance(values["versions"], dict) or not isinstance(values["data"], dict | None):
        raise ValueError("versions and data have to be objects")
    return Evaluation(**values, operation=operation, values=measured)
