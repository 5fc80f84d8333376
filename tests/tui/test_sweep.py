"""The sweep screen, driven by keys on a tiny model."""

import math
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual import on
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input, Label, Select, TextArea

from steerlab import Lab, Store
from steerlab.core.recipe import Imported
from steerlab.core.sampling import Sampling
from steerlab.core.setting import settings_of
from steerlab.core.sweep import Sweep, SweepPlan
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadOption
from steerlab.evaluation.metrics.texts import METRICS, Metric
from steerlab.interventions.runtime import TransformersRuntime
from steerlab.lab.sweeps import run_sweep
from steerlab.tui.notices import Notice
from steerlab.tui.sweep.form import COEFFICIENTS, SweepForm, around, chosen, numbers
from steerlab.tui.sweep.heatmap import Heatmap
from steerlab.tui.sweep.screen import Promoted, SweepScreen
from steerlab.tui.sweep.sweep_texts import SweepTexts
from tests.saved import ANGER, LOVE
from tests.tiny import tiny_lm
from tests.tui.hosts import text_of, until

PROMPT = "I think [b]you[/b]"


@pytest.fixture(scope="module")
def lm():
    return tiny_lm()


@pytest.fixture(scope="module")
def extracted(lm, tmp_path_factory) -> Path:
    """A store that every test copies."""
    lab = Lab(Store(tmp_path_factory.mktemp("sweep") / "store"), lm)
    love = lab.extract("love", LOVE, layers=2)
    lab.extract("anger", ANGER, layers=2)
    lab.store.save("foreign", bare(love))
    return lab.store.path


@pytest.fixture
def lab(lm, tmp_path, extracted) -> Lab:
    return Lab(Store(shutil.copytree(extracted, tmp_path / "store")), lm)


def bare(vector: SteeringVector) -> SteeringVector:
    """As if from elsewhere: no recipe, no residual norms."""
    return SteeringVector(vector.directions, model=vector.model, recipe=Imported("a file"))


class Bench(App[None]):
    """An app that shows the screen, and keeps what it answers and tells."""

    def __init__(self, lab: Lab, expression: str = "love", **options: Any) -> None:
        super().__init__()
        options.setdefault("sampling", Sampling(max_new_tokens=6))
        self.sweep = SweepScreen(lab, expression, PROMPT, **options)
        self.news: list[str] = []
        self.answers: list[Promoted | None] = []

    def on_mount(self) -> None:
        self.push_screen(self.sweep, self.answers.append)

    @on(Notice)
    def keep(self, event: Notice) -> None:
        self.news.append(event.text)


async def ready(bench: Bench, pilot: Pilot[None]) -> None:
    await until(pilot, lambda: bench.sweep.query_one("#layers", Input).value)


async def run(bench: Bench, pilot: Pilot[None]) -> SweepTexts:
    await ready(bench, pilot)
    await pilot.press("ctrl+g")
    await until(pilot, lambda: bench.sweep.written is not None and not bench.sweep.busy)
    assert bench.sweep.written is not None
    return bench.sweep.written


def status(bench: Bench) -> str:
    return text_of(bench.sweep, "#status")


def hooks(lab: Lab) -> list[Any]:
    return [hook for block in lab.model.blocks for hook in block._forward_pre_hooks]


async def test_it_proposes_layers_around_the_vectors_own_and_says_what_it_would_write(lab) -> None:
    bench = Bench(lab)
    async with bench.run_test(size=(80, 24)) as pilot:
        await ready(bench, pilot)
        assert bench.sweep.query_one("#layers", Input).value == "0,2,3"
        await until(pilot, lambda: "19 texts" in text_of(bench.sweep, "#baseline"))
        assert bench.sweep.query_one(Heatmap).grid.layers == (0, 2, 3)
        bench.sweep.query_one("#strengths", Input).value = "0,1"
        bench.sweep.query_one("#layers", Input).value = "1:"
        bench.sweep.query_one("#prompts", TextArea).text = "one\ntwo"
        await until(pilot, lambda: "8 texts" in text_of(bench.sweep, "#baseline"))
        assert bench.sweep.query_one(Heatmap).grid.layers == (1, 2, 3)


