"""The Celery face of the worker: one task, and the signals of the process's life.

Run it as `celery -A worker.celery_app worker`: it has a thread for each slot, since a task here only supervises.
"""

import time
from collections import deque
from collections.abc import Callable
from typing import Any

import structlog
from celery.bootsteps import StartStopStep
from celery.concurrency.thread import ApplyResult, TaskPool
from celery.signals import worker_init, worker_shutdown, worker_shutting_down
from celery.worker.consumer import Consumer
from kombu.asynchronous.hub import Hub
from kombu.exceptions import KombuError
from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ResponseError

from core import dispatch
from core.log_setup import set_up_logging
from core.settings import load_settings
from worker.slots import Slots
from worker.tasks import Worker

_log = structlog.get_logger()

settings = load_settings()
_slots = Slots(settings)
app = dispatch.celery_app(settings.redis)
app.conf.update(
    worker_pool="worker.celery_app:WakingThreads",
    worker_concurrency=len(_slots),
    worker_consumer="worker.celery_app:BellsAlone",
)
_process: dict[str, Worker] = {}

# What follows a bell in its message: no arguments, and nothing to do with an answer.
_BELL = [[], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
_BELL_BYTES = 1000
_TELL_SECONDS = 60.0
# Celery asks a Redis that refuses again at once, and says so each time.
_REFUSED_SECONDS = 1.0


@app.task(name=dispatch.TASK)
def run_claimable_jobs() -> None:
    """Take up work, if there is any: a message says no more than that."""
    _process["worker"].run_claimable_jobs()


# Celery's own tasks start whatever tasks a message names.
app.finalize()
for _name in set(app.tasks) - {dispatch.TASK}:
    app.tasks.unregister(_name)


class _Foreign:
    """What reached the queue and is no bell, or one for the second time: counted, and told of now and then."""

    _number, _told, _told_at = 0, 0, float("-inf")

    def count(self) -> None:
        """Count one."""
        self._number += 1
        if time.monotonic() - self._told_at > _TELL_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Say how many there were so far, where that has not been said."""
        if self._told < self._number:
            self._told, self._told_at = self._number, time.monotonic()
            _log.warning(
                "foreign_messages",
                number=self._number,
                effect="none: they were dropped",
                advice="find out who else writes to this Redis, and give it a password of its own",
            )


_foreign = _Foreign()


class BellsAlone(Consumer):
    """Hears bells, each once; nothing comes of any other message."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        """Return what is done with a message."""
        ring = super().create_task_handler(*args, **kwargs)
        heard: deque[str] = deque(maxlen=100)

        def handle(message: Any) -> None:
            if _is_bell(message) and message.headers["id"] not in heard:
                heard.append(message.headers["id"])
                ring(message)
            else:
                _foreign.count()
                message.ack_log_error(_log, self.connection_errors)

        return handle

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Leave a Redis alone for a while that refuses, as one that is away is left alone."""
        if isinstance(exc, ResponseError):
            _log.warning("redis_refuses", reason=str(exc), effect="idle workers look for jobs by themselves")
            time.sleep(_REFUSED_SECONDS)
        super().on_connection_error_after_connected(exc)


class WakingThreads(TaskPool):
    """Threads that have the next bell asked for as soon as one is answered: Celery's own leave that for up to 1 s."""

    def register_with_event_loop(self, hub: Hub) -> None:
        """Remember whom to wake."""
        self._hub = hub

    def on_apply(self, *args: Any, **kwargs: Any) -> ApplyResult:
        """Start a task in a thread."""
        result = super().on_apply(*args, **kwargs)
        result.f.add_done_callback(self._wake)
        return result

    def _wake(self, _: Any) -> None:
        # What it is woken for is of no interest: it looks by itself at what there is to do.
        self._hub.call_soon(bool)  # type: ignore[no-untyped-call]  # kombu's functions have no types


class _Channel(redis.Channel):
    """A connection to the queue on which what is no message at all is counted: kombu's own ends the worker."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError):
            _foreign.count()


class Transport(redis.Transport):
    """Redis, with that channel."""

    Channel = _Channel


TRANSPORT_ALIASES.update(dict.fromkeys(("redis", "rediss"), "worker.celery_app:Transport"))


def _is_bell(message: Any) -> bool:
    try:
        headers = message.headers
        return (
            headers["task"] == dispatch.TASK
            and isinstance(headers["id"], str)
            and len(headers["id"]) <= _BELL_BYTES
            and headers.get("eta") is headers.get("expires") is None
            and len(message.body) <= _BELL_BYTES
            and message.decode() == _BELL
        )
    except (KombuError, LookupError, RecursionError, TypeError, ValueError):
        return False


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
    _foreign.tell()
    _process["worker"].close()
