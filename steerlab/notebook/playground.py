"""The widget of a notebook: an expression, a dose, and the texts of both, as they grow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from steerlab.errors import BadOption

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab
    from steerlab.models.language_model import LanguageModel


def playground(
    model: LanguageModel | Lab,
    expression: str = "",
    prompt: str = "I think you are a",
    *,
    dose: float = 0.2,
    max_new_tokens: int = 40,
) -> Any:
    """A widget that generates with and without a vector as its slider moves.

    model: a LanguageModel, with the store that `Store()` finds, or a Lab. expression: over
        stored vectors.
    Returns an anywidget; raises BadOption where the extra `notebook` is not installed.
    """
    try:
        from steerlab.notebook.widget import Playground
    except ImportError:
        raise BadOption(
            "the widget needs anywidget: pip install 'steerlab[notebook]'; compare(...) shows "
            "texts without it"
        ) from None
    from steerlab.notebook.compare import lab_of

    lab = lab_of(model, "playground")
    return Playground(
        lab, expression=expression, prompt=prompt, dose=dose, max_new_tokens=max_new_tokens
    )
