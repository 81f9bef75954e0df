"""`python -m app`: serves the API where the settings say, and no other machine unless they say that this is safe."""

import argparse
import asyncio
import gc
from contextlib import suppress
from types import FrameType

import uvicorn
from fastapi import FastAPI

from app.main import app
from app.patient_protocol import PatientWebSocket, patient_protocol
from core.settings import Settings

# Nobody who follows a job has anything to say.
_MOST_WEBSOCKET_BYTES = 2**16
# How many objects are made before Python looks for garbage among the young, and how often it looks among the older ones
# too. By default that is at every turn: each watcher keeps hundreds of objects alive, and all watchers wait while
# all of them are gone through.
_GARBAGE = (50_000, 20, 100)
# How often the date of answers is set.
_DATE_SECONDS = 1.0


class Server(uvicorn.Server):
    """uvicorn's, but told of its end: to look for it ten times a second costs the trainer beside it."""

    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told_to_end = asyncio.Event()

    async def main_loop(self) -> None:
        """Serve until a signal comes."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # the one of ten in which uvicorn sets the date of answers
            with suppress(TimeoutError):
                async with asyncio.timeout(_DATE_SECONDS):
                    await self._told_to_end.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End, in answer to a signal or at the wish of another thread."""
        super().handle_exit(sig, frame)
        if self._loop:
            self._loop.call_soon_threadsafe(self._told_to_end.set)


def server_config(application: FastAPI, settings: Settings, *, quiet: bool, stop_seconds: int) -> uvicorn.Config:
    """Return how uvicorn serves an application; `stop_seconds` is what open answers have at the end."""
    return uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        http=patient_protocol(settings.slow_client_seconds),
        ws=PatientWebSocket,
        ws_max_size=_MOST_WEBSOCKET_BYTES,
        # An event is small; compressing it for each watcher by itself would cost more than sending it.
        ws_per_message_deflate=False,
        server_header=False,
        access_log=not quiet,
        log_level="warning" if quiet else None,
        log_config=None,
        lifespan="on",
        timeout_graceful_shutdown=stop_seconds,
    )


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m app", description=__doc__)
    parser.add_argument("--quiet", action="store_true", help="log no request, and nothing but warnings of uvicorn")
    parser.add_argument("--stop-seconds", type=int, default=10, help="how long answers that are open at the end have")
    options = parser.parse_args()
    application = app()
    settings: Settings = application.state.resources.settings
    config = server_config(application, settings, quiet=options.quiet, stop_seconds=options.stop_seconds)
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
    with suppress(KeyboardInterrupt):  # Ctrl-C, once all is closed
        Server(config).run()


if __name__ == "__main__":
    main()
