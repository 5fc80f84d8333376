"""Engine: the thread that owns the model, and the bounded queue in front of it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steerlab.core.display import count
from steerlab.errors import BadOption, Cancelled, SteerlabError
from steerlab.progress import Watch
from steerlab.serving.job import Job, Written, fail_all

if TYPE_CHECKING:
    from steerlab.interventions.by_row import RowHooks
    from steerlab.models.language_model import LanguageModel
    from steerlab.serving.batch import Joining, RunningBatch


GATHER = 0.1
"""Seconds that a prompt waits, at most, for those of requests that are being prepared.

On one core 16 prompts take 0.3 s in one pass and 1.7 s in passes of their own.
"""


class Busy(SteerlabError):
    """The queue is full; retry_after: seconds after which there may be room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"the server is busy: try again in {retry_after} s")
        self.retry_after = retry_after


@dataclass(frozen=True)
class Limits:
    """What an engine holds at most.

    rows: of the running batch. queue: texts that wait. tokens: of prompts and texts that the
    batch holds in its cache, padding included.
    """

    rows: int = 16
    queue: int = 256
    tokens: int = 65536


@dataclass
class Counts:
    """What an engine has done since it began."""

    prompt_tokens: int = 0
    tokens: int = 0
    texts: int = 0
    cancelled: int = 0
    failed: int = 0
    passes: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Tokens a second while it ran."""
        return self.tokens / self.seconds if self.seconds else 0.0


class Engine:
    """Writes texts in a running batch, in a thread of its own.

    load: called in that thread. `model` is its result, once it is there.
    """

    def __init__(self, load: Callable[[], LanguageModel], limits: Limits | None = None) -> None:
        self.limits, self.counts = limits or Limits(), Counts()
        self.model: Future[LanguageModel] = Future()
        self._load = load
        self._waiting: deque[Job] = deque()
        self._waiting_since = 0.0
        self._arriving = 0
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._stopping = self._now = False
        self._guest_from: float = math.inf  # the count of passes after which a guest has its turn
        self._is_idle = True
        self._thread = threading.Thread(target=self._run, name="steerlab-engine", daemon=True)

    def start(self) -> None:
        """Load the model and begin."""
        self._thread.start()

    @contextmanager
    def arriving(self) -> Iterator[None]:
        """While a request is prepared: prompts that wait for a pass are read along with its own."""
        with self._changed:
            self._arriving += 1
        try:
            yield
        finally:
            with self._changed:
                self._arriving -= 1
                self._changed.notify_all()

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue the texts of one request, all or none.

        Raises Busy if the queue has no room, Cancelled if the engine stops, BadOption for what
        it could never hold.
        """
        if len(jobs) > self.limits.queue:
            texts = count(self.limits.queue, "text")
            raise BadOption(f"one request can ask for at most {texts}, not {len(jobs)}")
        longest = max((job.most_tokens for job in jobs), default=0)
        if longest > self.limits.tokens:
            raise BadOption(
                f"prompt and text of {longest} tokens do not fit into the server's "
                f"{self.limits.tokens}: ask for fewer tokens"
            )
        with self._changed:
            if self._stopping:
                raise Cancelled("the server is stopping")
            if len(self._waiting) + len(jobs) > self.limits.queue:
                raise Busy(self._retry_after())
            if not self._waiting:
                self._waiting_since = time.monotonic()
            self._waiting.extend(jobs)
            self._changed.notify_all()

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Stop writing these texts: their rows are freed before the next pass."""
        with self._changed:
            for job in jobs:
                self.counts.cancelled += not (job.done or job.cancelled)
                job.cancelled = True
            self._waiting = deque(job for job in self._waiting if not job.cancelled)

    def stop(self, *, now: bool = False) -> None:
        """Take no more texts; end when those that were taken are written, or now."""
        with self._changed:
            self._stopping, self._now = True, self._now or now
            self._changed.notify_all()

    def join(self, seconds: float | None = None) -> bool:
        """Wait for its thread to end; False if it has not by then."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @contextmanager
    def guest(self) -> Iterator[Watch]:
        """How other work runs the model between passes: it is told the yielded callbacks.

        It takes the model's lock once; after each `progress` the batch makes a pass. One at a time.
        """
        self._guest_from = self.counts.passes
        try:
            yield {"progress": self._give_way, "should_stop": self._has_turn}
        finally:
            self._has_turn()

    def _has_turn(self) -> bool:
        """The guest no longer waits for the lock; returns whether it shall stop."""
        if self._guest_from < math.inf:
            with self._changed:
                self._guest_from = math.inf
                self._changed.notify_all()
        return self._now

    def _give_way(self, *_: object) -> None:
        lock: Any = self.model.result().lock
        self._guest_from = self.counts.passes + 1
        lock.release()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._is_idle or self._is_guests_turn)
        finally:
            lock.acquire()
        self._has_turn()

    @property
    def _is_guests_turn(self) -> bool:
        return self.counts.passes >= self._guest_from

    @property
    def queued(self) -> int:
        """Texts that wait for a row."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Texts that are being written."""
        return len(self._running)

    def _retry_after(self) -> int:
        tokens = sum(job.sampling.max_new_tokens for job in self._waiting)
        return max(1, min(60, math.ceil(tokens / max(self.counts.rate, 1.0))))

    # in the thread of the model

    def _run(self) -> None:
        from steerlab.interventions.by_row import RowHooks
        from steerlab.models.inference import eval_mode
        from steerlab.serving.batch import check_rows

        try:
            lm = self._load()
        except BaseException as error:
            self.model.set_exception(error)
            return
        try:
            with ExitStack() as stack:
                with lm.lock:
                    stack.enter_context(eval_mode(lm.model))
                    hooks = stack.enter_context(RowHooks(lm))
                    check_rows(lm, hooks)
                self.model.set_result(lm)
                self._loop(lm, hooks)
        except BaseException as error:
            if not self.model.done():
                self.model.set_exception(error)
        finally:
            self._end()

    def _loop(self, lm: LanguageModel, hooks: RowHooks) -> None:
        from steerlab.serving.batch import RunningBatch

        batch, joining = RunningBatch(lm, hooks), None
        while self._wait(batch, joining):
            began = time.monotonic()
            with lm.lock:
                self._try(batch, batch.prune)
                joining = self._read(batch, joining or self._next(batch))
                if batch.rows:
                    self.counts.tokens += len(batch.rows)
                    self._try(batch, batch.step)
                self._running = [row.job for row in batch.rows]
                if joining is not None:
                    self._running += [row.job for row in joining.rows]
                with self._changed:
                    self.counts.passes += 1
                    self.counts.seconds += time.monotonic() - began
                    self._changed.notify_all()

    def _wait(self, batch: RunningBatch, joining: Joining | None) -> bool:
        """Wait until there is something to do; False at the end."""
        from steerlab.models.threads import dismiss_team

        with self._changed:
            while not (self._now or batch.rows or joining or self._is_due()):
                if self._stopping and not self._waiting:
                    return False
                dismiss_team()
                self._is_idle = True
                self._changed.notify_all()
                self._changed.wait(GATHER if self._waiting else None)
            self._is_idle = False
            self._changed.wait_for(lambda: self._now or not self._is_guests_turn)
        return not self._now

    def _is_due(self) -> bool:
        """Whether prompts wait that are to be read now, and not along with arriving ones."""
        waited = time.monotonic() - self._waiting_since
        return bool(self._waiting) and (not self._arriving or waited >= GATHER)

    def _read(self, batch: RunningBatch, joining: Joining | None) -> Joining | None:
        """Read more of the prompts of new rows; None if there are none, or they have joined.

        An error ends the texts that were in the pass, not the server.
        """
        if joining is None:
            return None
        try:
            batch.read(joining)
        except Exception as error:
            fail_all([row.job for row in joining.rows], error)
            if joining.is_read:  # it failed while caches were joined
                self._drop(batch, error)
            return None
        if not joining.is_read:
            return joining
        self.counts.tokens += len(joining.rows)
        return None

    def _try(self, batch: RunningBatch, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._drop(batch, error)

    def _drop(self, batch: RunningBatch, error: Exception) -> None:
        fail_all([row.job for row in batch.rows], error)
        batch.rows, batch.cache = [], None

    def _next(self, batch: RunningBatch) -> Joining | None:
        """The next texts that fit into the batch, in the order in which they came."""
        longest = max((row.job.most_tokens for row in batch.rows), default=0)
        jobs: list[Job] = []
        with self._changed:
            due = self._is_due()
            while due and self._waiting and len(batch.rows) + len(jobs) < self.limits.rows:
                job = self._waiting[0]
                longest = max(longest, job.most_tokens)
                rows = len(batch.rows) + len(jobs) + 1
                prompts = {one.prompt_key: len(one.ids) for one in [*jobs, job]}
                too_wide = jobs and max(prompts.values()) * len(prompts) > 1024
                if too_wide or (rows > 1 and rows * longest > self.limits.tokens):
                    break
                jobs.append(self._waiting.popleft())
        if not jobs:
            return None
        self.counts.prompt_tokens += sum({job.prompt_key: len(job.ids) for job in jobs}.values())
        try:
            return batch.joining(jobs)
        except Exception as error:
            fail_all(jobs, error)
            return None

    def _end(self) -> None:
        """Tell every text that was not finished that it will not be."""
        with self._changed:
            self._stopping = self._is_idle = True
            self._changed.notify_all()
            left = [*self._waiting, *self._running]
            self._waiting.clear()
            self._running = []
        for job in left:
            job.heard(job, Written(error=Cancelled("the server is stopping")))