async def test_cells_hold_what_the_lab_writes_and_their_metric(lab) -> None:
    bench = Bench(lab, "love - anger")
    async with bench.run_test(size=(100, 30)) as pilot:
        shown = await run(bench, pilot)
        heatmap = bench.sweep.query_one(Heatmap)
        doses = [float(text) for text in heatmap.grid.columns]
        cells = lab.sweep(
            lab.evaluate("love - anger"), [0, 2, 3], [PROMPT], doses=doses, max_new_tokens=6
        )
        written = [cell.text for cell in cells]
        assert [shown.texts[key] for key in shown.sweep.planned()] == written
        metric = bench.sweep.query_one(SweepForm).metric
        for row, layer in enumerate((0, 2, 3)):
            for column, dose in enumerate(doses):
                (text,) = (
                    cell.text
                    for cell in cells
                    if cell.setting.dose == pytest.approx(dose)
                    and (not dose or cell.setting.layers == (layer,))
                )
                value, expected = heatmap.grid.values[row][column], metric.score(text, written[0])
                assert value is not None
                assert value == expected or (math.isnan(value) and math.isnan(expected))
        assert "19 texts" in status(bench)
        assert not bench.news


async def test_moving_shows_the_texts_beside_their_baseline(lab) -> None:
    bench = Bench(lab)
    async with bench.run_test(size=(100, 30)) as pilot:
        shown = await run(bench, pilot)
        await pilot.press("pagedown", "end")
        await pilot.pause()
        steered = shown.text(0, shown.setting(2, 6)) or ""
        assert text_of(bench.sweep, "#steered") == PROMPT + printed(steered)
        assert text_of(bench.sweep, "#baseline") == PROMPT + printed(shown.text(0) or "")
        title = str(bench.sweep.query_one("#steered-box").border_title)
        assert title.startswith("layer 3 · c +")
        assert "dose +0.30" in title
        await pilot.press("left", "left", "left")
        await pilot.pause()
        assert text_of(bench.sweep, "#steered") == text_of(bench.sweep, "#baseline")


def printed(text: str) -> str:
    from steerlab.core.display import printable

    return printable(text, newlines=True)


async def test_another_metric_writes_nothing_anew(lab, monkeypatch) -> None:
    bench = Bench(lab)
    async with bench.run_test(size=(100, 30)) as pilot:
        shown = await run(bench, pilot)
        monkeypatch.setattr("steerlab.lab.sweeps.run_sweep", None)
        select, heatmap = bench.sweep.query_one("#metric", Select), bench.sweep.query_one(Heatmap)
        select.value = "length"
        await pilot.pause()
        text = shown.text(0, shown.setting(0, 0)) or ""
        assert heatmap.grid.values[0][0] == METRICS["length"].score(text)
        heatmap.focus()
        await pilot.press("m")
        await pilot.pause()
        assert select.value == "shared"
        assert heatmap.grid.values[0][3] == 1
        assert "shared" in str(bench.sweep.query_one("#baseline-box").border_subtitle)


async def test_several_prompts_are_averaged_and_read_one_by_one(lab) -> None:
    bench = Bench(lab)
    async with bench.run_test(size=(100, 30)) as pilot:
        await ready(bench, pilot)
        bench.sweep.query_one("#prompts", TextArea).text = "one\n\ntwo\none"
        bench.sweep.query_one("#metric", Select).value = "length"
        shown = await run(bench, pilot)
        assert shown.sweep.prompts == ("one", "two")
        texts = [shown.text(prompt, shown.setting(0, 0)) or "" for prompt in (0, 1)]
        lengths = [METRICS["length"].score(text) for text in texts]
        assert bench.sweep.query_one(Heatmap).grid.values[0][0] == sum(lengths) / 2
        assert text_of(bench.sweep, "#baseline").startswith("one")
        await pilot.press("n")
        await pilot.pause()
        assert text_of(bench.sweep, "#baseline") == "two" + printed(shown.text(1) or "")
        assert "prompt 2 of 2" in text_of(bench.sweep, "PromptLine")
        await pilot.click("PromptLine")
        await pilot.pause()
        assert text_of(bench.sweep, "#baseline").startswith("one")


@pytest.mark.parametrize("key", ["enter", "p"])
async def test_a_cell_is_promoted(lab, key: str) -> None:
    bench = Bench(lab, "love", seed=3)
    async with bench.run_test(size=(100, 30)) as pilot:
        await run(bench, pilot)
        await pilot.press("down", "end", key)
        await until(pilot, lambda: bench.answers)
    (answer,) = bench.answers
    assert answer is not None
    at = lab.at_layers(lab.store.load("love"), 2)
    assert (answer.expression, answer.layers, answer.prompt, answer.seed) == (
        "love", "2", PROMPT, 3,
    )  # fmt: skip
    assert answer.dose == 0.3
    assert answer.coefficient == pytest.approx(at.coefficient(0.3))


