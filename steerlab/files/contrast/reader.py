"""Sets of contrast prompts from files, templates and data sets, and a sentence on each.

A recipe names a large set by path and digest instead of holding its prompts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product, repeat
from pathlib import Path
from typing import Any

from steerlab.core.contrast import Contrast
from steerlab.core.display import count, printable
from steerlab.core.prompts import (
    Prompt,
    PromptSet,
    Turns,
    check_prompts,
    check_text,
    check_texts,
    turns_of,
)
from steerlab.errors import BadOption, BadPrompts, NotFound
from steerlab.files.contrast.shapes import (
    SHAPES,
    Choice,
    Sets,
    Turn,
    column_of,
    column_texts,
    texts_of,
    understand,
)
from steerlab.files.contrast.table import Content, Table, of_rows, parse
from steerlab.files.prompts import numbered_lines, read_text

TURNS = ("user", "system", "assistant")
MOST = 200_000
"""The most prompts that each side may have by crossing it with questions and suffixes."""

EMBEDDED = 4000
"""The most prompts that a recipe embeds unless the user asks for it."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(?::\w+)?")


@dataclass(frozen=True)
class ContrastSet:
    """Contrast prompts and, in words, how they were understood.

    paired: else two sets. named: what a recipe keeps of a set that is too large to hold.
    """

    positive: tuple[Prompt, ...]
    negative: tuple[Prompt, ...] = ()
    said: str = ""
    paired: bool = True
    named: PromptSet | None = None

    @property
    def has_turns(self) -> bool:
        """Whether prompts have a system prompt or an answer, so that they are a chat's."""
        return any(isinstance(prompt, Turns) for prompt in (*self.positive, *self.negative))

    def check_method(self, method: str) -> None:
        """Raise BadOption for a method that would pair unpaired prompts."""
        if not self.paired and method != "difference_of_means":
            raise BadOption(
                f"the sets are unpaired, and {method} takes row i of both as a pair: use "
                "difference_of_means, or two columns whose rows belong together"
            )


@dataclass(frozen=True)
class PairsOptions:
    """How a contrast file is read; what is None or empty is recognised.

    shape: one of SHAPES. columns: in the order positive, negative, or text, label. turn: whose
    texts these are. questions, suffixes: files of user's turns and of answers that every pair is
    crossed with. against: a file of the negative texts. template: each text is put where it has {}.
    positive_word, negative_word: texts that need no file. unpaired: sides may differ in length.
    """

    shape: str | None = None
    columns: tuple[str, ...] = ()
    positive_label: str | None = None
    turn: Turn | None = None
    against: Path | None = None
    template: str | None = None
    positive_word: tuple[str, ...] = ()
    negative_word: tuple[str, ...] = ()
    questions: Path | None = None
    suffixes: Path | None = None
    unpaired: bool = False

    def __post_init__(self) -> None:
        if self.shape is not None and self.shape not in SHAPES:
            raise BadOption(f"no shape {self.shape!r}: there are {', '.join(SHAPES)}")
        if self.turn is not None and self.turn not in TURNS:
            raise BadOption(f"a turn is {', '.join(TURNS)}, not {self.turn!r}")
        if len(self.columns) > 2 or not all(self.columns):
            raise BadOption("columns are two names, positive,negative, or one")
        if self.template is not None and self.template.count("{}") != 1:
            raise BadOption('a template has one {} in it, such as "Act as if you\'re {}"')
        if len(self.positive_word) != len(self.negative_word):
            raise BadOption("give as many --negative-word as --positive-word")

    def __bool__(self) -> bool:
        return self != PairsOptions()

    def to_facts(self) -> tuple[str, ...]:
        """The options that are given, as "key=value"; paths are absolute."""
        facts = []
        for field in fields(self):
            for value in _listed(getattr(self, field.name)):
                text = str(value.resolve() if isinstance(value, Path) else value)
                facts.append(f"{field.name}={text}")
        return tuple(facts)

    @classmethod
    def of_facts(cls, facts: Iterable[str]) -> PairsOptions:
        """Inverse of `to_facts`; raises BadOption for other facts."""
        kinds = {field.name: str(field.type) for field in fields(cls)}
        found: dict[str, Any] = {}
        for fact in facts:
            key, _, value = fact.partition("=")
            if key not in kinds:
                raise BadOption(f"the recipe reads its prompts by an unknown option {key[:60]!r}")
            if kinds[key].startswith("tuple"):
                found[key] = (*found.get(key, ()), value)
            elif kinds[key] == "bool":
                found[key] = value == "True"
            else:
                found[key] = Path(value) if kinds[key].startswith("Path") else value
        return cls(**found)


