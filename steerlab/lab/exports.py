"""Stored vectors as files of other programs, with the strength at which they work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from steerlab.core.notation import layers_text
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, StoreError
from steerlab.files import durable
from steerlab.interop.targets import TARGETS, Files

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab


class Strength(NamedTuple):
    """A vector at the layers where it is used, its coefficient, and why that one."""

    vector: SteeringVector
    coefficient: float
    why: str


def check_strength(vector: SteeringVector, dose: float | None, coefficient: float | None) -> None:
    """Raise BadOption for two strengths, and for what steers nothing; needs no model."""
    if dose is not None and coefficient is not None:
        raise BadOption("give a dose or a coefficient, not both")
    if 0 in (dose, coefficient) or not vector.norm:
        what = "at strength 0" if vector.norm else "is zero, which"
        raise BadOption(f"{vector} {what} steers nothing: choose another")


def strength_of(
    lab: Lab,
    vector: SteeringVector,
    dose: float | None,
    coefficient: float | None,
) -> Strength:
    """The strength that was asked for, else the calibrated one, else 1, where `generate` steers.

    A calibrated layer that is not stored is made, on the model. Raises Incompatible without one.
    """
    check_strength(vector, dose, coefficient)
    at, calibrated, found = lab.operating_point(vector)
    where = f", at {layers_text(at.layers)}" if found is not None and not at.called else ""
    if coefficient is not None:
        return Strength(at, coefficient, f"as asked{where}")
    if dose is not None:
        return Strength(at, at.coefficient(dose), f"for dose {dose:g}{where}")
    if found is None:
        return Strength(at, 1.0, f"since it has no calibrated strength at {layers_text(at.layers)}")
    return Strength(at, calibrated, f"as calibrated{where}")


def together(strengths: Sequence[Strength]) -> Strength:
    """Vectors that act at once, as `steering` adds several: the sum, each at its coefficient."""
    if len(strengths) == 1:
        return strengths[0]
    first, *others = [one.coefficient * one.vector for one in strengths]
    parts = [f"{one.vector} at {one.coefficient:g} {one.why}" for one in strengths]
    total = sum(others, start=first)
    if any(one.vector.called for one in strengths):  # its expression has digests for these
        text = " + ".join(f"{one.coefficient:g} * ({one.vector})" for one in strengths)
        total = total.noted(called=text)
    return Strength(total, 1.0, f"the sum of {' and '.join(parts)}")


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
