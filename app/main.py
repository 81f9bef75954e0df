"""The API as an application: what is served, and what stands around it."""

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from types import FrameType

import structlog
from fastapi import FastAPI

from app import errors
from app.access_log import leave_out_secrets
from app.following import Followed
from app.live import Feeds
from app.middleware import AtOnce, BodyLimit, Counted, PacedBody, RequestId, TrustedHost
from app.resources import open_resources
from app.routes import (
    checkpoints,
    datasets,
    events,
    health,
    jobs,
    logs,
    metrics,
    page,
    preview,
    prometheus,
    reference,
    stream,
    tokenizers,
    uploads,
)
from core.errors import Unusable
from core.keys import ensure_first_key
from core.log_setup import set_up_logging
from core.settings import Settings, load_settings

_log = structlog.get_logger()

# In the order in which the API describes them.
_ROUTES = (
    datasets,
    uploads,
    preview,
    tokenizers,
    jobs,
    events,
    stream,
    metrics,
    logs,
    checkpoints,
    health,
    prometheus,
    reference,
    page,
)

_DESCRIPTION = "Trains GPT-style language models: post a dataset, post a job, watch every batch, download checkpoints."


def create_app(settings: Settings) -> FastAPI:
    """Return the API of an installation. Raises Unusable, with what to do, where the installation cannot serve."""
    resources = open_resources(settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        _let_watchers_go_at_a_signal(resources.feeds)
        try:
            yield
        finally:
            await resources.close()

    if ensure_first_key(resources.work, settings.key_file):
        _log.info("first_key_made", file=str(settings.key_file))
    app = Followed(
        title="epochd",
        version=version("epochd"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        openapi_url=None,  # routes/reference.py, behind a key as everything else
        redirect_slashes=False,
    )
    app.state.resources = resources
    leave_out_secrets()
    for module in _ROUTES:
        app.include_router(module.router)
    errors.install(app)
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, settings=settings)
    app.add_middleware(PacedBody, settings=settings)
    app.add_middleware(AtOnce, settings=settings)
    app.add_middleware(TrustedHost, settings=settings)
    app.add_middleware(RequestId)
    app.add_middleware(Counted, traffic=resources.telemetry.traffic)
    return app


def app() -> FastAPI:
    """Return the API as the environment sets it up, or end the process with one sentence that says why not."""
    set_up_logging()
    for name in ("uvicorn", "uvicorn.access"):  # uvicorn's own handlers: everything goes out in one form
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    try:
        return create_app(load_settings())
    except Unusable as error:
        raise SystemExit(f"epochd: {error.detail}") from error


def _let_watchers_go_at_a_signal(feeds: Feeds) -> None:
    """End long polls and streams as soon as the process is asked to stop.

    uvicorn waits for every open answer before it tells the application that it stops: too late for answers that wait
    for the application.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(number)

        def handle(number: int, frame: FrameType | None, before: object = before) -> None:
            loop.call_soon_threadsafe(feeds.close)
            if callable(before):
                before(number, frame)

        signal.signal(number, handle)
