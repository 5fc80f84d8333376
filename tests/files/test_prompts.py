"""Contrast prompts from files: what is read, and in which line it goes wrong."""

from __future__ import annotations

import csv
import io
import json
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steerlab.errors import BadPrompts, NotFound
from steerlab.files import contrast
from steerlab.files.contrast import read_items


class Prompts(NamedTuple):
    """The two sides of a file."""

    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()


def read_pairs(path):
    """The two sides of a file, and nothing that was said of it."""
    found = contrast.read_pairs(path)
    return Prompts(found.positive, found.negative)


PAIRS = Prompts(("good day", "so kind"), ("bad day", "so cruel"))
ALONE = Prompts(("good day", "so kind"))

GOOD = {
    "lines.jsonl": '{"positive": "good day", "negative": "bad day"}\n'
    '{"positive": "so kind", "negative": "so cruel"}\n',
    "blank lines.jsonl": '\n{"positive": "good day", "negative": "bad day"}\n\n  \n'
    '{"negative": "so cruel", "positive": "so kind", "note": 3}',
    "windows.jsonl": '{"positive": "good day", "negative": "bad day"}\r\n'
    '{"positive": "so kind", "negative": "so cruel"}\r\n',
    "list.json": '[{"positive": "good day", "negative": "bad day"},\n'
    ' {"positive": "so kind", "negative": "so cruel"}]',
    "columns.json": '{"positive": ["good day", "so kind"], "negative": ["bad day", "so cruel"]}',
    "SHOUTED.JSON": '{"positive": ["good day", "so kind"], "negative": ["bad day", "so cruel"]}',
    "plain.csv": "positive,negative\ngood day,bad day\nso kind,so cruel\n",
    "other order.csv": "id, Negative ,POSITIVE\n1,bad day,good day\n2,so cruel,so kind\n",
    "quoted.csv": 'positive,negative\r\n"good day","bad day"\r\n"so kind",so cruel\r\n',
    "columns.toml": 'positive = ["good day", "so kind"]\nnegative = ["bad day", "so cruel"]\n',
}
WITHOUT_NEGATIVES = {
    "a.jsonl": '{"positive": "good day"}\n{"positive": "so kind", "negative": null}\n',
    "a.json": '[{"positive": "good day"}, {"positive": "so kind"}]',
    "b.json": '{"positive": ["good day", "so kind"]}',
    "a.csv": "positive\ngood day\nso kind\n",
    "a.toml": 'positive = ["good day", "so kind"]',
}
ROW = '{"positive": "a", "negative": "b"}\n'
BAD = [
    ("a.jsonl", ROW + '{"positive": "a", "negative": "b"', "line 2: not JSON"),
    ("a.jsonl", ROW + "\n" + ROW + "nonsense\n", "line 4: not JSON"),
    ("a.jsonl", ROW + '["a", "b"]\n', "line 2: expected"),
    ("a.jsonl", ROW + "3\n", "line 2: expected"),
    ("a.jsonl", ROW + '{"negative": "b"}\n', "line 2: the positive prompt is missing"),
    (
        "a.jsonl",
        ROW + '{"positive": "  ", "negative": "b"}',
        "line 2: the positive prompt is empty",
    ),
    ("a.jsonl", ROW + '{"positive": "a", "negative": ""}', "line 2: the negative prompt is empty"),
    (
        "a.jsonl",
        ROW + '{"positive": 5, "negative": "b"}',
        "line 2: the positive prompt is empty or",
    ),
    ("a.jsonl", ROW + '{"positive": "a"}\n', "line 2: no negative prompt"),
    ("a.jsonl", '{"positive": "a"}\n' + ROW, "line 1: no negative prompt"),
    ("a.jsonl", "", "is empty"),
    ("a.jsonl", "[" * 100_000, "line 1: not JSON"),
    ("a.jsonl", '{"positive": "a\\ud800", "negative": "b"}', "not Unicode"),
    ("a.json", '{"positive": [\n"a",\n}', "line 3: not JSON"),
    ("a.json", "[]", "holds no prompts"),
    ("a.json", "{}", "holds no prompts"),
    ("a.json", '"text"', "expected a list"),
    ("a.json", " \n", "is empty"),
    ("a.json", '[{"positive": "a", "negative": "b"}, {"positive": "a"}]', "entry 2: no negative"),
    ("a.json", '{"positive": ["a", 3], "negative": ["b", "c"]}', "entry 2: the positive prompt"),
    (
        "a.json",
        '{"positive": ["a", ""], "negative": ["b", "c"]}',
        "entry 2: the positive prompt is",
    ),
    ("a.json", '{"positive": ["a", "b"], "negative": ["c"]}', "2 positive but 1 negative"),
    ("a.csv", "", "is empty"),
    ("a.csv", "positive,negative\n", "holds no prompts"),
    ("a.csv", "positive,negative\na,b\n,c\n", "line 3: the positive prompt is empty"),
    ("a.csv", "positive,negative\na,b\nc\n", "line 3: no negative prompt"),
    ("a.csv", 'positive,negative\na,b\n"c\nd",\n', "line 4: the negative prompt is empty"),
    ("a.csv", 'positive,negative\na,"b\n', "not CSV"),
    ("a.toml", "positive = [\n", "not TOML"),
    ("a.toml", 'positive = ["a"]\nnegative = "b"', "positive (a list), negative (a text)"),
    ("a.toml", 'positive = ["a"]\nnegative = [b]', "line 2"),
    ("a.toml", "positive = " + "[" * 100_000, "not TOML"),
    ("a.toml", "", "is empty"),
    ("a.toml", "x = " + "9" * 5000, "not TOML that can be read"),
    ("a.toml", "a." * 5000 + "a = 1", "a key of 32 parts"),
    ("a.toml", "[" + "'a' . " * 5000 + "a]", "a key of 32 parts"),
    ("a.toml", 'positive = ["' + "x" * 4_000_000 + '"]', "more than 4 MB"),
    ("a.toml", "[[x]]\n" * 65_000, "too many tables"),
    ("a.json", "[" + '{"a":1},' * 300_000 + "1]", "too many small values"),
    ("a.csv", "positive\n" + "ab\n" * 1_400_000, "too many small values"),
    ("a.txt", "a\tb", "holds no prompts"),
    ("nothing", "positive\n", "holds no prompts"),
]


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("name", GOOD)
def test_every_format_gives_the_same_pairs(tmp_path, name):
    assert read_pairs(written(tmp_path, name, GOOD[name])) == PAIRS


