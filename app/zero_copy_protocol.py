"""The HTTP protocol of uvicorn, with ASGI's zero copy send: files go to a socket past this process's memory."""

import asyncio
import os
from typing import Any

import anyio.to_thread
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

EXTENSION = "http.response.zerocopysend"

# What one call may send before others have their turn.
_CHUNK_BYTES = 2**20
# A client that takes nothing may have gone: how often that is looked at.
_LOOK_SECONDS = 1.0
# Of Linux: read what is in memory already, or fail at once.
_NOWAIT = getattr(os, "RWF_NOWAIT", None)


class ZeroCopyProtocol(HttpToolsProtocol):
    """Takes the messages of the extension where the system can do it: descriptor, offset and count, more to follow."""

    def on_message_begin(self) -> None:
        """Offer it."""
        super().on_message_begin()
        if _NOWAIT is not None:
            self.scope["extensions"] = {EXTENSION: {}}

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        async def with_files(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_either(message: Message) -> None:
                if message["type"] == EXTENSION:
                    await _send_file(cycle, message["file"], message["offset"], message["count"])
                else:
                    await send(message)

            await app(scope, receive, send_either)

        application: ASGIApp = with_files
        super()._start_asgi_task(cycle, application)  # type: ignore[arg-type]  # uvicorn's types are its own


async def _send_file(cycle: RequestResponseCycle, file: int, offset: int, count: int) -> None:
    """Send a part of a file behind what was sent before, or what of it the client stays for.

    Raises RuntimeError where it is longer than the answer's stated length, or than the file.
    """
    if cycle.chunked_encoding or count > cycle.expected_content_length:
        raise RuntimeError("Response content longer than Content-Length")
    await _drain(cycle)
    if cycle.disconnected:
        return
    # A descriptor of its own: the loop lets nobody wait for one that belongs to a transport.
    socket = os.dup(cycle.transport.get_extra_info("socket").fileno())
    try:
        while count and not cycle.disconnected:
            chunk = min(count, _CHUNK_BYTES)
            if not _is_in_memory(file, offset + chunk - 1):
                await anyio.to_thread.run_sync(os.pread, file, chunk, offset)
            try:
                sent = os.sendfile(socket, file, offset, chunk)
            except BlockingIOError:
                await _until_writable(socket)
                continue
            except (BrokenPipeError, ConnectionResetError):
                cycle.disconnected = True  # the transport says so only in the loop's next round
                cycle.transport.abort()
                return
            if not sent:
                raise RuntimeError("the file became shorter while it was sent")
            offset, count = offset + sent, count - sent
            cycle.expected_content_length -= sent
            await asyncio.sleep(0)
    finally:
        os.close(socket)


async def _drain(cycle: RequestResponseCycle) -> None:
    """Wait until all that was written to the transport is in the socket, or the client has gone."""
    if cycle.transport.is_closing():
        cycle.disconnected = True
        return
    cycle.transport.set_write_buffer_limits(high=0)
    while not cycle.disconnected and cycle.transport.get_write_buffer_size():
        await cycle.flow.drain()
        await asyncio.sleep(0)
    if not cycle.transport.is_closing():
        cycle.transport.set_write_buffer_limits()


async def _until_writable(socket: int) -> None:
    loop, writable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_writer(socket, writable.set)
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            await writable.wait()
    except TimeoutError:
        pass  # and the caller looks whether the client is still there
    finally:
        loop.remove_writer(socket)


def _is_in_memory(file: int, place: int) -> bool:
    assert _NOWAIT is not None
    try:
        return os.preadv(file, [bytearray(1)], place, _NOWAIT) == 1
    except OSError:  # it is not; or the file system cannot say
        return False
