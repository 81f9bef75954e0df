"""What the tests of the worker's processes share: an installation of a test's own, and a hub to fetch models from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.models import Dataset
from core.settings import Settings
from tests.installation import Installation
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
