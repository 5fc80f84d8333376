"""What a ref means: the row of "love", "love.v2" or "smollm2.love.v2", or the closest names."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from steerlab.core.recipe import is_name
from steerlab.errors import BadOption, Incompatible, NotFound
from steerlab.registry import removals
from steerlab.registry.queries import Model, model_id, names
from steerlab.registry.tables import MODEL, VECTOR


@dataclass(frozen=True)
class Ref:
    """The parts of a ref; None for those left out."""

    name: str
    model: str | None = None
    version: int | None = None


def parse_ref(text: str) -> Ref:
    """Read name, name.v2, model.name or model.name.v2; raises NotFound for anything else."""
    if not isinstance(text, str):
        raise BadOption(f"a vector is named by a text, not {text!r:.60}")
    parts = text.split(".")
    version = None
    if len(parts) > 1 and re.fullmatch(r"v[0-9]{1,18}", parts[-1]):
        version = int(parts.pop()[1:])
    if len(parts) > 2 or not all(is_name(part) for part in parts):
        raise NotFound(
            f"no vector can be called {text[:80]!r}: "
            "write name, name.v2, model.name or model.name.v2"
        )
    return Ref(parts[-1], parts[0] if len(parts) == 2 else None, version)


_VERSIONS = (
    select(MODEL.c.name, VECTOR.c.version, VECTOR.c.id)
    .join(VECTOR)
    .where(VECTOR.c.name == bindparam("name"))
    .order_by(MODEL.c.name, VECTOR.c.version)
)


def versions_of(connection: Connection, ref: Ref) -> dict[str, dict[int, int]]:
    """Model name -> version -> row id of every vector that a ref could mean."""
    query = _VERSIONS
    if ref.model is not None:
        query = query.where(VECTOR.c.model_id == model_id(connection, ref.model))
    found: dict[str, dict[int, int]] = defaultdict(dict)
    for model, version, row in connection.execute(query, {"name": ref.name}):
        found[model][version] = row
    return found


def resolve(connection: Connection, text: str, model: Model = None) -> int:
    """The row id that a ref means: the newest version unless it names one.

    model: chooses between models that both have the name. Raises NotFound with the closest
    names, Incompatible when several models have it and none is chosen.
    """
    ref = parse_ref(text)
    found = versions_of(connection, ref)
    if ref.model is None and model is not None and found:
        wanted = model_id(connection, model)
        name = connection.execute(select(MODEL.c.name).where(MODEL.c.id == wanted)).scalar_one()
        if name not in found:
            others = ", ".join(f"{m}.{text}" for m in found)
            was = _was_removed(connection, text, model)
            raise NotFound(f"{name} has no vector called {text}{was}: other models do ({others})")
        found = {name: found[name]}
    if not found:
        raise NotFound(_unknown(connection, text, ref, model))
    if len(found) > 1:
        choices = " or ".join(f"{m}.{text}" for m in found)
        raise Incompatible(f"several models have a vector called {text}: write {choices}")
    ((name, numbered),) = found.items()
    wanted_version = max(numbered) if ref.version is None else ref.version
    if wanted_version not in numbered:
        listed = ", ".join(f"v{v}" for v in numbered)
        was = _was_removed(connection, text, name)
        raise NotFound(f"{ref.name} has no version {ref.version}{was}: it has {listed}")
    return numbered[wanted_version]


def digest_of(connection: Connection, text: str, model: Model = None) -> str:
    """The digest of the vector that a ref means, as `resolve` finds it."""
    own = VECTOR.c.id == resolve(connection, text, model)
    return str(connection.execute(select(VECTOR.c.digest).where(own)).scalar_one())


def removed_versions(connection: Connection, text: str, model: Model = None) -> list[Row[Any]]:
    """The removed versions that a ref means, newest last."""
    ref = parse_ref(text)
    chosen = ref.model if ref.model is not None else model
    row = None if chosen is None else model_id(connection, chosen)
    return removals.gone(connection, [ref.name], row, ref.version)


def _was_removed(connection: Connection, text: str, model: Model) -> str:
    """The date of the removal in brackets; empty if nothing was removed."""
    found = removed_versions(connection, text, model)
    return f" (v{found[-1].version} was removed on {found[-1].created[:10]})" if found else ""


def _unknown(connection: Connection, text: str, ref: Ref, model: Model) -> str:
    if was := _was_removed(connection, text, model):
        return (
            f"no vector called {text}{was}: `steerlab log` lists removals that can be undone, else "
            "an export or a backup has it"
        )
    known = names(connection, ref.model)
    if not known:
        return f"no vector called {text}: the store is empty"
    hint = did_you_mean(ref.name, known) or "`steerlab list` shows what there is"
    return f"no vector called {text}: {hint}"


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """The closest known names as a question; empty if none is close, or the name is known."""
    close = difflib.get_close_matches(name, known, 3, 0.5)
    close = close or [n for n in known if n.lower() == name.lower()]
    return f"did you mean {' or '.join(close)}?" if close and name not in close else ""


def common_model(connection: Connection, refs: Iterable[str]) -> str | None:
    """The model of the unambiguous refs of an expression; None if they differ."""
    fixed: set[str] = set()
    for text in refs:
        try:
            found = versions_of(connection, parse_ref(text))
        except NotFound:
            continue
        if len(found) == 1:
            fixed.update(found)
    return fixed.pop() if len(fixed) == 1 else None
