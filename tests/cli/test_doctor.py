"""`epochd doctor` says what is broken and what to do, and is content where nothing is."""

from pathlib import Path

import pytest

from cli import checkup
from cli.operator_database import opened
from core import checkpoints, jobs
from core.settings import Settings
from core.store import open_store
from tests.cli.conftest import Main
from tests.house import LOST, House
from tests.services import RedisServer

PIECES = ["database", "clock", "queue", "redis", "store", "files", "disk", "training"]


@pytest.fixture
def settings(epochd: Main, redis: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """An installation without a worker."""
    monkeypatch.setenv("EPOCHD_REDIS_URL", redis.url)
    assert epochd("migrate").status == 0
    return Settings(data_dir=tmp_path / "data", redis_url=redis.url)


def _health(out: str) -> dict[str, str]:
    return {line.split()[1]: line.split()[0] for line in out.splitlines()}


def test_a_running_stack_is_well(on_stack: Main, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_LITTLE_SPACE", 0)
    ended = on_stack("doctor")
    assert (ended.status, ended.err) == (0, "")
    assert _health(ended.out) == dict.fromkeys(PIECES, "ok")
    assert "torch 2." in ended.out


def test_where_nothing_is_yet_it_says_so_and_makes_nothing(epochd: Main, tmp_path: Path) -> None:
    ended = epochd("doctor")
    assert ended.status == 1
    assert _health(ended.out) == {"data": "failed"}
    assert "epochd up" in ended.err
    assert not (tmp_path / "data").exists()


def test_each_fault_has_its_own_words_and_hides_no_other(
    epochd: Main, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EPOCHD_STORE_URL", (tmp_path / "file" / "store").as_uri())
    monkeypatch.setenv("EPOCHD_REDIS_URL", "unix:///nowhere/redis.sock")
    ended = epochd("doctor")
    assert ended.status == 1
    health = _health(ended.out)
    assert {piece for piece, how in health.items() if how == "failed"} == {"redis", "store", "files", "disk"}
    assert "EPOCHD_REDIS_URL" in ended.err
    assert "cannot be made" in ended.out
    assert health["database"] == "ok"
    assert settings.database.endswith("epochd.sqlite3")


def test_an_unmigrated_database_is_named(epochd: Main, settings: Settings) -> None:
    (settings.data_dir / "epochd.sqlite3").unlink()
    ended = epochd("doctor")
    assert ended.status == 1
    assert _health(ended.out)["database"] == "failed"
    assert "There is no database" in ended.out


def test_jobs_without_a_worker_are_counted(epochd: Main, settings: Settings) -> None:
    with opened(settings) as work:
        house = House(work)
        house.running(lease_seconds=-60)
        house.submit()
    ended = epochd("doctor")
    assert ended.status == 1
    assert "1 queued, 1 running, 0 paused; of 1 the worker is gone" in ended.out
    assert "Start a worker" in ended.err


def test_listed_files_that_the_store_has_lost_are_counted(epochd: Main, settings: Settings) -> None:
    store = open_store(settings.store)
    with opened(settings) as work:
        house = House(work)  # whose dataset is a row alone
        claims = [house.running() for _ in range(4)]
        whole, cut_off, gone, deleted = (house.publish(claim, 1, state=False) for claim in claims)
        house.do(jobs.fail, claims[3], LOST)
        house.do(jobs.delete, house.owner_id, deleted.job_id)
    for row, content in ((whole, "1234"), (cut_off, "1")):
        with store.incoming() as folder:
            (folder / "model").mkdir(parents=True)
            (folder / "model" / "model.safetensors").write_text(content)
            store.adopt(folder, checkpoints.store_key(row))
    ended = epochd("doctor")
    assert _health(ended.out)["files"] == "warning"
    assert "3 of 4 that are listed are missing from the store or cut off" in ended.out
    assert "Only a backup brings them back" in ended.err
    assert min(map(checkpoints.store_key, (cut_off, gone))) in ended.out


def test_what_is_only_doubtful_is_no_failure(epochd: Main, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings
    monkeypatch.setattr(checkup, "_LITTLE_SPACE", 2**60)
    monkeypatch.setattr(checkup, "_CLOCK_SECONDS", -1.0)
    monkeypatch.setattr(checkup, "_TORCH", "import no_such_torch")
    ended = epochd("doctor")
    assert ended.status == 0
    health = _health(ended.out)
    assert {piece for piece, how in health.items() if how == "warning"} == {"clock", "disk", "training"}
    assert "NTP" in ended.err
    assert "epochd[worker]" in ended.err


def test_a_gpu_that_is_not_there_or_that_torch_cannot_use_is_a_failure(
    epochd: Main, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings
    monkeypatch.setenv("EPOCHD_GPUS", "99")
    ended = epochd("doctor")
    assert (ended.status, _health(ended.out)["training"]) == (1, "failed")
    assert "EPOCHD_GPUS names the GPU '99'" in ended.out
    monkeypatch.setenv("EPOCHD_GPUS", "all")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-that-is-not-there")
    ended = epochd("doctor")
    assert (ended.status, _health(ended.out)["training"]) == (1, "failed")
    assert "cannot use GPU-that-is-not-there, so jobs train on the CPU" in ended.out
