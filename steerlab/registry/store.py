"""Store: the directory where steering vectors live, and the only way to change it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from steerlab.core import above
from steerlab.core.recipe import check_name
from steerlab.core.record import Labels, Record
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption, CorruptPayload, Incompatible, NotFound
from steerlab.files.location import discover, expanded
from steerlab.progress import Progress
from steerlab.registry import files, lineage, queries, relabelling, removals, saving, undo_log
from steerlab.registry.changes import Changes
from steerlab.registry.connections import BUSY_SECONDS
from steerlab.registry.database import Database
from steerlab.registry.lineage import Lineage
from steerlab.registry.listing import Listing
from steerlab.registry.queries import Filters, Model, StoredModel, Summary
from steerlab.registry.refs import common_model, parse_ref, resolve
from steerlab.registry.relabelling import checked_note, checked_tags
from steerlab.registry.results import Results
from steerlab.registry.rows import Stored, read
from steerlab.registry.runs import Runs
from steerlab.registry.schema import chunks
from steerlab.registry.sqlite_errors import damaged, one_line_errors
from steerlab.registry.sweeps import Sweeps
from steerlab.registry.transfer.transfer import Transfer
from steerlab.registry.upkeep.upkeep import Upkeep

if TYPE_CHECKING:
    from steerlab.registry.duplicates import Duplicate
    from steerlab.registry.history import Event
    from steerlab.registry.neighbours import Neighbour, Neighbours
    from steerlab.registry.search import Search
    from steerlab.registry.upkeep.verify import Finding


class Store(above.Shown):
    """A directory of steering vectors and the registry that knows what each one is.

    path: None looks for one: STEERLAB_STORE, then ./store if it is one, then the user's data
        directory. Nothing is read or created before the first call that needs it.
    timeout: seconds to wait for another process that is writing.

    A ref is a name ("love", its newest version), "love.v2", or either after the model's name
    ("smollm2.love.v2"). model: a name, source or identity; chooses between models that have a
    vector of the same name. Every method raises StoreError if the store can't be used, and
    NotFound, with the closest names, for an unknown ref.

    listing: a table of vectors under a filter. runs, sweeps, results: generated texts and
    measurements. transfer: export, import, backup, restore. upkeep: verify, rebuild, gc, usage.
    changes: what was tagged, renamed or removed, and how to undo it.
    """

    def __init__(self, path: str | Path | None = None, *, timeout: float = BUSY_SECONDS) -> None:
        self.path = discover() if path is None else expanded(path).absolute()
        self._database = Database(self.path, lambda new: self.upkeep.fill(new), timeout=timeout)
        self.runs, self.sweeps = Runs(self._database), Sweeps(self._database)
        self.results = Results(self._database, self.path)
        self.transfer, self.upkeep = Transfer(self._database), Upkeep(self._database)
        self.listing, self.changes = Listing(self._database), Changes(self._database)
        self._neighbours: Neighbours | None = None

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return partial(Store, timeout=self._database.timeout), (self.path,)

    # as a mapping of refs, that iterates over records

    def __getitem__(self, ref: str) -> SteeringVector:
        return self.load(ref)

    def __contains__(self, ref: object) -> bool:
        """Whether a ref names a stored vector; an ambiguous name does."""
        try:
            return isinstance(ref, str) and bool(self.record(ref))
        except NotFound:
            return False
        except Incompatible:
            return True

    def __len__(self) -> int:
        return len(self.listing.matching())

    def __bool__(self) -> bool:
        return True  # an empty store is one too

    def __iter__(self) -> Iterator[Record]:
        """The newest version of each name, by name."""
        for chunk in chunks(self.listing.matching()):
            with self._database.reading() as connection:
                found = read(connection, chunk)
            yield from (stored.record for stored in found.values())

    # saving and loading

    def save(
        self, name: str, vector: SteeringVector, *, tags: Iterable[str] = (), note: str = ""
    ) -> SteeringVector:
        """Store a vector durably; returns it as stored: in float32, with its ref.

        A name that is or was in use gets its next version. The operands of an expression must be
        stored. Raises NameTaken for an invalid name, NotFound for an operand that is not stored.
        """
        return self.save_many([(name, vector)], tags=tags, note=note)[0]

    def save_many(
        self,
        items: Iterable[tuple[str, SteeringVector]],
        *,
        tags: Iterable[str] = (),
        note: str = "",
    ) -> list[SteeringVector]:
        """Store vectors in few files and one transaction, all or none."""
        pairs = [(check_name(name), vector) for name, vector in items]
        labels, note = checked_tags(tags), checked_note(note)
        with self._database.writing() as work:
            entries = saving.plan(work, pairs, labels, note)
            saving.store(work, self.path, entries)
        return [vector for _, vector in entries]

    def load(self, ref: str, model: Model = None) -> SteeringVector:
        """Load a vector and check its digest; raises CorruptPayload if it was altered."""
        stored = self._stored(ref, model)
        try:
            return self._payload_of(stored)
        except (NotFound, CorruptPayload):
            again = self._stored(ref, model)  # another process may have removed it meanwhile
            if again == stored:
                raise
        return self._payload_of(again)

    def record(self, ref: str, model: Model = None) -> Record:
        """The record of a vector: everything but its arrays."""
        return self._stored(ref, model).record

    def qualified(self, ref: str, model: Model = None) -> str:
        """The ref that means this version in this store alone: "smollm2.love.v1"."""
        return self._stored(ref, model).qualified

    def evaluate(self, expression: str, model: Model = None) -> SteeringVector:
        """Compute an expression over stored vectors: "love - 0.5*anger".

        A name that several models have means the vector of the model that other operands fix.
        """
        from steerlab.core.expression import evaluate
        from steerlab.core.syntax import parse

        parsed = parse(expression)
        with self._database.reading() as connection:
            chosen = model if model is not None else common_model(connection, parsed.refs)

        def lookup(ref: str) -> SteeringVector:
            try:
                return self.load(ref, model)
            except Incompatible:
                if chosen is None:
                    raise
                return self.load(ref, chosen)

        return evaluate(parsed, lookup)

    # looking

    def list(
        self,
        name: str | None = None,
        *,
        model: Model = None,
        layer: int | None = None,
        tag: str | None = None,
        kind: str | None = None,
        text: str | None = None,
        every_version: bool = False,
        sort: str = "created",
        reverse: bool = False,
        limit: int | None = None,
        after: Summary | None = None,
    ) -> list[Summary]:
        """The vectors that pass every filter, the newest version of each name.

        text: any part of a name, note, tag, recipe or prompt, in any case. sort: one of
        `steerlab.registry.SORTS`. after: the last Summary of the previous page.
        Raises BadOption for a negative limit.
        """
        if limit is not None and limit < 0:
            raise BadOption(f"a list of {limit} vectors: ask for 0 or more")
        filters = Filters(model, layer, tag, kind, text, name, every_version)
        with self._database.reading() as connection:
            return queries.summaries(
                connection, filters, sort=sort, reverse=reverse, limit=limit, after=after
            )

    def search(
        self,
        text: str,
        *,
        limit: int = 20,
        model: Model = None,
        layer: int | None = None,
        tag: str | None = None,
        kind: str | None = None,
        every_version: bool = False,
    ) -> Search:
        """The vectors that contain every word, best first, each with the place that matches.

        Searches names, tags, notes, prompts and recipes in any case. A match in a name counts
        most, and adjacent words count more than separate ones.
        """
        from steerlab.registry.search import search

        filters = Filters(model, layer, tag, kind, every_version=every_version)
        with self._database.reading() as connection:
            return search(connection, filters, text, limit)

    def names(self, model: Model = None) -> Sequence[str]:
        """The names in use, sorted."""
        with self._database.reading() as connection:
            return queries.names(connection, model)

    def models(self) -> Sequence[StoredModel]:
        """The models that have vectors: name in this store, identity, number of vectors."""
        with self._database.reading() as connection:
            return queries.models(connection)

    def lineage(self, ref: str, model: Model = None) -> Lineage:
        """The ancestors and descendants of a vector, as two trees."""
        with self._database.reading() as connection:
            row = resolve(connection, ref, model)
            return Lineage(
                read(connection, [row])[row].qualified,
                lineage.relatives(connection, row, "parents"),
                lineage.relatives(connection, row, "children"),
            )

    def similar(
        self,
        of: str | SteeringVector,
        *,
        model: Model = None,
        limit: int = 20,
        should_stop: Callable[[], bool] | None = None,
        progress: Progress | None = None,
    ) -> Sequence[Neighbour]:
        """The stored vectors of its model and scope that are nearest by cosine, opposites too.

        Over the layers that both have, together and one by one; the newest version of each
        name. of: a ref, or a vector, which need not be stored. For a thousand vectors and more,
        a cache in the user's cache directory is filled, which reads each payload once; progress
        is called with (vectors read, all).
        """
        from steerlab.registry.neighbours import Neighbours

        if self._neighbours is None:
            self._neighbours = Neighbours(self._database, self.path, self._payload_of)
        should_stop, progress = should_stop or (lambda: False), progress or (lambda *_: None)
        return self._neighbours.of(of, model, limit, should_stop, progress)

    def duplicates(self, vector: SteeringVector, *, near: bool = True) -> Sequence[Duplicate]:
        """The first stored vectors that equal this one by digest, else the nearly parallel ones.

        Nearly parallel: an absolute cosine from 0.98 on, among the 200 newest vectors of its
        model and layers, so that this costs the same in any store. near: False leaves them out.
        """
        from steerlab.registry.duplicates import duplicates

        with self._database.reading() as connection:
            return duplicates(connection, self.path, vector, near=near)

    # what may change

    def tag(
        self, ref: str, add: Iterable[str] = (), remove: Iterable[str] = (), model: Model = None
    ) -> Record:
        """Add and remove tags of one version; returns the record as it is now."""
        added, removed = {*checked_tags(add)}, {*checked_tags(remove)}

        def change(labels: Labels) -> Labels:
            return replace(labels, tags=tuple(sorted(({*labels.tags} | added) - removed)))

        return self._change(ref, model, "tag", change)

    def note(self, ref: str, text: str, model: Model = None) -> Record:
        """Replace the note of one version; returns the record.

        Raises BadOption for a note that is no text.
        """
        note = checked_note(text)
        return self._change(ref, model, "note", lambda labels: replace(labels, note=note))

    def rename(self, old: str, new: str, model: Model = None) -> str:
        """Rename all versions of a name; returns the qualified new name.

        Expressions over them show the new name. Digests and version numbers stay, even where the
        new name once had a version of that number, since removed.
        Raises NameTaken if the model already has vectors called `new`.
        """
        check_name(new)
        if parse_ref(old).version is not None:
            raise BadOption(f"all versions are renamed together: say {old.rpartition('.')[0]}")
        with self._database.writing() as work:
            row = resolve(work.connection, old, model)
            stored = read(work.connection, [row])[row]
            if stored.record.name != new:
                relabelling.rename(work, self.path, stored, new)
        return f"{stored.model}.{new}"

    def remove(
        self, ref: str | Sequence[str], force: bool = False, model: Model = None
    ) -> Sequence[str]:
        """Remove one version of each ref, all or none; a bare name means the newest.

        Raises StoreError if others were made from it, unless forced: they stay, but can no longer
        be re-evaluated. Returns the refs of those. A version number is never used again. Until
        `upkeep.gc` deletes the payload, `changes.undo` brings the vector back.
        """
        with self._database.writing() as work:
            refs = [ref] if isinstance(ref, str) else ref
            rows = dict.fromkeys(resolve(work.connection, one, model) for one in refs)
            return removals.remove(work, self.path, read(work.connection, list(rows)), force)

    def verify(
        self,
        progress: Progress | None = None,
        on_finding: Callable[[Finding], object] | None = None,
    ) -> Sequence[Finding]:
        """Check everything: payloads, rows, and every expression bit for bit; see `Upkeep`."""
        return self.upkeep.verify(progress, on_finding)

    def log(self, ref: str, model: Model = None) -> Sequence[Event]:
        """The history of a name, newest first: versions, children, runs, measurements.

        Includes removed versions. A ref with a version limits it to that version.
        """
        from steerlab.registry.history import history

        with self._database.reading() as connection:
            return history(connection, ref, model)

    def save_next(self, made: Iterable[tuple[Record, SteeringVector]]) -> Sequence[SteeringVector]:
        """Store the next versions of records, with their tags and notes; all or none.

        An operand may also be an earlier vector of the same call.
        """
        with self._database.writing() as work:
            return saving.store_next(work, self.path, made)

    # inside

    def _stored(self, ref: str, model: Model) -> Stored:
        with self._database.reading() as connection:
            row = resolve(connection, ref, model)
            stored = read(connection, [row])[row]
        if stored.record.name != parse_ref(ref).name:  # an index that lies
            raise damaged(self.path)
        return stored

    def _payload_of(self, stored: Stored) -> SteeringVector:
        try:
            with one_line_errors(self.path):
                return files.load(self.path, stored)
        except NotFound:
            raise NotFound(
                f"the payload of {stored.qualified} is missing ({self.path / stored.path}): "
                "restore the file from a copy, or remove the vector"
            ) from None

    def _change(
        self, ref: str, model: Model, what: undo_log.What, change: Callable[[Labels], Labels]
    ) -> Record:
        with self._database.writing() as work:
            row = resolve(work.connection, ref, model)
            stored = read(work.connection, [row])[row]
            return relabelling.relabel_one(work, self.path, stored, what, change(stored.labels))
