"""The embedded model shows what SCIENCE says it should: measured, never a pinned text."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from steerlab import Injection, random_like, steering, unit
from steerlab.errors import SteeringError

pytestmark = pytest.mark.smollm2

PAIRS = [
    ("You are amazing and I love you", "You are terrible and I hate you"),
    ("The world is a beautiful place filled with joy", "The world is a dark, miserable place"),
    ("I am so happy and full of love today", "I am so angry and full of hate today"),
    ("This is absolutely wonderful and fantastic", "This is absolutely awful and disgusting"),
]
OPENINGS = (  # chosen before anything was measured: open-ended, and neither kind nor unkind
    "I think you are a",
    "Today I feel",
    "My neighbour is",
    "The weather this morning",
    "When I think about my job, I",
    "The new teacher at our school",
    "People in this town are",
    "My brother told me that",
    "The film we saw last night was",
    "Looking back on this year, I",
    "The letter began with the words",
    "Our trip to the coast was",
    "The meal at the restaurant was",
    "My first impression of the city",
    "She opened the door and",
    "The truth about my family is",
    "Working with this team has been",
    "The doctor looked at me and said",
    "In my opinion, the book",
    "Every time I see my old friend, I",
)
SEEDS = (0, 1, 2)
BOS = 1


@pytest.fixture(autouse=True, scope="module")
def all_cores():
    """A real model is worth more than the one thread that tiny ones are best on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def love(smollm2):
    return smollm2.extract(PAIRS, layers=[5, 10, 15, 20])


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


class TestTheVector:
    def test_it_is_the_posts_own_formula(self, smollm2, love):
        wanted = (10, 15, 20)
        found = {b: [] for b in wanted}
        for positive, negative in PAIRS:
            last = []
            for prompt in (positive, negative):
                inputs = smollm2.tokenizer(prompt, return_tensors="pt")
                with torch.no_grad():
                    states = smollm2.model(**inputs, output_hidden_states=True).hidden_states
                last.append({b: states[b][0, -1].double().numpy() for b in wanted})
            for b in wanted:
                found[b].append(last[0][b] - last[1][b])
        post = unit(love)
        for b in wanted:
            direction = np.mean(found[b], axis=0)
            direction /= np.linalg.norm(direction)
            assert cosine(post.directions[b][0], direction) >= 0.99999
            assert post.norms()[b] == pytest.approx(1, abs=1e-12)

    def test_its_norms_are_the_known_ones(self, love):
        for b, norm in {5: 34, 10: 43, 15: 55, 20: 65}.items():
            assert love.norms()[b] == pytest.approx(norm, rel=0.02)

    def test_the_residual_norms_are_the_known_ones(self, love):
        for b, norm in {5: 95, 10: 135, 15: 168, 20: 221}.items():
            assert love.residual_norms[b] == pytest.approx(norm, rel=0.06)

    def test_the_first_position_is_a_sink_that_no_norm_includes(self, smollm2):
        sizes = smollm2.record(PAIRS[0][0], 15)[15].norm(dim=-1)
        assert sizes[0] > 50 * sizes[1:].median()

    def test_the_pairs_agree(self, love):
        for b in (15, 20):
            assert love.diagnostics[b]["agreement"] == 1
            assert love.diagnostics[b]["separability"] == 1

    @pytest.mark.parametrize(
        ("method", "read"), [("mean_difference", "mean"), ("pca", "last"), ("probe", "last")]
    )
    def test_other_methods_point_the_same_way(self, smollm2, love, method, read):
        other = smollm2.extract(PAIRS, layers=15, method=method, read=read)
        assert cosine(love.directions[15][0], other.directions[15][0]) > 0.5

    @pytest.mark.parametrize("seed", range(3))
    def test_a_random_direction_points_nowhere(self, love, seed):
        other = random_like(love, seed)
        for b in love.layers:
            assert abs(cosine(love.directions[b][0], other.directions[b][0])) < 0.2
            assert other.norms()[b] == pytest.approx(love.norms()[b], rel=1e-6)


class TestActadd:
    def test_the_bos_row_is_zero_where_leaving_it_out_would_be_absurd(self, smollm2):
        without = [smollm2.record(word, 14)[14][0] for word in ("Love", "Hate")]
        trap = float((without[0] - without[1]).norm())
        v = smollm2.extract([("Love", "Hate")], layers=14, method="actadd")
        rows = np.linalg.norm(v.directions[14], axis=1)
        assert rows[0] == 0
        assert trap > 5 * rows.max()
        high, low = v.recipe.prompt_ids
        assert high[0] == low[0] == BOS
        assert len(high) == len(low)

    def test_it_changes_the_text_and_leaves_the_first_position_alone(self, smollm2):
        v = smollm2.extract([("I love you", "I hate you")], layers=14, method="actadd")
        prompt = "I think you are a person who"
        before = smollm2.record(prompt, 14, bos=True)[14]
        with steering(smollm2, v, 2.0):
            after = smollm2.record(prompt, 14, bos=True)[14]
            text = smollm2.generate(prompt, max_new_tokens=20)
        rows = v.directions[14].shape[0]
        assert torch.equal(after[0], before[0])
        assert torch.equal(after[rows:], before[rows:])
        assert not torch.equal(after[1:rows], before[1:rows])
        assert text != smollm2.generate(prompt, max_new_tokens=20, bos=True)

    def test_a_prompt_that_is_too_short_is_refused(self, smollm2):
        v = smollm2.extract([("I love you", "I hate you")], layers=14, method="actadd")
        with pytest.raises(SteeringError, match="longer prompt"), steering(smollm2, v):
            smollm2.generate("Hi")


