"""Which libraries are imported where, and what a command costs before it works.

Which room may import which is said, and checked, by the contracts in pyproject.toml.
"""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import steerlab
from steerlab.cli import SECTIONS
from tests.registry.samples import vector

ROOT = Path(steerlab.__file__).parent
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if path != ROOT / "__init__.py"
}
MODEL_SIDE = {"conformance", "models", "interventions"}
MEASURING = {f"evaluation.metrics.{name}" for name in ("passes", "likelihood", "predictions")}
SERVING = {"serving.batch", "serving.row"}
HEAVY = {"torch", "transformers", "alembic", "textual", "accelerate", "matplotlib", "jinja2"}


@cache
def imports(module: str) -> tuple[tuple[str, bool], ...]:
    """The modules that a module imports when it runs, and whether that is at module scope."""

    def walk(node: ast.AST, top: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{module} imports relatively"
                inner = [f"steerlab.{alias.name}" for alias in child.names]
                names = inner if child.module == "steerlab" else [child.module or ""]
                yield from ((name, top) for name in names)
            yield from walk(child, top and not isinstance(child, ast.FunctionDef))

    return tuple(walk(ast.parse(SOURCES[module].read_text("utf-8")), True))


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("torch", MODEL_SIDE | MEASURING | SERVING | {"vllm_plugin"}),
        ("transformers", set()),
        ("accelerate", set()),
        ("sqlalchemy", {"registry"}),
        ("sqlmodel", {"registry"}),
        ("matplotlib", set()),
        ("jinja2", set()),
        ("alembic", {"registry"}),
        ("safetensors", {"files"}),
        ("click", {"cli", "plots"}),
        ("textual", {"tui"}),
        ("rich", {"tui"}),
    ],
)
def test_a_library_is_imported_at_module_scope_only_in_its_home(library, homes):
    users = {
        module if module in homes else module.partition(".")[0]
        for module in SOURCES
        for name, top in imports(module)
        if top and name.partition(".")[0] == library
    }
    assert users <= homes


def test_no_module_imports_another_room_by_its_name_in_a_text():
    """Such an import is none that the contracts see."""
    for module, path in SOURCES.items():
        own = f"steerlab.{module.partition('.')[0]}"
        for call in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(call, ast.Call) and "import_module" in ast.unparse(call.func):
                named = ast.unparse(call.args[0]).lstrip("f'\"")
                assert not named.startswith("steerlab.") or named.startswith(own), (module, named)


def test_how_threads_wait_is_said_before_torch_is_imported():
    users = {
        m.rpartition(".")[0] for m in SOURCES for name, top in imports(m) if top and name == "torch"
    }
    assert users
    for package in users - {"vllm_plugin"}:  # vLLM imports torch before its plugins
        assert ("steerlab.models.waiting", True) in set(imports(package))


def test_the_front_ends_know_each_other_at_one_door():
    for module in SOURCES:
        crossing = [name for name, _ in imports(module) if name.startswith("steerlab.tui")]
        assert not crossing or module in {"cli.tui", "tui", "tui.app"} or module.startswith("tui.")


def test_public_names_are_importable_documented_and_all_there_are():
    assert steerlab.__all__ == sorted(steerlab.__all__)
    assert set(steerlab.__all__) == set(steerlab._HOMES)
    assert set(steerlab.__all__) <= set(dir(steerlab))
    for name in steerlab.__all__:
        value = getattr(steerlab, name)
        assert value.__name__ == name
        assert inspect.getdoc(value)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = steerlab.nothing


def test_type_checkers_see_the_same_names():
    tree = ast.parse((ROOT / "__init__.py").read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"steerlab.{home}" for name, home in steerlab._HOMES.items()}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> Path:
    store = steerlab.Store(tmp_path_factory.mktemp("cold") / "store")
    love, anger = store.save("love", vector(1)), store.save("anger", vector(2))
    store.save("warm", love - 0.5 * anger)
    return store.path


def loaded(code: str, store: Path, *arguments: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running the code."""
    code += "\nimport sys; print(*{m.partition('.')[0] for m in sys.modules}, file=sys.stderr)"
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "STEERLAB_STORE": str(store)},
    )
    return set(result.stderr.splitlines()[-1].split())


RUN = "import sys; from steerlab.cli import run; run(sys.argv[1:])"


@pytest.mark.parametrize("option", ["--help", "--version", "-h"])
def test_help_costs_what_click_costs(stored, option):
    modules = loaded(RUN, stored, option)
    assert "click" in modules
    assert not modules & {*HEAVY, "numpy", "sqlmodel", "sqlalchemy", "rich", "safetensors"}


VERBS = """
list
list --json
show warm
models
compose 'love - anger' --dry-run
diff love warm
inspect warm --no-model
tree warm
map
compose 'love + anger'
scale love 2 --dry-run
tag love x
verify
generate --help
compose lvoe
extract x --positive a
export love x.gguf
import x.gguf
export love y.gguf
""".strip().splitlines()

WATCHED = """
import shlex, sys
from steerlab.cli import run
heavy, *verbs = sys.argv[1:]
for verb in verbs:
    run(shlex.split(verb))
    if found := {*heavy.split()} & {*sys.modules}:
        sys.exit(f"{verb} imported {found}")
"""


def test_no_verb_imports_torch_before_it_needs_a_model(stored, tmp_path):
    environment = {**os.environ, "STEERLAB_STORE": str(stored)}
    heavy = " ".join([*HEAVY, "rich", "gguf"])
    command = [sys.executable, "-c", WATCHED, heavy, *VERBS]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"x.gguf", "y.gguf"}


def test_no_help_of_a_verb_imports_torch(stored):
    verbs = [name for section in SECTIONS.values() for name in section]
    code = f"from steerlab.cli import run\nfor verb in {verbs}: run([verb, '--help'])"
    assert not loaded(code, stored) & {*HEAVY, "sqlmodel", "rich"}


def test_importing_steerlab_costs_next_to_nothing(stored):
    light = {*HEAVY, "numpy", "click", "IPython", "tqdm", "anywidget"}
    assert not loaded("import steerlab; dir(steerlab)", stored) & light


def test_a_store_shows_itself_in_a_notebook_without_torch(stored):
    code = "import steerlab; page = steerlab.Store()._repr_html_(); assert 'love' in page"
    assert not loaded(code, stored) & {"torch", "transformers", "IPython", "matplotlib"}


def test_importing_a_vector_needs_no_torch(stored):
    assert not loaded("from steerlab.vectors import love; 2 * love", stored) & HEAVY


def test_the_example_of_the_package_steers_at_a_dose_and_uses_public_names():
    example = (steerlab.__doc__ or "").split("\n\n    ")[1].split("\n    from")[0]
    assert set(example.removeprefix("from steerlab import ").split(", ")) <= set(dir(steerlab))
    assert "love - anger, dose=0.15" in (steerlab.__doc__ or "")
