"""A conversation with a model, steered by what is on when each answer is written."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from steerlab.core.prompts import Conversation
from steerlab.core.run import Generation, Positions, Run
from steerlab.core.sampling import Sampling
from steerlab.core.setting import BASELINE, Setting
from steerlab.errors import BadOption
from steerlab.progress import ShouldStop

if TYPE_CHECKING:
    from steerlab.core.completion import Completion
    from steerlab.core.results import Calibration
    from steerlab.lab.lab import Lab

OnPiece = Callable[[str], object]


class Chat:
    """Messages so far, and how the next answer is steered.

    sampling: `chat` is taken as given. positions, allow_other_weights: as for `steering`.
    setting: what is on; `BASELINE` for nothing. expression: the vector as it was asked for.
    calibration: the vector's, where it acts.
    """

    def __init__(
        self,
        lab: Lab,
        sampling: Sampling,
        *,
        seed: int = 0,
        positions: Positions = "all",
        allow_other_weights: bool = False,
    ) -> None:
        self.lab, self.sampling, self.seed = lab, replace(sampling, chat=True), seed
        self.positions, self.allow_other_weights = positions, allow_other_weights
        self.setting, self.expression = BASELINE, ""
        self.calibration: Calibration | None = None
        self.messages: list[tuple[str, str]] = []
        self._answer: Generation | None = None
        self._baseline: Generation | None = None

    def steer(self, expression: str, dose: float | None = None) -> Setting:
        """Steer with an expression from now on, at a dose or at its operating point.

        Raises BadOption for a dose of a vector whose residual norms are unknown.
        """
        vector = self.lab.evaluate(expression)
        self.lab.load(vector)
        point = self.lab.operating_point(vector)
        strength = point.coefficient if dose is None else point.vector.coefficient(dose)
        self.setting = Setting(point.vector, strength, str(vector))
        self.calibration = self.lab.calibration_of(vector, point.vector.layers)
        self.expression = expression
        return self.setting

    def at_dose(self, dose: float) -> Setting:
        """Steer with the same vector at another dose."""
        vector = self.setting.vector
        if vector is None:
            raise BadOption("no vector is on: /steer EXPR turns one on")
        self.setting = Setting(vector, vector.coefficient(dose), self.setting.label)
        return self.setting

    def off(self) -> None:
        """Steer no longer."""
        self.setting, self.expression, self.calibration = BASELINE, "", None

    def say(self, message: str, on_text: OnPiece, should_stop: ShouldStop) -> Completion:
        """The answer to a message, which both join the conversation unless it is empty.

        on_text(piece): called as the answer grows.
        """
        asked = [*self.messages, ("user", message)]
        answer = self._written(asked, self.setting, on_text, should_stop)
        if answer.text:
            self.messages = [*asked, ("assistant", answer.text)]
            self._answer, self._baseline = self._generation(answer, self.setting), None
        return answer

    def unsteered(self, on_text: OnPiece, should_stop: ShouldStop) -> Completion:
        """What the model answers to the last message by itself; does not join the conversation."""
        if not self.messages:
            raise BadOption("nothing was answered yet")
        answer = self._written(self.messages[:-1], BASELINE, on_text, should_stop)
        self._baseline = self._generation(answer, BASELINE)
        return answer

    def run(self) -> Run | None:
        """The conversation as a run: its last answer after all before it; None without any."""
        if self._answer is None:
            return None
        layers = ",".join(map(str, self.setting.layers))
        return Run(
            self.expression,
            str(Conversation(tuple(self.messages[:-1]))),
            self.lab.model.source,
            (*([self._baseline] if self._baseline else []), self._answer),
            layers=layers,
            positions=self.positions,
            seed=self.seed,
            sampling=self.sampling,
        )

    def kept(self) -> None:
        """The last answer is in a stored run: the next run begins with the next answer."""
        self._answer = self._baseline = None

    def restart(self) -> None:
        """Forget what was said; the steering stays."""
        self.messages, self._answer, self._baseline = [], None, None

    def _written(
        self,
        messages: list[tuple[str, str]],
        setting: Setting,
        on_text: OnPiece,
        should_stop: ShouldStop,
    ) -> Completion:
        from steerlab.interventions.hooks import steering

        model = self.lab.load(setting.vector)
        steered: AbstractContextManager[object] = nullcontext()
        if setting.vector is not None and not setting.is_baseline:
            steered = steering(
                model,
                setting.vector,
                setting.coefficient,
                self.positions,
                allow_other_weights=self.allow_other_weights,
            )
        with steered:
            return model.generate(
                Conversation(tuple(messages)),
                seed=self.seed,
                on_text=lambda row, piece: on_text(piece),
                should_stop=should_stop,
                **self.sampling.options(),
            )

    @staticmethod
    def _generation(answer: Completion, of: Setting) -> Generation:
        tokens = len(answer.token_ids)
        return Generation(float(of.coefficient), of.dose, answer.text, answer.finish, tokens)
