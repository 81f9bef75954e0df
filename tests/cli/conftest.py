"""Fixtures of the CLI's tests: a command in this process, away from whatever this machine has."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.main import main
from core.settings import Settings
from tests.app.served import Api, serving
from tests.services import RedisServer
from tests.stack import Stack

Main = Callable[..., "Ended"]


class Ended:
    """How a command ended that ran in the test's own process."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def epochd(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Main:
    """Runs a command in this process, in a folder and with a data directory of the test's own."""
    for name in list(os.environ):
        if name.startswith("EPOCHD_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("EPOCHD_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Ended:
        monkeypatch.setattr("sys.argv", ["epochd", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def on_stack(epochd: Main, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Main:
    """The same, against the shared stack."""
    monkeypatch.setenv("EPOCHD_DATA_DIR", str(stack.data_dir))
    return epochd


@pytest.fixture
def api(migrated_sqlite: Path, redis: RedisServer, tmp_path: Path) -> Iterator[Api]:
    """The API of an installation of the test's own, whose workers are played."""
    shutil.copy(migrated_sqlite, tmp_path / "epochd.sqlite3")
    with serving(Settings(data_dir=tmp_path, redis_url=redis.url)) as served:
        yield served


@pytest.fixture
def on_api(api: Api, epochd: Main, monkeypatch: pytest.MonkeyPatch) -> Main:
    """The same, against that API: which comes first, so that its log is none of what a command says."""
    monkeypatch.setenv("EPOCHD_URL", f"http://127.0.0.1:{api.port}")
    monkeypatch.setenv("EPOCHD_API_KEY", api.key)
    return epochd
