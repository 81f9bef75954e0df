"""The tables come from migrations alone: the same on both databases, never backwards."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlmodel import Session, SQLModel

from alembic import command
from core.database import _alembic_config, connect, migrate, schema_state
from core.errors import Unusable
from core.models import Job
from tests.services import PostgresServer


def test_the_migrated_schema_is_that_of_the_models(engine: sa.Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "include_object": _without_expression_index}
        )
        assert compare_metadata(context, SQLModel.metadata) == []


def _without_expression_index(item: object, name: str | None, *_: object) -> bool:
    # SQLite does not tell of an index on an expression; `test_claims_have_an_index` looks for it by hand.
    return not (isinstance(item, sa.Index) and name == "ix_jobs_claimable")


def test_claims_have_an_index(engine: sa.Engine) -> None:
    catalogue = {
        "sqlite": "SELECT sql FROM sqlite_master WHERE name = 'ix_jobs_claimable'",
        "postgresql": "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_jobs_claimable'",
    }
    with engine.connect() as connection:
        definition = connection.exec_driver_sql(catalogue[engine.dialect.name]).scalar_one()
    columns = definition[definition.rindex("(") :].lower().replace('"', "")
    assert columns == "(status, priority desc, id)"


def test_migrating_again_changes_nothing(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO owners VALUES ('own_1', 'me', '2026-01-01 00:00:00')")
    migrate(engine)
    assert schema_state(engine) == "current"
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT name FROM owners").scalar_one() == "me"


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_what_the_version_before_wrote_is_kept(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if kind == "sqlite":
        engine = connect(f"sqlite:///{tmp_path / 'old.sqlite3'}")
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        engine = connect(postgres.new_database(f"test_{uuid4().hex}"))
    command.upgrade(_alembic_config(engine), "head-1")
    with engine.begin() as connection:
        for table, columns in _OF_THE_VERSION_BEFORE.items():
            metadata = sa.MetaData()
            connection.execute(sa.insert(sa.Table(table, metadata, autoload_with=connection)).values(columns))
    assert schema_state(engine) == "older"
    migrate(engine)
    with Session(engine) as session:
        job = session.get_one(Job, "job_1")
        assert (job.name, job.spec, job.base_checkpoint) == ("kept", {"a": 1}, None)
    engine.dispose()


_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_OF_THE_VERSION_BEFORE: dict[str, dict[str, Any]] = {
    "owners": {"id": "own_1", "name": "me", "created_at": _NOW},
    "datasets": {
        **{"id": "ds_1", "owner_id": "own_1", "filename": "f", "format": "txt", "split": "line", "bytes": 1},
        **{"sha256": "s", "rows": 1, "columns": [], "report": {}, "created_at": _NOW},
    },
    "jobs": {
        **{"id": "job_1", "owner_id": "own_1", "name": "kept", "status": "queued", "priority": 0, "spec": {"a": 1}},
        **{"plan": {}, "dataset_id": "ds_1", "request_sha256": "s", "fence": 0, "attempt": 0, "failures": 0},
        **{"max_failures": 3, "created_at": _NOW},
    },
}


def test_a_newer_database_is_refused_as_it_is(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        current = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    try:
        assert schema_state(engine) == "newer"
        with pytest.raises(Unusable, match="newer version of epochd"):
            migrate(engine)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one() == "9999"
    finally:
        with engine.begin() as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{current}'")


def test_an_empty_sqlite_file_is_older_and_its_folder_is_made(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/a/b/new.sqlite3")
    migrate(engine)
    assert schema_state(engine) == "current"
    engine.dispose()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_many_that_migrate_at_once_are_one(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if kind == "sqlite":
        url = f"sqlite:///{tmp_path}/new.sqlite3"
    else:
        postgres: PostgresServer = request.getfixturevalue("postgres")
        url = postgres.new_database(f"empty_{uuid4().hex}")
    engine = connect(url)
    assert schema_state(engine) == "older"
    code = "import sys; from core.database import connect, migrate; migrate(connect(sys.argv[1]))"
    migrators = [subprocess.Popen([sys.executable, "-c", code, url]) for _ in range(2)]
    assert [migrator.wait(60) for migrator in migrators] == [0, 0]
    assert schema_state(engine) == "current"
    engine.dispose()


def test_every_row_that_a_client_can_name_has_an_owner() -> None:
    for table in SQLModel.metadata.tables.values():
        if table.name == "owners":
            continue
        if "owner_id" in table.columns:
            owner = table.columns["owner_id"]
            assert not owner.nullable
            assert owner.references(SQLModel.metadata.tables["owners"].columns["id"])
        else:  # found only through its job, which has one
            assert table.primary_key.columns.keys()[0] == "job_id"
            assert table.columns["job_id"].references(SQLModel.metadata.tables["jobs"].columns["id"])
