"""The page about a vector: what it says, what it escapes, and that a browser is content."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from steerlab.core.cell import Cell
from steerlab.core.recipe import Contrast, Imported
from steerlab.core.results import Measured
from steerlab.core.run import Generation, Run
from steerlab.core.setting import BASELINE
from steerlab.core.sweep import Sweep
from steerlab.core.vector import SteeringVector
from steerlab.registry import Store
from steerlab.report.examples import Examples, kept_examples
from steerlab.report.page import page, report, snippets
from tests.evaluation.measurements import DOSES, SUITE, calibration, evaluation
from tests.registry.samples import TINY, swept_setting, vector
from tests.tui import chromium

EVIL = "<script>alert('x')</script>\x1b[31m\u202e &amp; \"q\" {{ 7 * 7 }}"
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Reader(HTMLParser):
    """Text, tags and attributes of a page; complains of tags that don't close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words += data


@pytest.fixture
def store(tmp_path) -> Store:
    store = Store(tmp_path / "store")
    store.save("love", vector(1), tags=["mood"], note="the first\nof them")
    store.save("anger", vector(2))
    store.save("warm", store.load("love") - 0.5 * store.load("anger"))
    return store


def read(store: Store, ref: str, **more) -> Reader:
    return Reader(page(report(store, ref, **more)))


def test_the_page_says_what_the_vector_is_and_how_it_was_made(store):
    found = read(store, "love")
    record = store.record("love")
    for words in (
        "love.v1",
        "mood",
        "the first\nof them",
        record.digest,
        TINY.source,
        "mean_centred",
    ):
        assert words in found.words
    for prompt in record.recipe.positive:
        assert prompt.replace("\x1b", "\\x1b") in found.words
    assert "steerlab calibrate love.v1" in found.words
    assert "steerlab evaluate love.v1" in found.words
    assert "tiny_1.anger.v1" in found.words  # a neighbour
    warm = read(store, "warm")
    assert "= love.v1 - 0.5 * anger.v1" in warm.words
    assert store.record("anger").digest in warm.words
    assert "Lineage of tiny_1.warm.v1" in warm.words
    imported = vector(5, recipe=Imported("a/file.pt", "array", "difference"))
    store.save("other", imported)
    assert "imported from a/file.pt" in read(store, "other").words


def test_a_vector_with_nothing_but_itself_has_a_page(tmp_path):
    store = Store(tmp_path / "store")
    recipe = Contrast(positive=("a",), method="mean_centred")
    store.save("x", vector(1, 3, recipe=recipe, residual_norms={}, diagnostics={}, scope="front"))
    found = read(store, "x")
    assert "front: one row for each of the first tokens" in found.words
    assert "No other stored vector" in found.words
    assert "No texts are stored" in found.words
    assert not any(tag == "svg" for tag, _ in found.tags)


def examples():
    strengths = ((-2.0, -0.2), (0.0, 0.0), (2.0, 0.2))
    texts = tuple(Generation(c, dose, f" text at {c}") for c, dose in strengths)
    return Examples("Today", "run 3", texts)


def test_examples_go_from_the_most_negative_dose_over_the_baseline_to_the_most_positive(store):
    found = read(store, "love", examples=[examples()])
    order = [found.words.index(x) for x in ("text at -2.0", "text at 0.0", "text at 2.0")]
    assert order == sorted(order)
    strengths = re.findall(r"dose [+−][\d.]+|baseline", found.words.split("What it does")[1])
    assert strengths == ["dose −0.20", "baseline", "dose +0.20"]


def test_what_was_measured_stands_beside_its_control(store):
    digest = store.load("love").digest
    store.results.save_calibration(calibration(digest))
    store.results.save_evaluation(evaluation(digest))
    found = read(store, "love")
    assert "works at" in found.words
    assert "It works: layer 2, dose +0.20" in found.words
    assert "Dose-response of love.v1, layer 2" in found.words
    assert re.search(r"chosen \+0\.20\s*\+0\.8\s*\+2\.00\s*\+1\.00 to \+3\.00", found.words)
    assert "shown in statements" in found.words
    assert "Steered at layer 2, dose ±0.20." in found.words
    assert "Does love.v1 generalize? (vader)" in found.words
    table = found.words[found.words.index("Effects: the signed range") :]
    assert "+0.10 ± 0.50" in found.words
    assert re.search(r"statements\s*vader\s*0\.30.*\+0\.90\+0\.70 to \+1\.10", table, re.S)
    assert "steerlab calibrate" not in found.words
    assert "steerlab evaluate" not in found.words


