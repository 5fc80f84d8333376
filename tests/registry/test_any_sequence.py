"""After any changes, in any order, a store holds what a model of a few dictionaries says."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import cycle
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from steerlab.core.recipe import Expression
from steerlab.errors import NameTaken, StoreError
from steerlab.registry import Store
from steerlab.registry.rows import identity_text, read
from steerlab.registry.tables import REMOVAL
from steerlab.registry.upkeep.verify import Damage
from tests.registry.samples import OTHER, TINY, vector

NAMES = st.sampled_from(["love", "anger", "calm"])
MODELS = st.sampled_from([TINY, OTHER])
TAGS = st.lists(st.sampled_from(["warm", "cold", "a b", "x,y"]), max_size=2)
NOTES = st.sampled_from(["", "one", "two\nlines"])
WHICH = st.integers(0, 1000)
SEVERAL = st.lists(WHICH, min_size=1, max_size=3)
LABELS = ("name", "tags", "note")


@dataclass(frozen=True)
class Kept:
    """A stored vector; operands: their digests."""

    model: str
    name: str
    version: int
    digest: str
    tags: tuple[str, ...]
    note: str
    operands: frozenset[str]

    @property
    def ref(self) -> str:
        return f"{self.model}.{self.name}.v{self.version}"


@dataclass
class Logged:
    """A change that can be undone: story -> the vector before and after it."""

    what: str
    steps: dict[str, tuple[Kept, Kept | None]] = field(default_factory=dict)
    undone: bool = False


def kept(store: Store) -> dict[str, Kept]:
    """Story -> vector, as the store has them."""
    ids = [summary.id for summary in store.list(every_version=True)]
    with store._database.reading() as connection:
        rows = read(connection, ids).values()
    found = {}
    for row in rows:
        recipe = row.record.recipe
        operands = recipe.operands if isinstance(recipe, Expression) else ()
        r = row.record
        own = (r.model.name, r.name, r.version, r.digest, r.tags, r.note)
        found[row.story] = Kept(*own, frozenset(o.digest for o in operands))
    return found


class AnySequence(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="steerlab-"))
        self.stores = cycle([Store(self.root / "store"), Store(self.root / "store")])
        self.here: dict[str, Kept] = {}
        self.log: list[Logged] = []

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @property
    def store(self) -> Store:
        """One of two stores in turn, as two programs have them."""
        return next(self.stores)

    def chosen(self, which: int) -> str:
        stories = sorted(self.here, key=lambda story: self.here[story].ref)
        return stories[which % len(stories)]

    def added(self, refs: list[str], tags=(), note="") -> None:
        """Take in what a save returned."""
        now = kept(self.store)
        new = {story: now[story] for story in now.keys() - self.here.keys()}
        assert sorted(f"{k.name}.v{k.version}" for k in new.values()) == sorted(refs)
        assert all((k.tags, k.note) == (tuple(sorted(set(tags))), note) for k in new.values())
        self.here |= new

    def following(self, model, name: str) -> int:
        """The version that a name gets next."""
        own = identity_text(model)
        with self.store._database.reading() as connection:
            where = REMOVAL.c.model == own, REMOVAL.c.name == name
            gone = connection.execute(select(REMOVAL.c.version).where(*where)).scalars().all()
        here = [k.version for k in self.here.values() if (k.model, k.name) == (model.name, name)]
        return max([0, *gone, *here]) + 1

    # changes

    @rule(name=NAMES, seed=st.integers(0, 4), model=MODELS, tags=TAGS, note=NOTES)
    def save(self, name, seed, model, tags, note):
        version = self.following(model, name)
        saved = self.store.save(name, vector(seed, model=model), tags=tags, note=note)
        assert saved.ref == f"{name}.v{version}"
        self.added([saved.ref], tags, note)

    @rule(names=st.lists(NAMES, min_size=2, max_size=4), model=MODELS)
    def save_many(self, names, model):
        saved = self.store.save_many([(n, vector(i, model=model)) for i, n in enumerate(names)])
        self.added([str(one.ref) for one in saved])

    @precondition(lambda self: self.here)
    @rule(first=WHICH, second=WHICH, name=NAMES)
    def compose(self, first, second, name):
        a, b = (self.here[self.chosen(which)] for which in (first, second))
        if a.model == b.model:
            made = self.store.evaluate(f"{a.ref} - 0.5 * {b.ref}")
            self.added([str(self.store.save(name, made).ref)])

    def relabelled(self, what: str, new: dict[str, Kept]) -> None:
        steps = {s: (self.here[s], k) for s, k in new.items() if self.here[s] != k}
        self.here |= new
        if steps:
            self.log.append(Logged(what, steps))

    @precondition(lambda self: self.here)
    @rule(which=WHICH, add=TAGS, remove=TAGS)
    def tag(self, which, add, remove):
        story = self.chosen(which)
        old = self.here[story]
        self.store.tag(old.ref, add, remove)
        tags = tuple(sorted(({*old.tags} | {*add}) - {*remove}))
        self.relabelled("tag", {story: replace(old, tags=tags)})

    @precondition(lambda self: self.here)
    @rule(which=WHICH, note=NOTES)
    def note(self, which, note):
        story = self.chosen(which)
        self.store.note(self.here[story].ref, note)
        self.relabelled("note", {story: replace(self.here[story], note=note)})

    @precondition(lambda self: self.here)
    @rule(which=WHICH, new=NAMES)
    def rename(self, which, new):
        old = self.here[self.chosen(which)]
        taken = any((k.model, k.name) == (old.model, new) for k in self.here.values())
        if taken and new != old.name:
            with pytest.raises(NameTaken):
                self.store.rename(f"{old.model}.{old.name}", new)
            return
        self.store.rename(f"{old.model}.{old.name}", new)
        mine = {s: k for s, k in self.here.items() if (k.model, k.name) == (old.model, old.name)}
        self.relabelled("rename", {s: replace(k, name=new) for s, k in mine.items()})

    @precondition(lambda self: self.here)
    @rule(which=SEVERAL, force=st.booleans())
    def remove(self, which, force):
        going = {story: self.here[story] for story in map(self.chosen, which)}
        stay = {s: k for s, k in self.here.items() if s not in going}
        lost = {k.digest for k in going.values()} - {k.digest for k in stay.values()}
        needed = any(k.operands & lost for k in stay.values())
        try:
            self.store.remove([k.ref for k in going.values()], force=force)
        except StoreError:
            assert not force  # needed, or in its place there is but its own descendant
            assert any(k.operands & {g.digest for g in going.values()} for k in stay.values())
            return
        assert force or not needed
        self.here = stay
        self.log.append(Logged("remove", {s: (k, None) for s, k in going.items()}))

    @precondition(lambda self: self.log)
    @rule(which=WHICH)
    def undo(self, which):
        number = which % len(self.log)
        change = self.log[number]
        as_left = all(self.here.get(s) == after for s, (_, after) in change.steps.items())
        try:
            self.store.changes.undo(self.store.changes.list()[len(self.log) - 1 - number].number)
        except StoreError:
            assert change.undone or change.what in ("remove", "rename") or not as_left
            return
        assert not change.undone
        change.undone = True
        for story, (before, after) in change.steps.items():
            if after is None:
                assert story not in self.here
                self.here[story] = before
                continue
            was = {f: getattr(before, f) for f in LABELS if getattr(before, f) != getattr(after, f)}
            self.here[story] = replace(self.here[story], **was)

    @rule(delete=st.booleans())
    def gc(self, delete):
        self.store.upkeep.gc(dry_run=not delete, grace=timedelta(0))

    @precondition(lambda self: self.here)
    @rule()
    def rebuild(self):
        assert self.store.upkeep.rebuild() == len(self.here)

    @precondition(lambda self: self.here)
    @rule()
    def lose_registry(self):
        for file in (self.root / "store").glob("registry.db*"):
            file.unlink()
        self.log = []

    @precondition(lambda self: self.here)
    @rule(which=SEVERAL, parents=st.booleans())
    def export(self, which, parents):
        refs = sorted({self.here[self.chosen(one)].ref for one in which})
        self.store.transfer.export(refs, self.root / "x.tar", parents=parents, force=True)

    @precondition(lambda self: (self.root / "x.tar").exists())
    @rule()
    def import_(self):
        done = self.store.transfer.import_(self.root / "x.tar")
        now = kept(self.store)
        assert {one.story for one in done if one.already} <= self.here.keys()
        for one in done:
            ref = f"{one.model.name}.{one.ref}"
            assert (now[one.story].ref, now[one.story].digest) == (ref, one.digest)
        assert {s: now.get(s) for s in self.here} == self.here
        assert now.keys() - self.here.keys() == {o.story for o in done if not o.already}
        self.here = now

    # what has to hold

    @invariant()
    def it_holds_what_the_model_says(self):
        assert kept(self.store) == self.here
        newest: dict[tuple[str, str], int] = {}
        for k in self.here.values():
            newest[k.model, k.name] = max(k.version, newest.get((k.model, k.name), 0))
        listed = {s.qualified for s in self.store.list()}
        assert listed == {f"{m}.{n}.v{version}" for (m, n), version in newest.items()}
        logged = [(c.what, c.undone) for c in self.store.changes.list()]
        assert logged == [(c.what, c.undone) for c in reversed(self.log)]

    @invariant()
    def nothing_is_wrong_but_operands_that_were_removed(self):
        by_ref = {k.ref: k for k in self.here.values()}
        digests = {k.digest for k in self.here.values()}
        for finding in self.store.verify():
            assert finding.damage is Damage.OPERAND, finding
            assert by_ref[finding.ref].operands - digests, finding


def play(examples: int, steps: int) -> None:
    how = settings(max_examples=examples, stateful_step_count=steps, deadline=None, database=None)
    run_state_machine_as_test(AnySequence, settings=how)


def test_a_few_sequences():
    play(3, 12)


@pytest.mark.campaign
def test_many_sequences():
    play(10, 30)
