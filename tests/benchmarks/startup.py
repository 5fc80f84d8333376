"""How long whole commands take, against importing what they stand on."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.timing import Ratio, paired

STORE = Path(__file__).parents[2] / "store"


def run() -> Iterator[Ratio]:
    """--help and --version against click; list, show and compose against sqlmodel and numpy."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        shutil.copytree(STORE, store, ignore=shutil.ignore_patterns("registry.db*", ".lock"))
        _steerlab("list", "--store", str(store))()  # a fresh clone builds its registry once
        for arguments in (["--help"], ["--version"]):
            yield paired(
                f"steerlab {' '.join(arguments)}  vs  import click",
                _steerlab(*arguments),
                _python("import click"),
                runs=15,
                asked="<= 2.0",
            )
        for arguments in (
            ["list"],
            ["show", "love"],
            ["compose", "love", "-", "anger"],
        ):
            yield paired(
                f"steerlab {' '.join(arguments)}  vs  import sqlmodel, numpy",
                _steerlab(*arguments, "--store", str(store)),
                _python("import sqlmodel, numpy"),
                runs=15,
                asked="<= 1.6",
            )


def _steerlab(*arguments: str) -> Callable[[], object]:
    script = Path(sys.executable).with_name("steerlab")
    return lambda: subprocess.run([script, *arguments], check=True, capture_output=True)


def _python(code: str) -> Callable[[], object]:
    return lambda: subprocess.run([sys.executable, "-c", code], check=True)
