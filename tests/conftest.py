"""What every test shares."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("steerlab", max_examples=60, deadline=None)  # busy machines are slow
settings.load_profile("steerlab")
