"""The contrast in a file: which of its columns are texts, answers, labels or system prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from steerlab.core.display import count, printable, some
from steerlab.core.prompts import check_text
from steerlab.errors import BadOption, BadPrompts
from steerlab.files.contrast.table import QUESTIONS, TEXTS, Content, Document, Table, of_rows

Turn = Literal["user", "system", "assistant"]

_PAIRS = (("positive", "negative"), ("pos", "neg"), ("harmful", "harmless"))
_ANSWERS = (
    ("answer_matching_behavior", "answer_not_matching_behavior"),
    ("chosen", "rejected"),
    ("non_compliant_responses", "compliant_responses"),
    ("best answer", "best incorrect answer"),
    ("best answer", "incorrect answers"),
    ("best_answer", "incorrect_answers"),
)
_SYSTEMS = ("system", "system_prompt", "system_message")
_LABELS = ("label", "labels", "class", "target", "is_true", "truth")
_TRUE = ("1", "1.0", "true", "yes", "positive", "pos")
_FALSE = ("0", "0.0", "-1", "false", "no", "negative", "neg")


@dataclass(frozen=True)
class Sets:
    """Two sets of texts, before they are crossed with questions.

    turn: whose texts they are. users, systems: what goes with each row, None for none.
    questions: asked for every row. said: what was understood. paired: row i of both belong
    together.
    """

    positive: list[str]
    negative: list[str]
    said: str
    turn: Turn = "user"
    users: list[str] | None = None
    systems: list[str] | None = None
    questions: tuple[str, ...] = ()
    paired: bool = True


@dataclass(frozen=True)
class Choice:
    """What the user states about a file. columns: positive, negative (or text, label)."""

    columns: tuple[str, ...] = ()
    positive_label: str | None = None


def understand(content: Content, choice: Choice, shape: str | None = None) -> Sets:
    """The contrast of a file; shape: one of SHAPES, None for the first that fits.

    Raises BadPrompts with the names that the file has.
    """
    if isinstance(content, Table):
        for name in choice.columns:
            column_of(content, name)
    for kind, found in (SHAPES[shape],) if shape else SHAPES.values():
        if isinstance(content, kind) and (made := found(content, choice)) is not None:
            if choice.positive_label is not None and found is not _labelled:
                raise BadOption(
                    "--positive-label is for a column of labels: name it with --columns text,label"
                )
            return made
    what = f"it has not the shape {shape}" if shape else "no contrast in it is recognised"
    raise BadPrompts(
        f"{content.name}: {what}: it has {content.names}; name two columns with --columns"
    )


def texts_of(content: Content) -> list[str]:
    """The texts of a file that holds one list of them."""
    made = understand(content, Choice(), "prompts")
    if made.systems is not None:
        raise BadPrompts(f"{content.name}: its system prompts can't be used here: leave them out")
    return made.positive


def _question(table: Table, choice: Choice) -> Sets | None:
    """A question with two answers, which are the assistant's."""
    columns = choice.columns or _known(table, (*_ANSWERS, _PAIRS[0]))
    question = _one_of(table, [q for q in QUESTIONS if q not in map(_fold, columns)])
    if len(columns) != 2 or question is None:
        return None
    made = _paired(table, columns)
    answers = f"{printable(question)} + {made.said}, answers in the assistant's turn"
    return Sets(
        made.positive,
        made.negative,
        answers + _unused(table, [question, *columns], made.systems),
        "assistant",
        _beside(table, question, columns[0]),
        made.systems,
    )


def _labelled(table: Table, choice: Choice) -> Sets | None:
    """A column of texts and a column with two labels: unpaired sets."""
    columns = choice.columns
    if not columns and not _known(table, (*_PAIRS, *_ANSWERS)):
        label = _one_of(table, _LABELS) or _two_valued(table)
        text = _one_of(table, TEXTS) or _only(n for n in _text_columns(table) if n != label)
        columns = (text, label) if text is not None and label is not None else ()
    if len(columns) != 2:
        return None
    text, label = (column_of(table, name) for name in columns)
    if _fold(text) in _LABELS and _fold(label) not in _LABELS:
        raise BadPrompts(f"{table.name}: {text} are labels: give --columns {label},{text}")
    labels = [_label(value) for value in table.columns[label]]
    kinds = dict.fromkeys(labels)
    if choice.columns and choice.positive_label is None:
        named = _fold(label) in _LABELS
        if not named and not all(_fold(k) in (*_TRUE, *_FALSE) for k in kinds):
            return None
    up, down = _signs(table, label, list(kinds), choice.positive_label)
    texts = column_texts(table, text)
    positive = [t for t, kind in zip(texts, labels, strict=True) if kind == up]
    negative = [t for t, kind in zip(texts, labels, strict=True) if kind == down]
    said = f"{text} with {label} {printable(up)} against {printable(down)}"
    unused = _unused(table, [text, label])
    return Sets(positive, negative, said + unused, paired=False)


