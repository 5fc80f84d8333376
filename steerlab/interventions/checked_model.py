"""What holds of a model for as long as it is steered."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import nn

from steerlab.core.recipe import ModelIdentity, Verdict
from steerlab.errors import SteeringError
from steerlab.models.blocks import modules_in, parameters_in


class CheckedWeights:
    """The weights that the vectors of a steering were checked against.

    Each pass sees whether a weight was written to: training, loading, merging. Whether others
    were put in their place, through `.data` or `load_state_dict(assign=True)`, is seen at the end.
    """

    def __init__(
        self, model: nn.Module, here: ModelIdentity, identify_again: Callable[[], ModelIdentity]
    ) -> None:
        self._here, self._identify_again = here, identify_again
        # torch does not count writes to tensors of inference mode
        self._parameters = [p for p in parameters_in(modules_in(model)) if not p.is_inference()]
        self._versions = self._now()

    def check(self) -> None:
        """Raise SteeringError if they were written to."""
        if self._now() != self._versions:
            raise _changed()

    def check_at_end(self) -> None:
        """Raise SteeringError if others are in their place; writes after the last pass are fine."""
        if self._now() != self._versions:
            return
        if self._here.verdict(self._identify_again()) is Verdict.OTHER_WEIGHTS:
            raise _changed()

    def _now(self) -> list[int]:
        return [parameter._version for parameter in self._parameters]


def _changed() -> SteeringError:
    return SteeringError(
        "the model's weights were changed inside of `with steering(...)`, so it is another one "
        "than the vectors were checked against: change them outside of it, or pass "
        "allow_other_weights=True if you mean it"
    )


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