class TestDecoding:
    @pytest.mark.parametrize("positions", ["all", "prompt", "generated", "continuation"])
    def test_cached_and_uncached_agree_under_steering(self, smollm2, love, positions):
        texts = []
        for use_cache in (True, False):
            with steering(smollm2, love[15], 0.4, positions):
                texts.append(
                    smollm2.generate("I think you are a", max_new_tokens=20, use_cache=use_cache)
                )
        assert texts[0].token_ids == texts[1].token_ids
        assert texts[0] != smollm2.generate("I think you are a", max_new_tokens=20)

    def test_front_too(self, smollm2):
        v = smollm2.extract([("I love you", "I hate you")], layers=14, method="actadd")
        texts = []
        for use_cache in (True, False):
            with steering(smollm2, v, 2.0):
                texts.append(
                    smollm2.generate(
                        ["I think you are a person", "Tell me what you think about all of this"],
                        max_new_tokens=20,
                        use_cache=use_cache,
                    )
                )
        assert texts[0] == texts[1]

    def test_nothing_added_is_the_baseline(self, smollm2, love):
        plain = smollm2.generate("I think you are a", max_new_tokens=10)
        for vector, coefficient in ((love, 0.0), (love - love, 5.0)):
            with steering(smollm2, vector, coefficient):
                assert smollm2.generate("I think you are a", max_new_tokens=10) == plain

    def test_streamed_pieces_add_up(self, smollm2):
        pieces = []
        done = smollm2.generate(
            "Write a café menu with emoji 😀:",
            max_new_tokens=30,
            chat=True,
            on_text=lambda row, piece: pieces.append(piece),
        )
        assert "".join(pieces) == done.text

    def test_the_chat_template_brings_at_most_one_bos_a_message(self, smollm2):
        ids = smollm2.tokens("How are you?", chat=True, bos=True)
        assert ids[0] == BOS
        assert ids[1] != BOS
        assert ids == smollm2.tokens("How are you?", chat=True)
        rendered = smollm2.tokenizer.apply_chat_template(
            [{"role": "user", "content": "How are you?"}],
            add_generation_prompt=True,
            tokenize=False,
        )
        assert ids.count(BOS) == rendered.count("<|im_start|>")


class TestEffect:
    """Sentiment of what is written, at a dose of 0.15 at layer 15: 20 openings, 3 seeds."""

    @pytest.fixture(scope="class")
    @classmethod
    def scores(cls, smollm2, love):
        """Setting -> (60,) VADER compound of the new text alone; the same seed in each."""
        coefficient = 0.15 / love[15].dose(1.0)
        settings = {"baseline": (None, 0.0)}
        settings |= {f"love {s:+}": (love[15], s * coefficient) for s in (1, -1)}
        settings |= {
            f"random {seed} {s:+}": (random_like(love[15], seed), s * coefficient)
            for seed in range(3)
            for s in (1, -1)
        }
        judge = SentimentIntensityAnalyzer()
        found = {name: [] for name in settings}
        for first in range(0, len(OPENINGS), 4):
            cells = [
                (name, opening, seed)
                for name in settings
                for opening in OPENINGS[first : first + 4]
                for seed in SEEDS
            ]
            injections = [
                Injection(vector, c, rows=tuple(i for i, cell in enumerate(cells) if cell[0] == n))
                for n, (vector, c) in settings.items()
                if vector is not None
            ]
            with steering(smollm2, injections):
                texts = smollm2.generate(
                    [opening for _, opening, _ in cells],
                    seed=[seed for *_, seed in cells],
                    temperature=0.7,
                    top_p=0.9,
                    max_new_tokens=24,
                )
            for (name, *_), completion in zip(cells, texts, strict=True):
                found[name].append(judge.polarity_scores(completion.text)["compound"])
        return {name: np.array(values) for name, values in found.items()}

    def effect(self, scores, name):
        return float((scores[name] - scores["baseline"]).mean())

    def test_along_the_vector_the_text_is_kinder(self, scores):
        assert self.effect(scores, "love +1") >= 0.25

    def test_against_it_less_kind(self, scores):
        assert self.effect(scores, "love -1") <= -0.30

    def test_random_directions_of_the_same_norm_do_nothing_on_average(self, scores):
        effects = [self.effect(scores, name) for name in scores if name.startswith("random")]
        assert len(effects) == 6
        assert abs(np.mean(effects)) <= 0.15

    def test_the_signed_range_stands_out_from_random_directions(self, scores):
        ranges = {
            name: float((scores[f"{name} +1"] - scores[f"{name} -1"]).mean())
            for name in ("love", "random 0", "random 1", "random 2")
        }
        others = [abs(value) for name, value in ranges.items() if name != "love"]
        assert ranges["love"] >= 0.55
        assert ranges["love"] >= 1.5 * max(others)
