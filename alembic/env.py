"""Runs the migrations on the engine that `core.database.migrate` hands over, in one transaction."""

from sqlmodel import SQLModel

import core.models  # noqa: F401 - the tables register themselves
from alembic import context

engine = context.config.attributes["engine"]

with engine.begin() as connection:
    context.configure(connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True)
    context.run_migrations()
