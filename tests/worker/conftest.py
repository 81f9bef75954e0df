"""What the tests of the worker's processes share: an installation of a test's own or at work, and a hub of models."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from core.models import Dataset
from core.settings import Settings
from tests.installation import Installation
from tests.services import RedisServer
from tests.worker.hub_server import Files, HubServer, model_files


@pytest.fixture
def installation(settings: Settings) -> Iterator[Installation]:
    """An epochd without its HTTP side."""
    made = Installation(settings)
    yield made
    made.work.close()


@pytest.fixture
def dataset(installation: Installation) -> Dataset:
    """A small dataset of texts in it."""
    return installation.add_dataset()


@dataclass(frozen=True)
class AtWork:
    """An installation on SQLite with a dataset and a worker that takes up what is submitted."""

    installation: Installation
    dataset: Dataset
    worker: psutil.Popen


@pytest.fixture(scope="module")
def at_work(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path, redis: RedisServer) -> Iterator[AtWork]:
    """One for tests that leave the worker alive and idle: a worker takes seconds to start."""
    folder = tmp_path_factory.mktemp("at-work")
    shutil.copy(migrated_sqlite, folder / "epochd.sqlite3")
    made = Installation(Settings(data_dir=folder, redis_url=redis.url))
    with made.worker() as worker:
        yield AtWork(made, made.add_dataset(), worker)
    made.work.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """What a tiny model on a hub consists of."""
    return model_files(tmp_path_factory.mktemp("model") / "run")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A hub, which all that is fetched comes from."""
    made = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", made.url)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    yield made
    if made.stall:
        made.stall.set()
    made.close()
