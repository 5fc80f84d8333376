"""Operation: what is done to the residual stream with a direction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from steerlab.errors import BadOption

OPERATIONS = ("add",)
"""The operations by name. `add`: h' = h + coefficient * v."""


@dataclass(frozen=True)
class Operation:
    """An operation with its parameters, as (name, value) pairs; `add` takes none.

    Raises BadOption for an unknown name.
    """

    name: str = "add"
    parameters: tuple[tuple[str, float], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Name and parameters as JSON values."""
        return {"operation": self.name, "parameters": dict(self.parameters)}

    def __post_init__(self) -> None:
        if self.name not in OPERATIONS:
            raise BadOption(f"no operation {self.name!r}: there are {', '.join(OPERATIONS)}")


ADD = Operation()
