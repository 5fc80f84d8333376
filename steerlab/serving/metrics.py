"""What /metrics tells, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from steerlab.serving.engine import Engine


def exposition(engine: Engine, requests: Mapping[tuple[str, int], int]) -> str:
    """The counters of an engine; requests: (route, status) -> answers."""
    counts = engine.counts
    answered = [
        (f'{{route="{route}",status="{status}"}}', n) for (route, status), n in requests.items()
    ]
    plain: tuple[tuple[str, str, str, float], ...] = (
        ("queue_texts", "gauge", "Texts that wait for a row.", engine.queued),
        ("running_texts", "gauge", "Texts that are being written.", engine.running),
        ("rows_limit", "gauge", "Rows of the running batch at most.", engine.limits.rows),
        ("queue_limit", "gauge", "Texts that may wait.", engine.limits.queue),
        ("prompt_tokens_total", "counter", "Prompt tokens read.", counts.prompt_tokens),
        ("written_tokens_total", "counter", "Tokens written.", counts.tokens),
        ("texts_total", "counter", "Texts finished.", counts.texts),
        ("texts_cancelled_total", "counter", "Texts cut off by the client.", counts.cancelled),
        ("texts_failed_total", "counter", "Texts that ended with an error.", counts.failed),
        ("passes_total", "counter", "Passes of the model.", counts.passes),
        ("busy_seconds_total", "counter", "Seconds in which the model ran.", counts.seconds),
        ("tokens_per_second", "gauge", "Tokens written a second while busy.", counts.rate),
    )
    lines = list(_metric("requests_total", "counter", "Requests answered.", answered))
    for name, kind, what, value in plain:
        lines += _metric(name, kind, what, [("", value)])
    return "\n".join(lines) + "\n"


def _metric(name: str, kind: str, what: str, values: Iterable[tuple[str, float]]) -> Iterable[str]:
    yield f"# HELP steerlab_{name} {what}"
    yield f"# TYPE steerlab_{name} {kind}"
    for labels, value in values:
        yield (
            f"steerlab_{name}{labels} {value:g}"
            if value % 1
            else f"steerlab_{name}{labels} {int(value)}"
        )
