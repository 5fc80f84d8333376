"""Contrast files in the layouts that people have: the right pairs, counted and spelled."""

from __future__ import annotations

import gzip
import sys
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steerlab.core.prompts import Turns
from steerlab.errors import BadOption, BadPrompts, NotFound, SteerlabError
from steerlab.files.contrast import PairsOptions, read_pairs, read_texts, reader
from steerlab.files.contrast.shapes import SHAPES

HERE = Path(__file__).parent / "contrast"

packed = partial(gzip.compress, mtime=0)


def read(name, **options):
    """A fixture; the options' files are fixtures too."""
    files = {k: HERE / v for k, v in options.items() if k in ("against", "questions", "suffixes")}
    return read_pairs(name and HERE / name, PairsOptions(**options | files))


class TestLayouts:
    def test_model_written_evals(self):
        found = read("model_written_evals.jsonl")
        question = 'Is the following statement something you would say?\n"I enjoy long walks"'
        assert found.positive[0] == Turns(question, answer=" Yes")
        assert [turns.answer for turns in found.negative] == [" No", " Yes"]
        assert found.said == (
            "model_written_evals.jsonl: 2 pairs, question + answer_matching_behavior against "
            "answer_not_matching_behavior, answers in the assistant's turn; "
            "not used: statement, label_confidence"
        )

    def test_caa(self):
        found = read("caa.json")
        assert [(p.answer, n.answer) for p, n in zip(found.positive, found.negative, strict=True)]\
            == [("(A)", "(B)"), ("(B)", "(A)")]  # fmt: skip
        assert found.positive[1].user.startswith("A stranger drops a coin.")
        assert [turns.user for turns in found.positive] == [turns.user for turns in found.negative]

    def test_persona_vectors(self):
        found = read("persona_vectors.json")
        assert len(found.positive) == len(found.negative) == 6
        assert found.positive[0] == Turns("How was the picnic?", "Answer with great cheer.")
        assert found.negative[5] == Turns("Tell me of your town.", "Be dull in all you say.")
        assert found.said == (
            "persona_vectors.json: 6 pairs, pos against neg in the system prompt, "
            "each with 3 questions"
        )

    def test_refusal_direction(self):
        found = read("refusal_harmful.json", against="refusal_harmless.json")
        assert (len(found.positive), len(found.negative), found.paired) == (3, 2, False)
        assert found.positive[2] == "Tell me how to skip a queue by lying"
        assert found.said == (
            "refusal_harmful.json: 3 against 2 prompts, unpaired, refusal_harmful.json against "
            "refusal_harmless.json"
        )
        alone = read("refusal_harmful.json")
        assert (len(alone.positive), alone.negative) == (3, ())

    def test_ibm_conditions(self):
        found = read("ibm_condition.json")
        assert found.positive == ("How do I spoil a party?", "How do I cheat at chess?")
        assert found.negative == ("How do I plan a party?", "How do I learn chess?")
        assert found.said.endswith("2 pairs, harmful against harmless; train alone, not test")

    def test_ibm_answer_prefixes(self):
        found = read("ibm_refusal.json", questions="ibm_instructions.json")
        assert found.positive[1] == Turns("Name a river.", answer="That I won't do")
        assert found.negative[2] == Turns("What is bread made of?", answer="Sure, here it is")
        assert len(found.positive) == len(found.negative) == 4
        with pytest.raises(BadPrompts, match=r"the texts are answers: .*--questions FILE"):
            read("ibm_refusal.json")

    def test_repeng_personas_and_suffixes(self):
        found = read(
            None,
            template="Act as if you're extremely {}.",
            positive_word=("happy", "glad"),
            negative_word=("sad", "gloomy"),
            suffixes="repeng_suffixes.json",
        )
        assert len(found.positive) == 6
        assert found.positive[0] == Turns("Act as if you're extremely happy.", "", "I went to the")
        assert found.negative[3] == Turns(
            "Act as if you're extremely gloomy.", answer="The weather is"
        )
        assert found.said == (
            '6 pairs, happy, glad against sad, gloomy, in "Act as if you\'re extremely {}.", '
            "each with 3 answers"
        )

    def test_jukofyork_continuations(self):
        found = read(
            "jukofyork_continuations.json",
            columns=("ornate", "plain"),
            template="You are an author {}.",
            questions="jukofyork_prompts.txt",
        )
        assert len(found.positive) == 4
        assert found.positive[3] == Turns(
            "Write of a lost key.", "You are an author who says it with many flourishes."
        )
        assert found.negative[0].system == "You are an author who writes in short words."

    def test_jukofyork_system_messages(self):
        found = read(
            "jukofyork_system_messages.json",
            columns=("ornate", "simple"),
            turn="system",
            questions="jukofyork_prompts.txt",
        )
        assert found.positive[0] == Turns(
            "Write of a storm at sea.", "You are an author of many words."
        )
        assert "as system prompts" in found.said

    def test_facts_with_labels(self):
        found = read("facts_true_false.csv")
        assert found.positive == ("The lake of Geneva is in Europe.", "Snow is frozen water.")
        assert found.negative == ("Bees have eight legs.",)
        assert found.said == (
            "facts_true_false.csv: 2 against 1 prompts, unpaired, statement with label 1 against 0"
        )

    def test_two_columns_of_any_name(self):
        found = read("easysteer.json")
        assert found.positive[1] == "Rain taps its old code"
        assert found.negative[1] == "It rains"
        assert found.said == "easysteer.json: 2 pairs, creative against mundane"
        assert read("easysteer.json", columns=("mundane", "creative")).positive == found.negative

    def test_truthfulqa(self):
        found = read("truthfulqa.csv")
        assert found.positive[0] == Turns(
            "What happens if you swallow a seed?", answer="It passes through you"
        )
        assert found.negative[0].answer == "A tree grows in you"
        assert found.negative[1].user == "Do goldfish, as is said, forget all?"

    def test_preferences(self):
        found = read("preferences.jsonl")
        assert found.negative[1] == Turns("Say goodbye.", answer="Go.")

    def test_labels_in_words(self):
        with pytest.raises(BadPrompts, match="sentiment has the values good and bad: say which"):
            read("labelled.tsv")
        columns = ("comment", "sentiment")
        found = read("labelled.tsv", columns=columns, positive_label="good")
        assert found.positive == ("What a day", "How fine")
        assert found.negative == ("What a mess", "How dull", "Oh no")
        with pytest.raises(BadPrompts, match="no value fine, but good and bad"):
            read("labelled.tsv", columns=columns, positive_label="fine")

    def test_semicolons(self):
        found = read("semicolons.csv")
        assert found.positive == ("so; kind", "come in")
        assert found.said.endswith("warm against cold; not used: id")

    @pytest.mark.parametrize("path", sorted(HERE.iterdir()), ids=lambda path: path.name)
    @pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "gzip"])
    def test_in_other_encodings(self, path, encoding, tmp_path):
        def outcome(path):
            try:
                found = read_pairs(path)
                return found.positive, found.negative, found.said
            except BadPrompts as error:
                return str(error).replace(str(path), "")

        text = path.read_text()
        data = packed(text.encode()) if encoding == "gzip" else text.encode(encoding)
        (tmp_path / path.name).write_bytes(data)
        assert outcome(tmp_path / path.name) == outcome(path)


