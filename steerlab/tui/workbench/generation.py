"""What the lab generates: a setting for each column, and the run that is kept of the texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from textual.message_pump import MessagePump

from steerlab.core.notation import layers_of
from steerlab.errors import BadOption, StoreError
from steerlab.tui.notices import notify
from steerlab.tui.setup import Pin, Setup

if TYPE_CHECKING:
    from steerlab.core.cell import Cell
    from steerlab.core.run import Run
    from steerlab.core.setting import Setting
    from steerlab.core.vector import SteeringVector
    from steerlab.lab.lab import Lab
    from steerlab.registry import Store


def check(setup: Setup) -> None:
    """Raise BadOption for settings that can't be generated from; needs no model."""
    if not setup.prompt.strip():
        raise BadOption("no prompt: type the text to continue")
    setup.check()


def settings_of(
    lab: Lab,
    setup: Setup,
    known: SteeringVector | None,
    load: Callable[[SteeringVector | None], object],
) -> list[Setting]:
    """One setting per column: the baseline, those that are pinned, the current one.

    known: the vector of the expression, if it is evaluated already. load: loads the model that a
    vector needs, once it is known that the settings fit the vector.
    """
    from steerlab.core.setting import Setting

    shares = setup.shares
    if not any(shares):
        load(None)
        return [Setting()]
    pins = setup.others
    vectors = [lab.evaluate(pin.expression) for pin in pins]
    vectors.append(known or lab.evaluate(setup.expression))
    for made, pin in zip(vectors, (*pins, setup.pin), strict=True):
        if pin.dose is not None:
            made.coefficient(pin.dose)  # refuse a vector without doses before loading
    load(vectors[-1])
    full = _setting(lab, vectors[-1], setup.pin)
    vector, c, label = full.vector, full.coefficient, full.label
    own = [Setting(vector, s * c, label) if s and c else Setting() for s in shares]
    others = [_setting(lab, v, pin) for v, pin in zip(vectors, pins, strict=False)]
    return [own[0], *others, *own[1:]]


def _setting(lab: Lab, vector: SteeringVector, pin: Pin) -> Setting:
    """A vector at its layers and strength."""
    from steerlab.core.setting import Setting

    layers = layers_of(pin.layers) if pin.layers else None
    at = lab.operating_point(vector, layers).vector
    coefficient = pin.coefficient if pin.dose is None else at.coefficient(pin.dose)
    return Setting(at, coefficient, pin.name) if coefficient else Setting()


def _own(run: Run, pins: Sequence[Pin]) -> Run:
    """The run whose texts between the baseline and the last have their own settings."""
    texts = list(run.generations)
    for index, (text, pin) in enumerate(zip(texts[1:-1], pins, strict=False), 1):
        texts[index] = replace(text, expression=pin.expression, layers=pin.layers)
    return replace(run, generations=tuple(texts))


def keep_run(
    store: Store, setup: Setup, cells: Sequence[Cell], source: str, node: MessagePump
) -> Run | None:
    """Store the run; if the store can't be written, say so at a node and keep only the texts."""
    from steerlab.core.run import Run

    made = Run.of(
        cells,
        setup.expression,
        source,
        layers=setup.layers,
        positions=setup.positions,
        sampling=setup.sampling,
    )
    try:
        return store.runs.save(_own(made, setup.others))
    except StoreError as error:
        notify(node, f"the run was not stored: {error}", "warning")
        return None
