"""Fixtures of the dashboard's tests: one browser, and for each test an installation and a tab of its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from core.settings import Settings
from tests.app.served import Api, serving
from tests.browser.chromium import chromium
from tests.browser.visitor import Visitor
from tests.services import RedisServer

_PATIENCE_SECONDS = 60


# Of the package: while it is there an event loop is taken to run in this thread, which other tests might mind.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """A Chromium that the tests of a process share."""
    # Generous: other tests may run on the same cores. Nothing waits longer than it must.
    expect.set_options(timeout=_PATIENCE_SECONDS * 1000)
    with chromium() as started:
        yield started


@pytest.fixture
def site_settings(migrated_sqlite: Path, redis: RedisServer, tmp_path: Path) -> Settings:
    """The settings of an installation of the test's own."""
    shutil.copy(migrated_sqlite, tmp_path / "epochd.sqlite3")
    return Settings(data_dir=tmp_path, redis_url=redis.url)


@pytest.fixture
def site(site_settings: Settings) -> Iterator[Api]:
    """Its API."""
    with serving(site_settings) as served:
        yield served


@pytest.fixture
def visitor(browser: Browser, site: Api) -> Iterator[Visitor]:
    """Someone at its dashboard; nothing may have gone wrong in the browser when the test is over."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    someone = Visitor(context, site)
    yield someone
    faults = someone.faults
    context.close()
    assert faults == []
