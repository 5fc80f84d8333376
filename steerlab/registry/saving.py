"""Saving: versions, rounding to float32, and operands matched to stored vectors."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, func, select, union_all

from steerlab.core.notation import is_ref, replace_refs
from steerlab.core.recipe import Contrast, Expression, Operand, Recipe
from steerlab.core.record import LAST_VERSION, Record, record_of
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadExpression, BadOption, BadPrompts, BadVector, NameTaken, NotFound
from steerlab.files import durable, payload
from steerlab.registry import labels
from steerlab.registry.files import Entry, batches, free_path
from steerlab.registry.operands import relink
from steerlab.registry.ports import Writing
from steerlab.registry.rows import Placed, add, find_model, identity_text, refs_of
from steerlab.registry.schema import GIVEN, fetched, given
from steerlab.registry.tables import MODEL, REMOVAL, VECTOR


def plan(
    work: Writing,
    pairs: Sequence[tuple[str, SteeringVector]],
    tags: tuple[str, ...] = (),
    note: str = "",
) -> list[Entry]:
    """Entries for vectors about to be stored: next versions, float32, operands under stored refs.

    An operand may also be an earlier vector of the same call.
    """
    entries: list[Entry] = []
    versions = newest_versions(work.connection, {name for name, _ in pairs})
    for name, vector in pairs:
        check(vector)
        key = identity_text(vector.model), name
        versions[key] = version = following(name, versions[key])
        stored = _rounded(work, vector, f"{name}.v{version}", entries)
        entries.append((record_of(stored, name, version, tags=tags, note=note), stored))
    digests = given({record.digest for record, _ in entries})
    taken = {story for (story,) in fetched(work.connection, _STORIES, **digests)}
    return [(_told_apart(record, taken), vector) for record, vector in entries]


def _told_apart(record: Record, taken: set[str]) -> Record:
    """The record, one microsecond later while its story is taken: clocks may stand still."""
    while record.story in taken:
        later = datetime.fromisoformat(record.created) + timedelta(microseconds=1)
        record = replace(record, created=later.isoformat(timespec="microseconds"))
    taken.add(record.story)
    return record


def store(work: Writing, directory: Path, entries: Sequence[Entry]) -> None:
    """Write payloads durably, then the rows; a crash leaves only garbage files."""
    placed = []
    for batch in batches(entries):
        path = free_path(batch[0][0].digest, lambda path: (directory / path).exists())
        file, data = directory / path, payload.encode(batch)
        labels.renew(directory, {r.story: r.labels for r, _ in batch}, work)
        work.undo.append(partial(file.unlink, missing_ok=True))
        durable.write(file, data)
        placed += [Placed(record, path, record.story) for record, _ in batch]
    add(work.connection, placed)
    relink(work.connection, {record.digest for record, _ in entries})


def store_next(
    work: Writing, directory: Path, made: Iterable[tuple[Record, SteeringVector]]
) -> list[SteeringVector]:
    """Store vectors as the next versions of records, one after the other."""
    stored = []
    for old, vector in made:
        entries = plan(work, [(old.name, vector)], old.tags, old.note)
        store(work, directory, entries)
        stored += [vector for _, vector in entries]
    return stored


def with_refs(recipe: Expression, renamed: dict[str, str]) -> Expression:
    """Replace the refs of operands; operands that become equal are merged."""
    operands = {renamed.get(o.ref, o.ref): o.digest for o in recipe.operands}
    text = replace_refs(recipe.text, renamed)
    return Expression(text, tuple(Operand(ref, digest) for ref, digest in operands.items()))


def following(name: str, newest: int) -> int:
    """The version after the newest of a name; raises NameTaken after the last."""
    if newest >= LAST_VERSION:
        raise NameTaken(f"no version of {name} can follow {name}.v{newest}: use another name")
    return newest + 1


def newest_versions(connection: Connection, names: Collection[str]) -> dict[tuple[str, str], int]:
    """(identity of a model, name) -> the highest version number that was ever used."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    for model, name, version in fetched(connection, _NEWEST, **given(names)):
        found[model, name] = max(found[model, name], version)
    return found


_NEWEST = union_all(
    select(MODEL.c.identity, VECTOR.c.name, func.max(VECTOR.c.version))
    .join(VECTOR)
    .where(VECTOR.c.name.in_(GIVEN))
    .group_by(MODEL.c.id, VECTOR.c.name),
    select(REMOVAL.c.model, REMOVAL.c.name, func.max(REMOVAL.c.version))
    .where(REMOVAL.c.name.in_(GIVEN))
    .group_by(REMOVAL.c.model, REMOVAL.c.name),
)
_STORIES = select(VECTOR.c.story).where(VECTOR.c.digest.in_(GIVEN))


