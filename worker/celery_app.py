"""The Celery face of the worker: one task, and the signals of the process's life.

Run it as `celery -A worker.celery_app worker`: it has a thread for each slot, since a task here only supervises.
"""

from typing import Any

from celery.bootsteps import StartStopStep
from celery.signals import worker_init, worker_shutdown, worker_shutting_down

from core import dispatch
from core.log_setup import set_up_logging
from core.settings import load_settings
from worker.slots import Slots
from worker.tasks import Worker

settings = load_settings()
_slots = Slots(settings)
app = dispatch.celery_app(settings.redis)
app.conf.update(worker_pool="threads", worker_concurrency=len(_slots))
_process: dict[str, Worker] = {}


@app.task(name=dispatch.TASK)
def run_claimable_jobs() -> None:
    """Take up work, if there is any: a message says no more than that."""
    _process["worker"].run_claimable_jobs()


@worker_init.connect
def _open(**_: Any) -> None:
    set_up_logging()
    _process["worker"] = Worker(settings, _slots)


class _Start(StartStopStep):
    """Starts it once signals are heeded, and before Redis has answered: jobs run without it."""

    def start(self, _parent: Any) -> None:
        _process["worker"].start()


app.steps["worker"].add(_Start)


@worker_shutting_down.connect
def _drain(**_: Any) -> None:
    _process["worker"].drain.set()


@worker_shutdown.connect
def _close(**_: Any) -> None:
    _process["worker"].close()
