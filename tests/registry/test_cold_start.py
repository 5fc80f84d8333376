"""What a store must not import, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

STEPS = """
store = Store(sys.argv[1])  # torch transformers alembic filelock platformdirs
store.list()  # torch transformers alembic filelock platformdirs
store.record('love')  # torch transformers alembic filelock
store.evaluate('love - anger')  # torch transformers alembic filelock
store.save('x', store.load('love'))  # torch transformers alembic
"""

RUN = """
import sys
from steerlab.registry import Store
for step in sys.argv[2:]:
    exec(step)
    if found := {*step.partition("#")[2].split()} & {*sys.modules}:
        sys.exit(f"{step} imported {found}")
"""


def test_only_what_is_needed_is_imported(family):
    """After each step, what its comment names is not there yet."""
    command = [sys.executable, "-c", RUN, str(family.path), *STEPS.strip().splitlines()]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")


def test_importing_touches_nothing(tmp_path):
    code = "import steerlab.registry; steerlab.registry.Store()"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