def _signs(table: Table, label: str, kinds: list[str], chosen: str | None) -> tuple[str, str]:
    """The positive and the negative label."""
    if len(kinds) != 2:
        shown = some([printable(kind)[:30] or "''" for kind in kinds])
        raise BadPrompts(f"{table.name}: {label} has to have two values, and has {shown}")
    one, two = kinds
    if chosen is not None:
        match = [kind for kind in kinds if _fold(kind) == _fold(chosen)]
        if not match:
            raise BadPrompts(f"{table.name}: {label} has no value {chosen}, but {one} and {two}")
        return match[0], two if match[0] == one else one
    for up, down in ((one, two), (two, one)):
        if _fold(up) in _TRUE and _fold(down) in _FALSE:
            return up, down
    raise BadPrompts(
        f"{table.name}: {label} has the values {printable(one)[:30]} and {printable(two)[:30]}: "
        "say which is positive with --positive-label"
    )


def _pairs(table: Table, choice: Choice) -> Sets | None:
    """Two columns of texts, or one that is known to be positive."""
    columns = choice.columns or _known(table, (*_PAIRS, *_ANSWERS))
    if not columns:
        texts = _text_columns(table)
        if len(texts) == 2 and not {*map(_fold, texts)} & {*TEXTS, *_LABELS}:
            columns = tuple(texts)
            _check_names(table, texts)
    if len(columns) != 2:
        return None
    made = _paired(table, columns)
    if not made.negative:
        return None
    turn: Turn = "assistant" if tuple(map(_fold, columns)) in _ANSWERS else "user"
    said = made.said + _unused(table, columns, made.systems)
    return Sets(made.positive, made.negative, said, turn, systems=made.systems)


def _alone(table: Table, choice: Choice) -> Sets | None:
    """One column of texts."""
    name = _only(choice.columns) if choice.columns else _one_of(table, reversed(TEXTS))
    if name is None and not choice.columns:
        name = _only(_text_columns(table))
        _check_names(table, [name] if name else [])
    if name is None:
        return None
    name = column_of(table, name)
    system = None if _fold(name) in _SYSTEMS else _one_of(table, _SYSTEMS)
    systems = _beside(table, system, name)
    said = f"{name} alone{_unused(table, [name], systems)}"
    return Sets(column_texts(table, name), [], said, systems=systems)


def _persona(document: Document, choice: Choice) -> Sets | None:
    """persona_vectors: instructions {pos, neg} as system prompts, crossed with questions."""
    if not {"instruction", "questions"} <= document.data.keys():
        return None
    rows, questions = document.data["instruction"], document.data["questions"]
    if not isinstance(rows, list) or not isinstance(questions, list) or not (rows and questions):
        raise BadPrompts(f"{document.name}: instruction and questions have to be lists")
    table = of_rows(enumerate(rows, 1), document.name, "instruction")
    made = _paired(table, choice.columns or ("pos", "neg"))
    asked = column_texts(of_rows(enumerate(questions, 1), document.name, "question"), "text")
    said = f"{made.said} in the system prompt"
    return Sets(made.positive, made.negative, said, "system", questions=tuple(asked))


def _continuations(document: Document, choice: Choice) -> Sets | None:
    """jukofyork: classes and, for each row, a continuation of the system prompt by class."""
    if not {"classes", "data"} <= document.data.keys():
        return None
    classes, rows = document.data["classes"], document.data["data"]
    listed = isinstance(classes, list) and isinstance(rows, list)
    if not listed or not all(isinstance(c, str) for c in classes):
        raise BadPrompts(f"{document.name}: classes are a list of names, and data a list of rows")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, list) or len(row) != len(classes):
            raise BadPrompts(f"{document.name}, data {number}: expected {len(classes)} texts")
    if not choice.columns and len(classes) != 2:
        raise BadPrompts(
            f"{document.name} has the classes {some(classes)}: choose two with --columns"
        )
    named = [(n, dict(zip(classes, row, strict=True))) for n, row in enumerate(rows, 1)]
    made = _paired(of_rows(named, document.name, "data"), choice.columns or classes)
    return Sets(made.positive, made.negative, f"{made.said} in the system prompt", "system")


SHAPES: Mapping[str, tuple[type[Content], Callable[[Any, Choice], Sets | None]]] = {
    "persona": (Document, _persona),
    "continuations": (Document, _continuations),
    "label": (Table, _labelled),
    "question": (Table, _question),
    "pairs": (Table, _pairs),
    "prompts": (Table, _alone),
}
"""The shapes by name, in the order in which they are tried."""


# columns


