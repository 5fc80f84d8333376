"""The process in which vLLM runs: what it says, and that nothing of it is left."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from steerlab.conformance import vllm, vllm_worker
from steerlab.conformance.conform import Case
from steerlab.errors import ModelError

DOUBLE = """#!{python}
import base64, json, subprocess, sys
import numpy as np
assert sys.argv[1] == "-I" and sys.argv[2].endswith("vllm_worker.py"), sys.argv
print("INFO: loading", flush=True)
child = subprocess.Popen(["sleep", "600"])
open("{pid}", "w").write(str(child.pid))
for line in sys.stdin:
    asked = json.loads(line)
    if asked["ids"] == [9]:
        sys.exit("no room for the cache")
    table = np.outer(np.arange(len(asked["ids"])), np.ones(3)).astype("<f4")
    log_probs = base64.b64encode(table.tobytes()).decode()
    answer = {{"tokens": asked["ends"][: asked["new_tokens"]], "log_probs": log_probs}}
    print("noise\\nanswer", json.dumps(answer), flush=True)
"""


@pytest.fixture
def case(tmp_path, monkeypatch):
    program = tmp_path / "python"
    program.write_text(DOUBLE.format(python=sys.executable, pid=tmp_path / "pid"))
    program.chmod(0o755)
    monkeypatch.setenv("STEERLAB_VLLM_PYTHON", str(program))
    return Case(None, "model", None, (7, 8), tmp_path)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_it_answers_until_it_is_left(case):
    with vllm.session(case, False) as session:
        assert session.greedy([1, 2], 1) == [7]
        assert torch.equal(session.log_probs([1, 2]), torch.tensor([[0.0] * 3, [1.0] * 3]))
        pid = int((case.directory / "pid").read_text())
        os.kill(pid, 0)
    for _ in range(100):
        if not is_running(pid):
            break
        time.sleep(0.05)
    assert not is_running(pid)


def test_an_end_of_it_is_explained(case):
    with (
        pytest.raises(ModelError, match="vLLM does not run the model: no room for the cache"),
        vllm.session(case, False) as session,
    ):
        session.greedy([9], 1)


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
