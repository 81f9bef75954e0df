"""The bell: a Celery message that says no more than "there may be work". SQL says what the work is."""

import time
from threading import Lock

import structlog
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import ResponseError

_log = structlog.get_logger()

TASK = "epochd.run_claimable_jobs"
QUEUE = "epochd"
# How long a bell leaves a Redis alone that did not answer: a frozen one would otherwise cost a timeout a ring.
_REST_SECONDS = 2.0


def celery_app(redis_url: str) -> Celery:
    """Return the Celery application of both sides, with the settings that survived every fault tried on them."""
    app = Celery("epochd", broker=_broker_url(redis_url), set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_default_queue=QUEUE,
        task_create_missing_queues=False,
        task_queues={QUEUE: {"exchange": QUEUE, "routing_key": QUEUE}},
        # Late acks run a task in two workers after one network blip. A lost bell is made up for: idle workers look.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        # Without this a bell waits behind a busy worker while another stands idle.
        worker_disable_prefetch=True,
        # What it says is so already, for tasks that are acknowledged early; unsaid, Celery asks for it at each loss.
        worker_cancel_long_running_tasks_on_connection_loss=True,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        # A Redis that refuses (its disk is full, or a key is of another type) is one that is away: it may come back.
        broker_channel_error_retry=True,
        broker_transport_options={
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 15,
        },
    )
    return app


class Bell:
    """The sending side. A ring must not hold up whoever rings: it fails within about a second."""

    def __init__(self, redis_url: str) -> None:
        self._app = celery_app(redis_url)
        # A client waits for the ring. By default kombu tries for 6 s where Redis is away, and 10 s where it is frozen.
        self._app.conf.broker_transport_options |= {"max_retries": 0, "socket_timeout": 1, "socket_connect_timeout": 1}
        self._rest_until = 0.0
        self._lock = Lock()

    def ring(self) -> None:
        """Ring once. Where Redis does not answer, nothing is lost: the workers look by themselves every few seconds."""
        with self._lock:
            if time.monotonic() < self._rest_until:
                return
        try:
            self._app.send_task(TASK, queue=QUEUE, retry=False)
        except (OperationalError, ResponseError, ValueError) as error:  # the last two: somebody else writes there too
            with self._lock:
                self._rest_until = time.monotonic() + _REST_SECONDS
            _log.warning("bell_not_heard", reason=str(error), effect="idle workers look for the job by themselves")


def _broker_url(redis_url: str) -> str:
    # kombu's spelling of a unix socket
    return redis_url.replace("unix://", "redis+socket://", 1)
