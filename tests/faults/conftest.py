"""What the tests of faults start from."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.models import Dataset
from core.settings import Settings
from tests.installation import Installation
from tests.services import RedisServer, redis_server

# Long enough to be met in the middle; dropout and a trailing window included.
LONG = {
    "training": {"epochs": 40, "batch_size": 4, "gradient_accumulation_steps": 4},
    "checkpoints": {"every_epochs": 5},
}


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path, redis: RedisServer) -> Iterator[str]:
    """The hash of the weights that a run of LONG ends with when nothing happens to it."""
    data_dir = tmp_path_factory.mktemp("undisturbed")
    shutil.copy(migrated_sqlite, data_dir / "epochd.sqlite3")
    made = Installation(Settings(data_dir=data_dir, redis_url=redis.url))
    with made.worker():
        job = made.submit(made.add_dataset(), **LONG)
        assert made.wait_for_status(job, "succeeded", "failed").status == "succeeded"
    yield made.weights(job)
    made.work.close()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that a test may kill."""
    with redis_server() as server:
        yield server


@pytest.fixture
def installation(tmp_path: Path, migrated_sqlite: Path, own_redis: RedisServer) -> Iterator[Installation]:
    """An epochd without its HTTP side, on SQLite and a Redis of its own."""
    shutil.copy(migrated_sqlite, tmp_path / "epochd.sqlite3")
    made = Installation(Settings(data_dir=tmp_path, redis_url=own_redis.url))
    yield made
    made.work.close()


@pytest.fixture
def dataset(installation: Installation) -> Dataset:
    """A small dataset of texts in it."""
    return installation.add_dataset()
