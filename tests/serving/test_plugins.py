"""Other people's programs with steerlab inside: `llm` and Inspect, the real packages."""

from __future__ import annotations

import pytest

from steerlab import LanguageModel, Store, steering
from steerlab.core.prompts import Conversation
from tests.saved import fill_store, save_model

pytestmark = pytest.mark.conformance


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A tiny model's directory, with a store of its vectors as the default one."""
    directory = save_model(tmp_path / "model")
    fill_store(tmp_path / "store", directory)
    monkeypatch.setenv("STEERLAB_STORE", str(tmp_path / "store"))
    return str(directory)


@pytest.fixture
def answer(source):
    """The answer that `lm.generate` writes to some messages."""

    def write(messages, dose=None, **options):
        lm, store = LanguageModel.load(source), Store()
        vectors = [] if dose is None else [store.load("love")]
        with steering(lm, vectors, **({} if dose is None else {"dose": dose})):
            return lm.generate(Conversation(messages), chat=True, **options).text

    return write


class TestLlm:
    @pytest.fixture
    def model(self, source):
        pytest.importorskip("llm")
        from steerlab.serving.llm_plugin import Steered

        return Steered(source)

    def test_answers_are_those_of_the_lab(self, model, answer):
        asked = (("system", "be kind"), ("user", "hello"))
        plain = model.prompt("hello", system="be kind", max_tokens=8).text()
        steered = model.prompt(
            "hello", system="be kind", max_tokens=8, vector="love", dose=0.4
        ).text()
        assert plain == answer(asked, max_new_tokens=8)
        assert steered == answer(asked, 0.4, max_new_tokens=8)
        assert plain != steered

    def test_a_conversation_goes_on(self, model, answer):
        talk = model.conversation()
        first = talk.prompt("hello", max_tokens=4).text()
        second = talk.prompt("why", max_tokens=4).text()
        said = (("user", "hello"), ("assistant", first), ("user", "why"))
        assert second == answer(said, max_new_tokens=4)

    def test_it_streams_and_counts(self, model):
        response = model.prompt("hello", max_tokens=6, chat=False)
        assert len(list(response)) >= 2
        assert response.output_tokens == 6

    @pytest.mark.parametrize(
        ("options", "why"),
        [
            ({"vector": "lvoe"}, "love"),
            ({"vector": "love +"}, "column"),
            ({"dose": 0.2}, "which vector"),
            ({"vector": "love", "positions": "here"}, "positions are"),
        ],
    )
    def test_what_is_wrong_is_said_in_a_line(self, model, options, why):
        import llm

        with pytest.raises(llm.ModelError, match=why) as caught:
            model.prompt("hello", **options).text()
        assert "\n" not in str(caught.value)

    def test_it_is_found_by_llm(self, source):
        llm = pytest.importorskip("llm")
        known = [model.model_id for model in llm.get_models()]
        assert {"steerlab/smollm2"} <= set(known)


@pytest.mark.filterwarnings("ignore:The 'initial' parameter:DeprecationWarning")  # Inspect's own
class TestInspect:
    @pytest.fixture
    def get_model(self, source):
        inspect = pytest.importorskip("inspect_ai.model")
        return lambda **args: inspect.get_model(f"steerlab/{source}", memoize=False, **args)

    async def test_answers_are_those_of_the_lab(self, get_model, answer):
        from inspect_ai.model import GenerateConfig

        config = GenerateConfig(max_tokens=8, temperature=0.0)
        plain = await get_model().generate("hello", config=config)
        steered = await get_model(steering="love dose=0.4").generate("hello", config=config)
        assert plain.completion == answer((("user", "hello"),), max_new_tokens=8)
        assert steered.completion == answer((("user", "hello"),), 0.4, max_new_tokens=8)
        assert plain.completion != steered.completion
        assert steered.usage.output_tokens == 8
        assert steered.stop_reason == "max_tokens"

    async def test_an_unknown_vector_is_refused_with_names(self, get_model):
        with pytest.raises(Exception, match="love"):
            await get_model(steering="lvoe").generate("hello")

    def test_a_bad_steering_is_refused_at_once(self, get_model):
        with pytest.raises(Exception, match="column"):
            get_model(steering="love +")
