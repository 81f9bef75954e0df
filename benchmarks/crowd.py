"""Many watchers in one process: WebSockets that take in every event of their job, and how late it was.

    python -m benchmarks.crowd < crowd.json

Told on standard input `{"port", "key", "jobs", "watchers"}` (watchers for each job), it prints `ready` once all are
let in, and when every log has ended one line of JSON: events heard, watchers that heard every one in order, lags. It is
a client of the protocol's own bytes, since a library's would take longer to read than the server takes to send.
"""

import asyncio
import base64
import json
import os
import sys
import time
from datetime import datetime
from typing import ClassVar, cast

from benchmarks.installation import percentile

# So many at once are let in: a listening socket has room for not many more that wait.
_AT_ONCE = 50


class Watcher(asyncio.Protocol):
    """One WebSocket. Lags are taken by the clock of this machine, which is the writer's too."""

    made_at: ClassVar[dict[bytes, float]] = {}

    def __init__(self, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.open, self.over = loop.create_future(), loop.create_future()
        self.lags: list[float] = []
        self.code: int | None = None
        self._request, self._data, self._shaken = request, bytearray(), False
        self._last: tuple[int, int] | None = None
        self.in_order = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask to be let in."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own are of no class of asyncio's
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Take in what has come: the answer to the handshake, then frames."""
        self._data += data
        if not self._shaken:
            head, end, rest = bytes(self._data).partition(b"\r\n\r\n")
            if not end:
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                raise RuntimeError(head.decode())
            self._shaken, self._data = True, bytearray(rest)
            self.open.set_result(None)
        while (frame := self._frame()) is not None:
            self._take_in(*frame)

    def connection_lost(self, error: Exception | None) -> None:
        """The log has ended, or something broke."""
        if not self.open.done():
            self.open.set_exception(error or RuntimeError("refused"))
        self.over.set_result(None)

    def _frame(self) -> tuple[int, bytes] | None:
        data = self._data
        if len(data) < 2:
            return None
        size, start = data[1], 2
        if size >= 126:
            start = 4 if size == 126 else 10
            size = int.from_bytes(data[2:start]) if len(data) >= start else sys.maxsize
        if len(data) < start + size:
            return None
        opcode, payload = data[0] & 15, bytes(data[start : start + size])
        del data[: start + size]
        return opcode, payload

    def _take_in(self, opcode: int, payload: bytes) -> None:
        now = time.time()
        if opcode == 1:
            for line in payload.split(b"\n"):
                self._hear(line, now)
        elif opcode == 8:
            self.code = int.from_bytes(payload[:2])
            self._transport.write(b"\x88\x80\0\0\0\0")
        elif opcode == 9:  # a ping; a client's frames are masked, here with zeros
            self._transport.write(bytes((0x8A, 0x80 | len(payload))) + b"\0\0\0\0" + payload)

    def _hear(self, line: bytes, now: float) -> None:
        id_ = line[7 : line.index(b'"', 7)]
        fence, _, seq = id_.partition(b"-")
        place = (int(fence), int(seq))
        if self._last is not None and place not in ((self._last[0], self._last[1] + 1), (self._last[0] + 1, 1)):
            self.in_order = False
        self._last = place
        if b'"type":"batch"' not in line[:80]:
            return
        made = self.made_at.get(line)
        if made is None:
            made = self.made_at[line] = datetime.fromisoformat(json.loads(line)["at"]).timestamp()
        self.lags.append(now - made)


async def watch(port: int, key: str, jobs: list[str], watchers: int) -> None:
    """Watch all jobs to their ends, and tell."""
    loop, crowd = asyncio.get_running_loop(), list[Watcher]()
    paths = [f"/jobs/{job}/stream" for job in jobs for _ in range(watchers)]
    for start in range(0, len(paths), _AT_ONCE):
        await asyncio.gather(*(_join(loop, port, key, path, crowd) for path in paths[start : start + _AT_ONCE]))
    print("ready", flush=True)
    await asyncio.gather(*(watcher.over for watcher in crowd))
    lags = [lag for watcher in crowd for lag in watcher.lags]
    told = {
        "heard": len(lags),
        "each": sorted({len(watcher.lags) for watcher in crowd}),
        "complete": sum(watcher.in_order and watcher.code == 1000 for watcher in crowd),
        "median": percentile(lags, 50),
        "p99": percentile(lags, 99),
        "longest": max(lags),
    }
    print(json.dumps(told), flush=True)


async def _join(loop: asyncio.AbstractEventLoop, port: int, key: str, path: str, crowd: list[Watcher]) -> None:
    nonce = base64.b64encode(os.urandom(16)).decode()
    headers = {"Host": f"127.0.0.1:{port}", "Upgrade": "websocket", "Connection": "Upgrade", "Authorization": key}
    headers |= {"Sec-WebSocket-Key": nonce, "Sec-WebSocket-Version": "13"}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    request = "\r\n".join(lines).encode()
    _, watcher = await loop.create_connection(lambda: Watcher(request), "127.0.0.1", port)
    crowd.append(watcher)
    await watcher.open


if __name__ == "__main__":
    import uvloop

    uvloop.run(watch(**json.load(sys.stdin)))
