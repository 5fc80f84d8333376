"""The process in which vLLM runs: what it says, and that nothing of it is left."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from steerlab.conformance import vllm, vllm_worker
from steerlab.conformance.conform import Case
from steerlab.errors import ModelError

DOUBLE = """#!{python}
import atexit, json, os, subprocess, sys
import numpy as np
assert sys.argv[1] == "-I" and sys.argv[2].endswith("vllm_worker.py"), sys.argv
assert os.environ["VLLM_PLUGINS"] == ""
atexit.register(print, "INFO: over")
print("INFO: loading", flush=True)
child = subprocess.Popen(["sleep", "600"])
open("{pid}", "w").write(str(child.pid))
asked = json.load(open(sys.argv[3]))
told = {{}}
for n, (prompt, text) in enumerate(asked["asked"]):
    if prompt == [9]:
        sys.exit("no room for the cache")
    ids = [*prompt, *text]
    told[f"text {{n}}"] = np.array(asked["ends"][: asked["new_tokens"]])
    told[f"log_probs {{n}}"] = np.outer(np.arange(len(ids)), np.ones(3)).astype("<f4")
np.savez(sys.argv[4] + ".npz", **told)
os.replace(sys.argv[4] + ".npz", sys.argv[4])
"""

ENDING_BADLY = """#!{python}
import atexit, os, runpy, sys, time
from types import SimpleNamespace as Of

class LLM:
    def __init__(self, **how):
        atexit.register({end})

    def generate(self, prompts, how, use_tqdm):
        n = len(prompts[0]["prompt_token_ids"])
        entries = {{0: Of(logprob=-1.0), 1: Of(logprob=-2.0)}}
        output = Of(token_ids=[1], logprobs=[entries])
        return [Of(prompt_logprobs=[None] + [entries] * (n - 1), outputs=[output])]

config = Of(get_text_config=lambda: Of(max_position_embeddings=64))
auto = Of(from_pretrained=lambda model: config)
sys.modules["transformers"] = Of(AutoConfig=auto)
sys.modules["vllm"] = Of(LLM=LLM, SamplingParams=lambda **how: how)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def case(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(DOUBLE.format(python=sys.executable, pid=tmp_path / "pid"))
    program.chmod(0o755)
    monkeypatch.setenv("STEERLAB_VLLM_PYTHON", str(program))
    return Case(None, False, tmp_path, "model", None, (7, 8), [([1, 2], [3])], 1)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def check_ended(case):
    pid = int((case.directory / "pid").read_text())
    for _ in range(100):
        if not is_running(pid):
            break
        time.sleep(0.05)
    assert not is_running(pid)


def test_it_answers_and_ends_with_all_that_it_started(case):
    (answer,) = vllm.answers(case)
    assert answer.text == [7]
    assert torch.equal(answer.log_probs, torch.tensor([[0.0] * 3, [1.0] * 3, [2.0] * 3]))
    check_ended(case)


@pytest.mark.parametrize("end", ["os.abort", "time.sleep, 600"])
def test_what_it_told_counts_if_it_ends_badly(case, end):
    program = ENDING_BADLY.format(python=sys.executable, end=end)
    Path(os.environ["STEERLAB_VLLM_PYTHON"]).write_text(program)
    (answer,) = vllm.answers(case)
    assert answer.text == [1]
    assert torch.equal(answer.log_probs, torch.tensor([[-1.0, -2.0]] * 3))


def test_an_end_of_it_is_explained(case):
    with pytest.raises(ModelError, match="vLLM does not run the model: no room for the cache"):
        vllm.answers(replace(case, asked=[([1], []), ([9], [])]))
    check_ended(case)


def test_an_interrupt_ends_it_with_all_that_it_started(case, monkeypatch):
    pid = case.directory / "pid"

    def interrupted(seconds):
        while not (pid.exists() and pid.read_text()):
            time.sleep(seconds)
        raise KeyboardInterrupt

    monkeypatch.setattr(vllm, "time", SimpleNamespace(sleep=interrupted))
    with pytest.raises(KeyboardInterrupt):
        vllm.answers(case)
    check_ended(case)


def test_the_reason_is_the_last_error_with_what_follows_it():
    log = "Traceback\n  File x\nb.ValidationError: 1 error\n  Value error, too long\n    For more\n"
    assert vllm._reason(log) == "b.ValidationError: 1 error Value error, too long For more"
    assert vllm._reason("loading\nno room\n") == "no room"
    assert vllm._reason("") == "it ended"


def test_the_worker_makes_a_table_of_what_vllm_says():
    class Entry:
        def __init__(self, logprob):
            self.logprob = logprob

    table = [{0: Entry(-1.0), 2: Entry(-3.0), 1: Entry(-2.0)}, {1: Entry(-4.0), 0: Entry(-5.0)}]
    rows = vllm_worker._array(table)
    np.testing.assert_array_equal(rows, [[-1, -2, -3], [-5, -4, np.nan]])
