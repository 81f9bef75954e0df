"""The Celery face of the worker: one task, and the signals of the process's life.

Run it with the thread pool, since a task here only supervises: `celery -A worker.celery_app worker --pool threads`.
"""

from typing import Any

from celery.signals import worker_init, worker_ready, worker_shutdown, worker_shutting_down

from core import dispatch
from core.log_setup import set_up_logging
from core.settings import load_settings
from worker.tasks import Worker

settings = load_settings()
app = dispatch.celery_app(settings.redis)
_process: dict[str, Worker] = {}


@app.task(name=dispatch.TASK)
def run_claimable_jobs() -> None:
    """Take up work, if there is any: a message says no more than that."""
    _process["worker"].run_claimable_jobs()


@worker_init.connect
def _open(sender: Any, **_: Any) -> None:
    set_up_logging()
    _process["worker"] = Worker(settings, slots=sender.concurrency)


@worker_ready.connect
def _start(**_: Any) -> None:
    _process["worker"].start()


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    _process["worker"].drain.set()


@worker_shutdown.connect
def _close(**_: Any) -> None:
    _process["worker"].close()
