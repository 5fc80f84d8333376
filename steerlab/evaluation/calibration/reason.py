"""Why a vector is not shown to work, in a line."""

from __future__ import annotations

from collections.abc import Mapping

from steerlab.evaluation.calibration.curve import Cost, HeldOutEffect, lacking, shown_z


def overflow(costs: Mapping[float, Cost]) -> str:
    """The reason if not even the smallest dose leaves the model's logits finite; else empty."""
    if any(cost.kl is not None for cost in costs.values()):
        return ""
    least = min(map(abs, costs))
    return f"the model's logits overflow at every dose, even at ±{least:g}: try smaller --doses"


def why_not(held: HeldOutEffect, safe: tuple[float, float]) -> str:
    """Why a vector is not shown to work, or not safely; empty if it is.

    A vector without meaning may seem to move its own pairs the wrong way, since each is scored
    by the others; so a negative z shows no more than that nothing is shown.
    """
    if safe == (0.0, 0.0):
        return "every dose has side effects beyond the limits on neutral text"
    if held.beats_chance:
        return ""
    if held.wider.sd == 0 and held.effect.mean == 0:
        return (
            "neither the vector nor any control moves an item: nothing can be shown with these "
            "items, or this metric"
        )
    z, needed = shown_z(held.z), f"{held.critical:.1f}"
    if held.z is None or held.z < held.critical:
        return f"no dose beats its control (held-out z {z}, needed {needed}){lacking(held)}"
    low, high = held.effect.low, held.effect.high
    return (
        f"no dose beats its control on every kind of item: z is {z}, but the 95% interval of the "
        f"held-out effect, {low:+.2f} to {high:+.2f}, includes zero"
        f"{lacking(held) or ': more contrast pairs, or items of --items, narrow it'}"
    )
