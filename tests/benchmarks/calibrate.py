"""What a calibration costs, in rows and tokens of forward passes, and what it finds.

Run as `python -m tests.benchmarks.calibrate love anger`. Rows and tokens (with padding) that the
model reads are free of the noise of a busy machine; CPU seconds are printed beside them. Each
vector is a line of JSON, so that the lines of two versions can be compared.
"""

import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from steerlab import Lab, LanguageModel, Store
from steerlab.evaluation.calibration.calibrate import calibrate
from steerlab.evaluation.calibration.curve import Curve
from tests.benchmarks.startup import STORE


def counted(lm: LanguageModel, work: Counter[str]):
    """A hook that adds up the tokens that the model reads, by kind.

    It is on the embeddings: a hook on a block would keep rows from sharing blocks.
    """

    def hook(module, args):
        kind = "decoding" if args[0].shape[1] == 1 else "scoring"
        work[f"{kind} passes"] += 1
        work[f"{kind} tokens"] += args[0].numel()

    return lm.model.get_input_embeddings().register_forward_pre_hook(hook)


def main(names: list[str]) -> None:
    """Calibrate stored vectors on the embedded model."""
    lm = LanguageModel.load("smollm2")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "store"
        shutil.copytree(STORE, place, ignore=shutil.ignore_patterns("registry.db*", ".lock"))
        lab = Lab(Store(place), lm)
        for name in names:
            work: Counter[str] = Counter()
            started = time.process_time()
            handle = counted(lm, work)
            found = calibrate(lab, lab.store.load(name))
            handle.remove()
            held = Curve.of(found).held
            line = {
                "vector": name,
                "works": found.works,
                "layer": found.layer,
                "dose": found.dose,
                "safe": found.safe,
                "held out": round(held.effect.mean, 2),
                "z": held.z,
                **work,
                "CPU s": round(time.process_time() - started, 1),
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or ["love", "anger", "formality"])