def read_pairs(path: Path | None, options: PairsOptions | None = None) -> ContrastSet:
    """Read contrast prompts from a file, whose content says what it is, not its name.

    path: a file, the id of a Hugging Face data set where `datasets` is installed, or None for
    the words of a template. Raises NotFound, or BadPrompts with the line that is wrong.
    """
    options = options or PairsOptions()
    of_a_file = (options.positive_label, options.shape, path is None and options.columns)
    if (path is None or options.against is not None) and any(of_a_file):
        raise BadOption("--columns, --pairs-format and --positive-label tell how one file is read")
    if path is None:
        name, sets = "", _of_words(options)
    elif options.against is not None:
        name, sets = path.name, _two_files(path, options)
    else:
        name = path.name
        sets = understand(_content(path), Choice(options.columns, options.positive_label),
                          options.shape)  # fmt: skip
    try:
        found = _joined(sets, name, options)
    except BadPrompts as error:
        raise BadPrompts(f"{path}: {error}" if path else str(error)) from None
    sizes = (len(found.positive), len(found.negative))
    if path is None or sum(sizes) <= EMBEDDED:
        return found
    source = str(path.resolve() if path.exists() else path)
    return replace(found, named=PromptSet(source, digest_of(found), *sizes, options.to_facts()))


def columns_of(text: str) -> tuple[str, ...]:
    """Names of columns between commas, as they are typed."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def with_prompts(recipe: Contrast) -> Contrast:
    """The recipe with the prompts of the set that it names, read again; else itself.

    Raises NotFound if the file is gone, BadPrompts if it holds other prompts by now.
    """
    named = recipe.prompt_set
    if named is None or recipe.positive:
        return recipe
    try:
        found = read_pairs(Path(named.path), PairsOptions.of_facts(named.how))
    except NotFound:
        if Path(named.path).exists():  # but not a file beside it
            raise
        raise NotFound(
            f"the recipe's prompts are in {named.path}, which is not there any more: put it back"
        ) from None
    if digest_of(found) != named.digest:
        raise BadPrompts(
            f"{named.path} holds other prompts than when the vector was made (sha256 "
            f"{named.digest[:12]}): put back the file as it was"
        )
    how = {"method": recipe.method, "read": recipe.read, "chat": recipe.chat}
    full = Contrast.of(found.positive, found.negative, recipe.baseline, seed=recipe.seed, **how)
    return replace(full, prompt_set=named)


def digest_of(found: ContrastSet) -> str:
    """sha256 of the prompts, turn by turn."""
    digest = hashlib.sha256()
    for side in (found.positive, found.negative):
        for prompt in side:
            turns = turns_of(prompt)
            line = json.dumps([turns.system, turns.user, turns.answer])
            digest.update(f"{line}\n".encode())
        digest.update(b"\n")
    return digest.hexdigest()


def read_texts(path: Path) -> tuple[str, ...]:
    """A list of texts: lines of a text file, a JSON list, or a column of any contrast file."""
    text = read_text(path, "prompts")
    if text.lstrip()[:1] in "[{" or path.suffix.lower() in (".csv", ".tsv", ".toml", ".jsonl"):
        return tuple(texts_of(parse(text, path)))
    return tuple(line for _, line in numbered_lines(text))


def read_items(path: Path) -> list[dict[str, str]]:
    """Read contrast items: a prompt and two ways to go on, the first with more of the quality.

    The file has columns prompt, positive and negative, in any syntax that pairs may have. A
    prompt may be missing: the continuations then begin the text. Blanks count.
    Raises NotFound, or BadPrompts with the line that is not what it should be.
    """
    table = parse(read_text(path, "items"), path)
    if not isinstance(table, Table):
        raise BadPrompts(f"{path} holds no item: it has {table.names}")
    up, down = (column_texts(table, column_of(table, side)) for side in ("positive", "negative"))
    name = table.find("prompt")
    prompts = [None] * len(up) if name is None else table.columns[name]
    if not len(up) == len(down) == len(prompts):
        raise BadPrompts(f"{path}: positive, negative and prompt differ in their number")
    for row, prompt in enumerate(prompts):
        if prompt is not None:
            check_text(prompt, f"{table.place(row)}: the prompt")
        if up[row] == down[row]:
            raise BadPrompts(f"{table.place(row)}: positive and negative are the same")
    return [
        {"prompt": prompt or "", "positive": one, "negative": other}
        for prompt, one, other in zip(prompts, up, down, strict=True)
    ]


def _content(path: Path) -> Content:
    try:
        return parse(read_text(path, "pairs"), path)
    except NotFound:
        if path.is_absolute() or not _HUB_ID.fullmatch(str(path)):
            raise
        return _from_hub(str(path))


def _from_hub(source: str) -> Content:
    """The rows of a Hugging Face data set: OWNER/NAME, or OWNER/NAME:SPLIT."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise NotFound(
            f"no pairs file {source}: to read a data set of that id, pip install datasets"
        ) from None
    name, _, split = source.partition(":")
    try:
        rows = load_dataset(name, split=split or "train", streaming=True)
        return of_rows(_up_to_most(rows), source, "row")
    except BadPrompts:
        raise
    except Exception as error:  # of a network, a script, a format
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise NotFound(f"the data set {source} can't be read: {why}") from None


