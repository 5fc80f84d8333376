"""The README can't rot: its commands are CI's, its verbs exist, its Python runs."""

import re
import tomllib
from pathlib import Path

import pytest

from steerlab import LanguageModel
from steerlab.cli import SECTIONS
from steerlab.conformance.conform import TOLERANCE
from steerlab.conformance.targets import TARGETS
from tests.conformance import table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.M | re.S)


def test_the_first_command_makes_an_environment_installs_and_shows_the_demo() -> None:
    command = blocks("bash")[0]
    steps = [step.strip() for step in command.split("&&")]
    assert steps == [
        "python3 -m venv .venv",
        ".venv/bin/pip install -e '.[pinned]'",
        ".venv/bin/steerlab demo",
    ]


def test_the_second_command_installs_what_tests_need_and_runs_them() -> None:
    install, run = (step.strip() for step in blocks("bash")[1].split("&&"))
    assert install == ".venv/bin/pip install -e '.[pinned,test]'"
    assert run == ".venv/bin/pytest -n auto"
    assert len(blocks("bash")) == 2


def test_ci_runs_the_commands_as_the_readme_prints_them() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert 'step "$(readme_command 1)"' in script
    assert 'step "$(readme_command 2)"' in script


def test_the_extras_pin_torch() -> None:
    assert "torch==2.13.0" in EXTRAS["pinned"]
    assert all("==" in requirement for requirement in EXTRAS["pinned"])


def test_the_table_of_verbs_is_complete() -> None:
    table = README[README.index("| verb |") : README.index("`--plot FILE`")]
    named = set(re.findall(r"`([a-z]+)`", "\n".join(re.findall(r"^\|([^|]*)\|", table, re.M))))
    assert named == {verb for section in SECTIONS.values() for verb in section}


def test_the_table_of_programs_is_what_conform_compares_with_true_verdicts() -> None:
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in README.split(table.HEAD)[1].splitlines()
        if line.startswith("|")
    ]
    found = rows[: len(TARGETS)]
    assert [row[0] for row in found] == [*TARGETS] == [*table.GIVEN]
    for row in found:
        unsteered, steered, likeliest = map(float, row[2:5])
        assert 0 <= likeliest <= min(steered, TOLERANCE)
        within = max(unsteered, steered) <= TOLERANCE
        assert row[6] == ("agrees" if within else "differs")


def test_the_architecture_names_all_rooms_and_files_that_exist() -> None:
    page = (ROOT / "steerlab" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    named = re.findall(r"`([a-z_/]+\.py|[a-z_/]+/)`", page)
    for name in named:
        assert any(
            (ROOT / base / name).exists() for base in ("", "steerlab", "steerlab/registry")
        ), name
    rooms = {f"{path.parent.name}/" for path in (ROOT / "steerlab").glob("*/__init__.py")}
    assert rooms <= {*named}


@pytest.mark.smollm2
def test_the_python_example_runs(
    smollm2: LanguageModel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEERLAB_STORE", str(ROOT / "store"))
    monkeypatch.setattr(LanguageModel, "load", lambda _: smollm2)
    exec(blocks("python")[0], {})
    baseline, steered = (
        part for part in capsys.readouterr().out.split("I think you are a") if part
    )
    assert baseline != steered
