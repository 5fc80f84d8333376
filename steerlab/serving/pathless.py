"""Texts for clients, without the directories of this machine."""

from __future__ import annotations

import os
import re

_DIRECTORIES = re.compile(r"(?<![\w.:/~])~?/(?:[\w.+@%-]+/)+|(?<!\w)[A-Za-z]:\\(?:[^\\\s]+\\)+")


def pathless(text: str, *places: object) -> str:
    """A text whose paths have lost their directories; URLs and names such as org/model stay.

    places: directories that are known, whose names may hold blanks.
    """
    for place in sorted(map(str, places), key=len, reverse=True):
        head = place[: max(place.rfind("/"), place.rfind("\\")) + 1]
        if head and (os.path.isabs(place) or os.path.isdir(place)):
            text = text.replace(place, place[len(head) :])
    return _DIRECTORIES.sub("", text)
