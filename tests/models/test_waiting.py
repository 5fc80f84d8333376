"""Threads that wait sleep, unless the user wants them to spin."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch  # noqa: F401  # imported earlier, as by a user

from steerlab.models.waiting import inherited, limit_spinning, spinning


def test_threads_sleep_soon_unless_told_otherwise():
    environment = {}
    limit_spinning(environment)
    assert environment == {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
    assert spinning(environment) == "OMP_WAIT_POLICY PASSIVE, GOMP_SPINCOUNT 10000"


def test_another_program_waits_as_it_would_alone():
    environment = {"HOME": "/root"}
    limit_spinning(environment)
    assert inherited(environment) == {"HOME": "/root"}
    chosen = {"HOME": "/root", "OMP_WAIT_POLICY": "PASSIVE"}
    limit_spinning(chosen)
    assert inherited(chosen) == chosen


@pytest.mark.parametrize(
    "chosen", [{"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "9"}, {"KMP_BLOCKTIME": "200"}]
)
def test_a_choice_of_the_user_stays(chosen):
    environment = dict(chosen)
    limit_spinning(environment)
    assert environment == chosen


@pytest.mark.parametrize("chosen", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_an_earlier_import_of_torch_is_noted_unless_the_user_has_chosen(caplog, chosen):
    assert "torch" in sys.modules
    with caplog.at_level("INFO", "steerlab.models"):
        limit_spinning(dict(chosen))
    assert ("torch was imported before steerlab" in caplog.text) == (not chosen)


def test_it_is_said_before_torch_is_loaded():
    code = "import os, sys, steerlab.models; print(os.environ['OMP_WAIT_POLICY'], *sys.modules)"
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    policy, *imported = done.stdout.split()
    assert policy == "PASSIVE"
    assert "torch" not in imported
