"""Names, prompts, model identities, recipes and records: plain values and their JSON."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from steerlab import __version__
from steerlab.core.notation import placeholder_of
from steerlab.core.prompts import check_prompts, describe_read
from steerlab.core.recipe import (
    FUNCTIONS,
    Contrast,
    Expression,
    Imported,
    LayerFacts,
    ModelIdentity,
    Operand,
    Verdict,
    check_name,
    is_name,
    kind_of,
    recipe_from_json,
    recipe_to_json,
)
from steerlab.core.record import Record, canonical_json, record_from_json, record_of
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadPrompts, CorruptPayload, NameTaken
from tests.strategies import MODEL, any_vector, contrasts, imports, names, texts, vector

expressions = st.builds(
    Expression, text=texts, operands=st.lists(st.builds(Operand, texts, texts)).map(tuple)
)
recipes = st.one_of(contrasts, expressions, imports)


class TestNames:
    @given(names)
    def test_identifiers_are_names(self, name):
        assert is_name(name)
        assert check_name(name) == name

    @pytest.mark.parametrize("name", ["love", "Love2", "a", "v", "v1_", "vv1", "match", "x" * 80])
    def test_these_are_names(self, name):
        assert is_name(name)
        assert check_name(name) == name

    @pytest.mark.parametrize(
        ("name", "why"),
        [
            ("", "identifiers"),
            ("2love", "identifiers"),
            ("love anger", "identifiers"),
            ("love-anger", "identifiers"),
            ("love.v1", "identifiers"),
            ("love\n", "identifiers"),
            ("_love", "identifiers"),
            ("__path__", "identifiers"),
            ("naïve", "identifiers"),
            ("ﬁne", "identifiers"),
            ("../love", "identifiers"),
            ("x" * 81, "80 at most"),
            ("x" * 10**6, "80 at most"),
            ("lambda", "a Python keyword"),
            ("None", "a Python keyword"),
            ("v1", "versions"),
            ("v007", "versions"),
            ("unsaved_0123456789ab", "not stored"),
            *((name, "a function") for name in FUNCTIONS),
        ],
    )
    def test_these_are_not(self, name, why):
        assert not is_name(name)
        with pytest.raises(NameTaken, match=why) as caught:
            check_name(name)
        assert len(str(caught.value)) < 300

    def test_a_placeholder_can_not_be_given_as_a_name(self):
        assert not is_name(placeholder_of(vector([1, 0, 0, 0]).digest))

    @given(st.text())
    def test_any_text_is_a_name_or_refused(self, text):
        if is_name(text):
            namespace: dict[str, object] = {}
            exec(f"{text} = 1", namespace)  # so that it can be imported
            assert text in namespace
        else:
            with pytest.raises(NameTaken):
                check_name(text)


class TestPrompts:
    def test_good_ones_pass(self):
        check_prompts(["I love you"], ["I hate you"])
        check_prompts(("naïve 爱 🙂",))
        check_prompts(["a\nb"], None)

    @pytest.mark.parametrize(
        ("positive", "negative", "message"),
        [
            ([], None, "no positive prompts"),
            ([], [], "no positive prompts"),
            (["a", "b"], ["c"], "2 positive but 1 negative"),
            (["a"], [], "1 positive but 0 negative"),
            (["a", " "], ["c", "d"], "positive prompt 2 is empty"),
            (["a"], [""], "negative prompt 1 is empty"),
            (["a", None], None, "positive prompt 2 is not text but None"),
            (["a"], [5], "negative prompt 1 is not text but 5"),
            (["a\ud800"], None, "positive prompt 1 holds bytes"),
            ("love", "hate", "a list of texts"),
            (["love"], "hate", "a list of texts"),
        ],
    )
    def test_bad_ones_are_refused(self, positive, negative, message):
        with pytest.raises(BadPrompts, match=message):
            check_prompts(positive, negative)


class TestModelIdentity:
    @pytest.mark.parametrize(
        ("source", "name"),
        [
            ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2_135m_instruct"),
            ("Qwen/Qwen2.5-7B", "qwen2_5_7b"),
            ("gpt2", "gpt2"),
            ("/models/Llama 3/", "llama_3"),
            ("C:\\models\\phi", "phi"),
            ("a/b/c//", "c"),
            ("7b", "model_7b"),
            ("x/lambda", "model_lambda"),
            ("x/unit", "model_unit"),
            ("x/v2", "model_v2"),
            ("x/__init__", "init"),
            ("爱", "model"),
            ("", "model"),
            ("///", "model"),
        ],
    )
    def test_its_name_comes_from_its_source(self, source, name):
        assert replace(MODEL, source=source).name == name

    @given(st.text())
    def test_its_name_is_always_usable(self, source):
        assert is_name(replace(MODEL, source=source).name)

    @pytest.mark.parametrize(
        ("changes", "verdict"),
        [
            ({}, Verdict.SAME),
            ({"source": "/a/copy", "revision": "x", "tokenizer": "t"}, Verdict.SAME),
            ({"dtype": "float32"}, Verdict.OTHER_PRECISION),
            ({"dtype": None}, Verdict.SAME),
            ({"fingerprint": "f1"}, Verdict.OTHER_WEIGHTS),
            ({"fingerprint": "f1", "dtype": "float32"}, Verdict.OTHER_WEIGHTS),
            ({"fingerprint": None}, Verdict.SAME),
            ({"fingerprint": None, "source": "else"}, Verdict.OTHER_WEIGHTS),
            ({"fingerprint": None, "revision": "other"}, Verdict.OTHER_WEIGHTS),
            ({"fingerprint": None, "dtype": "float32"}, Verdict.OTHER_PRECISION),
            ({"d_model": 8}, Verdict.INCOMPATIBLE),
            ({"n_layers": 7}, Verdict.INCOMPATIBLE),
            ({"architecture": "gpt2"}, Verdict.INCOMPATIBLE),
            ({"architecture": "gpt2", "fingerprint": None}, Verdict.INCOMPATIBLE),
        ],
    )
    def test_verdicts(self, changes, verdict):
        mine = replace(MODEL, dtype="bfloat16")
        theirs = replace(mine, **changes)
        assert mine.verdict(theirs) is verdict
        assert theirs.verdict(mine) is verdict

    def test_two_of_unknown_weights(self):
        mine = replace(MODEL, fingerprint=None)
        assert mine.verdict(mine) is Verdict.SAME
        assert mine.verdict(replace(mine, source="else")) is Verdict.OTHER_WEIGHTS
        assert mine.key != replace(mine, source="else").key
        assert mine.key != replace(mine, revision="main").key


class TestRecipes:
    @given(recipes)
    def test_json_round_trip(self, recipe):
        text = canonical_json(recipe_to_json(recipe))
        again = recipe_from_json(json.loads(text))
        assert again == recipe
        assert hash(again) == hash(recipe)
        assert canonical_json(recipe_to_json(again)) == text
        assert text.isascii()

    def test_kinds(self):
        assert kind_of(Contrast(("a",))) == "contrast"
        assert kind_of(Expression("a", ())) == "expression"
        assert kind_of(Imported("x")) == "imported"

    @pytest.mark.parametrize(
        ("recipe", "words"),
        [
            (Contrast(("a",), ("b",)), "1 contrast pair, mean_difference, last token"),
            (Contrast(("a", "b"), ("c", "d"), "pca", "mean"),
             "2 contrast pairs, pca, mean of tokens"),
            (Contrast(("a", "b"), (), "mean_centred", 3), "2 prompts, mean_centred, token 3"),
            (Contrast(("a",), ("b",), "actadd"), "1 contrast pair, actadd"),
            (Contrast(("a",), ("b",), chat=True),
             "1 contrast pair, mean_difference, last token, chat template"),
            (Expression("a - b", ()), "= a - b"),
            (Imported("x.pt", "pt"), "imported from x.pt (pt)"),
            (Imported("x.pt", "pt", facts=("position=0",), asserted=("layer=3", "sign=-")),
             "imported from x.pt (pt); the file says: position=0; asserted: layer=3, sign=-"),
        ],
    )  # fmt: skip
    def test_they_are_shown_in_few_words(self, recipe, words):
        assert str(recipe) == words

    def test_reads_in_words(self):
        assert [describe_read(r) for r in ("last", "mean", 0, -1)] == [
            "last token", "mean of tokens", "token 0", "token -1"
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "data",
        [
            None, 5, "contrast", [], [["kind", "contrast"]], {},
            {"kind": None},
            {"kind": "Contrast"},
            {"kind": ["contrast"]},
            {"kind": "contrast"},
            {"kind": "contrast", "positive": None},
            {"kind": "contrast", "positive": "abc"},
            {"kind": "contrast", "positive": {"a": 1}},
            {"kind": "contrast", "positive": [None]},
            {"kind": "contrast", "positive": [["a"]]},
            {"kind": "contrast", "positive": ["a"], "seed": 1.5},
            {"kind": "contrast", "positive": ["a"], "seed": True},
            {"kind": "contrast", "positive": ["a"], "chat": "yes"},
            {"kind": "contrast", "positive": ["a"], "read": []},
            {"kind": "contrast", "positive": ["a"], "positive_ids": [1]},
            {"kind": "contrast", "positive": ["a"], "positive_ids": [[1.0]]},
            {"kind": "contrast", "positive": ["a"], "other": 1},
            {"kind": "contrast", "positive": ["a"], 5: 1},
            {"kind": "expression"},
            {"kind": "expression", "text": "a"},
            {"kind": "expression", "operands": []},
            {"kind": "expression", "text": None, "operands": []},
            {"kind": "expression", "text": ["a"], "operands": []},
            {"kind": "expression", "text": "a", "operands": None},
            {"kind": "expression", "text": "a", "operands": 5},
            {"kind": "expression", "text": "a", "operands": {"ref": "a"}},
            {"kind": "expression", "text": "a", "operands": ["a"]},
            {"kind": "expression", "text": "a", "operands": [{"ref": "a"}]},
            {"kind": "expression", "text": "a", "operands": [{"ref": "a", "digest": 5}]},
            {"kind": "expression", "text": "a", "operands": [{"ref": "a", "digest": "", "x": 1}]},
            {"kind": "expression", "text": "a", "operands": [], "other": 1},
            {"kind": "imported"},
            {"kind": "imported", "source": 5},
            {"kind": "imported", "source": "x", "quantity": None},
        ],
    )  # fmt: skip
    def test_hostile_json_is_refused(self, data):
        with pytest.raises(CorruptPayload):
            recipe_from_json(data)

    def test_the_input_is_not_changed(self):
        data = recipe_to_json(Imported("x"))
        recipe_from_json(data)
        assert data == recipe_to_json(Imported("x"))

    def test_an_import_of_which_nothing_was_asserted_is_written_as_in_earlier_versions(self):
        assert set(recipe_to_json(Imported("x"))) == {"kind", "source", "format", "quantity"}


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
        st.sampled_from([10**400, -1, 1e308]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)  # fmt: skip


def nested(depth: int) -> list[object]:
    found: list[object] = []
    for _ in range(depth):
        found = [found]
    return found


def sample() -> Record:
    made = SteeringVector(
        {1: [1, 2, 3, 4], 3: [0, 0, 0, 1]},
        model=MODEL,
        recipe=Contrast(("a",), ("b",)),
        residual_norms={1: 95.0},
        diagnostics={1: {"agreement": 1.0}},
    )
    return record_of(made, "love", 2, tags=("b", "a", "b"), note="warm")


class TestRecords:
    @given(any_vector, recipes, names, st.integers(1, 10**6), st.lists(texts), texts)
    def test_json_round_trip(self, found, recipe, name, version, tags, note):
        made = SteeringVector(
            found.directions, model=MODEL, scope=found.scope, recipe=recipe,
            diagnostics={found.layers[0]: {"agreement": 0.5}},
        )  # fmt: skip
        record = record_of(made, name, version, tags=tuple(tags), note=note)
        text = canonical_json(record.to_json())
        again = record_from_json(json.loads(text))
        assert again == record
        assert canonical_json(again.to_json()) == text
        assert record_from_json(record.to_json()) == record

    def test_it_says_what_is_known(self):
        before = datetime.now(UTC)
        record = sample()
        assert (record.name, record.version, record.ref) == ("love", 2, "love.v2")
        assert record.qualified == "tiny.love.v2"
        assert record.kind == "contrast"
        assert record.tags == ("a", "b")
        assert record.layers == (
            LayerFacts(1, 1, np.sqrt(30.0), 95.0, {"agreement": 1.0}, np.sqrt(30.0)),
            LayerFacts(3, 1, 1.0, reach=record.layers[1].reach),
        )
        assert record.doses() == {1: np.sqrt(30.0) / 95, 3: None}
        assert before <= datetime.fromisoformat(record.created) <= datetime.now(UTC)
        assert record.software["steerlab"] == __version__
        assert record.software["numpy"] == np.__version__
        assert ("torch" in record.software) == ("torch" in sys.modules)

    @given(st.data())
    def test_any_value_anywhere_is_read_or_refused(self, data):
        target = fields = sample().to_json()
        while True:
            key = data.draw(st.sampled_from(sorted(target)))
            inner = target[key]
            if not isinstance(inner, dict) or not inner or data.draw(st.booleans()):
                break
            target = inner
        target[key] = data.draw(json_values)
        try:
            record = record_from_json(fields)
        except CorruptPayload:
            return
        assert record_from_json(json.loads(canonical_json(record.to_json()))) == record

    @given(json_values)
    def test_any_json_is_refused(self, data):
        assume(not isinstance(data, dict) or len(data) < 5)
        with pytest.raises(CorruptPayload):
            record_from_json(data)

    @pytest.mark.parametrize("key", sorted(sample().to_json()))
    def test_deep_values_are_refused(self, key):
        for depth in (10, 900, 5000):
            with pytest.raises(CorruptPayload):
                record_from_json(sample().to_json() | {key: nested(depth)})

    @pytest.mark.parametrize("key", sorted({*sample().to_json()} - {"software", "tags", "note"}))
    def test_missing_fields_are_refused(self, key):
        fields = sample().to_json()
        del fields[key]
        with pytest.raises(CorruptPayload):
            record_from_json(fields)

    def test_numbers_are_finite(self):
        for bad in (float("nan"), float("inf"), 10**400):
            with pytest.raises(CorruptPayload):
                record_from_json(sample().to_json() | {"norm": bad})

    def test_canonical_json_has_one_spelling(self):
        assert canonical_json({"b": [1.5, "é"], "a": None}) == '{"a":null,"b":[1.5,"\\u00e9"]}'
        with pytest.raises(ValueError, match="JSON compliant"):
            canonical_json(float("nan"))


def test_a_model_identity_survives_json():
    full = ModelIdentity("a/b", "llama", 2, 4, "f", "main", "float32", "t", "c")
    record = record_of(SteeringVector({0: [1, 2, 3, 4]}, model=full), "x", 1)
    assert record_from_json(json.loads(canonical_json(record.to_json()))).model == full
