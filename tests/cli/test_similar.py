"""steerlab similar."""

from __future__ import annotations


def test_similar_lists_the_nearest(cli, store):
    rows = cli("similar", "love", "--json").data
    assert ".warm." in rows[0]["ref"]
    assert rows[0]["layers"] == [1, 2]
    table = cli("similar", "love").out.splitlines()
    assert table[0].split() == ["vector", "cosine", "layers"]
    assert len(table) == 1 + len(rows) == 3  # front has another scope
    assert len(cli("similar", "love", "--limit", "1", "--json").data) == 1
