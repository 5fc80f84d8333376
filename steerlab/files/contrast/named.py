"""Large sets that a recipe names by path and digest instead of holding their prompts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from steerlab.core.contrast import Contrast
from steerlab.errors import BadPrompts, NotFound
from steerlab.files.contrast.reader import PairsOptions, digest_of, read_pairs


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
