"""Fixtures of all tests: a migrated database of each kind, and a Redis."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import sqlalchemy as sa

from core.database import connect, migrate
from core.dispatch import Bell
from core.live_log import LiveLog
from core.settings import Settings
from core.store import Store, open_store
from core.unit_of_work import UnitOfWork
from tests.services import PostgresServer, RedisServer, find_postgres, missing, redis_server


@pytest.fixture(scope="session")
def redis() -> Iterator[RedisServer]:
    """A Redis that the tests of a session share; keys hold job ids, so they do not meet."""
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL cluster, with a migrated database `template_epochd` to copy."""
    binaries = find_postgres()
    if binaries is None:
        missing("PostgreSQL")
        return
    server = PostgresServer(binaries)
    try:
        engine = connect(server.new_database("template_epochd"))
        migrate(engine)
        engine.dispose()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "epochd.sqlite3"
    engine = connect(f"sqlite:///{path}")
    migrate(engine)
    engine.dispose()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A fresh, migrated database: each test that asks for it runs on both kinds."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "epochd.sqlite3")
        yield f"sqlite:///{tmp_path / 'epochd.sqlite3'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        name = f"test_{uuid4().hex}"
        yield server.new_database(name, like="template_epochd")
        server.drop_database(name)


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """An engine on the fresh database."""
    engine = connect(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def settings(database_url: str, redis: RedisServer, tmp_path: Path) -> Settings:
    """The settings of an installation of the test's own."""
    return Settings(data_dir=tmp_path, database_url=database_url, redis_url=redis.url)


@pytest.fixture
def work(engine: sa.Engine, redis: RedisServer) -> UnitOfWork:
    """A unit of work on the fresh database."""
    return UnitOfWork(engine, LiveLog(redis.url), Bell(redis.url))


@pytest.fixture
def store(settings: Settings) -> Store:
    """An empty store."""
    return open_store(settings.store)
