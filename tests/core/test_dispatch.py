"""The bell: settings that survived, one task that can be named, and a Redis that may be dead."""

import signal

import pytest
from celery import Celery
from kombu import Connection

from core.dispatch import QUEUE, TASK, Bell, celery_app
from tests.services import RedisServer, redis_server, wait_for


@pytest.fixture
def app(redis: RedisServer) -> Celery:
    """The application of both sides."""
    return celery_app(redis.url)


def test_the_settings_that_were_right_are_in_force(app: Celery) -> None:
    app.finalize()
    settings = app.conf
    right = {
        "task_acks_late": False,
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        "task_ignore_result": True,
        "result_backend": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_enable_remote_control": False,
        "task_create_missing_queues": False,
        "broker_connection_retry": True,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "worker_soft_shutdown_timeout": 0.0,
        "task_time_limit": None,
        "task_soft_time_limit": None,
    }
    assert {name: settings[name] for name in right} == right
    assert settings.broker_transport_options == {
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 15,
    }
    assert list(app.amqp.queues) == [QUEUE]


def test_no_task_but_celery_s_own_is_registered(app: Celery) -> None:
    app.finalize()
    assert {name for name in app.tasks if not name.startswith("celery.")} == set()


def test_a_ring_is_one_message_for_the_one_task(redis: RedisServer) -> None:
    with Connection(celery_app(redis.url).conf.broker_url) as connection:
        queue = connection.SimpleQueue(QUEUE)
        queue.clear()
        Bell(redis.url).ring()
        message = queue.get(timeout=10)
        assert message.headers["task"] == TASK
        assert message.content_type == "application/json"
        assert message.payload[:2] == [[], {}]
        message.ack()
        assert redis.client().llen(QUEUE) == 0
        queue.close()


def test_a_unix_socket_is_spelt_as_kombu_does_and_others_stay() -> None:
    assert celery_app("unix:///a/redis.sock").conf.broker_url == "redis+socket:///a/redis.sock"
    assert celery_app("redis://:secret@host:1/0").conf.broker_url == "redis://:secret@host:1/0"


@pytest.mark.timeout(30)
def test_a_dead_redis_neither_raises_nor_holds_up_and_is_found_again() -> None:
    with redis_server() as server:
        bell = Bell(server.url)
        bell.ring()
        server.kill()
        for _ in range(6):  # 6 s each, if kombu had its way: the test's time would run out
            Bell(server.url).ring()
        for _ in range(100):
            bell.ring()
        server.start()

        def heard() -> bool:
            bell.ring()
            return bool(server.client().llen(QUEUE))

        wait_for(heard, what="a bell after Redis came back")


@pytest.mark.timeout(30)
def test_a_frozen_redis_neither_raises_nor_holds_up() -> None:
    with redis_server() as server:
        bell = Bell(server.url)
        bell.ring()
        assert server._process
        server._process.send_signal(signal.SIGSTOP)
        for _ in range(4):  # 10 s each with a worker's patience: the test's time would run out
            Bell(server.url).ring()
        for _ in range(100):  # which rests after the first
            bell.ring()
        server._process.send_signal(signal.SIGCONT)
