"""What Alembic runs: migrate the connection that `upgrade` was given, in its transaction.

Foreign keys are off on that connection: a batch migration drops and recreates tables, which
would otherwise delete their child rows without a word.
"""

from __future__ import annotations

from alembic import context

from steerlab.registry.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
