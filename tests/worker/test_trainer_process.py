"""What a trainer gets of its worker: no secret, a folder of its own, and no more than is allowed."""

from pathlib import Path

import psutil
import pytest

from tests.worker.training.tiny import assignment, ragged_rows
from worker.fork_server import ForkServer, Limits
from worker.trainer_process import TrainerProcess

SECRETS = {
    "EPOCHD_DATABASE_URL": "postgresql://me:hunter2@db/epochd",
    "EPOCHD_REDIS_URL": "redis://:hunter2@redis",
    "EPOCHD_API_KEY": "epochd_00000000_hunter2",
    "DATABASE_URL": "postgresql://me:hunter2@db/epochd",
    "POSTGRES_PASSWORD": "hunter2",
    "HF_TOKEN": "hunter2",
    "AWS_SECRET_ACCESS_KEY": "hunter2",
    "HTTPS_PROXY": "http://me:hunter2@proxy",
    "REDISCLI_AUTH": "hunter2",
}


def test_a_trainer_gets_what_it_needs_and_nothing_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    fork_server = ForkServer({"CUDA_VISIBLE_DEVICES": ""}, Limits(memory_bytes=2**33, open_files=300))
    trainer = TrainerProcess(fork_server, None)
    try:
        assert fork_server.wait_until_ready(give_up=lambda: False)
        trainer.assign(assignment(tmp_path, ragged_rows(200), training={"epochs": 1000}))
        assert next(trainer.facts()).fact == "ready"
        process = psutil.Process(trainer.pid)
        environment = process.environ()
        assert "hunter2" not in str(environment)
        assert not environment.keys() & SECRETS.keys()
        assert environment["OMP_NUM_THREADS"] == "1"
        assert environment["CUDA_VISIBLE_DEVICES"] == ""
        assert "PATH" in environment
        folder = Path(process.cwd())
        assert list(folder.iterdir()) == []
        assert folder.stat().st_mode & 0o777 == 0o700
        assert process.rlimit(psutil.RLIMIT_DATA) == (2**33, 2**33)
        assert process.rlimit(psutil.RLIMIT_NOFILE) == (300, 300)
        memory = trainer.memory()
        assert memory is not None
        assert memory == pytest.approx(process.memory_info().rss, rel=0.3)
    finally:
        trainer.kill()
        fork_server.kill()
    assert trainer.memory() is None
    assert not folder.exists()


def test_where_nothing_is_set_nothing_is_limited() -> None:
    fork_server = ForkServer({}, Limits())
    try:
        process, own = psutil.Process(fork_server.process.pid), psutil.Process()
        for kind in (psutil.RLIMIT_DATA, psutil.RLIMIT_NOFILE):
            assert process.rlimit(kind) == own.rlimit(kind)
    finally:
        fork_server.kill()
