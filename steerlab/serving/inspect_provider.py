"""A provider for Inspect: `inspect eval TASK --model steerlab/smollm2 -M steering="love dose=0.2"`.

Samples that run at once are rows of one batch. `-M store=DIR` names the store.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)

from steerlab.errors import BadOption

if TYPE_CHECKING:
    from inspect_ai.tool import ToolChoice, ToolInfo

_SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "seed")
_UNKNOWN = ("frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "response_schema")


@modelapi("steerlab")
class Steered(ModelAPI):  # type: ignore[misc, unused-ignore]
    """A model in this process whose answers are steered.

    steering: as the field of a request: "love - anger dose=0.2", an object or a list.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  # as Inspect's own providers
        *,
        steering: Any = None,
        store: str | None = None,
    ) -> None:
        from steerlab.serving.in_process import started
        from steerlab.serving.request import parse_steering

        super().__init__(model_name, base_url, api_key, [], config)
        parse_steering(steering)
        self.steering = steering
        self._server = started(model_name, store)

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """One answer, or `num_choices` of them; raises BadOption for what can't be done."""
        if tools:
            raise BadOption("steerlab's provider runs no tools")
        async with self._server.answering(self._body(input, config), chat=True) as found:
            answer = await found.finished()
        return ModelOutput(
            model=self.model_name,
            choices=[
                ChatCompletionChoice(
                    message=ChatMessageAssistant(content=text.text, source="generate"),
                    stop_reason="max_tokens" if text.finish == "length" else "stop",
                )
                for text in answer.texts
            ],
            usage=ModelUsage(
                input_tokens=answer.prompt_tokens,
                output_tokens=answer.tokens,
                total_tokens=answer.prompt_tokens + answer.tokens,
            ),
        )

    def _body(self, said: list[ChatMessage], config: GenerateConfig) -> dict[str, Any]:
        odd = [name for name in _UNKNOWN if getattr(config, name, None)]
        if odd:
            raise BadOption(f"steerlab's provider has no {odd[0]}")
        sampling = {name: getattr(config, name) for name in _SAMPLING}
        return {
            "model": self.model_name,
            "messages": [{"role": one.role, "content": one.text} for one in said],
            "steering": self.steering,
            "n": config.num_choices,
            "stop": config.stop_seqs,
            **{name: value for name, value in sampling.items() if value is not None},
        }

    def max_connections(self) -> int:
        """As many samples at once as the batch has rows."""
        return self._server.engine.limits.rows

    def close(self) -> None:
        """Stop the model's thread."""
        self._server.engine.stop(now=True)
