"""The extraction screen: from contrast prompts to a stored vector."""

from steerlab.tui.extract.form import Draft
from steerlab.tui.extract.screen import ExtractScreen

__all__ = ["Draft", "ExtractScreen"]
