"""What a store must not import, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASK = """
import sys
from steerlab.registry import Store
store = Store(sys.argv[1])
{action}
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


@pytest.mark.parametrize(
    ("action", "never"),
    [
        ("", {"torch", "transformers", "alembic", "filelock", "platformdirs"}),
        ("store.list()", {"torch", "transformers", "alembic", "filelock", "platformdirs"}),
        ("store.record('love')", {"torch", "transformers", "alembic", "filelock"}),
        ("store.evaluate('love - anger')", {"torch", "transformers", "alembic", "filelock"}),
        ("store.save('x', store.load('love'))", {"torch", "transformers", "alembic"}),
    ],
)
def test_only_what_is_needed_is_imported(family, action, never):
    command = [sys.executable, "-c", ASK.format(action=action), str(family.path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not never & set(result.stdout.split())
    assert result.stderr == ""


def test_importing_touches_nothing(tmp_path):
    code = "import steerlab.registry; steerlab.registry.Store()"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert list(tmp_path.iterdir()) == []
