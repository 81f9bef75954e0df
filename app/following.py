"""A watcher's WebSocket after its handshake: events go out until the log, the key or the process ends."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.types import Message, Receive, Scope, Send

from app.live import Entry, Feed
from app.resources import Resources
from core.events import Cursor, Event

# A send that takes longer has a watcher behind it that cannot keep up. The close frame that says so has to wait for
# the same buffers, and gets its own time.
SEND_SECONDS = 10.0
CLOSE_SECONDS = 10.0
_PAGE_EVENTS = 500
# Clients commonly refuse messages over 1 MiB.
_MESSAGE_CHARACTERS = 64 * 2**10
_SCOPE_KEY = "epochd.following"

_END_OF_LOG, _KEY_ENDED, _GOING_AWAY, _TOO_SLOW = 1000, 1008, 1012, 1013


@dataclass(frozen=True, slots=True)
class Following:
    """Every event of a job behind `after`, for one watcher. `newest` is the newest event of its log so far."""

    job_id: str
    newest: Event | None
    key_id: str
    after: Cursor
    resources: Resources

    async def serve(self, receive: Receive, send: Send) -> None:
        """Send one JSON object per line, several to a message where they wait, and close at the end."""
        resources, this, code = self.resources, asyncio.current_task(), None
        assert this
        with resources.watchers.seat(self.key_id) as seat, resources.feeds.watch(self.job_id, self.newest) as feed:
            seat.leave = this.cancel
            leaving = asyncio.create_task(_until_gone(receive, this.cancel))
            try:
                code = await self._send(feed, send)
            except asyncio.CancelledError:
                if not (seat.gone or leaving.done()):
                    raise
                this.uncancel()
                code = _KEY_ENDED if seat.gone else None
            finally:
                leaving.cancel()
        if code:
            # Where the client has gone meanwhile (OSError, as ASGI has it), or takes nothing, nobody is left to tell.
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await _sent(send, {"type": "websocket.close", "code": code})

    async def _send(self, feed: Feed, send: Send) -> int | None:
        """Send until the log ends or nothing more can be sent, and return the code to close with."""
        loop, cursor = asyncio.get_running_loop(), self.after
        try:
            async with asyncio.timeout(None) as patience:
                while True:
                    entries, done = await feed.after(cursor, limit=_PAGE_EVENTS)
                    for message in _messages(entries):
                        patience.reschedule(loop.time() + SEND_SECONDS)
                        await _sent(send, {"type": "websocket.send", "text": message})
                        self.resources.telemetry.traffic.streamed(len(message.encode()))
                    patience.reschedule(None)
                    if done:
                        return _END_OF_LOG
                    if feed.closed:
                        return _GOING_AWAY
                    cursor = entries[-1].cursor if entries else cursor
        except TimeoutError:
            return _TOO_SLOW
        except OSError:  # the client has gone
            return None


class Followed(FastAPI):
    """An application that serves watchers outside of all that let them in, so that nothing of that stays in memory."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, and then what it led to."""
        if scope["type"] == "websocket":
            scope = dict(scope)  # the server keeps its own, and would keep what is left in it
        await super().__call__(scope, receive, send)
        following: Following | None = scope.get(_SCOPE_KEY)
        if following:
            del scope
            await following.serve(receive, send)


def follow_after_handshake(scope: Scope, following: Following) -> None:
    """Have a watcher served as soon as the route returns that accepted the WebSocket of this scope."""
    scope[_SCOPE_KEY] = following


async def _sent(send: Send, message: Message) -> None:
    """Send. Raises OSError where the client has gone."""
    try:
        await send(message)
    except RuntimeError as error:  # what uvicorn says once it has closed by itself: pings were not answered, say
        raise ConnectionError from error


async def _until_gone(receive: Receive, then: Callable[[], object]) -> None:
    """Wait until the client has closed; what it says is of no interest."""
    while (await receive())["type"] != "websocket.disconnect":
        pass
    then()


def _messages(entries: Sequence[Entry]) -> Iterator[str]:
    lines: list[str] = []
    size = 0
    for entry in entries:
        if lines and size + len(entry.line) > _MESSAGE_CHARACTERS:
            yield "\n".join(lines)
            lines, size = [], 0
        lines.append(entry.line)
        size += len(entry.line) + 1
    if lines:
        yield "\n".join(lines)
