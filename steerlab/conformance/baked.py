"""A checkpoint with the vector in its weights, as `bake` makes it, loaded by transformers alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from steerlab.conformance.conform import Case, Session
from steerlab.conformance.plain import PlainSession, load
from steerlab.interventions.bake import baked_model


@contextmanager
def session(case: Case, steered: bool) -> Iterator[Session]:
    """The model itself, or the checkpoint."""
    yield PlainSession(load(case, checkpoint(case) if steered else None), case.ends)


def checkpoint(case: Case) -> str:
    """The directory of a checkpoint with the vector in it."""
    place = case.directory / "baked"
    baked_model(case.location, case.revision, case.vector, as_llama=True).save_pretrained(place)
    return str(place)
