"""What measuring a sweep's cells costs beside writing them."""

from collections.abc import Iterator

from steerlab import Lab, LanguageModel, Store
from steerlab.core.sampling import Sampling
from steerlab.core.sweep import Sweep, SweepPlan
from steerlab.evaluation.metrics.cells import default_metrics
from steerlab.evaluation.metrics.texts import METRICS
from steerlab.lab.sweeps import run_sweep
from tests.benchmarks.startup import STORE
from tests.benchmarks.sweep import LAYERS, NEW_TOKENS, PROMPTS
from tests.benchmarks.timing import Ratio, paired

DOSES = (-0.2, -0.1, 0.0, 0.1, 0.2)


def run() -> Iterator[Ratio]:
    """3 layers x 5 doses x 4 prompts x 40 tokens: the default metrics against the writing."""
    lm = LanguageModel.load("smollm2")
    lm.model.generation_config.eos_token_id = None  # every cell writes all of its tokens
    lab = Lab(Store(STORE), lm)
    love = lab.at_layers(lab.store.load("love"), LAYERS)
    metrics = [METRICS["vader"], *default_metrics({b: love[b] for b in LAYERS})]
    plan = SweepPlan(
        love,
        PROMPTS,
        layers=LAYERS,
        doses=DOSES,
        sampling=Sampling(NEW_TOKENS, temperature=0.7, top_p=0.9, repetition_penalty=1.05),
    )
    swept = run_sweep(lab, plan, keep=False)
    yield paired(
        "a sweep's default metrics  vs  writing its texts",
        lambda: measure(swept, lm, metrics),
        lambda: run_sweep(lab, plan, keep=False),
        runs=3,
        asked="<= 0.35",
        warm_up=False,
    )


def measure(swept: Sweep, lm: LanguageModel, metrics) -> None:
    for metric in metrics:
        metric(lm, swept, swept.cells)
