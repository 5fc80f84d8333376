"""LanguageModel: a transformers model with its tokenizer, ready to be read and steered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any, Unpack, overload

import torch

from steerlab.core.arguments import checks_names, several
from steerlab.core.completion import Completion
from steerlab.core.notation import LayerChoice, layer_numbers
from steerlab.core.prompts import Continued, Prompt, Read, Span
from steerlab.core.recipe import Contrast, ModelIdentity
from steerlab.core.sampling import Sampling, seeds_of
from steerlab.core.vector import SteeringVector
from steerlab.errors import BadPrompts, ModelError, SteeringError
from steerlab.extraction import methods, runner
from steerlab.extraction.methods import Pairs
from steerlab.extraction.readings import Array, Ids, Readings
from steerlab.files.contrast import with_prompts
from steerlab.files.location import extractions_directory
from steerlab.models import asynchronous, generation, recording
from steerlab.models.blocks import check_fits, check_reads_text, find_blocks, text_config
from steerlab.models.generation import OnText, numbered
from steerlab.models.identity import identify, remember_orders, state_of
from steerlab.models.inference import batches_of_rows, eval_mode
from steerlab.models.interventions import (
    begin_prompt,
    end_texts,
    is_steered,
    is_steered_by_row,
    lock_of,
    rows_with_front,
)
from steerlab.models.loading import load_model, load_tokenizer
from steerlab.models.prompts import space_token, token_ids, token_span
from steerlab.models.unembedding import FinalNorm, final_norm
from steerlab.progress import Loading, ShouldStop, Watch, with_bar


class LanguageModel:
    """A causal language model: `.model` and `.tokenizer` are plain transformers objects.

    Make one with `LanguageModel.load("smollm2")`, or from your own objects with
    `LanguageModel(model, tokenizer)`. Generating and recording take turns, by a lock.

    blocks: dotted name of the block list, for models where it is not found.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any | Callable[[], Any],
        *,
        source: str | None = None,
        blocks: str | None = None,
    ) -> None:
        if not hasattr(model, "generate") or model.get_output_embeddings() is None:
            raise ModelError(f"{type(model).__name__} has no causal head: it can't write text")
        check_reads_text(model)
        remember_orders(model)
        self.model = model
        self.source = source or getattr(model, "name_or_path", "") or type(model).__name__
        self.parent, self.blocks = find_blocks(model, blocks)
        self._tokenizer = tokenizer
        self._is_causal = False
        self._final_norm: tuple[Hashable, FinalNorm] | None = None

    @classmethod
    @checks_names()
    @with_bar("loading")
    def load(
        cls,
        source: str = "smollm2",
        *,
        device: str | None = None,
        dtype: str | None = None,
        device_map: str | Mapping[str, Any] | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        blocks: str | None = None,
        layout: str | None = None,
        progress: Loading | None = None,
    ) -> LanguageModel:
        """Load "smollm2" (the embedded default), a hub id or a local path.

        device: None takes CUDA, then MPS, then the CPU. device_map: "auto" takes several devices.
        dtype: None and "auto" take the checkpoint's own on an accelerator and float32 on a CPU.
        layout: "plain" keeps torch's own linear layers on a CPU; None and "fast" take for each the
            product that is fastest on this processor, which rounds otherwise in the last bits.
        progress: called with (what, done, total) while the embedded model is fetched.
        Raises ModelError for what can't be found or loaded or has no causal head.
        """
        model, location = load_model(
            source,
            device=device,
            dtype=dtype,
            device_map=device_map,
            revision=revision,
            trust_remote_code=trust_remote_code,
            layout=layout,
            progress=progress,
        )

        def tokenizer() -> Any:
            return load_tokenizer(location, revision, trust_remote_code)

        return cls(model, tokenizer, source=source, blocks=blocks)

    @cached_property
    def tokenizer(self) -> Any:
        """The transformers tokenizer, loaded when it is first needed."""
        made_here = callable(self._tokenizer) and not hasattr(self._tokenizer, "decode")
        return self._tokenizer() if made_here else self._tokenizer

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is now, as its vectors carry it; raises ModelError if it is not causal.

        Trained, merged or cast weights and other active adapters make it another one.
        """
        with self.lock, eval_mode(self.model):
            self._check_causal()
        return identify(self.model, self.parent, self.blocks, self.source, self.tokenizer)

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held while the model runs; of the module, so wrappers of one model share it."""
        return lock_of(self.parent)

    @property
    def n_layers(self) -> int:
        """Number of blocks; layers are 0 to n_layers - 1."""
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(text_config(self.model).hidden_size)

    @property
    def final_norm(self) -> FinalNorm:
        """The norm between the last block and the unembedding; read again when weights change."""
        state = state_of(self.model)
        if self._final_norm is None or self._final_norm[0] != state:
            self._final_norm = (state, final_norm(self))
        return self._final_norm[1]

    def __repr__(self) -> str:
        shape = f"{self.n_layers} layers of {self.d_model}"
        return f"<LanguageModel {self.source}: {shape}, {self.model.dtype}, {self.model.device}>"

    # text to tokens

    def tokens(self, prompt: Continued, *, chat: bool = False, bos: bool = False) -> list[int]:
        """Token ids of one prompt.

        chat: as message(s) in the model's chat template, up to where the answer starts.
        bos: begin with exactly one BOS (the end-of-text token, if the model has no BOS).
        """
        return token_ids(self.tokenizer, prompt, source=self.source, chat=chat, bos=bos)

    def span(self, prompt: Prompt, read: Read, *, chat: bool = False) -> Span:
        """The tokens of a prompt that are read, for a read that depends on its turns."""
        return token_span(self.tokenizer, prompt, read, source=self.source, chat=chat)

    def space_token(self) -> int | None:
        """The token of a single space; None if the tokenizer has none."""
        return space_token(self.tokenizer)

    # layers

    def layers(self, choice: LayerChoice = None) -> list[int]:
        """Layer numbers from 15, [10, 15], slice(10, 20), "all" or None (the middle one)."""
        return layer_numbers(choice, self.n_layers, self.source)

    # reading

    def record(
        self, prompt: str, layers: LayerChoice = None, *, chat: bool = False, bos: bool = False
    ) -> dict[int, torch.Tensor]:
        """The residual stream at the input of each layer: (seq, d_model) float32 on the CPU."""
        with self.lock, eval_mode(self.model):
            ids = self.tokens(prompt, chat=chat, bos=bos)
            self.check_length([ids])
            begin_prompt(self.model)
            return recording.record(self.model, self.blocks, ids, self.layers(layers))

    def read_tokens(
        self,
        prompts: Sequence[Ids],
        layers: Sequence[int],
        read: Read | Sequence[Span],
        **watch: Unpack[Watch],
    ) -> Readings:
        """One activation per prompt (token ids) and layer; see `recording.read`."""
        begin_prompt(self.model)
        return recording.read(self.model, self.blocks, prompts, layers, read, **watch)

    def record_tokens(
        self, prompt: Ids, layers: Sequence[int], should_stop: ShouldStop | None = None
    ) -> dict[int, Array]:
        """The residual stream of one prompt: layer -> (seq, d_model) float64."""
        found = recording.record(self.model, self.blocks, prompt, layers, should_stop=should_stop)
        return {layer: hidden.double().numpy() for layer, hidden in found.items()}

    @checks_names(Watch)
    @with_bar("extracting")
    def extract(
        self,
        pairs: Pairs,
        *,
        layers: LayerChoice = None,
        method: str = "mean_difference",
        read: Read = "last",
        chat: bool = False,
        seed: int | None = None,
        baseline: Sequence[str] = (),
        skip_undecided: bool = False,
        **watch: Unpack[Watch],
    ) -> SteeringVector:
        """Make a steering vector of contrast prompts; it points toward the positive ones.

        pairs: (positive, negative) prompts, texts or `Turns`; only positive ones for
            `mean_centred`, which subtracts the mean over `baseline` (or over all of the pairs).
        layers: see `layers()`; all of them come from the same passes.
        method: one of `steerlab.extraction.methods.METHODS`. read: "last", "mean" (all tokens
            but the first), a token index or one of TURN_READS. seed: for the `random` method.
        skip_undecided: leave out layers where the pairs do not decide a direction (for pca, its
            sign), which are an error otherwise.
        progress: called with (prompts read, prompts). should_stop: asked before every block.
        Raises BadPrompts, also for a direction that is zero at all layers; BadOption, NotFound;
        SteeringError if activations are not finite; Cancelled once should_stop() says so.
        """
        positive, negative = methods.columns(pairs)
        if isinstance(baseline, str):
            raise BadPrompts("baseline prompts are given as a list of texts, not as one text")
        how = {"method": method, "read": read, "chat": chat, "seed": seed}
        recipe = Contrast.of(positive, negative, baseline, **how)
        return self.reextract(recipe, layers, skip_undecided=skip_undecided, **watch)

    def reextract(
        self,
        recipe: Contrast,
        layers: LayerChoice,
        *,
        skip_undecided: bool = False,
        **watch: Unpack[Watch],
    ) -> SteeringVector:
        """Make the vector of a recipe at these layers.

        Many prompts are read in constant memory; if it is stopped, the same call goes on.
        """
        methods.check_recipe(recipe)
        wanted, recipe = self.layers(layers), with_prompts(recipe)
        how: dict[str, Any] = {"skip_undecided": skip_undecided, "scratch": extractions_directory()}
        with self.lock, eval_mode(self.model):
            return runner.extract(self, recipe, wanted, **how, **watch)

    def _check_causal(self) -> None:
        """Raise ModelError for bidirectional models; checked once."""
        if self._is_causal or is_steered(self.model):
            return
        if not recording.is_causal(self.model, self.blocks):
            raise ModelError(
                f"{self.source} attends in both directions: it is not a causal language model, "
                "so it can't be steered"
            )
        self._is_causal = True

    def residual_norms(
        self, prompts: str | Sequence[str], layers: LayerChoice = None, *, chat: bool = False
    ) -> dict[int, float]:
        """Layer -> median norm of the residual stream at positions >= 1: the unit of doses.

        Give them to `SteeringVector(..., residual_norms=...)`, so that a raw array has a dose.
        """
        given = several(prompts, str, "prompts")
        with self.lock, eval_mode(self.model):
            ids = [self.tokens(prompt, chat=chat) for prompt in given]
            if max(map(len, ids), default=0) < 2:
                raise BadPrompts("residual norms need a prompt of two tokens or more")
            self.check_length(ids)
            return self.read_tokens(ids, self.layers(layers), "last").residual_norms

    # writing

    @overload
    def generate(self, prompts: Continued, **options: Any) -> Completion: ...
    @overload
    def generate(self, prompts: Sequence[Continued], **options: Any) -> list[Completion]: ...
    @checks_names()  # type: ignore[misc]  # the options are spelled out once, here
    def generate(
        self,
        prompts: Continued | Sequence[Continued],
        *,
        max_new_tokens: int = 40,
        temperature: float = 0.0,
        top_p: float = 1.0,
        top_k: int = 0,
        repetition_penalty: float = 1.0,
        seed: int | Sequence[int] = 0,
        chat: bool = False,
        on_text: OnText | None = None,
        should_stop: ShouldStop | None = None,
        use_cache: bool = True,
        bos: bool | None = None,
    ) -> Completion | list[Completion]:
        """Continue one prompt (a Completion) or several as one batch (a list of them).

        A prompt is a text or, with chat, a `Conversation`. Greedy by default; with a temperature,
        each row samples from its own seed. An enclosing `steering(...)` applies.
        on_text(row, piece): called with whole characters as the text grows. should_stop: asked
        after every token; what was written so far is returned. bos: True begins every prompt with
        BOS, False adds none; None adds it where a front vector steers the row.
        Raises BadPrompts, BadOption; SteeringError when logits become NaN.
        """
        sampling = Sampling(max_new_tokens, temperature, top_p, top_k, repetition_penalty, chat)
        given = several(prompts, Continued, "prompts")
        if not given:
            return []
        seeds = seeds_of(seed, len(given))
        with self.lock, eval_mode(self.model):
            ids = self._batch_tokens(given, chat, bos)
            self.check_length(ids, sampling.max_new_tokens)
            found: dict[int, Completion] = {}
            for rows in self._batches(ids):
                if found and should_stop is not None and should_stop():
                    found |= {row: Completion("", "", (), "cancelled") for row in rows}
                    continue
                begin_prompt(self.model)
                made = generation.run(
                    self.model,
                    self.tokenizer,
                    [ids[row] for row in rows],
                    sampling,
                    [seeds[row] for row in rows],
                    on_text=numbered(on_text, rows),
                    should_stop=should_stop,
                    use_cache=use_cache,
                )
                found |= dict(zip(rows, made, strict=True))
            end_texts(self.model, {r: m.finish for r, m in found.items() if len(m.token_ids) == 1})
        results = [replace(found[row], prompt=str(p)) for row, p in enumerate(given)]
        return results[0] if isinstance(prompts, Continued) else results

    async def agenerate(self, prompts: Continued | Sequence[Continued], **options: Any) -> Any:
        """`generate` for asyncio: in a thread, with the steering; cancelling stops it in a token.

        options: as for `generate`; on_text is called in that thread.
        """
        return await asynchronous.generate(self, prompts, **options)

    def stream(self, prompt: Continued, **options: Any) -> AsyncIterator[str]:
        """The pieces of a text as it grows: `async for piece in lm.stream("I think")`.

        Leaving the loop stops the generation. options: as for `generate`, without on_text.
        """
        return asynchronous.stream(self, prompt, **options)

    def next_log_probs(self, prompts: Sequence[str], *, chat: bool = False) -> torch.Tensor:
        """Log-probabilities of the next token: (n_prompts, vocab) float32 on the CPU."""
        if isinstance(prompts, str) or not prompts:
            raise BadPrompts("next_log_probs takes a list of prompts, at least one")
        with self.lock, eval_mode(self.model):
            ids = self._batch_tokens(prompts, chat, None)
            self.check_length(ids, 1)
            found: dict[int, torch.Tensor] = {}
            for rows in self._batches(ids):
                begin_prompt(self.model)
                made = generation.greedy_log_probs(self.model, [ids[row] for row in rows], 1)[0]
                found |= dict(zip(rows, made, strict=True))
        return torch.stack([found[row] for row in range(len(ids))])

    def _batches(self, ids: Sequence[Sequence[int]]) -> list[list[int]]:
        found = batches_of_rows(self.model, ids)
        if len(found) > 1 and is_steered_by_row(self.model):
            raise SteeringError(
                f"{self.source} does not keep the rows of a batch apart, so they run in several "
                "batches, in which they have other numbers: give one prompt at a time, or compare "
                "settings by a Lab"
            )
        return found

    def _batch_tokens(
        self, prompts: Sequence[Continued], chat: bool, bos: bool | None
    ) -> list[list[int]]:
        rows = rows_with_front(self.model, len(prompts)) if bos is None else [bos] * len(prompts)
        return [self.tokens(p, chat=chat, bos=row) for p, row in zip(prompts, rows, strict=True)]

    def check_length(self, ids: Sequence[Sequence[int]], new: int = 0) -> None:
        """Raise BadPrompts if the longest prompt and `new` tokens exceed the model's context, or
        if a token is none of the model's.
        """
        check_fits(self.model, ids, new, self.source)
