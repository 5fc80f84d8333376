"""The version of steerlab, as its packages and records have it."""

__version__ = "0.1.0"
