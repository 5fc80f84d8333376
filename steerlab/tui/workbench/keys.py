"""The keys of the workbench. A footer has room for a word, the palette and help for a phrase."""

from __future__ import annotations

from functools import partial

from textual.binding import Binding, BindingType

from steerlab.tui.detail.detail import Detail
from steerlab.tui.help import HELP_KEY
from steerlab.tui.workbench.texts import AUDIT

_always = partial(Binding, priority=True)  # also while a field has the focus
_more = partial(Binding, show=False)  # not in the footer

_GENERATE = _always("ctrl+g,f5", "generate", "generate", key_display="^g", tooltip="generate texts")
_SAVE = _always("ctrl+s", "at('steer', 'save')", "save", tooltip="save the expression…")
_OPTIONS = _always("ctrl+o", "at('settings', 'options')", "options", tooltip="set the options…")
_TEXTS = _always(
    "ctrl+t", "at('settings', 'columns')", "texts", tooltip="change the number of texts"
)

KEYS: list[BindingType] = [
    _GENERATE,
    HELP_KEY,
    _always("slash", "focus_filter", "filter", tooltip="filter the vectors"),
    _SAVE,
    Binding("x", "extract", "extract", tooltip="extract a vector from prompts…"),
    Binding("w", "sweep", "sweep", tooltip="sweep layers and doses…"),
    _OPTIONS,
    _TEXTS,
    Binding("q", "app.quit", "quit", tooltip="quit steerlab"),
    # the vector under the cursor
    _more("c", "app.verb('calibrate')", "calibrate the vector…"),
    _more("e", "app.verb('evaluate')", "evaluate the vector…"),
    _more("i", "app.verb('inspect')", "inspect the vector…"),
    _more("o", "app.verb('report')", "report on the vector…"),
    _more("r", "at('browse', 'rename')", "rename the vector…"),
    _more("delete", "at('browse', 'remove')", "delete the vector"),
    _more("z", "at('browse', 'undo')", "undo the last change"),
    _more("E", "app.verb('export')", "export the vector…"),
    _more("I", "app.verb('import')", "import vectors…"),
    # the lab
    _more("left_square_bracket", "at('settings', 'layer(-1)')", "steer a layer earlier"),
    _more("right_square_bracket", "at('settings', 'layer(1)')", "steer a layer later"),
    _more("t", "at('settings', 'pin')", "keep the setting as a column"),
    _more("T", "at('settings', 'unpin')", "drop the kept columns"),
    _more("n", "at('settings', 'prompt(1)')", "take the next prompt"),
    _more("p", "at('settings', 'prompt(-1)')", "take the previous prompt"),
    _more("L", "at('settings', 'prompts')", "load a list of prompts…"),
    _more(*AUDIT),
    _more("y", "app.copy_command", "copy the setup as a command"),
    _more("m", "at('lab', 'model')", "choose the model…"),
    # the store, and moving about
    _more("h", "health", "check the store…"),
    _more("ctrl+n", "at('browse', 'starter')", "make the starter vectors"),
    _more("escape", "back", "stop, or go back"),
    _more("f2", "go('table')", "go to the vectors"),
    _more("f3", "go('detail')", "go to the details"),
    _more("f4", "go('lab')", "go to the lab"),
    *(_more(str(n), f"tab('{name}')", f"show {name}") for n, name in enumerate(Detail.TABS, 1)),
]
