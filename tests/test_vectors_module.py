"""Stored vectors as importable names."""

from __future__ import annotations

import importlib
import sys
import warnings
from dataclasses import replace

import pytest

import steerlab.vectors
from steerlab import Store, steering
from steerlab.core.results import Calibration
from steerlab.errors import NotFound, SteerlabWarning
from tests.registry.samples import OTHER, vector
from tests.saved import LOVE as PAIRS
from tests.tiny import tiny_lm


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLAB_STORE", str(tmp_path / "store"))
    store = Store(tmp_path / "store")
    store.save("love", vector(1))
    store.save("anger", vector(2))
    yield store
    for name in [name for name in sys.modules if name.startswith("steerlab.vectors.")]:
        del sys.modules[name]
        vars(steerlab.vectors).pop(name.rpartition(".")[2], None)


def test_a_stored_vector_is_a_name(store):
    from steerlab.vectors import anger, love

    assert love == store.load("love")
    assert love - anger == store.evaluate("love - anger")


def test_an_import_by_name_lists_nothing(store, monkeypatch):
    """Which would cost more than the vector, where there are many."""
    monkeypatch.setattr(Store, "names", None)
    monkeypatch.setattr(Store, "models", None)
    assert steerlab.vectors.love == store.load("love")


def test_each_import_gives_the_newest_version(store):
    assert steerlab.vectors.love.ref == "love.v1"
    store.save("love", vector(3))
    assert steerlab.vectors.love.ref == "love.v2"
    from steerlab.vectors import love

    assert love == vector(3)


def test_steering_a_name_at_a_layer_where_it_does_not_work_is_said(store):
    plain, made = vector(1), store.save("made", tiny_lm().extract(PAIRS, layers=1))
    found = Calibration(made.digest, True, 2, 0.2, 0.7, (0.0, 0.2))
    store.results.save_calibration(found)
    store.results.save_calibration(replace(found, digest=plain.digest))
    lm = tiny_lm()
    for silent in (steerlab.vectors.made, "made"):
        said = pytest.warns(SteerlabWarning, match=r"made\.v1 works at layer 2 .* its own, 1: Lab")
        with said, steering(lm, silent, dose=0.1):
            lm.generate("Hi", max_new_tokens=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for meant in (steerlab.vectors.made[1], "made[1]", 2 * steerlab.vectors.made, made):
            with steering(lm, meant, dose=0.1):
                lm.generate("Hi", max_new_tokens=1)
    assert steerlab.vectors.love.works_at is None  # imported: no layer could be made of it


def test_models_are_submodules(store):
    store.save("love", vector(4, model=OTHER))
    from steerlab.vectors.other import love as others
    from steerlab.vectors.tiny_1 import love as ours

    assert others == vector(4, model=OTHER)
    assert ours == vector(1)
    assert steerlab.vectors.other.love == others
    with pytest.raises(Exception, match=r"write other\.love or tiny_1\.love"):
        _ = steerlab.vectors.love


def test_a_model_can_be_imported_in_each_way(store):
    import steerlab.vectors.tiny_1

    from steerlab.vectors import tiny_1

    assert steerlab.vectors.tiny_1 is tiny_1 is importlib.import_module("steerlab.vectors.tiny_1")
    assert tiny_1.__doc__ == "The stored vectors of tiny_1."


def test_dir_lists_names_and_models(store):
    assert dir(steerlab.vectors) == ["anger", "love", "tiny_1"]
    store.save("calm", vector(5))
    assert dir(steerlab.vectors) == ["anger", "calm", "love", "tiny_1"]
    assert dir(steerlab.vectors.tiny_1) == ["anger", "calm", "love"]


@pytest.mark.parametrize(
    "statement",
    [
        "from steerlab.vectors import lvoe",
        "from steerlab.vectors.tiny_1 import lvoe",
        "import steerlab.vectors.lvoe",
    ],
)
def test_a_missing_import_offers_the_closest(store, statement):
    with pytest.raises(ImportError, match="did you mean love") as caught:
        exec(statement)
    assert isinstance(caught.value, NotFound)


def test_a_missing_attribute_offers_the_closest(store):
    with pytest.raises(AttributeError, match="did you mean love") as caught:
        _ = steerlab.vectors.lvoe
    assert isinstance(caught.value, NotFound)
    with pytest.raises(AttributeError, match="did you mean anger"):
        _ = steerlab.vectors.tiny_1.angr
    assert not hasattr(steerlab.vectors, "lvoe")
    assert getattr(steerlab.vectors, "lvoe", None) is None


def test_python_may_ask_for_its_own_names(store):
    for name in ("__wrapped__", "_private", "__all__"):
        assert not hasattr(steerlab.vectors, name)
        assert not hasattr(steerlab.vectors.tiny_1, name)
    with pytest.raises(ImportError, match="cannot import name '_private'"):
        exec("from steerlab.vectors import _private")


def test_an_empty_store_has_no_names(tmp_path, monkeypatch):
    monkeypatch.setenv("STEERLAB_STORE", str(tmp_path / "nothing"))
    assert dir(steerlab.vectors) == []
    with pytest.raises(ImportError, match="the store is empty"):
        exec("from steerlab.vectors import love")
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("name", ["sys", "annotations", "Any", "Store", "Sequence"])
def test_no_name_of_the_module_itself_hides_a_vector(store, name):
    saved = store.save(name, vector(7))
    namespace = {}
    exec(f"from steerlab.vectors import {name}", namespace)
    assert namespace[name] == saved
