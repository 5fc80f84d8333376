"""The foreign formats that are written, by the names that `--to` takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from shlex import quote

from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption
from steerlab.interop import (
    gguf,
    json_files,
    numpy_files,
    peft_directory,
    safetensors_files,
    torch_files,
)

Files = Mapping[str, bytes]
"""What is written: "" is the file itself, ".json" a sidecar, any other name a file in a folder."""


@dataclass(frozen=True)
class Target:
    """A format that is written.

    suffix: of its files; empty for a directory. make: takes a vector, and its coefficient if
        the format has a knob.
    has_knob: the format states a coefficient beside the directions; in others it is baked in.
    command: what the program is called with, from the file and the coefficient; None if the file
        is all that it needs.
    """

    suffix: str
    make: Callable[..., bytes | Files]
    has_knob: bool = False
    command: Callable[[PurePath, float], str] | None = None

    def write(self, vector: SteeringVector, coefficient: float) -> Files:
        """The files of a vector at a coefficient."""
        if self.has_knob:
            made = self.make(vector, coefficient)
        else:
            made = self.make(vector if coefficient == 1 else coefficient * vector)
        return {"": made} if isinstance(made, bytes) else made


def _llama_command(path: PurePath, coefficient: float) -> str:
    """The command for llama.cpp, whose option ends a file name at a comma or colon."""
    if odd := {*str(path)} & {",", ":"}:
        raise BadOption(
            f"llama.cpp reads {' and '.join(map(repr, sorted(odd)))} in {path} as the end of a "
            "name: choose another"
        )
    return f"llama-server -m MODEL.gguf --control-vector-scaled {quote(str(path))}:{coefficient!r}"


TARGETS: dict[str, Target] = {
    "gguf": Target(".gguf", gguf.write),
    "llama-cpp": Target(
        ".gguf", lambda vector, _: gguf.write(vector), has_knob=True, command=_llama_command
    ),
    "glp": Target(".gguf", gguf.write_glp, has_knob=True),
    "npz": Target(".npz", numpy_files.write_npz),
    "saklas": Target(".safetensors", safetensors_files.write_saklas),
    "peft": Target("", peft_directory.write),
    "neuronpedia": Target(".json", json_files.write_neuronpedia, has_knob=True),
    "vllm-lens": Target(".json", json_files.write_lens, has_knob=True),
    "lm-eval": Target(".pt", torch_files.write_lm_eval, has_knob=True),
}

OURS = ".safetensors"
"""A suffix that promises nothing more than a payload file."""

_PROMISED = {".gguf": "gguf", ".npz": "npz"}
"""Suffix -> the format that it promises."""


def target_of(path: PurePath, to: str | None) -> str | None:
    """The format to write; None for steerlab's own. to: the one that was named.

    Raises BadOption for a suffix that promises another format, or one of several.
    """
    suffix = path.suffix.lower()
    if to is None:
        able = [name for name, target in TARGETS.items() if target.suffix == suffix != OURS]
        if able and suffix not in _PROMISED:
            raise BadOption(
                f"{path.name} can be of several formats: say --to {' or --to '.join(able)}"
            )
        return _PROMISED.get(suffix)
    expected = TARGETS[to].suffix
    if suffix != expected:
        raise BadOption(
            f"{to} is written to a directory: call it {path.stem}"
            if not expected
            else f"{to} files end in {expected}: call it {path.stem}{expected}"
        )
    return to