def dose_rows(store: Store) -> list[tuple[str, list[str]]]:
    """The rows of a calibration's table: their class, and the text of their cells."""
    written = page(report(store, "love"))
    table = written[written.index("Effect of each dose") :].split("</table>")[0]
    rows = re.findall(r'<tr(?: class="(\w+)")?>(.*?)</tr>', table)[1:]
    mark = "<small>chosen</small> "
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row.replace(mark, "")) for _, row in rows]
    return [(kind, texts) for (kind, _), texts in zip(rows, cells, strict=True)]


def test_a_calibration_has_a_row_a_dose(store):
    store.results.save_calibration(calibration(store.load("love").digest))
    rows = dose_rows(store)
    assert [texts[0] for _, texts in rows] == [f"{d:+.2f}".replace("-", "−") for d in DOSES]
    assert [kind for kind, _ in rows] == ["unsound", "", "chosen", "unsound"]
    measured = ["+0.20", "+0.8", "+2.00", "+1.00 to +3.00", "+0.10 ± 0.50", "+3.8"]
    assert rows[2][1] == [*measured, "0.20", "1.10", "0.95"]
    assert rows[0][1][-2:] == ["–", "–"]
    words = read(store, "love").words
    assert "6 items: its own pairs, each under a vector made without it" in words


def test_calibrations_of_other_layers_stand_beside_the_one_that_counts(store):
    digest = store.load("warm").digest
    first = store.results.save_calibration(calibration(digest))
    assert "It also works" not in read(store, "warm").words
    other = replace(calibration(digest), layer=5, data={"candidates": [5]})
    store.results.save_calibration(other)
    found = report(store, "warm")
    assert (found.calibration, [made.layer for made in found.beside]) == (first, [5])
    assert f"It also works at {other.at}." in read(store, "warm").words


def test_a_vector_that_does_not_work_is_said_not_to(store):
    digest = store.load("love").digest
    store.results.save_calibration(calibration(digest, reason="no dose beats its control"))
    found = read(store, "love")
    assert "It is not shown to work: no dose beats its control." in found.words
    assert "works at" not in found.words
    assert not any(kind == "chosen" for kind, _ in dose_rows(store))


def test_a_kept_sweep_gives_the_examples(store):
    record = store.record("love")
    settings = (BASELINE, *(swept_setting(b, d, 9 * d, d) for b in (2, 3) for d in (0.2, -0.2)))
    model = "/".join(map(str, TINY.key))
    plan = Sweep(
        SUITE, "love", record.digest, "tiny", model, "dose", settings, ("one", "two"), (7, 8)
    )
    begun = store.sweeps.begin(plan)
    cells = [
        Cell(s, prompt, seed, f"{prompt} {seed} {s.layer} {s.strength}", "length", 3)
        for prompt in plan.prompts
        for seed in plan.seeds
        for s in settings
    ]
    store.sweeps.add(begun, cells)
    first, second = kept_examples(store, record, layer=2)
    assert [t.text for t in first.texts] == ["one 7 2 -0.2", "one 7 None 0.0", "one 7 2 0.2"]
    assert second.prompt == "two"
    assert first.source == "sweep 1, layer 2"
    assert kept_examples(store, record)[0].source == "sweep 1, layer 3"
    assert kept_examples(store, store.record("anger")) == ()


def test_a_run_gives_them_if_it_is_of_this_vector_and_no_sweep_does(store):
    texts = tuple(Generation(c, c / 10, f"at {c}") for c in (2.0, 0.0, -2.0))
    store.runs.save(Run("love", "Today", "tiny", texts))
    store.runs.save(Run("love - anger", "Today", "tiny", texts))
    store.runs.save(Run("2*love", "Today", "tiny", texts))
    store.runs.save(Run("love.v1", "One side", "tiny", texts[:2]))
    (found,) = kept_examples(store, store.record("love"))
    assert (found.prompt, found.source) == ("Today", "run 1")  # both signs before newer ones
    assert [t.coefficient for t in found.texts] == [-2.0, 0.0, 2.0]
    assert kept_examples(store, store.record("anger")) == ()


