"""What the tests of faults start from."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.models import Dataset
from core.settings import Settings
from tests.installation import Installation
from tests.services import RedisServer, redis_server


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
