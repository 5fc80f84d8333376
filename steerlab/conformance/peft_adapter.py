"""PEFT with the BEFT adapter that `export --to peft` writes."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from steerlab.conformance.conform import Case, Session
from steerlab.conformance.plain import PlainSession, load
from steerlab.interop import peft_directory


@contextmanager
def session(case: Case, steered: bool) -> Iterator[Session]:
    """The model, with the adapter loaded by PEFT."""
    model = load(case)
    if steered:
        from peft import PeftModel

        for name, data in peft_directory.write(case.vector).items():
            (case.directory / name).write_bytes(data)
        with warnings.catch_warnings(action="ignore"):  # of merging, which nobody does here
            model = PeftModel.from_pretrained(model, case.directory)
    yield PlainSession(model, case.ends)