def evil_report(store):
    recipe = Contrast(positive=(EVIL,), negative=("</table>" + EVIL,))
    store.save("evil", vector(9, 2, 3, recipe=recipe), tags=[EVIL], note=EVIL)
    store.save("child", -store.load("evil"))
    digest = store.load("evil").digest
    store.results.save_calibration(calibration(digest, measure=EVIL))
    values = (Measured(EVIL, EVIL, "signed range", 1.0, 0.0, 2.0),)
    measured = evaluation(digest, suite=EVIL, model=EVIL, versions={EVIL: EVIL})
    store.results.save_evaluation(replace(measured, values=(*measured.values, *values)))
    text = Generation(1.0, 0.1, EVIL + "</li></ol></main>")
    return report(store, "evil", examples=[Examples(EVIL, EVIL, (text,))])


def test_what_strangers_wrote_stays_text(store):
    written = page(evil_report(store))
    found = Reader(written)
    assert not any(tag == "script" for tag, _ in found.tags)
    assert found.words.count("<script>alert('x')</script>\\x1b[31m\\u202e &amp;") >= 7
    assert "{{ 7 * 7 }}" in found.words
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", written)


def test_the_page_asks_for_nothing_and_runs_nothing(store):
    found = read(store, "warm", examples=[examples()])
    names = {tag for tag, _ in found.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "form", "base"}
    for _, attributes in found.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"href", "src", "xlink:href", "action"}:
                assert str(value).startswith("#")
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in found.tags:
        label = attributes.get("aria-labelledby")
        assert label is None or label in ids
    figures = [attributes for tag, attributes in found.tags if tag == "figure"]
    assert figures
    assert all(attributes.get("aria-label") for attributes in figures)


def test_equal_reports_are_equal_pages(store):
    found = report(store, "warm", examples=[examples()])
    assert page(found) == page(found)


def test_the_snippets_run(store, tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLAB_STORE", str(store.path))
    monkeypatch.chdir(tmp_path)
    record = store.record("warm")
    lines = snippets(record)
    store.transfer.export("warm", tmp_path / "warm.safetensors")
    found: dict[str, object] = {}
    exec(lines["plain"], found)
    layer = record.layers[len(record.layers) // 2].layer
    expected = store.load("warm").float32()[layer]
    np.testing.assert_array_equal(found["direction"], expected)
    assert f"{expected.shape}" in lines["plain"]
    names: dict[str, object] = {}
    exec(lines["python"].split("lm =")[0], names)
    assert names["vector"] == store.load("warm")
    assert "steerlab export warm.v1 warm.safetensors" in lines["shell"]


def test_the_snippets_steer_where_the_calibration_says(store):
    found = calibration(store.load("warm").digest)
    lines = snippets(store.record("warm"), found)
    assert "vector = Store().load('warm.v1')[2]" in lines["python"]
    assert "dose=0.2)" in lines["python"]
    assert re.match(r'steerlab generate "I think you are a" -v warm.v1 +# where', lines["shell"])
    assert "--dose 0.15" in snippets(store.record("warm"))["shell"]
    assert f'tensors["{store.record("warm").story}/2"]' in lines["plain"]


@pytest.mark.skipif(chromium.find() is None, reason="there is no Chromium here")
async def test_a_browser_shows_it_wide_and_narrow_without_a_complaint_or_a_request(store, tmp_path):
    file = tmp_path / "evil.html"
    file.write_text(page(evil_report(store)), encoding="utf-8")
    async with chromium.browsing(tmp_path / "profile") as browser:
        for width in (400, 1200):
            await browser.open(file.as_uri(), width=width)
            for _ in range(100):
                if await browser.evaluate("document.readyState") == "complete":
                    break
                await asyncio.sleep(0.05)
            assert await browser.evaluate("document.querySelector('h1').textContent") == "evil.v1"
            wide = await browser.evaluate("document.documentElement.scrollWidth")
            assert wide <= width  # only tables and figures scroll sideways
            drawn = (
                "[...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().height)"
            )
            heights = await browser.evaluate(drawn)
            assert len(heights) >= 2
            assert min(heights) > 50
        assert set(browser.requests) == {file.as_uri()}
        assert browser.complaints == []


def test_of_models_with_one_name_the_one_that_is_meant_is_told_of(tmp_path):
    store, love = Store(tmp_path / "two"), vector(1)
    model = replace(love.model, source=f"elsewhere/{love.model.source}", fingerprint="0" * 64)
    store.save("love", love)
    other = SteeringVector(vector(2).directions, model=model, recipe=love.recipe)
    store.save("love", other)
    first, second = (m.name for m in store.models())
    store.save("warm", store.evaluate(f"2 * {second}.love"))
    assert [child.ref for child in report(store, f"{second}.love").lineage.children]
    assert not report(store, f"{first}.love").lineage.children
