"""Starting vLLM's own server with the plugin; needs neither torch nor vLLM."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from steerlab.errors import ModelError

MIDDLEWARE = "steerlab.vllm_plugin.http.SteeringFields"
_PROBE = (
    "import vllm; from importlib.metadata import entry_points as found; "
    "assert any(e.value.startswith('steerlab.') for e in found(group='vllm.general_plugins'))"
)


def python() -> str:
    """The Python that has vLLM: STEERLAB_VLLM_PYTHON, or this one.

    Raises ModelError if vLLM or the plugin is not there.
    """
    chosen = os.environ.get("STEERLAB_VLLM_PYTHON", sys.executable)
    try:
        done = subprocess.run([chosen, "-c", _PROBE], capture_output=True, check=False)
    except OSError as error:
        raise ModelError(f"STEERLAB_VLLM_PYTHON={chosen} can't be run: {error.strerror}") from None
    if done.returncode:
        raise ModelError(
            f"{chosen} has no vLLM with steerlab beside it: `pip install vllm sqlmodel alembic "
            "platformdirs && pip install --no-deps steerlab` in an environment of its own, then "
            "set STEERLAB_VLLM_PYTHON to its bin/python"
        )
    return chosen


def command(
    chosen: str, location: str, name: str, host: str, port: int, more: Sequence[str] = ()
) -> list[str]:
    """What starts a server. location: of the model. name: what clients call it. more: of vLLM."""
    served = ["--model", location, "--served-model-name", name, "--middleware", MIDDLEWARE]
    module = "vllm.entrypoints.openai.api_server"
    return [chosen, "-m", module, *served, "--host", host, "--port", str(port), *more]


def environment(store: Path, api_key: str | None) -> Mapping[str, str]:
    """The variables that it runs with; the key is not in its command, which others can see."""
    key = {} if api_key is None else {"VLLM_API_KEY": api_key}
    return {**os.environ, "STEERLAB_STORE": str(store.absolute()), **key}
