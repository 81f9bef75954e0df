"""Fixtures of the API's tests."""

from collections.abc import Iterator

import pytest

from core.settings import Settings
from tests.app.served import Api, serving
from tests.services import RedisServer, redis_server


@pytest.fixture
def api(settings: Settings) -> Iterator[Api]:
    """The API of an installation of the test's own, on each kind of database."""
    with serving(settings) as served:
        yield served


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis that a test may kill."""
    with redis_server() as server:
        yield server


@pytest.fixture
def live(settings: Settings, own_redis: RedisServer) -> Iterator[Api]:
    """An API with a Redis that a test may kill."""
    with serving(settings.model_copy(update={"redis_url": own_redis.url})) as served:
        yield served
