"""Rows that join and leave one batch are what they are alone, in every family of models."""

import pytest

from steerlab.errors import ModelError
from steerlab.interventions.by_row import RowHooks
from steerlab.serving.batch import check_rows
from tests.tiny import ARCHITECTURES, WITH_A_STATE, tiny_lm


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_are_kept_apart(architecture: str) -> None:
    lm = tiny_lm(architecture)
    with RowHooks(lm) as hooks:
        check_rows(lm, hooks)


@pytest.mark.parametrize("architecture", WITH_A_STATE)
def test_what_keeps_its_past_elsewhere_is_refused(architecture: str) -> None:
    lm = tiny_lm(architecture)
    with RowHooks(lm) as hooks, pytest.raises(ModelError, match="can't be served"):
        check_rows(lm, hooks)
