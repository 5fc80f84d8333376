"""How a generated text is shown: its heading, words that differ, tokens that were changed."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content

from steerlab.core.audit import AuditedText
from steerlab.core.display import marked_words, printable
from steerlab.core.run import Run
from steerlab.tui.setup import Pin

_PROMPT_TOKENS = 100


def heading(coefficient: float, dose: float | None, name: str = "") -> str:
    """The heading of a text: "baseline", or coefficient and dose, after a name."""
    if not coefficient:
        return "baseline"
    shown = f"dose {dose:+.2f}" if dose is not None else "dose ?"
    return "  ".join([*([name] if name else []), f"c {coefficient:+.3g}", shown])


def headings(run: Run) -> list[str]:
    """The headings of a run's texts; with vector and layers where these differ."""
    owns = [text if text.expression else run for text in run.generations]
    names = [Pin(own.expression, None, 0.0, own.layers).name for own in owns]
    texts = zip(run.generations, names, strict=True)
    return side_by_side([(text.coefficient, text.dose, name) for text, name in texts])


def side_by_side(texts: Sequence[tuple[float, float | None, str]]) -> list[str]:
    """The headings of texts by coefficient, dose and name.

    The name comes first where names differ, last where there is one, so that the strength is not
    cut, and not at all where several texts of one vector have little room.
    """
    steered = [name for coefficient, _, name in texts if coefficient]
    if len(steered) == 1:
        return [f"{heading(c, dose)}  {name}" if c else heading(c, dose) for c, dose, name in texts]
    return [heading(c, dose, name if len(set(steered)) > 1 else "") for c, dose, name in texts]


def rating_text(rating: int | None, *, best: bool) -> str:
    """What a reader thought of a text, in short: "★ best 4/5"."""
    parts = ["★ best"] if best else []
    return " ".join([*parts, *([f"{rating}/5"] if rating is not None else [])])


def marked(text: str, baseline: str | None) -> Content:
    """The text; words that differ from the baseline are bold, the first underlined too."""
    parts: list[str | tuple[str, str]] = []
    first = True
    for piece, differs in marked_words(text, baseline):
        if not differs:
            parts.append(piece)
            continue
        parts.append((piece, "bold underline $text-accent" if first else "bold"))
        first = False
    return Content.assemble(*parts)


def audited(found: AuditedText) -> Content:
    """A summary, then the tokens: those that a steering changed on colour, after their marks.

    Of a long prompt, the last tokens.
    """
    hidden = max(0, found.prompt - _PROMPT_TOKENS)
    tokens = [
        (text, f"$text on $accent {round(20 + 50 * shade)}%" if shade else "dim")
        for text, shade in found.pieces()[hidden:]
    ]
    summary = f"{printable(found.summary())}\n{'…' * bool(hidden)}"
    return Content.assemble((summary, "italic"), *tokens)
