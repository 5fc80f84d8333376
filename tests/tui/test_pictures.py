"""Golden pictures: each screen at two sizes, compared with the SVG in `pictures/`.

A picture that differs fails, and the message names the file that shows what there is now. Look at
it (any browser shows SVG); if it is as it should be, accept all that differ, and read their diff:

    STEERLAB_ACCEPT_PICTURES=1 pytest tests/tui/test_pictures.py

The vectors are the starter store's and the texts are written here, so no model has a say in them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from textual.widgets import Input, TextArea

from steerlab import Lab, Store
from steerlab.core.cell import Key
from steerlab.core.run import Generation, Run
from steerlab.core.setting import Setting
from steerlab.core.sweep import Sweep
from steerlab.core.vector import SteeringVector
from steerlab.tui.extract.form import Draft
from steerlab.tui.extract.screen import ExtractScreen
from steerlab.tui.frames import Frames
from steerlab.tui.health.report import Entry, Report
from steerlab.tui.health.screen import HealthScreen
from steerlab.tui.sweep.screen import SweepScreen
from tests.tui.driver import Driver, Session
from tests.tui.test_health import payloads_of
from tests.tui.visit import starter_store

PICTURES = Path(__file__).with_name("pictures")
SIZES = [(80, 24), (140, 40)]
PROMPT = "I think you are a"
PLAIN = " little confused, and I am not sure that I can help you with that."
WARM = " wonderful person, and I love how much joy you bring to all of us."
COLD = " terrible liar, and I hate how much pain you bring to all of us."


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """With the starter vectors, in a store that every verb finds: its place is in no picture."""
    monkeypatch.setenv("STEERLAB_STORE", str(starter_store(tmp_path / "store")))
    return Lab(Store())


def picture_of(user: Driver) -> str:
    """The screen as SVG: small, an element a line, and without the names drawn by lot."""
    picture = re.sub(r"terminal-\d+-", "", user.app.export_screenshot(title="steerlab"))
    clips = r'<clipPath id="line-.*?</clipPath>| clip-path="url\(#line-\d+\)"'
    edges = ' shape-rendering="crispEdges"'
    for pattern, smaller in (
        (clips, ""),
        (edges, ""),
        ("<style>", "<style>\nrect { shape-rendering: crispEdges }"),
        ("&#160;", "\N{NO-BREAK SPACE}"),
        ("(/>|</text>)<", r"\1\n<"),
    ):
        picture = re.sub(pattern, smaller, picture, flags=re.S)
    return picture


def compare(picture: str, name: str, actual: Path) -> None:
    """Fail where a picture is not the one that was accepted."""
    accepted = PICTURES / f"{name}.svg"
    if os.environ.get("STEERLAB_ACCEPT_PICTURES"):
        accepted.write_text(picture, encoding="utf-8")
    if not accepted.exists() or accepted.read_text(encoding="utf-8") != picture:
        (actual / accepted.name).write_text(picture, encoding="utf-8")
        raise AssertionError(
            f"{name} looks different: see {actual / accepted.name}; "
            "STEERLAB_ACCEPT_PICTURES=1 accepts it"
        )


async def workbench(user: Driver) -> None:
    """A vector, and what was written with it."""
    generations = (Generation(0.0, 0.0, PLAIN), Generation(0.455, 0.2, WARM))
    run = Run("love - 0.5*anger", PROMPT, "smollm2", generations, id=1)
    user.lab_panel.replay(run)
    await user.until(lambda: user.line.meaning.vector)


async def sweep(user: Driver) -> None:
    """Three layers and three doses, all written."""
    await user.steer("love")
    await user.pilot.press("w")
    await user.until(lambda: isinstance(user.app.screen, SweepScreen))
    screen = user.app.screen
    assert isinstance(screen, SweepScreen)
    await user.until(lambda: screen.query_one("#layers", Input).value)
    love, doses = user.bench.lab.store.load("love"), (-0.2, 0.0, 0.2)
    vectors = [
        SteeringVector(
            {b: love.directions[15]},
            model=love.model,
            recipe=love.recipe,
            residual_norms={b: love.residual_norms[15] or 1.0},
        )
        for b in (13, 15, 17)
    ]
    steered = [
        Setting(v, v.coefficient(dose), strength=dose) for v in vectors for dose in doses if dose
    ]
    key = ("plan", "love", love.digest, "smollm2", "key", "dose")
    planned = Sweep(*key, (Setting(), *steered), (PROMPT,), (0,))
    screen.lay_out(planned)
    written = [PLAIN, *((COLD, WARM)[(i - 1) % 2][: 20 * (i + 1)] for i in range(1, 7))]
    frames = Frames[Key](1)
    for key, text in zip(planned.planned(), written, strict=True):
        frames.add(key, text)
    screen.take(frames)
    screen.post_message(screen.Ended(True))
    await user.pilot.pause()
    await user.pilot.press("end")


async def extract(user: Driver) -> None:
    """Two pairs, typed."""
    user.bench._draft = Draft("serenity", "I feel calm\nso quiet", "I feel tense\nso loud")
    await user.pilot.press("x")
    await user.until(lambda: isinstance(user.app.screen, ExtractScreen))
    status = user.app.screen.query_one("#naming")
    await user.until(lambda: "a new name" in str(status.render()))


async def helped(user: Driver) -> None:
    """The table's own."""
    await user.pilot.press("question_mark")