def written(tmp_path, text, name="file"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


class TestRecognition:
    """By content: the name of a file says nothing, unless it could be two things."""

    @pytest.mark.parametrize("name", ["a.txt", "a", "a.csv"])
    @pytest.mark.parametrize(
        "text",
        [
            '{"positive": "a", "negative": "b"}\n{"positive": "c", "negative": "d"}\n',
            '[\n{"positive": "a", "negative": "b"},\n{"positive": "c", "negative": "d"}]',
            'positive = ["a", "c"]\nnegative = ["b", "d"]\n',
            "positive\tnegative\na\tb\nc\td\n",
            "positive|negative\na|b\nc|d\n",
            "sep=;\npositive;negative\na;b\nc;d\n",
            "\n\nnegative,positive\r\nb,a\r\nd,c\r\n",
            '{"train": [{"positive": "a", "negative": "b"}, {"positive": "c", "negative": "d"}]}',
        ],
    )
    def test_syntax(self, tmp_path, text, name):
        found = read_pairs(written(tmp_path, text, name))
        assert (found.positive, found.negative) == (("a", "c"), ("b", "d"))

    def test_one_row(self, tmp_path):
        found = read_pairs(written(tmp_path, '{"positive": "a", "negative": "b"}'))
        assert (found.positive, found.negative) == (("a",), ("b",))

    def test_sides_of_different_length_have_to_be_asked_for(self, tmp_path):
        path = written(tmp_path, '{"positive": ["a", "b"], "negative": ["c"]}')
        with pytest.raises(BadPrompts, match=r"2 positive but 1 negative.*difference_of_means"):
            read_pairs(path)
        found = read_pairs(path, PairsOptions(unpaired=True))
        assert (found.paired, len(found.negative)) == (False, 1)

    def test_a_system_prompt_goes_with_its_pair(self, tmp_path):
        path = written(tmp_path, '{"system": "be brief", "positive": "a", "negative": "b"}')
        assert read_pairs(path).positive == (Turns("a", "be brief"),)

    def test_a_system_prompt_goes_with_its_text(self, tmp_path):
        path = written(tmp_path, "system,instruction\nbe brief,a\nbe kind,b\n")
        assert read_pairs(path).positive == (Turns("a", "be brief"), Turns("b", "be kind"))
        with pytest.raises(BadPrompts, match="its system prompts can't be used here"):
            read_texts(written(tmp_path, path.read_text(), "file.csv"))
        labelled = written(tmp_path, "system,text,label\nbe brief,a,1\nbe kind,b,0\n")
        assert read_pairs(labelled).said.endswith("; not used: system")

    @pytest.mark.parametrize("text", ["I love you\nThe sea\n", "I love you\r\nThe sea\r\n"])
    def test_a_list_of_lines_has_no_header(self, tmp_path, text):
        assert read_pairs(written(tmp_path, text, "a.txt")).positive == ("I love you", "The sea")
        assert read_pairs(written(tmp_path, text, "a.csv")).positive == ("The sea",)
        assert read_pairs(written(tmp_path, "prompt\nThe sea\n")).positive == ("The sea",)

    def test_blanks_after_separators(self, tmp_path):
        found = read_pairs(written(tmp_path, 'positive, negative\n"a, b", "c, d"\ne, f\n'))
        assert (found.positive, found.negative) == (("a, b", "e"), ("c, d", "f"))
        assert read_pairs(written(tmp_path, "positive,negative\na, b\n")).negative == (" b",)

    def test_of_several_texts_the_first_is_said(self, tmp_path):
        found = read_pairs(written(tmp_path, '[{"positive": ["a", "b"], "negative": ["c"]}]'))
        assert found.positive == ("a",)
        assert found.said.endswith("; the first of several texts in positive")

    def test_another_turn_is_said_alone(self):
        found = read("caa.json", turn="system")
        assert found.positive[0].system == "(A)"
        assert found.said.endswith("against answer_not_matching_behavior, as system prompts")

    def test_a_shape_may_be_forced(self, tmp_path):
        path = written(tmp_path, "prompt,positive,negative\nq,a,b\n")
        assert read_pairs(path).positive == (Turns("q", answer="a"),)
        assert read_pairs(path, PairsOptions("pairs")).positive == ("a",)
        assert read_pairs(path, PairsOptions("prompts")).negative == ()

    def test_texts(self, tmp_path):
        for text in ("one\ntwo, three\n", '["one", "two, three"]', '{"q": ["one", "two, three"]}',
                     '{"instruction": "one"}\n{"instruction": "two, three"}'):  # fmt: skip
            assert read_texts(written(tmp_path, text)) == ("one", "two, three")


BAD = [
    ("a,b,c\nd,e,f\n", "no contrast in it is recognised: it has a, b, c; name two"),
    ("a,b\nc,d,e\n", "line 2: 3 cells under 2 columns: put \"…\" around a text with a comma"),
    ("a;b\nc;d\ne;f;g\n", "line 3: 3 cells under 2 columns: put \"…\" around a text with a semi"),
    ("\n\na,b\nc,d,e\n", "line 4: 3 cells"),
    ("a,A\nb,c\n", "line 1: the column a is there twice"),
    ('{"positive": "a", "negative": "b"}\n{"positive": "a", "positive": "c"}\n',
     "line 2: not JSON that can be read: the key 'positive' is there twice"),
    ('[{"positive": "a", "negative": "b", "negative": "c"}]', "the key 'negative' is there twice"),
    ("statement,label\na,1\nb,2\nc,3\n", "label has to have two values, and has 1, 2, 3"),
    ("statement,label\na,1\nb,1\n", "label has to have two values, and has 1"),
    ("statement,label\na,cat\nb,dog\n", "the values cat and dog: say which is positive"),
    ("statement,label\n,1\nb,0\n", "line 2: the statement prompt is empty"),
    ('{"instruction": [], "questions": []}', "holds no prompts"),
    ('{"instruction": ["a"], "questions": [1], "x": 1}', "no column pos: it has text"),
    ('{"instruction": 3, "questions": ["a"]}', "have to be lists"),
    ("instruction = [1979-05-27, {a = 1}]\nquestions = ['x']\n", "instruction 1: expected"),
    ('{"classes": ["a", "b"], "data": [["x"]]}', "data 1: expected 2 texts"),
    ('{"classes": ["a", "b", "c"], "data": [["x", "y", "z"]]}', "the classes a, b, c: choose two"),
    ('{"a": {"b": "c"}}', "it has a (an object); name two columns"),
    ("I love you so.,I hate you so.\nYes,No\n",
     "columns are called I love you so., I hate you so."),
    ('positive,negative\na,b\n"c" d,e\n', 'line 3: not CSV: \',\' expected after \'"\': put "…"'),
    ('{"question": ["a"], "positive": ["b", "c"], "negative": ["d", "e"]}',
     "question has 1 value, and positive has 2"),
    ('{"system": ["a"], "positive": ["b", "c"], "negative": ["d", "e"]}', "system has 1 value"),
    (b"PAR1\x15\x04", "a Parquet file"),
    (b"PK\x03\x04\x14", "a ZIP archive or a workbook"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a Git LFS pointer"),
    (b"<!DOCTYPE html><html>", "a web page"),
    ("positive,negative\na,b\n".encode("utf-16-le"), "UTF-16 without its mark"),
    (packed(b"positive,negative\na,b\n")[:-9], "cut short"),
    (b"\x1f\x8b\x08\x00 not gzip at all, this is", "damaged gzip"),
    (packed(b"positive\n" + b"a" * 17_000_000), "larger than 16 MiB"),
    (packed(b"") * 1001, "more than 1000 gzip members"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD)
def test_what_is_wrong_is_one_line_with_its_place(tmp_path, text, message):
    path = written(tmp_path, text)
    with pytest.raises(BadPrompts) as caught:
        read_pairs(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class TestOptions:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"shape": "odd"}, "no shape 'odd': there are persona"),
            ({"turn": "nobody"}, "a turn is user"),
            ({"columns": ("a", "b", "c")}, "two names"),
            ({"template": "no place"}, "one {} in it"),
            ({"template": "{} and {}"}, "one {} in it"),
            ({"positive_word": ("a",)}, "as many --negative-word"),
        ],
    )
    def test_what_can_not_be(self, options, message):
        with pytest.raises(BadOption, match=message):
            PairsOptions(**options)

    @pytest.mark.parametrize("columns", [("harmful", "mundane"), ("nothing",)])
    def test_a_column_that_is_not_there(self, columns):
        with pytest.raises(BadPrompts, match=r"no column .*: it has creative, mundane"):
            read("easysteer.json", columns=columns)

    def test_turns_that_clash(self):
        with pytest.raises(BadOption, match="--questions are the user's turns"):
            read("easysteer.json", questions="jukofyork_prompts.txt")
        with pytest.raises(BadOption, match="--suffixes are answers"):
            read("caa.json", suffixes="repeng_suffixes.json")

        known = {"persona_vectors.json": "pos", "jukofyork_continuations.json": "plain"}
        for name, column in known.items():
            with pytest.raises(BadOption, match=f"{name}: name two columns"):
                read(name, columns=(column,))
            with pytest.raises(BadPrompts, match=f"{name}: no column text: it has {column}, "):
                read(name, columns=("text",))
        with pytest.raises(BadOption, match="has questions of its own"):
            read("caa.json", questions="jukofyork_prompts.txt")
        with pytest.raises(BadPrompts, match="label are labels: give --columns statement,label"):
            read("facts_true_false.csv", columns=("label", "statement"))
        with pytest.raises(BadOption, match="--positive-label is for a column of labels"):
            read("easysteer.json", positive_label="a")
        for how in ({"shape": "pairs"}, {"positive_label": "a"}):
            with pytest.raises(BadOption, match="tell how one file is read"):
                read("refusal_harmful.json", against="refusal_harmless.json", **how)
            with pytest.raises(BadOption, match="tell how one file is read"):
                read(None, positive_word=("a",), negative_word=("b",), **how)
        for name, way in (("caa.json", "pairs reads them"), ("persona_vectors.json", "leave out")):
            with pytest.raises(BadOption, match=f"belong to its questions: .*{way}"):
                read(name, turn="user")
        assert read("caa.json", turn="user", shape="pairs").positive == ("(A)", "(B)")

    def test_sets_that_are_no_pairs(self):
        found = read("facts_true_false.csv")
        found.check_method("difference_of_means")
        read("easysteer.json").check_method("pca")
        for method in ("pca", "probe", "mean_difference", "random"):
            with pytest.raises(BadOption, match=f"{method} takes row i of both as a pair"):
                found.check_method(method)

    def test_too_many(self, monkeypatch):
        monkeypatch.setattr(reader, "MOST", 3)
        with pytest.raises(BadPrompts, match="more than 3 prompts"):
            read("persona_vectors.json")

    def test_facts_are_inverse(self):
        options = PairsOptions("pairs", ("a", "b=c"), "yes", "system", HERE, "so {}", ("x", "y"),
                               ("z", "w"), HERE, None, True)  # fmt: skip
        assert PairsOptions.of_facts(options.to_facts()) == options
        assert PairsOptions.of_facts(()) == PairsOptions()
        with pytest.raises(BadOption, match="unknown option"):
            PairsOptions.of_facts(["color=red"])


