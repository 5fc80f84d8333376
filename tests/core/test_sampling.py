"""Sampling: options are checked where they are put together, before any model."""

from __future__ import annotations

import pytest

from steerlab.core.sampling import GREEDY, Sampling
from steerlab.errors import BadOption


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1),
        ("temperature", float("nan")),
        ("top_p", 0),
        ("top_k", 1.5),
        ("max_new_tokens", 0),
        ("repetition_penalty", float("inf")),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(BadOption, match=f"{name} has to be"):
        Sampling(**{name: value})


def test_options_are_taken_out_of_other_values_and_come_back():
    values = {"layers": "2", **Sampling(top_k=5, chat=True).options()}
    assert Sampling.pop_from(values) == Sampling(top_k=5, chat=True)
    assert values == {"layers": "2"}
    assert Sampling.pop_from(values) == GREEDY
