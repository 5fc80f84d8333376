"""Recording: the same numbers however prompts are batched, padded or shared, and no more work."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steerlab import LanguageModel, steering
from steerlab.models import recording
from steerlab.models.blocks import attends_to_everything
from steerlab.models.prefix_groups import Group, group_by_prefix
from steerlab.models.prefix_trees import Row, laid_out, rows_of_trees, single_rows
from steerlab.models.recording import read
from tests.models.architectures import tiny
from tests.tiny import ARCHITECTURES, tiny_tokenizer
from tests.watching import N_LAYERS, blocks_of, hooks_on, planted, shared

every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)
LAYERS = range(N_LAYERS)
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def random_prompts(seed, prefix=0, count=7, shortest=2):
    """Token ids of unlike lengths; the first `prefix` tokens are the same in most of them."""
    rng = np.random.default_rng(seed)
    start = rng.integers(3, 300, prefix).tolist()
    sizes = rng.integers(shortest, 12, count)
    prompts = [start + rng.integers(3, 300, n).tolist() for n in sizes]
    return [*prompts, rng.integers(3, 300, 5).tolist()] if prefix else prompts


@torch.no_grad()
def by_hand(lm, architecture, prompts):
    """Layer -> one (seq, d_model) array a prompt; each prompt run alone, read with raw hooks."""
    found = {b: [] for b in LAYERS}

    def keep(b):
        def hook(module, args, kwargs):
            hidden = args[0] if args else kwargs["hidden_states"]
            found[b].append(hidden[0].double().numpy())

        return hook

    blocks = blocks_of(lm.model, architecture)
    handles = [
        block.register_forward_pre_hook(keep(b), with_kwargs=True) for b, block in enumerate(blocks)
    ]
    for ids in prompts:
        lm.model(input_ids=torch.tensor([ids]), use_cache=False)
    for handle in handles:
        handle.remove()
    return found


def picked(alone, read_at):
    """What reading one token, or the mean of all but the first, means."""
    if read_at == "mean":
        return np.stack([h[1:].mean(axis=0) for h in alone])
    return np.stack([h[-1 if read_at == "last" else read_at] for h in alone])


def forced(model, prompts, width):
    """A plan that shares what it can, however little that saves."""
    rows = rows_of_trees(prompts, width)
    return rows, group_by_prefix([prompts[row.members[0]][: row.shared + 1] for row in rows])


def forbidden(model, prompts, width):
    return recording._apart(single_rows(prompts))


@pytest.fixture(params=[0, 8, 128])
def force_sharing(request, monkeypatch):
    """Rows of one prompt on the cache of a prefix, of some prompts on one, and whole trees."""
    monkeypatch.setitem(recording._ROW_TOKENS, "cpu", request.param)
    monkeypatch.setattr(recording, "_plan", forced)
    return request.param


@every_architecture
class TestEveryArchitecture:
    @pytest.mark.parametrize("read_at", ["last", "mean", 0, 1, -2])
    def test_a_batch_reads_what_each_prompt_alone_reads(self, architecture, read_at):
        lm = shared(architecture)
        prompts = random_prompts(1)
        found = read(lm.model, lm.blocks, prompts, LAYERS, read_at)
        for b, alone in by_hand(lm, architecture, prompts).items():
            np.testing.assert_allclose(found.values[b], picked(alone, read_at), **CLOSE)

    @pytest.mark.parametrize("read_at", ["last", "mean", 3, 8, -1, -12])
    def test_a_shared_beginning_changes_nothing(self, architecture, read_at, force_sharing):
        lm = shared(architecture)
        if not attends_to_everything(lm.model):
            assert architecture in {"mistral_sliding", "gemma2", "gemma3"}
            return
        prompts = random_prompts(2, prefix=10)[:-1]
        prompts += random_prompts(3, prefix=14)[:-1]
        prefixes = {group.prefix for group in forced(lm.model, prompts, force_sharing)[1]}
        assert prefixes == ({0} if force_sharing == 128 else {10, 14})
        found = read(lm.model, lm.blocks, prompts, LAYERS, read_at)
        for b, alone in by_hand(lm, architecture, prompts).items():
            np.testing.assert_allclose(found.values[b], picked(alone, read_at), **CLOSE)

    def test_models_that_forget_or_hide_a_beginning_read_each_prompt_by_itself(self, architecture):
        lm, prompts = shared(architecture), random_prompts(2, 10)
        rows, groups = recording._plan(lm.model, prompts, 128)
        assert (len(rows) < len(prompts)) == attends_to_everything(lm.model)
        assert all(group.prefix == 0 for group in groups)

    def test_the_residual_norm_is_the_median_over_positions_but_the_first(self, architecture):
        lm = shared(architecture)
        for prompts in (random_prompts(4), random_prompts(5, prefix=20)):
            found = read(lm.model, lm.blocks, prompts, LAYERS)
            for b, alone in by_hand(lm, architecture, prompts).items():
                norms = np.concatenate([np.linalg.norm(h[1:], axis=1) for h in alone])
                assert found.residual_norms[b] == pytest.approx(np.median(norms), rel=1e-5)

    def test_bfloat16_models_give_float64_of_what_they_computed(self, architecture):
        lm = shared(architecture, torch.bfloat16)
        prompts = [random_prompts(6)[0]]
        for read_at in ("last", 1):
            found = read(lm.model, lm.blocks, prompts, LAYERS, read_at)
            for b, alone in by_hand(lm, architecture, prompts).items():
                assert found.values[b].dtype == np.float64
                assert np.array_equal(found.values[b], picked(alone, read_at))
        mean = read(lm.model, lm.blocks, prompts, LAYERS, "mean").values
        for b, alone in by_hand(lm, architecture, prompts).items():
            np.testing.assert_allclose(mean[b], picked(alone, "mean"), rtol=1e-5, atol=1e-5)


class TestPadding:
    """Prompts of unlike lengths are read in passes of similar ones."""

    @pytest.fixture
    def seen(self, monkeypatch):
        """The chunks that were computed."""
        forward, chunks = recording._forward, []

        def noted(*arguments):
            chunks.append(arguments[4])
            return forward(*arguments)

        monkeypatch.setattr(recording, "_forward", noted)
        return chunks

    @pytest.mark.parametrize("spare", [0, 1000])
    @pytest.mark.parametrize("prefix", [0, 10])
    def test_what_is_computed_beside_the_tokens(self, monkeypatch, seen, prefix, spare):
        lm = shared("llama")
        prompts = random_prompts(2, prefix, count=20) + random_prompts(3, prefix, count=20)
        monkeypatch.setitem(recording._ROW_TOKENS, "cpu", 16)
        monkeypatch.setitem(recording._PASS_TOKENS, "cpu", 1000)
        together = read(lm.model, lm.blocks, prompts, LAYERS)
        seen.clear()
        monkeypatch.setitem(recording._PASS_TOKENS, "cpu", spare)
        apart = read(lm.model, lm.blocks, prompts, LAYERS)
        for b in LAYERS:
            np.testing.assert_allclose(apart.values[b], together.values[b], **CLOSE)
            assert apart.residual_norms[b] == pytest.approx(together.residual_norms[b], rel=1e-5)
        padding = [int((~chunk.real).sum()) for chunk in seen]
        assert any(padding) == bool(spare)
        assert any(row.positions[0] for chunk in seen for row in chunk.rows) == bool(prefix)

    def test_rests_of_unlike_lengths_follow_the_prefix_that_they_share(self, seen):
        lm = shared("llama")
        base = list(range(3, 23))
        prompts = [[*base, 30], [*base, 31], [*base, 32, 33, 34], [*base, 30, 35]]
        read(lm.model, lm.blocks, prompts, LAYERS)
        assert seen[-1].ids.tolist() == [[*base, 30, 35, 31, 32, 33, 34]]
        assert seen[-1].positions.tolist() == [[*range(20), 20, 21, 20, 20, 21, 22]]

    def test_one_that_is_too_wide_for_a_row_is_computed_once_before_them(self, monkeypatch, seen):
        lm = shared("llama")
        monkeypatch.setitem(recording._PASS_TOKENS, "cpu", 0)
        monkeypatch.setitem(recording._ROW_TOKENS, "cpu", 2)
        base = list(range(3, 23))
        read(lm.model, lm.blocks, [[*base, 30], [*base, 31], [*base, 32, 33, 34]], LAYERS)
        assert [chunk.ids.tolist() for chunk in seen[-3:]] == [[base], [[32, 33, 34]], [[30, 31]]]


class TestSharing:
    @pytest.mark.parametrize("read_at", ["last", "mean", *range(-7, 6)])
    @pytest.mark.parametrize("architecture", ["llama", "gpt2", "bloom"])
    def test_forced_and_forbidden_agree(self, architecture, read_at, monkeypatch, force_sharing):
        lm = shared(architecture)
        base = [1, 7, 8, 9, 10, 11]
        prompts = [[*base, 20], [*base, 20, 21, 22], base, [*base[:4], 50, 51, 52, 53], [*base, 90]]
        prompts += [[1, *base], [300 - 1, 4, 5, 6, 7, 8, 9], [1, 7, 8, 9, 10, 11]]
        if isinstance(read_at, int):
            prompts = [p for p in prompts if -len(p) <= read_at < len(p)]
        together = read(lm.model, lm.blocks, prompts, LAYERS, read_at)
        monkeypatch.setattr(recording, "_plan", forbidden)
        plain = read(lm.model, lm.blocks, prompts, LAYERS, read_at)
        for b in LAYERS:
            np.testing.assert_allclose(together.values[b], plain.values[b], **CLOSE)
            assert together.residual_norms[b] == pytest.approx(plain.residual_norms[b], rel=1e-5)

    @given(
        st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=6), min_size=1, max_size=6),
        st.sampled_from([0, 3, 128]),
    )
    def test_any_prompts_at_all(self, prompts, width):
        lm, values = shared(), []
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(recording._ROW_TOKENS, "cpu", width)
            for plan in (forced, forbidden):
                patch.setattr(recording, "_plan", plan)
                values.append(read(lm.model, lm.blocks, prompts, [2]))
        together, plain = values
        np.testing.assert_allclose(together.values[2], plain.values[2], **CLOSE)
        assert together.residual_norms.keys() == plain.residual_norms.keys()
        for b, norm in together.residual_norms.items():
            assert norm == pytest.approx(plain.residual_norms[b], rel=1e-5)

    @pytest.mark.parametrize(
        ("architecture", "found"), [("llama", [True, True]), ("bloom", [False, True])]
    )
    def test_whether_a_model_can_is_tried(self, architecture, found):
        lm = shared(architecture)
        can = partial(recording._can_share, lm.model, lm.blocks, 3)
        assert [can(True), can(False)] == found

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_one_that_does_not_follow_the_mask_is_found_out(self, monkeypatch, dtype):
        lm, places = shared("llama", dtype), recording._places
        without = lambda *a: places(*a) | {"attention_mask": None}  # noqa: E731
        assert recording._agrees(lm.model, lm.blocks, 1, True)
        monkeypatch.setattr(recording, "_places", without)
        assert not recording._agrees(lm.model, lm.blocks, 1, True)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_one_that_ignores_its_positions_is_found_out(self, dtype):
        def ignore(module, args, kwargs):
            return args, {name: value for name, value in kwargs.items() if name != "position_ids"}

        model = tiny("llama")
        with torch.no_grad():
            for parameter in model.parameters():  # attention moves the stream by a few percent
                parameter.mul_(0.5 if parameter.ndim > 1 else 1)
        lm = LanguageModel(model.to(dtype), tiny_tokenizer(), source="tiny")
        can = partial(recording._agrees, lm.model, lm.blocks, 2, True)
        assert can()
        lm.model.register_forward_pre_hook(ignore, with_kwargs=True)
        assert not can()

    def test_flash_attention_is_given_no_such_mask(self, monkeypatch):
        lm = LanguageModel(tiny("llama"), tiny_tokenizer(), source="tiny")
        monkeypatch.setattr(recording, "_agrees", lambda *_: True)
        can = partial(recording._can_share, lm.model, lm.blocks)
        assert can(1, True)
        lm.model.config._attn_implementation = "flash_attention_2"
        assert [can(1, True), can(1, False)] == [False, True]

    @pytest.mark.parametrize("error", [TypeError, AssertionError, AttributeError, KeyError])
    def test_one_that_takes_no_such_mask_reads_prompts_apart(self, monkeypatch, error):
        lm, base = shared("llama"), list(range(3, 23))
        prompts = [[*base, 30], [*base, 31, 32], [*base, 33]]
        together = read(lm.model, lm.blocks, prompts, LAYERS)

        def refuse(module, args, kwargs):
            if "position_ids" in kwargs:
                raise error("unexpected keyword argument 'position_ids'")

        monkeypatch.setattr(recording, "_sharing", type(recording._sharing)())
        handle = lm.model.register_forward_pre_hook(refuse, with_kwargs=True)
        apart = read(lm.model, lm.blocks, prompts, LAYERS)
        handle.remove()
        for b in LAYERS:
            np.testing.assert_allclose(apart.values[b], together.values[b], **CLOSE)

    @pytest.mark.parametrize("model_type", ["roberta", "xlm-roberta", "gpt_neo", "mpt"])
    def test_a_model_that_counts_positions_or_columns(self, model_type, force_sharing):
        lm = LanguageModel(tiny(model_type), tiny_tokenizer(), source="tiny")
        prompts = random_prompts(2, prefix=10) + random_prompts(3, prefix=14)[:-1]
        prompts = [[token % 250 + 3 for token in prompt] for prompt in prompts]
        can = partial(recording._can_share, lm.model, lm.blocks, 2)
        assert [can(True), can(False)] == [False, model_type in ("gpt_neo", "mpt")]
        together = read(lm.model, lm.blocks, prompts, [2]).values[2]
        alone = [read(lm.model, lm.blocks, [ids], [2]).values[2][0] for ids in prompts]
        np.testing.assert_allclose(together, alone, **CLOSE)

    def test_a_long_prefix_is_computed_once(self, monkeypatch):
        monkeypatch.setitem(recording._ROW_TOKENS, "cpu", 32)
        lm = shared()
        prompts = random_prompts(8, prefix=60, count=20)[:-1]
        seen = []
        handle = lm.blocks[0].register_forward_pre_hook(
            lambda m, args, kwargs: seen.append(
                (args[0] if args else kwargs["hidden_states"]).shape
            ),
            with_kwargs=True,
        )
        read(lm.model, lm.blocks, prompts, LAYERS)
        handle.remove()
        assert sum(rows * seq for rows, seq, _ in seen) < 60 + 20 * 12
        assert (1, 60, 32) in seen

    @pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
    @pytest.mark.parametrize("rows", [None, 4])
    def test_under_steering_a_shared_beginning_changes_nothing(self, positions, rows):
        lm = shared()
        start = random_prompts(9, prefix=20)[0][:20]
        prompts = [[1, *start, 40 + i] for i in range(4)]
        assert len(recording._plan(lm.model, prompts, 128)[0]) == 1
        alone = []
        for prompt in prompts:
            with steering(lm, planted(lm, 1, rows=rows), 2.0, positions):
                alone.append(read(lm.model, lm.blocks, [prompt], LAYERS).values)
        with steering(lm, planted(lm, 1, rows=rows), 2.0, positions):
            together = read(lm.model, lm.blocks, prompts, LAYERS).values
        for b in LAYERS:
            np.testing.assert_allclose(together[b], np.concatenate([a[b] for a in alone]), **CLOSE)


def saved(groups):
    return sum(g.prefix * (len(g.members) - 1) for g in groups)


def common(prompts):
    """The longest beginning all share that leaves each a token of its own."""
    shortest = min(len(p) for p in prompts) - 1
    n = 0
    while n < shortest and len({p[n] for p in prompts}) == 1:
        n += 1
    return n


def partitions(items):
    """Every way to split a list into groups."""
    if not items:
        yield []
        return
    head, rest = items[0], items[1:]
    for split in partitions(rest):
        yield [[head], *split]
        for i, group in enumerate(split):
            yield [*split[:i], [head, *group], *split[i + 1 :]]


class TestGrouping:
    @given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), max_size=6))
    def test_no_split_saves_more(self, prompts):
        best = max(
            sum(common([prompts[i] for i in group]) * (len(group) - 1) for group in split)
            for split in partitions(list(range(len(prompts))))
        )
        assert saved(group_by_prefix(prompts)) == best

    @given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), max_size=20))
    def test_each_prompt_is_in_one_group_and_shares_what_it_says(self, prompts):
        groups = group_by_prefix(prompts)
        assert sorted(i for g in groups for i in g.members) == list(range(len(prompts)))
        for group in groups:
            members = [prompts[i] for i in group.members]
            assert all(len(p) > group.prefix for p in members)
            assert all(a[: group.prefix] == b[: group.prefix] for a, b in pairwise(members))
            assert group.prefix > 0 or len(group.members) == 1

    def test_a_group_may_lie_within_another(self):
        prompts = [[0, 5], [0, 0, 0, 5], [0, 0, 0, 6], [0, 1, 5]]
        assert group_by_prefix(prompts) == [Group(3, (1, 2)), Group(1, (0, 3))]

    def test_no_group_is_larger_than_a_batch(self):
        groups = group_by_prefix([[0, 1, i] for i in range(600)])
        assert [(g.prefix, len(g.members)) for g in groups] == [(2, 256), (2, 256), (2, 88)]

    def test_nothing_in_common(self):
        assert group_by_prefix([[1, 2], [3, 4]]) == [Group(0, (0,)), Group(0, (1,))]

    def test_no_prompts(self):
        assert group_by_prefix([]) == []


some_prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), max_size=12)


class TestTrees:
    @given(some_prompts, st.sampled_from([0, 1, 4, 100]))
    def test_each_prompt_is_in_one_row_which_shares_what_it_says(self, prompts, width):
        rows = rows_of_trees(prompts, width)
        assert sorted(i for row in rows for i in row.members) == list(range(len(prompts)))
        for row in rows:
            members = [prompts[i] for i in row.members]
            assert row.shared == common(members)
            assert row.tokens == len({tuple(p[: n + 1]) for p in members for n in range(len(p))})
            assert row.tokens - row.shared <= width or len(members) == 1

    @given(some_prompts)
    def test_in_one_row_each_beginning_is_computed_once(self, prompts):
        beginnings = {tuple(p[: n + 1]) for p in prompts for n in range(len(p))}
        assert sum(row.tokens for row in rows_of_trees(prompts, 10**6)) == len(beginnings)

    @given(some_prompts, st.booleans())
    def test_a_token_attends_to_those_before_it_in_its_prompts(self, prompts, is_cut):
        for row in rows_of_trees(prompts, 10):
            start = row.shared if is_cut else 0
            made = laid_out(prompts, row, start)
            assert len(made.ids) == row.tokens - start
            seen = made.visible(len(made.ids) + 2)
            assert np.array_equal(seen[-2:], np.eye(len(made.ids) + 2, dtype=bool)[-2:])
            for i, columns in made.columns.items():
                assert [made.ids[c] for c in columns] == prompts[i][start:]
                assert [made.positions[c] for c in columns] == list(range(start, len(prompts[i])))
                for n, column in enumerate(columns):
                    assert np.flatnonzero(seen[column]).tolist() == columns[: n + 1].tolist()
            in_order = np.tri(len(made.ids), len(made.ids) + 2, dtype=bool)
            assert made.is_tree != np.array_equal(seen[:-2], in_order)

    def test_a_row_ends_where_more_would_be_too_wide(self):
        prompts = [[1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 6], [7, 8], [7, 8]]
        assert rows_of_trees(prompts, 3) == [Row((0, 1), 3, 5), Row((2,), 2, 3), Row((3, 4), 1, 2)]


@every_architecture
class TestWork:
    @pytest.mark.parametrize("last", [0, 2])
    def test_nothing_runs_behind_the_last_layer_wanted(self, architecture, last):
        lm = shared(architecture)
        ran = []
        modules = [*blocks_of(lm.model, architecture), lm.model.get_output_embeddings()]
        handles = [
            m.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, m in enumerate(modules)
        ]
        lm.record("stop", [0, last])
        read(lm.model, lm.blocks, random_prompts(3), [last], "mean")
        for handle in handles:
            handle.remove()
        assert set(ran) == set(range(last))

    def test_no_hook_and_no_gradient_is_left(self, architecture):
        lm = shared(architecture)
        count = hooks_on(lm.model)
        recorded = lm.record("clean", "all")
        read(lm.model, lm.blocks, random_prompts(3), LAYERS)
        assert hooks_on(lm.model) == count
        assert not any(h.requires_grad for h in recorded.values())
        assert lm.generate("clean", max_new_tokens=2) == lm.generate("clean", max_new_tokens=2)


class TestRecord:
    def test_every_position_in_float32_on_the_cpu(self):
        for dtype in (torch.float32, torch.bfloat16):
            recorded = shared("llama", dtype).record("seven!!", [1, 3])
            assert list(recorded) == [1, 3]
            assert all(h.shape == (7, 32) and h.dtype == torch.float32 for h in recorded.values())
            assert all(h.device.type == "cpu" for h in recorded.values())

    def test_chat_and_bos(self):
        lm = shared()
        assert len(lm.record("hi", 1, bos=True)[1]) == 3
        assert len(lm.record("hi", 1, chat=True)[1]) == len(lm.tokens("hi", chat=True))

    def test_an_error_in_the_model_leaves_no_hook(self):
        lm = shared()
        handle = lm.blocks[1].register_forward_pre_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            lm.record("breaks", "all")
        handle.remove()
        assert hooks_on(lm.model) == 0


class TestMean:
    def test_the_first_position_is_never_in_it(self):
        lm = shared()
        one, two = [9, 50, 60], [200, 50, 60]
        handle = lm.model.get_input_embeddings().register_forward_hook(
            lambda m, args, out: out.index_fill(1, torch.tensor([0]), 1e4)
        )
        found = read(lm.model, lm.blocks, [one, two], [0], "mean").values[0]
        handle.remove()
        embedded = lm.model.get_input_embeddings().weight[[50, 60]].mean(dim=0)
        for row in found:
            np.testing.assert_allclose(row, embedded.detach().numpy(), atol=1e-6)

    def test_one_token_has_no_residual_norm(self):
        lm = shared()
        assert read(lm.model, lm.blocks, [[5]], [1]).residual_norms == {}


def test_progress_ends_at_all_prompts():
    lm = shared()
    seen = []
    prompts = random_prompts(1, count=400)
    read(lm.model, lm.blocks, prompts, [1], progress=lambda *done: seen.append(done))
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == (400, 400)


def test_like_lengths_go_together_so_padding_is_little():
    lm = shared()
    prompts = random_prompts(2, count=600)
    columns = []
    handle = lm.blocks[0].register_forward_pre_hook(
        lambda m, args: columns.append(args[0].shape[0] * args[0].shape[1])
    )
    read(lm.model, lm.blocks, prompts, [1])
    handle.remove()
    assert sum(columns) < 1.25 * sum(map(len, prompts))
    assert max(columns) <= 2048
