"""Stored vectors as files of other programs, with the strength at which they work."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from steerlab.core.notation import span, spelled
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, Incompatible, StoreError
from steerlab.files import durable
from steerlab.interop.targets import TARGETS, Files

if TYPE_CHECKING:
    from steerlab.registry import Store


class Strength(NamedTuple):
    """A vector at the layers where it is used, its coefficient, and why that one."""

    vector: SteeringVector
    coefficient: float
    why: str


def strength_of(
    store: Store, vector: SteeringVector, dose: float | None, coefficient: float | None
) -> Strength:
    """The strength that was asked for, else the calibrated one, else 1."""
    if dose is not None and coefficient is not None:
        raise BadOption("give a dose or a coefficient, not both")
    if 0 in (dose, coefficient) or not vector.norm:
        what = "at strength 0" if vector.norm else "is zero, which"
        raise BadOption(f"{vector} {what} steers nothing: choose another")
    if coefficient is not None:
        return Strength(vector, coefficient, "as asked")
    if dose is not None:
        return Strength(vector, vector.coefficient(dose), f"for dose {dose:g}")
    found = store.results.calibration_of(vector.digest)
    if found is None or not found.works or found.layer is None or found.coefficient is None:
        return Strength(vector, 1.0, "since it was not calibrated")
    if found.layer not in vector.directions:
        raise Incompatible(
            f"the strength of {vector} is known at layer {found.layer}, and what is stored and "
            f"written is layer {span(vector.layers)}: give a strength there, such as --dose "
            f"{found.dose or 0.15:g}, or find it with `steerlab calibrate "
            f"{shlex.quote(str(vector))} --layers {spelled(list(vector.layers))}`"
        )
    at_layer = vector if vector.layers == (found.layer,) else vector[found.layer]
    return Strength(at_layer, found.coefficient, f"as calibrated, at layer {found.layer}")


def together(strengths: Sequence[Strength]) -> Strength:
    """Vectors that act at once, as `steering` adds several: the sum, each at its coefficient."""
    if len(strengths) == 1:
        return strengths[0]
    first, *others = [one.coefficient * one.vector for one in strengths]
    parts = [f"{one.vector} at {one.coefficient:g} {one.why}" for one in strengths]
    return Strength(sum(others, start=first), 1.0, f"the sum of {' and '.join(parts)}")


def write(strength: Strength, format: str, path: Path, *, force: bool = False) -> None:
    """Write a vector in a foreign format, each file whole or not at all.

    Raises Incompatible for what the format can't hold, StoreError if something is there already.
    """
    target = TARGETS[format]
    made = target.write(strength.vector, strength.coefficient)
    if not target.suffix:
        write_files(made, path)
        return
    files = {path.with_suffix(name) if name else path: data for name, data in made.items()}
    for taken in files:
        if taken.exists() and not force:
            raise StoreError(f"{taken} exists: export to another name, or delete it first")
    for place, data in files.items():
        durable.write(place, data)


def write_files(files: Files, directory: Path) -> None:
    """Write a directory of files, whole or not at all; raises StoreError if it exists."""
    with durable.writing_directory(directory) as work:
        for name, data in files.items():
            (work / name).write_bytes(data)
