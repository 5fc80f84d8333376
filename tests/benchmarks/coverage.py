"""Whether the intervals of effects hold the effect on many other items, on the embedded model.

Run as `python -m tests.benchmarks.coverage`. For three concepts at three points each, the signed
range of 160 contrast items, which no vector was made of, is measured once. Then 16 of them are
drawn, as a user has, and their interval is held against the mean of the other 144: once, and
1,000 times. Asked: 90% to 99% of intervals hold it.
"""

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from steerlab import Lab, LanguageModel, Store
from steerlab.core.setting import Setting
from steerlab.evaluation.calibration.effects import Propensity
from steerlab.evaluation.metrics.items import ContrastItem
from steerlab.evaluation.statistics import estimate
from tests.benchmarks.startup import STORE

POINTS = ((15, 0.1), (15, 0.2), (20, 0.15))
DRAWN, DRAWS = 16, 1000
ASKED = (0.90, 0.99)

PROMPTS = {
    "love": """
My sister said that I was
The note on the door called us
People here find him
To be honest, your work is
The letter ended with the word
Her neighbours are
The whole evening felt
When she thinks of them, they seem
This town is simply
The old song made everything
His speech about us was
That meal was
In my diary I wrote: today was
The visitors thought the hosts were
What a day, it was
Their friendship has become
""",
    "anger": """
After the phone call my boss was
The man at the counter sounded
When the bus did not come, we got
Her reply to the e-mail was
The fans outside the stadium were
By noon the passengers felt
Reading the bill, he became
The old woman next door looked
During the debate the speaker was
I heard about the delay and was
His voice on the tape is
The crew, told to wait again, was
At the end of the meeting she seemed
The letter to the editor was
As the queue grew, people were
My brother, asked for the third time, was
""",
    "formality": """
About the report you sent:
A short answer to your question:
On Friday's plan:
Before we start the call:
Regarding the new chairs:
To all of you in the team:
As for the broken printer:
In reply to your last mail:
About next week's trip:
One more thing on the budget:
Concerning the keys:
On the matter of lunch:
Since you asked about parking:
With the visit in mind:
About my delay today:
A word on the schedule:
""",
}
SIDES = {
    "love": """
wonderful | horrible
lovely | disgusting
kind | cruel
beautiful | ugly
full of joy | full of hate
amazing | pathetic
adorable | vile
warm and caring | cold and mean
a blessing | a curse
delightful | miserable
""",
    "anger": """
furious | calm
enraged | relaxed
livid | pleased
hostile | friendly
full of rage | full of patience
outraged | amused
bitter | gentle
mad | glad
aggressive | polite
seething | serene
""",
    "formality": """
I would be most grateful | thanks a bunch
Please be advised | Just so ya know
We regret to inform you | Sorry guys
Yours faithfully | See ya
It is my pleasure | No biggie
I am writing to enquire | Hey, quick question
We kindly request | Gimme
One must consider | You gotta think
I sincerely apologise | My bad
That is certainly correct | Yeah, totally
""",
}


def ranges(lab: Lab) -> Iterator[tuple[str, np.ndarray]]:
    """A name for each case, and the signed range of each of its items."""
    for concept, prompts in PROMPTS.items():
        sides = [line.split(" | ") for line in SIDES[concept].split("\n")[1:-1]]
        both = itertools.product(prompts.split("\n")[1:-1], sides)
        items = [ContrastItem(prompt, f" {one}", f" {two}") for prompt, (one, two) in both]
        measure = Propensity(lab, items)
        for layer, dose in POINTS:
            vector = lab.at_layers(lab.store.load(concept), [layer])
            c = vector.coefficient(dose)
            ways = [Setting(vector, sign * c) for sign in (1, -1)]
            found = measure.values([(i, way) for way in ways for i in range(len(items))])
            yield f"{concept} at layer {layer}, dose {dose:g}", np.subtract(*np.split(found, 2))


def holds(values: np.ndarray, seed: int) -> bool:
    """Whether the interval of some items holds the mean of the others."""
    order = np.random.default_rng(seed).permutation(len(values))
    found = estimate(values[order[:DRAWN]])
    return bool(found.low <= values[order[DRAWN:]].mean() <= found.high)


def main() -> None:
    """Print the intervals and their coverage."""
    once, shares = [], []
    with TemporaryDirectory() as folder:
        place = Path(folder) / "store"
        shutil.copytree(STORE, place, ignore=shutil.ignore_patterns("registry.db*", ".lock"))
        lab = Lab(Store(place), LanguageModel.load("smollm2"))
        for number, (name, values) in enumerate(ranges(lab)):
            once.append(holds(values, number))
            shares.append(np.mean([holds(values, 100 + seed) for seed in range(DRAWS)]))
            print(
                f"{name:32} {values.mean():+6.2f}, sd {values.std(ddof=1):5.2f}: an interval of "
                f"{DRAWN} {'holds' if once[-1] else 'misses'} it, {shares[-1]:.1%} of {DRAWS} do",
                flush=True,
            )
    met = ASKED[0] <= np.mean(shares) <= ASKED[1]
    print(f"one interval each: {sum(once)} of {len(once)}; all: {np.mean(shares):.1%}")
    print(f"asked {ASKED[0]:.0%} to {ASKED[1]:.0%}: {'met' if met else 'NOT met'}")


if __name__ == "__main__":
    main()
