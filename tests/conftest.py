"""Fixtures of all tests: a migrated database of each kind, a Redis, and local stacks."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlmodel import SQLModel

from core.database import connect, migrate
from core.dispatch import Bell
from core.live_log import LiveLog
from core.settings import Settings
from core.store import Store, open_store
from core.unit_of_work import UnitOfWork
from tests.house import House
from tests.installation import LONG, Installation
from tests.services import PostgresServer, RedisServer, find_postgres, missing, redis_server
from tests.stack import Stack


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
def shared_database(postgres: PostgresServer) -> str:
    """A migrated PostgreSQL database that every test finds, and leaves, empty."""
    return postgres.new_database("shared", like="template_epochd")


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
    """A migrated and empty database: each test that asks for it runs on both kinds."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "epochd.sqlite3")
        yield f"sqlite:///{tmp_path / 'epochd.sqlite3'}"
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        yield request.getfixturevalue("shared_database")
        server.empty_database("shared", [table.name for table in reversed(SQLModel.metadata.sorted_tables)])


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


@pytest.fixture
def house(work: UnitOfWork) -> House:
    """An owner with a dataset, on each kind of database."""
    return House(work)


@pytest.fixture(scope="session")
def undisturbed_weights(
    tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path, redis: RedisServer
) -> Iterator[str]:
    """The hash of the weights that a run of LONG ends with when nothing happens to it."""
    data_dir = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(migrated_sqlite, data_dir / "epochd.sqlite3")
    made = Installation(Settings(data_dir=data_dir, redis_url=redis.url))
    with made.worker():
        job = made.submit(made.add_dataset(), **LONG)
        assert made.wait_for_status(job, "succeeded", "failed").status == "succeeded"
    yield made.weights(job)
    made.work.close()


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running stack that tests may use and must leave as it is."""
    shared = Stack(tmp_path_factory.mktemp("stack") / "data")
    yield shared.ready()
    shared.stop()


@pytest.fixture
def new_stack(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    """Starts stacks that end with the test."""
    started: list[Stack] = []

    def start(data_dir: Path = tmp_path / "data", **environment: str) -> Stack:
        started.append(Stack(data_dir, **environment))
        return started[-1]

    yield start
    for stack in started:
        stack.stop()
