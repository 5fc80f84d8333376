"""Bringing a store up to date; imported only when one is older than HEAD.

`upgrade` runs Alembic's migrations, `bring_over` is for stores from before the first of them.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

from steerlab.errors import StoreError
from steerlab.registry.migrations.earlier import bring_over

__all__ = ["bring_over", "configuration", "upgrade"]


def configuration(connection: Connection) -> Config:
    """Alembic's configuration for an open connection; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema up to date inside the caller's transaction; raises StoreError."""
    try:
        command.upgrade(configuration(connection), revision)
    except CommandError:
        raise StoreError(
            "the registry can't be brought up to date: it has a schema that no steerlab writes; "
            "nothing is lost, the vectors are in its payloads: run `steerlab rebuild`"
        ) from None
