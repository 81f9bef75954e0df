"""The rules of the house that only a running process can show: what each process has loaded."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers"}
HTTP = {"fastapi", "starlette", "uvicorn"}
DATA = {"celery", "kombu", "redis", "sqlmodel", "sqlalchemy", "alembic"}


@pytest.mark.parametrize(
    ("modules", "forbidden"),
    [
        ("app.main", HEAVY | {"worker", "cli"}),
        ("worker.celery_app", HEAVY | HTTP | {"app", "cli"}),
        ("worker.training.loop", DATA | HTTP | {"app", "cli"}),
        ("cli.main", HEAVY | HTTP | {"app", "worker", "celery"}),
    ],
)
def test_a_process_loads_only_what_it_needs(modules: str, forbidden: set[str]) -> None:
    program = f"import {modules}, sys; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert not forbidden & set(loaded.split())