async def test_escape_goes_back_when_nothing_runs(lab) -> None:
    bench = Bench(lab)
    async with bench.run_test() as pilot:
        await ready(bench, pilot)
        await pilot.press("p", "escape")
        await until(pilot, lambda: bench.answers)
    assert bench.answers == [None]


def slowly(lab: Lab, monkeypatch: pytest.MonkeyPatch, steps: int = 2) -> threading.Event:
    """After some tokens the model waits to be let on."""
    released = threading.Event()

    def waiting(*arguments: Any, should_stop: Callable[[], bool], **options: Any) -> Any:
        asked = []

        def stop() -> bool:
            asked.append(None)
            if len(asked) == steps:
                released.wait(60)
            return should_stop()

        return run_sweep(*arguments, should_stop=stop, **options)

    monkeypatch.setattr("steerlab.lab.sweeps.run_sweep", waiting)
    return released


async def test_escape_stops_and_keeps_what_came(lab, monkeypatch) -> None:
    bench = Bench(lab, sampling=Sampling(max_new_tokens=100))
    released = slowly(lab, monkeypatch)
    async with bench.run_test(size=(100, 30)) as pilot:
        await ready(bench, pilot)
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bench.sweep.written is not None and bench.sweep.written.texts)
        await until(pilot, lambda: text_of(bench.sweep, "#steered") != PROMPT)
        assert bench.sweep.query_one("#progress").display
        await pilot.press("ctrl+g", "escape")
        assert "stopping" in status(bench)
        released.set()
        await until(pilot, lambda: not bench.sweep.busy)
        assert "stopped" in status(bench)
        assert bench.sweep.written is not None
        assert all(len(text) < 20 for text in bench.sweep.written.texts.values())
        assert not hooks(lab)
        assert not bench.sweep.query_one("#progress").display
        shown = await run(bench, pilot)
        await until(pilot, lambda: "19 texts" in status(bench))
        assert len(shown.texts) == 19


async def test_a_second_escape_leaves_at_once_and_the_model_stops(lab, monkeypatch) -> None:
    bench = Bench(lab, sampling=Sampling(max_new_tokens=100))
    released = slowly(lab, monkeypatch)
    async with bench.run_test(size=(100, 30)) as pilot:
        await ready(bench, pilot)
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bench.sweep.written is not None and bench.sweep.written.texts)
        await pilot.press("escape", "escape")
        await until(pilot, lambda: bench.answers)
        released.set()
        with lab.model.lock:
            pass
    assert bench.answers == [None]
    assert not hooks(lab)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("layers", "ten", "as layers: write 15"),
        ("layers", "", "as layers: write 15"),
        ("layers", "99", "no layer 99"),
        ("strengths", "0.1;0.2", "is not a list of doses such as"),
        ("strengths", "nan", "is not a list of doses such as"),
        ("strengths", "0", "other than 0"),
        ("expression", "", "no expression"),
        ("expression", "lvoe", "lvoe"),
        ("expression", "love -", "column"),
    ],
)
async def test_what_cant_be_swept_is_one_line(lab, name: str, text: str, says: str) -> None:
    bench = Bench(lab)
    async with bench.run_test(size=(80, 24)) as pilot:
        await ready(bench, pilot)
        box = bench.sweep.query_one(f"#{name}", Input)
        box.value = text
        box.focus()
        await pilot.press("enter")
        await until(pilot, lambda: bench.news and not bench.sweep.busy)
        assert says in bench.news[0]
        assert "\n" not in bench.news[0]
        assert name == "expression" or says in status(bench)  # the line itself is explained there
        assert bench.sweep.written is None


async def test_without_an_expression_it_asks_for_one(lab) -> None:
    bench = Bench(lab, "")
    async with bench.run_test() as pilot:
        await until(pilot, lambda: "type an expression" in status(bench))
        await pilot.press(*"love")
        await until(pilot, lambda: bench.sweep.query_one("#layers", Input).value == "0,2,3")
        await pilot.press("enter")
        await until(pilot, lambda: "19 texts" in status(bench))


async def test_no_prompt_is_one_line(lab) -> None:
    bench = Bench(lab)
    async with bench.run_test() as pilot:
        await ready(bench, pilot)
        bench.sweep.query_one("#prompts", TextArea).text = " \n"
        await pilot.press("f5")
        await until(pilot, lambda: "no prompt" in status(bench))


