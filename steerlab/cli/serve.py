"""steerlab serve: a model for many clients, each request with its own steering."""

from __future__ import annotations

import asyncio
import os
import secrets
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

from steerlab.cli import options, output

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
@click.option(
    "--engine",
    type=click.Choice(["transformers", "vllm"]),
    default="transformers",
    show_default=True,
    help="vllm: in an environment that has it, named by STEERLAB_VLLM_PYTHON.",
)
@click.option(
    "--vllm-option",
    "vllm_options",
    multiple=True,
    metavar="OPTION",
    help="Passed on to vLLM, such as --vllm-option=--tensor-parallel-size=2; may be repeated.",
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
    engine: str,
    vllm_options: tuple[str, ...],
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

    With --engine vllm, vLLM's own server takes these fields too, but "steering_monitor"; its limits
    are its own. Without --dtype it runs in the checkpoint's precision.

    Ctrl-C finishes the texts that are being written; a second one ends them.
    """
    if model is not None and loading["source"] is not None:
        raise click.UsageError("give MODEL or --model, not both")
    loading["source"] = model or loading["source"] or "smollm2"
    from steerlab.web.guard import is_loopback

    if api_key is None and not is_loopback(host):
        api_key = secrets.token_urlsafe(24)
        output.say(f"{host} can be reached by others, so requests need this key: {api_key}")
    if engine == "vllm":
        _become_vllm(host, port, api_key, store_path, loading, vllm_options)
    limits = {"rows": max_rows, "queue": queue, "tokens": max_tokens}
    _serve(host, port, api_key, limits, store_path, loading)


def _become_vllm(
    host: str,
    port: int,
    api_key: str | None,
    store_path: Path | None,
    loading: dict[str, Any],
    more: tuple[str, ...],
) -> NoReturn:
    """Put vLLM's server, with the plugin, in the place of this process."""
    from steerlab.lab.lab import Lab
    from steerlab.vllm_plugin import launch
    from steerlab.web.listening import check_free

    check_free(host, port)
    source = loading["source"]
    chosen = launch.python()
    further = (*launch.options(loading), *more)
    words = launch.command(chosen, source, served_name(source), host, port, further)
    store = Lab(store_path).store_path
    os.execve(chosen, words, launch.environment(store, api_key))


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
    from steerlab.serving.in_process import load
    from steerlab.serving.run import run

    output.narrate()
    lab = Lab(store_path, **loading)
    name = served_name(loading["source"])
    engine = Engine(partial(load, lab), Limits(**limits))
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


def served_name(source: str) -> str:
    """What clients call the model: its id, or the last part of a directory."""
    path = Path(source)
    return path.resolve().name if path.is_dir() else source
