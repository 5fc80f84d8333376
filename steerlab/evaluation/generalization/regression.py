"""Regression: run stored evaluations again, and find the values that moved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

from steerlab.core.record import canonical_json
from steerlab.core.results import Evaluation, Measured
from steerlab.errors import Cancelled, SteerlabError
from steerlab.evaluation.generalization.evaluate import evaluate
from steerlab.evaluation.generalization.plan import EvaluationPlan
from steerlab.evaluation.generalization.verdict import by_name
from steerlab.progress import Watch

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab

_SAME = 1e-6  # relative difference of kernels between machines


@dataclass(frozen=True)
class Change:
    """A value then and now; None if it was not measured.

    moved: whether each estimate lies outside the other's interval; never for a value without
    an interval.
    """

    then: Measured | None
    now: Measured | None
    moved: bool

    @property
    def name(self) -> tuple[str, str, str]:
        """Style, metric, setting."""
        value = self.then or self.now
        assert value is not None
        return value.style, value.metric, value.setting


@dataclass(frozen=True)
class Checked:
    """A stored evaluation, and the same evaluation today.

    vector: its expression. changed: library -> (version then, version now) if they differ, and
    "weights" if the model's do. problem: why it could not be run again.
    """

    then: Evaluation
    vector: str
    changes: tuple[Change, ...] = ()
    changed: dict[str, tuple[str, str]] | None = None
    problem: str = ""

    @property
    def moved(self) -> tuple[Change, ...]:
        """The values that moved beyond their intervals."""
        return tuple(change for change in self.changes if change.moved)

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "evaluation": self.then.id,
            "vector": self.vector,
            "suite": self.then.suite,
            "changed": self.changed or {},
            "problem": self.problem or None,
            "moved": len(self.moved),
            "values": [asdict(change) for change in self.changes],
        }


def stored(lab: Lab, refs: Sequence[str] = ()) -> list[Evaluation]:
    """The newest evaluation of each vector and plan; of all vectors if no refs are given."""
    newest: dict[str, Evaluation] = {}
    asked: Sequence[str | None] = refs or (None,)
    for ref in asked:
        for found in lab.store.results.evaluations(ref):
            plan = (found.data or {}).get("plan")
            newest.setdefault(canonical_json([found.digest, found.suite_digest, plan]), found)
    return list(newest.values())


def check(lab: Lab, then: Evaluation, **watch: Unpack[Watch]) -> Checked:
    """Run an evaluation again with the present model and library versions; nothing is stored.

    Raises Cancelled only: `Checked.problem` says why an evaluation could not be run.
    """
    data = then.data or {}
    vector = str(data.get("vector", then.digest[:12]))
    try:
        made = lab.evaluate(vector)
        if made.digest != then.digest:
            return Checked(then, vector, problem=f"{vector} is a different vector now")
        lab.load(made)
        plan = EvaluationPlan.from_json(data.get("plan", {}))
        again = replace(
            plan,
            layers=tuple(data["layers"]),  # as a calibration said then
            dose=None,
            coefficient=data["coefficient"],
            allow_other_weights=True,
        )
        now = evaluate(lab, made, again, keep=False, **watch)
    except Cancelled:
        raise
    except (SteerlabError, KeyError, TypeError, ValueError) as error:
        why = str(error) if isinstance(error, SteerlabError) else f"its record has no {error}"
        return Checked(then, vector, problem=why)
    if now.suite_digest != then.suite_digest:
        return Checked(then, vector, problem=f"the content of suite {then.suite} has changed")
    return Checked(then, vector, compared(then, now), _changed(then, now))


def compared(then: Evaluation, now: Evaluation) -> tuple[Change, ...]:
    """Every value then and now."""
    before, after = by_name(then.values), by_name(now.values)
    return tuple(
        Change(before.get(name), after.get(name), _moved(before.get(name), after.get(name)))
        for name in dict.fromkeys([*before, *after])
    )


def _moved(then: Measured | None, now: Measured | None) -> bool:
    if then is None or now is None:
        return True
    if then.estimate is None or now.estimate is None:
        return (then.estimate is None) != (now.estimate is None)
    return _outside(now.estimate, then) and _outside(then.estimate, now)


def _outside(estimate: float, value: Measured) -> bool:
    if value.low is None or value.high is None:
        return False
    slack = _SAME * max(abs(estimate), abs(value.low), abs(value.high), 1.0)
    return not value.low - slack <= estimate <= value.high + slack


def _changed(then: Evaluation, now: Evaluation) -> dict[str, tuple[str, str]]:
    found = {
        name: (then.versions.get(name, "-"), now.versions.get(name, "-"))
        for name in sorted({*then.versions, *now.versions})
        if then.versions.get(name) != now.versions.get(name)
    }
    if then.model_key != now.model_key:
        found["weights"] = (_weights(then), _weights(now))
    return found


def _weights(of: Evaluation) -> str:
    """The fingerprint of the model's weights, shortened."""
    return of.model_key.rsplit("/", 1)[-1][:12]
