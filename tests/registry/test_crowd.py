"""Several processes at one store, in peace and under kill -9.

The whole campaign is `python -m tests.registry.crowd`, with and without `--kills`.
"""

from __future__ import annotations

import logging

import pytest

from steerlab.registry import Store
from tests.registry.crowd import WEIGHTS, gather, kill_at_random, table
from tests.registry.journal import Journal, wrong
from tests.registry.samples import vector

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def quiet():
    """At the end the registry is taken away, and restored with a warning."""
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def test_a_crowd_sees_no_error_and_loses_nothing(tmp_path):
    crowd = gather(tmp_path, 4, steps=40)
    assert crowd.errors == []
    assert crowd.problems == []
    assert sum(len(journal.done) for journal in crowd.journals) == 4 * 40
    assert table(crowd).splitlines()[-1].split()[:2] == ["all", "160"]


def test_what_is_killed_at_random_loses_nothing(tmp_path):
    crowd = kill_at_random(tmp_path, seed=5)
    assert crowd.killed == 2
    assert crowd.errors == []
    assert crowd.problems == []


def test_every_kind_of_work_is_done_in_the_whole_campaign():
    assert set(WEIGHTS) >= {"save", "compose", "tag", "note", "rename", "remove", "gc", "backup"}


def test_what_is_lost_is_noticed(store):
    """A comparison that finds nothing in a store that lost something proves nothing."""
    store.save("base", vector(1))
    first = store.save("love", vector(2))
    store.save("love", vector(3))
    told = Journal(own={"w0n1.v1": [first.digest, [], ""]}, tags={"t1"})
    told.shared = {"love.v1": first.digest, "love.v2": first.digest}
    found = list(wrong(Store(store.path), [told]))
    assert [line.split(":")[0] for line in found] == [
        "process 0 was told another thing of ['w0n1.v1']",
        "a version of love is lost",
        "tags of base are lost",
    ]
