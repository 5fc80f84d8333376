"""How torch's threads wait for one another; torch-free, and read when torch is first imported."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, MutableMapping

_NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")

_WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}
"""Threads sleep; GNU's OpenMP, torch's on Linux, lets them spin for a tenth of a millisecond first.

A thread that spins takes the core from the one that it waits for, and GNU's do so for three
milliseconds by default: beside three busy processes on 2 cores, 12 tokens of SmolLM2 took 33 s. To
wake one that sleeps takes long too: 20 tokens at 2 rows on 2 free cores took 1.19 s without
spinning, 0.80 s with a count of 1,000, 0.63 s from 6,000 on, and 0.91 s on one thread.
"""


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make OpenMP's threads sleep soon where they would spin, unless the user has chosen.

    Without effect where torch was imported earlier: OpenMP reads it then.
    """
    if any(name in environment for name in _NAMES):
        return
    environment.update(_WAITING)
    if "torch" in sys.modules:
        logging.getLogger("steerlab.models").info(
            "torch was imported before steerlab, so its threads spin while they wait, which is "
            "slow beside other work: import steerlab first, or set OMP_WAIT_POLICY=PASSIVE"
        )


def inherited(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment for another program, without what `limit_spinning` has said."""
    said = all(environment.get(name) == value for name, value in _WAITING.items())
    return {n: value for n, value in environment.items() if not (said and n in _WAITING)}


def spinning(environment: Mapping[str, str] = os.environ) -> str:
    """What is said about waiting, in a line: the fastest product depends on it."""
    return ", ".join(f"{name} {environment[name]}" for name in _NAMES if name in environment)