async def save(user: Driver) -> None:
    """With something to be warned of."""
    await user.steer("love - 1.0001*love + 0*anger")
    await user.pilot.press("ctrl+s")


async def health(user: Driver) -> None:
    """Of a store with an altered payload, a missing one and what a crash left."""
    store = user.bench.lab.store
    for altered in payloads_of(store, "anger"):
        altered.write_bytes(altered.read_bytes()[:4000])
    for lost in payloads_of(store, "calm"):
        lost.unlink()
    half = store.path / "payloads" / ".tmp-0123"
    half.write_bytes(bytes(4500))
    os.utime(half, (0, 0))
    await user.pilot.press("h")
    screen = user.app.screen
    assert isinstance(screen, HealthScreen)
    await user.pilot.press("v")
    await user.until(lambda: not screen.busy and screen.report.entries)
    await settle(user)
    facts = screen.query_one("#facts", Report)
    size = "384.9 kB on disk: payloads 56.4 kB, registry 319.5 kB, other files 9.0 kB"
    facts.show([Entry("store", "/home/ada/vectors"), facts.entries[1], Entry("size", size)])


async def settle(user: Driver) -> None:
    """Nothing moves, and nothing is still being read."""
    user.app.animation_level = "none"
    for field in user.app.screen.query("Input, TextArea"):
        assert isinstance(field, Input | TextArea)
        field.cursor_blink = False
    await user.app.workers.wait_for_complete(
        [worker for worker in user.app.workers if not worker.is_finished]
    )
    await user.pilot.pause()
    await user.pilot.pause()


def overview_is_there(user: Driver) -> bool:
    return any("pairs" in str(head.render()) for head in user.bench.query("#head"))


@pytest.mark.parametrize("show", [workbench, sweep, extract, helped, save, health])
async def test_a_screen_looks_as_it_was_accepted(
    lab: Lab, tmp_path: Path, show: Callable[[Driver], Awaitable[None]]
) -> None:
    for width, height in SIZES:
        async with Session(lab, size=(width, height), count=13) as user:
            await user.until(partial(overview_is_there, user))
            await show(user)
            await settle(user)
            compare(picture_of(user), f"{show.__name__}-{width}x{height}", tmp_path)


async def test_an_empty_store_looks_as_it_was_accepted(tmp_path: Path) -> None:
    for width, height in SIZES:
        lab = Lab(Store(tmp_path / "empty"))
        async with Session(lab, size=(width, height), count=0) as user:
            await user.until(lambda user=user: "No vectors" in user.screenshot)
            await settle(user)
            compare(picture_of(user), f"empty-{width}x{height}", tmp_path)