async def test_layers_that_cant_be_made_are_one_line(lab) -> None:
    bench = Bench(lab, "foreign")
    async with bench.run_test() as pilot:
        await ready(bench, pilot)
        assert bench.sweep.query_one("#layers", Input).value == "2"
        bench.sweep.query_one("#layers", Input).value = "1,2"
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bench.news)
        assert "no recipe that could make layer 1" in bench.news[0]


async def test_without_residual_norms_coefficients_take_the_place_of_doses(lab) -> None:
    bench = Bench(lab, "foreign")
    async with bench.run_test(size=(100, 30)) as pilot:
        await ready(bench, pilot)
        form = bench.sweep.query_one(SweepForm)
        assert form.query_one("#strengths", Input).value == COEFFICIENTS
        assert str(form.query_one("#strengths-label", Label).render()) == "c"
        await until(pilot, lambda: "differs from layer to layer" in status(bench))
        await run(bench, pilot)
        await pilot.press("end", "p")
        await until(pilot, lambda: bench.answers)
    (answer,) = bench.answers
    assert answer is not None
    assert (answer.dose, answer.coefficient) == (None, 2.0)


async def test_what_was_typed_stays_when_the_expression_changes(lab) -> None:
    bench = Bench(lab)
    async with bench.run_test() as pilot:
        await ready(bench, pilot)
        layers = bench.sweep.query_one("#layers", Input)
        bench.sweep.query_one("#expression", Input).value = "foreign"
        await until(pilot, lambda: layers.value == "2")
        layers.value = "2,3"
        bench.sweep.query_one("#expression", Input).value = "anger"
        await until(pilot, lambda: "differ" not in status(bench))
        assert layers.value == "2,3"


async def test_a_worker_that_fails_ends_in_a_message(lab, monkeypatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("[red]the machine[/red] is on fire")

    monkeypatch.setattr("steerlab.lab.sweeps.run_sweep", broken)
    monkeypatch.delenv("STEERLAB_DEBUG", raising=False)
    bench = Bench(lab)
    async with bench.run_test() as pilot:
        await ready(bench, pilot)
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bench.news and not bench.sweep.busy)
        assert "[red]the machine[/red] is on fire" in status(bench)


async def test_the_model_is_loaded_in_the_worker_and_a_line_says_so(lab, lm, monkeypatch) -> None:
    monkeypatch.setattr("steerlab.models.language_model.LanguageModel.load", lambda *_, **__: lm)
    unloaded = Lab(lab.store)
    bench = Bench(unloaded)
    said: list[str] = []
    narrate = bench.sweep._say
    monkeypatch.setattr(bench.sweep, "_say", lambda text, **o: (said.append(text), narrate(text)))
    async with bench.run_test() as pilot:
        assert not unloaded.is_loaded
        await run(bench, pilot)
        assert unloaded.is_loaded
    assert any(text.startswith("loading tiny") for text in said)


async def test_a_sweep_that_was_written_is_there_at_once(lab, monkeypatch) -> None:
    asked = SweepPlan(
        "love",
        ["b", "a"],
        [3, 0, 2],
        doses=[0.2, -0.1, 0],
        seeds=[5],
        sampling=Sampling(max_new_tokens=6),
    )
    written = run_sweep(lab, asked)
    monkeypatch.setattr(TransformersRuntime, "generate", None)
    bench = Bench(lab, seed=5)
    async with bench.run_test(size=(100, 30)) as pilot:
        await ready(bench, pilot)
        bench.sweep.query_one("#strengths", Input).value = "-0.1,0,0.2"
        bench.sweep.query_one("#prompts", TextArea).text = "a\nb"
        shown = await run(bench, pilot)
        assert not bench.news
        for row, layer in enumerate((0, 2, 3)):
            for column, dose in enumerate((-0.1, 0.0, 0.2)):
                for number, prompt in enumerate("ab"):
                    (text,) = (
                        cell.text
                        for cell in written.cells
                        if cell.prompt == prompt
                        and cell.setting.strength == dose
                        and cell.setting.layer in (None, layer)
                    )
                    assert shown.text(number, shown.setting(row, column)) == text
    assert [sweep.id for sweep in lab.store.sweeps.list()] == [written.id]


