"""steerlab search: vectors by the words that are in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli.browse import KINDS
from steerlab.cli.options import complete_model, json_option, open_store, store_option
from steerlab.cli.output import print_json, say
from steerlab.core.display import printable

if TYPE_CHECKING:
    from steerlab.registry.search import Hit


@click.command("search")
@click.argument("words", nargs=-1, required=True)
@click.option("--model", metavar="NAME", help="Only this model's.", shell_complete=complete_model)
@click.option("--layer", type=int, help="Only those with a direction at this layer.")
@click.option("--tag", help="Only those with this tag.")
@click.option("--kind", type=click.Choice(KINDS), help="Only those made so.")
@click.option("--all-versions", is_flag=True, help="Older versions too.")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="At most.")
@store_option
@json_option
def search_command(
    words: tuple[str, ...],
    all_versions: bool,
    store_path: Path | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """Find vectors by words in names, prompts, notes and tags.

    \b
    steerlab search "angry customer"
    steerlab search calm --tag checked --layer 15

    All words have to be there, in any order and case. The best hits come first: a name counts
    more than a tag, that more than a note, that more than a prompt.
    """
    text = " ".join(words)
    found = open_store(store_path).search(text, every_version=all_versions, **filters)
    if as_json:
        print_json({"total": found.total, "hits": [_json(hit) for hit in found.hits]})
        return
    edge = max((len(hit.vector.ref) for hit in found.hits), default=0)
    for hit in found.hits:
        click.echo(f"{hit.vector.ref.ljust(edge)}  {hit.place.ljust(6)}  {_marked(hit)}")
    if found.total > len(found.hits):
        say(f"the best {len(found.hits)} of {found.total} (--limit shows more)")
    elif not found.total:
        say(f"no stored vector holds {text!r}")


def _marked(hit: Hit) -> str:
    """The snippet with its words in bold, where bold can be seen."""
    text, at = "", 0
    for start, end in hit.spans:
        text += printable(hit.snippet[at:start])
        text += click.style(printable(hit.snippet[start:end]), bold=True)
        at = end
    return text + printable(hit.snippet[at:])


def _json(hit: Hit) -> dict[str, Any]:
    return {
        "ref": hit.vector.ref,
        "model": hit.vector.model,
        "place": hit.place,
        "snippet": hit.snippet,
        "spans": [list(span) for span in hit.spans],
        "score": hit.score,
    }