def column_of(table: Table, name: str) -> str:
    """The column of that name; raises BadPrompts with the names that there are."""
    found = table.find(name)
    if found is None:
        raise BadPrompts(f"{table.name}: no column {printable(name)[:60]}: it has {table.names}")
    return found


def _paired(table: Table, columns: Sequence[str]) -> Sets:
    """Two columns as sets, with the system prompts of a third; negatives may be left out."""
    named = [column_of(table, name) for name in columns]
    if len(named) != 2:
        raise BadOption(f"{table.name}: name two columns, the positive one first")
    up, down = named
    negative = table.columns[down]
    if any(value is not None for value in negative):
        for index, value in enumerate(negative):
            if value is None:
                raise BadPrompts(f"{table.place(index)}: no {down} prompt, though others have one")
    system = None if {up, down} & set(_SYSTEMS) else _one_of(table, _SYSTEMS)
    return Sets(
        column_texts(table, up),
        [] if not any(value is not None for value in negative) else column_texts(table, down),
        f"{printable(up)} against {printable(down)}",
        systems=_beside(table, system, up),
    )


def _beside(table: Table, name: str | None, one: str) -> list[str] | None:
    """The texts of a column whose row i goes with row i of another; None for no column."""
    if name is None:
        return None
    found, wanted = len(table.columns[name]), len(table.columns[one])
    if found != wanted:
        raise BadPrompts(
            f"{table.name}: {printable(name)[:60]} has {count(found, 'value')}, and "
            f"{printable(one)[:60]} has {wanted}: give one for each"
        )
    return column_texts(table, name)


def column_texts(table: Table, name: str) -> list[str]:
    """A column of texts; raises BadPrompts for the first value that is not text."""
    return [_text(v, name, table.place, i) for i, v in enumerate(table.columns[name])]


def _text(value: Any, name: str, place: Callable[[int], str], index: int) -> str:
    if isinstance(value, list) and value:  # of several answers the first
        value = value[0]
    if isinstance(value, str) and _fold(name) == "incorrect answers":
        value = value.split(";")[0].strip()
    if not isinstance(value, str) or not value.strip():
        what = "missing" if value is None else "empty or not text"
        raise BadPrompts(f"{place(index)}: the {printable(name)[:60]} prompt is {what}")
    check_text(value, f"{place(index)}: the {printable(name)[:60]} prompt")
    return value


def _text_columns(table: Table) -> list[str]:
    """Columns that hold texts, not the numbers and truth values of a CSV."""
    return [name for name, values in table.columns.items() if any(map(_is_text, values))]


def _is_text(value: Any) -> bool:
    if isinstance(value, str) and len(value) > 100:
        return True
    if not isinstance(value, str) or _fold(value) in ("true", "false", "none", "null", "nan", ""):
        return False
    try:
        float(value)
    except ValueError:
        return True
    return False


def _known(table: Table, pairs: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The first of known pairs of names that the table has, as it spells them; else none."""
    for up, down in pairs:
        found = (table.find(up), table.find(down))
        if None not in found:
            return tuple(map(str, found))
    return ()


def _one_of(table: Table, names: Iterable[str]) -> str | None:
    """The first of these names that is a column."""
    return next((found for name in names if (found := table.find(name)) is not None), None)


def _check_names(table: Table, names: Sequence[str]) -> None:
    """Raise BadPrompts for unknown names that look like prompts: of a file without a header."""
    if names and all(len(name.split()) > 3 or name.strip()[-1:] in ".!?" for name in names):
        raise BadPrompts(
            f"{table.name}: its columns are called {some([printable(n)[:60] for n in names])}, "
            "which look like prompts: put a line with names above, or give these as --columns"
        )


def _only(names: Iterable[str]) -> str | None:
    found = list(names)
    return found[0] if len(found) == 1 else None


def _unused(table: Table, used: Sequence[str], systems: object = None) -> str:
    """The unread parts of a file, as the end of the sentence that describes the sets."""
    system = _one_of(table, _SYSTEMS) if systems else None
    taken = {*map(_fold, used), _fold(system or "")}
    left = [printable(n)[:40] for n in table.columns if n and _fold(n) not in taken]
    parts = [f"not used: {some(left)}"] if left else []
    parts += [
        f"the first of several texts in {printable(name)[:40]}"
        for name in used
        if any(isinstance(value, list) and len(value) > 1 for value in table.columns[name])
    ]
    return "".join(f"; {part}" for part in (*parts, table.part) if part)


def _two_valued(table: Table) -> str | None:
    """The only column with exactly two values in four or more rows: labels."""
    return _only(
        name
        for name, values in table.columns.items()
        if len(values) >= 4 and len({_label(value) for value in values}) == 2
    )


def _label(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _fold(text: str) -> str:
    return text.strip().lower()
