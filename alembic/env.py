"""Runs the migrations on the engine that `core.database.migrate` hands over, in one transaction."""

from sqlmodel import SQLModel

import core.models  # noqa: F401 - the tables register themselves
from alembic import context

engine = context.config.attributes["engine"]

with engine.begin() as connection:
    if engine.dialect.name == "postgresql":
        # One at a time, as SQLite's BEGIN IMMEDIATE has it: who comes second finds the work done.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('epochd migrations'))")
    context.configure(connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True)
    context.run_migrations()