async def test_a_baseline_is_written_though_no_dose_is_0(lab) -> None:
    bench = Bench(lab)
    async with bench.run_test() as pilot:
        await ready(bench, pilot)
        bench.sweep.query_one("#strengths", Input).value = "0.2"
        shown = await run(bench, pilot)
        assert text_of(bench.sweep, "#baseline") == PROMPT + printed(shown.text(0) or "")
        assert bench.sweep.query_one(Heatmap).grid.columns == ("0", "+0.20")


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (140, 40), (200, 60)])
async def test_every_control_can_be_reached_at_any_size(lab, size: tuple[int, int]) -> None:
    bench = Bench(lab)
    async with bench.run_test(size=size) as pilot:
        await run(bench, pilot)
        body = bench.sweep.query_one("#body")
        for widget in bench.sweep.focus_chain:
            widget.focus()
            await until(pilot, lambda: body.region.contains_point(widget.region.offset))  # noqa: B023
            assert widget.size.height > 0
            assert widget.size.width >= 8


async def test_resizing_loses_nothing(lab) -> None:
    bench = Bench(lab)
    async with bench.run_test(size=(140, 40)) as pilot:
        shown = await run(bench, pilot)
        await pilot.press("down", "right")
        before = text_of(bench.sweep, "#steered")
        await pilot.resize_terminal(40, 12)
        await pilot.resize_terminal(80, 24)
        assert bench.sweep.query_one(Heatmap).cursor == (1, 1)
        assert bench.sweep.written is shown
        assert text_of(bench.sweep, "#steered") == before


# the parts


def swept(lab: Lab, *prompts: str) -> SweepTexts:
    """Of love without steering and at dose 0.1."""
    settings = settings_of(lab.store.load("love"), doses=(0.0, 0.1))
    key = ("plan", "love", "digest", "tiny", "key", "dose")
    return SweepTexts(Sweep(*key, tuple(settings), prompts, (0,)))


def test_a_text_that_a_metric_cant_take_leaves_its_cell_undefined(lab) -> None:
    def broken(text: str) -> float:
        if "x" in text:
            raise ValueError(text)
        return 1.0

    shown = swept(lab, "one", "two")
    metric = Metric("broken", "", broken)
    assert shown.grid(metric).values == ((None, None),)
    keys = list(shown.sweep.planned())
    for key, text in zip(keys, ["a", "x", "b"], strict=False):
        shown.write(key, text)
    ((plain, steered),) = shown.grid(metric).values
    assert plain == 1
    assert steered is not None
    assert math.isnan(steered)
    shown.write(keys[3], "b")
    assert shown.grid(metric).values == ((1, 1),)


def test_growing_texts_are_valued_anew(lab) -> None:
    shown = swept(lab, "one")
    plain, steered = shown.sweep.planned()

    def value() -> float | None:
        return shown.grid(METRICS["shared"]).values[0][1]

    shown.write(plain, "a")
    shown.write(steered, "a")
    assert value() == 1
    shown.write(plain, " b")
    assert value() == 0.5
    shown.write(steered, " b")
    assert value() == 1


def test_of_any_number_of_texts_those_that_grew_are_scored(lab) -> None:
    scored: list[str] = []

    def count(text: str) -> float:
        scored.append(text)
        return 1.0

    shown, metric = swept(lab, *map(str, range(2500))), Metric("count", "", count)
    keys = list(shown.sweep.planned())
    for number, key in enumerate(keys):
        shown.write(key, f"{number}")
    shown.grid(metric)
    assert len(scored) == len(keys) == 5000
    scored.clear()
    shown.write(keys[7], " more")
    shown.grid(metric)
    assert scored == ["7 more"]


def test_layers_are_proposed_within_the_model(lab) -> None:
    assert around(lab.at_layers(lab.store.load("love"), 0), extends=True) == [0, 2, 3]
    wide = lab.at_layers(lab.store.load("love"), "all")
    assert around(wide, extends=True) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("text", "layers"), [("all", [0, 1, 2]), ("1:", [1, 2]), ("2,0,2", [0, 2]), ("7", [7])]
)
def test_layers_as_typed(text: str, layers: list[int]) -> None:
    assert chosen(text, 3) == layers


def test_numbers_are_sorted_and_differ() -> None:
    assert numbers("0.2, -1,0.2,0") == numbers("0.2,-1") == (-1, 0, 0.2)
    for text in ("", "a", "1,,2", "inf", "0,0"):
        with pytest.raises(BadOption):
            numbers(text)
