"""What values show in a notebook: escaped, without scripts, and short where there is no HTML."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from steerlab import Store, difference
from steerlab.core.completion import Completion
from steerlab.core.results import Calibration
from steerlab.errors import BadOption, CorruptPayload
from tests.notebook.values import HOSTILE, every_value, hostile_vector, sweep
from tests.report.test_report import Reader

ALLOWED = {"div", "style", "h4", "small", "dl", "dt", "dd", "p", "table", "caption", "thead"} | {
    *("tbody", "tr", "th", "td", "mark", "svg", "g", "path", "defs", "use", "text", "clippath"),
    *("rect", "tspan", "lineargradient", "stop", "image"),
}


@pytest.fixture(scope="module")
def values(tmp_path_factory):
    return every_value(Store(tmp_path_factory.mktemp("made") / "store"))


@pytest.fixture(scope="module")
def pages(values):
    return [Reader(value._repr_html_()) for value in values]


def test_every_value_is_shown_escaped_and_runs_nothing(values, pages):
    for value, page in zip(values, pages, strict=True):
        assert {tag for tag, _ in page.tags} <= ALLOWED, value
        names = {name for _, attributes in page.tags for name in attributes}
        assert not any(name.startswith("on") for name in names)
        assert "src" not in names
        assert "\x1b" not in page.words
        assert "\u202e" not in page.words
        assert "&49" not in page.words


def test_hostile_text_is_shown_as_it_is_written(pages):
    texts = [page.words for page in pages]
    assert (
        sum("<script>alert(1)</script>" in text for text in texts) >= len(texts) - 2
    )  # two calibrations quote no text


def test_every_value_has_a_short_repr(values):
    for value in values:
        assert len(repr(value)) < 500, value
        assert "array(" not in repr(value)


def test_values_draw_themselves_without_a_window(values):
    drawn = [v for v in values if not isinstance(v, Store | Completion)]
    for value in drawn:
        if isinstance(value, Calibration) and isinstance(value.data.get("points"), str):
            with pytest.raises(CorruptPayload):
                value.plot()
        else:
            assert isinstance(value.plot(), Figure), value
    with pytest.raises(BadOption, match="no layer in common"):
        difference(hostile_vector()[2], hostile_vector()[3]).plot()


def test_notebooks_show_a_figure_as_a_picture():
    assert sweep().plot()._repr_png_().startswith(b"\x89PNG")


def test_of_many_rows_the_first_are_shown(tmp_path):
    store = Store(tmp_path / "store")
    store.save_many([(f"v{i}x", hostile_vector(i)) for i in range(55)])
    page = Reader(store._repr_html_())
    assert sum(tag == "tr" for tag, _ in page.tags) == 51
    assert "55 vectors" in page.words
    assert "and 5 more" in page.words


def test_a_sweep_is_a_sequence_of_its_cells():
    found = sweep()
    assert len(found) == len(found.cells) == len([*found])
    assert found[0] is found.cells[0]
    assert found[1:3] == found.cells[1:3]
    assert found.cells[1] in found
    assert len(found.texts(prompt="Hello")) == 5
    assert found.texts(layer=2, strength=0.1, prompt="Hello") == [f"{HOSTILE} 1"]
    assert found.texts(seed=1) == []


def test_a_sweep_becomes_a_table_of_pandas():
    pandas = pytest.importorskip("pandas")
    table = sweep().to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert len(table) == 10
    assert {"layer", "dose", "coefficient", "prompt", "seed", "text"} <= {*table.columns}
