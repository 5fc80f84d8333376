"""Audits as values: rows apart, shades, one line of tokens, JSON."""

from __future__ import annotations

import json
import math

import pytest

from steerlab.core.audit import Audit, AuditedText, Change

AUDIT = Audit(
    (
        Change(0, 1, 0, 0, (0, 1), (1.0, 3.0)),
        Change(0, 2, 0, 0, (1,), (2.0,)),
        Change(0, 1, 1, 0, (0,), (9.0,)),
        Change(1, 1, 0, 0, (2,), (3.5,)),
        Change(2, 1, 0, 0, (3,), (3.0,)),
    ),
    rows=3,
    passes=3,
)
TEXT = AuditedText(("I", "␣am", "\x1b[31m", "b"), 2, AUDIT.of_row(0, 3))


def test_norms_are_the_largest_of_all_layers_or_those_of_one():
    assert AUDIT.norms() == {0: 1.0, 1: 3.0, 2: 3.5, 3: 3.0}
    assert AUDIT.norms(layer=2) == {1: 2.0}
    assert AUDIT.positions(1) == (0,)
    assert AUDIT.layers == (1, 2)


def test_a_row_alone_ends_where_its_text_does():
    alone = AUDIT.of_row(1, 3)
    assert alone == Audit((Change(0, 1, 0, 0, (0,), (9.0,)),), rows=1, passes=3)
    assert AUDIT.of_row(0, 3).positions() == (0, 1, 2)
    assert AUDIT.of_row(2, 3).changes == ()


def test_every_row_is_listed_unsteered_ones_too():
    assert str(AUDIT).splitlines() == [
        "row 0  layer 1  passes 0-2  positions 0-3  ‖Δ‖ 1.000 to 3.500",
        "row 0  layer 2  passes 0  positions 1  ‖Δ‖ 2.000",
        "row 1  layer 1  passes 0  positions 0  ‖Δ‖ 9.000",
        "row 2  unsteered",
    ]


def test_a_text_is_a_line_with_a_mark_before_each_token():
    assert TEXT.shades() == pytest.approx([1 / 3.5, 3 / 3.5, 1, 0])
    assert str(TEXT).splitlines() == [
        r"▂I█ am → █\x1b[31m·b",
        "changed: 3 of 4 tokens, positions 0-2, layers 1-2, ‖Δ‖ 1.000 to 3.500",
    ]


def test_an_unsteered_text_and_an_unknown_one_say_so():
    assert AuditedText(("a",), 1, Audit()).summary() == "unsteered: no token was changed"
    unknown = AuditedText(("a",), 1, Audit(problem="no cache"))
    assert unknown.summary() == "which tokens were changed is unknown: no cache"
    assert unknown.shades() == [0]


def test_json_has_every_pass_layer_and_position():
    data = json.loads(json.dumps(TEXT.to_json(), allow_nan=False))
    assert data["prompt_tokens"] == 2
    assert data["problem"] == ""
    first = {"pass": 0, "layer": 1, "row": 0, "copy": 0, "positions": [0, 1], "norms": [1, 3]}
    assert data["changes"][0] == first
    assert [change["positions"] for change in data["changes"]] == [[0, 1], [1], [2]]


def test_norms_that_overflow_are_null_and_drawn_as_the_largest():
    found = Audit((Change(0, 1, 0, 0, (0, 1, 2), (math.inf, math.nan, 2.0)),), rows=1, passes=1)
    assert found.to_json()["changes"][0]["norms"] == [None, None, 2.0]
    assert AuditedText(("a", "b", "c"), 3, found).shades() == [1, 1, 1]
