"""Unknown arguments: the error names those there are."""

from __future__ import annotations

import pytest

from steerlab import Lab, SteeringVector, steering
from steerlab.core.arguments import checks_names
from steerlab.core.sampling import Sampling
from steerlab.errors import BadOption


@checks_names(Sampling)
def work(layers, *, dose=0.0, **options):
    return layers, dose, options


def test_known_arguments_pass():
    assert work(1, dose=2, top_k=3) == (1, 2, {"top_k": 3})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "layer",
            r"work has no argument 'layer' \(did you mean layers\?\): it takes layers, dose, ",
        ),
        ("max_tokens", "did you mean max_new_tokens"),
        ("strength", "'strength': it takes layers, dose, max_new_tokens"),
    ],
)
def test_an_unknown_one_is_an_error_that_names_the_right_ones(name, message):
    with pytest.raises(BadOption, match=message):
        work(1, **{name: 1})
    with pytest.raises(TypeError):
        work(1, **{name: 1})


def test_public_calls_say_so():
    for call in (steering, Lab.compare, Lab.sweep, SteeringVector):
        with pytest.raises(BadOption, match="has no argument 'strenth'"):
            call(strenth=2)
