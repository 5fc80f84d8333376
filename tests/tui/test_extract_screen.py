"""The extraction screen, driven by keys on a tiny model."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual import on
from textual.app import App
from textual.widgets import Input, Select, Static

from steerlab import Lab, Store
from steerlab.cli.extract import METHODS as CLI_METHODS
from steerlab.errors import BadOption, BadPrompts
from steerlab.extraction.methods import METHODS
from steerlab.tui.extract.form import ABOUT, Draft, counted, lines_of, prompts_of
from steerlab.tui.extract.screen import ExtractScreen
from steerlab.tui.notices import Notice
from tests.tiny import tiny_lm
from tests.tui.hosts import until
from tests.watching import hooks_on, shared

POSITIVE = ("I feel calm", "so quiet")
NEGATIVE = ("I feel tense", "so loud")
PAIRS = list(zip(POSITIVE, NEGATIVE, strict=True))
FULL = Draft("calm", "\n".join(POSITIVE), "\n".join(NEGATIVE))


class Door(App[None]):
    """Opens the screen, and keeps what it says and returns."""

    def __init__(self, lab: Lab, draft: Draft | None = None) -> None:
        super().__init__()
        self.extract = ExtractScreen(lab, draft)
        self.answers: list[str | None] = []
        self.news: list[str] = []
        self.unshown: list[str] = []

    def on_mount(self) -> None:
        self.push_screen(self.extract, self.answers.append)

    @on(Notice)
    def keep(self, event: Notice) -> None:
        self.news.append(event.text)
        self.unshown += [event.text] * (not event.shown)

    def shown(self, name: str) -> str:
        return str(self.extract.query_one(f"#{name}", Static).render())


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(Store(tmp_path / "store"), shared(), source="tiny")


@pytest.mark.parametrize("size", [(80, 24), (40, 12), (140, 40)])
async def test_filled_by_keys_it_stores_what_python_extracts(lab: Lab, size: Any) -> None:
    app = Door(lab)
    async with app.run_test(size=size) as pilot:
        await pilot.press(*"calm", "tab")
        await pilot.press(*"I feel calm", "enter", *"so quiet", "tab")
        await pilot.press(*"I feel tense", "enter", *"so loud", "tab")
        await until(pilot, lambda: app.shown("status") == "2 pairs · on tiny")
        await until(pilot, lambda: app.shown("naming") == "a new name")
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bool(app.answers))
    assert app.answers == ["calm.v1"]
    assert app.news == []
    assert lab.store.load("calm") == lab.model.extract(PAIRS)


async def test_every_option_reaches_the_vector(lab: Lab) -> None:
    draft = replace(
        FULL, layers="1:3", read="mean", chat=True, tags="mood b", note="why", method="pca"
    )
    app = Door(lab, draft)
    async with app.run_test() as pilot:
        await pilot.press("f5")
        await until(pilot, lambda: bool(app.answers))
    expected = lab.model.extract(PAIRS, layers=slice(1, 3), read="mean", chat=True, method="pca")
    assert lab.store.load("calm") == expected
    record = lab.store.record("calm")
    assert (record.tags, record.note, record.recipe) == (("b", "mood"), "why", expected.recipe)
    assert app.extract.draft == draft


@pytest.mark.parametrize("method", METHODS)
async def test_every_method_is_offered_and_works(lab: Lab, method: str) -> None:
    positive, negative = ("I feel calm", "I feel tense") if method == "actadd" else FULL_TEXTS
    draft = replace(FULL, positive=positive, negative=negative, seed="3")
    app = Door(lab, draft)
    async with app.run_test() as pilot:
        app.extract.query_one("#method", Select).value = method
        await pilot.pause()
        title = str(app.extract.query_one("#negative").border_title)
        assert title == ("· baseline" if method == "mean_centred" else "− negative")
        assert app.extract.query_one("#seed-field").display is (method == "random")
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bool(app.answers))
    recipe = lab.store.record("calm").recipe
    assert recipe.method == method
    assert lab.model.reextract(recipe, None) == lab.store.load("calm")
    if method == "mean_centred":
        assert (recipe.negative, recipe.baseline) == ((), NEGATIVE)


FULL_TEXTS = (FULL.positive, FULL.negative)


def test_the_methods_are_those_of_the_command_line() -> None:
    assert tuple(ABOUT) == METHODS == CLI_METHODS


async def test_a_taken_name_says_what_it_will_be(lab: Lab) -> None:
    lab.extract("love", PAIRS)
    app = Door(lab)
    async with app.run_test() as pilot:
        await pilot.press(*"love")
        await until(pilot, lambda: app.shown("naming") == "taken: saves as love.v2")
        await pilot.press(*".x")
        await until(pilot, lambda: "can't name a vector" in app.shown("naming"))


async def test_counts_follow_the_typing(lab: Lab) -> None:
    app = Door(lab)
    async with app.run_test() as pilot:
        await until(pilot, lambda: app.shown("status").startswith("no prompts yet"))
        await pilot.press("tab", *"a", "enter", "b", "tab", "c")
        await until(
            pilot, lambda: "2 positive, 1 negative: pairs need the same" in app.shown("status")
        )


@pytest.mark.parametrize(
    ("changes", "says", "focus"),
    [
        ({"name": ""}, "can't name a vector ''", "name"),
        ({"name": "a-b"}, "can't name a vector 'a-b'", "name"),
        ({"positive": ""}, "no positive prompts", "positive"),
        ({"negative": "one"}, "2 positive but 1 negative", "positive"),
        ({"positive": "a\n\nb", "negative": "a\nb\nc"}, "positive prompt 2 is empty", "positive"),
        ({"negative": ""}, "needs negative prompts too", "negative"),
        ({"method": "mean_centred", "negative": ""}, "to be centred on", "negative"),
        ({"method": "random"}, "needs a seed", "seed"),
        ({"method": "random", "seed": "x"}, "the seed must be a whole number, not 'x'", "seed"),
        ({"method": "random", "seed": "-1"}, "a seed is a whole number from 0", "seed"),
        ({"method": "actadd"}, "actadd takes one pair of prompts, not 2", "positive"),
        (
            {"read": "middle"},
            "read is 'last', 'mean', 'user_last', ",
            "read",
        ),
        ({"layers": "3:1"}, "can't read '3:1' as layers", "layers"),
        ({"layers": "[red]"}, "can't read '[red]' as layers", "layers"),
    ],
)
async def test_what_cant_be_is_one_line_before_a_model_is_loaded(
    tmp_path: Path, changes: dict[str, str], says: str, focus: str
) -> None:
    lab = Lab(Store(tmp_path / "store"), source="no/model")
    app = Door(lab, replace(FULL, **changes))
    async with app.run_test() as pilot:
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bool(app.news))
        assert len(app.news) == 1
        assert says in app.news[0]
        assert app.focused is not None
        assert app.focused.id == focus
    assert app.answers == []
    assert not lab.is_loaded


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layers": "9"}, "has no layer 9: its layers are 0 to 3"),
        ({"read": "50"}, "there is no token 50"),
        ({"positive": "x" * 500, "negative": "y"}, "does not fit"),
    ],
)
async def test_what_only_the_model_knows_is_one_line_too(
    lab: Lab, changes: dict[str, str], says: str
) -> None:
    app = Door(lab, replace(FULL, **changes))
    async with app.run_test() as pilot:
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bool(app.news))
        assert says in app.news[0]
        await until(pilot, lambda: "pair" in app.shown("status"))
        assert app.unshown == app.news  # the status has been replaced
    assert lab.store.names() == []


async def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    app = Door(Lab(Store(tmp_path / "store"), source=str(tmp_path / "none")), FULL)
    async with app.run_test() as pilot:
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bool(app.news))
        assert "there is no model directory" in app.news[0]


async def test_escape_stops_and_leaves_no_hook_and_nothing_stored(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    lm, before = lab.model, hooks_on(lab.model.model)

    def slow(*_: Any) -> None:
        entered.set()
        assert go_on.wait(60)

    handle = lm.blocks[0].register_forward_pre_hook(slow)
    app = Door(lab, FULL)
    async with app.run_test() as pilot:
        await pilot.press("ctrl+g")
        await until(pilot, entered.is_set)
        await pilot.press("escape")
        assert app.shown("status") == "stopping …"
        go_on.set()
        await until(pilot, lambda: app.news == ["stopped: nothing was stored"])
        handle.remove()
        assert hooks_on(lm.model) == before
        assert lab.store.names() == []
        assert app.answers == []
        await until(pilot, lambda: not app.screen.busy)  # it ends just after it has said so
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bool(app.answers))
    assert lab.store.load("calm") == lm.extract(PAIRS)


@pytest.mark.parametrize("key", ["f1", "ctrl+p"])
async def test_what_lies_over_it_when_it_is_done_closes_too(lab: Lab, key: str) -> None:
    go_on = threading.Event()

    def slow(*_: Any) -> None:
        assert go_on.wait(60)

    handle = lab.model.blocks[0].register_forward_pre_hook(slow)
    app = Door(lab, FULL)
    async with app.run_test() as pilot:
        below = app.screen_stack[0]
        await pilot.press("ctrl+g", key)
        await until(pilot, lambda: app.screen is not app.extract)
        go_on.set()
        await until(pilot, lambda: bool(app.answers))
        await until(pilot, lambda: app.screen is below)
    handle.remove()
    assert app.answers == ["calm.v1"]


async def test_leaving_keeps_what_was_typed(lab: Lab) -> None:
    app = Door(lab)
    async with app.run_test() as pilot:
        await pilot.press(*"calm", "tab", "a", "enter", "b", "escape")
        await until(pilot, lambda: bool(app.answers))
    assert app.answers == [None]
    assert app.extract.draft == Draft("calm", "a\nb")
    again = Door(lab, app.extract.draft)
    async with again.run_test() as pilot:
        await until(pilot, lambda: "2 positive, 0 negative" in again.shown("status"))
        assert again.extract.query_one("#name", Input).value == "calm"


async def test_a_pairs_file_fills_the_lists(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "my pairs.json"
    path.write_text('[{"positive": "two\\nlines", "negative": "[red]\\u001b[31m"}]')
    app = Door(lab, Draft("calm"))
    async with app.run_test() as pilot:
        await pilot.press("ctrl+l", *str(path), "ctrl+l")
        await until(pilot, lambda: app.shown("status").startswith("1 pair "))
        shown = app.export_screenshot()
        assert "wo⏎lines" in shown  # the cursor stands on the first letter
        assert "\x1b" not in shown
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bool(app.answers))
    recipe = lab.store.record("calm").recipe
    assert (recipe.positive, recipe.negative) == (("two\nlines",), ("[red]\x1b[31m",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "no pairs file"),
        ('{"positive": ', "not JSON"),
        ('{"positive": ["a\\u2028b"]}', "ends a line here"),
    ],
)
async def test_a_file_that_cant_be_used_is_one_line_and_changes_nothing(
    lab: Lab, tmp_path: Path, text: str | None, says: str
) -> None:
    path = tmp_path / "p.json"
    if text is not None:
        path.write_text(text)
    app = Door(lab, replace(FULL, file=str(path)))
    async with app.run_test() as pilot:
        await pilot.press("ctrl+l")
        await until(pilot, lambda: bool(app.news))
        assert says in app.news[0]
        assert app.extract.form.draft() == replace(FULL, file=str(path))


async def test_the_lists_scroll_together(lab: Lab) -> None:
    many = "\n".join(f"line {i}" for i in range(60))
    app = Door(lab, Draft("calm", many, many))
    async with app.run_test(size=(80, 24)) as pilot:
        left, right = app.extract.query_one("#positive"), app.extract.query_one("#negative")
        left.focus()
        await pilot.press("pagedown")
        await until(pilot, lambda: left.scroll_y > 0 and right.scroll_y == left.scroll_y)


async def test_a_vector_of_zeros_is_refused(lab: Lab) -> None:
    app = Door(lab, Draft("calm", "same text", "same text"))
    async with app.run_test() as pilot:
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bool(app.news))
    assert "the direction is zero" in app.news[0]
    assert not app.answers


async def test_a_useless_vector_is_stored_with_a_warning(lab: Lab) -> None:
    app = Door(lab, Draft("calm", "a", "b"))
    async with app.run_test() as pilot:
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bool(app.answers))
    assert "one token long" in app.news[0]


async def test_with_several_models_the_ref_says_whose(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    Lab(store, tiny_lm(seed=1)).extract("calm", PAIRS)
    lab = Lab(store, shared())
    app = Door(lab, FULL)
    async with app.run_test() as pilot:
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bool(app.answers))
    ref = app.answers[0]
    assert ref is not None
    assert store.load(ref) == lab.model.extract(PAIRS)


def test_lines_and_prompts_are_inverse() -> None:
    prompts = ("  spaces ", "two\nlines", "\ttab", "⎋")
    assert prompts_of(lines_of(prompts)) == prompts
    assert prompts_of("a\n\nb\n \n") == ("a", "", "b")
    assert prompts_of("") == ()
    for bad in ("a\u2028b", "a\rb", "⏎", "a\x0bb"):
        with pytest.raises(BadPrompts, match="prompt 1 contains"):
            lines_of([bad])


@pytest.mark.parametrize(
    ("numbers", "method", "text", "fits"),
    [
        ((4, 4), "pca", "4 pairs", True),
        ((1, 1), "actadd", "1 pair", True),
        ((2, 2), "actadd", "2 pairs: actadd takes one", False),
        ((4, 3), "pca", "4 positive, 3 negative: pairs need the same number", False),
        ((1, 9), "mean_centred", "1 prompt, centred on 9", True),
        ((1, 0), "mean_centred", "1 prompt, centred on 0", False),
    ],
)
def test_counts_in_words(numbers: tuple[int, int], method: str, text: str, fits: bool) -> None:
    assert counted(*numbers, method) == (text, fits)


PERSONA = (
    '{"instruction": [{"pos": "be kind", "neg": "be cruel"}], "questions": ["So?", "And\\u2028?"]}'
)


async def test_a_file_of_turns_is_shown_explained_and_extracted(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "kind.json"
    path.write_text(PERSONA)
    app = Door(lab, Draft("kind", file=str(path)))
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("ctrl+l")
        await until(pilot, lambda: app.shown("status").startswith("2 pairs "))
        assert app.shown("understood") == (
            "kind.json: 2 pairs, pos against neg in the system prompt, each with 2 questions"
        )
        assert app.extract.form.draft().chat
        assert "system: be kind⏎user: So?" in app.extract.query_one("#positive").text
        await pilot.press("x")  # the lists show what the file has
        await pilot.press("ctrl+g")
        await until(pilot, lambda: bool(app.answers))
    recipe = lab.store.record("kind").recipe
    assert recipe.systems == ("be kind", "be kind", "be cruel", "be cruel")
    assert recipe.chat


async def test_columns_are_chosen(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "three.csv"
    path.write_text("a,b,c\none,two,three\n")
    app = Door(lab, Draft("three", file=str(path)))
    async with app.run_test() as pilot:
        await pilot.press("ctrl+l")
        await until(pilot, lambda: bool(app.news))
        assert "it has a, b, c; name two columns" in app.news[0]
        app.extract.query_one("#columns", Input).value = "c, a"
        await pilot.press("ctrl+l")
        await until(
            pilot, lambda: app.shown("understood") == "three.csv: 1 pair, c against a; not used: b"
        )
        assert app.extract.form.order().recipe.pairs == (("three", "one"),)


async def test_unpaired_sets_change_the_method(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("statement,label\none,1\ntwo,1\nthree,0\n")
    app = Door(lab, Draft("facts", file=str(path)))
    async with app.run_test() as pilot:
        await pilot.press("ctrl+l")
        await until(pilot, lambda: app.shown("status").startswith("2 against 1 prompts"))
        assert app.extract.form.order().recipe.method == "difference_of_means"
        again = app.extract.form.draft()
        app.extract.query_one("#method", Select).value = "pca"
        with pytest.raises(BadOption, match="pca takes row i of both as a pair"):
            app.extract.form.order()
        app.extract.query_one("#columns", Input).value = "statement, label"
        await until(pilot, lambda: app.extract.form.loaded is None)
        assert app.extract.form.draft().positive == ""
        assert not app.extract.query_one("#positive").read_only
    left = Door(lab, again)
    async with left.run_test() as pilot:
        await until(pilot, lambda: left.shown("status").startswith("2 against 1 prompts"))
        assert left.extract.form.order().recipe.positive == ("one", "two")