def _up_to_most(rows: Iterable[Any]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, row in enumerate(rows, 1):
        if number > MOST:
            raise BadPrompts(f"more than {MOST:,} rows: save those that you need as JSON lines")
        yield number, dict(row)


def _two_files(path: Path, options: PairsOptions) -> Sets:
    """Unpaired sets, the positive ones in one file and the negative ones in another."""
    against = options.against
    assert against is not None
    one, two = (
        understand(_content(file), Choice(options.columns), "prompts").positive
        if options.columns
        else list(read_texts(file))
        for file in (path, against)
    )
    said = f"{printable(path.name)} against {printable(against.name)}"
    return Sets(one, two, said, paired=False)


def _of_words(options: PairsOptions) -> Sets:
    if not options.positive_word:
        raise BadPrompts("no prompts: give --pairs FILE, or --template with words")
    said = ", ".join(map(printable, options.positive_word))
    against = ", ".join(map(printable, options.negative_word))
    return Sets([*options.positive_word], [*options.negative_word], f"{said} against {against}")


def _joined(sets: Sets, name: str, options: PairsOptions) -> ContrastSet:
    """The sets in the template, and with every question and suffix."""
    turn = options.turn or sets.turn
    questions = read_texts(options.questions) if options.questions else sets.questions
    suffixes = read_texts(options.suffixes) if options.suffixes else ()
    _check_turns(sets, turn, questions, suffixes)
    made = [
        tuple(_crossed(sets, texts, turn, options.template or "{}", questions, suffixes))
        for texts in (sets.positive, sets.negative)
    ]
    found = ContrastSet(made[0], made[1], "", sets.paired and not options.unpaired)
    if found.paired:
        check_prompts(found.positive, found.negative or None)
    else:
        check_texts(found.positive, "positive")
        check_texts(found.negative, "negative")
    usual = {"assistant": ", answers in the assistant's turn", "system": " in the system prompt"}
    other = usual.get(sets.turn, "") if turn != sets.turn else ""
    parts = [_counted(found), sets.said.replace(other, "")]
    if options.template:
        parts.append(f'in "{printable(options.template)}"')
    if options.turn and turn != sets.turn:
        parts.append("as system prompts" if turn == "system" else f"in the {turn}'s turn")
    if questions:
        parts.append(f"each with {count(len(questions), 'question')}")
    if suffixes:
        parts.append(f"each with {count(len(suffixes), 'answer')}")
    said = ", ".join(parts)
    return replace(found, said=f"{printable(name)}: {said}" if name else said)


def _check_turns(sets: Sets, turn: Turn, questions: Sequence[str], suffixes: Sequence[str]) -> None:
    if turn != "user" and not questions and sets.users is None:
        what = "system prompts" if turn == "system" else "answers"
        raise BadPrompts(f"the texts are {what}: give the user's turns with --questions FILE")
    if turn == "user" and (sets.users or sets.questions):
        way = "--pairs-format pairs reads them alone" if sets.users else "leave out --turn user"
        raise BadOption(f"the file's texts belong to its questions: {way}")
    if sets.users and questions:
        raise BadOption("the file has questions of its own: leave out --questions")
    if turn == "user" and questions:
        raise BadOption("--questions are the user's turns: say what the texts are with --turn")
    if turn == "assistant" and suffixes:
        raise BadOption("--suffixes are answers, and so are the texts of the file")
    times = max(len(questions), 1) * max(len(suffixes), 1)
    if times > 1 and max(len(sets.positive), len(sets.negative)) * times > MOST:
        raise BadPrompts(f"more than {MOST:,} prompts: give fewer questions or suffixes")


def _crossed(
    sets: Sets,
    texts: Sequence[str],
    turn: Turn,
    template: str,
    questions: Sequence[str],
    suffixes: Sequence[str],
) -> Iterator[Prompt]:
    """Every text with every question and suffix; a text alone stays a plain prompt."""
    wrapped = texts if template == "{}" else [template.replace("{}", text) for text in texts]
    for question, suffix in product(questions or ("",), suffixes or ("",)):
        for i, (text, system) in enumerate(zip(wrapped, sets.systems or repeat(""), strict=False)):
            user = text if turn == "user" else question or (sets.users or wrapped)[i]
            answer = text if turn == "assistant" else suffix
            before = text if turn == "system" else system
            yield Turns(user, before, answer) if answer or before else user


def _counted(found: ContrastSet) -> str:
    up, down = len(found.positive), len(found.negative)
    if not down:
        return count(up, "prompt")
    if found.paired and up == down:
        return count(up, "pair")
    return f"{up:,} against {down:,} prompts" + ("" if found.paired else ", unpaired")


def _listed(value: Any) -> tuple[Any, ...]:
    if isinstance(value, tuple):
        return value
    return () if value in (None, False) else (value,)
