"""What holds of a model for as long as it is steered."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from steerlab.errors import SteeringError
from steerlab.models.blocks import modules_in, parameters_in


class CheckedWeights:
    """The weights that the vectors of a steering were checked against.

    Writing to a weight is seen: training, loading, merging. Another tensor in its place, through
    `.data` or `load_state_dict(assign=True)`, is not.
    """

    def __init__(self, model: nn.Module) -> None:
        # torch does not count writes to tensors of inference mode
        self._parameters = [p for p in parameters_in(modules_in(model)) if not p.is_inference()]
        self._versions = self._now()

    def check(self) -> None:
        """Raise SteeringError if they were changed."""
        if self._now() != self._versions:
            raise SteeringError(
                "the model's weights were changed inside of `with steering(...)`, so it is another "
                "one than the vectors were checked against: change them outside of it, or pass "
                "allow_other_weights=True if you mean it"
            )

    def _now(self) -> list[int]:
        return [parameter._version for parameter in self._parameters]


def check_causal(blocks: Iterable[nn.Module]) -> None:
    """Raise SteeringError if the attention of these blocks says that it is bidirectional."""
    attends = [
        vars(module).get("is_causal", vars(module).get("is_decoder"))
        for block in blocks
        for module in block.modules()
    ]
    if set(attends) - {None} == {False}:
        raise SteeringError(
            "the model attends in both directions, so a token depends on what comes after it: "
            "steer at positions='all', or load it as a decoder (is_decoder=True)"
        )
