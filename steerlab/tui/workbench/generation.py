"""What the lab generates: a setting for each column, and the run that is kept of the texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from textual.message_pump import MessagePump

from steerlab.core.notation import layers_of
from steerlab.errors import BadOption, StoreError
from steerlab.tui.notices import notify
from steerlab.tui.setup import Setup

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
    """One setting per column.

    known: the vector of the expression, if it is evaluated already. load: loads the model that a
    vector needs, once it is known that the settings fit the vector.
    """
    from steerlab.core.setting import Setting

    shares = setup.shares
    vector = (known or lab.evaluate(setup.expression)) if any(shares) else None
    if vector is not None and setup.dose is not None:
        vector.coefficient(setup.dose)  # refuse a vector without doses before loading
    load(vector)
    if vector is None:
        return [Setting()]
    layers = layers_of(setup.layers) if setup.layers else None
    at = lab.operating_point(vector, layers).vector
    full = setup.coefficient if setup.dose is None else at.coefficient(setup.dose)
    label = setup.expression
    return [Setting(at, s * full, label) if s and full else Setting() for s in shares]


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
        return store.runs.save(made)
    except StoreError as error:
        notify(node, f"the run was not stored: {error}", "warning")
        return None
