"""A sample of the damage that `python -m tests.registry.corruption` does to a store."""

from __future__ import annotations

import pytest

from tests.registry.corruption import campaign

pytestmark = pytest.mark.campaign

KINDS = {
    *("label, byte flipped", "label, cut", "label, deleted"),
    "payload, byte flipped",
    "payload, cut",
    "payload, deleted",
    "payloads, swapped",
    "registry, byte flipped",
    "registry, value replaced",
    "registry, page zeroed",
    "registry, cut",
    "registry, deleted",
    "log, byte flipped",
    "log, cut",
    "log, deleted",
    "log's registry, deleted",
}
EVERY = 6000


@pytest.fixture(scope="module")
def tallies(tmp_path_factory):
    return campaign(EVERY, tmp_path_factory.mktemp("corruption"))


def test_no_damage_makes_a_verb_crash_or_load_another_vector_and_advice_mends_it(tallies):
    assert {kind: t.failures for kind, t in tallies.items() if t.failures} == {}


def test_damage_is_noticed(tallies):
    """Only the registry knows texts of runs: one may change unseen."""
    assert tallies.keys() == KINDS
    for kind, tally in tallies.items():
        assert tally.results.total() > 0
        if kind not in ("registry, byte flipped", "registry, value replaced"):
            assert tally.results["unseen"] == 0, kind