class TestHub:
    """Data sets by id, with a stand-in for the package."""

    @pytest.fixture
    def hub(self, monkeypatch):
        package = ModuleType("datasets")
        asked = []

        def load_dataset(name, *, split, streaming):
            asked.append((name, split, streaming))
            if name == "who/gone":
                raise RuntimeError("no such\nset")
            return [{"good": "a", "bad": "b"}, {"good": "c", "bad": "d"}]

        package.load_dataset = load_dataset
        monkeypatch.setitem(sys.modules, "datasets", package)
        return asked

    def test_rows(self, hub):
        found = read_pairs(Path("who/what:test"))
        assert (found.positive, found.negative) == (("a", "c"), ("b", "d"))
        assert hub == [("who/what", "test", True)]

    def test_none_of_its_rows_is_left_out(self, hub, monkeypatch):
        monkeypatch.setattr(reader, "MOST", 2)
        assert len(read_pairs(Path("who/what")).positive) == 2
        monkeypatch.setattr(reader, "MOST", 1)
        with pytest.raises(BadPrompts, match="more than 1 rows: save those"):
            read_pairs(Path("who/what"))

    def test_a_set_that_is_not_there(self, hub):
        with pytest.raises(NotFound, match="who/gone can't be read: no such set"):
            read_pairs(Path("who/gone"))

    def test_without_the_package(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(NotFound, match="pip install datasets"):
            read_pairs(Path("who/what"))


fixtures = [path.read_bytes() for path in sorted(HERE.iterdir())]
pieces = st.sampled_from(
    [b'"', b",", b"\n", b"{", b"}", b"[", b"]", b"\t", b";", b"\x00", b"\xff\xfe", b"label",
     b"positive", b'"questions"', b"\x1f\x8b", b"null", b"1e999", b"\r", b":", b"\xef\xbb\xbf"]
)  # fmt: skip


@settings(max_examples=300, deadline=2000)
@given(st.sampled_from(fixtures), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 40),
       pieces | st.binary(max_size=8)), max_size=4), st.sampled_from([None, *SHAPES]))  # fmt: skip
def test_a_file_gone_wrong_is_read_or_refused(tmp_path_factory, data, changes, shape):
    for at, length, piece in changes:
        data = data[:at] + piece + data[at + length :]
    path = tmp_path_factory.getbasetemp() / "wrong"
    path.write_bytes(data)
    found, refusal = None, "x"
    try:
        found = read_pairs(path, PairsOptions(shape))
    except SteerlabError as error:
        refusal = str(error)
    assert "\n" not in refusal
    assert len(refusal) < 2000
    if found is None:
        return
    assert found.said.isprintable()
    assert not found.paired or len(found.negative) in (0, len(found.positive))
    assert all(str(prompt).strip() for prompt in (*found.positive, *found.negative))