@pytest.mark.parametrize("name", WITHOUT_NEGATIVES)
def test_negatives_may_be_left_out_altogether(tmp_path, name):
    assert read_pairs(written(tmp_path, name, WITHOUT_NEGATIVES[name])) == ALONE


def test_a_file_of_lines_is_a_list_from_the_first_line_on(tmp_path):
    assert read_pairs(written(tmp_path, "lines", "a")).positive == ("a",)
    assert read_pairs(written(tmp_path, "lines", "I am\nso glad\n")).positive == ("I am", "so glad")


@pytest.mark.parametrize("name", GOOD)
def test_a_byte_order_mark_is_no_text(tmp_path, name):
    assert read_pairs(written(tmp_path, name, "\ufeff" + GOOD[name])) == PAIRS


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_what_is_wrong_is_said_in_one_line_with_its_place(tmp_path, name, text, message):
    path = written(tmp_path, name, text)
    with pytest.raises(BadPrompts) as caught:
        read_pairs(path)
    found = str(caught.value)
    assert message in found
    assert str(path) in found
    assert "\n" not in found
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.json", "a.toml"])
def test_text_that_is_not_utf8(tmp_path, name):
    path = written(tmp_path, name, b"one\ntwo\nthr\xe9e\n")
    with pytest.raises(BadPrompts, match="line 3: not UTF-8"):
        read_pairs(path)


def test_no_file(tmp_path):
    with pytest.raises(NotFound, match=r"no pairs file .*gone\.csv"):
        read_pairs(tmp_path / "gone.csv")


def test_a_directory(tmp_path):
    (tmp_path / "pairs.json").mkdir()
    with pytest.raises(BadPrompts, match="can't read"):
        read_pairs(tmp_path / "pairs.json")


def test_a_file_far_too_large(tmp_path):
    with open(tmp_path / "huge.jsonl", "wb") as file:
        file.truncate(2**27)
    with pytest.raises(BadPrompts, match="larger than 16 MiB"):
        read_pairs(tmp_path / "huge.jsonl")


def test_a_device_is_read_no_further_than_a_file(tmp_path):
    (tmp_path / "pairs.jsonl").symlink_to("/dev/zero")
    with pytest.raises(BadPrompts, match="larger than 16 MiB"):
        read_pairs(tmp_path / "pairs.jsonl")


@pytest.mark.parametrize("key", ["prompt", "positive", "negative"])
def test_items_are_unicode_text(tmp_path, key):
    item = {"prompt": "a", "positive": "b", "negative": "c"} | {key: "x\ud800"}
    path = written(tmp_path, "a.json", json.dumps([item]))
    with pytest.raises(BadPrompts, match=r"entry 1: .*not Unicode"):
        read_items(path)


def test_prose_with_many_dots_is_no_long_key(tmp_path):
    path = written(tmp_path, "a.toml", 'positive = ["' + "Well... " * 200 + 'a.b.c"]')
    assert read_pairs(path).positive[0].endswith("a.b.c")


# every character, the many that some of Python takes for a line's end among them
prompts = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from('\u2028\u2029\x85\x0b\x0c\x1c\x1e\n\r,"'),
    min_size=1,
    max_size=12,
).filter(str.strip)
several = st.lists(st.tuples(prompts, prompts), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("pairs")


class TestRoundTrips:
    @given(several)
    def test_jsonl(self, directory, pairs):
        rows = [json.dumps({"positive": p, "negative": n}, ensure_ascii=False) for p, n in pairs]
        found = read_pairs(written(directory, "a.jsonl", "\n".join(rows)))
        assert list(zip(found.positive, found.negative, strict=True)) == pairs

    @given(several)
    def test_json(self, directory, pairs):
        rows = [{"positive": p, "negative": n} for p, n in pairs]
        found = read_pairs(written(directory, "a.json", json.dumps(rows, ensure_ascii=False)))
        assert list(zip(found.positive, found.negative, strict=True)) == pairs

    @given(several)
    def test_csv(self, directory, pairs):
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("positive", "negative"), *pairs])
        found = read_pairs(written(directory, "a.csv", text.getvalue()))
        assert list(zip(found.positive, found.negative, strict=True)) == pairs
