"""steerlab search: find vectors by words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options
from steerlab.cli.output import print_json, say
from steerlab.core.display import printable

if TYPE_CHECKING:
    from steerlab.registry import Store
    from steerlab.registry.search import Hit


@click.command("search")
@click.argument("words", nargs=-1, required=True)
@options.filters
@options.limit()
@options.store
@options.json
def search_command(
    words: tuple[str, ...], filters: dict[str, Any], limit: int, store: Store, as_json: bool
) -> None:
    """Find vectors by words in names, prompts, notes and tags.

    \b
    steerlab search "angry customer"
    steerlab search calm --tag checked --layer 15

    A vector matches if it contains all the words, in any order and case. Best matches come
    first: a name counts more than a tag, a tag more than a note, a note more than a prompt.
    """
    text = " ".join(words)
    found = store.search(text, limit=limit, **filters)
    if as_json:
        print_json({"total": found.total, "hits": [_json(hit) for hit in found.hits]})
        return
    edge = max((len(hit.vector.ref) for hit in found.hits), default=0)
    for hit in found.hits:
        click.echo(f"{hit.vector.ref.ljust(edge)}  {hit.place.ljust(6)}  {_marked(hit)}")
    if found.total > len(found.hits):
        say(f"the best {len(found.hits)} of {found.total} (--limit shows more)")
    elif not found.total:
        say(f"no vector contains {text!r}")


def _marked(hit: Hit) -> str:
    """The snippet with the matched words in bold."""
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
