"""The health screen, driven by keys, over sound stores and damaged ones."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from textual import events, on
from textual.containers import VerticalScroll
from textual.geometry import Region
from textual.widgets import Footer, Input, Static
from textual.widgets._footer import FooterKey

from steerlab import Lab, Store
from steerlab.cli import run
from steerlab.cli.forms import CommandLine
from steerlab.registry.transfer import backup
from steerlab.registry.upkeep import verify
from steerlab.registry.upkeep.upkeep import Upkeep
from steerlab.tui.app import QuitDialog, SteerlabApp
from steerlab.tui.dialogs import Confirm, TextDialog
from steerlab.tui.health.report import Entry, Report, of_problems
from steerlab.tui.health.screen import HealthScreen
from tests.cli.test_upkeep import lose_row
from tests.fuzz.stranger import fill
from tests.registry.samples import vector
from tests.tui.driver import SIZES, Driver, Session, delete
from tests.tui.hosts import Host, text_of, until
from tests.tui.test_hostile_strings import check


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """love in two versions, anger, and warm = love - 0.5*anger; the one that verbs find."""
    monkeypatch.setenv("STEERLAB_STORE", str(tmp_path / "store"))
    store = Store(timeout=0.2)
    store.save("love", vector(1), tags=["feeling"])
    store.save("love", vector(2))
    store.save("anger", vector(3))
    store.save("warm", store.evaluate("love - 0.5*anger"))
    return store


class Ward(SteerlabApp):
    """The app with no other screen behind this one."""

    def on_mount(self, event: events.Mount) -> None:
        event.prevent_default()  # or the workbench comes too
        self.ended = 0
        self.push_screen(HealthScreen(self.lab))

    @on(HealthScreen.Ended)
    def count(self) -> None:
        """Another thing is done."""
        self.ended += 1


class Visit:
    """`async with Visit(store) as nurse`: the screen is open, and has looked at the store."""

    def __init__(self, store: Store, size: tuple[int, int] = (120, 40)) -> None:
        self.app = Ward(Lab(store), CommandLine())
        self.running = self.app.run_test(size=size)

    async def __aenter__(self) -> Nurse:
        nurse = Nurse(self.app, await self.running.__aenter__())
        await nurse.until(lambda: isinstance(nurse.app.screen, HealthScreen))
        await nurse.until(lambda: "checking" not in nurse.status)
        return nurse

    async def __aexit__(self, *error: Any) -> None:
        await self.running.__aexit__(*error)


class Nurse(Driver):
    """What a user of the screen sees and does."""

    @property
    def screen(self) -> HealthScreen:
        return next(s for s in self.app.screen_stack if isinstance(s, HealthScreen))

    @property
    def status(self) -> str:
        return text_of(self.screen, "#status")

    @property
    def facts(self) -> dict[str, str]:
        return {e.label: e.text for e in self.screen.query_one("#facts").entries}

    @property
    def found(self) -> list[tuple[str, str]]:
        return [(entry.label, entry.text) for entry in self.screen.report.entries]

    async def press(self, *keys: str) -> str:
        """Press keys and wait for what they begin; gives the status line."""
        before = self.app.ended
        await self.pilot.press(*keys)
        return await self.done(before)

    async def done(self, before: int = 0) -> str:
        """Wait until more has been done than before."""
        await self.until(lambda: self.app.ended > before)
        await self.app.workers.wait_for_complete()
        await self.pilot.pause()
        return self.status


def payloads_of(store: Store, ref: str) -> list[Path]:
    return list(store.path.glob(f"payloads/**/{store.record(ref).digest}.safetensors"))


def payload_of(store: Store, ref: str) -> Path:
    (path,) = payloads_of(store, ref)
    return path


def key_of(nurse: Nurse, action: str) -> Region:
    """Where the footer has a key; empty until it has."""
    keys = [k for k in nurse.screen.query(FooterKey) if k.action.endswith(action)]
    return keys[0].region if keys else Region()


def cut(store: Store) -> None:
    path = payload_of(store, "love")
    path.write_bytes(path.read_bytes()[:-4])


def lose(store: Store) -> None:
    payload_of(store, "anger").unlink()


def ruin(store: Store) -> None:
    for file in store.path.glob("registry.db*"):
        file.write_bytes(b"no database" * 1000)


def stray(store: Store, name: str, data: bytes = b"12345", hours: float = 2) -> Path:
    path = store.path / "payloads" / "aa" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    os.utime(path, (time.time() - 3600 * hours,) * 2)
    return path


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> Iterator[Callable[[], None]]:
    """Let a function run once, and hold every further call until what this gives is called."""
    real, gate, calls = getattr(owner, name), threading.Event(), []

    def hold(*arguments: object) -> object:
        calls.append(1)
        assert len(calls) == 1 or gate.wait(60)
        return real(*arguments)

    monkeypatch.setattr(owner, name, hold)
    try:
        yield gate.set
    finally:
        gate.set()


# at once, and verify


async def test_what_is_known_at_once_stands_there_and_nothing_is_verified(store):
    cut(store)
    async with Visit(store) as nurse:
        assert nurse.facts["store"] == str(store.path)
        assert nurse.facts["holds"] == "3 vectors in 4 versions of 1 model · schema 0105"
        assert re.match(r"[\d.]+ kB on disk: payloads \d.* kB, registry", nurse.facts["size"])
        assert nurse.found[0] == ("well", "no problems at a quick check; v verifies every payload")
        assert nurse.status == "no problems at a quick check · v verifies"


async def test_of_a_sound_store_it_says_so_and_a_click_does_it_too(store):
    async with Visit(store) as nurse:
        await nurse.until(lambda: key_of(nurse, "verify"))
        await nurse.pilot.click(offset=key_of(nurse, "verify").offset)
        assert await nurse.done() == "no problems found: 4 vectors verified"
        assert nurse.found[0][1].startswith("4 vectors verified: every payload is unchanged")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "problems found in 2 of 4 vectors: run the commands shown"),
        (lose, "problems found in 2 of 4 vectors: run the commands shown"),
        (ruin, "problems found: run the commands shown"),
    ],
)
async def test_what_is_wrong_is_said_as_doctor_says_it(store, damage, says):
    async with Visit(store) as nurse:
        damage(store)
        assert await nurse.press("v") == says
        assert nurse.screen.query_one("#status").has_class("problem")
        assert nurse.screen.report.entries == of_problems(store.upkeep.diagnose())
        labels = [label for label, _ in nurse.found]
        assert labels.count("wrong") >= 1
        assert labels.count("do") == labels.count("wrong") + labels.count("note")
        if damage is ruin:
            assert run(["rebuild"]) == 0  # what to type
            assert (await nurse.press("v")).startswith("no problems found: 4 vectors")
            assert tuple(label for label, _ in nurse.found[1:3]) == ("note", "do")


async def test_a_store_that_is_not_found_by_itself_is_named_in_what_to_type(store, monkeypatch):
    monkeypatch.delenv("STEERLAB_STORE")
    ruin(store)
    async with Visit(store) as nurse:  # seen without verifying
        assert ("do", f"steerlab rebuild --store {store.path}") in nurse.found


async def test_findings_come_one_by_one_and_esc_stops_it(store, monkeypatch):
    lose(store)
    cut(store)
    async with Visit(store) as nurse:
        with held(monkeypatch, verify._Audit, "findings") as release:
            await nurse.pilot.press("v")
            await nurse.until(lambda: nurse.status == "verifying: 1 of 4")
            shown = nurse.found
            assert nurse.screen.query_one("#progress").display
            await nurse.pilot.press("g", "b", "v")  # one thing at a time
            assert nurse.app.screen is nurse.screen
            await nurse.pilot.press("escape")
            assert nurse.status == "stopping …"
            release()
            await nurse.done()
        assert nurse.status.startswith("stopped at 2 of 4: ")
        assert len(nurse.found) >= len(shown)
        assert nurse.app.screen is nurse.screen
        assert "in 3 of 4 vectors" in await nurse.press("v")


async def test_leaving_stops_what_runs(store, monkeypatch):
    async with Session(Lab(store), count=3) as user:
        nurse = Nurse(user.app, user.pilot)
        await nurse.pilot.press("h")
        with held(monkeypatch, verify._Audit, "findings") as release:
            await nurse.pilot.press("v")
            await nurse.until(lambda: "1 of 4" in nurse.status)
            await nurse.pilot.press("escape", "escape")
            assert nurse.app.screen is nurse.bench
            release()
        await nurse.app.workers.wait_for_complete()
        await nurse.pilot.press("h", "v")
        await nurse.until(lambda: nurse.status.startswith("no problems found"))


# gc


async def test_garbage_is_listed_then_asked_about_then_deleted(store):
    half, broken = stray(store, ".tmp-0123"), stray(store, "broken.safetensors")
    lost = payload_of(store, "warm")
    kept = lost.read_bytes()
    lose_row(store, "warm")
    stray(store, "lost.safetensors", kept)
    young = stray(store, ".tmp-young", hours=0)
    async with Visit(store) as nurse:
        await nurse.pilot.press("d")  # nothing was listed yet
        assert nurse.app.screen is nurse.screen
        size = len(kept) + 10
        assert (await nurse.press("g")).startswith(f"3 files, {size / 1e3:.1f} kB can be deleted ")
        _, unreadable, lost, unfinished = (text for _, text in nurse.found)
        assert unfinished == "payloads/aa/.tmp-0123"
        assert unreadable.startswith("payloads/aa/broken.safetensors is not a whole")
        assert lost.startswith("payloads/aa/lost.safetensors, with tiny_1.warm.v1")
        await nurse.pilot.press("d")
        assert isinstance(nurse.app.screen, Confirm)
        assert "steerlab rebuild` adds" in nurse.app.screen.question
        await nurse.pilot.press("escape")
        assert half.exists()
        assert (await nurse.press("d", "enter")).startswith("3 files, ")
        assert not half.exists()
        assert not broken.exists()
        assert young.exists()
        assert await nurse.press("g") == "nothing to delete: vectors need every file"
        assert store.upkeep.gc(grace=timedelta(hours=1)) == []


# backup


async def test_a_backup_is_proposed_made_and_says_how_it_comes_back(store, tmp_path):
    async with Visit(store) as nurse:
        await nurse.pilot.press("b")
        proposed = Path(nurse.app.screen.value("text"))
        assert proposed == backup.proposal(store.path)
        assert await nurse.press("enter") == f"backed up to {proposed}"
        found = dict(nurse.found)
        assert re.match(r"the whole store: 4 payload files, \d", found["holds"])
    command = shlex.split(found["restore"].replace("DIR", str(tmp_path / "copy")))
    assert run(command[1:]) == 0
    assert Store(tmp_path / "copy").verify() == []
    assert Store(tmp_path / "copy").load("warm") == store.load("warm")


async def test_a_path_can_be_typed_and_a_taken_one_is_refused_at_once(store, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "taken").write_text("mine")
    cut(store)
    async with Visit(store) as nurse:
        await nurse.pilot.press("b")
        dialog = nurse.app.screen
        assert isinstance(dialog, TextDialog)
        for text, says in {
            "": "name a file",
            str(tmp_path / "taken"): "exists: choose another name",
            str(tmp_path): "exists: choose another name",
            "x" * 300: "can't write",
        }.items():
            dialog.query_one("#text", Input).value = text
            await nurse.pilot.press("enter")
            await nurse.until(lambda says=says: says in text_of(dialog, ".problem"))
        dialog.query_one("#text", Input).value = "~/new place/all.tar"
        said = await nurse.press("enter")
        made = tmp_path / "home" / "new place" / "all.tar"
        assert said == f"backed up to {made}, with damaged files: v shows how to fix them"
        assert [label for label, _ in nurse.found].count("damaged") == 1
        assert f"'{made}'" in dict(nurse.found)["restore"]
    assert (tmp_path / "taken").read_text() == "mine"
    Store(tmp_path / "copy").transfer.restore(made)


async def test_a_cancelled_backup_leaves_nothing(store, tmp_path, monkeypatch):
    async with Visit(store) as nurse:
        with held(monkeypatch, backup, "_payload_problems") as release:
            await nurse.pilot.press("b", "enter")
            await nurse.until(lambda: nurse.status == "backing up: 1 of 4")
            await nurse.pilot.press("escape")
            release()
            await nurse.done()
        assert nurse.status == "stopped at 2 of 4: no backup was written"
        assert [p.name for p in tmp_path.iterdir()] == ["store"]
        assert not list(store.path.glob(".tmp*"))
        assert (await nurse.press("b", "enter")).startswith("backed up to ")


async def test_quitting_in_its_middle_leaves_nothing_either(store, tmp_path, monkeypatch):
    async with Visit(store) as nurse:
        with held(monkeypatch, backup, "_payload_problems") as release:
            await nurse.pilot.press("b", "enter")
            await nurse.until(lambda: nurse.status == "backing up: 1 of 4")
            assert len(list(tmp_path.iterdir())) > 1
            nurse.key("ctrl+q")
            await nurse.until(lambda: isinstance(nurse.app.screen, QuitDialog))
            nurse.key("enter")
            await nurse.until(lambda: nurse.app._exit)
            release()
    await until(nurse.pilot, lambda: [p.name for p in tmp_path.iterdir()] == ["store"])


# what may happen to a store


async def test_a_store_that_disappears_is_a_line(store):
    async with Visit(store) as nurse:
        delete(store.path)
        assert await nurse.press("v") == "no problems, but there is no store to verify"
        assert ("note", "there is no store here yet") in nurse.found
        assert list(nurse.facts) == ["store"]
        assert (await nurse.press("g")).startswith("nothing to delete")
        assert "there is no store at" in await nurse.press("b", "enter")
        assert not store.path.exists()


async def test_a_store_that_is_locked_is_a_line_and_can_be_verified(store):
    half = stray(store, ".tmp-0123")
    async with Visit(store) as nurse:
        with Store(store.path)._database.locked():
            assert (await nurse.press("v")).startswith("no problems found")
            assert "another steerlab process has been writing" in await nurse.press("b", "enter")
            assert "1 file" in await nurse.press("g")
            assert "another steerlab process has been writing" in await nurse.press("d", "enter")
        assert half.exists()
        assert "1 file, 5 bytes can be deleted" in await nurse.press("g")


async def test_a_mistake_of_ours_is_a_line_too(store, monkeypatch):
    async with Visit(store) as nurse:
        with monkeypatch.context() as broken:
            broken.setattr(Upkeep, "gc", lambda *_, **options: 1 // 0 if options else [])
            assert "internal error, ZeroDivisionError" in await nurse.press("g")
        assert (await nurse.press("g")).startswith("nothing to delete")


# how it looks


async def test_names_of_strangers_are_shown_as_text(tmp_path):
    store = Store(tmp_path / "[red]store[/red]")
    fill(store, tmp_path / "evil.safetensors")
    stray(store, "[@click=app.quit]x[b] \x1b[31m.safetensors")
    async with Visit(store, (190, 60)) as nurse:
        seen = check(nurse)
        for key in "gv":
            await nurse.press(key)
            seen += check(nurse)
        for file in store.path.rglob("*.safetensors"):
            file.write_bytes(b"junk")
        await nurse.press("v")
        seen += check(nurse)
        await nurse.pilot.press("b")
        seen += check(nurse)
        assert "with damaged files" in await nurse.press("enter")
        seen += check(nurse)
    assert "[red]store[/red]" in seen
    assert r"[@click=app.quit]x[b] \x1b[31m.safetensors" in seen


async def test_nothing_is_clipped_at_any_size_and_resizing_loses_nothing(store, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    cut(store)
    stray(store, ".tmp-0123")
    async with Visit(store) as nurse:
        await nurse.press("v")
        assert "wrong" in nurse.screenshot  # a word, where there are no colours
        found = nurse.found
        for width, height in SIZES:
            await nurse.pilot.resize_terminal(width, height)
            await nurse.until(lambda width=width: nurse.screen.size.width == width)
            await nurse.pilot.pause()
            body = nurse.screen.query_one("#body", VerticalScroll)
            for said in body.query(Static):
                assert said.region.right <= body.scrollable_content_region.right, said
            for widget in (body, *nurse.screen.query("#status, Footer")):
                assert widget.region.height
                assert widget.region in nurse.screen.region
            if width >= 80:
                keys = [key.region for key in nurse.screen.query_one(Footer).query("FooterKey")]
                *others, palette = sorted(keys, key=lambda region: region.right)
                assert all(key.right - 1 <= palette.x for key in others)
            assert nurse.found == found


def said(report: Report) -> list[str]:
    """What stands in a report, beside its labels."""
    return [static.render().plain for static in report.query(".said").results(Static)]


async def test_a_line_of_a_report_says_the_last_that_it_was_told():
    """However little time there was between one word and the next."""
    for turns in range(6):
        host = Host(Report())
        async with host.run_test() as pilot:
            host.widget.show([Entry("of", "old")])
            for _ in range(turns):
                await asyncio.sleep(0)
            host.widget.show([Entry("of", "new", "wrong")])
            await until(pilot, lambda host=host: said(host.widget) == ["new"])