def _rounded(
    work: Writing, vector: SteeringVector, ref: str, earlier: Sequence[Entry]
) -> SteeringVector:
    recipe = vector.recipe
    if isinstance(recipe, Expression):
        refs: dict[str, str] = {}
        for o in recipe.operands:
            if o.digest not in refs:
                refs[o.digest] = stored_ref(work.connection, o, vector, earlier)
        recipe = with_refs(recipe, {o.ref: refs[o.digest] for o in recipe.operands})
    return rounded(vector, ref, recipe)


def rounded(vector: SteeringVector, ref: str, recipe: Recipe | None = None) -> SteeringVector:
    """The vector in float32 under a ref; recipe: None keeps its own."""
    return SteeringVector(
        vector.directions,
        model=vector.model,
        recipe=recipe or vector.recipe,
        scope=vector.scope,
        residual_norms=vector.residual_norms,
        diagnostics=vector.diagnostics,
        ref=ref,
    )


def stored_ref(
    connection: Connection, operand: Operand, child: SteeringVector, earlier: Sequence[Entry]
) -> str:
    """The ref of an operand in this store, found by digest; of several, the one with its name."""
    model = find_model(connection, child.model)
    order = VECTOR.c.model_id != model, VECTOR.c.version.desc(), VECTOR.c.id
    found = refs_of(connection, operand.digest, model, *order)
    found += [record.ref for record, _ in earlier if record.digest == operand.digest]
    if not found:
        raise NotFound(_unsaved(operand, child))
    named = [ref for ref in found if operand.ref in (ref, ref.rpartition(".")[0])]
    return (named or found)[0]


def _unsaved(operand: Operand, child: SteeringVector) -> str:
    text = child.recipe.text if isinstance(child.recipe, Expression) else str(child)
    shown = text if len(text) <= 60 else f"{text[:60]}…"
    if operand.ref.startswith("unsaved_"):
        return f"{operand.ref} in {shown} was never saved: save that vector under a name first"
    return f"{operand.ref} in {shown} is not in this store: save or import it first"


def check(vector: SteeringVector) -> None:
    """Refuse values that rows or payloads can't hold."""
    for b, norm in vector.residual_norms.items():
        if not math.isfinite(norm) or norm < 0:
            raise BadVector(f"the residual norm of layer {b} is {norm}")
    for b, measured in vector.diagnostics.items():
        for name, value in measured.items():
            if not math.isfinite(value):
                raise BadVector(f"the diagnostic {name!r} of layer {b} is {value}")
    check_recipe(vector.recipe)


def check_recipe(recipe: Recipe) -> None:
    """Refuse a recipe that could not be stored, shown or computed again."""
    if isinstance(recipe, Expression):
        from steerlab.core.syntax import parse

        parsed, refs = parse(recipe.text), {o.ref for o in recipe.operands}
        if unknown := {*parsed.refs} - refs:
            raise BadExpression(f"nothing is known of its operand {min(unknown)}")
        if len(refs) < len(recipe.operands) or str(parsed) != recipe.text:
            raise BadExpression("it is spelt as no steerlab spells it")
        for operand in recipe.operands:
            if not is_ref(operand.ref):
                raise BadExpression(f"{operand.ref[:40]!r} is no reference to a vector")
            if not re.fullmatch(r"[0-9a-f]{64}", operand.digest):
                raise BadExpression(f"{operand.digest[:40]!r} is not a digest")
    elif isinstance(recipe, Contrast):
        if not -(2**63) <= (recipe.seed or 0) < 2**63:
            raise BadOption(f"the seed {recipe.seed} has more than 64 bits")
        paired = recipe.method != "difference_of_means"
        if paired and len(recipe.negative) not in (0, len(recipe.positive)):
            raise BadPrompts(
                f"{len(recipe.positive)} positive but {len(recipe.negative)} negative prompts"
            )
        every = (*recipe.positive, *recipe.negative, *recipe.baseline)
        for turns in (recipe.systems, recipe.answers):
            if len(turns) not in (0, len(every)):
                raise BadPrompts(f"{len(turns)} turns for {len(every)} prompts")
        for ids, prompts in (
            (recipe.positive_ids, recipe.positive),
            (recipe.negative_ids, recipe.negative),
            (recipe.prompt_ids, every),
            (recipe.spans, recipe.prompt_ids),
        ):
            if len(ids) not in (0, len(prompts)):
                raise BadPrompts(f"{len(ids)} lists of token ids for {len(prompts)} prompts")
