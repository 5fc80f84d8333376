"""steerlab serve: a model for many clients, each request with its own steering."""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from steerlab.cli import options, output

if TYPE_CHECKING:
    from steerlab.lab.lab import Lab
    from steerlab.models.language_model import LanguageModel

HOST, PORT = "127.0.0.1", 8100


@options.verb("serve")
@click.argument("model", required=False, metavar="[MODEL]")
@click.option("--host", default=HOST, show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True)
@click.option(
    "--api-key",
    envvar="STEERLAB_API_KEY",
    help="What requests must bring; made and printed if others can reach the host.",
)
@options.integer("--max-rows", least=1, default=16, text="Texts written at once.")
@options.integer("--queue", least=1, default=256, text="Texts that may wait; then 429.")
@options.integer(
    "--max-tokens", least=16, default=65536, text="Tokens that the texts at once may hold."
)
@options.loading
@options.store_path
@options.quiet
def serve_command(
    model: str | None,
    host: str,
    port: int,
    api_key: str | None,
    max_rows: int,
    queue: int,
    max_tokens: int,
    loading: dict[str, Any],
    store_path: Path | None,
) -> None:
    """Serve a model over OpenAI's API, steered by stored vectors.

    \b
    steerlab serve smollm2
    curl localhost:8100/v1/completions -H 'Content-Type: application/json' \\
      -d '{"model": "smollm2", "prompt": "I think you are a", "steering": "love dose=0.2"}'

    A request's own field "steering" is a text such as "love - anger dose=0.2 layers=15
    positions=generated", an object with these names, or a list, which adds up. Without a strength
    the calibrated one is used. The model "smollm2:love" is smollm2 with love. "steering_monitor":
    ["love"] returns the projection of each token. Vectors saved meanwhile can be used at once.

    Ctrl-C finishes the texts that are being written; a second one ends them.
    """
    if model is not None and loading["source"] is not None:
        raise click.UsageError("give MODEL or --model, not both")
    loading["source"] = model or loading["source"] or "smollm2"
    from steerlab.serving.app import is_loopback

    if api_key is None and not is_loopback(host):
        api_key = secrets.token_urlsafe(24)
        output.say(f"{host} can be reached by others, so requests need this key: {api_key}")
    limits = {"rows": max_rows, "queue": queue, "tokens": max_tokens}
    _serve(host, port, api_key, limits, store_path, loading)


def _serve(
    host: str,
    port: int,
    api_key: str | None,
    limits: dict[str, int],
    store_path: Path | None,
    loading: dict[str, Any],
) -> None:
    from steerlab.lab.lab import Lab
    from steerlab.serving.app import Server
    from steerlab.serving.engine import Engine, Limits
    from steerlab.serving.run import run

    output.narrate()
    lab = Lab(store_path, **loading)
    name = served_name(loading["source"])
    engine = Engine(partial(_load, lab), Limits(**limits))
    server = Server(lab, engine, name, host=host, api_key=api_key)

    def ready(address: str) -> None:
        key = " -H 'Authorization: Bearer KEY'" if api_key is not None else ""
        output.say(f"{name} is served at {address}/v1 (Ctrl+C ends it). Try:")
        output.say(
            f"  curl {address}/v1/completions -H 'Content-Type: application/json'{key} -d "
            f'\'{{"model": "{name}", "prompt": "I think you are a", "temperature": 0, '
            '"steering": "love"}\''
        )

    asyncio.run(run(server, engine, host, port, ready))


def _load(lab: Lab) -> LanguageModel:
    from steerlab.models.loading import hush

    hush()
    return lab.load()


def served_name(source: str) -> str:
    """What clients call the model: its id, or the last part of a directory."""
    path = Path(source)
    return path.resolve().name if path.is_dir() else source
