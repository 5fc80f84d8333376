"""Whether doses that a calibration found sound are so on texts that it never saw.

Run as `python -m tests.benchmarks.soundness [NAMES]`. It takes calibrated vectors of the starter
store, or of STEERLAB_STORE, by default all, and writes texts at the strongest sound doses of each
again: 24 with each of five other sets of seeds, and 24 after prompts that no calibration uses,
with two sets of seeds. A dose is over its limits if its fluency ratio or its repetition is, as
measured on one such set. Asked: at most 10% of (chosen point, set of seeds).
"""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from steerlab import Lab, LanguageModel, Store
from steerlab.core.results import Calibration
from steerlab.core.setting import Setting
from steerlab.evaluation.calibration.curve import Curve, FreshCost, Limits
from steerlab.evaluation.calibration.side_effects import FRESH, SideEffects
from tests.benchmarks.startup import STORE

SEEDS = tuple(range(10_000, 60_000, 10_000))
ASKED = 0.1
UNSEEN = (
    "The ferry leaves from",
    "My grandfather used to say that",
    "On the wall of the office hung",
    "The doctor told us that",
    "Before the concert began, the",
    "She picked up the phone and",
    "The instructions say that",
    "Their new house has",
    "As soon as the door closed, he",
    "The mayor said on Monday that",
    "Behind the station there is",
    "The woman in the blue coat",
    "Once a week we",
    "The survey of last year",
    "The two of them agreed to",
    "The lake in the mountains",
    "I still remember how",
    "The last page of the letter",
    "One of my colleagues",
    "The path along the river",
    "By the time we arrived,",
    "The shop on the corner sells",
    "Few people know that",
    "The radio was playing and",
)


def over(found: FreshCost, limits: Limits) -> bool:
    """Whether the estimates are beyond a limit; unreadable ones are."""
    return not (found.fluency.mean <= limits.fluency and found.distinct.mean >= limits.distinct)


def points(lab: Lab, found: Calibration, ref: str) -> list[Setting]:
    """The vector at its chosen dose, then at the strongest sound ones if they are others."""
    at, _, _ = lab.operating_point(lab.store.load(ref))
    doses = dict.fromkeys((found.dose, *(found.safe or ())))
    return [Setting(at, at.coefficient(d)) for d in doses if d]


def row(costs: Sequence[FreshCost], flags: Sequence[bool]) -> str:
    """The fluency ratios, those over a limit marked."""
    both = zip(costs, flags, strict=True)
    return " ".join(f"{c.fluency.mean:.2f}{'!' if flag else ' '}" for c, flag in both)


def main(names: Sequence[str]) -> None:
    """Print the ratios of vectors, by default of all, and the share that is over."""
    sets = [(FRESH, seed) for seed in SEEDS] + [(UNSEEN, seed) for seed in SEEDS[:2]]
    chosen, ends = list[list[bool]](), list[list[bool]]()
    with TemporaryDirectory() as folder:
        place = Path(folder) / "store"
        store = os.environ.get("STEERLAB_STORE", STORE)
        shutil.copytree(store, place, ignore=shutil.ignore_patterns("registry.db*", ".lock"))
        lab = Lab(Store(place), LanguageModel.load("smollm2"))
        measures = [SideEffects(lab, Limits(), seed=seed) for _, seed in sets]
        for summary in lab.store.list(sort="name"):
            found = lab.store.results.calibration(summary.qualified)
            if found is None or not found.works or (names and summary.name not in names):
                continue
            settings, limits = points(lab, found, summary.qualified), Curve.of(found).limits
            after = zip(measures, sets, strict=True)
            costs = zip(*(m.after(prompts, settings) for m, (prompts, _) in after), strict=True)
            for number, (setting, own) in enumerate(zip(settings, costs, strict=True)):
                flags = [over(cost, limits) for cost in own]
                (ends if number else chosen).append(flags)
                where = f"{summary.name:16} layer {found.layer:2} dose {setting.dose:+.2f}"
                print(f"{where}  {row(own, flags)}", flush=True)
    for name, rows in (("chosen points", chosen), ("other ends", ends)):
        for what, part in (("sets of seeds", slice(5)), ("sets after unseen prompts", slice(5, 7))):
            flags = [flag for each in rows for flag in each[part]]
            print(f"{name}: {sum(flags)} of {len(flags)} {what} over a limit")
    asked = [flag for each in chosen for flag in each[:5]]
    met = bool(asked) and sum(asked) <= ASKED * len(asked)
    print(f"asked: at most {ASKED:.0%} of the first line: {'met' if met else 'NOT met'}")


if __name__ == "__main__":
    main(sys.argv[1:])
