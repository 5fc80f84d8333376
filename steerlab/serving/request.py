"""The `steering` field of a request, for every engine; needs no torch and no store.

"love - anger dose=0.2 layers=15"           a text; `--dose 0.2` and `--dose=0.2` do as well
"love dose=0.2; calm coefficient=1"         several, which add up
{"vector": "love", "dose": 0.2, "positions": "generated"}
[{"vector": "love"}, "calm dose=0.1"]
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from steerlab.core.notation import LayerChoice, layers_of
from steerlab.core.operation import Operation
from steerlab.core.run import POSITIONS, Positions
from steerlab.core.syntax import parse
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, Incompatible

MOST = 16
"""How many vectors one request may add up."""

_LONGEST = 2000  # characters of one text
_WORD = re.compile(r"(?:^|\s)(?:--(?P<flag>[a-z]+)(?:\s*=\s*|\s+)|(?P<name>[a-z]+)=)(?P<value>\S*)")


@dataclass(frozen=True)
class Steer:
    """One vector of a request, and how it is added.

    vector: an expression over stored vectors. dose, coefficient: at most one; None for both is
        the calibrated strength. layers: as `LanguageModel.layers` takes them; None is where the
        vector was calibrated. operation: what is done with it. digest: of the vector that is
        meant, for clients with a store of their own.
    Raises BadExpression, BadOption.
    """

    vector: str
    dose: float | None = None
    coefficient: float | None = None
    layers: LayerChoice = None
    positions: Positions = "all"
    operation: str = "add"
    digest: str | None = None

    def __post_init__(self) -> None:
        parse(self.vector)
        Operation(self.operation)
        if self.positions not in POSITIONS:
            raise BadOption(f"positions are {', '.join(POSITIONS)}, not {self.positions!r}")
        if self.dose is not None and self.coefficient is not None:
            raise BadOption("give a dose or a coefficient, not both")

    def check(self, vector: SteeringVector) -> None:
        """Raise Incompatible if a store has another vector here than the client meant."""
        if self.digest not in (None, vector.digest):
            raise Incompatible(
                f"{self.vector} is another vector in this server's store: give it a store that has "
                "yours, or save yours there under another name"
            )


NAMES = tuple(f.name for f in fields(Steer))


def parse_steering(value: object) -> tuple[Steer, ...]:
    """Read a `steering` field: a text, an object or a list of these; None is no steering.

    Raises BadExpression or BadOption with what is wrong.
    """
    if value is None:
        return ()
    entries = value if isinstance(value, list) else [value]
    found = [one for entry in entries[: MOST + 1] for one in _read(entry)]
    if len(found) > MOST or len(entries) > MOST:
        raise BadOption(f"a request can add at most {MOST} vectors")
    return tuple(found)


def parse_steer(text: str) -> Steer:
    """Read one vector with its options from text, such as "love - anger dose=0.2"."""
    if len(text) > _LONGEST:
        raise BadOption(f"a steering text has at most {_LONGEST} characters, not {len(text)}")
    first = _WORD.search(text)
    expression, rest = (
        (text, "") if first is None else (text[: first.start()], text[first.start() :])
    )
    options: dict[str, Any] = {}
    while rest.strip():
        word = _WORD.match(rest)
        if word is None:
            raise BadOption(
                f"{rest.strip()[:60]!r} comes after the options: the expression goes first"
            )
        name = word["flag"] or word["name"]
        if name in options:
            raise BadOption(f"{name} is given more than once")
        options[name], rest = word["value"], rest[word.end() :]
    return _made({**options, "vector": expression.strip()})


def _read(entry: object) -> list[Steer]:
    if isinstance(entry, str):
        parts = entry.split(";") if entry.strip() else []
        return [parse_steer(part) for part in parts if part.strip()]
    if not isinstance(entry, Mapping):
        raise BadOption(
            'steering is a text such as "love dose=0.2", an object such as {"vector": "love", '
            f'"dose": 0.2}}, or a list of these, not {type(entry).__name__}'
        )
    return [_made(entry)]


def _made(options: Mapping[str, Any]) -> Steer:
    unknown = [name for name in options if name not in NAMES]
    if unknown:
        raise BadOption(f"steering has no {str(unknown[0])[:60]!r}: it has {', '.join(NAMES)}")
    vector = options.get("vector")
    if not isinstance(vector, str) or not vector.strip():
        raise BadOption('steering needs a vector: {"vector": "love", "dose": 0.2}')
    if len(vector) > _LONGEST:
        raise BadOption(f"an expression has at most {_LONGEST} characters, not {len(vector)}")
    given = {name: value for name, value in options.items() if value is not None}
    for name in ("dose", "coefficient"):
        if name in given:
            given[name] = _number(name, given[name])
    if "layers" in given:
        given["layers"] = _layers(given["layers"])
    for name in ("positions", "operation", "digest"):
        if not isinstance(given.get(name, ""), str):
            raise BadOption(f"{name} is a text, not {type(given[name]).__name__}")
    return Steer(**given)


def _number(name: str, value: object) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError
        number = float(value)
        if not math.isfinite(number):
            raise ValueError
    except (ValueError, OverflowError):
        raise BadOption(f"{name} is a finite number, not {str(value)[:60]!r}") from None
    return number


def _layers(value: object) -> LayerChoice:
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if isinstance(value, list) and value and all(type(b) is int for b in value):
        return value
    if isinstance(value, str):
        return layers_of(value)
    raise BadOption(f"layers are such as 15, '10,15', '10:20' or 'all', not {str(value)[:60]!r}")
